/*
 * engine/conv.c - which kind of convolution a layer is, its tiles, and the sums of its weights'
 * gradients.
 *
 * Activations are plain (n, h, w, c) for every layer: no padding of channel counts such as 24, no
 * reorders between layers, and our own loops read the same memory.
 *
 * Three kinds of layers:
 *   depthwise   3x3 and 5x5 of stride 1 and 2: our loops, float32 (oneDNN's backward-weights takes
 *               most of a small image's step)
 *   pointwise   1x1 with stride 1, and linear: matrix products over pixels
 *   dense       anything else: convolution primitives over whole images
 * The last two in bfloat16, or in float32 where that is wanted or oneDNN would run its reference
 * code; forward also on bytes, where input and weights are codes.
 */
#include "engine/conv.h"

#include <limits.h>
#include <string.h>

#include "base/ctx.h"
#include "engine/primitives.h"
#include "model/graph.h"

struct mix__backend {
    mix_ctx *ctx;
    int threads;
    struct mix__onednn *dnn;
    char *sums;   /* (thread, 2, sums_size): weight gradients, sums_of() */
    bool *summed; /* (thread, 2): there is something in the sum          */
    size_t sums_size;
};

struct mix__conv {
    struct mix__backend *backend;
    const struct mix__loops *loops;
    struct mix__conv_dims d;
    enum mix__conv_kind kind;
    struct mix__conv_types types;
    bool backward;
    struct mix__tile_shape shape; /* POINTWISE: n h w pixels as one image's rows */
    struct mix__tiling tiling;
    struct mix__primitives *p; /* not of a depthwise layer */
    float *dw_packed;          /* depthwise: (r, s, c)                     */
};

mix_status mix__backend_new(struct mix__backend **out, mix_ctx *ctx, int threads)
{
    *out = NULL;
    struct mix__backend *b = mix__zalloc(ctx, 1, sizeof *b);
    if (!b)
        return MIX_ENOMEM;
    b->ctx = ctx;
    b->threads = threads;
    const mix_status status = mix__onednn_new(&b->dnn, ctx, threads);
    if (status != MIX_OK)
        mix__backend_free(b);
    else
        *out = b;
    return status;
}

void mix__backend_free(struct mix__backend *b)
{
    if (!b)
        return;
    mix__onednn_free(b->dnn);
    mix__free(b->ctx, b->sums);
    mix__free(b->ctx, b->summed);
    mix__free(b->ctx, b);
}

mix_status mix__backend_ready(struct mix__backend *b)
{
    if (!b->sums)
        b->sums = mix__alloc(b->ctx, b->sums_size * (size_t)b->threads * 2 + 1, 1);
    if (!b->summed)
        b->summed = mix__zalloc(b->ctx, 2 * (size_t)b->threads, sizeof *b->summed);
    return b->sums && b->summed ? mix__onednn_ready(b->dnn) : MIX_ENOMEM;
}

size_t mix__backend_scratch(const struct mix__backend *b)
{
    return mix__onednn_scratch(b->dnn) + 2 * b->sums_size * (size_t)b->threads;
}

/* which 0: the sum of a thread's tiles; 1: a DENSE tile's own, or the sum of a layer whose rows are
 * its caller's. */
static float *sums_of(const struct mix__backend *b, int thread, int which)
{
    return (float *)(void *)(b->sums + (2 * (size_t)thread + (size_t)which) * b->sums_size);
}

static int sum_place(const struct mix__conv *c)
{
    return c->d.rows > 0 ? 1 : 0;
}

static bool *summed(const struct mix__conv *c, int thread)
{
    return &c->backend->summed[2 * thread + sum_place(c)];
}

size_t mix__conv_packed(const struct mix__conv *c)
{
    if (c->kind == MIX__CONV_DEPTHWISE)
        return sizeof(float) * (size_t)(c->d.kernel * c->d.kernel * c->d.c);
    return mix__primitives_packed(c->p);
}

bool mix__conv_is_depthwise(const struct mix__conv *c)
{
    return c->kind == MIX__CONV_DEPTHWISE;
}

struct mix__conv_types mix__conv_types(const struct mix__conv *c)
{
    return c->types;
}

const struct mix__tiling *mix__conv_tiling(const struct mix__conv *c)
{
    return &c->tiling;
}

struct mix__tile mix__conv_tile(const struct mix__conv *c, int index)
{
    return mix__tile_at(&c->tiling, &c->shape, index);
}

size_t mix__conv_x_pixels(const struct mix__conv *c, int image, int row)
{
    return ((size_t)image * c->shape.h + row) * c->shape.w;
}

size_t mix__conv_y_pixels(const struct mix__conv *c, int image, int row)
{
    return ((size_t)image * c->shape.oh + row) * c->shape.ow;
}

