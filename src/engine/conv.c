/*
 * engine/conv.c - convolutions by oneDNN 2.6's C interface, as floor.c; no other file includes
 * dnnl.h.
 *
 * Activations are plain (n, h, w, c) for every layer: no padding of channel counts such as 24, no
 * reorders between layers, and our own loops read the same memory. Weights are in the layout that
 * each primitive likes best and are packed when they change, not when they are used.
 *
 * Three kinds of layers:
 *   depthwise   our loops, float32 (oneDNN's backward-weights takes most of a small image's step)
 *   pointwise   1x1 with stride 1, and linear: matrix products over pixels,
 *                 y (m, k) = x (m, c) w^T,  dx (m, c) = dy (m, k) w,  dw (k, c) = dy^T x
 *   dense       anything else: convolution primitives over whole images
 * The last two in bfloat16, or in float32 where oneDNN would run its reference code; forward also
 * on bytes, where input and weights are codes. Primitives are made for one tile and one thread;
 * threads run them side by side, each with memory objects of its own.
 */
#include "engine/conv.h"

#include <dnnl.h>
#include <omp.h>
#include <string.h>

#include "base/ctx.h"

#define DNNL_TRY(ctx, call)                                                                        \
    do {                                                                                           \
        const dnnl_status_t dnnl_status_ = (call);                                                 \
        if (dnnl_status_ != dnnl_success)                                                          \
            return mix__fail(ctx, MIX_EBACKEND, "oneDNN: %s failed with status %d", #call,         \
                             (int)dnnl_status_);                                                   \
    } while (0)

struct mix__backend {
    mix_ctx *ctx;
    int threads;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    char *scratch; /* (thread, scratch_size)                                      */
    char *sums;    /* (thread, 2, sums_size): weight gradients, sums_of() */
    bool *summed;  /* (thread, 2): there is something in the sum                     */
    size_t scratch_size, sums_size;
};

/* FORWARD_CODES is FORWARD on bytes, whose sums are exact integers. */
enum pass { FORWARD, FORWARD_CODES, BACKWARD_DATA, BACKWARD_WEIGHTS, PASSES };

/* The memory objects of one thread. */
struct handles {
    dnnl_memory_t x, y, w, bias, scratch;
};

/* One primitive; weights sit in `packed` in the primitive's own layout. */
struct primitive {
    dnnl_primitive_t run;
    struct handles *thread;   /* (threads); w is used for BACKWARD_WEIGHTS */
    dnnl_memory_t packed;     /* weights, or their gradient in sums        */
    dnnl_memory_t plain;      /* the same as (k, c / groups, r, s)         */
    dnnl_primitive_t reorder; /* plain -> packed; for BACKWARD_WEIGHTS packed -> plain */
    void *packed_data;
    size_t packed_size;
};

struct mix__conv {
    struct mix__backend *backend;
    const struct mix__loops *loops;
    struct mix__conv_dims d;
    enum mix__conv_kind kind;
    struct mix__conv_types types;
    bool backward;
    bool reference; /* a primitive is oneDNN's reference implementation, which is slow */
    struct mix__tile_shape shape; /* POINTWISE: n h w pixels as one image's rows */
    struct mix__tiling tiling;
    struct primitive p[PASSES];
    float *dw_packed; /* depthwise: (r, s, c)                     */
};

/* Keeps oneDNN to AVX2 or less where the context may not use AVX-512. It listens once a process,
 * before anything has run in it. */
static void limit_instructions(unsigned cpu)
{
#if defined(__x86_64__)
    if (!(cpu & MIX_CPU_AVX512))
        (void)dnnl_set_max_cpu_isa(cpu & MIX_CPU_AVX2 ? dnnl_cpu_isa_avx2 : dnnl_cpu_isa_sse41);
#else
    (void)cpu;
#endif
}

mix_status mix__backend_new(struct mix__backend **out, mix_ctx *ctx, int threads)
{
    *out = NULL;
    struct mix__backend *b = mix__zalloc(ctx, 1, sizeof *b);
    if (!b)
        return MIX_ENOMEM;
    b->ctx = ctx;
    b->threads = threads;
    limit_instructions(mix_ctx_cpu(ctx));
    if (dnnl_engine_create(&b->engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&b->stream, b->engine, dnnl_stream_default_flags) != dnnl_success) {
        mix__backend_free(b);
        return mix__fail(ctx, MIX_EBACKEND, "oneDNN: no CPU engine");
    }
    *out = b;
    return MIX_OK;
}

