#include "in_folder.h"

#include <jansson.h>

#include "format/safetensors.h"

/* A file of any header and so many bytes of data: 0, 1, 2, ... */
static void write_file(const char *path, const char *header, size_t data)
{
    unsigned char bytes[4096] = { 0 };
    const size_t n = strlen(header);
    assert_true(8 + n + data <= sizeof bytes);
    bytes[0] = (unsigned char)n;
    bytes[1] = (unsigned char)(n >> 8);
    memcpy(bytes + 8, header, n);
    for (size_t i = 0; i < data; i++)
        bytes[8 + n + i] = (unsigned char)i;
    write_bytes(path, bytes, 8 + n + data);
}

static const float floats[6] = { 0.5f, -1.0f, 2.0f, 3.0f, 4.0f, 5.0f };
static const double doubles[1] = { 1e300 };
static const int64_t longs[2] = { INT64_MIN, 7 };
static const uint64_t counters[1] = { UINT64_MAX };
static const int32_t ints[1] = { -5 };
static const uint8_t codes[3] = { 1, 2, 255 };

static const struct mix__st_tensor tensors[] = {
    { "codes", MIX__ST_U8, 1, { 3 }, codes, sizeof codes },
    { "layer.weight", MIX__ST_F32, 2, { 2, 3 }, floats, sizeof floats },
    { "nothing", MIX__ST_F32, 2, { 0, 9 }, floats, 0 },
    { "step", MIX__ST_F64, 0, { 0 }, doubles, sizeof doubles },
    { "seeds", MIX__ST_U64, 1, { 1 }, counters, sizeof counters },
    { "longs", MIX__ST_I64, 1, { 2 }, longs, sizeof longs },
    { "\"q\" \xc3\xa9", MIX__ST_I32, 3, { 1, 1, 1 }, ints, sizeof ints },
};
static const char *const metadata[] = { "arch", "mobilenet_v2", "note", "a\nb \"c\"", NULL };

static void check_same(const struct mix__st_file *f)
{
    assert_int_equal(mix__st_count(f), MIX_COUNT(tensors));
    for (size_t i = 0; i < MIX_COUNT(tensors); i++) {
        const struct mix__st_tensor *t = mix__st_find(f, tensors[i].name);
        assert_non_null(t);
        assert_string_equal(t->name, tensors[i].name);
        assert_int_equal(t->dtype, tensors[i].dtype);
        assert_int_equal(t->rank, tensors[i].rank);
        assert_memory_equal(t->dims, tensors[i].dims, (size_t)t->rank * sizeof *t->dims);
        assert_int_equal(t->bytes, tensors[i].bytes);
        assert_memory_equal(t->data, tensors[i].data, t->bytes);
    }
    assert_string_equal(mix__st_metadata(f, "arch"), "mobilenet_v2");
    assert_string_equal(mix__st_metadata(f, "note"), "a\nb \"c\"");
    assert_null(mix__st_metadata(f, "codes"));
    assert_null(mix__st_find(f, "arch"));
}

static void test_round_trip(void **state)
{
    (void)state;
    struct mix__st_file *f;
    CHECK_OK(mix__st_save(ctx, "f", tensors, MIX_COUNT(tensors), metadata));
    CHECK_OK(mix__st_open(&f, ctx, "f"));
    check_same(f);
    assert_string_equal(mix__st_at(f, 0)->name, "step");
    mix__st_close(f);
    mix__st_close(NULL);
}

static void test_nothing(void **state)
{
    (void)state;
    struct mix__st_file *f;
    CHECK_OK(mix__st_save(ctx, "f", NULL, 0, NULL));
    check_bytes("f", "\10\0\0\0\0\0\0\0{}      ", 16);
    CHECK_OK(mix__st_open(&f, ctx, "f"));
    assert_int_equal(mix__st_count(f), 0);
    assert_null(mix__st_metadata(f, "arch"));
    mix__st_close(f);
}

