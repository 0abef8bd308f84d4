/*
 * The jobs from outside: what a run folder holds, what follows what, what is refused.
 */
#include "runs.h"

#include <jansson.h>

#include "in_folder.h"
#include "job/job.h"

static json_t *load_json(const char *path)
{
    json_error_t error;
    json_t *json = json_load_file(path, 0, &error);
    assert_non_null(json);
    return json;
}

/* The lines of a log, as an array. */
static json_t *load_log(const char *path)
{
    char line[4096];
    json_t *lines = json_array();
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        assert_int_equal(json_array_append_new(lines, json_loads(line, 0, NULL)), 0);
    fclose(f);
    return lines;
}

/* The "phase" of each line, joined by commas. */
static void log_phases(const char *path, char *out, size_t size)
{
    json_t *log = load_log(path), *line;
    size_t i;
    out[0] = '\0';
    json_array_foreach(log, i, line)
    {
        const size_t used = strlen(out);
        snprintf(out + used, size - used, "%s%s", used ? ", " : "",
                 json_string_value(json_object_get(line, "phase")));
    }
    json_decref(log);
}

/* Each epoch's last learning rate is the schedule's. */
static void check_rates(const char *path, const mix_settings *s)
{
    const int64_t per_epoch = RUN_TRAIN / RUN_BATCH;
    const int64_t warmup = (int64_t)(s->warmup_epochs * (double)per_epoch);
    json_t *log = load_log(path), *line;
    size_t epoch;
    json_array_foreach(log, epoch, line)
    {
        const double want = mix__schedule_cosine(s->lr, ((int64_t)epoch + 1) * per_epoch - 1,
                                                 warmup, (int64_t)s->epochs * per_epoch);
        assert_true(fabs(json_real_value(json_object_get(line, "lr")) - want) < 1e-12);
    }
    assert_int_equal(json_array_size(log), s->epochs);
    json_decref(log);
}

/* Bit-meta and bit-search training keep their rate; a stage's follows the cosine to its last step.
 */
static void check_phase_rates(const char *path, const mix_settings *s)
{
    const int64_t per_epoch = RUN_TRAIN / RUN_BATCH;
    json_t *log = load_log(path), *line;
    size_t i;
    json_array_foreach(log, i, line)
    {
        const char *phase = json_string_value(json_object_get(line, "phase"));
        const int64_t epoch = json_integer_value(json_object_get(line, "epoch"));
        const double lr = json_real_value(json_object_get(line, "lr"));
        const bool c = strcmp(phase, "stage c") == 0;
        const int epochs = c                               ? s->stage_c_epochs
                           : strcmp(phase, "stage b") == 0 ? s->stage_b_epochs
                                                           : s->stage_a_epochs;
        if (strncmp(phase, "bit-", 4) == 0)
            assert_true(fabs(lr - s->meta_lr) < 1e-12);
        if (strncmp(phase, "stage", 5) == 0)
            assert_true(fabs(lr - mix__schedule_cosine(c ? s->stage_c_lr : s->finetune_lr,
                                                       (epoch + 1) * per_epoch - 1, 0,
                                                       epochs * per_epoch)) < 1e-12);
    }
    json_decref(log);
}

/* The best epoch is the first of those with the highest accuracy. Returns how many have it, those
 * aside whose loss does not tell them from the first. */
static int check_best(const char *path, const mix_result *result)
{
    json_t *log = load_log(path), *line;
    size_t i;
    int n = 0;
    json_array_foreach(log, i, line)
    {
        const double top1 = json_real_value(json_object_get(line, "val_top1"));
        const double loss = json_real_value(json_object_get(line, "val_loss"));
        assert_true(top1 <= result->best.top1 + 1e-9);
        if (top1 < result->best.top1 - 1e-9)
            continue;
        const bool best = fabs(loss - result->best.loss) < 1e-9;
        if (n == 0)
            assert_true(best);
        n += n == 0 || !best;
    }
    json_decref(log);
    return n;
}

static void check_accuracy(const mix_accuracy *a, const mix_accuracy *b)
{
    assert_true(a->top1 == b->top1 && a->top5 == b->top5 && a->loss == b->loss);
    assert_int_equal(a->images, b->images);
}

static void train_learns(void **state)
{
    mix_settings s;
    mix_result result, again;
    mix_accuracy accuracy;
    (void)state;
    tiny_settings(&s);
    s.epochs = 16;
    s.lr = 0.05;
    s.bn_batches = 6;
    strcpy(s.crop, "none");
    CHECK_OK(mix_train(ctx, "learned", &s, NULL, &result));
    assert_int_equal(result.last.images, RUN_VAL);
    if (!(result.best.top1 >= 60.0)) /* chance: 25 */
        fail_msg("best top-1 is %g", result.best.top1);
    assert_true(result.plan_bytes > 0 && result.peak_bytes > result.plan_bytes);
    assert_true(isnan(result.target_gbops) && !result.bits);
    mix_graph *graph;
    mix_layer_bits *bits;
    mix_graph_info info;
    CHECK_OK(mix_run_graph(ctx, "learned", &graph, &bits));
    mix_graph_info_get(graph, &info);
    assert_true(fabs(result.gbops / (1e-9 * 1024.0 * (double)info.macs) - 1.0) < 1e-12);
    mix_graph_free(graph);
    check_rates("learned/log.jsonl", &s);
    /* a done run is left as it is */
    CHECK_OK(mix_train(ctx, "learned", &s, NULL, &again));
    check_accuracy(&result.best, &again.best);
    check_accuracy(&result.last, &again.last);
    assert_true(result.seconds == again.seconds && result.gbops == again.gbops);
    assert_true(result.plan_bytes == again.plan_bytes && result.peak_bytes == again.peak_bytes);
    assert_true(result.data_wait == again.data_wait);
    assert_int_equal(again.n_phases, 1);
    CHECK_OK(mix_eval(ctx, "learned", &s, NULL, false, &accuracy));
    check_accuracy(&result.best, &accuracy);
    mix_result_release(&result);
    mix_result_release(&again);
}

