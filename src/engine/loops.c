/*
 * Loops over values: quantizer, batch norm, activation. Depthwise convolution is in
 * loops_depthwise.c.
 *
 * All run over strips of at most WIDE floats that lie side by side. A strip is a block of one
 * row's channels or, where rows are short, several whole rows; per-channel values are repeated to
 * the strip's length.
 *
 *   c = 24    | row 0 | row 1 |  ...  | row 9 |               a strip of 240
 *   c = 320   | row 0, channels 0..159 | channels 160..319 |  two strips
 *
 * bfloat16 becomes float32, and back, a strip at a time (get, open, close); the loops of batch
 * norm, which take most of the time, are made for each combination of types. Those that read
 * bfloat16 multiply by 1 / step where the others divide.
 *
 * Sums are kept for each place in the strip, in float for at most FOLD strips and in double
 * after that. No sum crosses a vector, so every vector length gives the same bits; nothing is
 * contracted to FMA either (-ffp-contract=off).
 */
#include "engine/loops_isa.h"

#include <assert.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
#include <string.h>

enum { WIDE = 256, FOLD = 256, GRAIN = 16, PARTIAL = 8, AHEAD = 4096 /* bytes */ };

#define SIMD      _Pragma("omp simd")
#define ALIGNED   _Alignas(64)
#define MIN(a, b) ((a) < (b) ? (a) : (b))

struct strip {
    size_t first, width; /* channels [first, first + width)        */
    size_t rows;         /* rows in a strip; 1 unless width == c   */
};

/* Blocks of nearly equal width; width 0 behind the last one. */
static struct strip strip_at(size_t c, size_t first)
{
    if (first >= c)
        return (struct strip){ 0 };
    const size_t blocks = (c + WIDE - 1) / WIDE;
    const size_t even = ((c + blocks - 1) / blocks + GRAIN - 1) / GRAIN * GRAIN;
    const size_t width = MIN(even, c - first);
    return (struct strip){ first, width, width == c ? WIDE / c : 1 };
}

static __attribute__((noinline)) void widen(float *to, const uint16_t *from, size_t n)
{
    SIMD for (size_t i = 0; i < n; i++) to[i] = mix__bf16_widen(from[i]);
}

/* Strips of values as floats: where they are, or in tmp. */
static const float *get(float *tmp, struct mix__values x, size_t at, size_t n)
{
    if (x.dtype == MIX__DTYPE_F32)
        return (const float *)x.at + at;
    widen(tmp, (const uint16_t *)x.at + at, n);
    return tmp;
}

/* to = from, rounded. Where the CPU does it, numbers below 2^-126 become 0. */
static __attribute__((noinline)) void narrow(uint16_t *to, const float *from, size_t n)
{
    size_t i = 0;
#ifdef __AVX512BF16__
    for (; i + GRAIN <= n; i += GRAIN)
        _mm256_storeu_si256((__m256i *)(void *)(to + i),
                            (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from + i)));
#endif
    SIMD for (size_t k = i; k < n; k++) to[k] = mix__bf16_round(from[k]);
}

/* Where a strip of results is written, and what is left to do then. */
MIX__TEMPLATE float *open(float *tmp, struct mix__values y, size_t at)
{
    return y.dtype == MIX__DTYPE_F32 ? (float *)y.at + at : tmp;
}

MIX__TEMPLATE void close(struct mix__values y, size_t at, const float *tmp, size_t n)
{
    if (y.dtype == MIX__DTYPE_BF16)
        narrow((uint16_t *)y.at + at, tmp, n);
}

/* Asks for what lies behind a strip, to be read or written soon: the CPU's own prefetching alone
 * leaves the loops waiting for memory. */
MIX__TEMPLATE void ahead(struct mix__values x, size_t at, size_t n, bool write)
{
    const char *from = (const char *)mix__values_from(x, at).at + AHEAD;
    for (size_t b = 0; b < n * mix__dtype_size(x.dtype); b += 64)
        if (write)
            __builtin_prefetch(from + b, 1);
        else
            __builtin_prefetch(from + b, 0);
}

/* The values of a strip's channels to its places. */
static void spread(float *out, const float *in, const struct strip *s)
{
    for (size_t r = 0; r < s->rows; r++)
        memcpy(out + r * s->width, in, s->width * sizeof *out);
}

