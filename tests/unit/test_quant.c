#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "quant/quant.h"

static void check_bounds(struct mix__bounds b, float n, float p, float shift)
{
    assert_float_equal(b.n, n, 0);
    assert_float_equal(b.p, p, 0);
    assert_float_equal(b.shift, shift, 0);
}

static void bounds_follow_the_table(void **state)
{
    (void)state;
    check_bounds(mix__bounds_weight(2), -1, 1, 0);
    check_bounds(mix__bounds_weight(4), -7, 7, 0);
    check_bounds(mix__bounds_weight(8), -127, 127, 0);
    for (int bits = MIX_BITS_MIN; bits <= MIX_BITS_MAX; bits++) {
        const float half = (float)((1 << (bits - 1)) - 1), full = (float)((1 << bits) - 1);
        check_bounds(mix__bounds_weight(bits), -half, half, 0);
        check_bounds(mix__bounds_activation(bits, MIX_RANGE_SIGNED), -half, half, 0);
        check_bounds(mix__bounds_activation(bits, MIX_RANGE_UNSIGNED), 0, full, 0);
        check_bounds(mix__bounds_activation(bits, MIX_RANGE_SHIFTED), 0, full, 0.375f);
    }
}

static void first_steps_follow_the_mean(void **state)
{
    (void)state;
    assert_float_equal(mix__step_init_activation(3.0, 2), 2 * 3.0 / sqrt(3.0), 1e-6);
    assert_float_equal(mix__step_init_activation(1.0, 8), 2 / sqrt(255.0), 1e-7);
    assert_float_equal(mix__step_init_weight(0.5, 2), 1.0, 0);
    assert_float_equal(mix__step_init_weight(0.05, 8), 0.1 / sqrt(127.0), 1e-8);
}

static void steps_never_reach_zero(void **state)
{
    (void)state;
    assert_float_equal(mix__step_init_activation(0.0, 4), MIX__STEP_MIN, 0);
    assert_float_equal(mix__step_init_weight(1e-30, 4), MIX__STEP_MIN, 0);
}

static void ties_go_to_the_even_neighbour(void **state)
{
    (void)state;
    for (int k = -4096; k <= 4096; k++) {
        const float tie = (float)k + 0.5f, even = (float)(k & 1 ? k + 1 : k);
        assert_float_equal(mix__round(tie), even, 0);
        assert_float_equal(mix__round(nextafterf(tie, -1e9f)), (float)k, 0);
        assert_float_equal(mix__round(nextafterf(tie, 1e9f)), (float)(k + 1), 0);
        assert_float_equal(mix__round((float)k), (float)k, 0);
    }
}

/* With a step of 2^-s every value of a code is exact and must give the code back. */
static void codes_survive_the_round_trip(void **state)
{
    (void)state;
    for (int bits = MIX_BITS_MIN; bits <= MIX_BITS_MAX; bits++)
        for (mix_range range = MIX_RANGE_SIGNED; range <= MIX_RANGE_SHIFTED; range++)
            for (int s = -2; s <= 10; s++) {
                const struct mix__bounds b = mix__bounds_activation(bits, range);
                const float step = ldexpf(1.0f, -s);
                for (float code = b.n; code <= b.p; code++) {
                    const float x = mix__dequantize(code, step, &b);
                    assert_float_equal(mix__quantize(x, step, &b), code, 0);
                    const float half = mix__quantize(x + 0.5f * step, step, &b);
                    const float even = fmodf(code, 2.0f) == 0.0f ? code : code + 1;
                    assert_float_equal(half, even > b.p ? b.p : even, 0);
                }
                assert_float_equal(mix__quantize(1e6f, step, &b), b.p, 0);
                assert_float_equal(mix__quantize(-1e6f, step, &b), b.n, 0);
            }
}

static void shifted_range_holds_hard_swish(void **state)
{
    (void)state;
    const struct mix__bounds b = mix__bounds_activation(3, MIX_RANGE_SHIFTED);
    const float step = 0.5f;
    assert_float_equal(mix__quantize(-0.375f, step, &b), 0, 0);
    assert_float_equal(mix__dequantize(0, step, &b), -0.375f, 0);
    /* (0 + 0.375) / 0.5 = 0.75: 0.0 has no code of its own. */
    assert_float_equal(mix__quantize(0.0f, step, &b), 1, 0);
    assert_float_equal(mix__dequantize(1, step, &b), 0.125f, 0);
    assert_float_equal(mix__quantize(9.0f, step, &b), 7, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds_follow_the_table),
        cmocka_unit_test(first_steps_follow_the_mean),
        cmocka_unit_test(steps_never_reach_zero),
        cmocka_unit_test(ties_go_to_the_even_neighbour),
        cmocka_unit_test(codes_survive_the_round_trip),
        cmocka_unit_test(shifted_range_holds_hard_swish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