/* What is judged, kept as best and left as last is the moving average. */
static void average_is_kept(void **state)
{
    mix_settings s;
    mix_result plain, result;
    mix_accuracy accuracy;
    (void)state;
    tiny_settings(&s);
    CHECK_OK(mix_train(ctx, "plain", &s, NULL, &plain));
    s.ema_decay = 0.9;
    CHECK_OK(mix_train(ctx, "averaged", &s, NULL, &result));
    assert_true(result.last.loss != plain.last.loss);
    CHECK_OK(mix_eval(ctx, "averaged", &s, NULL, false, &accuracy));
    check_accuracy(&result.best, &accuracy);
    CHECK_OK(mix_eval(ctx, "averaged/last.safetensors", &s, NULL, false, &accuracy));
    check_accuracy(&result.last, &accuracy);
    mix_result_release(&plain);
    mix_result_release(&result);
    /* of weight training too */
    CHECK_OK(mix_finetune(ctx, "tuned-averaged", "float", "W4A4", &s, NULL, &result));
    s.ema_decay = 0.0;
    CHECK_OK(mix_finetune(ctx, "tuned-plain", "float", "W4A4", &s, NULL, &plain));
    assert_true(result.last.loss != plain.last.loss);
    mix_result_release(&plain);
    mix_result_release(&result);
}

/* Which epochs of a log were evaluated: '+' or '-'. */
static void log_evaluated(const char *path, char *out, size_t size)
{
    json_t *log = load_log(path), *line;
    size_t i;
    assert_true(json_array_size(log) < size);
    json_array_foreach(log, i, line) out[i] =
        json_is_real(json_object_get(line, "val_top1")) ? '+' : '-';
    out[json_array_size(log)] = '\0';
    json_decref(log);
}

/* Evaluated less often, a network is trained to the same weights. */
static void interval_of_evaluations(void **state)
{
    mix_settings s;
    mix_result each, some;
    mix_accuracy accuracy;
    char evaluated[16];
    (void)state;
    tiny_settings(&s);
    s.epochs = 5;
    s.ema_decay = 0.9;
    CHECK_OK(mix_train(ctx, "each", &s, NULL, &each));
    s.val_interval = 2;
    CHECK_OK(mix_train(ctx, "some", &s, NULL, &some));
    log_evaluated("each/log.jsonl", evaluated, sizeof evaluated);
    assert_string_equal(evaluated, "+++++");
    log_evaluated("some/log.jsonl", evaluated, sizeof evaluated);
    assert_string_equal(evaluated, "-+-++");
    check_accuracy(&each.last, &some.last);
    CHECK_OK(mix_eval(ctx, "some", &s, NULL, false, &accuracy));
    check_accuracy(&some.best, &accuracy);
    mix_result_release(&each);
    mix_result_release(&some);
    CHECK_FAILS(ctx, mix_train(ctx, "each", &s, NULL, &each), MIX_EMISMATCH, "val_interval");
}

/* With less and less learning rate epochs become as good as each other; the first stays the best. */
static void first_of_equals_is_best(void **state)
{
    mix_settings s;
    mix_result result;
    (void)state;
    tiny_settings(&s);
    s.epochs = 4;
    s.bn_batches = RUN_TRAIN / RUN_BATCH;
    strcpy(s.crop, "none"); /* statistics of the same images each time */
    int equal = 0;
    for (s.lr = 1e-4; equal < 2 && s.lr > 1e-8; s.lr /= 4.0) {
        char run[32], log[64];
        snprintf(run, sizeof run, "equals-%g", s.lr);
        snprintf(log, sizeof log, "%s/log.jsonl", run);
        CHECK_OK(mix_train(ctx, run, &s, NULL, &result));
        equal = check_best(log, &result);
        mix_result_release(&result);
    }
    assert_true(equal > 1);
}

static void quantize_runs_phases(void **state)
{
    mix_settings s;
    mix_result result, again;
    mix_accuracy accuracy;
    mix_graph *graph;
    mix_layer_bits *bits;
    char phases[256];
    (void)state;
    tiny_settings(&s);
    strcpy(s.teacher, "self");
    CHECK_OK(mix_quantize(ctx, "quantized", "float", &s, NULL, &result));
    log_phases("quantized/log.jsonl", phases, sizeof phases);
    assert_string_equal(phases, "bit-meta, bit-search, bit-search, select, stage a, stage b");
    check_phase_rates("quantized/log.jsonl", &s);
    assert_true(result.gbops <= result.target_gbops);
    assert_int_equal(result.n_phases, 4);

    CHECK_OK(mix_run_graph(ctx, "quantized", &graph, &bits));
    assert_non_null(bits);
    assert_memory_equal(bits, result.bits, (size_t)result.n_layers * sizeof *bits);
    assert_true(1e-9 * (double)mix_bits_bops(graph, bits) == result.gbops);
    mix_bits_free(ctx, bits);
    mix_graph_free(graph);

    CHECK_OK(mix_eval(ctx, "quantized", &s, NULL, false, &accuracy));
    check_accuracy(&result.best, &accuracy);
    CHECK_OK(mix_eval(ctx, "quantized/last.safetensors", &s, NULL, false, &accuracy));
    check_accuracy(&result.last, &accuracy);
    CHECK_OK(mix_eval(ctx, "quantized", &s, NULL, true, &accuracy));
    assert_true(accuracy.loss != result.best.loss);
    CHECK_OK(mix_eval(ctx, "float", &s, NULL, false, &accuracy));
    check_accuracy(&result.float_accuracy, &accuracy);

    CHECK_OK(mix_quantize(ctx, "quantized", "float", &s, NULL, &again));
    assert_memory_equal(again.bits, result.bits, (size_t)result.n_layers * sizeof *bits);
    assert_true(again.gbops == result.gbops);
    mix_result_release(&result);
    mix_result_release(&again);
}

