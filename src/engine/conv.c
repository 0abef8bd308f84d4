/*
 * engine/conv.c - convolutions by oneDNN 2.6's C interface; the only file that includes dnnl.h.
 *
 * Activations are plain (n, h, w, c) for every layer: no padding of channel counts such as 24, no
 * reorders between layers, and our own loops read the same memory. Weights are in the layout that
 * each primitive likes best and are packed when they change, not when they are used.
 *
 * Two cases leave oneDNN's convolutions: depthwise layers run on our loops (its backward-weights
 * pass takes most of a small image's step), and the weight gradient of a 1x1 convolution is one
 * matrix product, dw (k, c) = dy (m, k)^T x (m, c), by oneDNN's sgemm.
 */
#include "engine/conv.h"

#include <dnnl.h>
#include <string.h>

#include "base/ctx.h"

#define DNNL_TRY(ctx, call)                                                                        \
    do {                                                                                           \
        const dnnl_status_t dnnl_status_ = (call);                                                 \
        if (dnnl_status_ != dnnl_success)                                                          \
            return mix__fail(ctx, MIX_EBACKEND, "oneDNN: %s failed with status %d", #call,         \
                             (int)dnnl_status_);                                                   \
    } while (0)

/* Depthwise sums over images are kept in this many parts, whatever the number of threads, so that
 * the order of additions is fixed. */
enum { DW_PARTS = 16 };

struct mix__backend {
    mix_ctx *ctx;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    void *scratch;
    size_t scratch_size;
};

enum pass { FORWARD, BACKWARD_DATA, BACKWARD_WEIGHTS, PASSES };

/* One primitive with its memory objects; weights (or their gradient) sit in `packed` in the
 * primitive's own layout. */
struct primitive {
    dnnl_primitive_t run;
    dnnl_memory_t x, y, bias, scratch;
    dnnl_memory_t packed;
    dnnl_primitive_t reorder; /* plain -> packed; for BACKWARD_WEIGHTS packed -> plain */
    void *packed_data;
    size_t packed_size;
};

struct mix__conv {
    struct mix__backend *backend;
    const struct mix__loops *loops;
    struct mix__conv_dims d;
    bool depthwise, product; /* product: the weight gradient is an sgemm */
    dnnl_memory_t plain;     /* weights as (k, c / groups, r, s)         */
    struct primitive p[PASSES];
    float *dw_packed; /* depthwise: (r, s, c)                     */
    float *dw_parts;  /* depthwise gradient: (DW_PARTS, r, s, c)  */
};

mix_status mix__backend_new(struct mix__backend **out, mix_ctx *ctx)
{
    *out = NULL;
    struct mix__backend *b = mix__zalloc(ctx, 1, sizeof *b);
    if (!b)
        return MIX_ENOMEM;
    b->ctx = ctx;
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
    mix__free(b->ctx, b);
}

static void need_scratch(struct mix__backend *b, size_t bytes)
{
    if (bytes > b->scratch_size)
        b->scratch_size = bytes;
}

mix_status mix__backend_ready(struct mix__backend *b)
{
    if (b->scratch_size == 0 || b->scratch)
        return MIX_OK;
    b->scratch = mix__alloc(b->ctx, b->scratch_size, 1);
    return b->scratch ? MIX_OK : MIX_ENOMEM;
}

size_t mix__backend_scratch(const struct mix__backend *b)
{
    return b->scratch_size;
}

size_t mix__conv_packed(const struct mix__conv *c)
{
    if (c->depthwise)
        return sizeof(float) * (size_t)(c->d.kernel * c->d.kernel * c->d.c) *
               (c->dw_parts ? 1 + DW_PARTS : 1);
    size_t sum = 0;
    for (int i = 0; i < PASSES; i++)
        sum += c->p[i].packed_size;
    return sum;
}

/* ---- planning ------------------------------------------------------------------------------- */

struct descs {
    dnnl_memory_desc_t x, y, w_any, w_plain, bias;
};

