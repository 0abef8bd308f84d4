/*
 * engine/primitives.c - oneDNN's descriptors, primitives and memory objects.
 */
#include "engine/primitives.h"

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

struct mix__onednn {
    mix_ctx *ctx;
    int threads;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    char *scratch; /* (thread, scratch_size) */
    size_t scratch_size;
};

/* The memory objects of one thread; w and those behind it are a weights' gradient's. */
struct handles {
    dnnl_memory_t x, y, bias, scratch;
    dnnl_memory_t w, packed, plain; /* all of it, and of a dense layer a piece of it */
};

/* One primitive. Weights are in a layout of its own, `packed`, and come and go as (k, c / groups, r,
 * s), `plain`. */
struct primitive {
    dnnl_primitive_t run;
    struct handles *thread; /* (threads) */
    dnnl_memory_t packed, plain;
    dnnl_primitive_t reorder; /* plain -> packed; for a gradient packed -> plain, a piece */
    void *packed_data;
    size_t packed_size;
    int pieces; /* of a dense layer's gradient */
};

struct mix__primitives {
    struct mix__onednn *dnn;
    struct mix__primitives_shape s;
    bool reference;
    struct primitive p[MIX__PASSES];
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

mix_status mix__onednn_new(struct mix__onednn **out, mix_ctx *ctx, int threads)
{
    *out = NULL;
    struct mix__onednn *dnn = mix__zalloc(ctx, 1, sizeof *dnn);
    if (!dnn)
        return MIX_ENOMEM;
    dnn->ctx = ctx;
    dnn->threads = threads;
    limit_instructions(mix_ctx_cpu(ctx));
    if (dnnl_engine_create(&dnn->engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&dnn->stream, dnn->engine, dnnl_stream_default_flags) != dnnl_success) {
        mix__onednn_free(dnn);
        return mix__fail(ctx, MIX_EBACKEND, "oneDNN: no CPU engine");
    }
    *out = dnn;
    return MIX_OK;
}

void mix__onednn_free(struct mix__onednn *dnn)
{
    if (!dnn)
        return;
    if (dnn->stream)
        dnnl_stream_destroy(dnn->stream);
    if (dnn->engine)
        dnnl_engine_destroy(dnn->engine);
    mix__free(dnn->ctx, dnn->scratch);
    mix__free(dnn->ctx, dnn);
}

mix_status mix__onednn_ready(struct mix__onednn *dnn)
{
    if (!dnn->scratch)
        dnn->scratch = mix__alloc(dnn->ctx, dnn->scratch_size * (size_t)dnn->threads + 1, 1);
    return dnn->scratch ? MIX_OK : MIX_ENOMEM;
}

size_t mix__onednn_scratch(const struct mix__onednn *dnn)
{
    return dnn->scratch_size * (size_t)dnn->threads;
}

/* ---- descriptors ---------------------------------------------------------------------------- */

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

static bool is_forward(enum mix__primitive_pass pass)
{
    return pass == MIX__FORWARD || pass == MIX__FORWARD_CODES;
}

static bool is_gradient(enum mix__primitive_pass pass)
{
    return pass == MIX__BACKWARD_WEIGHTS || pass == MIX__MORE_WEIGHTS;
}

/* What the pass reads and writes on the image's side and the output's side. */
static enum mix__dtype x_type(const struct mix__primitives *c, enum mix__primitive_pass pass)
{
    return pass == MIX__BACKWARD_DATA   ? c->s.types.dx
           : pass == MIX__FORWARD_CODES ? c->s.types.codes
                                        : c->s.types.operand;
}

static enum mix__dtype y_type(const struct mix__primitives *c, enum mix__primitive_pass pass)
{
    return is_forward(pass) ? c->s.types.y : c->s.types.operand;
}

/* Of packed weights, or of their gradient. */
static dnnl_data_type_t w_type(const struct mix__primitives *c, enum mix__primitive_pass pass)
{
    return is_gradient(pass)            ? dnnl_f32
           : pass == MIX__FORWARD_CODES ? dnnl_s8
                                        : data_type(c->s.types.operand);
}

static mix_status dense_descs(const struct mix__primitives *c, enum mix__primitive_pass pass,
                              struct descs *m)
{
    mix_ctx *ctx = c->dnn->ctx;
    const struct mix__conv_dims *d = &c->s.dims;
    const int n = c->s.images;
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
static mix_status product_descs(const struct mix__primitives *c, enum mix__primitive_pass pass,
                                struct descs *m)
{
    mix_ctx *ctx = c->dnn->ctx;
    const int rows = c->s.rows;
    const dnnl_dims_t x = { rows, c->s.dims.c }, y = { rows, c->s.dims.k },
                      y_turned = { c->s.dims.k, rows };
    const dnnl_dims_t w = { c->s.dims.c, c->s.dims.k }, w_turned = { c->s.dims.k, c->s.dims.c };
    const dnnl_dims_t bias = { 1, c->s.dims.k };
    const bool forward = is_forward(pass), gradient = is_gradient(pass);
    const dnnl_dim_t *weights = forward ? w : w_turned;
    DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->x, 2, x, data_type(x_type(c, pass)), dnnl_ab));
    DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->y, 2, gradient ? y_turned : y,
                                               data_type(y_type(c, pass)),
                                               gradient ? dnnl_ba : dnnl_ab));
    DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->w, 2, weights, w_type(c, pass),
                                               gradient ? dnnl_ab : dnnl_format_tag_any));
    DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->plain, 2, weights, dnnl_f32,
                                               forward ? dnnl_ba : dnnl_ab));
    DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->bias, 2, bias, dnnl_f32, dnnl_ab));
    return MIX_OK;
}