static void test_layout(void **state)
{
    (void)state;
    static const char header[] =
        "{\"__metadata__\":{\"k\":\"v\"},"
        "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
        "\"b\":{\"dtype\":\"U8\",\"shape\":[3,1],\"data_offsets\":[8,11]}}";
    const struct mix__st_tensor two[] = {
        { "b", MIX__ST_U8, 2, { 3, 1 }, codes, 3 },
        { "a", MIX__ST_F32, 1, { 2 }, floats, 8 },
    };
    unsigned char expected[8 + 160 + 11];
    size_t n = strlen(header);
    memset(expected, ' ', sizeof expected);
    memcpy(expected + 8, header, n);
    n = (n + 7) / 8 * 8;
    memcpy(expected, (unsigned char[8]){ (unsigned char)n }, 8);
    memcpy(expected + 8 + n, "\0\0\0\x3f\0\0\x80\xbf\1\2\xff", 11);
    CHECK_OK(mix__st_save(ctx, "f", two, 2, (const char *const[]){ "k", "v", NULL }));
    check_bytes("f", expected, 8 + n + 11);
}

/* Dtypes that are only carried, tensors that lie unaligned, an odd header length. */
static void test_foreign(void **state)
{
    (void)state;
    struct mix__st_file *f;
    write_file(
        "f",
        "{\"h\":{\"data_offsets\":[7,11],\"shape\":[2],\"dtype\":\"BF16\"},"
        "\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[3,7]},"
        "\"e\":{\"dtype\":\"F64\",\"shape\":[5,0],\"data_offsets\":[3,3]},"
        "\"q\":{\"dtype\":\"F4\",\"shape\":[3,2],\"data_offsets\":[0,3],\"more\":null}}   \n",
        11);
    CHECK_OK(mix__st_open(&f, ctx, "f"));
    static const char *const order[] = { "q", "e", "x", "h" };
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(mix__st_at(f, i)->name, order[i]);
    const struct mix__st_tensor *x = mix__st_find(f, "x");
    assert_int_equal((uintptr_t)x->data % 4, 0);
    assert_memory_equal(x->data, "\3\4\5\6", 4);
    assert_int_equal(mix__st_find(f, "h")->dtype, MIX__ST_BF16);
    assert_int_equal(mix__st_find(f, "q")->dtype, MIX__ST_OTHER);
    assert_int_equal(mix__st_find(f, "h")->bytes, 4);
    assert_memory_equal(mix__st_find(f, "h")->data, "\7\10\11\12", 4);
    assert_int_equal(mix__st_find(f, "e")->bytes, 0);
    mix__st_close(f);
}

