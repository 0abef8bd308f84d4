/*
 * Depthwise convolution. Kernels 3 and 5 with strides 1 and 2 are tiled; anything else takes the
 * plain loops at the end.
 *
 * A tile of the output is worked on one vector of channels at a time, from a copy of the input
 * under it: padded with zeros, without the gap of the other channels.
 *
 *    (h,w,c)                            copy, one vector each, for a tile at the upper left
 *    +---------+---------+-----         +---+---+---+---
 *    |..cccc...|..cccc...|              | 0 | 0 | 0 |
 *    +---------+---------+-----   ->    +---+---+---+---
 *    |..cccc...|..cccc...|              | 0 | c | c |
 *
 * So arithmetic knows no borders, costs one load from L1 for a tap, and strides of a power of two
 * do not fight for the same cache sets. The gradient of the input is the same convolution: over dy
 * with stride - 1 zeros between its values, with the weights turned by half a turn; taps that meet
 * nothing but those zeros are left out.
 *
 * Taps may be contracted to FMA: no code of a quantizer is made here.
 */
#include "engine/loops_vec.h"

enum {
    COPY_MAX = 512, /* vectors in the copy: half of L1                  */
    COLS_MAX = 32,  /* columns under a tile, so that tiles are not flat */
    LINE = 16,      /* floats in a cache line */
    TAPS_MAX = 25,
    FEW = 64 /* channels at a time in plain loops */
};

/* Asks for the line after this one of the same pixel: the next channels' turn comes when the whole
 * tile has been walked, and a walk with gaps is none that the hardware would foresee. */
MIX__TEMPLATE void ask_ahead(const float *p, int channels_left)
{
    if (channels_left > LINE)
        __builtin_prefetch(p + LINE, 0, 2);
}

/* An image (h, w, c) with `spacing` - 1 zeros between its values and endless zeros around them. */
struct image {
    const float *at; /* its row `row` */
    int h, w, c, spacing, row;
};

struct tile {
    int row, col, rows, cols; /* of the output                 */
    int top, left;            /* where its input starts        */
    int height, width;        /* of its input                  */
};

static struct tile tile_at(int row, int col, int row_end, int col_end, int kernel, int stride,
                           int pad)
{
    struct tile t = {
        .row = row, .col = col, .top = row * stride - pad, .left = col * stride - pad
    };
    /* As many rows in a narrow last tile as in those beside it. */
    const int cols = MIN(COLS_MAX / stride, col_end);
    const int rows = (COPY_MAX / ((cols - 1) * stride + kernel) - kernel) / stride + 1;
    t.cols = MIN(cols, col_end - col);
    t.rows = MIN(rows, row_end - row);
    t.width = (t.cols - 1) * stride + kernel;
    t.height = (t.rows - 1) * stride + kernel;
    return t;
}

static int ceil_div(int a, int b)
{
    return a > 0 ? (a + b - 1) / b : 0;
}

/* copy (height, width) = the tile's input, channels [first, first + lanes). What is zero in the
 * copy is zero for all channels: the caller clears it once. */
MIX__TEMPLATE void copy_input(vec *copy, const struct image *x, const struct tile *t, int first,
                              int lanes)
{
    const int d = x->spacing;
    const int top = ceil_div(t->top, d), bottom = MIN(x->h, ceil_div(t->top + t->height, d));
    const int left = ceil_div(t->left, d), right = MIN(x->w, ceil_div(t->left + t->width, d));
    for (int i = top; i < bottom; i++) {
        const float *p = x->at + ((size_t)(i - x->row) * x->w + left) * x->c + first;
        const int at = (i * d - t->top) * t->width - t->left;
        for (int j = left; j < right; j++, p += x->c) {
            copy[at + j * d] = vec_get(p, lanes);
            ask_ahead(p, x->c - first);
        }
    }
}

/* The taps that meet values, not the zeros between them: every `apart`th from here on. */
struct taps {
    int row, col, apart;
};

/* n outputs, the first one's at `at`, `apart` columns from each other. */
MIX__TEMPLATE void convolve_few(struct mix__values y, size_t at, int c, int lanes, const vec *in,
                                int pitch, const vec *w, int kernel, int stride, struct taps m,
                                int n)
{
    vec acc[4] = { { 0 } };
    UNROLL for (int r = m.row; r < kernel; r += m.apart)
        UNROLL for (int s = m.col; s < kernel; s += m.apart)
    {
        const vec weight = w[r * kernel + s];
        UNROLL for (int k = 0; k < n; k++) acc[k] +=
            weight * in[r * pitch + k * stride * m.apart + s];
    }
    UNROLL for (int k = 0; k < n; k++) vec_store(y, at + (size_t)(k * m.apart) * c, acc[k], lanes);
}

