/* test_table.c - alignment, and how numbers are written. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../tools/table.h"

static void test_alignment(void **state)
{
    (void)state;
    char *text;
    size_t size;
    struct table t;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    table_begin(&t, "lrl");
    table_row(&t, "name\tn\tbar");
    table_row(&t, "h\303\251\t%d\t", 12345);
    table_row(&t, "%s", "");
    table_row(&t, "longer\t1\t##\tmore");
    table_end(&t, out);
    fclose(out);
    assert_string_equal(text, "name        n  bar\n"
                              "h\303\251      12345\n"
                              "\n"
                              "longer      1  ##    more\n");
    free(text);
}

static void test_cells(void **state)
{
    (void)state;
    assert_string_equal(cell_number(2.345, 1).text, "2.3");
    assert_string_equal(cell_number(NAN, 1).text, "-");
    assert_string_equal(cell_number(-INFINITY, 1).text, "-");
    assert_string_equal(cell_gbops(5.39412).text, "5.394");
    assert_string_equal(cell_gbops(0.0096364).text, "0.009636");
    assert_string_equal(cell_time(0).text, "0.0 s");
    assert_string_equal(cell_time(59.94).text, "59.9 s");
    assert_string_equal(cell_time(59.96).text, "1:00");
    assert_string_equal(cell_time(3599.6).text, "1:00:00");
    assert_string_equal(cell_time(-1).text, "-");
    assert_string_equal(cell_time(NAN).text, "-");
    assert_string_equal(cell_bytes(1023).text, "1023 B");
    assert_string_equal(cell_bytes(1536).text, "1.5 KiB");
    assert_string_equal(cell_bytes(512.0 * 1024 * 1024).text, "512.0 MiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_alignment),
                                        cmocka_unit_test(test_cells) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
