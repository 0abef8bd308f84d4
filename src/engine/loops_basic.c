/*
 * Loops of additions, activations of their own, gates and pools; loops_vec.h has what they compute
 * with.
 */
#include "engine/loops_strip.h"
#include "engine/loops_vec.h"

MIX__TEMPLATE void add_vec(size_t i, int lanes, struct mix__values y, struct mix__values a,
                           struct mix__values b)
{
    vec_store(y, i, vec_load(a, i, lanes) + vec_load(b, i, lanes), lanes);
}

MIX__TEMPLATE void add_as(struct mix__values y, struct mix__values a, struct mix__values b,
                          size_t n)
{
    for (size_t i = 0; i < n; i += WIDE) {
        const size_t m = MIN(WIDE, n - i);
        ahead(a, i, m, false);
        ahead(b, i, m, false);
        EACH_VEC(m, add_vec, mix__values_from(y, i), mix__values_from(a, i),
                 mix__values_from(b, i));
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

MIX__TEMPLATE void act_vec(size_t i, int lanes, enum mix__act act, struct mix__values y,
                           struct mix__values x)
{
    vec_store(y, i, vec_activate(vec_load(x, i, lanes), act), lanes);
}

/* SPECIALISE's branches are not looked at. */
MIX__TEMPLATE void act_forward_as(enum mix__act act, int branches, struct mix__values y,
                                  struct mix__values x, size_t n)
{
    (void)branches;
    EACH_VEC(n, act_vec, act, y, x);
}

static void act_forward(struct mix__values y, struct mix__values x, size_t n, enum mix__act act)
{
    if (x.dtype == MIX__DTYPE_F32 && y.dtype == MIX__DTYPE_BF16)
        SPECIALISE(act_forward_as, act, 0, BF16(y), F32(x), n)
    else if (x.dtype == MIX__DTYPE_BF16 && y.dtype == MIX__DTYPE_F32)
        SPECIALISE(act_forward_as, act, 0, F32(y), BF16(x), n)
    else
        SPECIALISE(act_forward_as, act, 0, y, x, n)
}

MIX__TEMPLATE void act_back_vec(size_t i, int lanes, enum mix__act act, bool accumulate,
                                struct mix__values dx, struct mix__values dy, struct mix__values x)
{
    const vec g = vec_activate_back(vec_load(dy, i, lanes), vec_load(x, i, lanes), act);
    vec_store(dx, i, accumulate ? vec_load(dx, i, lanes) + g : g, lanes);
}

MIX__TEMPLATE void act_backward_as(enum mix__act act, bool accumulate, struct mix__values dx,
                                   struct mix__values dy, struct mix__values x, size_t n)
{
    EACH_VEC(n, act_back_vec, act, accumulate, dx, dy, x);
}

static void act_backward(struct mix__values dx, struct mix__values dy, struct mix__values x,
                         size_t n, bool accumulate, enum mix__act act){
    SPECIALISE(act_backward_as, act, accumulate ? 1 : 0, dx, dy, x, n)
}

MIX__TEMPLATE void gate_vec(size_t i, int lanes, struct mix__values y, struct mix__values x,
                            const float *gate)
{
    vec_store(y, i, vec_load(x, i, lanes) * vec_get(gate + i, lanes), lanes);
}

static void gate_forward(struct mix__values y, struct mix__values x, const float *gate, size_t rows,
                         size_t c)
{
    for (size_t r = 0; r < rows; r++)
        EACH_VEC(c, gate_vec, mix__values_from(y, r * c), mix__values_from(x, r * c), gate);
}

MIX__TEMPLATE void gate_back_vec(size_t i, int lanes, struct mix__values dx, float *dgate,
                                 struct mix__values dy, struct mix__values x, const float *gate,
                                 bool accumulate)
{
    const vec slope = vec_load(dy, i, lanes), g = slope * vec_get(gate + i, lanes);
    vec_put(dgate + i, vec_get(dgate + i, lanes) + slope * vec_load(x, i, lanes), lanes);
    vec_store(dx, i, accumulate ? vec_load(dx, i, lanes) + g : g, lanes);
}

static void gate_backward(struct mix__values dx, float *dgate, struct mix__values dy,
                          struct mix__values x, const float *gate, size_t rows, size_t c,
                          bool accumulate)
{
    for (size_t r = 0; r < rows; r++)
        EACH_VEC(c, gate_back_vec, mix__values_from(dx, r * c), dgate, mix__values_from(dy, r * c),
                 mix__values_from(x, r * c), gate, accumulate);
}

/* Of one direction: the pixels [first, end) of the picture that a window has, or the windows that a
 * pixel is in, and the place of the first pixel in the window, or of the pixel in the first window:
 * the next one is one further, or a stride less. */
struct reach {
    int first, end, place;
};

MIX__TEMPLATE struct reach window_of(const struct mix__pool_shape *s, int window, int n)
{
    const int at = window * s->stride - s->pad, first = MAX(at, 0);
    return (struct reach){ first, MIN(at + s->kernel, n), first - at };
}

MIX__TEMPLATE struct reach windows_with(const struct mix__pool_shape *s, int pixel, int n)
{
    const int at = pixel + s->pad, behind = at - s->kernel;
    const int first = behind < 0 ? 0 : behind / s->stride + 1;
    return (struct reach){ first, MIN(at / s->stride + 1, n), at - first * s->stride };
}

MIX__TEMPLATE void pool_vec(size_t i, int lanes, struct mix__values y, uint8_t *where,
                            struct mix__values z, const struct mix__affine *affine,
                            const struct mix__pool_shape *s, const struct reach *rows,
                            const struct reach *cols)
{
    const vec scale = affine->scale ? vec_get(affine->scale + i, lanes) : (vec){ 0 };
    const vec offset = affine->scale ? vec_get(affine->offset + i, lanes) : (vec){ 0 };
    vec tap = vec_all((float)(rows->place * s->kernel + cols->place));
    vec best = vec_all(-INFINITY), which = tap;
    for (int h = rows->first; h < rows->end; h++) {
        for (int w = cols->first; w < cols->end; w++) {
            vec v = vec_load(z, ((size_t)h * s->w + w) * s->c + i, lanes);
            if (affine->scale)
                v = vec_activate(scale * v + offset, affine->act);
            const vec_mask stays = vec_at_most(v, best);
            best = vec_choose(stays, best, v);
            which = vec_choose(stays, which, tap);
            tap += 1.0f;
        }
        tap += (float)(s->kernel - (cols->end - cols->first));
    }
    vec_store(y, i, best, lanes);
    if (where)
        vec_bytes(where + i, which, lanes);
}

MIX__TEMPLATE void maxpool_as(struct mix__values y, uint8_t *where, struct mix__values z,
                              const struct mix__affine *affine, const struct mix__pool_shape *s,
                              int row)
{
    const struct reach rows = window_of(s, row, s->h);
    for (int col = 0; col < s->ow; col++) {
        const struct reach cols = window_of(s, col, s->w);
        const size_t at = (size_t)col * s->c;
        for (int h = MAX(rows.first, rows.end - s->stride); h < rows.end; h++)
            ahead(z, ((size_t)h * s->w + cols.first) * s->c, (size_t)s->stride * s->c, false);
        EACH_VEC((size_t)s->c, pool_vec, mix__values_from(y, at), where ? where + at : NULL, z,
                 affine, s, &rows, &cols);
    }
}

static void maxpool(struct mix__values y, uint8_t *where, struct mix__values z,
                    const struct mix__affine *affine, const struct mix__pool_shape *s, int row)
{
    if (y.dtype == MIX__DTYPE_BF16 && z.dtype == MIX__DTYPE_BF16)
        maxpool_as(BF16(y), where, BF16(z), affine, s, row);
    else
        maxpool_as(y, where, z, affine, s, row);
}

MIX__TEMPLATE void pool_back_vec(size_t i, int lanes, struct mix__values dx, struct mix__values dy,
                                 const uint8_t *where, bool accumulate,
                                 const struct mix__pool_shape *s, const struct reach *rows,
                                 const struct reach *cols)
{
    vec sum = { 0 };
    int row_tap = rows->place * s->kernel + cols->place;
    for (int p = rows->first; p < rows->end; p++, row_tap -= s->stride * s->kernel) {
        int tap = row_tap;
        for (int q = cols->first; q < cols->end; q++, tap -= s->stride) {
            const size_t at = ((size_t)p * s->ow + q) * s->c + i;
            sum +=
                vec_keep(vec_equal_bytes(where + at, lanes, (uint8_t)tap), vec_load(dy, at, lanes));
        }
    }
    vec_store(dx, i, accumulate ? vec_load(dx, i, lanes) + sum : sum, lanes);
}

MIX__TEMPLATE void maxpool_backward_as(struct mix__values dx, struct mix__values dy,
                                       const uint8_t *where, bool accumulate,
                                       const struct mix__pool_shape *s, int row)
{
    const struct reach rows = windows_with(s, row, s->oh);
    for (int col = 0; col < s->w; col++) {
        const struct reach cols = windows_with(s, col, s->ow);
        EACH_VEC((size_t)s->c, pool_back_vec, mix__values_from(dx, (size_t)col * s->c), dy, where,
                 accumulate, s, &rows, &cols);
    }
}

static void maxpool_backward(struct mix__values dx, struct mix__values dy, const uint8_t *where,
                             bool accumulate, const struct mix__pool_shape *s, int row)
{
    if (dx.dtype == MIX__DTYPE_BF16 && dy.dtype == MIX__DTYPE_BF16)
        maxpool_backward_as(BF16(dx), BF16(dy), where, accumulate, s, row);
    else
        maxpool_backward_as(dx, dy, where, accumulate, s, row);
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