/* The sum of WIDE floats, in an order that does not depend on the vector length. */
static double total(const float *place)
{
    double part[PARTIAL] = { 0 }, sum = 0;
    for (size_t i = 0; i < WIDE; i += PARTIAL)
        for (size_t k = 0; k < PARTIAL; k++)
            part[k] += place[i + k];
    for (size_t k = 0; k < PARTIAL; k++)
        sum += part[k];
    return sum;
}

/* dy times the slope of the activation at u. */
MIX__TEMPLATE float activate_back(float dy, float u, enum mix__act act)
{
    if (act == MIX__ACT_RELU)
        return u > 0.0f ? dy : 0.0f;
    if (act == MIX__ACT_HARDSWISH) {
        const float inside = dy * ((2.0f * u + 3.0f) / 6.0f), above = u >= 3.0f ? dy : inside;
        return u > -3.0f ? above : 0.0f;
    }
    if (act == MIX__ACT_HARDSIGMOID)
        return (u > -3.0f) & (u < 3.0f) ? dy / 6.0f : 0.0f;
    return act == MIX__ACT_NONE || ((u > 0.0f) & (u < 6.0f)) ? dy : 0.0f;
}

/*
 * Activation and number of branches (2 stands for any number above 1) become constants. The
 * first arguments of f are these two.
 */
enum { MANY = 2 };
#define CASE(f, act, branches, ...)                                                                \
    case 3 * (act) + (branches):                                                                   \
        f(act, branches, __VA_ARGS__);                                                             \
        break;
#define CASES(f, act, ...)                                                                         \
    CASE(f, act, 0, __VA_ARGS__)                                                                   \
    CASE(f, act, 1, __VA_ARGS__)                                                                   \
    CASE(f, act, MANY, __VA_ARGS__)
#define SPECIALISE(f, act, branches, ...)                                                          \
    switch (3 * (int)(act) + MIN(branches, MANY)) {                                                \
        CASES(f, MIX__ACT_NONE, __VA_ARGS__)                                                       \
        CASES(f, MIX__ACT_RELU, __VA_ARGS__)                                                       \
        CASES(f, MIX__ACT_RELU6, __VA_ARGS__)                                                      \
        CASES(f, MIX__ACT_HARDSWISH, __VA_ARGS__)                                                  \
        CASES(f, MIX__ACT_HARDSIGMOID, __VA_ARGS__)                                                \
    }

/* The same values, their type a constant. */
#define F32(v)  ((struct mix__values){ (v).at, MIX__DTYPE_F32 })
#define BF16(v) ((struct mix__values){ (v).at, MIX__DTYPE_BF16 })

/* The affine map's values at each place of a strip. NULL: the identity. */
struct places {
    const float *scale, *offset;
};

MIX__TEMPLATE float affine_at(const struct places *p, size_t i, float z)
{
    return p ? p->scale[i] * z + p->offset[i] : z;
}

/* (x + shift) / step, or times its reciprocal. */
MIX__TEMPLATE float scaled(float x, float step, const struct mix__bounds *b, bool half)
{
    return half ? (x + b->shift) * (1.0f / step) : (x + b->shift) / step;
}

/*
 * With one branch on bfloat16, and an activation that only clips, the steps from z to the code
 * become one affine map and a clip: v = clip(scale / step * z + offset / step, low, high), code =
 * round(clip(v, n, p)).
 */
struct folded {
    float low, high; /* of the activation, in steps */
};

MIX__TEMPLATE bool folds(enum mix__act act, int branches, struct mix__values z,
                         const struct mix__fake *fake)
{
    return branches == 1 && z.dtype == MIX__DTYPE_BF16 && fake->bounds[0].shift == 0.0f &&
           (act == MIX__ACT_NONE || act == MIX__ACT_RELU || act == MIX__ACT_RELU6);
}

MIX__TEMPLATE struct folded fold(enum mix__act act, float *scale, float *offset, float step)
{
    const float inverse = 1.0f / step;
    SIMD for (size_t i = 0; i < WIDE; i++)
    {
        scale[i] *= inverse;
        offset[i] *= inverse;
    }
    return (struct folded){ act == MIX__ACT_NONE ? -INFINITY : 0.0f,
                            act == MIX__ACT_RELU6 ? 6.0f * inverse : INFINITY };
}

