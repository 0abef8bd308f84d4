/* test_settings.c - the list as text and back, and values that must be refused. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "metamix/settings.h"
#include "metamix/zoo.h"
#include "job/job.h"

static mix_ctx *ctx;

static int setup(void **state)
{
    (void)state;
    return mix_ctx_new(&ctx, NULL) == MIX_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    mix_ctx_free(ctx);
    return 0;
}

static const mix_setting *find(const char *name)
{
    size_t count;
    const mix_setting *list = mix_settings_list(&count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(list[i].name, name) == 0)
            return &list[i];
    }
    fail_msg("no setting %s", name);
    return NULL;
}

/* The table's default texts and the initialized structure say the same. */
static void test_defaults_agree(void **state)
{
    (void)state;
    mix_settings a, b;
    size_t count;
    const mix_setting *list = mix_settings_list(&count);
    mix_settings_init(&a);
    assert_true(count > 30);
    for (size_t i = 0; i < count; i++) {
        char was[MIX_TEXT_MAX], is[MIX_TEXT_MAX];
        b = a;
        mix_settings_get(&a, &list[i], was, sizeof was);
        assert_int_equal(mix_settings_set(&b, ctx, list[i].name, list[i].value), MIX_OK);
        mix_settings_get(&b, &list[i], is, sizeof is);
        assert_string_equal(was, is);
        assert_true(list[i].groups != 0);
        assert_true(list[i].help[0] != 0);
    }
}

static void test_reals_read_back(void **state)
{
    (void)state;
    static const double values[] = { 0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, -0.0, 1e-4 };
    mix_settings s, t;
    const mix_setting *lr = find("lr");
    mix_settings_init(&s);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char text[64];
        s.lr = values[i];
        mix_settings_get(&s, lr, text, sizeof text);
        mix_settings_init(&t);
        assert_int_equal(mix_settings_set(&t, ctx, "lr", text), MIX_OK);
        assert_memory_equal(&t.lr, &s.lr, sizeof s.lr);
    }
    s.lr = 0.1;
    char text[64];
    mix_settings_get(&s, lr, text, sizeof text);
    assert_string_equal(text, "0.1");
}

static void test_names(void **state)
{
    (void)state;
    mix_settings s;
    mix_settings_init(&s);
    assert_int_equal(mix_settings_set(&s, ctx, "stage-a_epochs", "7"), MIX_OK);
    assert_int_equal(s.stage_a_epochs, 7);
    static const char *const wrong[] = { "", "stage", "stage-a-epochsx", "-", "batch ", "BATCH" };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(mix_settings_set(&s, ctx, wrong[i], "7"), MIX_EINVAL);
        assert_non_null(strstr(mix_ctx_error(ctx), "no setting has the name"));
    }
}

static void test_refused_values(void **state)
{
    (void)state;
    static const struct {
        const char *name, *value;
    } cases[] = {
        { "batch", "" },
        { "batch", "12x" },
        { "batch", " 12" },
        { "batch", "12 " },
        { "batch", "1.5" },
        { "batch", "1e3" },
        { "batch", "2147483648" },
        { "batch", "-2147483649" },
        { "batch", "99999999999999999999999" },
        { "lr", "" },
        { "lr", "nan" },
        { "lr", "inf" },
        { "lr", "-inf" },
        { "lr", "1e999" },
        { "lr", "0x10" },
        { "lr", "0.1.2" },
        { "lr", "0,1" },
        { "lr", "\t0.1" },
        { "lr", "e" },
        { "flip", "" },
        { "flip", "maybe" },
        { "flip", "ON" },
        { "flip", "2" },
    };
    mix_settings s, was;
    mix_settings_init(&s);
    was = s;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(mix_settings_set(&s, ctx, cases[i].name, cases[i].value), MIX_EINVAL);
        assert_non_null(strstr(mix_ctx_error(ctx), cases[i].name));
        assert_memory_equal(&s, &was, sizeof s);
    }
}

static void test_text_length(void **state)
{
    (void)state;
    mix_settings s;
    char text[MIX_TEXT_MAX + 1];
    mix_settings_init(&s);
    memset(text, 'a', MIX_TEXT_MAX);
    text[MIX_TEXT_MAX] = 0;
    assert_int_equal(mix_settings_set(&s, ctx, "data", text), MIX_EINVAL);
    assert_string_equal(s.data, "");
    text[MIX_TEXT_MAX - 1] = 0;
    assert_int_equal(mix_settings_set(&s, ctx, "data", text), MIX_OK);
    assert_string_equal(s.data, text);
    char cut[8];
    mix_settings_get(&s, find("data"), cut, sizeof cut);
    assert_string_equal(cut, "aaaaaaa");
}

