/*
 * Depthwise convolution, kernels 3 and 5 with strides 1 and 2, with the batch norms, activations
 * and quantizers on both sides.
 *
 * Some columns of the output are worked on a block of channels at a time, from the top down, each
 * vector of channels from a copy of the last few rows of the input: padded with zeros, without the
 * gap of the other channels.
 *
 *    (h,w,c)                            copy, one vector each, at the upper left
 *    +---------+---------+-----         +---+---+---+---
 *    |..cccc...|..cccc...|              | 0 | 0 | 0 |
 *    +---------+---------+-----   ->    +---+---+---+---
 *    |..cccc...|..cccc...|              | 0 | c | c |
 *
 * So arithmetic knows no borders, costs one load from L1 for a tap, and strides of a power of two
 * do not fight for the same cache sets. What is copied is made on the way from what is in memory
 * (fill), and what comes out is some rows in L1, handed on by what they are for (store, hand_back):
 * neither the input as it is read nor a gradient at it is ever in memory. The gradient of the input
 * is the same convolution: over dz with stride - 1 gaps between its values, with the weights turned
 * by half a turn; taps that meet gaps are left out.
 *
 * Taps and gradients are FMA where there is one; nothing else is, as codes of a quantizer are made
 * here.
 */
#include "engine/loops_fake.h"

enum {
    BLOCK = LANES > 4 ? 2 : 1, /* vectors at a time: a cache line where it is there */
    COPY_MAX = 216,            /* places in a copy, which with results fills L1     */
    RESULT_MAX = 64,           /* places that come out at a time                    */
    COLS_MAX = 32,             /* of an input's, so that copies have rows enough    */
    KERNEL_MAX = 5,
    TAPS_MAX = KERNEL_MAX * KERNEL_MAX,
    FEW = 4,                             /* places that are summed side by side */
    PLACES = MAX(BLOCK * LANES, PARTIAL) /* of a block, with none left over for total() */
};

/* Two rows of a stride of 2 come out of a copy at least. */
_Static_assert(COPY_MAX / (COLS_MAX + KERNEL_MAX - 1) > KERNEL_MAX, "copies are too small");

/* Vectors of channels, beginning with `first`: BLOCK whole ones, or one of so many lanes. */
struct block {
    int first, wide, lanes;
};

static struct block block_at(int first, int c)
{
    return first + BLOCK * LANES <= c ? (struct block){ first, BLOCK, LANES }
                                      : (struct block){ first, 1, MIN(LANES, c - first) };
}

static void get_block(vec *to, const float *from, const struct block *b)
{
    for (int k = 0; k < b->wide; k++)
        to[k] = vec_get(from + b->first + (ptrdiff_t)k * LANES, b->lanes);
}

static void add_block(float *to, const vec *sum, const struct block *b)
{
    for (int k = 0; k < b->wide; k++) {
        float *at = to + b->first + (ptrdiff_t)k * LANES;
        vec_put(at, vec_get(at, b->lanes) + sum[k], b->lanes);
    }
}

/* An image (h, w, c) with `spacing` - 1 gaps between its values and endless zeros around them, in
 * memory from its row `row` on. */
struct image {
    int h, w, c, spacing, row;
};

/* A copy's place in an image: columns [left, left + width), and of rows from `top` on the last
 * `height`, row r at (r - top) % height. next: so many pixels on is where the next copy begins. */
struct window {
    int top, height, left, width;
    ptrdiff_t next;
};

static int ceil_div(int a, int b)
{
    return a > 0 ? (a + b - 1) / b : 0;
}

/* Of `all` columns of input those that are worked on at a time, a multiple of the stride. */
static int cols_of(int all, int stride)
{
    const int pieces = (all + COLS_MAX - 1) / COLS_MAX, cols = (all + pieces - 1) / pieces;
    return (cols + stride - 1) / stride * stride;
}

/* From (top, left) on, which are the kernel's first taps; next: so many columns, or rows where
 * those were the last ones, are between one window and the next. */
static struct window window_at(const struct image *x, int top, int left, int width, int next_rows,
                               int next_cols)
{
    const int d = x->spacing;
    return (struct window){ .top = top,
                            .height = COPY_MAX / width,
                            .left = left,
                            .width = width,
                            .next = (ptrdiff_t)(next_rows / d) * x->w + next_cols / d };
}