#define T(name, dtype, shape, offsets)                                                             \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static const struct {
    const char *header;
    size_t data;
    const char *says;
    mix_status status; /* 0: MIX_EFORMAT */
} hostile[] = {
    { "", 0, "f: byte 8: ", 0 },
    { "{", 0, "f: byte 9: ", 0 },
    { "[]", 0, "f: byte 8: expected one JSON object", 0 },
    { "{} {}", 0, "f: byte 1", 0 },
    { "{\"\\u0000\":1}", 0, "f: byte 1", 0 },
    { "{\"\xff\":1}", 0, "f: byte 1", 0 },
    { "{\"a\":1}", 0, "'a': ", 0 },
    { "{\"a\":[]}", 0, "'a': ", 0 },
    { "{\"a\":{}}", 0, "'a': ", 0 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[0]}}", 0, "data_offsets", 0 },
    { "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,0]}}", 0, "shape", 0 },
    { "{\"a\":{\"dtype\":7,\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "'a': ", 0 },
    { "{" T("a", "F33", "[0]", "[0,0]") "}", 0, "unknown dtype 'F33'", 0 },
    { "{" T("a", "F32", "1", "[0,4]") "}", 4, "shape is no array", 0 },
    { "{" T("a", "F32", "[-1]", "[0,4]") "}", 4, "dimension 0", 0 },
    { "{" T("a", "F32", "[1,1.0]", "[0,4]") "}", 4, "dimension 1", 0 },
    { "{" T("a", "F32", "[\"1\"]", "[0,4]") "}", 4, "dimension 0", 0 },
    { "{" T("a", "F32", "[99999999999999999999]", "[0,4]") "}", 4, "f: byte 57: ", 0 },
    { "{" T("a", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "9 dimensions", MIX_EUNSUPPORTED },
    { "{" T("a", "F32", "[4611686018427387905]", "[0,4]") "}", 4, "whole number of bytes", 0 },
    { "{" T("a", "F32", "[2147483648,2147483648,4]", "[0,0]") "}", 0, "whole number of bytes", 0 },
    { "{" T("a", "F4", "[3]", "[0,1]") "}", 1, "whole number of bytes", 0 },
    { "{" T("a", "F32", "[1]", "4") "}", 4, "'a': ", 0 },
    { "{" T("a", "F32", "[1]", "[4]") "}", 4, "'a': ", 0 },
    { "{" T("a", "F32", "[1]", "[0,4,4]") "}", 4, "'a': ", 0 },
    { "{" T("a", "F32", "[1]", "[0,4.0]") "}", 4, "'a': ", 0 },
    { "{" T("a", "F32", "[1]", "[-4,0]") "}", 4, "not inside the 4 bytes", 0 },
    { "{" T("a", "F32", "[1]", "[4,0]") "}", 4, "not inside the 4 bytes", 0 },
    { "{" T("a", "F32", "[1]", "[4,8]") "}", 4, "not inside the 4 bytes", 0 },
    { "{" T("a", "F32", "[1]", "[0,9223372036854775807]") "}", 4, "not inside", 0 },
    { "{" T("a", "F32", "[1]", "[-9223372036854775808,9223372036854775807]") "}", 4, "not inside",
      0 },
    { "{" T("a", "F32", "[1]", "[0,3]") "}", 3, "make 4 bytes, data_offsets 3", 0 },
    { "{" T("a", "F16", "[1]", "[0,4]") "}", 4, "make 2 bytes, data_offsets 4", 0 },
    { "{" T("a", "F32", "[1]", "[0,4]") "}", 5, "byte 66: 1 bytes here belong to no tensor", 0 },
    { "{}", 1, "byte 10: 1 bytes here belong to no tensor", 0 },
    { "{" T("a", "F32", "[1]", "[1,5]") "}", 5, "there is a hole", 0 },
    { "{" T("a", "U8", "[1]", "[0,1]") "," T("b", "U8", "[1]", "[2,3]") "}", 3, "a hole", 0 },
    { "{" T("a", "U8", "[2]", "[0,2]") "," T("b", "U8", "[2]", "[1,3]") "}", 3, "overlap", 0 },
    { "{" T("a", "U8", "[2]", "[0,2]") "," T("b", "U8", "[2]", "[0,2]") "}", 2, "overlap", 0 },
    { "{" T("a", "U8", "[2]", "[0,2]") "," T("b", "U8", "[0]", "[1,1]") "}", 2, "overlap", 0 },
    { "{" T("a", "U8", "[1]", "[0,1]") "," T("a", "U8", "[1]", "[1,2]") "}", 2, "duplicate", 0 },
    { "{\"__metadata__\":[]}", 0, "__metadata__ is no object", 0 },
    { "{\"__metadata__\":{\"a\":1}}", 0, "'a' is no string", 0 },
};

static void test_hostile(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_COUNT(hostile); i++) {
        struct mix__st_file *f = (void *)&f;
        const mix_status status = hostile[i].status ? hostile[i].status : MIX_EFORMAT;
        write_file("f", hostile[i].header, hostile[i].data);
        print_message("%s\n", hostile[i].header);
        CHECK_FAILS(ctx, mix__st_open(&f, ctx, "f"), status, hostile[i].says);
        assert_memory_equal(mix_ctx_error(ctx), "f: byte ", 8);
        assert_null(f);
    }
    /* the same without what is wrong */
    struct mix__st_file *f;
    write_file("f", "{" T("a", "F32", "[1]", "[0,4]") "}", 4);
    CHECK_OK(mix__st_open(&f, ctx, "f"));
    mix__st_close(f);
}

