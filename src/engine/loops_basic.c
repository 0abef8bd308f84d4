/*
 * Loops of additions, activations of their own, gates and pools; loops_strip.h has what they are
 * made of.
 */
#include "engine/loops_strip.h"

MIX__TEMPLATE void add_as(struct mix__values y, struct mix__values a, struct mix__values b,
                          size_t n)
{
    ALIGNED float tmp[WIDE];
    for (size_t i = 0; i < n; i += WIDE) {
        const size_t m = MIN(WIDE, n - i);
        float *out = open(tmp, y, i);
        ahead(a, i, m, false);
        ahead(b, i, m, false);
        SIMD for (size_t j = 0; j < m; j++) out[j] =
            mix__values_get(a, i + j) + mix__values_get(b, i + j);
        close(y, i, tmp, m);
    }
}

static void add(struct mix__values y, struct mix__values a, struct mix__values b, size_t n)
{
    if (y.dtype == MIX__DTYPE_F32 && a.dtype == MIX__DTYPE_F32 && b.dtype == MIX__DTYPE_F32)
        add_as(F32(y), F32(a), F32(b), n);
    else if (y.dtype == MIX__DTYPE_BF16 && a.dtype == MIX__DTYPE_BF16 && b.dtype == MIX__DTYPE_BF16)
        add_as(BF16(y), BF16(a), BF16(b), n);
    else
        add_as(y, a, b, n);
}

/* SPECIALISE's branches are not looked at. */
MIX__TEMPLATE void act_forward_as(enum mix__act act, int branches, struct mix__values y,
                                  struct mix__values x, size_t n)
{
    ALIGNED float x_strip[WIDE], y_strip[WIDE];
    (void)branches;
    for (size_t i = 0; i < n; i += WIDE) {
        const size_t m = MIN(WIDE, n - i);
        const float *in = get(x_strip, x, i, m);
        float *out = open(y_strip, y, i);
        SIMD for (size_t j = 0; j < m; j++) out[j] = mix__activate(in[j], act);
        close(y, i, y_strip, m);
    }
}

static void act_forward(struct mix__values y, struct mix__values x, size_t n, enum mix__act act)
{
    if (act == MIX__ACT_NONE && x.dtype == MIX__DTYPE_F32 && y.dtype == MIX__DTYPE_BF16)
        narrow(y.at, x.at, n);
    else if (act == MIX__ACT_NONE && x.dtype == MIX__DTYPE_BF16 && y.dtype == MIX__DTYPE_F32)
        widen(y.at, x.at, n);
    else
        SPECIALISE(act_forward_as, act, 0, y, x, n)
}

MIX__TEMPLATE void act_backward_as(enum mix__act act, int accumulate, struct mix__values dx,
                                   struct mix__values dy, struct mix__values x, size_t n)
{
    ALIGNED float x_strip[WIDE], dy_strip[WIDE], dx_strip[WIDE];
    for (size_t i = 0; i < n; i += WIDE) {
        const size_t m = MIN(WIDE, n - i);
        const float *in = get(x_strip, x, i, m), *slope = get(dy_strip, dy, i, m);
        float *out = open(dx_strip, dx, i);
        if (accumulate)
            get(dx_strip, dx, i, m);
        SIMD for (size_t j = 0; j < m; j++)
        {
            const float g = activate_back(slope[j], in[j], act);
            out[j] = accumulate ? out[j] + g : g;
        }
        close(dx, i, dx_strip, m);
    }
}

static void act_backward(struct mix__values dx, struct mix__values dy, struct mix__values x,
                         size_t n, int accumulate, enum mix__act act)
{
    SPECIALISE(act_backward_as, act, accumulate ? 1 : 0, dx, dy, x, n)
}

static void gate_forward(struct mix__values y, struct mix__values x, const float *gate, size_t rows,
                         size_t c)
{
    ALIGNED float x_strip[WIDE], y_strip[WIDE];
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < c; j += WIDE) {
            const size_t n = MIN(WIDE, c - j), at = r * c + j;
            const float *in = get(x_strip, x, at, n);
            float *out = open(y_strip, y, at);
            SIMD for (size_t i = 0; i < n; i++) out[i] = in[i] * gate[j + i];
            close(y, at, y_strip, n);
        }
}

static void gate_backward(struct mix__values dx, float *dgate, struct mix__values dy,
                          struct mix__values x, const float *gate, size_t rows, size_t c,
                          int accumulate)
{
    ALIGNED float x_strip[WIDE], dy_strip[WIDE], dx_strip[WIDE];
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < c; j += WIDE) {
            const size_t n = MIN(WIDE, c - j), at = r * c + j;
            const float *in = get(x_strip, x, at, n), *slope = get(dy_strip, dy, at, n);
            float *out = open(dx_strip, dx, at);
            if (accumulate)
                get(dx_strip, dx, at, n);
            SIMD for (size_t i = 0; i < n; i++)
            {
                dgate[j + i] += slope[i] * in[i];
                out[i] = accumulate ? out[i] + slope[i] * gate[j + i] : slope[i] * gate[j + i];
            }
            close(dx, at, dx_strip, n);
        }
}

