/* test_progress.c - the terminal's line fits every width, whatever the numbers are. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "../tools/progress.h"

static const mix_progress usual = { .phase = "bit-search",
                                    .epoch = 1,
                                    .epochs = 3,
                                    .step = 50,
                                    .steps = 100,
                                    .loss = 1.2345,
                                    .top1 = 65.25,
                                    .gbops = 4.3111,
                                    .images_per_second = 1234.4,
                                    .seconds_left = 204.2 };

static void check_all_widths(const mix_progress *now)
{
    for (int width = 0; width < 400; width++) {
        char text[256];
        memset(text, 'x', sizeof text);
        progress_line(text, sizeof text, width, now);
        assert_non_null(memchr(text, 0, sizeof text));
        assert_true(strlen(text) <= (size_t)width);
    }
}

static void test_fits(void **state)
{
    (void)state;
    mix_progress p = usual;
    check_all_widths(&p);
    p.step = 1000;
    check_all_widths(&p);
    p.step = -5;
    check_all_widths(&p);
    p.steps = 0;
    check_all_widths(&p);
    p = usual;
    p.loss = p.top1 = p.gbops = p.images_per_second = p.seconds_left = NAN;
    check_all_widths(&p);
    p.loss = 1e300;
    p.seconds_left = 1e300;
    p.images_per_second = -1e300;
    check_all_widths(&p);
}

static void test_text(void **state)
{
    (void)state;
    char text[256];
    progress_line(text, sizeof text, 120, &usual);
    assert_string_equal(text, "bit-search 2/3 [###############---------------] loss 1.234 top-1 "
                              "65.2% 3:24 left 4.311 GBOPs 1234 img/s");
    progress_line(text, sizeof text, 50, &usual);
    assert_string_equal(text, "bit-search 2/3 [#####-----] loss 1.234 top-1 65.2%");
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_fits), cmocka_unit_test(test_text) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