MIX__TEMPLATE void convolve_row(struct mix__values y, size_t at, int c, int lanes, const vec *in,
                                int pitch, const vec *w, int kernel, int stride, struct taps m,
                                int n)
{
    const int step = stride * m.apart;
    const size_t next = (size_t)m.apart * c;
    for (; n >= 4; n -= 4, in += 4 * step, at += 4 * next)
        convolve_few(y, at, c, lanes, in, pitch, w, kernel, stride, m, 4);
    for (; n >= 2; n -= 2, in += 2 * step, at += 2 * next)
        convolve_few(y, at, c, lanes, in, pitch, w, kernel, stride, m, 2);
    if (n > 0)
        convolve_few(y, at, c, lanes, in, pitch, w, kernel, stride, m, 1);
}

/* Channels from `first` on. */
MIX__TEMPLATE void convolve_tile(struct mix__values y, int first, int y_row, int ow, int c,
                                 int lanes, const vec *copy, const struct tile *t, const vec *w,
                                 int kernel, int stride, int apart)
{
    for (int i = 0; i < t->rows; i++)
        for (int j = 0; j < apart; j++) {
            const size_t at = ((size_t)(t->row + i - y_row) * ow + t->col + j) * c + first;
            const vec *in = copy + (size_t)i * stride * t->width + j;
            const int n = (t->cols - j + apart - 1) / apart;
            /* Values are where rows and columns are even. */
            const bool odd_row = apart == 2 && (t->top + i) % 2;
            const bool odd_col = apart == 2 && (t->left + j) % 2;
            if (odd_row && odd_col)
                convolve_row(y, at, c, lanes, in, t->width, w, kernel, stride,
                             (struct taps){ 1, 1, apart }, n);
            else if (odd_row)
                convolve_row(y, at, c, lanes, in, t->width, w, kernel, stride,
                             (struct taps){ 1, 0, apart }, n);
            else if (odd_col)
                convolve_row(y, at, c, lanes, in, t->width, w, kernel, stride,
                             (struct taps){ 0, 1, apart }, n);
            else
                convolve_row(y, at, c, lanes, in, t->width, w, kernel, stride,
                             (struct taps){ 0, 0, apart }, n);
        }
}

/* Output rows [begin, end) of ow columns, y being row y_row; apart: as the image is spaced,
 * 1 or 2; turned: the weights by half a turn. */
MIX__TEMPLATE void convolve(struct mix__values y, int y_row, int ow, int begin, int end,
                            const struct image *x, const float *w, int kernel, int stride, int pad,
                            int apart, bool turned)
{
    vec copy[COPY_MAX], tap[TAPS_MAX];
    const int taps = kernel * kernel, c = x->c;
    struct tile t;
    for (int row = begin; row < end; row += t.rows)
        for (int col = 0; col < ow; col += t.cols) {
            t = tile_at(row, col, end, ow, kernel, stride, pad);
            memset(copy, 0, (size_t)t.height * t.width * sizeof *copy);
            for (int first = 0; first < c; first += LANES) {
                const int lanes = MIN(LANES, c - first);
                for (int i = 0; i < taps; i++)
                    tap[i] = vec_get(w + (size_t)(turned ? taps - 1 - i : i) * c + first, lanes);
                copy_input(copy, x, &t, first, lanes);
                convolve_tile(y, first, y_row, ow, c, lanes, copy, &t, tap, kernel, stride, apart);
            }
        }
}

/* dw of kernel rows [row, row + n), summed over a tile in registers; left: channels from dy's on.
 */