/* Where a row is in a copy, and one that is fewer rows after it than the copy has. */
static int place_of(const struct window *w, int row)
{
    return (row - w->top) % w->height;
}

MIX__TEMPLATE int place_after(const struct window *w, int place, int rows)
{
    return place + rows < w->height ? place + rows : place + rows - w->height;
}

/* ---- filling a copy -------------------------------------------------------------------------- */

/* Where an image's values come from: one of these. */
struct source {
    const struct mix__dw_input *input;
    const struct mix__dw_gradient *gradient;
};
enum making { AS_IT_IS, INPUT, FOLDED_INPUT, GRADIENT };

/* What a block is made with: scale and offset, or k1, k2, k3. */
struct maker {
    vec k1[BLOCK], k2[BLOCK], k3[BLOCK];
    struct folded folded;
    struct branch branch;
};

MIX__TEMPLATE vec make_vec(enum making making, enum mix__act act, int branches,
                           struct mix__values a, struct mix__values b, size_t at, int lanes,
                           const struct maker *m, int k, const struct mix__fake *fake)
{
    const vec v = vec_load(a, at, lanes);
    if (making == AS_IT_IS)
        return v;
    if (making == GRADIENT)
        return vec_fma(m->k1[k], v, vec_fma(m->k2[k], vec_load(b, at, lanes), m->k3[k]));
    return forward_of(act, branches, making == FOLDED_INPUT, a.dtype == MIX__DTYPE_BF16,
                      m->k1[k] * v + m->k3[k], &m->folded, &m->branch, fake);
}

/* How far behind a value is what is to be asked for when it is read: the next line of the same
 * pixel, whose turn comes when all rows have been walked, or behind the last one the first line of
 * the next window. A walk with gaps is none that the hardware would foresee. */
MIX__TEMPLATE ptrdiff_t ahead_of(enum mix__dtype dtype, const struct image *x,
                                 const struct window *w, int first)
{
    const int line = LINE_BYTES / (int)mix__dtype_size(dtype);
    return first + line < x->c ? line : w->next * x->c - first;
}

static void clear_row(vec *to, int width, int wide)
{
    for (int k = 0; k < wide; k++)
        memset(to + (ptrdiff_t)k * COPY_MAX, 0, (size_t)width * sizeof *to);
}

/* Rows [from, to) of a window of an image come into copy (wide, COPY_MAX: height, width) of a block.
 */
struct filling {
    vec *copy;
    const struct image *x;
    const struct window *w;
    const struct block *block;
    int from, to;
};

MIX__TEMPLATE void fill_block(int wide, int lanes, enum making making, enum mix__act act,
                              int branches, struct mix__values a, struct mix__values b,
                              const struct filling *f, const struct maker *maker,
                              const struct mix__fake *fake)
{
    struct maker m = { 0 };
    if (making != AS_IT_IS)
        m = *maker;
    const struct image *x = f->x;
    const struct window *w = f->w;
    const int d = x->spacing, first = f->block->first;
    const ptrdiff_t next = ahead_of(a.dtype, x, w, first);
    const int left = ceil_div(w->left, d), right = MIN(x->w, ceil_div(w->left + w->width, d));
    int place = place_of(w, f->from);
    for (int row = f->from; row < f->to; row++, place = place_after(w, place, 1)) {
        vec *out = f->copy + (ptrdiff_t)place * w->width;
        if (row % d)
            continue;
        if (row < 0 || row / d >= x->h) {
            clear_row(out, w->width, wide);
            continue;
        }
        size_t at = ((size_t)(row / d - x->row) * x->w + left) * x->c + first;
        out += left * d - w->left;
        for (int j = left; j < right; j++, at += x->c, out += d) {
            UNROLL for (int k = 0; k < wide; k++) out[k * COPY_MAX] =
                make_vec(making, act, branches, a, b, at + (size_t)(k * LANES), lanes, &m, k, fake);
            __builtin_prefetch(mix__values_from(a, at + (size_t)next).at, 0, 2);
            if (making == GRADIENT)
                __builtin_prefetch(mix__values_from(b, at + (size_t)next).at, 0, 2);
        }
    }
}