static mix_status make_handles(struct mix__primitives *c, enum mix__primitive_pass pass,
                               const struct descs *m, const dnnl_memory_desc_t *w,
                               const dnnl_memory_desc_t *scratch)
{
    struct mix__onednn *b = c->dnn;
    struct primitive *p = &c->p[pass];
    p->thread = mix__zalloc(b->ctx, (size_t)b->threads, sizeof *p->thread);
    if (!p->thread)
        return MIX_ENOMEM;
    for (int t = 0; t < b->threads; t++) {
        struct handles *h = &p->thread[t];
        DNNL_TRY(b->ctx, dnnl_memory_create(&h->x, &m->x, b->engine, DNNL_MEMORY_NONE));
        DNNL_TRY(b->ctx, dnnl_memory_create(&h->y, &m->y, b->engine, DNNL_MEMORY_NONE));
        DNNL_TRY(b->ctx, dnnl_memory_create(&h->scratch, scratch, b->engine, DNNL_MEMORY_NONE));
        if (is_forward(pass) && c->s.dims.bias)
            DNNL_TRY(b->ctx, dnnl_memory_create(&h->bias, &m->bias, b->engine, DNNL_MEMORY_NONE));
        if (is_gradient(pass))
            DNNL_TRY(b->ctx, dnnl_memory_create(&h->w, w, b->engine, DNNL_MEMORY_NONE));
    }
    const size_t bytes = mix__aligned(dnnl_memory_desc_get_size(scratch));
    b->scratch_size = bytes > b->scratch_size ? bytes : b->scratch_size;
    return MIX_OK;
}

static bool is_reference(dnnl_primitive_desc_t desc)
{
    const char *name;
    return dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &name) == dnnl_success &&
           strncmp(name, "ref", 3) == 0;
}

static mix_status make_reorder(const struct mix__onednn *b, struct primitive *p,
                               const dnnl_memory_desc_t *from, const dnnl_memory_desc_t *to)
{
    dnnl_primitive_desc_t desc;
    DNNL_TRY(b->ctx,
             dnnl_reorder_primitive_desc_create(&desc, from, b->engine, to, b->engine, NULL));
    const dnnl_status_t status = dnnl_primitive_create(&p->reorder, desc);
    dnnl_primitive_desc_destroy(desc);
    DNNL_TRY(b->ctx, status);
    return MIX_OK;
}

static mix_status plan_weights(const struct mix__onednn *b, struct primitive *p,
                               const dnnl_memory_desc_t *w, const dnnl_memory_desc_t *plain)
{
    p->packed_data = mix__zalloc(b->ctx, p->packed_size, 1); /* zero: padding is read */
    if (!p->packed_data)
        return MIX_ENOMEM;
    DNNL_TRY(b->ctx, dnnl_memory_create(&p->packed, w, b->engine, p->packed_data));
    DNNL_TRY(b->ctx, dnnl_memory_create(&p->plain, plain, b->engine, DNNL_MEMORY_NONE));
    return make_reorder(b, p, plain, w);
}

