/*
 * job/job.c - one job from its folder and settings to its result.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "format/bits_json.h"
#include "job/job.h"
#include "metamix/onnx.h"

/* ---- parts ---- */

/* The settings' normalisation, or what a network was trained with: never another one. */
static mix_status choose_normalisation(mix_ctx *ctx, const mix_settings *settings,
                                       const mix_graph *graph, mix_normalize *how)
{
    if (!mix_normalize_parse(settings->normalize, how))
        return mix__fail(ctx, MIX_EINVAL,
                         "normalize is '%.64s'; expected auto, imagenet, symmetric or unit",
                         settings->normalize);
    if (!graph || graph->normalize == MIX_NORMALIZE_AUTO)
        return MIX_OK;
    if (*how != MIX_NORMALIZE_AUTO && *how != graph->normalize)
        return mix__fail(ctx, MIX_EINVAL,
                         "normalize is %s, but the network was trained with %s images; expected "
                         "that or auto",
                         settings->normalize, mix_normalize_name(graph->normalize));
    *how = graph->normalize;
    return MIX_OK;
}

static mix_status onnx_size(mix_ctx *ctx, const char *path, int *size)
{
    mix_graph *graph;
    MIX_TRY(mix_graph_from_onnx(&graph, ctx, path, NULL));
    *size = graph->tensors[0].h;
    mix_graph_free(graph);
    return MIX_OK;
}

/* Where the network knows the names of its classes, and there are as many. */
static mix_status check_classes(const mix_graph *g, const mix_data *data)
{
    mix_data_info info;
    mix_data_info_get(data, &info);
    if (!g->class_names || info.classes != g->tensors[g->output].c)
        return MIX_OK;
    const char **names = mix__alloc(g->ctx, (size_t)info.classes, sizeof *names);
    if (!names)
        return MIX_ENOMEM;
    names[0] = g->class_names;
    for (int i = 1; i < info.classes; i++)
        names[i] = names[i - 1] + strlen(names[i - 1]) + 1;
    const mix_status status = mix_data_check_classes(data, names, "the network");
    mix__free(g->ctx, names);
    return status;
}

mix_status mix__data_for(mix_ctx *ctx, const mix_settings *settings, const mix_graph *graph,
                         mix_data **out)
{
    mix_data_options options;
    mix_data_info data;
    mix_graph_info net;
    mix_data_options_init(&options);
    options.size = settings->image_size;
    options.resize = settings->resize;
    options.skip_bad_images = settings->skip_bad_images;
    MIX_TRY(choose_normalisation(ctx, settings, graph, &options.normalize));
    if (!graph && options.size == 0 && mix_onnx_is_path(settings->arch))
        MIX_TRY(onnx_size(ctx, settings->arch, &options.size));
    if (graph) {
        mix_graph_info_get(graph, &net);
        options.size = options.size ? options.size : net.size;
    }
    MIX_TRY(mix_data_open(out, ctx, settings->data, &options));
    mix_data_info_get(*out, &data);
    mix__log(ctx, MIX_LOG_INFO, "%s: %zu training and %zu validation images of %d classes",
             settings->data, data.images[MIX_TRAIN], data.images[MIX_VAL], data.classes);
    if (!graph)
        return MIX_OK;
    mix_status status = check_classes(graph, *out);
    if (data.classes != net.classes || data.channels != net.channels || data.size != net.size)
        status = mix__fail(ctx, MIX_ESHAPE,
                           "%s has %d classes and images of %dx%dx%d; the network expects %d "
                           "classes and %dx%dx%d",
                           settings->data, data.classes, data.size, data.size, data.channels,
                           net.classes, net.size, net.size, net.channels);
    if (status != MIX_OK) {
        mix_data_free(*out);
        *out = NULL;
    }
    return status;
}

static enum mix__crop crop_of(const mix_settings *s)
{
    return s->crop[0] == 'p'   ? MIX__CROP_PAD
           : s->crop[0] == 'r' ? MIX__CROP_RESIZED
                               : MIX__CROP_NONE;
}