MIX__TEMPLATE void strip_codes(const struct folded *f, struct mix__values y, struct mix__values z,
                               size_t n, const struct places *p, const struct mix__fake *fake)
{
    ALIGNED float tmp[WIDE];
    float *out = open(tmp, y, 0);
    const struct mix__bounds b = fake->bounds[0];
    const float low = f->low > b.n ? f->low : b.n, high = f->high < b.p ? f->high : b.p;
    const float unit = fake->codes ? 1.0f : fake->step[0];
    SIMD for (size_t i = 0; i < n; i++)
    {
        const float v = affine_at(p, i, mix__values_get(z, i));
        out[i] = unit * mix__round(mix__clip(v, low, high));
    }
    close(y, 0, tmp, n);
}

/* y = fake(act(affine(z))), n <= WIDE; y may be z. */
MIX__TEMPLATE void strip_forward(enum mix__act act, int branches, struct mix__values y,
                                 struct mix__values z, size_t n, const struct places *p,
                                 const struct mix__fake *fake)
{
    ALIGNED float a[WIDE], tmp[WIDE];
    const bool half = z.dtype == MIX__DTYPE_BF16;
    float *out = open(tmp, y, 0);
    if (branches == 0) {
        SIMD for (size_t i = 0; i < n; i++) out[i] =
            mix__activate(affine_at(p, i, mix__values_get(z, i)), act);
    } else if (branches == 1) {
        const struct mix__bounds b = fake->bounds[0];
        const struct mix__bounds values = { .shift = fake->codes ? 0.0f : b.shift };
        const float step = fake->step[0], unit = fake->codes ? 1.0f : step;
        SIMD for (size_t i = 0; i < n; i++)
        {
            const float x = mix__activate(affine_at(p, i, mix__values_get(z, i)), act);
            const float code = mix__round(mix__clip(scaled(x, step, &b, half), b.n, b.p));
            out[i] = mix__dequantize(code, unit, &values);
        }
    } else {
        SIMD for (size_t i = 0; i < n; i++)
        {
            a[i] = mix__activate(affine_at(p, i, mix__values_get(z, i)), act);
            out[i] = 0.0f;
        }
        for (int k = 0; k < fake->n_branch; k++) {
            const struct mix__bounds b = fake->bounds[k];
            const float step = fake->step[k], weight = fake->weight[k];
            SIMD for (size_t i = 0; i < n; i++) out[i] +=
                weight * mix__dequantize(mix__quantize(a[i], step, &b), step, &b);
        }
    }
    close(y, 0, tmp, n);
}

/* The sums of a fake quantizer at each place; strips counts those since the last fold. */
struct fake_places {
    ALIGNED float step[MIX__BRANCH_MAX][WIDE], weight[MIX__BRANCH_MAX][WIDE];
    int strips;
};

static void fake_clear(struct fake_places *at, int branches)
{
    at->strips = 0;
    for (int k = 0; k < branches; k++) {
        memset(at->step[k], 0, sizeof at->step[k]);
        memset(at->weight[k], 0, sizeof at->weight[k]);
    }
}

static void fake_fold(struct fake_places *at, const struct mix__fake *fake,
                      struct mix__fake_sums *sums)
{
    for (int k = 0; k < fake->n_branch; k++) {
        const bool mixed = fake->n_branch > 1;
        sums->step[k] += total(at->step[k]) * (mixed ? (double)fake->weight[k] : 1.0);
        if (mixed)
            sums->weight[k] += total(at->weight[k]);
    }
    fake_clear(at, fake->n_branch);
}

/* One value through one branch: q - v inside the bounds, the bound outside. */
MIX__TEMPLATE float step_slope(float x, float step, const struct mix__bounds *b, bool half,
                               float *code, bool *inside)
{
    const float v = scaled(x, step, b, half), clipped = mix__clip(v, b->n, b->p);
    *code = mix__round(clipped);
    *inside = v == clipped;
    return *code - (*inside ? v : 0.0f);
}

