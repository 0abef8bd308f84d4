/*
 * test_onnx_stairs.c - every sum that can occur keeps its code, as an engine computes it in float.
 */
#include "support.h"

#include <math.h>

#include "base/random.h"
#include "format/onnx_stairs.h"
#include "quant/quant.h"

static double uniform(uint64_t which, int what, double low, double high)
{
    return low + (high - low) * mix__random_uniform(1, which, (uint64_t)what);
}

/* A layer of weights and codes of so many bits. */
static struct mix__stairs drawn(uint64_t i, int bits)
{
    const int p = (1 << bits) - 1, reach = (int)uniform(i, 0, 1, 40) * p;
    return (struct mix__stairs){ .scale = (float)uniform(i, 1, 0.001, 0.01),
                                 .offset = (float)uniform(i, 2, -1, 1),
                                 .step = (float)uniform(i, 3, 0.05, 0.3),
                                 .n = i % 2 ? -p / 2 : 0,
                                 .p = i % 2 ? p / 2 : p,
                                 .least = -reach,
                                 .most = reach,
                                 .factor = INT8_MAX / (p / 2) };
}

static int code(const struct mix__stairs *s, float value)
{
    return (int)mix__round(mix__clip(value, (float)s->n, (float)s->p));
}

static void check_all_sums(const struct mix__stairs *s, int32_t bias, double slope)
{
    for (int64_t sum = s->least; sum <= s->most; sum++) {
        const float value = s->scale * (float)sum + s->offset;
        const float engine = (float)slope * (float)(sum * s->factor + bias);
        assert_int_equal(code(s, engine), code(s, value / s->step));
    }
}

static void every_sum_keeps_its_code(void **state)
{
    (void)state;
    enum { N = 2000 };
    int fits = 0;
    for (uint64_t i = 0; i < N; i++) {
        const struct mix__stairs s = drawn(i, 2 + (int)(i / 2 % 3));
        int32_t bias;
        double slope;
        if (!mix__stairs_fit(&bias, &slope, &s))
            continue;
        fits++;
        check_all_sums(&s, bias, slope);
    }
    assert_true(fits > N * 95 / 100);
}

/* A channel without weights, or whose scale has all but vanished, has one code. */
static void a_constant_channel_fits(void **state)
{
    (void)state;
    static const float scales[] = { 0.5f, 1e-6f, 1e-20f };
    for (size_t i = 0; i < MIX_COUNT(scales); i++)
        for (int offset = -3; offset <= 3; offset++) {
            const struct mix__stairs s = { .scale = scales[i],
                                           .offset = (float)offset + 0.12f,
                                           .step = 0.25f,
                                           .n = -7,
                                           .p = 7,
                                           .least = i ? -1000 : 0,
                                           .most = i ? 1000 : 0,
                                           .factor = 18 };
            int32_t bias;
            double slope;
            assert_true(mix__stairs_fit(&bias, &slope, &s));
            check_all_sums(&s, bias, slope);
        }
}

/* Eight bits leave no room: biases of half a unit change codes. */
static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    const struct mix__stairs s = { .scale = 0.01f,
                                   .offset = 0.005f,
                                   .step = 0.0137f,
                                   .n = 0,
                                   .p = 255,
                                   .least = -10000,
                                   .most = 10000,
                                   .factor = 1 };
    int32_t bias;
    double slope;
    assert_false(mix__stairs_fit(&bias, &slope, &s));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_sum_keeps_its_code),
        cmocka_unit_test(a_constant_channel_fits),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