mix_status mix__batches_open(struct mix__batches **out, mix_data *data, const mix_settings *s,
                             mix_split split)
{
    const bool train = split == MIX_TRAIN;
    const struct mix__batches_options options = { .split = split,
                                                  .batch = s->batch,
                                                  .train = train,
                                                  .crop = train ? crop_of(s) : MIX__CROP_NONE,
                                                  .crop_padding = s->crop_padding,
                                                  .flip = train && s->flip,
                                                  .cutout = train ? s->cutout : 0,
                                                  .limit = train ? (size_t)s->train_limit : 0,
                                                  .threads = s->loader_threads,
                                                  .seed = (uint64_t)s->seed };
    return mix__batches_new(out, data, &options);
}

/* ---- what the job starts from ---- */

static void tell_data(const mix_observer *observer)
{
    if (!observer || !observer->progress)
        return;
    const mix_progress progress = mix_progress_at("data", 0, 0);
    observer->progress(observer->user, &progress);
}

static const char *class_of(const void *data, int index)
{
    return mix_data_class_name(data, index);
}

/* What the job starts from, for sentences. */
static const char *source(const struct mix__job *job)
{
    const mix_settings *s = job->settings;
    return job->from ? job->from : mix_onnx_is_path(s->arch) ? s->arch : s->weights;
}

/* The graph's classes are those of the images that it is trained on. */
static mix_status open_graph_and_data(struct mix__job *job, const struct mix__checkpoint *c)
{
    mix_weights_info info;
    tell_data(job->t.observer);
    if (c) {
        MIX_TRY(mix__checkpoint_graph(c, &job->graph));
        MIX_TRY(mix__data_for(job->ctx, job->settings, job->graph, &job->data));
    } else {
        MIX_TRY(mix__data_for(job->ctx, job->settings, NULL, &job->data));
        MIX_TRY(mix__network_for(job->settings, job->ctx, job->data, &job->graph, &info));
        if (info.new_classifier && !(job->groups & MIX_GROUP_FLOAT))
            mix__log(job->ctx, MIX_LOG_WARNING,
                     "%s has no classifier for the classes of %s: bits are chosen and weights "
                     "quantized behind one of random values. Train the float network first, and "
                     "start from that run",
                     source(job), job->settings->data);
    }
    return mix__graph_name_classes(job->graph, class_of, job->data);
}

static void take_candidates(struct mix__job *job, const int *candidate, int n)
{
    memcpy(job->candidate, candidate, (size_t)n * sizeof *candidate);
    job->n_candidates = n;
}

/* Those that searched layers use in the given bits; {8} when all are float. */
static void candidates_of_bits(struct mix__job *job, const mix_layer_bits *bits)
{
    for (int b = MIX_BITS_MIN; b <= MIX_BITS_MAX; b++)
        for (size_t l = 0; l < job->graph->n_layers; l++)
            if (job->graph->layers[l].info.searched && bits[l].activation == b) {
                job->candidate[job->n_candidates++] = b;
                break;
            }
    if (job->n_candidates == 0)
        take_candidates(job, &(int){ MIX_BITS_FIXED }, 1);
}

static mix_status read_bits_text(struct mix__job *job)
{
    int weight, activation;
    mix__free(job->ctx, job->t.bits);
    job->t.bits = mix__alloc(job->ctx, job->graph->n_layers, sizeof *job->t.bits);
    if (!job->t.bits)
        return MIX_ENOMEM;
    const bool uniform = mix_bits_parse(job->bits_text, &weight, &activation);
    if (!uniform && !mix__path_exists(job->bits_text))
        return mix__fail(job->ctx, MIX_EINVAL,
                         "bits is '%.64s': neither a bits.json that exists nor a uniform network "
                         "such as W4A3 with bit-widths from %d to %d",
                         job->bits_text, MIX_BITS_MIN, MIX_BITS_MAX);
    if (!uniform)
        return mix__bits_json_load(job->graph, job->bits_text, job->t.bits);
    mix_bits_uniform(job->graph, weight, activation, job->t.bits);
    return MIX_OK;
}

