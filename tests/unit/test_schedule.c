#include "support.h"

#include <math.h>

#include "train/train.h"

static void check_near(double found, double expected)
{
    if (!(fabs(found - expected) < 1e-12))
        fail_msg("expected %.15g, found %.15g", expected, found);
}

static void test_values(void **state)
{
    (void)state;
    check_near(mix__schedule_cosine(0.8, 0, 4, 12), 0.2);
    check_near(mix__schedule_cosine(0.8, 3, 4, 12), 0.8);
    check_near(mix__schedule_cosine(0.8, 4, 4, 12), 0.8);
    check_near(mix__schedule_cosine(0.8, 6, 4, 12), 0.4 * (1.0 + sqrt(0.5)));
    check_near(mix__schedule_cosine(0.8, 8, 4, 12), 0.4);
    check_near(mix__schedule_cosine(0.8, 10, 4, 12), 0.4 * (1.0 - sqrt(0.5)));
    check_near(mix__schedule_cosine(0.8, 12, 4, 12), 0.0);
    check_near(mix__schedule_cosine(0.8, 99, 4, 12), 0.0);
}

static void test_edges(void **state)
{
    (void)state;
    check_near(mix__schedule_cosine(2.0, 0, 0, 1), 2.0);
    check_near(mix__schedule_cosine(2.0, 0, 0, 0), 0.0);
    check_near(mix__schedule_cosine(2.0, 9, 20, 10), 1.0); /* stopped inside the warm-up */
    check_near(mix__schedule_cosine(2.0, 10, 10, 10), 0.0);
}

static void test_falls(void **state)
{
    (void)state;
    const int64_t steps = 1000;
    for (int64_t s = 1; s < steps; s++) {
        const double before = mix__schedule_cosine(1.0, s - 1, 100, steps);
        const double now = mix__schedule_cosine(1.0, s, 100, steps);
        assert_true(now > 0.0 && now <= 1.0);
        assert_true(s < 100 ? now > before : now <= before);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_falls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