static void test_nesting(void **state)
{
    (void)state;
    struct mix__st_file *f;
    char header[4001];
    memset(header, '[', sizeof header - 1);
    header[sizeof header - 1] = '\0';
    write_file("f", header, 0);
    CHECK_FAILS(ctx, mix__st_open(&f, ctx, "f"), MIX_EFORMAT, "depth");
}

static void test_header_length(void **state)
{
    (void)state;
    struct mix__st_file *f;
    static const uint64_t lengths[] = {
        3, 100000000, 100000001, UINT64_C(1) << 32, UINT64_MAX - 7, UINT64_MAX
    };
    for (size_t i = 0; i < MIX_COUNT(lengths); i++) {
        char bytes[10] = "????????{}";
        memcpy(bytes, &lengths[i], 8);
        write_bytes("f", bytes, 10);
        CHECK_FAILS(ctx, mix__st_open(&f, ctx, "f"), MIX_EFORMAT, "f: byte 0: a header of");
    }
    CHECK_FAILS(ctx, mix__st_open(&f, ctx, "no"), MIX_EIO, "no: cannot open");
}

static size_t read_all(const char *path, char *bytes, size_t room)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    const size_t n = fread(bytes, 1, room, f);
    assert_true(n < room);
    fclose(f);
    return n;
}

static void test_truncation(void **state)
{
    (void)state;
    struct mix__st_file *f;
    char bytes[4096];
    CHECK_OK(mix__st_save(ctx, "f", tensors, MIX_COUNT(tensors), metadata));
    const size_t size = read_all("f", bytes, sizeof bytes);
    for (size_t n = 0; n < size; n++) {
        write_bytes("cut", bytes, n);
        CHECK_FAILS(ctx, mix__st_open(&f, ctx, "cut"), MIX_EFORMAT,
                    n < 8 ? "cut: byte 0: expected the header's length" : "cut: byte ");
    }
    bytes[size] = 0;
    write_bytes("cut", bytes, size + 1);
    CHECK_FAILS(ctx, mix__st_open(&f, ctx, "cut"), MIX_EFORMAT, "belong to no tensor");
}

/* Every byte of the header replaced: opened or refused, never worse. */
static void test_corruption(void **state)
{
    (void)state;
    static const char values[] = "\0\xff 9-\"{}[],:";
    struct mix__st_file *f;
    char bytes[4096];
    int refused = 0;
    CHECK_OK(mix__st_save(ctx, "f", tensors, MIX_COUNT(tensors), metadata));
    const size_t size = read_all("f", bytes, sizeof bytes), header = size - 63;
    for (size_t i = 0; i < header; i++) {
        for (size_t v = 0; v < sizeof values - 1; v++) {
            const char before = bytes[i];
            bytes[i] = values[v];
            write_bytes("bad", bytes, size);
            bytes[i] = before;
            refused += mix__st_open(&f, ctx, "bad") != MIX_OK;
            mix__st_close(f);
        }
    }
    assert_true(refused > (int)header);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct fault fault;
    struct mix__st_file *f;
    mix_status status;
    size_t left = 0;
    mix_ctx *small = fault_ctx(&fault, 0);
    write_bytes("f", "old", 3);
    do {
        fault.left = left++;
        status = mix__st_save(small, "f", tensors, MIX_COUNT(tensors), metadata);
        assert_int_equal(fault.live, 0);
        if (status != MIX_OK)
            check_bytes("f", "old", 3);
    } while (status == MIX_ENOMEM);
    CHECK_OK(status);
    assert_true(left > 2);
    write_file("odd", "{" T("a", "F32", "[1]", "[1,5]") "," T("b", "U8", "[1]", "[0,1]") "}", 5);
    left = 0;
    do {
        fault.left = left++;
        status = mix__st_open(&f, small, "odd");
        assert_int_equal(status == MIX_OK, f != NULL);
        mix__st_close(f);
        assert_int_equal(fault.live, 0);
    } while (status == MIX_ENOMEM);
    CHECK_OK(status);
    assert_true(left > 4);
    fault_ctx_free(&fault, small);
}

static struct fault json_fault;

static void *json_alloc(size_t bytes)
{
    return fault_alloc(&json_fault, bytes);
}

