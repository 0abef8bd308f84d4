/*
 * Loops of the quantizer and of batch norm with its activation and quantizer; loops_strip.h has
 * what they are made of. Additions, activations of their own, gates and pools are in
 * loops_basic.c, depthwise convolution is in loops_depthwise.c.
 */
#include "engine/loops_strip.h"

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
    if (branches == 0) {
        SIMD for (size_t i = 0; i < n; i++) dx[i] = accumulate ? dx[i] + dy[i] : dy[i];
        return;
    }
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

static void fake_backward(struct mix__values dx, struct mix__values dy, struct mix__values x,
                          size_t n, int accumulate, const struct mix__fake *fake,
                          struct mix__fake_sums *sums)
{
    if (fake->n_branch == 0)
        backward_flat(0, accumulate, dx, dy, x, n, fake, sums);
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
    loops->row_sums = row_sums;
}
