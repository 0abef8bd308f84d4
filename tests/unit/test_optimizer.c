#include "support.h"

#include <math.h>
#include <omp.h>

#include "base/random.h"
#include "train/train.h"

enum { N = 40, STEPS = 10 };

static const struct mix__range ranges[] = {
    { .offset = 3, .count = 12, .floor = -INFINITY },
    { .offset = 15, .count = 5, .floor = 0.01f, .rate = 2.5f },
    { .offset = 20, .count = 9, .floor = -INFINITY, .weight_decay = 0.01f },
    { .offset = 29, .count = 6, .floor = 0.5f },
    { .offset = 35, .count = 4, .floor = -INFINITY, .weight_decay = 0.3f, .decoupled = true },
};

static float gradient(int step, int i)
{
    return (float)mix__random_normal(7, (uint64_t)step, (uint64_t)i);
}

static const struct mix__range *range_of(int i)
{
    for (size_t r = 0; r < MIX_COUNT(ranges); r++) {
        if (i >= (int)ranges[r].offset && i < (int)(ranges[r].offset + ranges[r].count))
            return &ranges[r];
    }
    return NULL;
}

/* One parameter through all steps in double: Kingma and Ba's Adam with L2 decay, or with
 * Loshchilov and Hutter's, which takes lr * decay of the value from it. */
static double adam_alone(double x, int i, double lr, double b1, double b2, double eps)
{
    const struct mix__range *r = range_of(i);
    double m = 0.0, v = 0.0;
    for (int t = 1; r && t <= STEPS; t++) {
        const double decay = r->weight_decay;
        const double g = gradient(t, i) + (r->decoupled ? 0.0 : decay * x);
        m = b1 * m + (1.0 - b1) * g;
        v = b2 * v + (1.0 - b2) * g * g;
        const double m_hat = m / (1.0 - pow(b1, t)), v_hat = v / (1.0 - pow(b2, t));
        x -= r->decoupled ? lr * decay * x : 0.0;
        const double share = r->rate > 0.0f ? r->rate * x : 1.0;
        x = fmax(x - share * lr * m_hat / (sqrt(v_hat) + eps), r->floor);
    }
    return x;
}

/* Momentum that looks ahead, its buffer starting as the first gradient. */
static double sgd_alone(double x, int i, double lr, double momentum)
{
    const struct mix__range *r = range_of(i);
    double buffer = 0.0;
    for (int t = 1; r && t <= STEPS; t++) {
        const double g = gradient(t, i) + r->weight_decay * x;
        buffer = t == 1 ? g : momentum * buffer + g;
        x = fmax(x - lr * (g + momentum * buffer), r->floor);
    }
    return x;
}

static void fill(float *value)
{
    for (int i = 0; i < N; i++)
        value[i] = (float)(0.7 + 0.2 * mix__random_normal(8, 0, (uint64_t)i));
}

static void run(struct mix__optimizer *o, float *value, float lr)
{
    float grad[N];
    fill(value);
    for (int t = 1; t <= STEPS; t++) {
        for (int i = 0; i < N; i++)
            grad[i] = gradient(t, i);
        mix__optimizer_step(o, value, grad, lr, ranges, MIX_COUNT(ranges));
    }
    assert_int_equal(o->steps, STEPS);
}

static void check_near(int i, double found, double expected)
{
    if (!(fabs(found - expected) < 3e-6))
        fail_msg("value %d: expected %.9g, found %.9g", i, expected, found);
}

static void check_adam(const struct mix__optimizer_options *options, double b1, double b2,
                       double eps)
{
    mix_ctx *ctx = plain_ctx();
    struct mix__optimizer o;
    float start[N], value[N], again[N];
    fill(start);
    CHECK_OK(mix__optimizer_init(&o, ctx, N, options));
    run(&o, value, 0.05f);
    for (int i = 0; i < N; i++)
        check_near(i, value[i], adam_alone(start[i], i, 0.05f, b1, b2, eps));
    mix__optimizer_reset(&o);
    run(&o, again, 0.05f);
    assert_memory_equal(again, value, sizeof value);
    mix__optimizer_release(&o);
    mix_ctx_free(ctx);
}