void mix__backend_free(struct mix__backend *b)
{
    if (!b)
        return;
    if (b->stream)
        dnnl_stream_destroy(b->stream);
    if (b->engine)
        dnnl_engine_destroy(b->engine);
    mix__free(b->ctx, b->scratch);
    mix__free(b->ctx, b->sums);
    mix__free(b->ctx, b->summed);
    mix__free(b->ctx, b);
}

static void need(size_t *size, size_t bytes)
{
    bytes = (bytes + MIX_ALIGN - 1) / MIX_ALIGN * MIX_ALIGN;
    if (bytes > *size)
        *size = bytes;
}

mix_status mix__backend_ready(struct mix__backend *b)
{
    if (!b->scratch)
        b->scratch = mix__alloc(b->ctx, b->scratch_size * (size_t)b->threads + 1, 1);
    if (!b->sums)
        b->sums = mix__alloc(b->ctx, b->sums_size * (size_t)b->threads * 2 + 1, 1);
    if (!b->summed)
        b->summed = mix__zalloc(b->ctx, 2 * (size_t)b->threads, sizeof *b->summed);
    return b->scratch && b->sums && b->summed ? MIX_OK : MIX_ENOMEM;
}

size_t mix__backend_scratch(const struct mix__backend *b)
{
    return (b->scratch_size + 2 * b->sums_size) * (size_t)b->threads;
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
    return c->p[FORWARD].packed_size + c->p[FORWARD_CODES].packed_size +
           c->p[BACKWARD_DATA].packed_size;
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

struct descs {
    dnnl_memory_desc_t x, y, w, plain, bias;
};

static dnnl_data_type_t data_type(enum mix__dtype dtype)
{
    static const dnnl_data_type_t types[] = { [MIX__DTYPE_F32] = dnnl_f32,
                                              [MIX__DTYPE_BF16] = dnnl_bf16,
                                              [MIX__DTYPE_S8] = dnnl_s8,
                                              [MIX__DTYPE_U8] = dnnl_u8 };
    return types[dtype];
}

static bool is_forward(enum pass pass)
{
    return pass == FORWARD || pass == FORWARD_CODES;
}

/* What the pass reads and writes on the image's side and the output's side. */
static enum mix__dtype x_type(const struct mix__conv *c, enum pass pass)
{
    return pass == BACKWARD_DATA   ? c->types.dx
           : pass == FORWARD_CODES ? c->types.codes
                                   : c->types.operand;
}

static enum mix__dtype y_type(const struct mix__conv *c, enum pass pass)
{
    return is_forward(pass) ? c->types.y : c->types.operand;
}

/* Of packed weights, or of their gradient. */
static dnnl_data_type_t w_type(const struct mix__conv *c, enum pass pass)
{
    return pass == BACKWARD_WEIGHTS ? dnnl_f32
           : pass == FORWARD_CODES  ? dnnl_s8
                                    : data_type(c->types.operand);
}

static mix_status dense_descs(const struct mix__conv *c, enum pass pass, struct descs *m)
{
    mix_ctx *ctx = c->backend->ctx;
    const struct mix__conv_dims *d = &c->d;
    const int n = c->tiling.images;
    const dnnl_dims_t x = { n, d->c, d->h, d->w }, y = { n, d->k, d->oh, d->ow };
    const dnnl_dims_t dense = { d->k, d->c, d->kernel, d->kernel };
    const dnnl_dims_t grouped = { d->groups, d->k / d->groups, d->c / d->groups, d->kernel,
                                  d->kernel };
    const dnnl_dims_t bias = { d->k };
    const bool is_grouped = d->groups > 1;
    const int rank = is_grouped ? 5 : 4;
    DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->x, 4, x, data_type(x_type(c, pass)), dnnl_nhwc));
    DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->y, 4, y, data_type(y_type(c, pass)), dnnl_nhwc));
    DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->w, rank, is_grouped ? grouped : dense,
                                               w_type(c, pass), dnnl_format_tag_any));
    DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->plain, rank, is_grouped ? grouped : dense,
                                               dnnl_f32, is_grouped ? dnnl_goihw : dnnl_oihw));
    DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->bias, 1, bias, dnnl_f32, dnnl_x));
    return MIX_OK;
}