/* What is left and right of the image stays zero for all rows and channels. */
static void clear_sides(vec *copy, const struct image *x, const struct window *w)
{
    const int right = x->w * x->spacing - w->left;
    for (int i = 0; i < w->height; i++)
        for (int j = 0; j < w->width; j++)
            for (int k = 0; k < BLOCK && (w->left + j < 0 || j >= right); k++)
                copy[k * COPY_MAX + i * w->width + j] = (vec){ 0 };
}

/* f for a block, with what it is as constants. */
#define AS_BLOCK(f, block, ...)                                                                    \
    do {                                                                                           \
        if ((block)->wide == BLOCK && (block)->lanes == LANES)                                     \
            f(BLOCK, LANES, __VA_ARGS__);                                                          \
        else                                                                                       \
            f(1, (block)->lanes, __VA_ARGS__);                                                     \
    } while (0)

#define FILL(f, making, act, branches, a, b, m, fake)                                              \
    AS_BLOCK(fill_block, (f)->block, making, act, branches, a, b, f, m, fake)

MIX__TEMPLATE void fill_input_as(enum mix__act act, int branches, struct mix__values z,
                                 const struct filling *f, struct maker *m,
                                 const struct mix__fake *fake)
{
    m->branch = branch_at(fake, 0);
    if (!folds(act, branches, z, fake)) {
        FILL(f, INPUT, act, branches, z, z, m, fake);
        return;
    }
    for (int i = 0; i < f->block->wide; i++) {
        m->k1[i] *= m->branch.inverse;
        m->k3[i] *= m->branch.inverse;
    }
    m->folded = folded_at(act, &m->branch);
    FILL(f, FOLDED_INPUT, act, branches, z, z, m, fake);
}

static void fill_input(const struct filling *f, const struct mix__dw_input *in)
{
    struct maker m;
    get_block(m.k1, in->affine.scale, f->block);
    get_block(m.k3, in->affine.offset, f->block);
    if (in->z.dtype == MIX__DTYPE_F32) {
        SPECIALISE(fill_input_as, in->affine.act, in->fake->n_branch, F32(in->z), f, &m, in->fake)
    } else {
        SPECIALISE(fill_input_as, in->affine.act, in->fake->n_branch, BF16(in->z), f, &m, in->fake)
    }
}

static void fill_gradient(const struct filling *f, const struct mix__dw_gradient *g)
{
    struct maker m;
    get_block(m.k1, g->k1, f->block);
    get_block(m.k2, g->k2, f->block);
    get_block(m.k3, g->k3, f->block);
    if (g->z.dtype == MIX__DTYPE_F32)
        FILL(f, GRADIENT, MIX__ACT_NONE, 0, F32(g->du), F32(g->z), &m, NULL);
    else
        FILL(f, GRADIENT, MIX__ACT_NONE, 0, BF16(g->du), BF16(g->z), &m, NULL);
}

static void fill(const struct filling *f, const struct source *source)
{
    if (source->input && source->input->affine.scale) {
        fill_input(f, source->input);
    } else if (source->gradient && source->gradient->k1) {
        fill_gradient(f, source->gradient);
    } else {
        const struct mix__values v = source->input ? source->input->z : source->gradient->du;
        FILL(f, AS_IT_IS, MIX__ACT_NONE, 0, F32(v), F32(v), NULL, NULL);
    }
}

/* ---- taps ------------------------------------------------------------------------------------ */

/* The taps that meet values, not the zeros between them: every `apart`th from here on. */
struct taps {
    int row, col, apart;
};

/* n outputs, `apart` from each other, from kernel rows of the input at in[] + at. */
MIX__TEMPLATE void convolve_few(vec *y, const vec *const *in, int at, const vec *tap, int kernel,
                                int stride, struct taps m, int n)
{
    vec acc[FEW] = { { 0 } }, x[FEW * 2 + KERNEL_MAX];
    const int step = stride * m.apart;
    UNROLL for (int r = m.row; r < kernel; r += m.apart)
    {
        UNROLL for (int s = m.col; s < (n - 1) * step + kernel; s += m.apart) x[s] = in[r][at + s];
        UNROLL for (int s = m.col; s < kernel; s += m.apart) UNROLL for (int k = 0; k < n; k++)
            acc[k] = vec_fma(tap[r * kernel + s], x[k * step + s], acc[k]);
    }
    UNROLL for (int k = 0; k < n; k++) y[k * m.apart] = acc[k];
}