static void test_adam(void **state)
{
    (void)state;
    check_adam(&(struct mix__optimizer_options){ .kind = MIX__ADAM }, 0.9, 0.999, 1e-8);
    check_adam(&(struct mix__optimizer_options){ MIX__ADAM, 0.5, 0.999, 0.1, 0.0 }, 0.5, 0.999,
               0.1);
}

static void test_sgd(void **state)
{
    (void)state;
    static const double momentum[] = { 0.9, 0.5 };
    for (size_t k = 0; k < MIX_COUNT(momentum); k++) {
        mix_ctx *ctx = plain_ctx();
        struct mix__optimizer o;
        const struct mix__optimizer_options options = { .kind = MIX__SGD,
                                                        .momentum = k ? momentum[k] : 0.0 };
        float start[N], value[N], again[N];
        fill(start);
        CHECK_OK(mix__optimizer_init(&o, ctx, N, &options));
        assert_null(o.v);
        run(&o, value, 0.02f);
        for (int i = 0; i < N; i++)
            check_near(i, value[i], sgd_alone(start[i], i, 0.02f, momentum[k]));
        mix__optimizer_reset(&o);
        run(&o, again, 0.02f);
        assert_memory_equal(again, value, sizeof value);
        mix__optimizer_release(&o);
        mix_ctx_free(ctx);
    }
}

/* Values sink; those with a floor stay on it, those in no range do not move. */
static void test_ranges(void **state)
{
    (void)state;
    mix_ctx *ctx = plain_ctx();
    struct mix__optimizer o;
    static const enum mix__optimizer_kind kinds[] = { MIX__ADAM, MIX__SGD };
    for (size_t k = 0; k < MIX_COUNT(kinds); k++) {
        const struct mix__optimizer_options options = { .kind = kinds[k] };
        float start[N], value[N], grad[N];
        fill(start);
        fill(value);
        for (int i = 0; i < N; i++)
            grad[i] = 1.0f;
        CHECK_OK(mix__optimizer_init(&o, ctx, N, &options));
        for (int t = 0; t < STEPS; t++)
            mix__optimizer_step(&o, value, grad, 0.2f, ranges, MIX_COUNT(ranges));
        for (int i = 0; i < N; i++) {
            const struct mix__range *r = range_of(i);
            if (!r)
                assert_true(value[i] == start[i] && o.m[i] == 0.0f);
            else if (r->floor > 0.0f)
                assert_true(value[i] == r->floor);
            else
                assert_true(value[i] < 0.0f);
        }
        mix__optimizer_release(&o);
    }
    mix_ctx_free(ctx);
}

/* All sizes of values change alike, and none below 0. */
static void test_rate(void **state)
{
    (void)state;
    mix_ctx *ctx = plain_ctx();
    struct mix__optimizer o;
    float value[3] = { 1e-6f, 1.0f, 1e6f };
    const float start[3] = { 1e-6f, 1.0f, 1e6f }, grad[3] = { 1.0f, 1.0f, 1.0f };
    const struct mix__range all = { .count = 3, .floor = 1e-8f, .rate = 4.0f };
    CHECK_OK(
        mix__optimizer_init(&o, ctx, 3, &(struct mix__optimizer_options){ .kind = MIX__ADAM }));
    for (int t = 0; t < STEPS; t++)
        mix__optimizer_step(&o, value, grad, 0.025f, &all, 1);
    for (int i = 0; i < 3; i++)
        assert_float_equal(value[i] / start[i], pow(0.9, STEPS), 1e-5);
    mix__optimizer_release(&o);
    mix_ctx_free(ctx);
}