/* A teacher may look at larger images; never at smaller ones. */
static void teacher_of_larger_images(void **state)
{
    mix_settings s;
    mix_result result, own;
    (void)state;
    tiny_settings(&s);
    s.image_size = 32;
    CHECK_OK(mix_train(ctx, "large", &s, NULL, &result));
    mix_result_release(&result);
    s.image_size = 0;
    s.stage_a_epochs = 0;
    strcpy(s.teacher, "self");
    CHECK_OK(mix_finetune(ctx, "taught-by-self", "float", "W4A4", &s, NULL, &own));
    strcpy(s.teacher, "large");
    CHECK_OK(mix_finetune(ctx, "taught-by-large", "float", "W4A4", &s, NULL, &result));
    assert_true(result.last.loss != own.last.loss);
    mix_result_release(&result);
    mix_result_release(&own);
    s.image_size = 32;
    strcpy(s.teacher, "float");
    CHECK_FAILS(ctx, mix_finetune(ctx, "taught-by-small", "large", "W4A4", &s, NULL, &result),
                MIX_ESHAPE, "no smaller images than those of 32 x 32");
}

enum { RUN_AREA = RUN_SIZE * RUN_SIZE };

/* The first batch of a split as the settings prepare it, and the batches of an epoch. */
static int64_t first_batch(const mix_settings *s, mix_split split, float *images)
{
    mix_data *data;
    struct mix__batches *batches;
    struct mix__batch batch;
    CHECK_OK(mix__data_for(ctx, s, NULL, &data));
    CHECK_OK(mix__batches_open(&batches, data, s, split));
    CHECK_OK(mix__batches_next(batches, &batch));
    memcpy(images, batch.images, RUN_BATCH * RUN_AREA * sizeof *images);
    const int64_t n = mix__batches_per_epoch(batches);
    mix__batches_free(batches);
    mix_data_free(data);
    return n;
}

/* Each setting of the augmentation changes training images in its own way, and no others. */
static void settings_reach_the_images(void **state)
{
    static const struct {
        const char *name, *value;
    } changes[] = { { "flip", "on" }, { "crop", "pad" }, { "crop", "resized" }, { "cutout", "4" } };
    static float plain[RUN_BATCH * RUN_AREA], val[RUN_BATCH * RUN_AREA];
    static float got[MIX_COUNT(changes)][RUN_BATCH * RUN_AREA], again[RUN_BATCH * RUN_AREA];
    mix_settings s;
    (void)state;
    tiny_settings(&s);
    strcpy(s.crop, "none");
    assert_int_equal(first_batch(&s, MIX_TRAIN, plain), RUN_TRAIN / RUN_BATCH);
    first_batch(&s, MIX_VAL, val);
    for (int i = 0; i < RUN_BATCH; i++) { /* some image of the set, as it is */
        float want[RUN_AREA];
        bool found = false;
        for (int k = 0; k < RUN_TRAIN && !found; k++) {
            for (int p = 0; p < RUN_AREA; p++)
                want[p] = (run_pixel(k, p / RUN_SIZE, p % RUN_SIZE) / 255.0f - 0.5f) / 0.5f;
            found = memcmp(want, plain + i * RUN_AREA, sizeof want) == 0;
        }
        assert_true(found);
    }
    for (size_t c = 0; c < MIX_COUNT(changes); c++) {
        mix_settings changed = s;
        CHECK_OK(mix_settings_set(&changed, ctx, changes[c].name, changes[c].value));
        first_batch(&changed, MIX_TRAIN, got[c]);
        assert_memory_not_equal(got[c], plain, sizeof plain);
        for (size_t other = 0; other < c; other++)
            assert_memory_not_equal(got[c], got[other], sizeof plain);
        first_batch(&changed, MIX_VAL, again);
        assert_memory_equal(again, val, sizeof val);
    }
    s.train_limit = 2 * RUN_BATCH;
    assert_int_equal(first_batch(&s, MIX_TRAIN, again), 2);
    assert_int_equal(first_batch(&s, MIX_VAL, again), (RUN_VAL + RUN_BATCH - 1) / RUN_BATCH);
}

struct profiles {
    char phases[128];
    int64_t steps;
};

/* Parts are within the whole, and there is a floor below every layer. */
static void check_profile(void *user, const mix_profile *p)
{
    struct profiles *all = user;
    double named = p->waited + p->teacher + p->weights + p->graph, bare = 0.0, bytes = 0.0,
           floor = 0.0;
    const size_t used = strlen(all->phases);
    snprintf(all->phases + used, sizeof all->phases - used, "%s%s", used ? ", " : "", p->phase);
    all->steps += p->steps;
    assert_true(p->steps > 0 && p->teacher > 0.0 && p->weights > 0.0 && p->graph > 0.0);
    for (int l = 0; l < p->n_layers; l++) {
        const mix_layer_profile *layer = &p->layers[l];
        assert_true(layer->forward > 0.0 && layer->backward > 0.0 && layer->floor > 0.0);
        assert_true(layer->bare > 0.0 && layer->bytes > 0.0 && layer->layer->name[0]);
        named += layer->forward + layer->backward;
        bare += layer->bare;
        bytes += layer->bytes;
        floor += layer->floor;
    }
    assert_true(p->n_layers > 0 && named <= p->seconds);
    assert_true(fabs(bare - p->bare) < 1e-9 * bare && fabs(bytes - p->bytes) < 1e-9 * bytes);
    assert_true(fabs(floor - p->floor) < 1e-9 * floor);
    assert_true(fabs(bare + bytes / p->copies - floor) < 1e-9 * floor);
}

/* Every phase that trained is told once, with all of its steps; nothing else changes. */
static void profile_is_told(void **state)
{
    struct profiles told = { "", 0 };
    const mix_observer observer = { .profile = check_profile, .user = &told };
    mix_settings s;
    mix_result plain, timed;
    int64_t steps = 0;
    (void)state;
    tiny_settings(&s);
    strcpy(s.teacher, "self");
    CHECK_OK(mix_quantize(ctx, "untimed", "float", &s, NULL, &plain));
    CHECK_OK(mix_quantize(ctx, "timed", "float", &s, &observer, &timed));
    assert_string_equal(told.phases, "bit-meta, bit-search, stage a, stage b");
    check_accuracy(&plain.last, &timed.last);
    assert_memory_equal(plain.bits, timed.bits, (size_t)plain.n_layers * sizeof *plain.bits);
    json_t *log = load_log("timed/log.jsonl"), *line;
    size_t i;
    json_array_foreach(log, i, line) steps += json_integer_value(json_object_get(line, "steps"));
    json_decref(log);
    assert_int_equal(told.steps, steps);
    mix_result_release(&plain);
    mix_result_release(&timed);
}

