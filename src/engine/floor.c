/*
 * engine/floor.c - bare convolutions by oneDNN and copies in memory, timed.
 */
#include "engine/floor.h"

#include <dnnl.h>
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "engine/engine_inside.h"

enum { RUNS = 7, COPIED = 1 << 27 };
static const double SLOW = 0.5; /* seconds: a reference implementation, never the floor */

struct bench {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    bool half; /* products of bfloat16 are tried too */
};

/* One of a layer's three primitives: what it reads and writes, as arguments and as queries. */
struct role {
    int args[3];
    dnnl_query_t queries[3];
};
static const struct role forward = {
    { DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST },
    { dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md },
};
static const struct role backward_data = {
    { DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_DST },
    { dnnl_query_diff_src_md, dnnl_query_weights_md, dnnl_query_diff_dst_md },
};
static const struct role backward_weights = {
    { DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST },
    { dnnl_query_src_md, dnnl_query_diff_weights_md, dnnl_query_diff_dst_md },
};

static void keep_less(double *best, double seconds)
{
    if (seconds < *best)
        *best = seconds;
}

/* The least time of RUNS runs after one; left alone when it cannot be run. */
static void time_runs(const struct bench *b, dnnl_primitive_t primitive,
                      const dnnl_exec_arg_t *args, double *best)
{
    for (int i = -1; i < RUNS; i++) {
        const double began = mix__clock();
        if (dnnl_primitive_execute(primitive, b->stream, 3, args) != dnnl_success ||
            dnnl_stream_wait(b->stream) != dnnl_success)
            return;
        const double seconds = mix__clock() - began;
        if (i >= 0 || seconds > SLOW)
            keep_less(best, seconds);
        if (seconds > SLOW)
            return;
    }
}

static void time_primitive(const struct bench *b, dnnl_primitive_desc_t desc,
                           const struct role *role, double *best)
{
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t args[3];
    int n = 0;
    if (dnnl_primitive_create(&primitive, desc) != dnnl_success)
        return;
    for (; n < 3; n++) {
        const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md(desc, role->queries[n], 0);
        void *data;
        args[n].arg = role->args[n];
        if (dnnl_memory_create(&args[n].memory, md, b->engine, DNNL_MEMORY_ALLOCATE) !=
            dnnl_success)
            break;
        dnnl_memory_get_data_handle(args[n].memory, &data);
        memset(data, 0, dnnl_memory_desc_get_size(md));
    }
    if (n == 3)
        time_runs(b, primitive, args, best);
    while (n-- > 0)
        dnnl_memory_destroy(args[n].memory);
    dnnl_primitive_destroy(primitive);
}

struct types {
    dnnl_data_type_t x, w, y;
};
static const struct types in_f32 = { dnnl_f32, dnnl_f32, dnnl_f32 };
static const struct types in_bf16 = { dnnl_bf16, dnnl_bf16, dnnl_bf16 };
static const struct types codes_to_f32 = { dnnl_u8, dnnl_s8, dnnl_f32 };
static const struct types codes_to_bf16 = { dnnl_u8, dnnl_s8, dnnl_bf16 };

/* The layer's primitives in these types and layout; those that oneDNN does not have, as the
 * backward ones on codes, are left out. */
static void try_layer(const struct bench *b, const struct mix__step *s, int batch,
                      const struct types *types, dnnl_format_tag_t tag, struct mix__floor *floor)
{
    const struct mix__node *node = s->node;
    const int k = s->out.c, c = s->in.c, groups = node->groups;
    const dnnl_dims_t x = { batch, c, s->in.h, s->in.w }, y = { batch, k, s->out.h, s->out.w };
    const dnnl_dims_t dense = { k, c, node->kernel, node->kernel };
    const dnnl_dims_t grouped = { groups, k / groups, c / groups, node->kernel, node->kernel };
    const dnnl_dims_t strides = { node->stride, node->stride }, pad = { node->pad, node->pad };
    const dnnl_dims_t end = { node->pad_end, node->pad_end };
    dnnl_memory_desc_t mx, my, mw;
    dnnl_convolution_desc_t op;
    dnnl_primitive_desc_t hint, desc;
    if (dnnl_memory_desc_init_by_tag(&mx, 4, x, types->x, tag) != dnnl_success ||
        dnnl_memory_desc_init_by_tag(&my, 4, y, types->y, tag) != dnnl_success ||
        dnnl_memory_desc_init_by_tag(&mw, groups > 1 ? 5 : 4, groups > 1 ? grouped : dense,
                                     types->w, dnnl_format_tag_any) != dnnl_success ||
        dnnl_convolution_forward_desc_init(&op, dnnl_forward_training, dnnl_convolution_direct, &mx,
                                           &mw, NULL, &my, strides, pad, end) != dnnl_success ||
        dnnl_primitive_desc_create(&hint, &op, NULL, b->engine, NULL) != dnnl_success)
        return;
    time_primitive(b, hint, &forward, &floor->forward);
    if (dnnl_convolution_backward_data_desc_init(&op, dnnl_convolution_direct, &mx, &mw, &my,
                                                 strides, pad, end) == dnnl_success &&
        dnnl_primitive_desc_create(&desc, &op, NULL, b->engine, hint) == dnnl_success) {
        time_primitive(b, desc, &backward_data, &floor->backward_data);
        dnnl_primitive_desc_destroy(desc);
    }
    if (dnnl_convolution_backward_weights_desc_init(&op, dnnl_convolution_direct, &mx, &mw, NULL,
                                                    &my, strides, pad, end) == dnnl_success &&
        dnnl_primitive_desc_create(&desc, &op, NULL, b->engine, hint) == dnnl_success) {
        time_primitive(b, desc, &backward_weights, &floor->backward_weights);
        dnnl_primitive_desc_destroy(desc);
    }
    dnnl_primitive_desc_destroy(hint);
}