MIX__TEMPLATE void weight_rows(float *dw, int c, int lanes, const vec *copy, const float *dy,
                               int y_row, int left, int ow, const struct tile *t, int kernel,
                               int stride, int row, int n)
{
    vec acc[10] = { { 0 } };
    for (int i = 0; i < t->rows; i++) {
        const float *g = dy + ((size_t)(t->row + i - y_row) * ow + t->col) * c;
        const vec *in = copy + ((size_t)i * stride + row) * t->width;
        for (int j = 0; j < t->cols; j++, g += c, in += stride) {
            const vec d = vec_get(g, lanes);
            if (row == 0)
                ask_ahead(g, left);
            UNROLL for (int r = 0; r < n; r++) UNROLL for (int s = 0; s < kernel; s++)
                acc[r * kernel + s] += d * in[r * t->width + s];
        }
    }
    UNROLL for (int r = 0; r < n; r++) UNROLL for (int s = 0; s < kernel; s++)
    {
        const int k = r * kernel + s;
        float *p = dw + ((size_t)row * kernel + k) * c;
        vec_put(p, vec_get(p, lanes) + acc[k], lanes);
    }
}

MIX__TEMPLATE void weights(float *dw, const float *dy, int y_row, int ow, int begin, int end,
                           const struct image *x, int kernel, int stride, int pad)
{
    vec copy[COPY_MAX];
    const int c = x->c;
    struct tile t;
    for (int row = begin; row < end; row += t.rows)
        for (int col = 0; col < ow; col += t.cols) {
            t = tile_at(row, col, end, ow, kernel, stride, pad);
            memset(copy, 0, (size_t)t.height * t.width * sizeof *copy);
            for (int f = 0; f < c; f += LANES) {
                const int lanes = MIN(LANES, c - f);
                copy_input(copy, x, &t, f, lanes);
                if (kernel == 3) {
                    weight_rows(dw + f, c, lanes, copy, dy + f, y_row, c - f, ow, &t, 3, stride, 0,
                                3);
                } else {
                    weight_rows(dw + f, c, lanes, copy, dy + f, y_row, c - f, ow, &t, 5, stride, 0,
                                2);
                    weight_rows(dw + f, c, lanes, copy, dy + f, y_row, c - f, ow, &t, 5, stride, 2,
                                2);
                    weight_rows(dw + f, c, lanes, copy, dy + f, y_row, c - f, ow, &t, 5, stride, 4,
                                1);
                }
            }
        }
}

/* Adds a * b to y, c channels. */
static inline void multiply_add(float *y, const float *a, const float *b, int c)
{
    _Pragma("omp simd") for (int i = 0; i < c; i++) y[i] += a[i] * b[i];
}

/* The output place that tap r of this input place meets, or -1. */
static int meets(int in, int r, int out_size, const struct mix__dw_shape *s)
{
    const int at = in + s->pad - r;
    return at >= 0 && at % s->stride == 0 && at / s->stride < out_size ? at / s->stride : -1;
}

/* Where a place of the image lies behind the pointer. */
static size_t x_at(const struct mix__dw_shape *s, int row, int col)
{
    return ((size_t)(row - s->x_row) * s->w + col) * s->c;
}

static size_t y_at(const struct mix__dw_shape *s, int row, int col)
{
    return ((size_t)(row - s->y_row) * s->ow + col) * s->c;
}

static void plain_forward(struct mix__values y, const float *x, const float *w,
                          const struct mix__dw_shape *s, int oh0, int oh1)
{
    float sum[FEW];
    for (int i = oh0; i < oh1; i++)
        for (int j = 0; j < s->ow; j++)
            for (int f = 0, n; f < s->c; f += n) {
                n = MIN(FEW, s->c - f);
                memset(sum, 0, sizeof sum);
                for (int t = 0; t < s->kernel * s->kernel; t++) {
                    const int row = i * s->stride - s->pad + t / s->kernel;
                    const int col = j * s->stride - s->pad + t % s->kernel;
                    if (row >= 0 && row < s->h && col >= 0 && col < s->w)
                        multiply_add(sum, x + x_at(s, row, col) + f, w + (size_t)t * s->c + f, n);
                }
                for (int k = 0; k < n; k++)
                    mix__values_put(y, y_at(s, i, j) + f + k, sum[k]);
            }
}

static void plain_backward_data(float *dx, const float *dy, const float *w,
                                const struct mix__dw_shape *s, int h0, int h1)
{
    memset(dx + (size_t)(h0 - s->x_row) * s->w * s->c, 0,
           (size_t)(h1 - h0) * s->w * s->c * sizeof *dx);
    for (int i = h0; i < h1; i++)
        for (int j = 0; j < s->w; j++)
            for (int t = 0; t < s->kernel * s->kernel; t++) {
                const int row = meets(i, t / s->kernel, s->oh, s);
                const int col = meets(j, t % s->kernel, s->ow, s);
                if (row >= 0 && col >= 0)
                    multiply_add(dx + x_at(s, i, j), dy + y_at(s, row, col), w + (size_t)t * s->c,
                                 s->c);
            }
}

