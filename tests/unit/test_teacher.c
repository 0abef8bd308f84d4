/*
 * test_teacher.c - what a teacher of larger images, normalised otherwise, is shown.
 */
#include "support.h"

#include "metamix/zoo.h"
#include "train/trainer.h"

enum { BATCH = 2, SMALL = 8, LARGE = 24 };

static mix_graph *net(mix_ctx *ctx, int size, mix_normalize normalize)
{
    mix_zoo_options options;
    mix_graph *graph;
    mix_zoo_options_init(&options);
    options.width = 0.1;
    options.size = size;
    options.classes = 4;
    CHECK_OK(mix_zoo_new(&graph, ctx, &options));
    graph->normalize = normalize;
    return graph;
}

/* A plane: what is linear between pixel centers stays so, and its border values go on. */
static double plane(int n, double y, double x, int k)
{
    return 3.0 * n + 0.5 * y - 0.25 * x + k;
}

static double place(int i)
{
    return fmin(fmax((i + 0.5) * SMALL / LARGE - 0.5, 0.0), SMALL - 1);
}

static void check_feed(mix_normalize to, const double *mean, const double *deviation)
{
    static const double own_mean[] = { 0.485, 0.456, 0.406 };
    static const double own_deviation[] = { 0.229, 0.224, 0.225 };
    mix_ctx *ctx = plain_ctx();
    mix_graph *student = net(ctx, SMALL, MIX_NORMALIZE_IMAGENET), *teacher = net(ctx, LARGE, to);
    struct mix__state *state;
    struct mix__engine *engine;
    float images[BATCH * SMALL * SMALL * 3];
    int labels[BATCH] = { 0 };
    CHECK_OK(mix__state_new(&state, teacher, &(int){ 8 }, 1, 0));
    CHECK_OK(mix__engine_new(&engine, state, BATCH, false, MIX__DTYPE_F32));
    for (int i = 0; i < BATCH * SMALL * SMALL * 3; i++)
        images[i] =
            (float)plane(i / (SMALL * SMALL * 3), i / (SMALL * 3) % SMALL, i / 3 % SMALL, i % 3);
    const struct mix__batch batch = { .images = images, .labels = labels, .count = BATCH };
    mix__teacher_feed(engine, student, &batch);
    for (int i = 0; i < BATCH * LARGE * LARGE * 3; i++) {
        const int k = i % 3;
        const double x =
            plane(i / (LARGE * LARGE * 3), place(i / (LARGE * 3) % LARGE), place(i / 3 % LARGE), k);
        const double want = to == MIX_NORMALIZE_IMAGENET
                                ? x
                                : (x * own_deviation[k] + own_mean[k] - mean[k]) / deviation[k];
        const double got = mix__engine_input(engine)[i];
        if (!(fabs(got - want) <= 1e-5 * (1.0 + fabs(want))))
            fail_msg("value %d: %g, expected %g", i, got, want);
    }
    mix__engine_free(engine);
    mix__state_free(state);
    mix_graph_free(student);
    mix_graph_free(teacher);
    mix_ctx_free(ctx);
}

static void test_enlarges(void **state)
{
    (void)state;
    check_feed(MIX_NORMALIZE_IMAGENET, NULL, NULL);
}

static void test_renormalises(void **state)
{
    static const double half[] = { 0.5, 0.5, 0.5 };
    (void)state;
    check_feed(MIX_NORMALIZE_SYMMETRIC, half, half);
}

/* The teacher sees a batch as an evaluation does: by its running statistics. */
static void test_sees_as_evaluated(void **state)
{
    mix_ctx *ctx = plain_ctx();
    mix_graph *graph = net(ctx, SMALL, MIX_NORMALIZE_IMAGENET);
    struct mix__trainer t = { .ctx = ctx };
    struct mix__engine *engine;
    float images[BATCH * SMALL * SMALL * 3];
    int labels[BATCH] = { 0 };
    const float *logits;
    (void)state;
    CHECK_OK(mix__state_new(&t.state, graph, &(int){ 8 }, 1, 0));
    CHECK_OK(mix__state_new(&t.teacher_state, graph, &(int){ 8 }, 1, 0));
    CHECK_OK(mix__engine_new(&t.teacher, t.teacher_state, BATCH, false, MIX__DTYPE_F32));
    CHECK_OK(mix__engine_new(&engine, t.state, BATCH, false, MIX__DTYPE_F32));
    for (int i = 0; i < BATCH * SMALL * SMALL * 3; i++)
        images[i] = (float)(i % 11) - 4.0f;
    const struct mix__batch batch = { .images = images, .labels = labels, .count = BATCH };
    CHECK_OK(mix__trainer_teach(&t, &batch));
    mix__engine_feed(engine, &batch);
    CHECK_OK(mix__engine_forward(engine, &(struct mix__pass){ .batch_stats = false }, &logits));
    assert_memory_equal(t.teacher_logits, logits, BATCH * 4 * sizeof *logits);
    mix__engine_free(engine);
    mix__engine_free(t.teacher);
    mix__state_free(t.teacher_state);
    mix__state_free(t.state);
    mix_graph_free(graph);
    mix_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_enlarges),
        cmocka_unit_test(test_renormalises),
        cmocka_unit_test(test_sees_as_evaluated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