/* select and finetune in two folders are quantize in one. */
static void select_then_finetune(void **state)
{
    mix_settings s;
    mix_result selected, tuned;
    char phases[256];
    (void)state;
    tiny_settings(&s);
    CHECK_OK(mix_select(ctx, "selected", "float", &s, NULL, &selected));
    log_phases("selected/log.jsonl", phases, sizeof phases);
    assert_string_equal(phases, "bit-meta, bit-search, bit-search, select");
    mix_accuracy accuracy; /* with float weights, as the selection was judged */
    CHECK_OK(mix_eval(ctx, "selected", &s, NULL, false, &accuracy));
    check_accuracy(&selected.best, &accuracy);
    CHECK_OK(mix_finetune(ctx, "tuned", "selected", NULL, &s, NULL, &tuned));
    log_phases("tuned/log.jsonl", phases, sizeof phases);
    assert_string_equal(phases, "stage a, stage b");
    assert_int_equal(tuned.n_layers, selected.n_layers);
    assert_memory_equal(tuned.bits, selected.bits, (size_t)tuned.n_layers * sizeof *tuned.bits);
    mix_result_release(&tuned);

    strcpy(s.teacher, "self");
    CHECK_FAILS(ctx, mix_finetune(ctx, "t2", "selected", NULL, &s, NULL, &tuned), MIX_EINVAL,
                "teacher");
    CHECK_FAILS(ctx, mix_select(ctx, "t3", "selected", &s, NULL, &tuned), MIX_EINVAL,
                "quantized already");
    strcpy(s.teacher, "none-such");
    CHECK_FAILS(ctx, mix_finetune(ctx, "t4", "selected", NULL, &s, NULL, &tuned), MIX_EIO,
                "none-such");
    /* Another run of the same network is the same teacher as that run itself. */
    mix_result self, other;
    strcpy(s.teacher, "self");
    CHECK_OK(mix_quantize(ctx, "with-self", "float", &s, NULL, &self));
    strcpy(s.teacher, "float/best.safetensors");
    CHECK_OK(mix_quantize(ctx, "with-file", "float", &s, NULL, &other));
    check_accuracy(&self.last, &other.last);
    mix_result_release(&self);
    mix_result_release(&other);
    strcpy(s.teacher, "mobilenet_v2:float/best.safetensors"); /* of width 1 */
    CHECK_FAILS(ctx, mix_quantize(ctx, "t5", "float", &s, NULL, &tuned), MIX_EFORMAT, "shape");
    mix_result_release(&selected);
}

/* Weight training with a stage c that makes it worse than the phase before, whose accuracy is
 * given; the images are noise, so some seeds are tried. */
static double wreck(mix_settings *s, char run[32], mix_result *result)
{
    for (s->seed = 1; s->seed < 60; s->seed++) {
        char path[64];
        snprintf(run, 32, "wrecked-%d-%d", s->stage_b_epochs, s->seed);
        snprintf(path, sizeof path, "%s/log.jsonl", run);
        CHECK_OK(mix_finetune(ctx, run, "float", "W8A8", s, NULL, result));
        json_t *log = load_log(path);
        const json_t *before = json_array_get(log, json_array_size(log) - 2);
        const double top1 = json_real_value(json_object_get(before, "val_top1"));
        json_decref(log);
        if (result->last.top1 < top1)
            return top1;
        mix_result_release(result);
    }
    fail_msg("no stage c was worse");
    return 0.0;
}

/* It leaves the best network of stage b; stage a's has other weights and is no choice. */
static void stage_c_keeps_the_best(void **state)
{
    mix_settings s;
    mix_result result;
    mix_accuracy accuracy;
    char run[32];
    (void)state;
    tiny_settings(&s);
    s.stage_c_epochs = 1;
    s.stage_c_lr = 10.0;
    const double of_b = wreck(&s, run, &result);
    assert_true(result.best.top1 == of_b);
    CHECK_OK(mix_eval(ctx, run, &s, NULL, false, &accuracy));
    check_accuracy(&result.best, &accuracy);
    mix_result_release(&result);
    s.stage_b_epochs = 0;
    wreck(&s, run, &result);
    assert_true(result.best.top1 == result.last.top1);
    mix_result_release(&result);
}

/* What MetaMix is compared with: other phases, the same selection and weight training. */
static void other_searches(void **state)
{
    static const struct {
        const char *name, *phases;
        bool trains;
    } searches[] = {
        { "unfixed", "bit-meta, bit-search, bit-search, select, stage a, stage b", true },
        { "joint", "joint, joint, select, stage a, stage b", true },
        { "greedy", "greedy, select, stage a, stage b", false },
        { "random", "random, select, stage a, stage b", false },
    };
    mix_settings s;
    mix_result result;
    char phases[256], log[64];
    (void)state;
    tiny_settings(&s);
    strcpy(s.search, "guess");
    CHECK_FAILS(ctx, mix_select(ctx, "guess", "float", &s, NULL, &result), MIX_EINVAL,
                "search is 'guess'; expected one of metamix, unfixed, joint, greedy, random");
    for (size_t i = 0; i < MIX_COUNT(searches); i++) {
        strcpy(s.search, searches[i].name);
        CHECK_OK(mix_quantize(ctx, searches[i].name, "float", &s, NULL, &result));
        snprintf(log, sizeof log, "%s/log.jsonl", searches[i].name);
        log_phases(log, phases, sizeof phases);
        assert_string_equal(phases, searches[i].phases);
        assert_true(result.gbops <= result.target_gbops);
        assert_true(result.gbops > 0.95 * result.target_gbops);
        mix_result_release(&result);
    }
    /* Without training the float network stays as it is. */
    s.bn_batches = 0;
    for (size_t i = 0; i < MIX_COUNT(searches); i++) {
        mix_accuracy now;
        char run[32];
        snprintf(run, sizeof run, "select-%s", searches[i].name);
        strcpy(s.search, searches[i].name);
        CHECK_OK(mix_select(ctx, run, "float", &s, NULL, &result));
        CHECK_OK(mix_eval(ctx, run, &s, NULL, true, &now));
        assert_int_equal(now.loss != result.float_accuracy.loss, searches[i].trains);
        mix_result_release(&result);
    }
}