static bool layer_floor(const struct bench *b, const struct mix__step *s, int batch,
                        enum mix__dtype dtype, struct mix__floor *floor)
{
    static const dnnl_format_tag_t tags[] = { dnnl_format_tag_any, dnnl_nhwc };
    const bool image = mix__reads_image(s);
    const double size = (double)mix__dtype_size(dtype);
    const double x = size * batch * s->in.h * s->in.w * s->in.c;
    const double y = size * batch * s->out.h * s->out.w * s->out.c;
    *floor = (struct mix__floor){ .forward = INFINITY,
                                  .backward_data = INFINITY,
                                  .backward_weights = INFINITY,
                                  .bytes_forward = x + y,
                                  .bytes_backward = y + (image ? x : 2 * x),
                                  .bytes_spared = x - x / size };
    for (size_t i = 0; i < MIX_COUNT(tags); i++) {
        try_layer(b, s, batch, &in_f32, tags[i], floor);
        if (b->half)
            try_layer(b, s, batch, &in_bf16, tags[i], floor);
    }
    struct mix__floor codes = *floor;
    for (size_t i = 0; i < MIX_COUNT(tags); i++)
        try_layer(b, s, batch, b->half ? &codes_to_bf16 : &codes_to_f32, tags[i], &codes);
    floor->forward_codes = codes.forward;
    const bool known = isfinite(floor->forward + floor->backward_data + floor->backward_weights);
    if (image)
        floor->backward_data = 0.0;
    return known;
}

mix_status mix__floor_measure(const struct mix__engine *e, struct mix__floor *floors)
{
    const enum mix__dtype dtype = e->plan.dtype;
    struct bench b = { .half = dtype == MIX__DTYPE_BF16 &&
                               mix_ctx_cpu(e->ctx) & MIX_CPU_BF16_PRODUCTS };
    mix_status status = MIX_OK;
    if (dnnl_engine_create(&b.engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&b.stream, b.engine, dnnl_stream_default_flags) != dnnl_success)
        status = mix__fail(e->ctx, MIX_EBACKEND, "oneDNN: no CPU engine");
    for (size_t i = 0; i < e->plan.n_steps && status == MIX_OK; i++) {
        const struct mix__step *s = &e->plan.steps[i];
        if (s->kind == MIX__STEP_CONV &&
            !layer_floor(&b, s, e->plan.batch, dtype, &floors[s->layer]))
            status = mix__fail(e->ctx, MIX_EBACKEND, "oneDNN: no convolution for layer %s",
                               s->node->name);
    }
    if (b.stream)
        dnnl_stream_destroy(b.stream);
    if (b.engine)
        dnnl_engine_destroy(b.engine);
    return status;
}

/* The least time of RUNS copies after one, each thread its part: of that size the C library's copies
 * go past the cache. */
static double time_copies(char *to, const char *from, size_t part, int threads)
{
    double best = INFINITY;
    for (int i = -1; i < RUNS; i++) {
        const double began = mix__clock();
#pragma omp parallel for schedule(static)
        for (int t = 0; t < threads; t++)
            memcpy(to + t * part, from + t * part, part);
        if (i >= 0)
            keep_less(&best, mix__clock() - began);
    }
    return best;
}

mix_status mix__floor_memory(const struct mix__engine *e, double *speed)
{
    const size_t part = COPIED / (size_t)e->threads, size = part * (size_t)e->threads;
    char *from = mix__zalloc(e->ctx, size, 1), *to = mix__alloc(e->ctx, size, 1);
    const mix_status status = from && to ? MIX_OK : MIX_ENOMEM;
    if (status == MIX_OK)
        *speed = 2.0 * (double)size / time_copies(to, from, part, e->threads);
    mix__free(e->ctx, from);
    mix__free(e->ctx, to);
    return status;
}