/* x and y are the product's source and result, whatever their roles in the pass; w its weights. */
static mix_status product_descs(const struct mix__conv *c, enum pass pass, struct descs *m)
{
    mix_ctx *ctx = c->backend->ctx;
    const int rows = c->d.rows > 0 ? c->d.rows : c->shape.h / c->tiling.bands;
    const dnnl_dims_t x = { rows, c->d.c }, y = { rows, c->d.k }, y_turned = { c->d.k, rows };
    const dnnl_dims_t w = { c->d.c, c->d.k }, w_turned = { c->d.k, c->d.c }, bias = { 1, c->d.k };
    const dnnl_data_type_t tx = data_type(x_type(c, pass)), ty = data_type(y_type(c, pass));
    const dnnl_data_type_t tw = w_type(c, pass);
    DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->bias, 2, bias, dnnl_f32, dnnl_ab));
    switch (pass) {
    case FORWARD:
    case FORWARD_CODES:
        DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->x, 2, x, tx, dnnl_ab));
        DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->w, 2, w, tw, dnnl_format_tag_any));
        DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->y, 2, y, ty, dnnl_ab));
        DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->plain, 2, w, dnnl_f32, dnnl_ba));
        return MIX_OK;
    case BACKWARD_DATA:
        DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->x, 2, x, tx, dnnl_ab));
        DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->w, 2, w_turned, tw, dnnl_format_tag_any));
        DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->y, 2, y, ty, dnnl_ab));
        DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->plain, 2, w_turned, dnnl_f32, dnnl_ab));
        return MIX_OK;
    default:
        DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->y, 2, y_turned, ty, dnnl_ba));
        DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->x, 2, x, tx, dnnl_ab));
        DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->w, 2, w_turned, tw, dnnl_ab));
        m->plain = m->w;
        return MIX_OK;
    }
}

static mix_status make_handles(struct mix__conv *c, enum pass pass, const struct descs *m,
                               const dnnl_memory_desc_t *w, const dnnl_memory_desc_t *scratch)
{
    struct mix__backend *b = c->backend;
    struct primitive *p = &c->p[pass];
    p->thread = mix__zalloc(b->ctx, (size_t)b->threads, sizeof *p->thread);
    if (!p->thread)
        return MIX_ENOMEM;
    for (int t = 0; t < b->threads; t++) {
        struct handles *h = &p->thread[t];
        DNNL_TRY(b->ctx, dnnl_memory_create(&h->x, &m->x, b->engine, DNNL_MEMORY_NONE));
        DNNL_TRY(b->ctx, dnnl_memory_create(&h->y, &m->y, b->engine, DNNL_MEMORY_NONE));
        DNNL_TRY(b->ctx, dnnl_memory_create(&h->scratch, scratch, b->engine, DNNL_MEMORY_NONE));
        if (is_forward(pass) && c->d.bias)
            DNNL_TRY(b->ctx, dnnl_memory_create(&h->bias, &m->bias, b->engine, DNNL_MEMORY_NONE));
        if (pass == BACKWARD_WEIGHTS)
            DNNL_TRY(b->ctx, dnnl_memory_create(&h->w, w, b->engine, DNNL_MEMORY_NONE));
    }
    need(&b->scratch_size, dnnl_memory_desc_get_size(scratch));
    return MIX_OK;
}

static bool is_reference(dnnl_primitive_desc_t desc)
{
    const char *name;
    return dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &name) == dnnl_success &&
           strncmp(name, "ref", 3) == 0;
}

/* From a primitive descriptor: the primitive, its memories, its packed weights and their reorder.
 */