/* Mean and variance before every batch norm, as state->stats: a pass moves cleared running
 * statistics by momentum. */
static void statistics_at(struct mix__engine *engine, int choice, double *stats)
{
    struct mix__state *state = mix__engine_state(engine);
    const struct mix__pass pass = { .batch_stats = true, .update_stats = true };
    const float *logits;
    memset(state->stats, 0, state->n_stats * sizeof *state->stats);
    mix__engine_mode_all(engine, MIX__QUANT_ONE, choice, 32);
    CHECK_OK(mix__engine_forward(engine, &pass, &logits));
    for (size_t i = 0; i < state->n_stats; i++)
        stats[i] = state->stats[i] / 0.1;
}

/* Of a float run: by hand, one layer and candidate after the other. Of a selection: its own
 * candidates. */
static void instability_is_measured(void **state)
{
    mix_settings s;
    mix_result selected;
    mix_instability found;
    mix_graph *g;
    mix_layer_bits *bits;
    mix_data *data;
    struct mix__state *values;
    struct mix__engine *engine;
    struct mix__batches *batches;
    struct mix__batch batch;
    (void)state;
    tiny_settings(&s);
    CHECK_OK(mix_instability_measure(ctx, "float", &s, &found));
    assert_int_equal(found.n_candidates, 4);
    CHECK_OK(mix_run_graph(ctx, "float", &g, &bits));
    assert_int_equal(found.n_layers, g->n_layers);
    CHECK_OK(mix__data_for(ctx, &s, g, &data));
    CHECK_OK(mix__state_new(&values, g, found.candidate, 4, 1));
    CHECK_OK(mix__engine_new(&engine, values, RUN_BATCH, true, MIX__DTYPE_F32));
    CHECK_OK(mix__batches_open(&batches, data, &s, MIX_TRAIN));
    CHECK_OK(mix__batches_seek(batches, 0, 0));
    CHECK_OK(mix__batches_next(batches, &batch));
    mix__engine_feed(engine, &batch);
    CHECK_OK(mix__engine_calibrate(engine));
    double *highest = calloc(2 * values->n_stats, sizeof *highest),
           *low = highest + values->n_stats;
    assert_non_null(highest);
    statistics_at(engine, 3, highest);
    for (int c = 0; c < 4; c++) {
        statistics_at(engine, c, low);
        for (size_t l = 0; l + 1 < g->n_layers; l++) {
            const struct mix__node *bn =
                mix__graph_single_reader(g, g->nodes[g->layers[l].node].out);
            const size_t mean = g->params[bn->mean].offset - g->n_trained;
            const size_t var = g->params[bn->var].offset - g->n_trained;
            const size_t n = g->params[bn->mean].count;
            double sum = 0.0;
            for (size_t k = 0; k < n; k++) {
                const double v1 = low[var + k] + 1e-5, v2 = highest[var + k] + 1e-5;
                const double d = low[mean + k] - highest[mean + k];
                sum += 0.5 * (log(v2) - log(v1) + v1 / v2 + d * d / v2 - 1.0) / (double)n;
            }
            const double got = found.divergence[4 * l + (size_t)c];
            assert_true(fabs(got - sum) < 1e-6 + 1e-4 * sum);
            assert_true(c == 3 || l == 0 ? got == 0.0 : got > 0.0);
        }
        assert_true(isnan(found.divergence[4 * (g->n_layers - 1) + (size_t)c]));
    }
    free(highest);
    mix__batches_free(batches);
    mix__engine_free(engine);
    mix__state_free(values);
    mix_data_free(data);
    mix_graph_free(g);
    mix_instability_release(&found);

    strcpy(s.candidates, "3,8");
    CHECK_OK(mix_select(ctx, "steady", "float", &s, NULL, &selected));
    strcpy(s.candidates, "2,4,8");
    CHECK_OK(mix_instability_measure(ctx, "steady", &s, &found));
    assert_true(found.n_candidates == 2 && found.candidate[0] == 3 && found.candidate[1] == 8);
    mix_instability_release(&found);
    mix_result_release(&selected);
    strcpy(s.candidates, "9");
    CHECK_FAILS(ctx, mix_instability_measure(ctx, "float", &s, &found), MIX_EINVAL, "candidates");
    CHECK_FAILS(ctx, mix_instability_measure(ctx, "none", &s, &found), MIX_EIO, "none");
}

static bool stop_later(void *user)
{
    int *left = user;
    return (*left)-- == 0;
}

/* After alpha's first step its moments are (1 - beta1) g and (1 - beta2) g^2, beta1 0.5. */
static void alpha_moments(const char *path)
{
    struct mix__st_file *file;
    int moved = 0;
    CHECK_OK(mix__st_open(&file, ctx, path));
    const struct mix__st_tensor *m = mix__st_find(file, "metamix.alpha_optimizer.m");
    const struct mix__st_tensor *v = mix__st_find(file, "metamix.alpha_optimizer.v");
    assert_true(m && v);
    for (size_t i = 0; i < m->bytes / sizeof(float); i++) {
        const double first = ((const float *)m->data)[i], second = ((const float *)v->data)[i];
        if (second > 1e-30)
            assert_true(fabs(first * first / second / (0.25 / 0.001) - 1.0) < 1e-3);
        moved += second > 1e-30;
    }
    assert_true(moved > 0);
    mix__st_close(file);
}

/* A selection that was stopped, after the first step of bit search, is neither a float network nor
 * has it bits. */
static void stopped_selection(void **state)
{
    mix_settings s;
    mix_result result;
    int left = 6; /* batches of the evaluation before, steps of bit-meta training */
    const mix_observer observer = { .stop = stop_later, .user = &left };
    (void)state;
    tiny_settings(&s);
    CHECK_FAILS(ctx, mix_select(ctx, "stopped", "float", &s, &observer, &result), MIX_ESTOPPED, "");
    alpha_moments("stopped/last.safetensors");
    CHECK_FAILS(ctx, mix_select(ctx, "t6", "stopped", &s, NULL, &result), MIX_EINVAL,
                "stopped is a selection that was stopped");
    CHECK_FAILS(ctx, mix_finetune(ctx, "t7", "stopped", "W4A3", &s, NULL, &result), MIX_EINVAL,
                "stopped is a selection that was stopped");
    strcpy(s.teacher, "stopped");
    CHECK_FAILS(ctx, mix_select(ctx, "t8", "float", &s, NULL, &result), MIX_EINVAL,
                "teacher: stopped is quantized");

    mix_accuracy accuracy;
    CHECK_FAILS(ctx, mix_eval(ctx, "stopped", &s, NULL, false, &accuracy), MIX_EINVAL,
                "the checkpoint is of a selection that was stopped");
    CHECK_OK(mix_eval(ctx, "stopped", &s, NULL, true, &accuracy));
}