static void plain_backward_weights(float *dw, const float *x, const float *dy,
                                   const struct mix__dw_shape *s, int oh0, int oh1)
{
    for (int i = oh0; i < oh1; i++)
        for (int j = 0; j < s->ow; j++)
            for (int t = 0; t < s->kernel * s->kernel; t++) {
                const int row = i * s->stride - s->pad + t / s->kernel;
                const int col = j * s->stride - s->pad + t % s->kernel;
                if (row >= 0 && row < s->h && col >= 0 && col < s->w)
                    multiply_add(dw + (size_t)t * s->c, x + x_at(s, row, col), dy + y_at(s, i, j),
                                 s->c);
            }
}

/* Kernel and stride as one number, to choose the loops made for them. */
static int kind(const struct mix__dw_shape *s)
{
    return s->stride < 10 ? s->kernel * 10 + s->stride : 0;
}

MIX__TEMPLATE void forward(struct mix__values y, const float *x, const float *w,
                           const struct mix__dw_shape *s, int oh0, int oh1)
{
    const struct image in = { x, s->h, s->w, s->c, 1, s->x_row };
    switch (kind(s)) {
    case 31:
        convolve(y, s->y_row, s->ow, oh0, oh1, &in, w, 3, 1, s->pad, 1, false);
        break;
    case 32:
        convolve(y, s->y_row, s->ow, oh0, oh1, &in, w, 3, 2, s->pad, 1, false);
        break;
    case 51:
        convolve(y, s->y_row, s->ow, oh0, oh1, &in, w, 5, 1, s->pad, 1, false);
        break;
    case 52:
        convolve(y, s->y_row, s->ow, oh0, oh1, &in, w, 5, 2, s->pad, 1, false);
        break;
    default:
        plain_forward(y, x, w, s, oh0, oh1);
    }
}

static void dw_forward(struct mix__values y, const float *x, const float *w,
                       const struct mix__dw_shape *s, int oh0, int oh1)
{
    if (y.dtype == MIX__DTYPE_F32)
        forward(F32(y), x, w, s, oh0, oh1);
    else
        forward(BF16(y), x, w, s, oh0, oh1);
}

static void dw_backward_data(float *dx, const float *dy, const float *w,
                             const struct mix__dw_shape *s, int h0, int h1)
{
    const struct image in = { dy, s->oh, s->ow, s->c, s->stride, s->y_row };
    const int pad = s->kernel - 1 - s->pad;
    switch (kind(s)) {
    case 31:
        convolve(mix__f32(dx), s->x_row, s->w, h0, h1, &in, w, 3, 1, pad, 1, true);
        break;
    case 32:
        convolve(mix__f32(dx), s->x_row, s->w, h0, h1, &in, w, 3, 1, pad, 2, true);
        break;
    case 51:
        convolve(mix__f32(dx), s->x_row, s->w, h0, h1, &in, w, 5, 1, pad, 1, true);
        break;
    case 52:
        convolve(mix__f32(dx), s->x_row, s->w, h0, h1, &in, w, 5, 1, pad, 2, true);
        break;
    default:
        plain_backward_data(dx, dy, w, s, h0, h1);
    }
}

static void dw_backward_weights(float *dw, const float *x, const float *dy,
                                const struct mix__dw_shape *s, int oh0, int oh1)
{
    const struct image in = { x, s->h, s->w, s->c, 1, s->x_row };
    switch (kind(s)) {
    case 31:
        weights(dw, dy, s->y_row, s->ow, oh0, oh1, &in, 3, 1, s->pad);
        break;
    case 32:
        weights(dw, dy, s->y_row, s->ow, oh0, oh1, &in, 3, 2, s->pad);
        break;
    case 51:
        weights(dw, dy, s->y_row, s->ow, oh0, oh1, &in, 5, 1, s->pad);
        break;
    case 52:
        weights(dw, dy, s->y_row, s->ow, oh0, oh1, &in, 5, 2, s->pad);
        break;
    default:
        plain_backward_weights(dw, x, dy, s, oh0, oh1);
    }
}

void MIX__LOOPS_NAME(mix__loops_fill_depthwise)(struct mix__loops *loops)
{
    loops->dw_forward = dw_forward;
    loops->dw_backward_data = dw_backward_data;
    loops->dw_backward_weights = dw_backward_weights;
}