MIX__TEMPLATE void convolve_row(vec *y, const vec *const *in, int at, const vec *tap, int kernel,
                                int stride, struct taps m, int n)
{
    const int step = stride * m.apart;
    for (; n >= FEW; n -= FEW, at += FEW * step, y += FEW * m.apart)
        convolve_few(y, in, at, tap, kernel, stride, m, FEW);
    for (; n >= 2; n -= 2, at += 2 * step, y += 2 * m.apart)
        convolve_few(y, in, at, tap, kernel, stride, m, 2);
    if (n > 0)
        convolve_few(y, in, at, tap, kernel, stride, m, 1);
}

/* y (n, cols) = the rows of output whose first tap is at `row`, and those after it. */
MIX__TEMPLATE void convolve_rows(vec *y, const vec *copy, const struct window *w, int row, int n,
                                 int cols, const vec *taps, int kernel, int stride, int apart)
{
    vec tap[TAPS_MAX];
    UNROLL for (int i = 0; i < kernel * kernel; i++) tap[i] = taps[i];
    int place = place_of(w, row);
    for (int i = 0; i < n; i++, row += stride, y += cols, place = place_after(w, place, stride)) {
        const vec *in[KERNEL_MAX];
        UNROLL for (int r = 0; r < kernel; r++) in[r] =
            copy + (ptrdiff_t)place_after(w, place, r) * w->width;
        for (int j = 0; j < apart && j < cols; j++) {
            const int count = (cols - j + apart - 1) / apart;
            /* Values are where rows and columns are even. */
            const bool odd_row = apart == 2 && row % 2, odd_col = apart == 2 && (w->left + j) % 2;
            if (odd_row && odd_col)
                convolve_row(y + j, in, j, tap, kernel, stride, (struct taps){ 1, 1, apart },
                             count);
            else if (odd_row)
                convolve_row(y + j, in, j, tap, kernel, stride, (struct taps){ 1, 0, apart },
                             count);
            else if (odd_col)
                convolve_row(y + j, in, j, tap, kernel, stride, (struct taps){ 0, 1, apart },
                             count);
            else
                convolve_row(y + j, in, j, tap, kernel, stride, (struct taps){ 0, 0, apart },
                             count);
        }
    }
}

typedef void rows_fn(vec *y, const vec *copy, const struct window *w, int row, int n, int cols,
                     const vec *taps);
#define ROWS(name, kernel, stride, apart)                                                          \
    static void name(vec *y, const vec *copy, const struct window *w, int row, int n, int cols,    \
                     const vec *taps)                                                              \
    {                                                                                              \
        convolve_rows(y, copy, w, row, n, cols, taps, kernel, stride, apart);                      \
    }
ROWS(rows_3, 3, 1, 1)
ROWS(rows_3_strided, 3, 2, 1)
ROWS(rows_3_spaced, 3, 1, 2)
ROWS(rows_5, 5, 1, 1)
ROWS(rows_5_strided, 5, 2, 1)
ROWS(rows_5_spaced, 5, 1, 2)

/* back: over a gradient, whose values are as far apart as the stride is wide. */
static rows_fn *rows_for(int kernel, int stride, bool back)
{
    if (stride == 1)
        return kernel == 3 ? rows_3 : rows_5;
    if (back)
        return kernel == 3 ? rows_3_spaced : rows_5_spaced;
    return kernel == 3 ? rows_3_strided : rows_5_strided;
}

/* ---- what comes out --------------------------------------------------------------------------- */

/* Where rows of ow columns go, y (or du) being row `row`; back, z: through what du is to be got
 * from them, or NULL. */
struct sink {
    struct mix__values y, z;
    const struct mix__norm_back *back;
    bool stream;
    int row, ow, c;
};

/* Sums of one block over a tile. */
struct back_sums {
    vec beta[BLOCK], gamma[BLOCK], step[BLOCK];
    struct fake_places fake;
};

/* A sink's rows of a tile: the first value, and the values of a row. */
struct place {
    size_t at, pitch;
    int rows, cols;
};

MIX__TEMPLATE void store_block(int wide, int lanes, struct mix__values y, const vec *in,
                               const struct place *p, int c)
{
    for (int i = 0; i < p->rows; i++) {
        size_t at = p->at + (size_t)i * p->pitch;
        for (int j = 0; j < p->cols; j++, at += c, in++)
            UNROLL for (int k = 0; k < wide; k++)
                vec_store(y, at + (size_t)(k * LANES), in[k * RESULT_MAX], lanes);
    }
}