/* keep[i] = sum over branches of weight * [n <= v <= p], and the quantizer's sums. */
static inline void strip_branches(float *restrict keep, const float *restrict a, const float *dy,
                                  size_t n, const struct mix__fake *fake,
                                  struct fake_places *restrict at)
{
    memset(keep, 0, n * sizeof *keep);
    for (int k = 0; k < fake->n_branch; k++) {
        const struct mix__bounds b = fake->bounds[k];
        const float step = fake->step[k], weight = fake->weight[k];
        float *restrict step_at = at->step[k], *restrict weight_at = at->weight[k];
        SIMD for (size_t i = 0; i < n; i++)
        {
            float code;
            bool inside;
            const float slope = step_slope(a[i], step, &b, false, &code, &inside);
            step_at[i] += dy[i] * slope;
            weight_at[i] += dy[i] * mix__dequantize(code, step, &b);
            keep[i] += inside ? weight : 0.0f;
        }
    }
}

/* dx = or += dy through the quantizer of x, n <= WIDE; dx may be dy. */
MIX__TEMPLATE void strip_backward(int branches, int accumulate, float *dx, const float *dy,
                                  const float *x, size_t n, const struct mix__fake *fake,
                                  struct fake_places *at)
{
    if (branches == 1) {
        const struct mix__bounds b = fake->bounds[0];
        const float step = fake->step[0];
        float *restrict step_at = at->step[0];
        SIMD for (size_t i = 0; i < n; i++)
        {
            float code;
            bool inside;
            step_at[i] += dy[i] * step_slope(x[i], step, &b, false, &code, &inside);
            const float g = inside ? dy[i] : 0.0f;
            dx[i] = accumulate ? dx[i] + g : g;
        }
        return;
    }
    ALIGNED float keep[WIDE];
    strip_branches(keep, x, dy, n, fake, at);
    SIMD for (size_t i = 0; i < n; i++)
    {
        const float g = keep[i] * dy[i];
        dx[i] = accumulate ? dx[i] + g : g;
    }
}

MIX__TEMPLATE void forward_flat(enum mix__act act, int branches, struct mix__values y,
                                struct mix__values x, size_t n, const struct mix__fake *fake)
{
    ALIGNED float x_strip[WIDE], y_strip[WIDE];
    for (size_t i = 0; i < n; i += WIDE) {
        const size_t m = MIN(WIDE, n - i);
        strip_forward(act, branches, mix__f32(open(y_strip, y, i)), mix__f32(get(x_strip, x, i, m)),
                      m, NULL, fake);
        close(y, i, y_strip, m);
    }
}

static void fake_forward(struct mix__values y, struct mix__values x, size_t n,
                         const struct mix__fake *fake)
{
    switch (MIN(fake->n_branch, MANY)) {
        CASES(forward_flat, MIX__ACT_NONE, y, x, n, fake)
    }
}

MIX__TEMPLATE void backward_flat(int branches, int accumulate, struct mix__values dx,
                                 struct mix__values dy, struct mix__values x, size_t n,
                                 const struct mix__fake *fake, struct mix__fake_sums *sums)
{
    ALIGNED float x_strip[WIDE], dy_strip[WIDE], dx_strip[WIDE];
    struct fake_places at;
    fake_clear(&at, fake->n_branch);
    for (size_t i = 0; i < n; i += WIDE) {
        const size_t m = MIN(WIDE, n - i);
        float *out = open(dx_strip, dx, i);
        if (accumulate)
            get(dx_strip, dx, i, m);
        strip_backward(branches, accumulate, out, get(dy_strip, dy, i, m), get(x_strip, x, i, m), m,
                       fake, &at);
        close(dx, i, dx_strip, m);
        if (++at.strips == FOLD)
            fake_fold(&at, fake, sums);
    }
    fake_fold(&at, fake, sums);
}

static void act_backward(struct mix__values dx, struct mix__values dy, struct mix__values x,
                         size_t n, int accumulate, enum mix__act act);