/* Bits and candidates; c is what the job starts or goes on from, NULL for a graph of the zoo. */
static mix_status choose_bits(struct mix__job *job, const struct mix__checkpoint *c, bool resumed)
{
    const int *candidate = &(int){ MIX_BITS_FIXED };
    int n = 1;
    if (c) {
        MIX_TRY(mix__checkpoint_bits(c, job->graph, &job->t.bits));
        n = mix__checkpoint_candidates(c, &candidate);
    }
    const bool searched = job->t.bits != NULL;
    if (resumed || (job->groups & MIX_GROUP_FLOAT)) {
        take_candidates(job, candidate, n);
        return MIX_OK;
    }
    if (c && mix__checkpoint_stopped(c))
        return mix__fail(job->ctx, MIX_EINVAL,
                         "%s is a selection that was stopped; expected a float network or bits: "
                         "go on with it first",
                         source(job));
    if (job->groups & MIX_GROUP_SELECT) {
        if (searched)
            return mix__fail(job->ctx, MIX_EINVAL,
                             "%s is quantized already; expected a float network", source(job));
        return mix__candidates_parse(job->ctx, job->settings->candidates, job->candidate,
                                     &job->n_candidates);
    }
    if (!searched && !job->bits_text)
        return mix__fail(job->ctx, MIX_EINVAL,
                         "%s is a float network: bits are needed, a bits.json or WxAy",
                         source(job));
    if (job->bits_text)
        MIX_TRY(read_bits_text(job));
    if (searched)
        take_candidates(job, candidate, n);
    else
        candidates_of_bits(job, job->t.bits);
    return MIX_OK;
}

/* ---- the trainer's parts ---- */

static mix_status make_optimizers(struct mix__job *job)
{
    struct mix__trainer *t = &job->t;
    const bool sgd =
        (job->groups & MIX_GROUP_FLOAT) && strcmp(job->settings->optimizer, "sgd") == 0;
    const struct mix__optimizer_options options = { .kind = sgd ? MIX__SGD : MIX__ADAM };
    const struct mix__optimizer_options alpha = { .kind = MIX__ADAM, .beta1 = 0.5 };
    const bool averages = job->groups & (MIX_GROUP_FLOAT | MIX_GROUP_FINETUNE);
    MIX_TRY(mix__optimizer_init(&t->optimizer, job->ctx, t->state->n, &options));
    MIX_TRY(mix__optimizer_init(&t->alpha_optimizer, job->ctx, t->state->n_alpha, &alpha));
    return mix__average_init(&t->average, t->state, averages ? job->settings->ema_decay : 0.0);
}

static mix_status make_loaders(struct mix__job *job)
{
    struct mix__trainer *t = &job->t;
    MIX_TRY(mix__batches_open(&t->batches, job->data, job->settings, MIX_TRAIN));
    return mix__batches_open(&t->validation, job->data, job->settings, MIX_VAL);
}

static uint64_t memory_of(const struct mix__engine *engine)
{
    const struct mix__memory m = mix__engine_memory(engine);
    return m.arena + m.weights + m.scratch;
}

static mix_status make_engines(struct mix__job *job)
{
    struct mix__trainer *t = &job->t;
    const int batch = job->settings->batch;
    const enum mix__dtype dtype = mix__training_dtype(job->ctx, job->settings->precision);
    MIX_TRY(mix__engine_new(&t->engine, t->state, batch, true, dtype));
    MIX_TRY(mix__engine_new(&t->judge, t->state, batch, false, MIX__DTYPE_F32));
    job->plan_bytes = memory_of(t->engine);
    t->dlogits = mix__alloc(job->ctx, (size_t)batch,
                            (size_t)job->graph->tensors[job->graph->output].c * sizeof(float));
    return t->dlogits ? MIX_OK : MIX_ENOMEM;
}

static void make_phases(struct mix__job *job)
{
    if (job->groups & MIX_GROUP_FLOAT)
        mix__phases_float(&job->t);
    if (job->groups & MIX_GROUP_SELECT)
        mix__phases_select(&job->t);
    if (job->groups & MIX_GROUP_FINETUNE)
        mix__phases_finetune(&job->t);
    mix__trainer_plan(&job->t);
}

static mix_status make_target(struct mix__job *job)
{
    job->t.target = NAN;
    if (!(job->groups & MIX_GROUP_SELECT))
        return MIX_OK;
    return mix_budget_parse(job->ctx, job->graph, job->settings->target, &job->t.target);
}

