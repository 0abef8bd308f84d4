/*
 * Loops of the quantizer and of batch norm with its activation and quantizer; loops_strip.h has
 * what they walk over, loops_vec.h what they compute with, loops_fake.h the quantizer. Additions,
 * activations of their own, gates and pools are in loops_basic.c, depthwise convolution is in
 * loops_depthwise.c.
 */
#include "engine/loops_fake.h"

/*
 * Sums per channel stay in registers over CHUNK strips: a block of BLOCK vectors, which is one line
 * of bfloat16 where there are registers enough, is walked down the strips before the next one.
 */
enum { BLOCK = LANES == 16 ? 2 : 1, CHUNK = 16 };

/* The affine map at each place of a strip. */
struct affine_places {
    ALIGNED float scale[WIDE], offset[WIDE];
};

/* The channels' map to the strip's places; folding: with the step in it. */
MIX__TEMPLATE void affine_spread(struct affine_places *p, const struct mix__affine *affine,
                                 const struct strip *s, bool folding, float inverse)
{
    spread(p->scale, affine->scale + s->first, s);
    spread(p->offset, affine->offset + s->first, s);
    if (folding)
        SIMD for (size_t i = 0; i < WIDE; i++)
        {
            p->scale[i] *= inverse;
            p->offset[i] *= inverse;
        }
}

/* ---- forward --------------------------------------------------------------------------------- */

MIX__TEMPLATE void forward_vec(size_t i, int lanes, int branches, struct mix__values y,
                               struct mix__values x, const struct branch *one,
                               const struct mix__fake *fake)
{
    vec_store(y, i, fake_vec(branches, false, vec_load(x, i, lanes), one, fake), lanes);
}

MIX__TEMPLATE void fake_forward_as(int branches, struct mix__values y, struct mix__values x,
                                   size_t n, const struct mix__fake *fake)
{
    const struct branch one = branch_at(fake, 0);
    for (size_t i = 0; i < n; i += WIDE) {
        const size_t m = MIN(WIDE, n - i);
        ahead(x, i, m, false);
        EACH_VEC(m, forward_vec, branches, mix__values_from(y, i), mix__values_from(x, i), &one,
                 fake);
    }
}

static void fake_forward(struct mix__values y, struct mix__values x, size_t n,
                         const struct mix__fake *fake)
{
    if (fake->n_branch == 0)
        fake_forward_as(0, y, x, n, fake);
    else if (fake->n_branch == 1)
        fake_forward_as(1, y, x, n, fake);
    else
        fake_forward_as(MANY, y, x, n, fake);
}

MIX__TEMPLATE vec affine_vec(struct mix__values z, size_t i, int lanes,
                             const struct affine_places *p)
{
    return vec_get(p->scale + i, LANES) * vec_load(z, i, lanes) + vec_get(p->offset + i, LANES);
}

MIX__TEMPLATE void norm_vec(size_t i, int lanes, enum mix__act act, int branches, bool folding,
                            struct mix__values y, struct mix__values z,
                            const struct affine_places *p, const struct folded *f,
                            const struct branch *one, const struct mix__fake *fake)
{
    const bool half = z.dtype == MIX__DTYPE_BF16;
    const vec v = affine_vec(z, i, lanes, p);
    vec_store(y, i, forward_of(act, branches, folding, half, v, f, one, fake), lanes);
}

MIX__TEMPLATE void norm_forward_as(enum mix__act act, int branches, struct mix__values y,
                                   struct mix__values z, size_t rows, size_t c,
                                   const struct mix__affine *affine, const struct mix__fake *fake)
{
    struct affine_places p = { 0 };
    const bool folding = folds(act, branches, z, fake);
    const struct branch one = branch_at(fake, 0);
    const struct folded f = folded_at(act, &one);
    for (struct strip s = strip_at(c, 0); s.width; s = strip_at(c, s.first + s.width)) {
        affine_spread(&p, affine, &s, folding, one.inverse);
        for (size_t r = 0; r < rows; r += s.rows) {
            const size_t n = MIN(s.rows, rows - r) * s.width, at = r * c + s.first;
            const struct mix__values to = mix__values_from(y, at), from = mix__values_from(z, at);
            ahead(z, at, n, false);
            if (folding)
                EACH_VEC(n, norm_vec, act, branches, true, to, from, &p, &f, &one, fake);
            else
                EACH_VEC(n, norm_vec, act, branches, false, to, from, &p, &f, &one, fake);
        }
    }
}