static void fake_backward(struct mix__values dx, struct mix__values dy, struct mix__values x,
                          size_t n, int accumulate, const struct mix__fake *fake,
                          struct mix__fake_sums *sums)
{
    if (fake->n_branch == 0)
        act_backward(dx, dy, x, n, accumulate, MIX__ACT_NONE);
    else if (fake->n_branch == 1 && accumulate)
        backward_flat(1, 1, dx, dy, x, n, fake, sums);
    else if (fake->n_branch == 1)
        backward_flat(1, 0, dx, dy, x, n, fake, sums);
    else
        backward_flat(MANY, accumulate, dx, dy, x, n, fake, sums);
}

static void fake_slope(struct mix__values y, struct mix__values x, size_t n,
                       const struct mix__fake *fake)
{
    ALIGNED float x_strip[WIDE], y_strip[WIDE];
    const struct mix__bounds b = fake->bounds[0];
    const float step = fake->step[0];
    for (size_t i = 0; i < n; i += WIDE) {
        const size_t m = MIN(WIDE, n - i);
        const float *in = get(x_strip, x, i, m);
        float *out = open(y_strip, y, i);
        SIMD for (size_t j = 0; j < m; j++)
        {
            float code;
            bool inside;
            out[j] = step_slope(in[j], step, &b, false, &code, &inside);
        }
        close(y, i, y_strip, m);
    }
}

static double abs_sum(struct mix__values x, size_t n, float shift)
{
    ALIGNED float at[WIDE] = { 0 }, strip[WIDE];
    double sum = 0;
    int strips = 0;
    for (size_t i = 0; i < n; i += WIDE) {
        const size_t m = MIN(WIDE, n - i);
        const float *values = get(strip, x, i, m);
        SIMD for (size_t j = 0; j < m; j++) at[j] += fabsf(values[j] + shift);
        if (++strips == FOLD) {
            sum += total(at);
            memset(at, 0, sizeof at);
            strips = 0;
        }
    }
    return sum + total(at);
}

/* Adds a strip's sums to the channels' ones and clears them. */
static void fold_channels(double *sum, float *at, const struct strip *s)
{
    for (size_t k = 0; k < s->rows; k++)
        SIMD for (size_t i = 0; i < s->width; i++) sum[i] += at[k * s->width + i];
    memset(at, 0, WIDE * sizeof *at);
}

/* One pass: sums of z - reference and of its square, reference being the first row. */
MIX__TEMPLATE void norm_stats_as(float *mean, float *m2, struct mix__values z, size_t rows,
                                 size_t c)
{
    ALIGNED float first[WIDE], place[WIDE], one[WIDE] = { 0 }, two[WIDE] = { 0 };
    double sum[WIDE], square[WIDE];
    for (struct strip s = strip_at(c, 0); s.width; s = strip_at(c, s.first + s.width)) {
        memset(sum, 0, sizeof sum);
        memset(square, 0, sizeof square);
        memset(first, 0, sizeof first);
        for (size_t i = 0; i < s.width && rows; i++)
            first[i] = mix__values_get(z, s.first + i);
        spread(place, first, &s);
        for (size_t r = 0, strips = 1; r < rows; r += s.rows, strips++) {
            const size_t n = MIN(s.rows, rows - r) * s.width;
            const struct mix__values row = mix__values_from(z, r * c + s.first);
            SIMD for (size_t i = 0; i < n; i++)
            {
                const float d = mix__values_get(row, i) - place[i];
                one[i] += d;
                two[i] += d * d;
            }
            if (strips % FOLD && r + s.rows < rows)
                continue;
            fold_channels(sum, one, &s);
            fold_channels(square, two, &s);
        }
        for (size_t i = 0; i < s.width; i++) {
            const double offset = rows ? sum[i] / (double)rows : 0.0;
            const double left = square[i] - offset * sum[i];
            mean[s.first + i] = (float)(first[i] + offset);
            m2[s.first + i] = left > 0 ? (float)left : 0.0f;
        }
    }
}

static void norm_stats(float *mean, float *m2, struct mix__values z, size_t rows, size_t c)
{
    if (z.dtype == MIX__DTYPE_F32)
        norm_stats_as(mean, m2, F32(z), rows, c);
    else
        norm_stats_as(mean, m2, BF16(z), rows, c);
}