/* As many pieces, of output channels, as lie one behind the other. */
static int count_pieces(const dnnl_memory_desc_t *w)
{
    const dnnl_blocking_desc_t *layout = &w->format_desc.blocking;
    dnnl_dim_t block = 1;
    for (int i = 0; i < layout->inner_nblks; i++)
        if (layout->inner_idxs[i] == 0)
            block *= layout->inner_blks[i];
    const dnnl_dim_t pieces = w->dims[0] / block;
    const size_t size = (size_t)(pieces * layout->strides[0]) * sizeof(float);
    return w->dims[0] % block == 0 && dnnl_memory_desc_get_size(w) == size ? (int)pieces : 1;
}

static mix_status plan_gradient(const struct mix__onednn *b, struct primitive *p,
                                const dnnl_memory_desc_t *w, const dnnl_memory_desc_t *plain)
{
    const dnnl_dims_t first = { 0 };
    dnnl_dims_t dims;
    dnnl_memory_desc_t packed_piece, plain_piece;
    p->pieces = count_pieces(w);
    memcpy(dims, w->dims, sizeof dims);
    dims[0] /= p->pieces;
    DNNL_TRY(b->ctx, dnnl_memory_desc_init_submemory(&packed_piece, w, dims, first));
    DNNL_TRY(b->ctx, dnnl_memory_desc_init_submemory(&plain_piece, plain, dims, first));
    for (int t = 0; t < b->threads; t++) {
        struct handles *h = &p->thread[t];
        DNNL_TRY(b->ctx,
                 dnnl_memory_create(&h->packed, &packed_piece, b->engine, DNNL_MEMORY_NONE));
        DNNL_TRY(b->ctx, dnnl_memory_create(&h->plain, &plain_piece, b->engine, DNNL_MEMORY_NONE));
    }
    return make_reorder(b, p, &packed_piece, &plain_piece);
}

/* From a primitive descriptor: the primitive, its memories, and its weights or their gradient. */
static mix_status realise(struct mix__primitives *c, enum mix__primitive_pass pass,
                          dnnl_primitive_desc_t desc, const struct descs *m)
{
    struct mix__onednn *b = c->dnn;
    struct primitive *p = &c->p[pass];
    const bool gradient = is_gradient(pass), product = c->s.kind == MIX__CONV_POINTWISE;
    const dnnl_memory_desc_t *w =
        gradient && product
            ? &m->w
            : dnnl_primitive_desc_query_md(
                  desc, gradient ? dnnl_query_diff_weights_md : dnnl_query_weights_md, 0);
    c->reference |= is_reference(desc);
    DNNL_TRY(b->ctx, dnnl_primitive_create(&p->run, desc));
    MIX_TRY(make_handles(c, pass, m, w,
                         dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0)));
    p->packed_size = dnnl_memory_desc_get_size(w);
    if (!gradient)
        return plan_weights(b, p, w, &m->plain);
    return product ? MIX_OK : plan_gradient(b, p, w, &m->plain); /* a product's is plain */
}

/* hint: the forward descriptor, for the backward ones. */
static mix_status dense_desc(struct mix__primitives *c, enum mix__primitive_pass pass,
                             const struct descs *m, dnnl_primitive_attr_t attr,
                             dnnl_primitive_desc_t hint, dnnl_primitive_desc_t *desc)
{
    mix_ctx *ctx = c->dnn->ctx;
    const dnnl_dims_t strides = { c->s.dims.stride, c->s.dims.stride },
                      pad = { c->s.dims.pad, c->s.dims.pad };
    const dnnl_dims_t end = { c->s.dims.pad_end, c->s.dims.pad_end };
    dnnl_convolution_desc_t op;
    switch (pass) {
    case MIX__FORWARD:
    case MIX__FORWARD_CODES:
        DNNL_TRY(ctx, dnnl_convolution_forward_desc_init(
                          &op, dnnl_forward_training, dnnl_convolution_direct, &m->x, &m->w,
                          c->s.dims.bias ? &m->bias : NULL, &m->y, strides, pad, end));
        break;
    case MIX__BACKWARD_DATA:
        DNNL_TRY(ctx, dnnl_convolution_backward_data_desc_init(&op, dnnl_convolution_direct, &m->x,
                                                               &m->w, &m->y, strides, pad, end));
        break;
    default:
        DNNL_TRY(ctx, dnnl_convolution_backward_weights_desc_init(&op, dnnl_convolution_direct,
                                                                  &m->x, &m->w, NULL, &m->y,
                                                                  strides, pad, end));
    }
    DNNL_TRY(ctx, dnnl_primitive_desc_create(desc, &op, attr, c->dnn->engine, hint));
    return MIX_OK;
}