/* ---- planning ------------------------------------------------------------------------------- */

static void need_sums(struct mix__backend *b, size_t bytes)
{
    bytes = mix__aligned(bytes);
    if (bytes > b->sums_size)
        b->sums_size = bytes;
}

static mix_status plan_depthwise(struct mix__conv *c)
{
    const size_t taps = (size_t)(c->d.kernel * c->d.kernel), n = taps * (size_t)c->d.c;
    need_sums(c->backend, n * sizeof(float));
    c->dw_packed = mix__alloc(c->backend->ctx, n, sizeof(float));
    return c->dw_packed ? MIX_OK : MIX_ENOMEM;
}

enum mix__conv_kind mix__conv_kind(const struct mix__conv_dims *d)
{
    if (mix__is_depthwise(d->groups, d->c, d->k) && !d->bias && !d->image &&
        (d->kernel == 3 || d->kernel == 5) && d->stride <= 2 && d->pad < d->kernel &&
        d->pad_end < d->kernel)
        return MIX__CONV_DEPTHWISE;
    return d->groups == 1 && d->kernel == 1 && d->stride == 1 && d->pad == 0 && d->pad_end == 0
               ? MIX__CONV_POINTWISE
               : MIX__CONV_DENSE;
}

static void choose_tiles(struct mix__conv *c)
{
    const struct mix__conv_dims *d = &c->d;
    c->shape = (struct mix__tile_shape){ d->n,  d->h, d->w,      d->c,      d->oh,
                                         d->ow, d->k, d->kernel, d->stride, d->pad };
    if (c->kind == MIX__CONV_POINTWISE) {
        c->shape.h = c->shape.oh = d->n * d->h * d->w;
        c->shape.n = c->shape.w = c->shape.ow = 1;
        mix__tiling_pixels(&c->tiling, &c->shape, c->types.operand == MIX__DTYPE_BF16);
    } else if (c->kind == MIX__CONV_DEPTHWISE) {
        mix__tiling_bands(&c->tiling, &c->shape);
    } else {
        mix__tiling_images(&c->tiling, &c->shape);
        /* Between tensors of float32 each product's sums stay short, and so the more exact. */
        if (d->y == MIX__DTYPE_BF16)
            mix__tiling_grow(&c->tiling, &c->shape, c->backend->threads);
    }
}

static mix_status plan_as(struct mix__conv *c, struct mix__conv_types types)
{
    c->types = types;
    choose_tiles(c);
    if (c->kind == MIX__CONV_DEPTHWISE)
        return plan_depthwise(c);
    const struct mix__primitives_shape shape = { .dims = c->d,
                                                 .kind = c->kind,
                                                 .types = types,
                                                 .images = c->tiling.images,
                                                 .rows = c->d.rows > 0
                                                             ? c->d.rows
                                                             : c->shape.h / c->tiling.bands,
                                                 .backward = c->backward };
    mix__primitives_free(c->p);
    MIX_TRY(mix__primitives_new(&c->p, c->backend->dnn, &shape));
    need_sums(c->backend, mix__primitives_gradient(c->p));
    return MIX_OK;
}

/* In bfloat16, else in float32 with codes, else in that alone: the first that oneDNN does not do by
 * its reference code. */
static mix_status plan_fastest(struct mix__conv *c)
{
    const struct mix__conv_dims *d = &c->d;
    const struct mix__conv_types types[] = { { MIX__DTYPE_BF16, d->codes, d->y, d->dx },
                                             { .codes = d->codes },
                                             { MIX__DTYPE_F32 } };
    if (c->kind == MIX__CONV_DEPTHWISE)
        return plan_as(c, (struct mix__conv_types){ .y = d->y });
    const size_t n = MIX_COUNT(types) - (d->codes == MIX__DTYPE_F32); /* the last two are one */
    size_t i = d->dtype == MIX__DTYPE_BF16 && d->groups == 1 ? 0 : 1;
    do
        MIX_TRY(plan_as(c, types[i++]));
    while (mix__primitives_slow(c->p) && i < n);
    return MIX_OK;
}

mix_status mix__conv_new(struct mix__conv **out, struct mix__backend *backend,
                         const struct mix__loops *loops, const struct mix__conv_dims *dims,
                         bool backward)
{
    *out = NULL;
    if ((int64_t)dims->n * dims->h * dims->w > INT_MAX)
        return mix__fail(
            backend->ctx, MIX_EUNSUPPORTED,
            "a batch of %d images has %d x %d pixels each at a layer's input; expected "
            "at most %d together",
            dims->n, dims->h, dims->w, INT_MAX);
    struct mix__conv *c = mix__zalloc(backend->ctx, 1, sizeof *c);
    if (!c)
        return MIX_ENOMEM;
    c->backend = backend;
    c->loops = loops;
    c->d = *dims;
    c->backward = backward;
    c->kind = mix__conv_kind(dims);
    const mix_status status = plan_fastest(c);
    if (status != MIX_OK) {
        mix__conv_free(c);
        return status;
    }
    *out = c;
    return MIX_OK;
}