static void row_sums(double *sum, struct mix__values x, size_t rows, size_t c)
{
    ALIGNED float at[WIDE] = { 0 }, tmp[WIDE];
    for (struct strip s = strip_at(c, 0); s.width; s = strip_at(c, s.first + s.width))
        for (size_t r = 0, strips = 1; r < rows; r += s.rows, strips++) {
            const size_t n = MIN(s.rows, rows - r) * s.width;
            const float *row = get(tmp, x, r * c + s.first, n);
            SIMD for (size_t i = 0; i < n; i++) at[i] += row[i];
            if (strips % FOLD == 0 || r + s.rows >= rows)
                fold_channels(sum + s.first, at, &s);
        }
}

MIX__TEMPLATE void norm_forward_as(enum mix__act act, int branches, struct mix__values y,
                                   struct mix__values z, size_t rows, size_t c,
                                   const struct mix__affine *affine, const struct mix__fake *fake)
{
    ALIGNED float scale[WIDE], offset[WIDE];
    const struct places p = { scale, offset };
    const bool folding = folds(act, branches, z, fake);
    struct folded f = { 0 };
    for (struct strip s = strip_at(c, 0); s.width; s = strip_at(c, s.first + s.width)) {
        spread(scale, affine->scale + s.first, &s);
        spread(offset, affine->offset + s.first, &s);
        if (folding)
            f = fold(act, scale, offset, fake->step[0]);
        for (size_t r = 0; r < rows; r += s.rows) {
            const size_t n = MIN(s.rows, rows - r) * s.width, at = r * c + s.first;
            ahead(z, at, n, false);
            if (folding)
                strip_codes(&f, mix__values_from(y, at), mix__values_from(z, at), n, &p, fake);
            else
                strip_forward(act, branches, mix__values_from(y, at), mix__values_from(z, at), n,
                              &p, fake);
        }
    }
}

static void norm_forward(struct mix__values y, struct mix__values z, size_t rows, size_t c,
                         const struct mix__affine *affine, const struct mix__fake *fake)
{
    if (z.dtype == MIX__DTYPE_F32) {
        assert(y.dtype == MIX__DTYPE_F32);
        SPECIALISE(norm_forward_as, affine->act, fake->n_branch, F32(y), F32(z), rows, c, affine,
                   fake)
    } else if (y.dtype == MIX__DTYPE_F32) {
        SPECIALISE(norm_forward_as, affine->act, fake->n_branch, F32(y), BF16(z), rows, c, affine,
                   fake)
    } else {
        SPECIALISE(norm_forward_as, affine->act, fake->n_branch, BF16(y), BF16(z), rows, c, affine,
                   fake)
    }
}

/* What the backward pass knows and adds up at each place of a strip. */
struct norm_places {
    ALIGNED float scale[WIDE], offset[WIDE], mean[WIDE], beta[WIDE], gamma[WIDE];
};

MIX__TEMPLATE void strip_codes_backward(enum mix__act act, const struct folded *f,
                                        struct mix__values du, struct mix__values dy,
                                        struct mix__values z, size_t n,
                                        struct norm_places *restrict p,
                                        const struct mix__fake *fake, float *restrict step_at)
{
    ALIGNED float tmp[WIDE];
    float *out = open(tmp, du, 0);
    const struct mix__bounds b = fake->bounds[0];
    const float low = f->low, high = f->high;
    SIMD for (size_t i = 0; i < n; i++)
    {
        const float at = mix__values_get(z, i), v = p->scale[i] * at + p->offset[i];
        const float x = mix__clip(v, low, high), clipped = mix__clip(x, b.n, b.p);
        const bool inside = x == clipped;
        const float g = mix__values_get(dy, i);
        step_at[i] += g * (mix__round(clipped) - (inside ? x : 0.0f));
        const bool through = act == MIX__ACT_NONE ? inside : inside & (v > low) & (v < high);
        const float back = through ? g : 0.0f;
        out[i] = back;
        p->beta[i] += back;
        p->gamma[i] += back * (at - p->mean[i]);
    }
    close(du, 0, tmp, n);
}