static void test_first_adam_step(void **state)
{
    (void)state;
    mix_ctx *ctx = plain_ctx();
    struct mix__optimizer o;
    float value[3] = { 1.0f, 1.0f, 1.0f };
    const float grad[3] = { 1e-3f, -1e3f, 0.0f };
    const struct mix__range all = { .count = 3, .floor = -INFINITY };
    CHECK_OK(
        mix__optimizer_init(&o, ctx, 3, &(struct mix__optimizer_options){ .kind = MIX__ADAM }));
    mix__optimizer_step(&o, value, grad, 0.125f, &all, 1);
    assert_float_equal(value[0], 0.875f, 2e-6); /* whatever the gradient's size: one lr */
    assert_float_equal(value[1], 1.125f, 2e-6);
    assert_true(value[2] == 1.0f);
    mix__optimizer_release(&o);
    mix_ctx_free(ctx);
}

static void test_init(void **state)
{
    (void)state;
    struct fault f;
    mix_ctx *ctx = fault_ctx(&f, 0);
    struct mix__optimizer o;
    const struct mix__optimizer_options adam = { .kind = MIX__ADAM };
    for (size_t left = 0; left < 2; left++) {
        f.left = left;
        assert_int_equal(mix__optimizer_init(&o, ctx, 9, &adam), MIX_ENOMEM);
        mix__optimizer_release(&o);
        assert_int_equal(f.live, 0);
    }
    static const struct mix__optimizer_options bad[] = {
        { .beta1 = 1.0 }, { .beta2 = -0.1 }, { .eps = -1.0 }, { .momentum = NAN }
    };
    f.left = 100;
    for (size_t i = 0; i < MIX_COUNT(bad); i++) {
        CHECK_FAILS(ctx, mix__optimizer_init(&o, ctx, 9, &bad[i]), MIX_EINVAL, "optimizer");
        mix__optimizer_release(&o);
    }
    fault_ctx_free(&f, ctx);
}

/* More chunks than the sum takes at a time. */
enum { BIG = 1200000 };
static const struct mix__range big[] = { { .offset = 5, .count = 1100001, .floor = -INFINITY },
                                         { .offset = 1100010, .count = 3, .floor = -INFINITY },
                                         { .offset = 1110000,
                                           .count = 90000,
                                           .floor = -INFINITY,
                                           .weight_decay = 0.1f,
                                           .decoupled = true } };

static float *big_array(void)
{
    float *x = malloc(BIG * sizeof *x);
    assert_non_null(x);
    for (uint64_t i = 0; i < BIG; i++)
        x[i] = (float)mix__random_normal(3, 3, i);
    return x;
}

static void test_clip(void **state)
{
    (void)state;
    float *grad = big_array(), *before = big_array();
    double squares = 0.0;
    for (size_t r = 0; r < MIX_COUNT(big); r++) {
        for (size_t i = 0; i < big[r].count; i++)
            squares += (double)before[big[r].offset + i] * before[big[r].offset + i];
    }
    const double norm = mix__clip_gradients(grad, big, MIX_COUNT(big), 0.0);
    assert_true(fabs(norm / sqrt(squares) - 1.0) < 1e-12);
    assert_true(mix__clip_gradients(grad, big, MIX_COUNT(big), norm * 1.001) == norm);
    assert_memory_equal(grad, before, BIG * sizeof *grad);
    assert_true(mix__clip_gradients(grad, big, MIX_COUNT(big), 10.0) == norm);
    for (size_t i = 0, r = 0; i < BIG; i++) {
        while (r < MIX_COUNT(big) && i >= big[r].offset + big[r].count)
            r++;
        const bool inside = r < MIX_COUNT(big) && i >= big[r].offset;
        assert_true(grad[i] == (inside ? before[i] * (float)(10.0 / norm) : before[i]));
    }
    const double clipped = mix__clip_gradients(grad, big, MIX_COUNT(big), 0.0);
    assert_true(fabs(clipped / 10.0 - 1.0) < 1e-6);
    free(before);
    free(grad);
}