static bool wants(const struct mix__primitives *c, enum mix__primitive_pass pass)
{
    if (pass == MIX__FORWARD_CODES)
        return c->s.types.codes != MIX__DTYPE_F32;
    if (pass == MIX__MORE_WEIGHTS && c->s.kind == MIX__CONV_DENSE)
        return false;
    return pass == MIX__FORWARD ||
           (c->s.backward && !(c->s.dims.image && pass == MIX__BACKWARD_DATA));
}

static mix_status plan_dense(struct mix__primitives *c, dnnl_primitive_attr_t attr)
{
    struct descs m;
    dnnl_primitive_desc_t desc[MIX__PASSES] = { NULL };
    mix_status status = MIX_OK;
    for (int pass = 0; pass < MIX__PASSES && status == MIX_OK; pass++)
        if (wants(c, (enum mix__primitive_pass)pass) &&
            (status = dense_descs(c, (enum mix__primitive_pass)pass, &m)) == MIX_OK &&
            (status = dense_desc(c, (enum mix__primitive_pass)pass, &m, attr, desc[MIX__FORWARD],
                                 &desc[pass])) == MIX_OK)
            status = realise(c, (enum mix__primitive_pass)pass, desc[pass], &m);
    for (int pass = 0; pass < MIX__PASSES; pass++)
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

static mix_status plan_product(struct mix__primitives *c, enum mix__primitive_pass pass,
                               dnnl_primitive_attr_t attr)
{
    mix_ctx *ctx = c->dnn->ctx;
    struct descs m;
    dnnl_matmul_desc_t op;
    dnnl_primitive_desc_t desc;
    MIX_TRY(product_descs(c, pass, &m));
    if (is_forward(pass))
        DNNL_TRY(ctx,
                 dnnl_matmul_desc_init(&op, &m.x, &m.w, c->s.dims.bias ? &m.bias : NULL, &m.y));
    else if (pass == MIX__BACKWARD_DATA)
        DNNL_TRY(ctx, dnnl_matmul_desc_init(&op, &m.y, &m.w, NULL, &m.x));
    else
        DNNL_TRY(ctx, dnnl_matmul_desc_init(&op, &m.y, &m.x, NULL, &m.w));
    DNNL_TRY(ctx, dnnl_primitive_desc_create(&desc, &op, attr, c->dnn->engine, NULL));
    const mix_status status = realise(c, pass, desc, &m);
    dnnl_primitive_desc_destroy(desc);
    return status;
}

static mix_status plan_products(struct mix__primitives *c, dnnl_primitive_attr_t attr)
{
    for (int pass = 0; pass < MIX__PASSES; pass++) {
        if (pass == MIX__MORE_WEIGHTS)
            MIX_TRY(make_adding(c->dnn->ctx, attr));
        if (wants(c, (enum mix__primitive_pass)pass))
            MIX_TRY(plan_product(c, (enum mix__primitive_pass)pass, attr));
    }
    return MIX_OK;
}

static mix_status plan_primitives(struct mix__primitives *c)
{
    mix_ctx *ctx = c->dnn->ctx;
    dnnl_primitive_attr_t attr;
    DNNL_TRY(ctx, dnnl_primitive_attr_create(&attr));
    dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    const mix_status status =
        c->s.kind == MIX__CONV_DENSE ? plan_dense(c, attr) : plan_products(c, attr);
    dnnl_primitive_attr_destroy(attr);
    return status;
}

/* ---- life ----------------------------------------------------------------------------------- */

mix_status mix__primitives_new(struct mix__primitives **out, struct mix__onednn *dnn,
                               const struct mix__primitives_shape *shape)
{
    *out = NULL;
    struct mix__primitives *c = mix__zalloc(dnn->ctx, 1, sizeof *c);
    if (!c)
        return MIX_ENOMEM;
    c->dnn = dnn;
    c->s = *shape;
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1); /* as the primitives will run */
    const mix_status status = plan_primitives(c);
    omp_set_num_threads(threads);
    if (status != MIX_OK)
        mix__primitives_free(c);
    else
        *out = c;
    return status;
}

