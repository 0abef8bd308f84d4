/*
 * bench/train_step.c - how long a training step takes, against its floor.
 *
 *   train_step [--arch NAME] [--seconds S] [--size N --batch N] [--data DIR]
 *              [--precision f32|bf16|auto] [--branches N] [--threads N] [--cpu-mask avx2]
 *              [--floor 0] [--layers 1]
 *
 * For one network of the zoo (MobileNet v2) at 32 x 32 (batch 128) and 224 x 224 (batch 32): images
 * per second of a float step, a weight training step (W4, mixed activation bits) and a bit-meta
 * step (the first N of the candidates 2, 3, 4, 8; N 4 unless --branches says), and what each is of
 * its floor (engine/floor.h): the bare oneDNN convolutions (forward, backward data, backward
 * weights) that it needs, in float32 or, where the step multiplies bfloat16, in the faster of
 * both, and the bytes that have to move at the speed of copies in memory. Quantized steps have a
 * lower floor: their layers' inputs are codes of a byte, and where weights are codes too, forward
 * convolutions multiply bytes. "x bare" is the same without what has to move: where the operands of
 * a bare convolution do not fit into a cache, it moves them itself, and the floor has them twice.
 * A step is forward, loss, backward, clipping and optimizer. All in one process, steps alternate,
 * each figure is the best of its runs: a busy neighbour disturbs that least. With --floor 0 no
 * floor; with --layers also where the time goes, layer by layer (means). With --data the images
 * come from the loader, augmented, and the share of the time spent waiting for it is printed; else
 * they are noise.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../tools/profile_table.h"
#include "base/clock.h"
#include "base/random.h"
#include "data/batches.h"
#include "metamix/zoo.h"
#include "train/evaluate.h"
#include "train/profile.h"
#include "train/train.h"

enum { MAX_RUNS = 64, CLASSES = 1000 };

static double least(const double *values, int n)
{
    double best = values[0];
    for (int i = 1; i < n; i++)
        best = values[i] < best ? values[i] : best;
    return best;
}

enum kind { FLOAT_STEP, WEIGHT_STEP, META_STEP, KINDS };
static const int candidates[] = { 2, 3, 4, 8 };

struct job {
    int branches;
    struct mix__state *state;
    struct mix__engine *engine;
    struct mix__optimizer adam;
    struct mix__range range;
    float *dlogits;
    int *labels;
    int64_t step;
    mix_data *data; /* NULL: noise */
    struct mix__batches *batches;
    struct mix__profiler *profilers[KINDS];
};