static void store(const struct sink *s, const vec *in, const struct place *p, const struct block *k)
{
    if (s->y.dtype == MIX__DTYPE_F32)
        AS_BLOCK(store_block, k, F32(s->y), in, p, s->c);
    else
        AS_BLOCK(store_block, k, BF16(s->y), in, p, s->c);
}

/* What a block goes back through. */
struct back_map {
    vec scale[BLOCK], offset[BLOCK], mean[BLOCK];
    struct folded_back folded;
    const struct mix__fake *fake;
    bool stream;
};

MIX__TEMPLATE void back_block(int wide, int lanes, enum mix__act act, int branches, bool folding,
                              struct mix__values du, struct mix__values z, const vec *in,
                              const struct place *p, int c, const struct back_map *map,
                              struct back_sums *sums)
{
    const struct branch one = branch_at(map->fake, 0);
    const struct back_map m = *map;
    vec beta[BLOCK], gamma[BLOCK], step[BLOCK];
    memcpy(beta, sums->beta, sizeof beta);
    memcpy(gamma, sums->gamma, sizeof gamma);
    memcpy(step, sums->step, sizeof step);
    for (int i = 0; i < p->rows; i++) {
        size_t at = p->at + (size_t)i * p->pitch;
        for (int j = 0; j < p->cols; j++, at += c, in++) {
            vec g[BLOCK];
            UNROLL for (int k = 0; k < wide; k++)
            {
                const vec v = vec_load(z, at + (size_t)(k * LANES), lanes);
                g[k] = back_of(act, branches, folding, z.dtype == MIX__DTYPE_BF16,
                               in[k * RESULT_MAX], m.scale[k] * v + m.offset[k], &m.folded, &one,
                               &step[k], (size_t)(k * LANES), m.fake, &sums->fake);
                beta[k] += g[k];
                gamma[k] += g[k] * (v - m.mean[k]);
            }
            vec_store_wide(du, at, g, wide, lanes, m.stream);
        }
    }
    memcpy(sums->beta, beta, sizeof beta);
    memcpy(sums->gamma, gamma, sizeof gamma);
    memcpy(sums->step, step, sizeof step);
}

#define BACK(folding) AS_BLOCK(back_block, k, act, branches, folding, du, z, in, p, c, m, sums)

MIX__TEMPLATE void back_as(enum mix__act act, int branches, struct mix__values du,
                           struct mix__values z, const vec *in, const struct place *p, int c,
                           const struct block *k, struct back_map *m, struct back_sums *sums)
{
    if (!folds(act, branches, z, m->fake)) {
        BACK(false);
        return;
    }
    const struct branch one = branch_at(m->fake, 0);
    for (int i = 0; i < k->wide; i++) {
        m->scale[i] *= one.inverse;
        m->offset[i] *= one.inverse;
    }
    m->folded = folded_back_at(act, &one);
    BACK(true);
}

static void hand_back(const struct sink *s, const vec *in, const struct place *p,
                      const struct block *k, struct back_sums *sums)
{
    const struct mix__norm_back *back = s->back;
    struct back_map m = { .fake = back->fake, .stream = s->stream };
    get_block(m.scale, back->affine.scale, k);
    get_block(m.offset, back->affine.offset, k);
    get_block(m.mean, back->mean, k);
    assert(s->y.dtype == s->z.dtype);
    if (s->z.dtype == MIX__DTYPE_F32) {
        SPECIALISE(back_as, back->affine.act, back->fake->n_branch, F32(s->y), F32(s->z), in, p,
                   s->c, k, &m, sums)
    } else {
        SPECIALISE(back_as, back->affine.act, back->fake->n_branch, BF16(s->y), BF16(s->z), in, p,
                   s->c, k, &m, sums)
    }
}

static void clear_sums(struct back_sums *sums, const struct mix__norm_back *back)
{
    memset(sums, 0, offsetof(struct back_sums, fake));
    if (back->fake->n_branch > 1)
        fake_clear(&sums->fake, back->fake->n_branch, PLACES);
}