static mix_status realise(struct mix__conv *c, enum pass pass, dnnl_primitive_desc_t desc,
                          const struct descs *m)
{
    struct mix__backend *b = c->backend;
    struct primitive *p = &c->p[pass];
    const bool gradient = pass == BACKWARD_WEIGHTS;
    const dnnl_memory_desc_t *w =
        gradient && c->kind == MIX__CONV_POINTWISE
            ? &m->w
            : dnnl_primitive_desc_query_md(
                  desc, gradient ? dnnl_query_diff_weights_md : dnnl_query_weights_md, 0);
    c->reference |= is_reference(desc);
    DNNL_TRY(b->ctx, dnnl_primitive_create(&p->run, desc));
    MIX_TRY(make_handles(c, pass, m, w,
                         dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0)));
    p->packed_size = dnnl_memory_desc_get_size(w);
    if (gradient) {
        need(&b->sums_size, p->packed_size);
        if (c->kind == MIX__CONV_POINTWISE) /* is plain */
            return MIX_OK;
    } else {
        p->packed_data = mix__zalloc(b->ctx, p->packed_size, 1); /* zero: padding is read */
        if (!p->packed_data)
            return MIX_ENOMEM;
    }
    DNNL_TRY(b->ctx, dnnl_memory_create(&p->packed, w, b->engine,
                                        gradient ? DNNL_MEMORY_NONE : p->packed_data));
    DNNL_TRY(b->ctx, dnnl_memory_create(&p->plain, &m->plain, b->engine, DNNL_MEMORY_NONE));
    dnnl_primitive_desc_t reorder;
    DNNL_TRY(b->ctx,
             dnnl_reorder_primitive_desc_create(&reorder, gradient ? w : &m->plain, b->engine,
                                                gradient ? &m->plain : w, b->engine, NULL));
    const dnnl_status_t status = dnnl_primitive_create(&p->reorder, reorder);
    dnnl_primitive_desc_destroy(reorder);
    DNNL_TRY(b->ctx, status);
    return MIX_OK;
}

/* hint: the forward descriptor, for the backward ones. */
static mix_status dense_desc(struct mix__conv *c, enum pass pass, const struct descs *m,
                             dnnl_primitive_attr_t attr, dnnl_primitive_desc_t hint,
                             dnnl_primitive_desc_t *desc)
{
    mix_ctx *ctx = c->backend->ctx;
    const dnnl_dims_t strides = { c->d.stride, c->d.stride }, pad = { c->d.pad, c->d.pad };
    const dnnl_dims_t end = { c->d.pad_end, c->d.pad_end };
    dnnl_convolution_desc_t op;
    switch (pass) {
    case FORWARD:
    case FORWARD_CODES:
        DNNL_TRY(ctx, dnnl_convolution_forward_desc_init(
                          &op, dnnl_forward_training, dnnl_convolution_direct, &m->x, &m->w,
                          c->d.bias ? &m->bias : NULL, &m->y, strides, pad, end));
        break;
    case BACKWARD_DATA:
        DNNL_TRY(ctx, dnnl_convolution_backward_data_desc_init(&op, dnnl_convolution_direct, &m->x,
                                                               &m->w, &m->y, strides, pad, end));
        break;
    default:
        DNNL_TRY(ctx, dnnl_convolution_backward_weights_desc_init(&op, dnnl_convolution_direct,
                                                                  &m->x, &m->w, NULL, &m->y,
                                                                  strides, pad, end));
    }
    DNNL_TRY(ctx, dnnl_primitive_desc_create(desc, &op, attr, c->backend->engine, hint));
    return MIX_OK;
}

static bool wants(const struct mix__conv *c, enum pass pass)
{
    if (pass == FORWARD_CODES)
        return c->types.codes != MIX__DTYPE_F32;
    return pass == FORWARD || (c->backward && !(c->d.image && pass == BACKWARD_DATA));
}

static mix_status plan_dense(struct mix__conv *c, dnnl_primitive_attr_t attr)
{
    struct descs m;
    dnnl_primitive_desc_t desc[PASSES] = { NULL };
    mix_status status = MIX_OK;
    for (int pass = 0; pass < PASSES && status == MIX_OK; pass++)
        if (wants(c, (enum pass)pass) && (status = dense_descs(c, (enum pass)pass, &m)) == MIX_OK &&
            (status = dense_desc(c, (enum pass)pass, &m, attr, desc[FORWARD], &desc[pass])) ==
                MIX_OK)
            status = realise(c, (enum pass)pass, desc[pass], &m);
    for (int pass = 0; pass < PASSES; pass++)
        if (desc[pass])
            dnnl_primitive_desc_destroy(desc[pass]);
    return status;
}

/* Makes the result of a primitive add to what is there. */
static mix_status make_adding(mix_ctx *ctx, dnnl_primitive_attr_t attr)
{
    dnnl_post_ops_t ops;
    DNNL_TRY(ctx, dnnl_post_ops_create(&ops));
    dnnl_status_t status = dnnl_post_ops_append_sum(ops, 1.0f);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_post_ops(attr, ops);
    dnnl_post_ops_destroy(ops);
    DNNL_TRY(ctx, status);
    return MIX_OK;
}