/* The next batch of the loader; the one in place without a loader. */
static mix_status feed(struct job *j)
{
    struct mix__batch batch;
    if (!j->data)
        return MIX_OK;
    MIX_TRY(mix__batches_next(j->batches, &batch));
    mix__engine_feed(j->engine, &batch);
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

static mix_status branch(struct job *j, int b, int branches)
{
    const int batch = mix__engine_batch(j->engine);
    const struct mix__pass pass = { .batch_stats = true,
                                    .update_stats = true,
                                    .dropout = true,
                                    .seed = 1,
                                    .step = (uint64_t)j->step,
                                    .branch = b,
                                    .branches = branches };
    const float *logits;
    mix_status status = mix__engine_forward(j->engine, &pass, &logits);
    if (status != MIX_OK)
        return status;
    mix__loss_eval(logits, NULL, j->labels, batch, CLASSES, 1.0f / (float)branches, j->dlogits);
    return mix__engine_backward(j->engine, j->dlogits, MIX__GRAD_PARAMS);
}

static mix_status one_step(struct job *j, enum kind kind, double *seconds)
{
    const int n = j->branches, branches = kind == META_STEP ? n : 1;
    const double began = mix__clock();
    mix__profiler_begin(j->profilers[kind]);
    mix_status status = feed(j);
    memset(j->state->grad, 0, j->state->n * sizeof *j->state->grad);
    for (int b = 0; b < branches && status == MIX_OK; b++) {
        mix__engine_mode_all(j->engine, kind == FLOAT_STEP ? MIX__QUANT_OFF : MIX__QUANT_ONE, b,
                             kind == WEIGHT_STEP ? 4 : 32);
        if (kind == WEIGHT_STEP)
            for (size_t l = 0; l < j->state->graph->n_layers; l++)
                mix__engine_modes(j->engine)[l].choice = (int)l % n;
        status = branch(j, b, branches);
    }
    mix__clip_gradients(j->state->grad, &j->range, 1, 10.0);
    mix__optimizer_step(&j->adam, j->state->value, j->state->grad, 1e-6f, &j->range, 1);
    j->state->version++;
    j->step++;
    *seconds = mix__clock() - began;
    mix__profiler_end(j->profilers[kind], *seconds);
    return status;
}

static mix_status job_new(struct job *j, mix_ctx *ctx, const mix_graph *g, int batch,
                          enum mix__dtype dtype)
{
    MIX_TRY(mix__state_new(&j->state, g, candidates, j->branches, 1));
    MIX_TRY(mix__engine_new(&j->engine, j->state, batch, true, dtype));
    const struct mix__optimizer_options adam = { .kind = MIX__ADAM };
    MIX_TRY(mix__optimizer_init(&j->adam, ctx, j->state->n, &adam));
    j->range =
        (struct mix__range){ .count = j->state->n, .weight_decay = 5e-6f, .floor = -INFINITY };
    j->dlogits = malloc((size_t)batch * CLASSES * sizeof *j->dlogits);
    j->labels = malloc((size_t)batch * sizeof *j->labels);
    if (!j->dlogits || !j->labels)
        return MIX_ENOMEM;
    const size_t pixels = (size_t)batch * g->tensors[0].h * g->tensors[0].w * g->tensors[0].c;
    for (size_t i = 0; i < pixels; i++)
        mix__engine_input(j->engine)[i] = (float)mix__random_normal(1, 0, i);
    for (int i = 0; i < batch; i++)
        j->labels[i] = i % CLASSES;
    MIX_TRY(mix__engine_share_stem(j->engine));
    MIX_TRY(mix__engine_calibrate(j->engine));
    mix__engine_mode_all(j->engine, MIX__QUANT_ONE, 0, 4);
    mix__state_init_weight_steps(j->state, mix__engine_modes(j->engine));
    return MIX_OK;
}

static void job_free(struct job *j)
{
    for (int kind = 0; kind < KINDS; kind++)
        mix__profiler_free(j->profilers[kind]);
    free(j->dlogits);
    free(j->labels);
    mix__batches_free(j->batches);
    mix_data_free(j->data);
    mix__optimizer_release(&j->adam);
    mix__engine_free(j->engine);
    mix__state_free(j->state);
}

/* ---- the figures ---------------------------------------------------------------------------- */

/* Over all layers: seconds of bare forward, backward data and backward weights, and bytes. */
struct floor {
    double pass[3], bare, bytes;
};

static void add_layer(struct floor *sum, double forward, const struct mix__floor *f, double bytes)
{
    const double passes[] = { forward, f->backward_data, f->backward_weights };
    for (int p = 0; p < 3; p++) {
        sum->pass[p] += passes[p];
        sum->bare += passes[p];
    }
    sum->bytes += bytes;
}

/* In the step's types, and with products and operands of codes. */
enum { OWN, CODES, FLOORS };

static mix_status sum_floors(const struct job *j, struct floor *sums, double *copies)
{
    const size_t n = j->state->graph->n_layers;
    struct mix__floor *floors = calloc(n, sizeof *floors);
    if (!floors)
        return MIX_ENOMEM;
    mix_status status = mix__floor_measure(j->engine, floors);
    if (status == MIX_OK)
        status = mix__floor_memory(j->engine, copies);
    for (size_t l = 0; l < n && status == MIX_OK; l++) {
        const struct mix__floor *f = &floors[l];
        const double bytes = f->bytes_forward + f->bytes_backward;
        add_layer(&sums[OWN], f->forward, f, bytes);
        add_layer(&sums[CODES], f->forward_codes, f, bytes - 2 * f->bytes_spared);
    }
    free(floors);
    return status;
}

static const char *type_name(const struct mix__engine *engine)
{
    return mix__engine_dtype(engine) == MIX__DTYPE_BF16 ? "bf16" : "f32";
}

static void print_floor(const char *type, const struct floor *f, double copies)
{
    printf("  bare convolutions, %-5s forward %.1f, backward data %.1f, backward weights %.1f, sum "
           "%.1f ms; %.0f MB at %.1f GB/s %.1f ms\n",
           type, 1e3 * f->pass[0], 1e3 * f->pass[1], 1e3 * f->pass[2], 1e3 * f->bare,
           1e-6 * f->bytes, 1e-9 * copies, 1e3 * f->bytes / copies);
}

/* What the command line says. */
struct what {
    const char *arch, *precision, *data; /* data NULL: noise */
    double budget;                       /* seconds */
    int branches;
    bool floor, layers;
};

static void name_kind(char *name, size_t size, enum kind kind, int branches)
{
    static const char *const names[] = { "float", "weight training, W4", "bit-meta" };
    if (kind == META_STEP)
        snprintf(name, size, "%s, %d branch%s", names[kind], branches, branches == 1 ? "" : "es");
    else
        snprintf(name, size, "%s", names[kind]);
}

static mix_status print_steps(struct job *j, const struct what *w, const double *least_seconds)
{
    struct floor floors[FLOORS] = { 0 };
    double copies;
    char name[32];
    if (w->floor) {
        MIX_TRY(sum_floors(j, floors, &copies));
        const bool products = mix_ctx_cpu(j->state->graph->ctx) & MIX_CPU_BF16_PRODUCTS;
        print_floor(products ? type_name(j->engine) : "f32", &floors[OWN], copies);
        print_floor("int8", &floors[CODES], copies);
    }
    printf("  %-22s %10s %12s%s\n", "step", "ms", "images/s",
           w->floor ? "    floor   x floor   x bare" : "");
    for (int kind = 0; kind < KINDS; kind++) {
        const double t = least_seconds[kind];
        name_kind(name, sizeof name, (enum kind)kind, j->branches);
        printf("  %-22s %10.1f %12.1f", name, 1e3 * t, mix__engine_batch(j->engine) / t);
        if (w->floor) {
            const double branches = kind == META_STEP ? j->branches : 1;
            const double bare = branches * floors[kind == WEIGHT_STEP ? CODES : OWN].bare;
            const double bytes = branches * floors[kind == FLOAT_STEP ? OWN : CODES].bytes;
            const double both = bare + bytes / copies;
            printf(" %8.1f %9.2f %8.2f", 1e3 * both, t / both, t / bare);
        }
        putchar('\n');
    }
    for (int kind = 0; kind < KINDS && w->layers; kind++) {
        mix_profile profile;
        name_kind(name, sizeof name, (enum kind)kind, j->branches);
        MIX_TRY(mix__profiler_report(j->profilers[kind], name, &profile));
        putchar('\n');
        profile_print(&profile, stdout);
    }
    return MIX_OK;
}

/* Steps of all kinds in turn, after one of each. */
static mix_status run_steps(struct job *j, const struct what *w, double *least_seconds, int *runs)
{
    double seconds[KINDS][MAX_RUNS];
    const double start = mix__clock();
    *runs = 0;
    for (int i = -1; i < MAX_RUNS && (*runs < 3 || mix__clock() - start < w->budget); i++) {
        for (int kind = 0; kind < KINDS; kind++)
            MIX_TRY(one_step(j, (enum kind)kind, &seconds[kind][i < 0 ? 0 : i]));
        for (int kind = 0; kind < KINDS && i < 0 && w->layers; kind++)
            MIX_TRY(mix__profiler_new(&j->profilers[kind], j->engine));
        *runs = i + 1;
    }
    for (int kind = 0; kind < KINDS; kind++)
        least_seconds[kind] = least(seconds[kind], *runs);
    return MIX_OK;
}

static mix_status measure_job(struct job *j, mix_ctx *ctx, const mix_graph *g, const struct what *w,
                              int size, int batch)
{
    double seconds[KINDS];
    int runs;
    MIX_TRY(job_new(j, ctx, g, batch, mix__training_dtype(ctx, w->precision)));
    if (w->data)
        MIX_TRY(open_loader(j, ctx, w->data, size, batch));
    const double start = mix__clock();
    MIX_TRY(run_steps(j, w, seconds, &runs));
    const double took = mix__clock() - start;
    printf("%s, %d x %d, batch %d, %s, %d threads, best of %d\n", w->arch, size, size, batch,
           type_name(j->engine), mix_ctx_threads(ctx), runs);
    MIX_TRY(print_steps(j, w, seconds));
    const struct mix__memory m = mix__engine_memory(j->engine);
    printf("  plan: %.0f MB activations and gradients, %.0f MB packed weights, %.0f MB scratch\n",
           1e-6 * (double)m.arena, 1e-6 * (double)m.weights, 1e-6 * (double)m.scratch);
    if (w->data)
        printf("  waiting for images: %.1f%% of the time\n",
               100.0 * mix__batches_waited(j->batches) / took);
    return MIX_OK;
}

static mix_status measure(mix_ctx *ctx, const struct what *w, int size, int batch)
{
    mix_zoo_options options;
    mix_graph *g;
    struct job j = { .branches = w->branches };
    mix_zoo_options_init(&options);
    options.arch = w->arch;
    options.size = size;
    MIX_TRY(mix_zoo_new(&g, ctx, &options));
    const mix_status status = measure_job(&j, ctx, g, w, size, batch);
    job_free(&j);
    mix_graph_free(g);
    return status;
}

/* false: something is no option, or has no such value. */
static bool read_options(int argc, char **argv, struct what *w, mix_ctx_options *ctx, int *size,
                         int *batch)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (!strcmp(name, "--seconds"))
            w->budget = atof(value);
        else if (!strcmp(name, "--size"))
            *size = atoi(value);
        else if (!strcmp(name, "--batch"))
            *batch = atoi(value);
        else if (!strcmp(name, "--arch"))
            w->arch = value;
        else if (!strcmp(name, "--data"))
            w->data = value;
        else if (!strcmp(name, "--floor"))
            w->floor = atoi(value) != 0;
        else if (!strcmp(name, "--layers"))
            w->layers = atoi(value) != 0;
        else if (!strcmp(name, "--precision") &&
                 (!strcmp(value, "f32") || !strcmp(value, "bf16") || !strcmp(value, "auto")))
            w->precision = value;
        else if (!strcmp(name, "--branches"))
            w->branches = atoi(value);
        else if (!strcmp(name, "--threads"))
            ctx->threads = atoi(value);
        else if (!strcmp(name, "--cpu-mask") && !strcmp(value, "avx2"))
            ctx->cpu_mask = MIX_CPU_AVX2;
        else
            return false;
    }
    return argc % 2 == 1 && w->branches >= 1 && w->branches <= (int)MIX_COUNT(candidates);
}

static const char usage[] =
    "usage: train_step [--arch NAME] [--size PIXELS] [--batch N] [--branches 1..4] [--data DIR]\n"
    "                  [--precision f32|bf16|auto] [--threads N] [--cpu-mask avx2]\n"
    "                  [--seconds S] [--floor 0|1] [--layers 0|1]\n";

int main(int argc, char **argv)
{
    struct what w = { .arch = "mobilenet_v2",
                      .budget = 20.0,
                      .precision = "f32",
                      .branches = MIX_COUNT(candidates),
                      .floor = true };
    int size = 0, batch = 0;
    mix_ctx_options options;
    mix_ctx *ctx;
    mix_ctx_options_init(&options);
    if (!read_options(argc, argv, &w, &options, &size, &batch)) {
        fputs(usage, stderr);
        return 2;
    }
    if (mix_ctx_new(&ctx, &options) != MIX_OK)
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