static void fold_sums(struct back_sums *sums, const struct mix__norm_back *back,
                      const struct block *b)
{
    vec rstd[BLOCK];
    get_block(rstd, back->rstd, b);
    for (int k = 0; k < b->wide; k++) {
        sums->gamma[k] *= rstd[k];
        for (int i = 0; back->fake->n_branch == 1 && i < LANES; i++)
            back->sums->step[0] += (double)sums->step[k][i];
    }
    add_block(back->dbeta, sums->beta, b);
    add_block(back->dgamma, sums->gamma, b);
    if (back->fake->n_branch > 1)
        fake_fold(&sums->fake, PLACES, back->fake, back->sums);
}

/* ---- convolution ------------------------------------------------------------------------------ */

/* The weights' taps (wide, TAPS_MAX) of a block; turned: by half a turn. */
static void get_taps(vec *tap, const float *w, int taps, int c, bool turned, const struct block *b)
{
    for (int i = 0; i < taps; i++) {
        vec all[BLOCK];
        get_block(all, w + (ptrdiff_t)(turned ? taps - 1 - i : i) * c, b);
        for (int k = 0; k < b->wide; k++)
            tap[k * TAPS_MAX + i] = all[k];
    }
}

/* Some columns of output, and the rows of it that come from those copies of its input. */
struct piece {
    const struct window *w;
    const struct sink *to;
    int col, cols, first; /* first: the row of output that the first row of the window gives */
    int stride;
    rows_fn *rows;
};

/* Rows [from, to) of output. */
static void come_out(const struct piece *p, int from, int to, const vec *copy, const vec *tap,
                     const struct block *b, struct back_sums *sums)
{
    vec result[BLOCK * RESULT_MAX];
    const struct sink *sink = p->to;
    const int most = RESULT_MAX / p->cols;
    for (int row = from, n; row < to; row += n) {
        n = MIN(most, to - row);
        const struct place place = {
            ((size_t)(row - sink->row) * sink->ow + p->col) * sink->c + b->first,
            (size_t)sink->ow * sink->c,
            n,
            p->cols,
        };
        for (int v = 0; v < b->wide; v++)
            p->rows(result + (ptrdiff_t)v * RESULT_MAX, copy + (ptrdiff_t)v * COPY_MAX, p->w,
                    p->w->top + (row - p->first) * p->stride, n, p->cols,
                    tap + (ptrdiff_t)v * TAPS_MAX);
        if (sink->back)
            hand_back(sink, result, &place, b, sums);
        else
            store(sink, result, &place, b);
    }
}

/* ---- forward ---------------------------------------------------------------------------------- */

static void dw_forward(struct mix__values y, const struct mix__dw_input *x, const float *w,
                       const struct mix__dw_shape *s, int oh0, int oh1)
{
    vec copy[BLOCK * COPY_MAX], tap[BLOCK * TAPS_MAX];
    const int kernel = s->kernel, stride = s->stride;
    const struct image in = { s->h, s->w, s->c, 1, s->x_row };
    const struct sink to = { .y = y, .row = s->y_row, .ow = s->ow, .c = s->c };
    const struct source source = { .input = x };
    rows_fn *const rows = rows_for(kernel, stride, false);
    const int most = cols_of(s->ow * stride, stride) / stride;
    for (int col = 0, cols; col < s->ow && oh0 < oh1; col += cols) {
        cols = MIN(most, s->ow - col);
        const bool last = col + cols == s->ow;
        const struct window window = window_at(
            &in, oh0 * stride - s->pad, col * stride - s->pad, (cols - 1) * stride + kernel,
            last ? (oh1 - oh0) * stride : 0, (last ? -col : cols) * stride);
        const int room = (window.height - kernel) / stride + 1;
        const struct piece piece = { &window, &to, col, cols, oh0, stride, rows };
        struct block b;
        clear_sides(copy, &in, &window);
        for (int first = 0; first < s->c; first += b.wide * LANES) {
            int filled = window.top;
            b = block_at(first, s->c);
            get_taps(tap, w, kernel * kernel, s->c, false, &b);
            for (int row = oh0, n; row < oh1; row += n) {
                n = MIN(room, oh1 - row);
                const int until = (row + n - 1) * stride - s->pad + kernel;
                fill(&(struct filling){ copy, &in, &window, &b, filled, until }, &source);
                filled = until;
                come_out(&piece, row, row + n, copy, tap, &b, NULL);
            }
        }
    }
}