static mix_status plan_product(struct mix__conv *c, enum pass pass, dnnl_primitive_attr_t attr)
{
    mix_ctx *ctx = c->backend->ctx;
    struct descs m;
    dnnl_matmul_desc_t op;
    dnnl_primitive_desc_t desc;
    MIX_TRY(product_descs(c, pass, &m));
    if (is_forward(pass))
        DNNL_TRY(ctx, dnnl_matmul_desc_init(&op, &m.x, &m.w, c->d.bias ? &m.bias : NULL, &m.y));
    else if (pass == BACKWARD_DATA)
        DNNL_TRY(ctx, dnnl_matmul_desc_init(&op, &m.y, &m.w, NULL, &m.x));
    else
        DNNL_TRY(ctx, dnnl_matmul_desc_init(&op, &m.y, &m.x, NULL, &m.w));
    DNNL_TRY(ctx, dnnl_primitive_desc_create(&desc, &op, attr, c->backend->engine, NULL));
    const mix_status status = realise(c, pass, desc, &m);
    dnnl_primitive_desc_destroy(desc);
    return status;
}

static mix_status plan_primitives(struct mix__conv *c)
{
    mix_ctx *ctx = c->backend->ctx;
    dnnl_primitive_attr_t attr;
    DNNL_TRY(ctx, dnnl_primitive_attr_create(&attr));
    dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    mix_status status = MIX_OK;
    if (c->kind == MIX__CONV_DENSE)
        status = plan_dense(c, attr);
    else { /* a tile's weight gradient is added to the sum of those before it */
        for (int pass = 0; pass < BACKWARD_WEIGHTS && status == MIX_OK; pass++)
            if (wants(c, (enum pass)pass))
                status = plan_product(c, (enum pass)pass, attr);
        if (c->backward && status == MIX_OK && (status = make_adding(ctx, attr)) == MIX_OK)
            status = plan_product(c, BACKWARD_WEIGHTS, attr);
    }
    dnnl_primitive_attr_destroy(attr);
    return status;
}

static mix_status plan_depthwise(struct mix__conv *c)
{
    const size_t taps = (size_t)(c->d.kernel * c->d.kernel), n = taps * (size_t)c->d.c;
    need(&c->backend->sums_size, n * sizeof(float));
    c->dw_packed = mix__alloc(c->backend->ctx, n, sizeof(float));
    return c->dw_packed ? MIX_OK : MIX_ENOMEM;
}

enum mix__conv_kind mix__conv_kind(const struct mix__conv_dims *d)
{
    if (d->groups > 1 && d->groups == d->c && d->c == d->k && !d->bias)
        return MIX__CONV_DEPTHWISE;
    return d->groups == 1 && d->kernel == 1 && d->stride == 1 && d->pad == 0 && d->pad_end == 0
               ? MIX__CONV_POINTWISE
               : MIX__CONV_DENSE;
}

static void choose_tiles(struct mix__conv *c)
{
    const struct mix__conv_dims *d = &c->d;
    const bool half = c->types.operand == MIX__DTYPE_BF16;
    c->shape = (struct mix__tile_shape){ d->n,  d->h, d->w,      d->c,      d->oh,
                                         d->ow, d->k, d->kernel, d->stride, d->pad };
    if (c->kind == MIX__CONV_POINTWISE) {
        c->shape.h = c->shape.oh = d->n * d->h * d->w;
        c->shape.n = c->shape.w = c->shape.ow = 1;
        mix__tiling_pixels(&c->tiling, &c->shape, half);
    } else if (c->kind == MIX__CONV_DEPTHWISE) {
        mix__tiling_bands(&c->tiling, &c->shape);
    } else {
        mix__tiling_images(&c->tiling, &c->shape);
        /* Float32 keeps short sums in each product, which are the more exact ones. */
        if (half)
            mix__tiling_grow(&c->tiling, &c->shape, c->backend->threads);
    }
}

static void release(const struct mix__backend *b, struct primitive *p)
{
    for (int t = 0; p->thread && t < b->threads; t++) {
        const struct handles *h = &p->thread[t];
        const dnnl_memory_t memories[] = { h->x, h->y, h->w, h->bias, h->scratch };
        for (size_t i = 0; i < MIX_COUNT(memories); i++)
            if (memories[i])
                dnnl_memory_destroy(memories[i]);
    }
    if (p->packed)
        dnnl_memory_destroy(p->packed);
    if (p->plain)
        dnnl_memory_destroy(p->plain);
    if (p->run)
        dnnl_primitive_destroy(p->run);
    if (p->reorder)
        dnnl_primitive_destroy(p->reorder);
    mix__free(b->ctx, p->thread);
    mix__free(b->ctx, p->packed_data);
    *p = (struct primitive){ NULL };
}