static void test_clip_not_finite(void **state)
{
    (void)state;
    const struct mix__range all = { .count = 3, .floor = -INFINITY };
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    for (size_t i = 0; i < MIX_COUNT(bad); i++) {
        float grad[3] = { 100.0f, bad[i], 1.0f };
        assert_false(isfinite(mix__clip_gradients(grad, &all, 1, 10.0)));
        assert_true(grad[0] == 100.0f && grad[2] == 1.0f);
    }
    float large[3] = { 3e38f, 3e38f, 3e38f }; /* squares that float could not hold */
    assert_true(fabs(mix__clip_gradients(large, &all, 1, 3.0) / (3e38 * sqrt(3.0)) - 1.0) < 1e-6);
    assert_float_equal(large[0], sqrt(3.0), 1e-6);
}

static void test_threads(void **state)
{
    (void)state;
    float *grad = big_array(), *value[2] = { big_array(), big_array() };
    double norm[2];
    for (int k = 0; k < 2; k++) {
        mix_ctx *ctx;
        mix_ctx_options options;
        struct mix__optimizer o;
        mix_ctx_options_init(&options);
        options.threads = 1 + 2 * k;
        omp_set_num_threads(options.threads);
        CHECK_OK(mix_ctx_new(&ctx, &options));
        CHECK_OK(mix__optimizer_init(&o, ctx, BIG,
                                     &(struct mix__optimizer_options){ .kind = MIX__ADAM }));
        norm[k] = mix__clip_gradients(grad, big, MIX_COUNT(big), 0.0);
        for (int t = 0; t < 2; t++)
            mix__optimizer_step(&o, value[k], grad, 0.1f, big, MIX_COUNT(big));
        mix__optimizer_release(&o);
        mix_ctx_free(ctx);
    }
    assert_true(norm[0] == norm[1]);
    assert_memory_equal(value[0], value[1], BIG * sizeof *value[0]);
    assert_memory_not_equal(value[0], grad, BIG * sizeof *grad);
    free(grad);
    free(value[0]);
    free(value[1]);
}

/* Against the definition in double: the first value whole, then k / (k + 9) until 0.5. */
static void test_average(void **state)
{
    (void)state;
    mix_ctx *ctx;
    float value[] = { 1.0f, -2.0f }, stats[] = { 4.0f };
    struct mix__state s = { .n = 2, .value = value, .n_stats = 1, .stats = stats };
    struct mix__average a, none;
    double expected = 0.0;
    CHECK_OK(mix_ctx_new(&ctx, NULL));
    s.ctx = ctx;
    CHECK_OK(mix__average_init(&a, &s, 0.5));
    for (int k = 0; k < 20; k++) {
        const double early = k / (k + 9.0), decay = early < 0.5 ? early : 0.5;
        value[0] = (float)(1 + k % 3);
        expected = decay * expected + (1.0 - decay) * value[0];
        mix__average_add(&a, &s, k);
        assert_float_equal(a.value[0], expected, 1e-6);
    }
    const float was = value[0], average = a.value[0];
    mix__average_swap(&a, &s);
    assert_true(value[0] == average && a.value[0] == was && value[1] == -2.0f);
    assert_true(stats[0] == 4.0f && s.version == 1);
    CHECK_OK(mix__average_init(&none, &s, 0.0));
    mix__average_add(&none, &s, 0);
    mix__average_swap(&none, &s);
    assert_true(value[0] == average && s.version == 1);
    mix__average_release(&none);
    mix__average_release(&a);
    mix_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adam),
        cmocka_unit_test(test_sgd),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_first_adam_step),
        cmocka_unit_test(test_init),
        cmocka_unit_test(test_clip),
        cmocka_unit_test(test_clip_not_finite),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_average),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