static mix_status make_descs(mix_ctx *ctx, const struct mix__conv_dims *d, struct descs *m)
{
    const dnnl_dims_t x = { d->n, d->c, d->h, d->w }, y = { d->n, d->k, d->oh, d->ow };
    const dnnl_dims_t dense = { d->k, d->c, d->kernel, d->kernel };
    const dnnl_dims_t grouped = { d->groups, d->k / d->groups, d->c / d->groups, d->kernel,
                                  d->kernel };
    const dnnl_dims_t bias = { d->k };
    const bool is_grouped = d->groups > 1;
    const int rank = is_grouped ? 5 : 4;
    DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->x, 4, x, dnnl_f32, dnnl_nhwc));
    DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->y, 4, y, dnnl_f32, dnnl_nhwc));
    DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->w_any, rank, is_grouped ? grouped : dense,
                                               dnnl_f32, dnnl_format_tag_any));
    DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->w_plain, rank, is_grouped ? grouped : dense,
                                               dnnl_f32, is_grouped ? dnnl_goihw : dnnl_oihw));
    DNNL_TRY(ctx, dnnl_memory_desc_init_by_tag(&m->bias, 1, bias, dnnl_f32, dnnl_x));
    return MIX_OK;
}

static mix_status make_memory(mix_ctx *ctx, dnnl_memory_t *out, dnnl_engine_t engine,
                              const dnnl_memory_desc_t *desc)
{
    DNNL_TRY(ctx, dnnl_memory_create(out, desc, engine, DNNL_MEMORY_NONE));
    return MIX_OK;
}

/* From a primitive descriptor: the primitive, its memories, its packed weights and their reorder.
 */
static mix_status realise(struct mix__conv *c, enum pass pass, dnnl_primitive_desc_t desc,
                          const struct descs *m)
{
    struct mix__backend *b = c->backend;
    struct primitive *p = &c->p[pass];
    const dnnl_memory_desc_t *w = dnnl_primitive_desc_query_md(
        desc, pass == BACKWARD_WEIGHTS ? dnnl_query_diff_weights_md : dnnl_query_weights_md, 0);
    const dnnl_memory_desc_t *scratch =
        dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);

    DNNL_TRY(b->ctx, dnnl_primitive_create(&p->run, desc));
    MIX_TRY(make_memory(b->ctx, &p->x, b->engine, &m->x));
    MIX_TRY(make_memory(b->ctx, &p->y, b->engine, &m->y));
    if (pass == FORWARD && c->d.bias)
        MIX_TRY(make_memory(b->ctx, &p->bias, b->engine, &m->bias));
    MIX_TRY(make_memory(b->ctx, &p->scratch, b->engine, scratch));
    need_scratch(b, dnnl_memory_desc_get_size(scratch));

    p->packed_size = dnnl_memory_desc_get_size(w);
    p->packed_data = mix__zalloc(b->ctx, p->packed_size, 1); /* zero: padded channels are read */
    if (!p->packed_data)
        return MIX_ENOMEM;
    DNNL_TRY(b->ctx, dnnl_memory_create(&p->packed, w, b->engine, p->packed_data));

    const bool unpack = pass == BACKWARD_WEIGHTS;
    dnnl_primitive_desc_t reorder;
    DNNL_TRY(b->ctx,
             dnnl_reorder_primitive_desc_create(&reorder, unpack ? w : &m->w_plain, b->engine,
                                                unpack ? &m->w_plain : w, b->engine, NULL));
    const dnnl_status_t status = dnnl_primitive_create(&p->reorder, reorder);
    dnnl_primitive_desc_destroy(reorder);
    DNNL_TRY(b->ctx, status);
    return MIX_OK;
}

