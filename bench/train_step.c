/*
 * bench/train_step.c - how long a training step takes, against its floor.
 *
 *   train_step [--arch NAME] [--seconds S] [--size N --batch N] [--data DIR] [--precision f32|bf16]
 *
 * For one network of the zoo (MobileNet v2) at 32 x 32 (batch 128) and 224 x 224 (batch 32): images
 * per second of a float step, a weight training step (W4, mixed activation bits) and a bit-meta
 * step (candidates 2, 3, 4, 8), and the ratio of each to the sum of the bare oneDNN convolutions
 * (forward, backward data, backward weights) that it needs. A layer's floor is the faster of
 * oneDNN's own choice of layout and plain nhwc. A step is forward, loss, backward, clipping and
 * optimizer. All in one process, steps alternate, each figure is the best of its runs: a busy
 * neighbour disturbs that least. With
 * --data the images come from the loader, augmented, and the share of the time spent waiting for
 * it is printed; else they are noise.
 */
#include <dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "data/batches.h"
#include "metamix/zoo.h"
#include "train/evaluate.h"
#include "train/train.h"

enum { MAX_RUNS = 64, CLASSES = 1000 };

#define DNNL_OK(call)                                                                              \
    do {                                                                                           \
        if ((call) != dnnl_success) {                                                              \
            fprintf(stderr, "train_step: %s failed\n", #call);                                     \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static double least(const double *values, int n)
{
    double best = values[0];
    for (int i = 1; i < n; i++)
        best = values[i] < best ? values[i] : best;
    return best;
}

/* ---- the floor: bare primitives ---------------------------------------------------------------
 */

struct backend {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
};

static dnnl_memory_t memory_for(const struct backend *b, const dnnl_primitive_desc_t desc,
                                dnnl_query_t query)
{
    const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md(desc, query, 0);
    dnnl_memory_t memory;
    void *data;
    DNNL_OK(dnnl_memory_create(&memory, md, b->engine, DNNL_MEMORY_ALLOCATE));
    DNNL_OK(dnnl_memory_get_data_handle(memory, &data));
    memset(data, 0, dnnl_memory_desc_get_size(md));
    return memory;
}

/* Seconds of one primitive: the best of seven runs after one. */
static double time_primitive(const struct backend *b, dnnl_primitive_desc_t desc, const int *args,
                             const dnnl_query_t *queries)
{
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t exec[3];
    double seconds[7];
    DNNL_OK(dnnl_primitive_create(&primitive, desc));
    for (int i = 0; i < 3; i++)
        exec[i] = (dnnl_exec_arg_t){ args[i], memory_for(b, desc, queries[i]) };
    for (int i = -1; i < 7; i++) {
        const double start = mix__clock();
        DNNL_OK(dnnl_primitive_execute(primitive, b->stream, 3, exec));
        DNNL_OK(dnnl_stream_wait(b->stream));
        if (i >= 0)
            seconds[i] = mix__clock() - start;
        if (seconds[i < 0 ? 0 : i] > 0.5)
            return seconds[i < 0 ? 0 : i]; /* a reference implementation: never the floor */
    }
    for (int i = 0; i < 3; i++)
        dnnl_memory_destroy(exec[i].memory);
    dnnl_primitive_destroy(primitive);
    return least(seconds, 7);
}

static void layer_floor(const struct backend *b, const mix_layer_info *l, int batch, bool any,
                        double *seconds)
{
    const dnnl_format_tag_t tag = any ? dnnl_format_tag_any : dnnl_nhwc;
    const dnnl_dims_t x = { batch, l->in_channels, l->in_size, l->in_size };
    const dnnl_dims_t y = { batch, l->out_channels, l->out_size, l->out_size };
    const dnnl_dims_t dense = { l->out_channels, l->in_channels, l->kernel, l->kernel };
    const dnnl_dims_t grouped = { l->groups, l->out_channels / l->groups,
                                  l->in_channels / l->groups, l->kernel, l->kernel };
    const dnnl_dims_t strides = { l->stride, l->stride };
    const dnnl_dims_t pad = { l->kernel / 2, l->kernel / 2 };
    dnnl_memory_desc_t mx, my, mw;
    DNNL_OK(dnnl_memory_desc_init_by_tag(&mx, 4, x, dnnl_f32, tag));
    DNNL_OK(dnnl_memory_desc_init_by_tag(&my, 4, y, dnnl_f32, tag));
    DNNL_OK(dnnl_memory_desc_init_by_tag(&mw, l->groups > 1 ? 5 : 4,
                                         l->groups > 1 ? grouped : dense, dnnl_f32,
                                         dnnl_format_tag_any));
    dnnl_convolution_desc_t op;
    dnnl_primitive_desc_t forward, backward;
    DNNL_OK(dnnl_convolution_forward_desc_init(&op, dnnl_forward_training, dnnl_convolution_direct,
                                               &mx, &mw, NULL, &my, strides, pad, pad));
    DNNL_OK(dnnl_primitive_desc_create(&forward, &op, NULL, b->engine, NULL));
    seconds[0] = time_primitive(
        b, forward, (int[]){ DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST },
        (dnnl_query_t[]){ dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md });

    DNNL_OK(dnnl_convolution_backward_data_desc_init(&op, dnnl_convolution_direct, &mx, &mw, &my,
                                                     strides, pad, pad));
    DNNL_OK(dnnl_primitive_desc_create(&backward, &op, NULL, b->engine, forward));
    seconds[1] = time_primitive(
        b, backward, (int[]){ DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_DST },
        (dnnl_query_t[]){ dnnl_query_diff_src_md, dnnl_query_weights_md, dnnl_query_diff_dst_md });
    dnnl_primitive_desc_destroy(backward);

    DNNL_OK(dnnl_convolution_backward_weights_desc_init(&op, dnnl_convolution_direct, &mx, &mw,
                                                        NULL, &my, strides, pad, pad));
    DNNL_OK(dnnl_primitive_desc_create(&backward, &op, NULL, b->engine, forward));
    seconds[2] = time_primitive(
        b, backward, (int[]){ DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST },
        (dnnl_query_t[]){ dnnl_query_src_md, dnnl_query_diff_weights_md, dnnl_query_diff_dst_md });
    dnnl_primitive_desc_destroy(backward);
    dnnl_primitive_desc_destroy(forward);
}

/* Seconds of forward, backward data (not for the image) and backward weights over all layers. */
static void floor_of(const mix_graph *g, int batch, double *sum)
{
    struct backend b;
    DNNL_OK(dnnl_engine_create(&b.engine, dnnl_cpu, 0));
    DNNL_OK(dnnl_stream_create(&b.stream, b.engine, dnnl_stream_default_flags));
    memset(sum, 0, 3 * sizeof *sum);
    for (size_t l = 0; l < g->n_layers; l++) {
        double own[3], plain[3];
        layer_floor(&b, &g->layers[l].info, batch, true, own);
        layer_floor(&b, &g->layers[l].info, batch, false, plain);
        for (int pass = 0; pass < 3; pass++)
            if (l > 0 || pass != 1)
                sum[pass] += own[pass] < plain[pass] ? own[pass] : plain[pass];
    }
    dnnl_stream_destroy(b.stream);
    dnnl_engine_destroy(b.engine);
}

/* ---- the steps --------------------------------------------------------------------------------
 */

enum kind { FLOAT_STEP, WEIGHT_STEP, META_STEP, KINDS };
static const int candidates[] = { 2, 3, 4, 8 };

struct job {
    struct mix__state *state;
    struct mix__engine *engine;
    struct mix__optimizer adam;
    struct mix__range range;
    float *dlogits;
    int *labels;
    int64_t step;
    mix_data *data; /* NULL: noise */
    struct mix__batches *batches;
};

/* The next batch of the loader; the one in place without a loader. */
static mix_status feed(struct job *j)
{
    struct mix__batch batch;
    if (!j->data)
        return MIX_OK;
    MIX_TRY(mix__batches_next(j->batches, &batch));
    mix__engine_feed(j->engine, j->state->graph, &batch);
    memcpy(j->labels, batch.labels, (size_t)batch.count * sizeof *j->labels);
    return MIX_OK;
}

static mix_status open_loader(struct job *j, mix_ctx *ctx, const char *path, int size, int batch)
{
    const struct mix__batches_options loader = { .split = MIX_TRAIN,
                                                 .batch = batch,
                                                 .train = true,
                                                 .crop = MIX__CROP_PAD,
                                                 .crop_padding = size / 8,
                                                 .flip = true,
                                                 .threads = 1,
                                                 .seed = 1 };
    mix_data_options options;
    mix_data_options_init(&options);
    options.size = size;
    MIX_TRY(mix_data_open(&j->data, ctx, path, &options));
    mix_data_info info;
    mix_data_info_get(j->data, &info);
    if (info.channels != j->state->graph->tensors[0].c)
        return mix__fail(ctx, MIX_ESHAPE, "%s has images of %d channels; expected %d", path,
                         info.channels, j->state->graph->tensors[0].c);
    return mix__batches_new(&j->batches, j->data, &loader);
}

static mix_status branch(struct job *j, float scale)
{
    const int batch = mix__engine_batch(j->engine);
    const struct mix__pass pass = { .batch_stats = true,
                                    .update_stats = true,
                                    .dropout = true,
                                    .seed = 1,
                                    .step = (uint64_t)j->step };
    const float *logits;
    mix_status status = mix__engine_forward(j->engine, &pass, &logits);
    if (status != MIX_OK)
        return status;
    mix__loss_eval(logits, NULL, j->labels, batch, CLASSES, scale, j->dlogits);
    return mix__engine_backward(j->engine, j->dlogits, MIX__GRAD_PARAMS);
}

static mix_status one_step(struct job *j, enum kind kind)
{
    const int n = (int)MIX_COUNT(candidates), branches = kind == META_STEP ? n : 1;
    mix_status status = feed(j);
    memset(j->state->grad, 0, j->state->n * sizeof *j->state->grad);
    for (int b = 0; b < branches && status == MIX_OK; b++) {
        mix__engine_mode_all(j->engine, kind == FLOAT_STEP ? MIX__QUANT_OFF : MIX__QUANT_ONE, b,
                             kind == WEIGHT_STEP ? 4 : 32);
        if (kind == WEIGHT_STEP)
            for (size_t l = 0; l < j->state->graph->n_layers; l++)
                mix__engine_modes(j->engine)[l].choice = (int)l % n;
        status = branch(j, 1.0f / (float)branches);
    }
    mix__clip_gradients(j->state->grad, &j->range, 1, 10.0);
    mix__optimizer_step(&j->adam, j->state->value, j->state->grad, 1e-6f, &j->range, 1);
    j->state->version++;
    j->step++;
    return status;
}

static mix_status job_new(struct job *j, mix_ctx *ctx, const mix_graph *g, int batch,
                          enum mix__dtype dtype)
{
    MIX_TRY(mix__state_new(&j->state, g, candidates, (int)MIX_COUNT(candidates), 1));
    MIX_TRY(mix__engine_new(&j->engine, j->state, batch, true, dtype));
    const struct mix__optimizer_options adam = { .kind = MIX__ADAM };
    MIX_TRY(mix__optimizer_init(&j->adam, ctx, j->state->n, &adam));
    j->range = (struct mix__range){ 0, j->state->n, 5e-6f, -INFINITY };
    j->dlogits = malloc((size_t)batch * CLASSES * sizeof *j->dlogits);
    j->labels = malloc((size_t)batch * sizeof *j->labels);
    if (!j->dlogits || !j->labels)
        return MIX_ENOMEM;
    const size_t pixels = (size_t)batch * g->tensors[0].h * g->tensors[0].w * g->tensors[0].c;
    for (size_t i = 0; i < pixels; i++)
        mix__engine_input(j->engine)[i] = (float)mix__random_normal(1, 0, i);
    for (int i = 0; i < batch; i++)
        j->labels[i] = i % CLASSES;
    MIX_TRY(mix__engine_calibrate(j->engine));
    mix__engine_mode_all(j->engine, MIX__QUANT_ONE, 0, 4);
    mix__state_init_weight_steps(j->state, mix__engine_modes(j->engine));
    return MIX_OK;
}

/* What the command line says. */
struct what {
    const char *arch, *data; /* data NULL: noise */
    double budget;           /* seconds */
    enum mix__dtype dtype;
};

static mix_status measure(mix_ctx *ctx, const struct what *w, int size, int batch)
{
    static const char *const names[KINDS] = { "float", "weight training, W4",
                                              "bit-meta, 4 branches" };
    mix_zoo_options options;
    mix_graph *g;
    struct job j = { 0 };
    double seconds[KINDS][MAX_RUNS], floor[3];
    mix_zoo_options_init(&options);
    options.arch = w->arch;
    options.size = size;
    MIX_TRY(mix_zoo_new(&g, ctx, &options));
    floor_of(g, batch, floor);
    MIX_TRY(job_new(&j, ctx, g, batch, w->dtype));
    if (w->data)
        MIX_TRY(open_loader(&j, ctx, w->data, size, batch));

    int runs = 0;
    const double start = mix__clock();
    for (int i = -1; i < MAX_RUNS && (runs < 3 || mix__clock() - start < w->budget); i++) {
        for (int kind = 0; kind < KINDS; kind++) {
            const double before = mix__clock();
            MIX_TRY(one_step(&j, (enum kind)kind));
            if (i >= 0)
                seconds[kind][i] = mix__clock() - before;
        }
        runs = i + 1;
    }
    const double took = mix__clock() - start, sum = floor[0] + floor[1] + floor[2];
    printf("%s, %d x %d, batch %d, %s, %d threads, best of %d\n", w->arch, size, size, batch,
           w->dtype == MIX__DTYPE_BF16 ? "bf16" : "f32", mix_ctx_threads(ctx), runs);
    printf("  bare convolutions: forward %.1f, backward data %.1f, backward weights %.1f, sum %.1f "
           "ms\n",
           1e3 * floor[0], 1e3 * floor[1], 1e3 * floor[2], 1e3 * sum);
    printf("  %-22s %10s %12s %18s\n", "step", "ms", "images/s", "time / floor");
    for (int kind = 0; kind < KINDS; kind++) {
        const double t = least(seconds[kind], runs);
        const double floor_sum = sum * (kind == META_STEP ? MIX_COUNT(candidates) : 1);
        printf("  %-22s %10.1f %12.1f %18.2f\n", names[kind], 1e3 * t, batch / t, t / floor_sum);
    }
    const struct mix__memory m = mix__engine_memory(j.engine);
    printf("  plan: %.0f MB activations and gradients, %.0f MB packed weights, %.0f MB scratch\n",
           1e-6 * (double)m.arena, 1e-6 * (double)m.weights, 1e-6 * (double)m.scratch);
    if (w->data)
        printf("  waiting for images: %.1f%% of the time\n",
               100.0 * mix__batches_waited(j.batches) / took);
    free(j.dlogits);
    free(j.labels);
    mix__batches_free(j.batches);
    mix_data_free(j.data);
    mix__optimizer_release(&j.adam);
    mix__engine_free(j.engine);
    mix__state_free(j.state);
    mix_graph_free(g);
    return MIX_OK;
}

int main(int argc, char **argv)
{
    struct what w = { "mobilenet_v2", NULL, 20.0, MIX__DTYPE_F32 };
    int size = 0, batch = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--seconds"))
            w.budget = atof(argv[i + 1]);
        else if (!strcmp(argv[i], "--size"))
            size = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--batch"))
            batch = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--arch"))
            w.arch = argv[i + 1];
        else if (!strcmp(argv[i], "--data"))
            w.data = argv[i + 1];
        else if (!strcmp(argv[i], "--precision"))
            w.dtype = strcmp(argv[i + 1], "bf16") ? MIX__DTYPE_F32 : MIX__DTYPE_BF16;
    }
    mix_ctx *ctx;
    if (mix_ctx_new(&ctx, NULL) != MIX_OK)
        return 1;
    mix_status status;
    if (size) {
        status = measure(ctx, &w, size, batch ? batch : 32);
    } else {
        status = measure(ctx, &w, 32, 128);
        if (status == MIX_OK)
            status = measure(ctx, &w, 224, 32);
    }
    if (status != MIX_OK)
        fprintf(stderr, "train_step: %s\n", mix_ctx_error(ctx));
    mix_ctx_free(ctx);
    return status;
}