static void norm_forward(struct mix__values y, struct mix__values z, size_t rows, size_t c,
                         const struct mix__affine *affine, const struct mix__fake *fake)
{
    const bool whole = z.dtype == MIX__DTYPE_F32;
    if (y.dtype == MIX__DTYPE_S8 || y.dtype == MIX__DTYPE_U8) {
        assert(fake->codes && fake->n_branch == 1);
        if (whole)
            SPECIALISE(norm_forward_as, affine->act, 1, BYTE(y), F32(z), rows, c, affine, fake)
        else
            SPECIALISE(norm_forward_as, affine->act, 1, BYTE(y), BF16(z), rows, c, affine, fake)
    } else if (whole) {
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

/* ---- backward -------------------------------------------------------------------------------- */

MIX__TEMPLATE void backward_vec(size_t i, int lanes, int branches, bool accumulate,
                                struct mix__values dx, struct mix__values dy, struct mix__values x,
                                const struct branch *one, const struct mix__fake *fake,
                                struct fake_places *at)
{
    vec step = vec_get(at->step[0] + i, LANES);
    const vec g = fake_back(branches, false, vec_load(dy, i, lanes), vec_load(x, i, lanes), one,
                            &step, i, fake, at);
    if (branches == 1)
        vec_put(at->step[0] + i, step, LANES);
    vec_store(dx, i, accumulate ? vec_load(dx, i, lanes) + g : g, lanes);
}

MIX__TEMPLATE void fake_backward_as(int branches, bool accumulate, struct mix__values dx,
                                    struct mix__values dy, struct mix__values x, size_t n,
                                    const struct mix__fake *fake, struct mix__fake_sums *sums)
{
    const struct branch one = branch_at(fake, 0);
    const size_t places = MIN(WIDE, (n + GRAIN - 1) / GRAIN * GRAIN); /* of short rows: weights */
    struct fake_places at;
    fake_clear(&at, fake->n_branch, places);
    for (size_t i = 0, strips = 1; i < n; i += WIDE, strips++) {
        ahead(x, i, MIN(WIDE, n - i), false);
        ahead(dx, i, MIN(WIDE, n - i), true);
        EACH_VEC(MIN(WIDE, n - i), backward_vec, branches, accumulate, mix__values_from(dx, i),
                 mix__values_from(dy, i), mix__values_from(x, i), &one, fake, &at);
        if (strips % FOLD == 0)
            fake_fold(&at, places, fake, sums);
    }
    fake_fold(&at, places, fake, sums);
}

static void fake_backward(struct mix__values dx, struct mix__values dy, struct mix__values x,
                          size_t n, bool accumulate, const struct mix__fake *fake,
                          struct mix__fake_sums *sums)
{
    if (fake->n_branch == 0)
        fake_backward_as(0, accumulate, dx, dy, x, n, fake, sums);
    else if (fake->n_branch == 1)
        fake_backward_as(1, accumulate, dx, dy, x, n, fake, sums);
    else
        fake_backward_as(MANY, accumulate, dx, dy, x, n, fake, sums);
}

MIX__TEMPLATE void slope_vec(size_t i, int lanes, struct mix__values y, struct mix__values x,
                             const struct branch *one)
{
    vec code;
    vec_mask inside;
    vec_store(y, i, step_slope(scaled(vec_load(x, i, lanes), one, false), one, &code, &inside),
              lanes);
}

static void fake_slope(struct mix__values y, struct mix__values x, size_t n,
                       const struct mix__fake *fake)
{
    const struct branch one = branch_at(fake, 0);
    EACH_VEC(n, slope_vec, y, x, &one);
}

/* What batch norm's backward pass knows and adds up at each place of a strip. */
struct norm_places {
    struct affine_places affine;
    ALIGNED float mean[WIDE], beta[WIDE], gamma[WIDE];
    struct fake_places fake;
};

/* Where a walk down some strips begins, what it reads and what it writes. */
struct walk {
    struct mix__values to, dy, z;
    bool stream;
    size_t at, stride, strips;
};

/* Turns to the strips from this row on: at most `most` whole ones, or the last, which is less.
 * Gives the places of each. */
static size_t walk_from(struct walk *w, const struct strip *s, size_t c, size_t row, size_t rows,
                        size_t most)
{
    const size_t left = rows - row, whole = left / s->rows;
    w->at = row * c + s->first;
    w->stride = s->rows * c;
    w->strips = whole ? MIN(most, whole) : 1;
    return MIN(s->rows, left) * s->width;
}

/* f(first place, vectors, LANES or fewer, ...) for every block of n places. */
#define EACH_BLOCK(n, f, ...)                                                                      \
    do {                                                                                           \
        size_t at_ = 0;                                                                            \
        for (; at_ + BLOCK * LANES <= (n); at_ += BLOCK * LANES)                                   \
            f(at_, BLOCK, LANES, __VA_ARGS__);                                                     \
        for (; at_ < (n); at_ += LANES)                                                            \
            f(at_, 1, (int)MIN(LANES, (n)-at_), __VA_ARGS__);                                      \
    } while (0)

/* `wide` vectors from place i on, down the strips; lanes < LANES: with one vector that is less. */
MIX__TEMPLATE void backward_block(size_t i, int wide, int lanes, enum mix__act act, int branches,
                                  bool folding, const struct walk *w, struct norm_places *p,
                                  const struct folded_back *f, const struct mix__fake *fake)
{
    vec scale[BLOCK], offset[BLOCK], mean[BLOCK], beta[BLOCK], gamma[BLOCK], step[BLOCK];
    vec du[BLOCK];
    const struct branch one = branch_at(fake, 0);
    const bool half = w->z.dtype == MIX__DTYPE_BF16;
    UNROLL for (int k = 0; k < wide; k++)
    {
        const size_t at = i + (size_t)k * LANES;
        scale[k] = vec_get(p->affine.scale + at, LANES);
        offset[k] = vec_get(p->affine.offset + at, LANES);
        mean[k] = vec_get(p->mean + at, LANES);
        beta[k] = vec_get(p->beta + at, LANES);
        gamma[k] = vec_get(p->gamma + at, LANES);
        if (branches == 1)
            step[k] = vec_get(p->fake.step[0] + at, LANES);
    }
    size_t at = w->at + i;
    for (size_t r = 0; r < w->strips; r++, at += w->stride) {
        ahead(w->z, at, 1, false);
        if (!w->stream)
            ahead(w->to, at, 1, true);
        UNROLL for (int k = 0; k < wide; k++)
        {
            const size_t here = at + (size_t)k * LANES;
            const vec z = vec_load(w->z, here, lanes), v = scale[k] * z + offset[k];
            vec g = vec_load(w->dy, here, lanes);
            g = back_of(act, branches, folding, half, g, v, f, &one, &step[k],
                        i + (size_t)k * LANES, fake, &p->fake);
            du[k] = g;
            beta[k] += g;
            gamma[k] += g * (z - mean[k]);
        }
        vec_store_wide(w->to, at, du, wide, lanes, w->stream);
    }
    UNROLL for (int k = 0; k < wide; k++)
    {
        const size_t to = i + (size_t)k * LANES;
        vec_put(p->beta + to, beta[k], LANES);
        vec_put(p->gamma + to, gamma[k], LANES);
        if (branches == 1)
            vec_put(p->fake.step[0] + to, step[k], LANES);
    }
}

static void norm_fold(struct norm_places *p, const struct strip *s,
                      const struct mix__norm_back *back)
{
    for (size_t k = 0; k < s->rows; k++)
        SIMD for (size_t i = 0; i < s->width; i++)
        {
            back->dbeta[s->first + i] += p->beta[k * s->width + i];
            back->dgamma[s->first + i] += p->gamma[k * s->width + i] * back->rstd[s->first + i];
        }
    memset(p->beta, 0, sizeof p->beta);
    memset(p->gamma, 0, sizeof p->gamma);
}

MIX__TEMPLATE void norm_backward_as(enum mix__act act, int branches, struct mix__values du,
                                    struct mix__values dy, struct mix__values z, size_t rows,
                                    size_t c, const struct mix__norm_back *back, bool stream)
{
    const struct mix__fake *fake = back->fake;
    struct norm_places p;
    struct walk w = { .to = du, .dy = dy, .z = z, .stream = stream };
    const bool folding = folds(act, branches, z, fake);
    const struct branch one = branch_at(fake, 0);
    const struct folded_back f = folded_back_at(act, &one);
    fake_clear(&p.fake, fake->n_branch, WIDE);
    memset(&p, 0, offsetof(struct norm_places, fake));
    for (struct strip s = strip_at(c, 0); s.width; s = strip_at(c, s.first + s.width)) {
        affine_spread(&p.affine, &back->affine, &s, folding, one.inverse);
        spread(p.mean, back->mean + s.first, &s);
        for (size_t r = 0; r < rows; r += w.strips * s.rows) {
            const size_t n = walk_from(&w, &s, c, r, rows, CHUNK);
            if (folding)
                EACH_BLOCK(n, backward_block, act, branches, true, &w, &p, &f, fake);
            else
                EACH_BLOCK(n, backward_block, act, branches, false, &w, &p, &f, fake);
            if ((r / s.rows + w.strips) % FOLD)
                continue;
            norm_fold(&p, &s, back);
            fake_fold(&p.fake, WIDE, fake, back->sums);
        }
        norm_fold(&p, &s, back);
        fake_fold(&p.fake, WIDE, fake, back->sums);
    }
    if (stream)
        vec_stream_end();
}

static void norm_backward_sums(struct mix__values du, struct mix__values dy, struct mix__values z,
                               size_t rows, size_t c, const struct mix__norm_back *back,
                               bool stream)
{
    const enum mix__act act = back->affine.act;
    const int branches = back->fake->n_branch;
    assert(du.dtype == z.dtype);
    if (z.dtype == MIX__DTYPE_F32) {
        assert(dy.dtype == MIX__DTYPE_F32);
        SPECIALISE(norm_backward_as, act, branches, F32(du), F32(dy), F32(z), rows, c, back, stream)
    } else if (dy.dtype == MIX__DTYPE_F32) {
        SPECIALISE(norm_backward_as, act, branches, BF16(du), F32(dy), BF16(z), rows, c, back,
                   stream)
    } else {
        SPECIALISE(norm_backward_as, act, branches, BF16(du), BF16(dy), BF16(z), rows, c, back,
                   stream)
    }
}

struct input_places {
    ALIGNED float k1[WIDE], k2[WIDE], k3[WIDE];
};

MIX__TEMPLATE void input_vec(size_t i, int lanes, struct mix__values dz, struct mix__values du,
                             struct mix__values z, const struct input_places *p)
{
    vec_store(dz, i,
              vec_get(p->k1 + i, LANES) * vec_load(du, i, lanes) +
                  vec_get(p->k2 + i, LANES) * vec_load(z, i, lanes) + vec_get(p->k3 + i, LANES),
              lanes);
}

MIX__TEMPLATE void norm_backward_input_as(struct mix__values dz, struct mix__values du,
                                          struct mix__values z, size_t rows, size_t c,
                                          const float *k1, const float *k2, const float *k3)
{
    struct input_places p = { 0 };
    for (struct strip s = strip_at(c, 0); s.width; s = strip_at(c, s.first + s.width)) {
        spread(p.k1, k1 + s.first, &s);
        spread(p.k2, k2 + s.first, &s);
        spread(p.k3, k3 + s.first, &s);
        for (size_t r = 0; r < rows; r += s.rows) {
            const size_t n = MIN(s.rows, rows - r) * s.width, at = r * c + s.first;
            ahead(du, at, n, false);
            ahead(z, at, n, false);
            EACH_VEC(n, input_vec, mix__values_from(dz, at), mix__values_from(du, at),
                     mix__values_from(z, at), &p);
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

/* ---- sums ------------------------------------------------------------------------------------ */

MIX__TEMPLATE void abs_vec(size_t i, int lanes, float *at, struct mix__values x, float shift)
{
    const vec v = vec_load(x, i, lanes) + shift;
    vec_put(at + i, vec_get(at + i, lanes) + vec_max(v, -v), lanes);
}

/* What a strip's sums come to; clears them. */
static double fold(float *at)
{
    const double sum = total(at, WIDE);
    memset(at, 0, WIDE * sizeof *at);
    return sum;
}

static double abs_sum(struct mix__values x, size_t n, float shift)
{
    ALIGNED float at[WIDE] = { 0 };
    double sum = 0;
    for (size_t i = 0, strips = 1; i < n; i += WIDE, strips++) {
        EACH_VEC(MIN(WIDE, n - i), abs_vec, at, mix__values_from(x, i), shift);
        if (strips % FOLD == 0)
            sum += fold(at);
    }
    return sum + fold(at);
}

MIX__TEMPLATE void dot_vec(size_t i, int lanes, float *at, struct mix__values x,
                           struct mix__values y)
{
    vec_put(at + i, vec_get(at + i, lanes) + vec_load(x, i, lanes) * vec_load(y, i, lanes), lanes);
}

static double dot(struct mix__values x, struct mix__values y, size_t n)
{
    ALIGNED float at[WIDE] = { 0 };
    double sum = 0;
    for (size_t i = 0, strips = 1; i < n; i += WIDE, strips++) {
        EACH_VEC(MIN(WIDE, n - i), dot_vec, at, mix__values_from(x, i), mix__values_from(y, i));
        if (strips % FOLD == 0)
            sum += fold(at);
    }
    return sum + fold(at);
}

/* Adds a strip's sums to the channels' ones and clears them. */
static void fold_channels(double *sum, float *at, const struct strip *s)
{
    for (size_t k = 0; k < s->rows; k++)
        SIMD for (size_t i = 0; i < s->width; i++) sum[i] += at[k * s->width + i];
    memset(at, 0, WIDE * sizeof *at);
}

/* Sums of z - place and of its square, of `wide` vectors down the strips; streams z where that is
 * wanted. */
MIX__TEMPLATE void stats_block(size_t i, int wide, int lanes, const struct walk *w,
                               const float *place, float *one, float *two)
{
    vec from[BLOCK], sum[BLOCK], square[BLOCK], z[BLOCK];
    UNROLL for (int k = 0; k < wide; k++)
    {
        const size_t at = i + (size_t)k * LANES;
        from[k] = vec_get(place + at, LANES);
        sum[k] = vec_get(one + at, LANES);
        square[k] = vec_get(two + at, LANES);
    }
    size_t at = w->at + i;
    for (size_t r = 0; r < w->strips; r++, at += w->stride) {
        ahead(w->z, at, 1, false);
        UNROLL for (int k = 0; k < wide; k++)
        {
            z[k] = vec_load(w->z, at + (size_t)k * LANES, lanes);
            const vec d = z[k] - from[k];
            sum[k] += d;
            square[k] += d * d;
        }
        if (w->to.at != w->z.at)
            vec_store_wide(w->to, at, z, wide, lanes, w->stream);
    }
    UNROLL for (int k = 0; k < wide; k++)
    {
        const size_t to = i + (size_t)k * LANES;
        vec_put(one + to, sum[k], lanes);
        vec_put(two + to, square[k], lanes);
    }
}

/* One pass: sums of z - reference and of its square, reference being the first row. */
MIX__TEMPLATE void norm_stats_as(float *mean, float *m2, struct mix__values to,
                                 struct mix__values z, size_t rows, size_t c, bool stream)
{
    ALIGNED float first[WIDE], place[WIDE] = { 0 }, one[WIDE] = { 0 }, two[WIDE] = { 0 };
    double sum[WIDE], square[WIDE];
    struct walk w = { .to = to, .z = z, .stream = stream };
    for (struct strip s = strip_at(c, 0); s.width; s = strip_at(c, s.first + s.width)) {
        memset(sum, 0, sizeof sum);
        memset(square, 0, sizeof square);
        memset(first, 0, sizeof first);
        for (size_t i = 0; i < s.width && rows; i++)
            first[i] = mix__values_get(z, s.first + i);
        spread(place, first, &s);
        for (size_t r = 0; r < rows; r += w.strips * s.rows) {
            const size_t n = walk_from(&w, &s, c, r, rows, FOLD);
            EACH_BLOCK(n, stats_block, &w, place, one, two);
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
    if (w.stream)
        vec_stream_end();
}

static void norm_stats(float *mean, float *m2, struct mix__values to, struct mix__values z,
                       size_t rows, size_t c, bool stream)
{
    if (to.dtype == MIX__DTYPE_F32) {
        assert(z.dtype == MIX__DTYPE_F32);
        norm_stats_as(mean, m2, F32(to), F32(z), rows, c, stream);
    } else if (z.dtype == MIX__DTYPE_F32)
        norm_stats_as(mean, m2, BF16(to), F32(z), rows, c, stream);
    else
        norm_stats_as(mean, m2, BF16(to), BF16(z), rows, c, stream);
}

MIX__TEMPLATE void sum_vec(size_t i, int lanes, float *at, struct mix__values x)
{
    vec_put(at + i, vec_get(at + i, lanes) + vec_load(x, i, lanes), lanes);
}

static void row_sums(double *sum, struct mix__values x, size_t rows, size_t c)
{
    ALIGNED float at[WIDE] = { 0 };
    for (struct strip s = strip_at(c, 0); s.width; s = strip_at(c, s.first + s.width))
        for (size_t r = 0, strips = 1; r < rows; r += s.rows, strips++) {
            EACH_VEC(MIN(s.rows, rows - r) * s.width, sum_vec, at,
                     mix__values_from(x, r * c + s.first));
            if (strips % FOLD == 0 || r + s.rows >= rows)
                fold_channels(sum + s.first, at, &s);
        }
}

void MIX__LOOPS_NAME(mix__loops_fill)(struct mix__loops *loops)
{
    loops->streams = STREAMS;
    loops->fake_forward = fake_forward;
    loops->fake_backward = fake_backward;
    loops->fake_slope = fake_slope;
    loops->abs_sum = abs_sum;
    loops->dot = dot;
    loops->norm_stats = norm_stats;
    loops->norm_forward = norm_forward;
    loops->norm_backward_sums = norm_backward_sums;
    loops->norm_backward_input = norm_backward_input;
    loops->row_sums = row_sums;
}