static void test_flag_words(void **state)
{
    (void)state;
    mix_settings s;
    mix_settings_init(&s);
    assert_int_equal(mix_settings_set(&s, ctx, "flip", "off"), MIX_OK);
    assert_false(s.flip);
    assert_int_equal(mix_settings_set(&s, ctx, "flip", "yes"), MIX_OK);
    assert_true(s.flip);
}

static void write_file(const char *text)
{
    FILE *f = fopen("recipe.json", "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void test_recipe(void **state)
{
    static const struct {
        const char *text, *part;
    } refused[] = {
        { "{\"settings\": {\"lr\": 1, \"epoch\": 3}}", "no setting has the name 'epoch'" },
        { "{\"settings\": {\"lr\": 1, \"epochs\": 3.5}}", "whole number" },
        { "{\"settings\": {\"lr\": null}}", "lr: expected a number" },
        { "{\"settings\": [1]}", "expected an object 'settings'" },
        { "{\"lr\": 1}", "expected an object 'settings'" },
        { "{\"settings\": {\"lr\": 1}", "byte 22: " },
    };
    mix_settings s, was;
    (void)state;
    mix_settings_init(&s);
    s.epochs = 7;
    write_file(
        "{\"about\": \"x\", \"settings\": {\"lr\": 5e-4, \"flip\": false, \"stage_a_epochs\": 3, "
        "\"target\": \"W4A4\"}}");
    assert_int_equal(mix_settings_load(&s, ctx, "recipe.json"), MIX_OK);
    assert_true(s.lr == 5e-4 && !s.flip && s.stage_a_epochs == 3 && s.epochs == 7);
    assert_string_equal(s.target, "W4A4");
    was = s;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        write_file(refused[i].text);
        assert_int_equal(mix_settings_load(&s, ctx, "recipe.json"), MIX_EFORMAT);
        assert_non_null(strstr(mix_ctx_error(ctx), "recipe.json"));
        assert_non_null(strstr(mix_ctx_error(ctx), refused[i].part));
        assert_memory_equal(&s, &was, sizeof s);
    }
    assert_int_equal(mix_settings_load(&s, ctx, "none.json"), MIX_EIO);
    remove("recipe.json");
}

/* Every recipe of the project names a network and settings that `metamix quantize` accepts. */
static void check_recipe(const char *path)
{
    const unsigned groups =
        MIX_GROUP_NET | MIX_GROUP_BITS | MIX_GROUP_SELECT | MIX_GROUP_FINETUNE | MIX_GROUP_RUN;
    int candidate[MIX_BITS_MAX], n;
    mix_zoo_options options;
    mix_settings s;
    mix_graph *g = NULL;
    mix_settings_init(&s);
    mix_zoo_options_init(&options);
    strcpy(s.data, "a folder");
    mix_status status = mix_settings_load(&s, ctx, path);
    if (status == MIX_OK)
        status = mix__settings_check(ctx, &s, groups | MIX_GROUP_DATA);
    if (status == MIX_OK)
        status = mix__candidates_parse(ctx, s.candidates, candidate, &n);
    options.arch = s.arch;
    options.size = s.image_size;
    if (status == MIX_OK)
        status = mix_zoo_new(&g, ctx, &options);
    if (status != MIX_OK)
        fail_msg("%s: %s", path, mix_ctx_error(ctx));
    mix_graph_free(g);
}

static void test_recipes(void **state)
{
    static const char folder[] = MIX_TESTS_DIR "/../recipes";
    DIR *dir = opendir(folder);
    const struct dirent *entry;
    int count = 0;
    (void)state;
    assert_non_null(dir);
    while ((entry = readdir(dir))) {
        char path[1024];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        check_recipe(path);
        count++;
    }
    closedir(dir);
    assert_int_equal(count, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_agree), cmocka_unit_test(test_reals_read_back),
        cmocka_unit_test(test_names),          cmocka_unit_test(test_refused_values),
        cmocka_unit_test(test_text_length),    cmocka_unit_test(test_flag_words),
        cmocka_unit_test(test_recipe),         cmocka_unit_test(test_recipes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