static size_t window_tap(const struct mix__pool_window *w, int t)
{
    return w->first + (size_t)(t / w->cols) * w->row + (size_t)(t % w->cols) * w->pixel;
}

/* Where x (n) is larger than best, it and the tap t take their places. On their own: inlined, gcc
 * 12 does not vectorise these two. */
static __attribute__((noinline)) void larger_f32(float *restrict best, int32_t *restrict where,
                                                 const float *restrict x, int32_t t, size_t n)
{
    SIMD for (size_t i = 0; i < n; i++)
    {
        const float v = x[i], old = best[i];
        const int32_t was = where[i];
        best[i] = v <= old ? old : v;
        where[i] = v <= old ? was : t;
    }
}

static __attribute__((noinline)) void larger_bf16(float *restrict best, int32_t *restrict where,
                                                  const uint16_t *restrict x, int32_t t, size_t n)
{
    SIMD for (size_t i = 0; i < n; i++)
    {
        const float v = mix__bf16_widen(x[i]), old = best[i];
        const int32_t was = where[i];
        best[i] = v <= old ? old : v;
        where[i] = v <= old ? was : t;
    }
}

/* best and where (n): the largest value and the first tap that has it. */
static void strip_largest(float *best, int32_t *where, struct mix__values x,
                          const struct mix__pool_window *w, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        best[i] = -INFINITY;
        where[i] = 0;
    }
    for (int t = 0; t < w->rows * w->cols; t++) {
        const void *at = mix__values_from(x, window_tap(w, t)).at;
        if (x.dtype == MIX__DTYPE_F32)
            larger_f32(best, where, at, t, n);
        else
            larger_bf16(best, where, at, t, n);
    }
}

MIX__TEMPLATE void maxpool_as(struct mix__values y, struct mix__values x,
                              const struct mix__pool_window *w, size_t c)
{
    ALIGNED float best[WIDE];
    ALIGNED int32_t where[WIDE];
    for (size_t i = 0; i < c; i += WIDE) {
        const size_t n = MIN(WIDE, c - i);
        strip_largest(best, where, mix__values_from(x, i), w, n);
        for (size_t k = 0; k < n && y.dtype == MIX__DTYPE_F32; k++)
            ((float *)y.at)[i + k] = best[k];
        close(y, i, best, n);
    }
}

MIX__TEMPLATE void maxpool_backward_as(struct mix__values dx, struct mix__values dy,
                                       struct mix__values x, const struct mix__pool_window *w,
                                       size_t c)
{
    ALIGNED float best[WIDE], tmp[WIDE];
    ALIGNED int32_t where[WIDE];
    for (size_t i = 0; i < c; i += WIDE) {
        const size_t n = MIN(WIDE, c - i);
        const struct mix__values g = mix__values_from(dy, i);
        strip_largest(best, where, mix__values_from(x, i), w, n);
        for (int t = 0; t < w->rows * w->cols; t++) {
            const struct mix__values to = mix__values_from(dx, window_tap(w, t) + i);
            float *out = open(tmp, to, 0);
            SIMD for (size_t k = 0; k < n; k++) out[k] =
                mix__values_get(to, k) + (where[k] == t ? mix__values_get(g, k) : 0.0f);
            close(to, 0, tmp, n);
        }
    }
}

static void maxpool(struct mix__values y, struct mix__values x, const struct mix__pool_window *w,
                    size_t c)
{
    if (x.dtype == MIX__DTYPE_F32)
        maxpool_as(y, F32(x), w, c);
    else
        maxpool_as(y, BF16(x), w, c);
}

static void maxpool_backward(struct mix__values dx, struct mix__values dy, struct mix__values x,
                             const struct mix__pool_window *w, size_t c)
{
    if (dx.dtype == MIX__DTYPE_BF16 && dy.dtype == MIX__DTYPE_BF16 && x.dtype == MIX__DTYPE_BF16)
        maxpool_backward_as(BF16(dx), BF16(dy), BF16(x), w, c);
    else
        maxpool_backward_as(dx, dy, x, w, c);
}

void MIX__LOOPS_NAME(mix__loops_fill_basic)(struct mix__loops *loops)
{
    loops->add = add;
    loops->act_forward = act_forward;
    loops->act_backward = act_backward;
    loops->maxpool = maxpool;
    loops->maxpool_backward = maxpool_backward;
    loops->gate_forward = gate_forward;
    loops->gate_backward = gate_backward;
}
