#include "in_folder.h"

#include <locale.h>

#include "base/file.h"
#include "base/number.h"

static void test_texts(void **state)
{
    (void)state;
    static const char *const wrong[] = { "",    " 1",    "1 ",  "0x10", "nan",
                                         "inf", "1e999", "1,5", "one",  "1.5.2" };
    int whole = 7;
    double real = 7.0;
    for (size_t i = 0; i < MIX_COUNT(wrong); i++)
        assert_false(mix__number_whole(wrong[i], &whole) || mix__number_real(wrong[i], &real));
    assert_false(mix__number_whole("2147483648", &whole) || mix__number_whole("1.0", &whole));
    assert_true(whole == 7 && real == 7.0);
    assert_true(mix__number_whole("-2147483648", &whole) && whole == INT32_MIN);
    assert_true(mix__number_real("-1.5e-3", &real) && real == -1.5e-3);
}

static mix_status print_half(void *user, FILE *out)
{
    fprintf(out, "%.2f %a", *(const double *)user, *(const double *)user);
    return MIX_OK;
}

/* In a program that speaks German. */
static void test_comma(void **state)
{
    (void)state;
    double half = 0.5, real;
    char text[8];
    if (system("localedef -f UTF-8 -i de_DE ./de_DE.UTF-8 2> localedef.log") != 0)
        skip();
    setenv("LOCPATH", ".", 1);
    if (!setlocale(LC_ALL, "de_DE.UTF-8"))
        skip();
    snprintf(text, sizeof text, "%.1f", half);
    assert_string_equal(text, "0,5");
    assert_true(mix__number_real("0.25", &real) && real == 0.25);
    assert_false(mix__number_real("0,25", &real));
    CHECK_OK(mix__file_print(ctx, "f", print_half, &half));
    check_bytes("f", "0.50 0x1p-1", 11);
    snprintf(text, sizeof text, "%.1f", half); /* as before */
    assert_string_equal(text, "0,5");
    setlocale(LC_ALL, "C");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_texts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_comma, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