static void json_free(void *block)
{
    if (block)
        fault_free(&json_fault, block);
}

/* jansson has its own memory; it cannot always say why it failed. */
static void test_no_memory_for_json(void **state)
{
    (void)state;
    struct mix__st_file *f;
    mix_status status = MIX_ENOMEM;
    CHECK_OK(mix__st_save(ctx, "f", tensors, MIX_COUNT(tensors), metadata));
    json_set_alloc_funcs(json_alloc, json_free);
    for (size_t left = 0; status != MIX_OK && left < 10000; left++) {
        json_fault = (struct fault){ .left = left };
        status = mix__st_open(&f, ctx, "f");
        assert_true(status == MIX_OK || status == MIX_ENOMEM || status == MIX_EFORMAT);
        mix__st_close(f);
        assert_int_equal(json_fault.live, 0);
    }
    CHECK_OK(status);
    status = MIX_ENOMEM;
    for (size_t left = 0; status != MIX_OK && left < 10000; left++) {
        json_fault = (struct fault){ .left = left };
        status = mix__st_save(ctx, "f", tensors, MIX_COUNT(tensors), metadata);
        assert_true(status == MIX_OK || status == MIX_ENOMEM || status == MIX_EINVAL);
        assert_int_equal(json_fault.live, 0);
        json_fault.left = SIZE_MAX;
        CHECK_OK(mix__st_open(&f, ctx, "f")); /* the old one or the new one: whole */
        check_same(f);
        mix__st_close(f);
    }
    json_set_alloc_funcs(malloc, free);
    CHECK_OK(status);
}

static void test_bad_saves(void **state)
{
    (void)state;
    struct mix__st_tensor t = tensors[1];
    t.bytes--;
    CHECK_FAILS(ctx, mix__st_save(ctx, "f", &t, 1, NULL), MIX_EINVAL, "'layer.weight'");
    t = tensors[1];
    t.dtype = MIX__ST_OTHER;
    CHECK_FAILS(ctx, mix__st_save(ctx, "f", &t, 1, NULL), MIX_EINVAL, "'layer.weight'");
    t = tensors[1];
    t.name = "__metadata__";
    CHECK_FAILS(ctx, mix__st_save(ctx, "f", &t, 1, NULL), MIX_EINVAL, "the name is taken");
    t.name = "\xff";
    CHECK_FAILS(ctx, mix__st_save(ctx, "f", &t, 1, NULL), MIX_EINVAL, "UTF-8");
    const struct mix__st_tensor twice[] = { tensors[0], tensors[0] };
    CHECK_FAILS(ctx, mix__st_save(ctx, "f", twice, 2, NULL), MIX_EINVAL, "the name is taken");
    CHECK_FAILS(ctx, mix__st_save(ctx, "f", tensors, 1, (const char *const[]){ "k", "\xff", NULL }),
                MIX_EINVAL, "metadata 'k'");
    CHECK_FAILS(ctx, mix__st_save(ctx, "no/f", tensors, 1, NULL), MIX_EIO, "no/f.part");
    assert_false(mix__path_exists("f"));
}

static void test_full_disk(void **state)
{
    (void)state;
    static float much[1 << 18];
    const struct mix__st_tensor sizes[] = {
        { "x", MIX__ST_F32, 1, { 1 }, much, 4 },
        { "x", MIX__ST_F32, 1, { 1 << 18 }, much, sizeof much },
    };
    write_bytes("f", "old", 3);
    for (size_t i = 0; i < MIX_COUNT(sizes); i++) {
        disk_holds(10);
        CHECK_FAILS(ctx, mix__st_save(ctx, "f", &sizes[i], 1, NULL), MIX_EIO, "cannot write");
        disk_holds(-1);
        check_bytes("f", "old", 3);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_round_trip),
        TEST(test_nothing),
        TEST(test_layout),
        TEST(test_foreign),
        TEST(test_hostile),
        TEST(test_nesting),
        TEST(test_header_length),
        TEST(test_truncation),
        TEST(test_corruption),
        TEST(test_no_memory),
        TEST(test_no_memory_for_json),
        TEST(test_bad_saves),
        TEST(test_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