/* What is known of the target before the search: whether it can be met, and what it does not say. */
static void tell_target(const struct mix__job *job)
{
    const mix_settings *s = job->settings;
    const mix_graph *g = job->graph;
    int weight, activation;
    if (mix_bits_parse(s->target, &weight, &activation) && weight != s->weight_bits)
        mix__log(job->ctx, MIX_LOG_WARNING,
                 "target %s is a cost; the weights of this network get %d bits (weight_bits)",
                 s->target, s->weight_bits);
    const double least = mix__uniform_gbops(g, s->weight_bits, job->candidate[0]);
    const double most =
        mix__uniform_gbops(g, s->weight_bits, job->candidate[job->n_candidates - 1]);
    if (job->t.target < least)
        mix__log(job->ctx, MIX_LOG_WARNING,
                 "target %s, %.6g GBOPs, cannot be met: the lowest candidates cost %.6g", s->target,
                 job->t.target, least);
    if (job->t.target >= most)
        mix__log(
            job->ctx, MIX_LOG_WARNING,
            "target %s, %.6g GBOPs, leaves nothing to search: the highest candidates cost %.6g",
            s->target, job->t.target, most);
}

static mix_status build(struct mix__job *job, const struct mix__checkpoint *c, bool resumed)
{
    struct mix__trainer *t = &job->t;
    MIX_TRY(open_graph_and_data(job, c));
    MIX_TRY(make_target(job));
    MIX_TRY(choose_bits(job, c, resumed));
    if ((job->groups & MIX_GROUP_SELECT) && !resumed)
        tell_target(job);
    MIX_TRY(mix__state_new(&t->state, job->graph, job->candidate, job->n_candidates,
                           (uint64_t)job->settings->seed));
    if (t->bits)
        MIX_TRY(mix__bits_check(t->state, t->bits));
    MIX_TRY(make_loaders(job));
    MIX_TRY(make_engines(job));
    MIX_TRY(mix__teacher_make(job));
    MIX_TRY(make_optimizers(job));
    make_phases(job);
    if (t->n_phases == 0)
        return mix__fail(job->ctx, MIX_EINVAL, "all phases have 0 epochs; expected at least one");
    return MIX_OK;
}

/* ---- start, end ---- */

static mix_status go_on(struct mix__job *job, const struct mix__checkpoint *c)
{
    struct mix__trainer *t = &job->t;
    const size_t before = mix__checkpoint_images(c), now = mix__batches_images(t->batches);
    if (before && before != now)
        return mix__fail(job->ctx, MIX_EMISMATCH,
                         "%s: this run was made with %zu training images of %s; now there are %zu. "
                         "Use another folder, or the same images",
                         t->folder.path, before, job->settings->data, now);
    MIX_TRY(mix__checkpoint_state(c, t->state));
    MIX_TRY(mix__checkpoint_run(c, &t->point, &t->optimizer, &t->alpha_optimizer, &t->average));
    mix__log(job->ctx, MIX_LOG_INFO, "%s: going on in phase %lld, epoch %lld, step %lld",
             t->folder.path, (long long)t->point.phase + 1, (long long)t->point.epoch + 1,
             (long long)t->point.step);
    return mix__run_log_cut(&t->folder, t->point.log_lines);
}

/* A searched or quantized network's steps come with it; a float network's are calibrated. */
static mix_status begin(struct mix__job *job, const struct mix__checkpoint *c)
{
    struct mix__trainer *t = &job->t;
    MIX_TRY(mix__run_log_cut(&t->folder, 0));
    if (!c)
        MIX_TRY(mix__network_recentre(job));
    if (job->groups & MIX_GROUP_FLOAT)
        return MIX_OK;
    if (t->bits)
        MIX_TRY(mix__bits_json_save(job->graph, t->folder.bits, t->bits));
    if (t->bits && c) {
        const int *candidate;
        const int n = mix__checkpoint_candidates(c, &candidate);
        if (n == job->n_candidates &&
            memcmp(candidate, job->candidate, (size_t)n * sizeof *candidate) == 0)
            MIX_TRY(mix__checkpoint_state(c, t->state));
        /* Other bits have other steps. */
        if (job->bits_text)
            t->state->weight_steps_ready = false;
    }
    return mix__evaluate(t->judge, t->validation, t->observer, &t->point.start);
}