static void weight_steps(const char *path, float *step, size_t n)
{
    struct mix__st_file *file;
    CHECK_OK(mix__st_open(&file, ctx, path));
    const struct mix__st_tensor *t = mix__st_find(file, "metamix.weight_step.features.0.0");
    assert_non_null(t);
    assert_true(t->bytes <= n * sizeof *step);
    memcpy(step, t->data, t->bytes);
    mix__st_close(file);
}

/* With next to no learning rate, steps end as they began: the run's own, unless bits are new. */
static void finetune_goes_on(void **state)
{
    mix_settings s;
    mix_result result;
    float before[64] = { 0 }, after[64] = { 0 }, anew[64] = { 0 };
    (void)state;
    tiny_settings(&s);
    s.finetune_lr = 0.002; /* moves steps away from where they start */
    CHECK_OK(mix_finetune(ctx, "first", "float", "W4A4", &s, NULL, &result));
    mix_result_release(&result);
    s.stage_a_epochs = 0;
    s.finetune_lr = 1e-12;
    CHECK_OK(mix_finetune(ctx, "longer", "first/last.safetensors", NULL, &s, NULL, &result));
    mix_result_release(&result);
    CHECK_OK(mix_finetune(ctx, "anew", "first/last.safetensors", "W4A4", &s, NULL, &result));
    mix_result_release(&result);
    weight_steps("first/last.safetensors", before, 64);
    weight_steps("longer/last.safetensors", after, 64);
    weight_steps("anew/last.safetensors", anew, 64);
    assert_memory_equal(before, after, sizeof before);
    assert_memory_not_equal(before, anew, sizeof before);
}

static void stats_of(const char *path, float *stats, size_t n)
{
    struct mix__st_file *file;
    CHECK_OK(mix__st_open(&file, ctx, path));
    const struct mix__st_tensor *t = mix__st_find(file, "features.0.1.running_mean");
    assert_non_null(t);
    assert_true(t->bytes <= n * sizeof *stats);
    memcpy(stats, t->data, t->bytes);
    mix__st_close(file);
}

/* Stage c moves weights and leaves batch norm's statistics as they are, or as they are measured
 * before it. */
static void stage_c_fixes_statistics(void **state)
{
    mix_settings s;
    mix_result result;
    char phases[256];
    float before[64] = { 0 }, after[64] = { 0 }, measured[64] = { 0 }, faster[64] = { 0 };
    float steps_before[64] = { 0 }, steps_after[64] = { 0 };
    (void)state;
    tiny_settings(&s);
    s.bn_batches = 0;
    s.stage_a_epochs = 0;
    CHECK_OK(mix_finetune(ctx, "b", "float", "W4A4", &s, NULL, &result));
    mix_result_release(&result);
    s.stage_b_epochs = 0;
    s.stage_c_epochs = 2;
    s.stage_c_lr = 0.002;
    CHECK_OK(mix_finetune(ctx, "c", "b/last.safetensors", NULL, &s, NULL, &result));
    mix_result_release(&result);
    log_phases("c/log.jsonl", phases, sizeof phases);
    assert_string_equal(phases, "stage c, stage c");
    check_phase_rates("c/log.jsonl", &s);
    s.bn_batches = 2;
    CHECK_OK(mix_finetune(ctx, "c-measured", "b/last.safetensors", NULL, &s, NULL, &result));
    mix_result_release(&result);
    s.stage_c_lr = 0.02; /* other weights: the statistics are those from before them */
    CHECK_OK(mix_finetune(ctx, "c-faster", "b/last.safetensors", NULL, &s, NULL, &result));
    mix_result_release(&result);
    stats_of("b/last.safetensors", before, 64);
    stats_of("c-faster/last.safetensors", faster, 64);
    stats_of("c/last.safetensors", after, 64);
    stats_of("c-measured/last.safetensors", measured, 64);
    assert_memory_equal(before, after, sizeof before);
    assert_memory_not_equal(before, measured, sizeof before);
    assert_memory_equal(measured, faster, sizeof measured);
    weight_steps("b/last.safetensors", steps_before, 64);
    weight_steps("c/last.safetensors", steps_after, 64);
    assert_memory_not_equal(steps_before, steps_after, sizeof steps_before);
}

/* Stage c alone, from a float network: its steps are those of its first images, each time. */
static void stage_c_from_float(void **state)
{
    mix_settings s;
    mix_result result;
    (void)state;
    tiny_settings(&s);
    s.stage_a_epochs = s.stage_b_epochs = 0;
    s.stage_c_epochs = 1;
    s.stage_c_lr = 1e-12;
    CHECK_OK(mix_finetune(ctx, "c1", "float", "W4A4", &s, NULL, &result));
    mix_result_release(&result);
    CHECK_OK(mix_finetune(ctx, "c2", "float", "W4A4", &s, NULL, &result));
    mix_result_release(&result);
    check_same_tensors(ctx, "c1/best.safetensors", "c2/best.safetensors");
    struct mix__st_file *file;
    CHECK_OK(mix__st_open(&file, ctx, "c1/best.safetensors"));
    const struct mix__st_tensor *t = mix__st_find(file, "metamix.act_steps");
    assert_non_null(t);
    for (size_t i = 0; i < t->bytes / sizeof(float); i++)
        assert_true(((const float *)t->data)[i] > 1e-4f); /* of an empty image it would be 1e-8 */
    mix__st_close(file);
}

