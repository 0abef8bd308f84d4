/*
 * test_trainer.c - the loop over phases, epochs and steps, with steps that only write down what
 * they are given: rates, numbers, images and the moving average; and the log of it.
 */
#include "runs.h"

#include <jansson.h>

#include "job/job.h"

enum { PER_EPOCH = RUN_TRAIN / RUN_BATCH, FIRST = 9, SECOND = 18, STEPS = FIRST + SECOND };
static const double decay = 0.6;

/* What step i, over all phases, was given. */
static struct seen {
    double lr, images; /* images: the sum of the batch's pixels */
    int64_t counter;
    float average, stats; /* of the step before */
} seen[STEPS];
static int n_seen;

static mix_status enter(struct mix__trainer *t, const struct mix__phase *p, bool fresh)
{
    (void)t, (void)p;
    assert_true(fresh);
    return MIX_OK;
}

static mix_status step(struct mix__trainer *t, const struct mix__phase *p, const int *labels,
                       struct mix__loss *loss)
{
    const int i = n_seen++;
    (void)p, (void)labels;
    assert_true(i < STEPS);
    seen[i] = (struct seen){ .lr = t->lr,
                             .counter = t->counter,
                             .average = t->average.value[0],
                             .stats = t->average.stats[0] };
    for (int k = 0; k < RUN_BATCH * RUN_SIZE * RUN_SIZE; k++)
        seen[i].images += mix__engine_input(t->engine)[k];
    t->state->value[0] = (float)(i % 5);
    t->state->stats[0] = (float)(i % 7);
    t->state->version++;
    *loss = (struct mix__loss){ .loss = 1.0 + i, .top1 = i % (RUN_BATCH + 1) };
    return MIX_OK;
}

/* Two phases: one and a half epochs at one rate, then three with warm-up and an average. */
static void run_phases(void)
{
    mix_settings s;
    mix_weights_info info;
    struct mix__job job = { .settings = &s };
    struct mix__trainer *t = &job.t;
    const struct mix__optimizer_options adam = { .kind = MIX__ADAM };
    const struct mix__run_config config = { .job = "train", .settings = &s };
    mix_ctx *ctx = run_ctx();
    tiny_settings(&s);
    strcpy(s.crop, "none");
    s.bn_batches = 0;
    job.ctx = t->ctx = ctx;
    t->settings = &s;
    CHECK_OK(mix__data_for(ctx, &s, NULL, &job.data));
    CHECK_OK(mix__network_for(&s, ctx, job.data, &job.graph, &info));
    CHECK_OK(mix__state_new(&t->state, job.graph, &(int){ 8 }, 1, 1));
    CHECK_OK(mix__batches_open(&t->batches, job.data, &s, MIX_TRAIN));
    CHECK_OK(mix__batches_open(&t->validation, job.data, &s, MIX_VAL));
    CHECK_OK(mix__engine_new(&t->engine, t->state, RUN_BATCH, true, MIX__DTYPE_F32));
    CHECK_OK(mix__engine_new(&t->judge, t->state, RUN_BATCH, false, MIX__DTYPE_F32));
    CHECK_OK(mix__optimizer_init(&t->optimizer, ctx, t->state->n, &adam));
    CHECK_OK(mix__optimizer_init(&t->alpha_optimizer, ctx, t->state->n_alpha, &adam));
    CHECK_OK(mix__average_init(&t->average, t->state, decay));
    CHECK_OK(mix__run_folder_open(&t->folder, ctx, "phases", &config));
    t->phases[t->n_phases++] = (struct mix__phase){
        .name = "one", .share = 1.5, .lr = 0.25, .constant = true, .enter = enter, .step = step
    };
    t->phases[t->n_phases++] = (struct mix__phase){ .name = "two",
                                                    .share = 3.0,
                                                    .lr = 0.5,
                                                    .warmup = 0.7,
                                                    .evaluate = true,
                                                    .enter = enter,
                                                    .step = step };
    mix__trainer_plan(t);
    CHECK_OK(mix__trainer_run(t));
    assert_int_equal(n_seen, STEPS);
    mix__trainer_release(t);
    mix_graph_free(job.graph);
    mix_data_free(job.data);
    mix_ctx_free(ctx);
}

/* A constant rate; five steps of warm-up, 0.7 of six rounded up, then the cosine. */
static void rates(void **state)
{
    (void)state;
    for (int i = 0; i < FIRST; i++)
        assert_true(seen[i].lr == 0.25);
    for (int i = 0; i < SECOND; i++)
        assert_true(seen[FIRST + i].lr == mix__schedule_cosine(0.5, i, 5, SECOND));
}

/* No two steps draw the same numbers, for dropout say: the second phase begins with epoch 2. */
static void counters(void **state)
{
    (void)state;
    for (int i = 0; i < STEPS; i++)
        assert_int_equal(seen[i].counter, i < FIRST ? i : 2 * PER_EPOCH + i - FIRST);
}

/* Every epoch has an order of its own, whatever its phase. */
static void orders(void **state)
{
    static const int begins[] = { 0, FIRST, FIRST + PER_EPOCH, FIRST + 2 * PER_EPOCH };
    (void)state;
    for (size_t a = 0; a < MIX_COUNT(begins); a++)
        for (size_t b = 0; b < a; b++) {
            int same = 0;
            for (int i = 0; i < PER_EPOCH; i++)
                same += seen[begins[a] + i].images == seen[begins[b] + i].images;
            assert_true(same < PER_EPOCH);
        }
}

/* Of the second phase alone, over all of its epochs, statistics like weights. */
static void averages(void **state)
{
    double average = 0.0, stats = 0.0;
    (void)state;
    for (int k = 0; k < SECOND; k++) {
        const int i = FIRST + k;
        const double early = k / (k + 9.0), kept = early < decay ? early : decay;
        if (k > 0) {
            assert_true(fabs(seen[i].average - average) < 1e-5);
            assert_true(fabs(seen[i].stats - stats) < 1e-5);
        }
        average = kept * average + (1.0 - kept) * (i % 5);
        stats = kept * stats + (1.0 - kept) * (i % 7);
    }
}

/* Loss and accuracy of an epoch are means over its images. */
static void log_has_means(void **state)
{
    char line[4096];
    int at = 0, lines = 0;
    FILE *f = fopen("phases/log.jsonl", "r");
    (void)state;
    assert_non_null(f);
    for (; fgets(line, sizeof line, f); lines++) {
        json_t *entry = json_loads(line, 0, NULL);
        const int n = (int)json_integer_value(json_object_get(entry, "steps"));
        double loss = 0.0, top1 = 0.0;
        assert_int_equal(n, lines == 1 ? FIRST - PER_EPOCH : PER_EPOCH);
        for (int i = 0; i < n; i++, at++) {
            loss += (1.0 + at) / n;
            top1 += 100.0 * (at % (RUN_BATCH + 1)) / (n * RUN_BATCH);
        }
        assert_true(fabs(json_real_value(json_object_get(entry, "loss")) - loss) < 1e-6);
        assert_true(fabs(json_real_value(json_object_get(entry, "top1")) - top1) < 1e-6);
        json_decref(entry);
    }
    assert_int_equal(lines, 5);
    fclose(f);
}

static int set_up(void **state)
{
    (void)state;
    enter_folder();
    write_tiny_data("data");
    run_phases();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    leave_folder();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates),    cmocka_unit_test(counters),      cmocka_unit_test(orders),
        cmocka_unit_test(averages), cmocka_unit_test(log_has_means),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
