/* test_tensors.c - which kind of file it is, names, and values as floats. */
#include "in_folder.h"

#include <math.h>

#include "format/tensors.h"

static const float floats[6] = { 0.5f, -1.0f, 2.0f, 3.0f, 4.0f, 5.0f };

static void test_safetensors(void **state)
{
    const struct mix__st_tensor tensors[] = {
        { "module.a.weight", MIX__ST_F32, 2, { 2, 3 }, floats, sizeof floats },
        { "_orig_mod.module.b", MIX__ST_U8, 1, { 3 }, floats, 3 },
        { "none", MIX__ST_F32, 2, { 4, 0 }, floats, 0 },
        { "xmodule.c", MIX__ST_F32, 0, { 0 }, floats + 1, 4 },
    };
    struct mix__tensors *f;
    float values[6];
    (void)state;
    CHECK_OK(mix__st_save(ctx, "f", tensors, MIX_COUNT(tensors), NULL));
    CHECK_OK(mix__tensors_open(&f, ctx, "f"));
    assert_int_equal(mix__tensors_count(f), 4);
    assert_true(mix__tensor_floats(mix__tensors_find(f, "a.weight"), values));
    assert_memory_equal(values, floats, sizeof floats);
    assert_false(mix__tensor_floats(mix__tensors_find(f, "b"), values));
    assert_true(mix__tensor_floats(mix__tensors_find(f, "none"), values));
    assert_true(mix__tensor_floats(mix__tensors_find(f, "xmodule.c"), values));
    assert_true(values[0] == -1.0f);
    assert_null(mix__tensors_find(f, "module.a.weight"));
    mix__tensors_close(f);
    mix__tensors_close(NULL);
}

static void test_names_taken_twice(void **state)
{
    const struct mix__st_tensor tensors[] = {
        { "module.a", MIX__ST_F32, 1, { 1 }, floats, 4 },
        { "a", MIX__ST_F32, 1, { 1 }, floats, 4 },
    };
    struct mix__tensors *f;
    (void)state;
    CHECK_OK(mix__st_save(ctx, "f", tensors, 2, NULL));
    CHECK_FAILS(ctx, mix__tensors_open(&f, ctx, "f"), MIX_EFORMAT, "f: two tensors are called 'a'");
}

static void test_neither(void **state)
{
    static const struct {
        const char *text;
        size_t size;
        const char *says;
    } files[] = {
        { "", 0, "f: byte 0: neither a .safetensors file nor one of torch.save" },
        { "\2\0\0\0\0\0\0\0", 8, "neither" },
        { "\177ELF\2\1\1\0\0\0\0\0", 12, "neither" },
        { "\2\0\0\0\0\0\0\0{", 9, "a header of 2 bytes" },
        { "PK\3\4", 4, "f: byte 4: a ZIP archive without its end record" },
        { "PK\5\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 22, "neither" }, /* an empty archive */
    };
    struct mix__tensors *f;
    (void)state;
    for (size_t i = 0; i < MIX_COUNT(files); i++) {
        write_bytes("f", files[i].text, files[i].size);
        CHECK_FAILS(ctx, mix__tensors_open(&f, ctx, "f"), MIX_EFORMAT, files[i].says);
        assert_null(f);
    }
    CHECK_FAILS(ctx, mix__tensors_open(&f, ctx, "no"), MIX_EIO, "no: cannot open");
    CHECK_FAILS(ctx, mix__tensors_open(&f, ctx, "."), MIX_EIO, "folder");
}

/* All values of 16 bits, by the formulas of IEEE 754 and of bfloat16. */
static void test_half_precision(void **state)
{
    static uint16_t codes[65536];
    static float halfs[65536], bfloats[65536];
    struct mix__tensor_view t = { .rank = 1, .dims = { 65536 }, .strides = { 1 }, .count = 65536 };
    (void)state;
    for (int i = 0; i < 65536; i++)
        codes[i] = (uint16_t)i;
    t.data = (const unsigned char *)codes;
    t.dtype = MIX__ST_F16;
    assert_true(mix__tensor_floats(&t, halfs));
    t.dtype = MIX__ST_BF16;
    assert_true(mix__tensor_floats(&t, bfloats));
    for (int i = 0; i < 65536; i++) {
        const double sign = i & 0x8000 ? -1.0 : 1.0;
        const int e = i >> 10 & 31, f = i & 1023, be = i >> 7 & 255, bf = i & 127;
        const double half = e ? ldexp(1024 + f, e - 25) : ldexp(f, -24);
        const double bfloat = be ? ldexp(128 + bf, be - 134) : ldexp(bf, -133);
        if (e == 31)
            assert_true(f ? isnan(halfs[i]) : isinf(halfs[i]) && halfs[i] * sign > 0);
        else
            assert_true(halfs[i] == sign * half && !signbit(halfs[i]) == !(i & 0x8000));
        if (be == 255)
            assert_true(bf ? isnan(bfloats[i]) : isinf(bfloats[i]) && bfloats[i] * sign > 0);
        else
            assert_true(bfloats[i] == sign * bfloat);
    }
}

/* A transposed view in the middle of odd bytes; doubles are rounded. */
static void test_strides(void **state)
{
    unsigned char bytes[1 + sizeof floats];
    float values[6];
    const double numbers[] = { 0.1, 1e300, -1e-300 };
    const struct mix__tensor_view t = { .dtype = MIX__ST_F32,
                                        .rank = 2,
                                        .dims = { 3, 2 },
                                        .strides = { 1, 3 },
                                        .count = 6,
                                        .data = bytes + 1 };
    const struct mix__tensor_view d = { .dtype = MIX__ST_F64,
                                        .rank = 3,
                                        .dims = { 1, 3, 1 },
                                        .strides = { 0, 1, 0 },
                                        .count = 3,
                                        .data = (const unsigned char *)numbers };
    (void)state;
    memcpy(bytes + 1, floats, sizeof floats);
    assert_true(mix__tensor_floats(&t, values));
    for (int i = 0; i < 6; i++)
        assert_true(values[i] == floats[i / 2 + 3 * (i % 2)]);
    assert_true(mix__tensor_floats(&d, values));
    assert_true(values[0] == 0.1f && isinf(values[1]) && values[2] == 0.0f && signbit(values[2]));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_safetensors),    TEST(test_names_taken_twice), TEST(test_neither),
        TEST(test_half_precision), TEST(test_strides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