static void release(const struct mix__onednn *b, struct primitive *p)
{
    for (int t = 0; p->thread && t < b->threads; t++) {
        const struct handles *h = &p->thread[t];
        const dnnl_memory_t memories[] = { h->x, h->y,      h->bias, h->scratch,
                                           h->w, h->packed, h->plain };
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

void mix__primitives_free(struct mix__primitives *c)
{
    if (!c)
        return;
    for (int pass = 0; pass < MIX__PASSES; pass++)
        release(c->dnn, &c->p[pass]);
    mix__free(c->dnn->ctx, c);
}

bool mix__primitives_slow(const struct mix__primitives *c)
{
    return c->reference;
}

size_t mix__primitives_packed(const struct mix__primitives *c)
{
    return c->p[MIX__FORWARD].packed_size + c->p[MIX__FORWARD_CODES].packed_size +
           c->p[MIX__BACKWARD_DATA].packed_size;
}

size_t mix__primitives_gradient(const struct mix__primitives *c)
{
    return c->p[MIX__BACKWARD_WEIGHTS].packed_size;
}

/* ---- running -------------------------------------------------------------------------------- */

static mix_status reorder(struct mix__primitives *c, const struct primitive *p, dnnl_memory_t from,
                          dnnl_memory_t to)
{
    const dnnl_exec_arg_t args[] = { { DNNL_ARG_FROM, from }, { DNNL_ARG_TO, to } };
    DNNL_TRY(c->dnn->ctx,
             dnnl_primitive_execute(p->reorder, c->dnn->stream, MIX_COUNT(args), args));
    return MIX_OK;
}

mix_status mix__primitives_pack(struct mix__primitives *c, enum mix__primitive_pass pass,
                                const float *weights)
{
    const struct primitive *p = &c->p[pass];
    if (!p->run)
        return MIX_OK;
    DNNL_TRY(c->dnn->ctx, dnnl_memory_set_data_handle(p->plain, (void *)weights));
    return reorder(c, p, p->plain, p->packed);
}

int mix__primitives_pieces(const struct mix__primitives *c)
{
    return c->p[MIX__BACKWARD_WEIGHTS].pieces;
}

mix_status mix__primitives_unpack(struct mix__primitives *c, int thread, const float *gradient,
                                  float *dw)
{
    const struct primitive *p = &c->p[MIX__BACKWARD_WEIGHTS];
    const struct handles *h = &p->thread[thread];
    DNNL_TRY(c->dnn->ctx, dnnl_memory_set_data_handle(h->packed, (void *)gradient));
    DNNL_TRY(c->dnn->ctx, dnnl_memory_set_data_handle(h->plain, dw));
    return reorder(c, p, h->packed, h->plain);
}

/* Roles that a pass gives to image side, output side and weights. */
struct roles {
    int x, y, w;
};

static struct roles roles_of(const struct mix__primitives *c, enum mix__primitive_pass pass)
{
    static const struct roles dense[MIX__PASSES] = {
        [MIX__FORWARD] = { DNNL_ARG_SRC, DNNL_ARG_DST, DNNL_ARG_WEIGHTS },
        [MIX__FORWARD_CODES] = { DNNL_ARG_SRC, DNNL_ARG_DST, DNNL_ARG_WEIGHTS },
        [MIX__BACKWARD_DATA] = { DNNL_ARG_DIFF_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS },
        [MIX__BACKWARD_WEIGHTS] = { DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS },
    };
    static const struct roles product[MIX__PASSES] = {
        [MIX__FORWARD] = { DNNL_ARG_SRC, DNNL_ARG_DST, DNNL_ARG_WEIGHTS },
        [MIX__FORWARD_CODES] = { DNNL_ARG_SRC, DNNL_ARG_DST, DNNL_ARG_WEIGHTS },
        [MIX__BACKWARD_DATA] = { DNNL_ARG_DST, DNNL_ARG_SRC, DNNL_ARG_WEIGHTS },
        [MIX__BACKWARD_WEIGHTS] = { DNNL_ARG_WEIGHTS, DNNL_ARG_SRC, DNNL_ARG_DST },
        [MIX__MORE_WEIGHTS] = { DNNL_ARG_WEIGHTS, DNNL_ARG_SRC, DNNL_ARG_DST },
    };
    return c->s.kind == MIX__CONV_POINTWISE ? product[pass] : dense[pass];
}

mix_status mix__primitives_run(struct mix__primitives *c, enum mix__primitive_pass pass, int thread,
                               const void *x, const void *y, const void *other)
{
    struct mix__onednn *b = c->dnn;
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

mix_status mix__product(mix_ctx *ctx, float *y, const float *a, bool turned, const float *b,
                        size_t m, size_t n, size_t k)
{
    DNNL_TRY(ctx,
             dnnl_sgemm(turned ? 'T' : 'N', 'N', (dnnl_dim_t)m, (dnnl_dim_t)n, (dnnl_dim_t)k, 1.0f,
                        a, (dnnl_dim_t)(turned ? m : k), b, (dnnl_dim_t)n, 0.0f, y, (dnnl_dim_t)n));
    return MIX_OK;
}