MIX__TEMPLATE void strip_norm_backward(enum mix__act act, int branches, struct mix__values du,
                                       struct mix__values dy, struct mix__values z, size_t n,
                                       struct norm_places *restrict p, const struct mix__fake *fake,
                                       struct fake_places *restrict at)
{
    ALIGNED float a[WIDE], keep[WIDE], slope[WIDE], tmp[WIDE];
    float *out = open(tmp, du, 0);
    const bool half = z.dtype == MIX__DTYPE_BF16;
    const struct mix__bounds b = fake->bounds[0];
    const float step = fake->step[0];
    if (branches == MANY) {
        SIMD for (size_t i = 0; i < n; i++)
        {
            a[i] = mix__activate(p->scale[i] * mix__values_get(z, i) + p->offset[i], act);
            slope[i] = mix__values_get(dy, i);
        }
        strip_branches(keep, a, slope, n, fake, at);
    }
    float *restrict step_at = at->step[0];
    SIMD for (size_t i = 0; i < n; i++)
    {
        const float v = mix__values_get(z, i), u = p->scale[i] * v + p->offset[i];
        float g = mix__values_get(dy, i);
        if (branches == 1) {
            float code;
            bool inside;
            step_at[i] += g * step_slope(mix__activate(u, act), step, &b, half, &code, &inside);
            g = inside ? g : 0.0f;
        } else if (branches == MANY) {
            g = keep[i] * g;
        }
        g = activate_back(g, u, act);
        out[i] = g;
        p->beta[i] += g;
        p->gamma[i] += g * (v - p->mean[i]);
    }
    close(du, 0, tmp, n);
}

static void norm_fold(struct norm_places *p, const struct strip *s, const float *rstd, float *dbeta,
                      float *dgamma)
{
    for (size_t k = 0; k < s->rows; k++)
        SIMD for (size_t i = 0; i < s->width; i++)
        {
            dbeta[s->first + i] += p->beta[k * s->width + i];
            dgamma[s->first + i] += p->gamma[k * s->width + i] * rstd[s->first + i];
        }
    memset(p->beta, 0, sizeof p->beta);
    memset(p->gamma, 0, sizeof p->gamma);
}

MIX__TEMPLATE void norm_backward_as(enum mix__act act, int branches, struct mix__values du,
                                    struct mix__values dy, struct mix__values z, size_t rows,
                                    size_t c, const struct mix__affine *affine, const float *mean,
                                    const float *rstd, const struct mix__fake *fake, float *dbeta,
                                    float *dgamma, struct mix__fake_sums *sums)
{
    struct norm_places p;
    struct fake_places at;
    const bool folding = folds(act, branches, z, fake);
    struct folded f = { 0 };
    fake_clear(&at, fake->n_branch);
    memset(p.beta, 0, sizeof p.beta);
    memset(p.gamma, 0, sizeof p.gamma);
    for (struct strip s = strip_at(c, 0); s.width; s = strip_at(c, s.first + s.width)) {
        spread(p.scale, affine->scale + s.first, &s);
        spread(p.offset, affine->offset + s.first, &s);
        spread(p.mean, mean + s.first, &s);
        if (folding)
            f = fold(act, p.scale, p.offset, fake->step[0]);
        for (size_t r = 0; r < rows; r += s.rows) {
            const size_t n = MIN(s.rows, rows - r) * s.width, first = r * c + s.first;
            ahead(du, first, n, true);
            const struct mix__values to = mix__values_from(du, first);
            const struct mix__values slope = mix__values_from(dy, first);
            const struct mix__values from = mix__values_from(z, first);
            if (folding)
                strip_codes_backward(act, &f, to, slope, from, n, &p, fake, at.step[0]);
            else
                strip_norm_backward(act, branches, to, slope, from, n, &p, fake, &at);
            if (++at.strips < FOLD)
                continue;
            norm_fold(&p, &s, rstd, dbeta, dgamma);
            fake_fold(&at, fake, sums);
        }
        norm_fold(&p, &s, rstd, dbeta, dgamma);
    }
    fake_fold(&at, fake, sums);
}