/* ---- backward --------------------------------------------------------------------------------- */

/* Values of a depthwise layer's two sides that meet: of x from row `row` on, of dz, which is spaced,
 * from (z_row, z_col) on, rows x cols of it. */
struct meeting {
    const struct window *x, *z;
    int row, z_row, z_col, rows, cols;
};

/* sum (taps) += dw of kernel rows [first, first + n), in registers. */
MIX__TEMPLATE void weight_rows(vec *sum, const vec *x, const vec *z, const struct meeting *m,
                               int kernel, int stride, int first, int n)
{
    vec acc[2 * KERNEL_MAX];
    int place = place_of(m->x, m->row + first), z_place = place_of(m->z, m->z_row);
    UNROLL for (int i = 0; i < n * kernel; i++) acc[i] = sum[first * kernel + i];
    for (int i = 0; i < m->rows; i++) {
        const vec *in[KERNEL_MAX];
        const vec *d = z + (ptrdiff_t)z_place * m->z->width + m->z_col - m->z->left;
        UNROLL for (int r = 0; r < n; r++) in[r] =
            x + (ptrdiff_t)place_after(m->x, place, r) * m->x->width;
        for (int j = 0; j < m->cols; j++, d += stride)
            UNROLL for (int r = 0; r < n; r++) UNROLL for (int s = 0; s < kernel; s++)
                acc[r * kernel + s] = vec_fma(*d, in[r][j * stride + s], acc[r * kernel + s]);
        place = place_after(m->x, place, stride);
        z_place = place_after(m->z, z_place, stride);
    }
    UNROLL for (int i = 0; i < n * kernel; i++) sum[first * kernel + i] = acc[i];
}

MIX__TEMPLATE void weight_taps(vec *sum, const vec *x, const vec *z, const struct meeting *m,
                               int kernel, int stride)
{
    if (kernel == 3) {
        weight_rows(sum, x, z, m, 3, stride, 0, 3);
        return;
    }
    weight_rows(sum, x, z, m, 5, stride, 0, 2);
    weight_rows(sum, x, z, m, 5, stride, 2, 2);
    weight_rows(sum, x, z, m, 5, stride, 4, 1);
}

/* sum (taps) += dw of one vector of channels. */
static void add_weights(vec *sum, const vec *x, const vec *z, const struct meeting *m, int kernel,
                        int stride)
{
    if (kernel == 3 && stride == 1)
        weight_taps(sum, x, z, m, 3, 1);
    else if (kernel == 3)
        weight_taps(sum, x, z, m, 3, 2);
    else if (stride == 1)
        weight_taps(sum, x, z, m, 5, 1);
    else
        weight_taps(sum, x, z, m, 5, 2);
}

static void put_weights(float *dw, const vec *sum, int taps, int c, const struct block *b)
{
    for (int i = 0; i < taps; i++) {
        vec all[BLOCK];
        for (int k = 0; k < b->wide; k++)
            all[k] = sum[k * TAPS_MAX + i];
        add_block(dw + (ptrdiff_t)i * c, all, b);
    }
}

/* Some columns on the way back: input rows [top, bottom) from column `col` on, `room` of them at a
 * time, and `outputs` columns of output, which begin where those do. */
struct way_back {
    const struct mix__dw_back *to;
    const struct mix__dw_shape *s;
    const float *w;
    const struct source *x_from, *z_from;
    const struct image *x, *z;
    struct window wx, wz;
    struct piece piece;
    int top, bottom, col, room, outputs;
};

/* dw (taps) of the output rows from `row` on that lie in n rows of input, whose dz is in its copy. */
static void rows_weights(const struct way_back *k, const struct block *b, int row, int n, vec *x,
                         int *filled, const vec *z, vec *dw)
{
    const int kernel = k->s->kernel, stride = k->s->stride, from = row / stride;
    const struct meeting meeting = {
        &k->wx,    &k->wz, row - k->s->pad,
        row,       k->col, MIN((n + stride - 1) / stride, k->to->y1 - from),
        k->outputs
    };
    if (meeting.rows <= 0 || meeting.cols <= 0)
        return;
    const int until = (from + meeting.rows - 1) * stride - k->s->pad + kernel;
    fill(&(struct filling){ x, k->x, &k->wx, b, *filled, until }, k->x_from);
    *filled = until;
    for (int v = 0; v < b->wide; v++)
        add_weights(dw + (ptrdiff_t)v * TAPS_MAX, x + (ptrdiff_t)v * COPY_MAX,
                    z + (ptrdiff_t)v * COPY_MAX, &meeting, kernel, stride);
}