static mix_status plan_as(struct mix__conv *c, struct mix__conv_types types)
{
    c->types = types;
    c->reference = false;
    choose_tiles(c);
    if (c->kind == MIX__CONV_DEPTHWISE)
        return plan_depthwise(c);
    for (int i = 0; i < PASSES; i++)
        release(c->backend, &c->p[i]);
    return plan_primitives(c);
}

mix_status mix__conv_new(struct mix__conv **out, struct mix__backend *backend,
                         const struct mix__loops *loops, const struct mix__conv_dims *dims,
                         bool backward)
{
    *out = NULL;
    struct mix__conv *c = mix__zalloc(backend->ctx, 1, sizeof *c);
    if (!c)
        return MIX_ENOMEM;
    c->backend = backend;
    c->loops = loops;
    c->d = *dims;
    c->backward = backward;
    c->kind = mix__conv_kind(dims);
    const bool half =
        c->kind != MIX__CONV_DEPTHWISE && dims->dtype == MIX__DTYPE_BF16 && dims->groups == 1;
    const struct mix__conv_types whole = { .y = c->kind == MIX__CONV_DEPTHWISE ? dims->y
                                                                               : MIX__DTYPE_F32 };
    const struct mix__conv_types halves = { MIX__DTYPE_BF16, dims->codes, dims->y, dims->dx };
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1); /* as the primitives will run */
    mix_status status = plan_as(c, half ? halves : whole);
    if (status == MIX_OK && half && c->reference)
        status = plan_as(c, whole);
    omp_set_num_threads(threads);
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
    for (int i = 0; i < PASSES; i++)
        release(c->backend, &c->p[i]);
    mix__free(c->backend->ctx, c->dw_packed);
    mix__free(c->backend->ctx, c);
}

/* ---- running -------------------------------------------------------------------------------- */

/* From plain to packed or back. */
static mix_status reorder(struct mix__conv *c, enum pass pass, const float *plain)
{
    mix_ctx *ctx = c->backend->ctx;
    struct primitive *p = &c->p[pass];
    const bool unpack = pass == BACKWARD_WEIGHTS;
    const dnnl_exec_arg_t args[] = { { DNNL_ARG_FROM, unpack ? p->packed : p->plain },
                                     { DNNL_ARG_TO, unpack ? p->plain : p->packed } };
    DNNL_TRY(ctx, dnnl_memory_set_data_handle(p->plain, (void *)plain));
    DNNL_TRY(ctx, dnnl_primitive_execute(p->reorder, c->backend->stream, MIX_COUNT(args), args));
    return MIX_OK;
}

/* Roles that a pass gives to image side, output side and weights. */
struct roles {
    int x, y, w;
};

static struct roles roles_of(const struct mix__conv *c, enum pass pass)
{
    static const struct roles dense[PASSES] = {
        [FORWARD] = { DNNL_ARG_SRC, DNNL_ARG_DST, DNNL_ARG_WEIGHTS },
        [FORWARD_CODES] = { DNNL_ARG_SRC, DNNL_ARG_DST, DNNL_ARG_WEIGHTS },
        [BACKWARD_DATA] = { DNNL_ARG_DIFF_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS },
        [BACKWARD_WEIGHTS] = { DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS },
    };
    static const struct roles product[PASSES] = {
        [FORWARD] = { DNNL_ARG_SRC, DNNL_ARG_DST, DNNL_ARG_WEIGHTS },
        [FORWARD_CODES] = { DNNL_ARG_SRC, DNNL_ARG_DST, DNNL_ARG_WEIGHTS },
        [BACKWARD_DATA] = { DNNL_ARG_DST, DNNL_ARG_SRC, DNNL_ARG_WEIGHTS },
        [BACKWARD_WEIGHTS] = { DNNL_ARG_WEIGHTS, DNNL_ARG_SRC, DNNL_ARG_DST },
    };
    return c->kind == MIX__CONV_POINTWISE ? product[pass] : dense[pass];
}