void mix__conv_free(struct mix__conv *c)
{
    if (!c)
        return;
    mix__primitives_free(c->p);
    mix__free(c->backend->ctx, c->dw_packed);
    mix__free(c->backend->ctx, c);
}

/* ---- running -------------------------------------------------------------------------------- */

mix_status mix__conv_pack(struct mix__conv *c, const float *weights, bool codes)
{
    const size_t taps = (size_t)(c->d.kernel * c->d.kernel), channels = (size_t)c->d.k;
    if (c->kind == MIX__CONV_DEPTHWISE) { /* (k, 1, r, s) to (r, s, k) */
        for (size_t k = 0; k < channels; k++)
            for (size_t t = 0; t < taps; t++)
                c->dw_packed[t * channels + k] = weights[k * taps + t];
        return MIX_OK;
    }
    if (codes)
        MIX_TRY(mix__primitives_pack(c->p, MIX__FORWARD_CODES, weights));
    if (!codes || c->d.image) /* which is multiplied as slopes too */
        MIX_TRY(mix__primitives_pack(c->p, MIX__FORWARD, weights));
    return mix__primitives_pack(c->p, MIX__BACKWARD_DATA, weights);
}

mix_status mix__conv_pack_back(struct mix__conv *c, const float *weights)
{
    return mix__primitives_pack(c->p, MIX__BACKWARD_DATA, weights);
}

mix_status mix__conv_forward(struct mix__conv *c, int thread, void *y, struct mix__values x,
                             const float *bias)
{
    return mix__primitives_run(c->p,
                               x.dtype == c->types.operand ? MIX__FORWARD : MIX__FORWARD_CODES,
                               thread, x.at, y, bias);
}

mix_status mix__conv_backward_data(struct mix__conv *c, int thread, void *dx, const void *dy)
{
    return mix__primitives_run(c->p, MIX__BACKWARD_DATA, thread, dx, dy, NULL);
}

/* Bytes of a thread's sum. */
static size_t sums_used(const struct mix__conv *c)
{
    return c->kind == MIX__CONV_DEPTHWISE ? mix__conv_packed(c) : mix__primitives_gradient(c->p);
}

void mix__conv_weights_begin(struct mix__conv *c)
{
    for (int t = 0; t < c->backend->threads; t++)
        *summed(c, t) = false;
}

/* Whether the thread's sum has nothing in it; it will have. */
static bool begin_sum(struct mix__conv *c, int thread)
{
    const bool first = !*summed(c, thread);
    *summed(c, thread) = true;
    return first;
}

mix_status mix__conv_backward_weights(struct mix__conv *c, int thread, const void *x,
                                      const void *dy)
{
    float *sum = sums_of(c->backend, thread, sum_place(c));
    if (begin_sum(c, thread))
        return mix__primitives_run(c->p, MIX__BACKWARD_WEIGHTS, thread, x, dy, sum);
    if (c->kind == MIX__CONV_POINTWISE)
        return mix__primitives_run(c->p, MIX__MORE_WEIGHTS, thread, x, dy, sum);
    float *own = sums_of(c->backend, thread, 1); /* convolution primitives do not add */
    MIX_TRY(mix__primitives_run(c->p, MIX__BACKWARD_WEIGHTS, thread, x, dy, own));
    c->loops->add(mix__f32(sum), mix__f32(sum), mix__f32(own), sums_used(c) / sizeof *sum);
    return MIX_OK;
}

mix_status mix__conv_add_weights(struct mix__conv *c, int thread, float *sum, const void *x,
                                 const void *dy)
{
    return mix__primitives_run(c->p, MIX__MORE_WEIGHTS, thread, x, dy, sum);
}

int mix__conv_weights_pieces(const struct mix__conv *c)
{
    return c->kind == MIX__CONV_DENSE ? mix__primitives_pieces(c->p) : MIX__PARTS;
}

size_t mix__conv_weights_first(const struct mix__conv *c, int piece)
{
    return (size_t)c->d.k * (size_t)piece / (size_t)mix__conv_weights_pieces(c);
}

/* Values of an output channel's weights. */
static size_t channel_length(const struct mix__conv *c)
{
    return (size_t)(c->d.kernel * c->d.kernel) * (size_t)(c->d.c / c->d.groups);
}