static mix_status plan_pass(struct mix__conv *c, enum pass pass, const struct descs *m,
                            dnnl_primitive_attr_t attr, dnnl_primitive_desc_t hint,
                            dnnl_primitive_desc_t *desc)
{
    mix_ctx *ctx = c->backend->ctx;
    const dnnl_dims_t strides = { c->d.stride, c->d.stride }, pad = { c->d.pad, c->d.pad };
    const dnnl_dims_t end = { c->d.pad_end, c->d.pad_end };
    dnnl_convolution_desc_t op;
    switch (pass) {
    case FORWARD:
        DNNL_TRY(ctx, dnnl_convolution_forward_desc_init(
                          &op, dnnl_forward_training, dnnl_convolution_direct, &m->x, &m->w_any,
                          c->d.bias ? &m->bias : NULL, &m->y, strides, pad, end));
        break;
    case BACKWARD_DATA:
        DNNL_TRY(ctx,
                 dnnl_convolution_backward_data_desc_init(&op, dnnl_convolution_direct, &m->x,
                                                          &m->w_any, &m->y, strides, pad, end));
        break;
    default:
        DNNL_TRY(ctx, dnnl_convolution_backward_weights_desc_init(&op, dnnl_convolution_direct,
                                                                  &m->x, &m->w_any, NULL, &m->y,
                                                                  strides, pad, end));
    }
    DNNL_TRY(ctx, dnnl_primitive_desc_create(desc, &op, attr, c->backend->engine, hint));
    return realise(c, pass, *desc, m);
}

static mix_status plan_dense(struct mix__conv *c, bool backward)
{
    struct mix__backend *b = c->backend;
    struct descs m;
    MIX_TRY(make_descs(b->ctx, &c->d, &m));
    MIX_TRY(make_memory(b->ctx, &c->plain, b->engine, &m.w_plain));
    dnnl_primitive_attr_t attr;
    DNNL_TRY(b->ctx, dnnl_primitive_attr_create(&attr));
    dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    dnnl_primitive_desc_t desc[PASSES] = { NULL };
    if (backward && c->product && c->d.stride > 1)
        need_scratch(b, sizeof(float) * (size_t)c->d.n * c->d.oh * c->d.ow * c->d.c);
    mix_status status = plan_pass(c, FORWARD, &m, attr, NULL, &desc[FORWARD]);
    for (int pass = BACKWARD_DATA; backward && pass < PASSES && status == MIX_OK; pass++)
        if (pass == BACKWARD_DATA || !c->product)
            status = plan_pass(c, (enum pass)pass, &m, attr, desc[FORWARD], &desc[pass]);
    for (int pass = 0; pass < PASSES; pass++)
        if (desc[pass])
            dnnl_primitive_desc_destroy(desc[pass]);
    dnnl_primitive_attr_destroy(attr);
    return status;
}

static mix_status plan_depthwise(struct mix__conv *c, bool backward)
{
    const size_t taps = (size_t)(c->d.kernel * c->d.kernel), n = taps * (size_t)c->d.c;
    c->dw_packed = mix__alloc(c->backend->ctx, n, sizeof(float));
    if (backward)
        c->dw_parts = mix__alloc(c->backend->ctx, n * DW_PARTS, sizeof(float));
    return c->dw_packed && (c->dw_parts || !backward) ? MIX_OK : MIX_ENOMEM;
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
    c->depthwise = dims->groups > 1 && dims->groups == dims->c && dims->c == dims->k && !dims->bias;
    c->product = dims->groups == 1 && dims->kernel == 1 && dims->pad == 0 && dims->pad_end == 0;
    const mix_status status = c->depthwise ? plan_depthwise(c, backward) : plan_dense(c, backward);
    if (status != MIX_OK) {
        mix__conv_free(c);
        return status;
    }
    *out = c;
    return MIX_OK;
}

static void release(mix_ctx *ctx, struct primitive *p)
{
    const dnnl_memory_t memories[] = { p->x, p->y, p->bias, p->scratch, p->packed };
    for (size_t i = 0; i < MIX_COUNT(memories); i++)
        if (memories[i])
            dnnl_memory_destroy(memories[i]);
    if (p->run)
        dnnl_primitive_destroy(p->run);
    if (p->reorder)
        dnnl_primitive_destroy(p->reorder);
    mix__free(ctx, p->packed_data);
}