/* other: the bias of FORWARD, where BACKWARD_WEIGHTS writes. */
static mix_status execute(struct mix__conv *c, enum pass pass, int thread, const void *x,
                          const void *y, const void *other)
{
    struct mix__backend *b = c->backend;
    struct primitive *p = &c->p[pass];
    const struct handles *h = &p->thread[thread];
    const struct roles role = roles_of(c, pass);
    DNNL_TRY(b->ctx, dnnl_memory_set_data_handle(h->x, (void *)x));
    DNNL_TRY(b->ctx, dnnl_memory_set_data_handle(h->y, (void *)y));
    DNNL_TRY(b->ctx, dnnl_memory_set_data_handle(h->scratch,
                                                 b->scratch + (size_t)thread * b->scratch_size));
    if (h->w)
        DNNL_TRY(b->ctx, dnnl_memory_set_data_handle(h->w, (void *)other));
    dnnl_exec_arg_t args[5] = { { role.x, h->x },
                                { role.y, h->y },
                                { role.w, h->w ? h->w : p->packed },
                                { DNNL_ARG_SCRATCHPAD, h->scratch } };
    int n = 4;
    if (h->bias) {
        DNNL_TRY(b->ctx, dnnl_memory_set_data_handle(h->bias, (void *)other));
        args[n++] = (dnnl_exec_arg_t){ DNNL_ARG_BIAS, h->bias };
    }
    DNNL_TRY(b->ctx, dnnl_primitive_execute(p->run, b->stream, n, args));
    return MIX_OK;
}

/* (k, 1, r, s) to (r, s, k), and back: a transposition of (rows, columns). */
static void transpose(float *to, const float *from, size_t rows, size_t columns)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            to[j * rows + i] = from[i * columns + j];
}

mix_status mix__conv_pack(struct mix__conv *c, const float *weights, bool codes)
{
    if (c->kind == MIX__CONV_DEPTHWISE) {
        transpose(c->dw_packed, weights, (size_t)c->d.c, (size_t)(c->d.kernel * c->d.kernel));
        return MIX_OK;
    }
    const enum pass passes[2] = { codes ? FORWARD_CODES : FORWARD, BACKWARD_DATA };
    mix_status status[2] = { MIX_OK, MIX_OK };
#pragma omp parallel for schedule(static)
    for (int i = 0; i < 2; i++)
        if (c->p[passes[i]].run)
            status[i] = reorder(c, passes[i], weights);
    return status[0] == MIX_OK ? status[1] : status[0];
}

mix_status mix__conv_pack_back(struct mix__conv *c, const float *weights)
{
    return reorder(c, BACKWARD_DATA, weights);
}

static struct mix__dw_shape dw_shape(const struct mix__conv_dims *d, int x_row, int y_row)
{
    return (struct mix__dw_shape){ d->h,      d->w,      d->c,   d->oh, d->ow,
                                   d->kernel, d->stride, d->pad, x_row, y_row };
}

mix_status mix__conv_forward(struct mix__conv *c, int thread, const struct mix__tile *t, void *y,
                             struct mix__values x, const float *bias)
{
    if (c->kind != MIX__CONV_DEPTHWISE)
        return execute(c, x.dtype == c->types.operand ? FORWARD : FORWARD_CODES, thread, x.at, y,
                       bias);
    const struct mix__dw_shape s = dw_shape(&c->d, t->x0, t->y0);
    const struct mix__values to = { y, c->types.y };
    const size_t image = (size_t)s.h * s.w * s.c, output = (size_t)s.oh * s.ow * s.c;
    for (int n = 0; n < t->images; n++)
        c->loops->dw_forward(mix__values_from(to, n * output), (const float *)x.at + n * image,
                             c->dw_packed, &s, t->y0, t->y1);
    return MIX_OK;
}

mix_status mix__conv_backward_data(struct mix__conv *c, int thread, const struct mix__tile *t,
                                   void *dx, const void *dy)
{
    if (c->kind != MIX__CONV_DEPTHWISE)
        return execute(c, BACKWARD_DATA, thread, dx, dy, NULL);
    const struct mix__dw_shape s = dw_shape(&c->d, t->dx0, t->dy0);
    const size_t image = (size_t)s.h * s.w * s.c, output = (size_t)s.oh * s.ow * s.c;
    for (int n = 0; n < t->images; n++)
        c->loops->dw_backward_data((float *)dx + n * image, (const float *)dy + n * output,
                                   c->dw_packed, &s, t->dx0, t->dx1);
    return MIX_OK;
}