/* Values of a piece in the layout that a DENSE layer's gradient has. */
static size_t packed_length(const struct mix__conv *c)
{
    return sums_used(c) / sizeof(float) / (size_t)mix__conv_weights_pieces(c);
}

/* n of the values that the threads have summed, added up in `to` if more than one has. With a static
 * schedule the first thread has the first tile: its sum is always there. */
static const float *add_threads(const struct mix__conv *c, size_t first, size_t n, float *to)
{
    const struct mix__backend *b = c->backend;
    const float *total = sums_of(b, 0, sum_place(c)) + first;
    for (int t = 1; t < b->threads; t++)
        if (*summed(c, t)) {
            c->loops->add(mix__f32(to), mix__f32((float *)total),
                          mix__f32(sums_of(b, t, sum_place(c)) + first), n);
            total = to;
        }
    return total;
}

mix_status mix__conv_weights_end(struct mix__conv *c, int thread, int piece, float *dw)
{
    if (c->kind == MIX__CONV_DENSE) {
        const size_t n = packed_length(c);
        const float *total = add_threads(c, (size_t)piece * n, n, sums_of(c->backend, thread, 1));
        return mix__primitives_unpack(c->p, thread, total,
                                      dw + mix__conv_weights_first(c, piece) * channel_length(c));
    }
    const size_t first = mix__conv_weights_first(c, piece);
    const size_t channels = mix__conv_weights_first(c, piece + 1) - first;
    const size_t length = channel_length(c), count = channels * length;
    float *to = dw + first * length;
    if (c->kind == MIX__CONV_POINTWISE) {
        const float *total = add_threads(c, first * length, count, to);
        if (total != to)
            memcpy(to, total, count * sizeof *to);
        return MIX_OK;
    }
    for (size_t t = 0; t < length; t++) { /* from (r, s, k) */
        const size_t at = t * (size_t)c->d.k + first;
        const float *total = add_threads(c, at, channels, sums_of(c->backend, 0, 0) + at);
        for (size_t k = 0; k < channels; k++)
            to[k * length + t] = total[k];
    }
    return MIX_OK;
}

/* ---- depthwise ------------------------------------------------------------------------------ */

static struct mix__dw_shape dw_shape(const struct mix__conv_dims *d, int x_row, int y_row)
{
    return (struct mix__dw_shape){ d->h,      d->w,      d->c,   d->oh, d->ow,
                                   d->kernel, d->stride, d->pad, x_row, y_row };
}

/* So many values on. */
static struct mix__dw_input input_at(const struct mix__dw_input *x, size_t values)
{
    return (struct mix__dw_input){ mix__values_from(x->z, values), x->affine, x->fake };
}

static struct mix__dw_gradient gradient_at(const struct mix__dw_gradient *dz, size_t values)
{
    struct mix__dw_gradient at = *dz;
    at.du = mix__values_from(dz->du, values);
    if (dz->k1)
        at.z = mix__values_from(dz->z, values);
    return at;
}

static size_t x_values(const struct mix__conv *c)
{
    return (size_t)c->d.h * c->d.w * c->d.c;
}

static size_t y_values(const struct mix__conv *c)
{
    return (size_t)c->d.oh * c->d.ow * c->d.c;
}

void mix__depthwise_forward(const struct mix__conv *c, const struct mix__tile *t, void *y,
                            const struct mix__dw_input *x)
{
    const struct mix__dw_shape s = dw_shape(&c->d, t->x0, t->y0);
    const struct mix__values to = { y, c->types.y };
    for (int n = 0; n < t->images; n++) {
        const struct mix__dw_input in = input_at(x, n * x_values(c));
        c->loops->dw_forward(mix__values_from(to, n * y_values(c)), &in, c->dw_packed, &s, t->y0,
                             t->y1);
    }
}

void mix__depthwise_backward(struct mix__conv *c, int thread, const struct mix__tile *t,
                             struct mix__values du, bool stream, const struct mix__norm_back *back,
                             const struct mix__dw_input *x, const struct mix__dw_gradient *dz,
                             bool weights)
{
    const struct mix__dw_shape s = dw_shape(&c->d, t->x0, t->dy0);
    struct mix__dw_back to = { NULL, du, back, stream, t->y0, t->y1, t->dx0, t->dx1 };
    if (weights) {
        to.dw = sums_of(c->backend, thread, sum_place(c));
        if (begin_sum(c, thread))
            memset(to.dw, 0, sums_used(c));
    }
    for (int n = 0; n < t->images; n++) {
        const struct mix__dw_input in = input_at(x, n * x_values(c));
        const struct mix__dw_gradient out = gradient_at(dz, n * y_values(c));
        to.du = mix__values_from(du, n * x_values(c));
        c->loops->dw_backward(&to, &in, &out, c->dw_packed, &s);
    }
}