void mix__conv_free(struct mix__conv *c)
{
    if (!c)
        return;
    mix_ctx *ctx = c->backend->ctx;
    for (int i = 0; i < PASSES; i++)
        release(ctx, &c->p[i]);
    if (c->plain)
        dnnl_memory_destroy(c->plain);
    mix__free(ctx, c->dw_packed);
    mix__free(ctx, c->dw_parts);
    mix__free(ctx, c);
}

/* ---- running -------------------------------------------------------------------------------- */

static mix_status reorder(struct mix__conv *c, struct primitive *p, dnnl_memory_t from,
                          dnnl_memory_t to)
{
    const dnnl_exec_arg_t args[] = { { DNNL_ARG_FROM, from }, { DNNL_ARG_TO, to } };
    DNNL_TRY(c->backend->ctx,
             dnnl_primitive_execute(p->reorder, c->backend->stream, MIX_COUNT(args), args));
    return MIX_OK;
}

/* x_arg and so on name the roles that this pass gives to image side, output side and weights. */
static mix_status execute(struct mix__conv *c, enum pass pass, const void *x, const void *y,
                          const void *bias)
{
    static const struct {
        int x, y, w;
    } role[PASSES] = {
        [FORWARD] = { DNNL_ARG_SRC, DNNL_ARG_DST, DNNL_ARG_WEIGHTS },
        [BACKWARD_DATA] = { DNNL_ARG_DIFF_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS },
        [BACKWARD_WEIGHTS] = { DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS },
    };
    struct mix__backend *b = c->backend;
    struct primitive *p = &c->p[pass];
    DNNL_TRY(b->ctx, dnnl_memory_set_data_handle(p->x, (void *)x));
    DNNL_TRY(b->ctx, dnnl_memory_set_data_handle(p->y, (void *)y));
    DNNL_TRY(b->ctx, dnnl_memory_set_data_handle(p->scratch, b->scratch));
    dnnl_exec_arg_t args[5] = { { role[pass].x, p->x },
                                { role[pass].y, p->y },
                                { role[pass].w, p->packed },
                                { DNNL_ARG_SCRATCHPAD, p->scratch } };
    int n = 4;
    if (p->bias) {
        DNNL_TRY(b->ctx, dnnl_memory_set_data_handle(p->bias, (void *)bias));
        args[n++] = (dnnl_exec_arg_t){ DNNL_ARG_BIAS, p->bias };
    }
    DNNL_TRY(b->ctx, dnnl_primitive_execute(p->run, b->stream, n, args));
    DNNL_TRY(b->ctx, dnnl_stream_wait(b->stream));
    return MIX_OK;
}

/* (k, 1, r, s) to (r, s, k), and back: a transposition of (rows, columns). */
static void transpose(float *to, const float *from, size_t rows, size_t columns)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            to[j * rows + i] = from[i * columns + j];
}

mix_status mix__conv_pack(struct mix__conv *c, const float *weights)
{
    if (c->depthwise) {
        transpose(c->dw_packed, weights, (size_t)c->d.c, (size_t)(c->d.kernel * c->d.kernel));
        return MIX_OK;
    }
    DNNL_TRY(c->backend->ctx, dnnl_memory_set_data_handle(c->plain, (void *)weights));
    MIX_TRY(reorder(c, &c->p[FORWARD], c->plain, c->p[FORWARD].packed));
    if (c->p[BACKWARD_DATA].run)
        MIX_TRY(reorder(c, &c->p[BACKWARD_DATA], c->plain, c->p[BACKWARD_DATA].packed));
    return MIX_OK;
}

static struct mix__dw_shape dw_shape(const struct mix__conv_dims *d)
{
    return (struct mix__dw_shape){ d->h, d->w, d->c, d->oh, d->ow, d->kernel, d->stride, d->pad };
}