static void block_back(const struct way_back *k, const struct block *b, vec *x, vec *z)
{
    vec tap[BLOCK * TAPS_MAX], dw[BLOCK * TAPS_MAX] = { { 0 } };
    struct back_sums sums;
    const struct mix__norm_back *back = k->to->back;
    const int taps = k->s->kernel * k->s->kernel;
    int x_filled = k->wx.top, z_filled = k->wz.top;
    get_taps(tap, k->w, taps, k->s->c, true, b);
    if (back)
        clear_sums(&sums, back);
    for (int row = k->top, n; row < k->bottom; row += n) {
        n = MIN(k->room, k->bottom - row);
        const int until = row + n + k->s->pad;
        fill(&(struct filling){ z, k->z, &k->wz, b, z_filled, until }, k->z_from);
        z_filled = until;
        if (k->to->dw)
            rows_weights(k, b, row, n, x, &x_filled, z, dw);
        if (k->piece.cols > 0)
            come_out(&k->piece, row, MIN(row + n, k->to->h1), z, tap, b, &sums);
    }
    if (k->to->dw)
        put_weights(k->to->dw, dw, taps, k->s->c, b);
    if (back)
        fold_sums(&sums, back, b);
}

static void dw_backward(const struct mix__dw_back *to, const struct mix__dw_input *x,
                        const struct mix__dw_gradient *dz, const float *w,
                        const struct mix__dw_shape *s)
{
    vec x_copy[BLOCK * COPY_MAX], z_copy[BLOCK * COPY_MAX];
    const int kernel = s->kernel, stride = s->stride, before = kernel - 1 - s->pad;
    const struct image in = { s->h, s->w, s->c, 1, s->x_row };
    const struct image out = { s->oh, s->ow, s->c, stride, s->y_row };
    const struct sink sink = { .y = to->du,
                               .z = mix__values_from(x->z,
                                                     (size_t)(to->h0 - s->x_row) * s->w * s->c),
                               .back = to->back,
                               .stream = to->stream,
                               .row = to->h0,
                               .ow = s->w,
                               .c = s->c };
    rows_fn *const rows = rows_for(kernel, stride, true);
    struct way_back k = { .to = to,
                          .s = s,
                          .w = w,
                          .x_from = &(struct source){ .input = x },
                          .z_from = &(struct source){ .gradient = dz },
                          .x = &in,
                          .z = &out,
                          .top = to->y0 * stride,
                          .bottom = MAX(to->h1, to->y1 * stride) };
    const int right = MAX(s->w, s->ow * stride), most = cols_of(right, stride);
    for (int cols; k.col < right && k.top < k.bottom; k.col += cols) {
        cols = MIN(most, right - k.col);
        const bool last = k.col + cols == right;
        const int down = last ? k.bottom - k.top : 0, across = last ? -k.col : cols;
        k.wx = window_at(&in, k.top - s->pad, k.col - s->pad, (cols - 1) / stride * stride + kernel,
                         down, across);
        k.wz = window_at(&out, k.top - before, k.col - before, cols + kernel - 1, down, across);
        k.room = MIN(k.wx.height - kernel + stride, k.wz.height - kernel + 1) / stride * stride;
        k.outputs = MIN((cols + stride - 1) / stride, s->ow - k.col / stride);
        k.piece = (struct piece){ &k.wz, &sink, k.col, MIN(cols, s->w - k.col), k.top, 1, rows };
        clear_sides(x_copy, &in, &k.wx);
        clear_sides(z_copy, &out, &k.wz);
        struct block b;
        for (int first = 0; first < s->c; first += b.wide * LANES) {
            b = block_at(first, s->c);
            block_back(&k, &b, x_copy, z_copy);
        }
    }
    if (to->stream)
        vec_stream_end();
}

void MIX__LOOPS_NAME(mix__loops_fill_depthwise)(struct mix__loops *loops)
{
    loops->dw_forward = dw_forward;
    loops->dw_backward = dw_backward;
}