static void finetune_from_float(void **state)
{
    mix_settings s;
    mix_result result;
    (void)state;
    tiny_settings(&s);
    CHECK_OK(mix_finetune(ctx, "uniform", "float", "W4A3", &s, NULL, &result));
    assert_true(result.mean_activation_bits == 3.0);
    mix_result_release(&result);
    s.stage_a_epochs = 0; /* stage b alone, bits from a file */
    CHECK_OK(mix_finetune(ctx, "direct", "float", "uniform/bits.json", &s, NULL, &result));
    assert_true(result.mean_activation_bits == 3.0);
    assert_int_equal(result.n_phases, 1);
    mix_result_release(&result);
    CHECK_FAILS(ctx, mix_finetune(ctx, "none", "float", NULL, &s, NULL, &result), MIX_EINVAL,
                "bits are needed");
    s.stage_b_epochs = 0;
    CHECK_FAILS(ctx, mix_finetune(ctx, "empty", "float", "W4A3", &s, NULL, &result), MIX_EINVAL,
                "0 epochs");
}

static void one_start_is_needed(void **state)
{
    mix_settings s;
    mix_result result;
    mix_accuracy accuracy;
    (void)state;
    tiny_settings(&s);
    CHECK_FAILS(ctx, mix_quantize(ctx, "none", NULL, &s, NULL, &result), MIX_EINVAL,
                "nothing is given to start from");
    CHECK_FAILS(ctx, mix_eval(ctx, NULL, &s, NULL, false, &accuracy), MIX_EINVAL, "nothing");
    strcpy(s.weights, "float/best.safetensors");
    CHECK_FAILS(ctx, mix_select(ctx, "none", "float", &s, NULL, &result), MIX_EINVAL,
                "both a run (float) and weights (float/best.safetensors)");
    CHECK_FAILS(ctx, mix_eval(ctx, "float", &s, NULL, false, &accuracy), MIX_EINVAL, "both");
    strcpy(s.arch, "none");
    CHECK_FAILS(ctx, mix_eval(ctx, NULL, &s, NULL, false, &accuracy), MIX_EINVAL, "none");
}

static void other_settings_are_refused(void **state)
{
    mix_settings s;
    mix_result result;
    (void)state;
    tiny_settings(&s);
    s.lr = 0.03;
    CHECK_FAILS(ctx, mix_train(ctx, "float", &s, NULL, &result), MIX_EMISMATCH, "lr 0.02");
    tiny_settings(&s);
    strcpy(s.data, "elsewhere");
    CHECK_FAILS(ctx, mix_train(ctx, "float", &s, NULL, &result), MIX_EMISMATCH, "data");
    strcpy(s.data, "./data"); /* the same folder */
    CHECK_OK(mix_train(ctx, "float", &s, NULL, &result));
    mix_result_release(&result);
    tiny_settings(&s);
    CHECK_FAILS(ctx, mix_quantize(ctx, "float", "x", &s, NULL, &result), MIX_EMISMATCH, "job");
    s.loader_threads = 2;
    s.checkpoint_minutes = 1.0;
    CHECK_OK(mix_train(ctx, "float", &s, NULL, &result));
    mix_result_release(&result);
    /* a done run whose last.safetensors was taken away to save space is that run still */
    assert_int_equal(rename("float/last.safetensors", "last"), 0);
    s.lr = 0.03;
    CHECK_FAILS(ctx, mix_train(ctx, "float", &s, NULL, &result), MIX_EMISMATCH, "lr 0.02");
    tiny_settings(&s);
    CHECK_OK(mix_train(ctx, "float", &s, NULL, &result));
    mix_result_release(&result);
    assert_int_equal(rename("last", "float/last.safetensors"), 0);
    strcpy(s.data, "d\xfcrer");
    CHECK_FAILS(ctx, mix_train(ctx, "no-text", &s, NULL, &result), MIX_EINVAL, "not UTF-8");
}

/* A run that is older than a setting goes on with that setting's default, and no other value. */
static void younger_settings_have_their_default(void **state)
{
    mix_settings s;
    mix_result result;
    (void)state;
    tiny_settings(&s);
    json_t *config = load_json("float/config.json");
    assert_int_equal(json_object_del(json_object_get(config, "settings"), "normalize"), 0);
    assert_int_equal(json_dump_file(config, "float/config.json", 0), 0);
    json_decref(config);
    strcpy(s.normalize, "unit");
    CHECK_FAILS(ctx, mix_train(ctx, "float", &s, NULL, &result), MIX_EMISMATCH, "normalize");
    strcpy(s.normalize, "auto");
    CHECK_OK(mix_train(ctx, "float", &s, NULL, &result));
    mix_result_release(&result);
}

/* A network meets the images as it was trained with them, whoever starts from its files. */
static void normalisation_travels(void **state)
{
    mix_settings s;
    mix_result result, quantized;
    mix_accuracy a;
    (void)state;
    tiny_settings(&s);
    strcpy(s.normalize, "unit");
    CHECK_OK(mix_train(ctx, "unit", &s, NULL, &result));
    strcpy(s.normalize, "auto");
    CHECK_OK(mix_eval(ctx, "unit", &s, NULL, false, &a));
    assert_true(a.loss == result.best.loss);
    s.stage_a_epochs = 0;
    CHECK_OK(mix_finetune(ctx, "unit-w4", "unit", "W4A4", &s, NULL, &quantized));
    assert_true(quantized.float_accuracy.loss == result.best.loss);
    CHECK_OK(mix_eval(ctx, "unit-w4", &s, NULL, false, &a));
    assert_true(a.loss == quantized.best.loss);
    void *bytes;
    size_t size;
    mix_runtime *rt;
    mix_runtime_info net;
    CHECK_OK(mix_export_bytes(ctx, "unit-w4", &bytes, &size));
    CHECK_OK(mix_runtime_open_bytes(&rt, ctx, bytes, size));
    mix_runtime_info_get(rt, &net);
    assert_true(net.mean[0] == 0.0f && net.deviation[0] == 1.0f);
    mix_runtime_close(rt);
    mix_export_free(ctx, bytes);
    mix_result_release(&quantized);
    strcpy(s.normalize, "unit");
    CHECK_OK(mix_eval(ctx, "unit-w4", &s, NULL, false, &a));
    strcpy(s.normalize, "symmetric");
    CHECK_FAILS(ctx, mix_eval(ctx, "unit-w4", &s, NULL, false, &a), MIX_EINVAL,
                "the network was trained with unit images");
    CHECK_FAILS(ctx, mix_finetune(ctx, "other", "unit", "W4A4", &s, NULL, &quantized), MIX_EINVAL,
                "normalize is symmetric");
    mix_result_release(&result);
    mix_result_release(&quantized);
    CHECK_OK(mix_eval(ctx, "float", &s, NULL, false, &a)); /* one channel: that is what auto was */
    strcpy(s.normalize, "imagenet");
    CHECK_FAILS(ctx, mix_train(ctx, "rgb", &s, NULL, &result), MIX_EINVAL, "three channels");
}