static void norm_backward_sums(struct mix__values du, struct mix__values dy, struct mix__values z,
                               size_t rows, size_t c, const struct mix__affine *affine,
                               const float *mean, const float *rstd, const struct mix__fake *fake,
                               float *dbeta, float *dgamma, struct mix__fake_sums *sums)
{
    assert(du.dtype == z.dtype);
    if (z.dtype == MIX__DTYPE_F32) {
        assert(dy.dtype == MIX__DTYPE_F32);
        SPECIALISE(norm_backward_as, affine->act, fake->n_branch, F32(du), F32(dy), F32(z), rows, c,
                   affine, mean, rstd, fake, dbeta, dgamma, sums)
    } else if (dy.dtype == MIX__DTYPE_F32) {
        SPECIALISE(norm_backward_as, affine->act, fake->n_branch, BF16(du), F32(dy), BF16(z), rows,
                   c, affine, mean, rstd, fake, dbeta, dgamma, sums)
    } else {
        SPECIALISE(norm_backward_as, affine->act, fake->n_branch, BF16(du), BF16(dy), BF16(z), rows,
                   c, affine, mean, rstd, fake, dbeta, dgamma, sums)
    }
}

MIX__TEMPLATE void norm_backward_input_as(struct mix__values dz, struct mix__values du,
                                          struct mix__values z, size_t rows, size_t c,
                                          const float *k1, const float *k2, const float *k3)
{
    ALIGNED float a[WIDE], b[WIDE], d[WIDE], tmp[WIDE];
    for (struct strip s = strip_at(c, 0); s.width; s = strip_at(c, s.first + s.width)) {
        spread(a, k1 + s.first, &s);
        spread(b, k2 + s.first, &s);
        spread(d, k3 + s.first, &s);
        for (size_t r = 0; r < rows; r += s.rows) {
            const size_t n = MIN(s.rows, rows - r) * s.width, at = r * c + s.first;
            const struct mix__values u = mix__values_from(du, at), v = mix__values_from(z, at);
            float *out = open(tmp, dz, at);
            ahead(du, at, n, false);
            ahead(z, at, n, false);
            SIMD for (size_t i = 0; i < n; i++) out[i] =
                a[i] * mix__values_get(u, i) + b[i] * mix__values_get(v, i) + d[i];
            close(dz, at, tmp, n);
        }
    }
}

static void norm_backward_input(struct mix__values dz, struct mix__values du, struct mix__values z,
                                size_t rows, size_t c, const float *k1, const float *k2,
                                const float *k3)
{
    assert(du.dtype == z.dtype);
    if (z.dtype == MIX__DTYPE_F32) {
        assert(dz.dtype == MIX__DTYPE_F32);
        norm_backward_input_as(F32(dz), F32(du), F32(z), rows, c, k1, k2, k3);
    } else if (dz.dtype == MIX__DTYPE_F32) {
        norm_backward_input_as(F32(dz), BF16(du), BF16(z), rows, c, k1, k2, k3);
    } else {
        norm_backward_input_as(BF16(dz), BF16(du), BF16(z), rows, c, k1, k2, k3);
    }
}

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

static void act_forward(struct mix__values y, struct mix__values x, size_t n, enum mix__act act)
{
    const struct mix__fake off = { 0 };
    if (act == MIX__ACT_NONE && x.dtype == MIX__DTYPE_F32 && y.dtype == MIX__DTYPE_BF16)
        narrow(y.at, x.at, n);
    else if (act == MIX__ACT_NONE && x.dtype == MIX__DTYPE_BF16 && y.dtype == MIX__DTYPE_F32)
        widen(y.at, x.at, n);
    else
        SPECIALISE(forward_flat, act, 0, y, x, n, &off)
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

void MIX__LOOPS_NAME(mix__loops_fill)(struct mix__loops *loops)
{
    loops->fake_forward = fake_forward;
    loops->fake_backward = fake_backward;
    loops->fake_slope = fake_slope;
    loops->abs_sum = abs_sum;
    loops->norm_stats = norm_stats;
    loops->norm_forward = norm_forward;
    loops->norm_backward_sums = norm_backward_sums;
    loops->norm_backward_input = norm_backward_input;
    loops->add = add;
    loops->row_sums = row_sums;
    loops->act_forward = act_forward;
    loops->act_backward = act_backward;
    loops->maxpool = maxpool;
    loops->maxpool_backward = maxpool_backward;
    loops->gate_forward = gate_forward;
    loops->gate_backward = gate_backward;
}