mix_status mix__conv_forward(struct mix__conv *c, float *y, const float *x, const float *bias)
{
    if (!c->depthwise)
        return execute(c, FORWARD, x, y, bias);
    const struct mix__dw_shape s = dw_shape(&c->d);
    const size_t image = (size_t)s.h * s.w * s.c, output = (size_t)s.oh * s.ow * s.c;
#pragma omp parallel for schedule(static)
    for (int n = 0; n < c->d.n; n++)
        c->loops->dw_forward(y + n * output, x + n * image, c->dw_packed, &s, 0, s.oh);
    return MIX_OK;
}

mix_status mix__conv_backward_data(struct mix__conv *c, float *dx, const float *dy)
{
    if (!c->depthwise)
        return execute(c, BACKWARD_DATA, dx, dy, NULL);
    const struct mix__dw_shape s = dw_shape(&c->d);
    const size_t image = (size_t)s.h * s.w * s.c, output = (size_t)s.oh * s.ow * s.c;
#pragma omp parallel for schedule(static)
    for (int n = 0; n < c->d.n; n++)
        c->loops->dw_backward_data(dx + n * image, dy + n * output, c->dw_packed, &s, 0, s.h);
    return MIX_OK;
}

static void depthwise_gradient(struct mix__conv *c, float *dw, const float *x, const float *dy)
{
    const struct mix__dw_shape s = dw_shape(&c->d);
    const size_t image = (size_t)s.h * s.w * s.c, output = (size_t)s.oh * s.ow * s.c;
    const size_t taps = (size_t)(s.kernel * s.kernel), count = taps * (size_t)s.c;
#pragma omp parallel for schedule(static)
    for (int part = 0; part < DW_PARTS; part++) {
        float *sum = c->dw_parts + part * count;
        memset(sum, 0, count * sizeof *sum);
        const int from = c->d.n * part / DW_PARTS, to = c->d.n * (part + 1) / DW_PARTS;
        for (int n = from; n < to; n++)
            c->loops->dw_backward_weights(sum, x + n * image, dy + n * output, &s, 0, s.oh);
    }
    for (int part = 1; part < DW_PARTS; part++)
        c->loops->add(c->dw_parts, c->dw_parts, c->dw_parts + part * count, count);
    transpose(dw, c->dw_parts, taps, (size_t)s.c);
}

/* The pixels that a strided 1x1 convolution reads, (n, oh, ow, c), in the scratch block. */
static const float *gather(const struct mix__conv *c, const float *x)
{
    const struct mix__conv_dims *d = &c->d;
    float *to = c->backend->scratch;
#pragma omp parallel for schedule(static)
    for (int row = 0; row < d->n * d->oh; row++) {
        const int n = row / d->oh, h = row % d->oh * d->stride;
        for (int q = 0; q < d->ow; q++)
            memcpy(to + ((size_t)row * d->ow + q) * d->c,
                   x + (((size_t)n * d->h + h) * d->w + q * d->stride) * d->c, d->c * sizeof *to);
    }
    return to;
}

mix_status mix__conv_backward_weights(struct mix__conv *c, float *dw, const float *x,
                                      const float *dy)
{
    if (c->depthwise) {
        depthwise_gradient(c, dw, x, dy);
        return MIX_OK;
    }
    if (c->product) {
        const dnnl_dim_t m = (dnnl_dim_t)c->d.n * c->d.oh * c->d.ow;
        if (c->d.stride > 1)
            x = gather(c, x);
        DNNL_TRY(c->backend->ctx, dnnl_sgemm('T', 'N', c->d.k, c->d.c, m, 1.0f, dy, c->d.k, x,
                                             c->d.c, 0.0f, dw, c->d.c));
        return MIX_OK;
    }
    struct primitive *p = &c->p[BACKWARD_WEIGHTS];
    MIX_TRY(execute(c, BACKWARD_WEIGHTS, x, dy, NULL));
    DNNL_TRY(c->backend->ctx, dnnl_memory_set_data_handle(c->plain, dw));
    return reorder(c, p, p->packed, c->plain);
}