/* Bytes of a thread's sum. */
static size_t sums_used(const struct mix__conv *c)
{
    return c->kind == MIX__CONV_DEPTHWISE ? mix__conv_packed(c)
                                          : c->p[BACKWARD_WEIGHTS].packed_size;
}

void mix__conv_weights_begin(struct mix__conv *c)
{
    for (int t = 0; t < c->backend->threads; t++)
        *summed(c, t) = false;
}

/* A convolution primitive overwrites its result: the first tile's is the sum, others are added. */
static mix_status add_dense(struct mix__conv *c, int thread, const void *x, const void *dy,
                            bool first)
{
    float *sum = sums_of(c->backend, thread, 0), *own = sums_of(c->backend, thread, 1);
    if (first)
        return execute(c, BACKWARD_WEIGHTS, thread, x, dy, sum);
    MIX_TRY(execute(c, BACKWARD_WEIGHTS, thread, x, dy, own));
    c->loops->add(mix__f32(sum), mix__f32(sum), mix__f32(own), sums_used(c) / sizeof *sum);
    return MIX_OK;
}

mix_status mix__conv_backward_weights(struct mix__conv *c, int thread, const struct mix__tile *t,
                                      const void *x, const void *dy)
{
    float *sum = sums_of(c->backend, thread, sum_place(c));
    const bool first = !*summed(c, thread);
    *summed(c, thread) = true;
    if (c->kind == MIX__CONV_DENSE)
        return add_dense(c, thread, x, dy, first);
    if (first)
        memset(sum, 0, sums_used(c));
    if (c->kind == MIX__CONV_POINTWISE)
        return execute(c, BACKWARD_WEIGHTS, thread, x, dy, sum);
    const struct mix__dw_shape s = dw_shape(&c->d, t->x0, t->dy0);
    const size_t image = (size_t)s.h * s.w * s.c, output = (size_t)s.oh * s.ow * s.c;
    for (int n = 0; n < t->images; n++)
        c->loops->dw_backward_weights(sum, (const float *)x + n * image,
                                      (const float *)dy + n * output, &s, t->y0, t->y1);
    return MIX_OK;
}

mix_status mix__conv_add_weights(struct mix__conv *c, int thread, float *sum, const void *x,
                                 const void *dy)
{
    return execute(c, BACKWARD_WEIGHTS, thread, x, dy, sum);
}

/* With a static schedule the first thread has the first tile: its sum is always there. */
static void add_threads(const struct mix__conv *c, float *total)
{
    const struct mix__backend *b = c->backend;
    const size_t count = sums_used(c) / sizeof(float);
#pragma omp parallel for schedule(static)
    for (int part = 0; part < MIX__PARTS; part++) {
        const size_t first = mix__group_row(count, part);
        const size_t n = mix__group_row(count, part + 1) - first;
        const struct mix__values to = mix__f32(total + first);
        float *from = sums_of(b, 0, sum_place(c)) + first;
        for (int t = 1; t < b->threads; t++)
            if (*summed(c, t)) {
                c->loops->add(to, mix__f32(from), mix__f32(sums_of(b, t, sum_place(c)) + first), n);
                from = to.at;
            }
        if (from != to.at)
            memcpy(to.at, from, n * sizeof *from);
    }
}

mix_status mix__conv_weights_end(struct mix__conv *c, float *dw)
{
    float *sum = sums_of(c->backend, 0, 0);
    if (c->kind == MIX__CONV_POINTWISE) {
        add_threads(c, dw);
        return MIX_OK;
    }
    add_threads(c, sum);
    if (c->kind == MIX__CONV_DEPTHWISE) {
        transpose(dw, sum, (size_t)(c->d.kernel * c->d.kernel), (size_t)c->d.c);
        return MIX_OK;
    }
    DNNL_TRY(c->backend->ctx, dnnl_memory_set_data_handle(c->p[BACKWARD_WEIGHTS].packed, sum));
    return reorder(c, BACKWARD_WEIGHTS, dw);
}

mix_status mix__product(mix_ctx *ctx, float *y, const float *a, bool turned, const float *b,
                        size_t m, size_t n, size_t k)
{
    DNNL_TRY(ctx,
             dnnl_sgemm(turned ? 'T' : 'N', 'N', (dnnl_dim_t)m, (dnnl_dim_t)n, (dnnl_dim_t)k, 1.0f,
                        a, (dnnl_dim_t)(turned ? m : k), b, (dnnl_dim_t)n, 0.0f, y, (dnnl_dim_t)n));
    return MIX_OK;
}