static mix_status set_up(struct mix__job *job)
{
    struct mix__trainer *t = &job->t;
    struct mix__checkpoint *c = NULL;
    const bool resumed = mix__path_exists(t->folder.last);
    if (resumed)
        MIX_TRY(mix__checkpoint_open(&c, job->ctx, t->folder.last));
    else if (job->from)
        MIX_TRY(mix__checkpoint_from(job->ctx, job->from, &c));
    mix_status status = build(job, c, resumed);
    if (status == MIX_OK)
        status = resumed ? go_on(job, c) : begin(job, c);
    mix__checkpoint_close(c);
    return status;
}

static uint64_t peak_memory(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

static uint64_t total_macs(const mix_graph *graph)
{
    mix_graph_info info;
    mix_graph_info_get(graph, &info);
    return info.macs;
}

static mix_status result_bits(struct mix__job *job, mix_result *r)
{
    const mix_layer_bits *bits = job->t.bits;
    r->mean_activation_bits = NAN;
    r->target_gbops = job->t.target;
    if (!bits) {
        r->gbops = 1e-9 * MIX_BITS_FLOAT * MIX_BITS_FLOAT * (double)total_macs(job->graph);
        return MIX_OK;
    }
    r->n_layers = (int)job->graph->n_layers;
    r->bits = malloc((size_t)r->n_layers * sizeof *r->bits);
    if (!r->bits)
        return mix__fail(job->ctx, MIX_ENOMEM, "out of memory for %d layers", r->n_layers);
    memcpy(r->bits, bits, (size_t)r->n_layers * sizeof *r->bits);
    r->gbops = 1e-9 * (double)mix_bits_bops(job->graph, bits);
    r->mean_activation_bits = mix_bits_mean_activation(job->graph, bits);
    return MIX_OK;
}

static mix_status conclude(struct mix__job *job, mix_result *r)
{
    const struct mix__trainer *t = &job->t;
    const struct mix__point *at = &t->point;
    r->best = at->best;
    r->last = at->last;
    r->float_accuracy = job->groups & MIX_GROUP_FLOAT ? at->best : at->start;
    for (int i = 0; i < t->n_phases; i++) {
        mix_phase_time *p = &r->phases[r->n_phases++];
        snprintf(p->phase, sizeof p->phase, "%s", t->phases[i].name);
        p->epochs = t->phases[i].epochs;
        p->seconds = at->seconds[i];
        r->seconds += p->seconds;
    }
    r->data_wait = at->waited / r->seconds;
    r->plan_bytes = job->plan_bytes;
    r->peak_bytes = peak_memory();
    MIX_TRY(result_bits(job, r));
    return mix__run_result_write(&job->t.folder, job->kind, job->graph, r);
}

static mix_status run(struct mix__job *job, mix_result *result)
{
    if (mix__path_exists(job->t.folder.result))
        return mix__run_result_read(&job->t.folder, result);
    MIX_TRY(set_up(job));
    MIX_TRY(mix__trainer_run(&job->t));
    return conclude(job, result);
}

mix_status mix__job_run(struct mix__job *job, const char *run_dir, const mix_observer *observer,
                        mix_result *result)
{
    if (!job->from)
        job->groups |= MIX_GROUP_NET;
    const struct mix__run_config config = { .job = job->kind,
                                            .from = job->from,
                                            .bits = job->bits_text,
                                            .settings = job->settings,
                                            .groups = job->groups };
    struct mix__trainer *t = &job->t;
    *result = (mix_result){ 0 };
    t->ctx = job->ctx;
    t->settings = job->settings;
    t->observer = observer;
    MIX_TRY(mix__start_check(job->ctx, job->from, job->settings, job->groups));
    MIX_TRY(mix__settings_check(job->ctx, job->settings, job->groups));
    MIX_TRY(mix__run_folder_open(&t->folder, job->ctx, run_dir, &config));
    const mix_status status = run(job, result);
    if (status != MIX_OK)
        mix_result_release(result);
    mix__trainer_release(t);
    mix_graph_free(job->teacher_graph);
    mix_graph_free(job->graph);
    mix_data_free(job->data);
    return status;
}