static void bad_settings_are_refused(void **state)
{
    static const struct {
        const char *name, *value, *part;
    } cases[] = {
        { "epochs", "0", "epochs is 0" },
        { "lr", "-1", "lr is -1" },
        { "batch", "1000", "batch of 1000" },
        { "optimizer", "lion", "optimizer is 'lion'" },
        { "crop", "wide", "crop is 'wide'" },
        { "data", "", "data is not set" },
        { "arch", "resnet", "resnet" },
        { "loader_threads", "0", "loader_threads is 0" },
        { "width", "0", "width is 0" },
        { "lr", "nan", "lr is nan" },
        { "normalize", "none", "expected one of auto, imagenet, symmetric, unit" },
        { "resize", "-1", "resize is -1" },
        { "ema_decay", "1", "ema_decay is 1" },
        { "bn_batches", "-1", "bn_batches is -1" },
        { "val_interval", "0", "val_interval is 0" },
        { "clip_norm", "-1", "clip_norm is -1" },
        { "resize", "20", "resized to 20" },
    };
    mix_settings s;
    mix_result result;
    (void)state;
    for (size_t i = 0; i < MIX_COUNT(cases); i++) {
        tiny_settings(&s);
        if (mix_settings_set(&s, ctx, cases[i].name, cases[i].value) != MIX_OK)
            continue; /* refused before */
        CHECK_FAILS(ctx, mix_train(ctx, "bad", &s, NULL, &result), MIX_EINVAL, cases[i].part);
        remove_tree("bad");
    }
    tiny_settings(&s);
    strcpy(s.candidates, "2,9");
    CHECK_FAILS(ctx, mix_select(ctx, "bad", "float", &s, NULL, &result), MIX_EINVAL, "candidates");
    remove_tree("bad");
    strcpy(s.candidates, "2,4");
    strcpy(s.target, "W4A1");
    CHECK_FAILS(ctx, mix_select(ctx, "bad", "float", &s, NULL, &result), MIX_EINVAL, "W4A1");
    remove_tree("bad");
    strcpy(s.finetune_optimizer, "sgd");
    CHECK_FAILS(ctx, mix_finetune(ctx, "bad", "float", "W4A4", &s, NULL, &result), MIX_EINVAL,
                "finetune_optimizer is 'sgd'; expected one of adam, adamw");
    remove_tree("bad");
    CHECK_FAILS(ctx, mix_select(ctx, "bad", "nowhere", &s, NULL, &result), MIX_EIO, "nowhere");
}

static void budgets(void **state)
{
    mix_graph *graph;
    mix_zoo_options options;
    double gbops;
    (void)state;
    mix_zoo_options_init(&options);
    CHECK_OK(mix_zoo_new(&graph, ctx, &options));
    CHECK_OK(mix_budget_parse(ctx, graph, "W4A3", &gbops));
    assert_true(fabs(gbops - 4.239) < 5e-4);
    CHECK_OK(mix_budget_parse(ctx, graph, "5.4", &gbops));
    assert_true(gbops == 5.4);
    static const char *const bad[] = { "", "W4", "W4A9", "W4A3x", "-1", "nan", "inf", "0", "1e" };
    for (size_t i = 0; i < MIX_COUNT(bad); i++)
        assert_int_equal(mix_budget_parse(ctx, graph, bad[i], &gbops), MIX_EINVAL);
    mix_graph_free(graph);
}

/* result.json has the keys that others read. */
static void result_file(void **state)
{
    static const char *const keys[] = { "job",        "network",      "float",
                                        "best",       "last",         "gbops",
                                        "bits",       "target_gbops", "mean_activation_bits",
                                        "phases",     "seconds",      "data_wait",
                                        "plan_bytes", "peak_bytes" };
    json_t *json = load_json("float/result.json");
    (void)state;
    for (size_t i = 0; i < MIX_COUNT(keys); i++)
        assert_non_null(json_object_get(json, keys[i]));
    assert_true(json_is_null(json_object_get(json, "target_gbops")));
    assert_string_equal(json_string_value(json_object_get(json, "job")), "train");
    json_decref(json);
}

static int run_set_up(void **state)
{
    (void)state;
    enter_folder();
    write_tiny_data("data");
    ctx = run_ctx();
    train_tiny(ctx, "float");
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(train_learns),
        cmocka_unit_test(average_is_kept),
        cmocka_unit_test(interval_of_evaluations),
        cmocka_unit_test(first_of_equals_is_best),
        cmocka_unit_test(quantize_runs_phases),
        cmocka_unit_test(settings_reach_the_images),
        cmocka_unit_test(profile_is_told),
        cmocka_unit_test(teacher_of_larger_images),
        cmocka_unit_test(select_then_finetune),
        cmocka_unit_test(stage_c_keeps_the_best),
        cmocka_unit_test(other_searches),
        cmocka_unit_test(instability_is_measured),
        cmocka_unit_test(stopped_selection),
        cmocka_unit_test(finetune_from_float),
        cmocka_unit_test(finetune_goes_on),
        cmocka_unit_test(stage_c_fixes_statistics),
        cmocka_unit_test(stage_c_from_float),
        cmocka_unit_test(one_start_is_needed),
        cmocka_unit_test(other_settings_are_refused),
        cmocka_unit_test(younger_settings_have_their_default),
        cmocka_unit_test(normalisation_travels),
        cmocka_unit_test(bad_settings_are_refused),
        cmocka_unit_test(budgets),
        cmocka_unit_test(result_file),
    };
    return cmocka_run_group_tests(tests, run_set_up, tear_down);
}
