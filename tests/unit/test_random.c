#include "support.h"

#include <math.h>

#include "base/random.h"

/* From a second implementation in unbounded integers: what is drawn must never change, or old
 * runs could not be repeated. */
static const struct {
    uint64_t seed, stream, index, bits;
    double normal;
} known[] = {
    { 0, 0, 0, UINT64_C(0x6ad5ff626bac2349), -0.96934725333767457 },
    { 1, 0, 0, UINT64_C(0x512336713bb0450d), -0.4977199187334731 },
    { 0, 1, 0, UINT64_C(0xab67b3286618745b), 1.3331053332210943 },
    { 0, 0, 1, UINT64_C(0x1de85163a8da5fe1), -0.44743221839541297 },
    { UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_C(0x8fd283ff93d2a8e2), -0.8393313458858257 },
    { 1, MIX__STREAM(MIX__RANDOM_WEIGHT, 3), 123456789, UINT64_C(0xb187868ac51f54ed),
      -0.51302423646142714 },
};

static void test_known(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_COUNT(known); i++) {
        const uint64_t s = known[i].seed, t = known[i].stream, x = known[i].index;
        assert_true(mix__random_u64(s, t, x) == known[i].bits);
        assert_true(mix__random_uniform(s, t, x) == (double)(known[i].bits >> 11) / 0x1p53);
        assert_true(fabs(mix__random_normal(s, t, x) - known[i].normal) < 1e-12);
    }
    static const uint32_t shuffled[8] = { 6, 1, 4, 0, 5, 7, 2, 3 };
    uint32_t order[8];
    mix__random_shuffle(1, 2, order, 8);
    assert_memory_equal(order, shuffled, sizeof order);
}

/* A changed bit of any input changes each bit of the result with probability 1/2. */
static void test_avalanche(void **state)
{
    enum { TRIALS = 200 };
    (void)state;
    for (int input = 0; input < 3 * 64; input++) {
        int flips[64] = { 0 };
        for (uint64_t t = 0; t < TRIALS; t++) {
            uint64_t in[3] = { t, 2 * t, 3 * t };
            const uint64_t before = mix__random_u64(in[0], in[1], in[2]);
            in[input / 64] ^= UINT64_C(1) << input % 64;
            const uint64_t changed = before ^ mix__random_u64(in[0], in[1], in[2]);
            for (int b = 0; b < 64; b++)
                flips[b] += changed >> b & 1;
        }
        for (int b = 0; b < 64; b++) /* 100 +- 7, so +- 6 deviations */
            assert_in_range(flips[b], 58, 142);
    }
}

static void test_uniform(void **state)
{
    enum { N = 100000, BINS = 100 };
    (void)state;
    for (uint64_t stream = 0; stream < 4; stream++) {
        int bins[BINS] = { 0 };
        double chi2 = 0.0, product = 0.0;
        for (uint64_t i = 0; i < N; i++) {
            const double u = mix__random_uniform(5, stream, i);
            assert_true(u >= 0.0 && u < 1.0);
            bins[(int)(u * BINS)]++;
            product += (u - 0.5) * (mix__random_uniform(5, stream, i + 1) - 0.5);
        }
        for (int b = 0; b < BINS; b++)
            chi2 += (bins[b] - 1000.0) * (bins[b] - 1000.0) / 1000.0;
        assert_true(chi2 > 50.0 && chi2 < 170.0); /* 99 +- 14: 5 deviations above */
        assert_true(fabs(product / N) * 12.0 < 5.0 / sqrt(N));
    }
}

static void test_normal(void **state)
{
    enum { N = 200000 };
    (void)state;
    double sum[5] = { 0.0 };
    int tail = 0;
    for (uint64_t i = 0; i < N; i++) {
        const double x = mix__random_normal(9, 1, i);
        double power = 1.0;
        assert_true(isfinite(x));
        for (int k = 1; k < 5; k++)
            sum[k] += power *= x;
        tail += fabs(x) > 3.0;
    }
    const double root = sqrt(N);
    assert_true(fabs(sum[1] / N) < 5.0 / root);
    assert_true(fabs(sum[2] / N - 1.0) < 5.0 * sqrt(2.0) / root);
    assert_true(fabs(sum[3] / N) < 5.0 * sqrt(15.0) / root);
    assert_true(fabs(sum[4] / N - 3.0) < 5.0 * sqrt(96.0) / root);
    assert_in_range(tail, 440, 640); /* 0.0027 * N = 540 +- 23 */
}

static void test_shuffle(void **state)
{
    enum { N = 1000 };
    (void)state;
    uint32_t order[N], again[N];
    int seen[N] = { 0 }, first[8] = { 0 };
    mix__random_shuffle(3, 1, order, N);
    mix__random_shuffle(3, 1, again, N);
    assert_memory_equal(order, again, sizeof order);
    mix__random_shuffle(3, 2, again, N);
    assert_memory_not_equal(order, again, sizeof order);
    for (int i = 0; i < N; i++) {
        assert_true(order[i] < N);
        seen[order[i]]++;
    }
    for (int i = 0; i < N; i++)
        assert_int_equal(seen[i], 1);
    for (uint64_t seed = 0; seed < 8000; seed++) {
        mix__random_shuffle(seed, 1, order, 8);
        first[order[0]]++;
    }
    for (int i = 0; i < 8; i++) /* 1000 +- 30 */
        assert_in_range(first[i], 850, 1150);
    mix__random_shuffle(3, 1, NULL, 0);
    mix__random_shuffle(3, 1, order, 1);
    assert_int_equal(order[0], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),   cmocka_unit_test(test_avalanche),
        cmocka_unit_test(test_uniform), cmocka_unit_test(test_normal),
        cmocka_unit_test(test_shuffle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
