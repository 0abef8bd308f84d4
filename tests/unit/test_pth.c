/*
 * Files that PyTorch wrote (make_pth.py): the values that it was given come back, and files that
 * are cut, damaged or hostile are refused or read, never worse.
 */
#include "in_folder.h"

#include <math.h>

#include "format/pth.h"

#define FOLDER MIX_TESTS_DIR "/unit/pth/"

static char log_text[1024];

static void keep_log(void *user, mix_log_level level, const char *line)
{
    (void)user;
    (void)level;
    snprintf(log_text, sizeof log_text, "%s", line);
}

static int logged_set_up(void **state)
{
    (void)state;
    mix_ctx_options options;
    mix_ctx_options_init(&options);
    options.log = keep_log;
    CHECK_OK(mix_ctx_new(&ctx, &options));
    enter_folder();
    log_text[0] = '\0';
    return 0;
}

/* make_pth.py's tensors(). */
static const struct {
    const char *name;
    enum mix__st_dtype dtype;
    int rank;
    int64_t dims[3];
    float values[8];
} expected[] = {
    { "transposed", MIX__ST_F32, 2, { 3, 2 }, { 0.0f, 1.5f, 0.5f, 2.0f, 1.0f, 2.5f } },
    { "half", MIX__ST_F16, 1, { 4 }, { 1.5f, -2.0f, 65504.0f, 0x1p-24f } },
    { "bfloat", MIX__ST_BF16, 1, { 2 }, { 1.5f, -0x1p100f } },
    { "double", MIX__ST_F64, 1, { 2 }, { 0.1f, -1e-3f } },
    { "parameter", MIX__ST_F32, 2, { 1, 2 }, { 3.0f, 4.0f } },
    { "bn.num_batches_tracked", MIX__ST_I64, 0, { 0 }, { 0 } },
    { "shared.a", MIX__ST_F32, 1, { 3 }, { 5.0f, 6.0f, 7.0f } },
    { "shared.b", MIX__ST_F32, 1, { 3 }, { 1.0f, 4.0f, 7.0f } },
    { "expanded", MIX__ST_F32, 2, { 2, 2 }, { 3.0f, 3.0f, 3.0f, 3.0f } },
    { "strided",
      MIX__ST_F32,
      3,
      { 2, 2, 2 },
      { 4.0f, 7.0f, 8.0f, 11.0f, 16.0f, 19.0f, 20.0f, 23.0f } },
    { "empty", MIX__ST_F32, 2, { 0, 3 }, { 0 } },
};

static bool is_expected(const struct mix__tensors *f)
{
    bool same = mix__tensors_count(f) == MIX_COUNT(expected);
    for (size_t i = 0; i < MIX_COUNT(expected) && same; i++) {
        const struct mix__tensor_view *t = mix__tensors_find(f, expected[i].name);
        float values[8];
        same = t && t->dtype == expected[i].dtype && t->rank == expected[i].rank &&
               memcmp(t->dims, expected[i].dims, (size_t)t->rank * sizeof *t->dims) == 0 &&
               t->count <= 8;
        if (same && mix__tensor_floats(t, values))
            same = memcmp(values, expected[i].values, t->count * sizeof *values) == 0;
        else if (same)
            same = t->dtype == MIX__ST_I64 && t->count == 1 && t->data[0] == 7;
    }
    return same;
}

static void test_written_by_torch(void **state)
{
    static const char *const names[] = { "zip", "zip4", "legacy", "wrapped" };
    (void)state;
    for (size_t i = 0; i < MIX_COUNT(names); i++) {
        struct mix__tensors *f;
        char path[4096];
        snprintf(path, sizeof path, FOLDER "%s.pth", names[i]);
        CHECK_OK(mix__tensors_open(&f, ctx, path));
        print_message("%s\n", names[i]);
        assert_true(is_expected(f));
        assert_string_equal(mix__tensors_at(f, 0)->name, "transposed");
        assert_null(mix__tensors_find(f, "epoch"));
        mix__tensors_close(f);
    }
    assert_non_null(strstr(log_text, "wrapped.pth: 'state_dict' is read, 5 keys beside it"));
}

static void test_nothing_is_run(void **state)
{
    struct mix__tensors *f;
    (void)state;
    CHECK_FAILS(ctx, mix__tensors_open(&f, ctx, FOLDER "system.pth"), MIX_EFORMAT,
                "the file asks for Python's 'posix.system', which is not run here");
    assert_null(f);
}

/* ---- damage ---- */

static char bytes[8192];

static size_t load(const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, FOLDER "%s.pth", name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    const size_t n = fread(bytes, 1, sizeof bytes, file);
    assert_true(n < sizeof bytes);
    fclose(file);
    return n;
}

/* Reads a copy of the bytes that ends where its block ends, for the sanitizers. */
static bool refused_copy(size_t size)
{
    struct mix__tensor_view *views = (void *)&views;
    size_t n;
    char *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, size);
    if (!mix__pth_is(copy, size)) {
        free(copy);
        return true;
    }
    const mix_status status = mix__pth_read(&views, &n, ctx, "f", copy, size);
    assert_true(status == MIX_OK || status == MIX_EFORMAT || status == MIX_EUNSUPPORTED);
    assert_int_equal(status == MIX_OK, views != NULL);
    if (status != MIX_OK)
        assert_memory_equal(mix_ctx_error(ctx), "f: ", 3);
    for (size_t i = 0; i < n; i++) {
        float values[4096];
        if (views[i].count <= MIX_COUNT(values))
            (void)!mix__tensor_floats(&views[i], values);
    }
    mix__free(ctx, views);
    free(copy);
    return status != MIX_OK;
}

static void test_truncation(void **state)
{
    static const char *const names[] = { "zip", "legacy" };
    (void)state;
    for (size_t i = 0; i < MIX_COUNT(names); i++) {
        const size_t size = load(names[i]);
        for (size_t n = 0; n < size; n++)
            assert_true(refused_copy(n));
        assert_false(refused_copy(size));
    }
}

/* Every bit, and every byte as one that means much; what opens may be read. */
static void test_corruption(void **state)
{
    static const char *const names[] = { "zip", "legacy" };
    static const unsigned char values[] = { 255, '.', 'h' };
    size_t n_refused = 0;
    (void)state;
    for (size_t i = 0; i < MIX_COUNT(names); i++) {
        const size_t size = load(names[i]);
        for (size_t at = 0; at < size; at++) {
            for (int v = 0; v < 8 + (int)MIX_COUNT(values); v++) {
                const char before = bytes[at];
                bytes[at] = v < 8 ? before ^ 1 << v : (char)values[v - 8];
                if (bytes[at] == before)
                    continue;
                n_refused += refused_copy(size);
                bytes[at] = before;
            }
        }
    }
    assert_true(n_refused > 10000);
}

static void test_no_memory(void **state)
{
    static const char *const names[] = { FOLDER "zip.pth", FOLDER "legacy.pth" };
    struct fault fault;
    mix_ctx *small = fault_ctx(&fault, 0);
    (void)state;
    for (size_t i = 0; i < MIX_COUNT(names); i++) {
        struct mix__tensors *f;
        size_t left = 0;
        mix_status status;
        do {
            fault.left = left++;
            status = mix__tensors_open(&f, small, names[i]);
            assert_int_equal(status == MIX_OK, f != NULL);
            mix__tensors_close(f);
            assert_int_equal(fault.live, 0);
        } while (status == MIX_ENOMEM);
        CHECK_OK(status);
        assert_true(left > 8);
    }
    fault_ctx_free(&fault, small);
}

/* ---- exact changes ---- */

/* The changed file opens and holds what was expected. */
static void check_taken(size_t size)
{
    struct mix__tensors *f;
    write_bytes("f", bytes, size);
    CHECK_OK(mix__tensors_open(&f, ctx, "f"));
    assert_true(is_expected(f));
    mix__tensors_close(f);
}

/* The n bytes that follow `before`, which occurs in the file. */
static char *behind(size_t size, const char *before, size_t n_before)
{
    for (size_t at = 0; at + n_before < size; at++)
        if (memcmp(bytes + at, before, n_before) == 0)
            return bytes + at + n_before;
    fail_msg("the fixture is not as expected");
    return NULL;
}

#define BEHIND(size, before) behind(size, before, sizeof before - 1)

static void check_refused(size_t size, mix_status status, const char *says)
{
    struct mix__tensors *f;
    write_bytes("f", bytes, size);
    CHECK_FAILS(ctx, mix__tensors_open(&f, ctx, "f"), status, says);
    assert_null(f);
}

static void test_archive(void **state)
{
    (void)state;
    size_t size = load("zip");
    memcpy(BEHIND(size, "byteorder") - 9, "byteordex", 9); /* the local header's name is not used */
    check_taken(size);

    size = load("zip");
    for (size_t i = 0; i + 6 <= size; i++)
        if (memcmp(bytes + i, "little", 6) == 0)
            memcpy(bytes + i, "bigger", 6);
    check_refused(size, MIX_EUNSUPPORTED, "byte order is not 'little'");

    /* Method and flags of the directory's first entry, data.pkl. */
    size = load("zip");
    BEHIND(size, "PK\1\2")[6] = 8;
    check_refused(size, MIX_EUNSUPPORTED, "entry 'zip/data.pkl' is compressed or encrypted");
    size = load("zip");
    BEHIND(size, "PK\1\2")[4] |= 1;
    check_refused(size, MIX_EUNSUPPORTED, "compressed or encrypted");
    size = load("zip");
    char *place = BEHIND(size, "PK\1\2") + 38;
    memcpy(place, "\xf0\xff\xff\x7f", 4);
    check_refused(size, MIX_EFORMAT, "expected the header of entry 'zip/data.pkl'");
    size = load("zip");
    place = BEHIND(size, "PK\1\2") + 16; /* both sizes */
    memcpy(place, "\xf0\xff\xff\x7f\xf0\xff\xff\x7f", 8);
    check_refused(size, MIX_EFORMAT, "ends behind the file");

    size = load("zip"); /* without its ZIP64 records: still an archive */
    memcpy(BEHIND(size, "PK\6\7") - 4, "none", 4);
    check_taken(size);
    size = load("zip");
    BEHIND(size, "PK\6\7")[4] ^= 1;
    check_refused(size, MIX_EFORMAT, "expected the ZIP64 end record");
    size = load("zip");
    memset(BEHIND(size, "PK\6\6") + 28, 255, 8); /* number of entries */
    check_refused(size, MIX_EFORMAT, "is not inside the file");
    size = load("zip");
    memset(BEHIND(size, "PK\6\6") + 44, 255, 8); /* place of the directory */
    check_refused(size, MIX_EFORMAT, "is not inside the file");
}

/* "half" is a tensor of 4 elements at offset 0 with stride 1: K4 tqNQ K0 K4 85qN K1 85qN. */
static char *half_numbers(size_t size)
{
    char *at = BEHIND(size, "HalfStorage");
    while (memcmp(at, "QK\0K\4\x85", 6) != 0)
        at++;
    return at;
}

static void test_bounds(void **state)
{
    (void)state;
    size_t size = load("zip");
    half_numbers(size)[4] = 5; /* size */
    check_refused(size, MIX_EFORMAT, "'half': size, stride and offset reach beyond the 4 elements");
    size = load("zip");
    half_numbers(size)[2] = 1; /* offset */
    check_refused(size, MIX_EFORMAT, "'half': size, stride and offset reach beyond the 4 elements");
    size = load("zip");
    half_numbers(size)[9] = 2; /* stride */
    check_refused(size, MIX_EFORMAT, "'half': size, stride and offset reach beyond the 4 elements");
    size = load("zip");
    half_numbers(size)[4] = 3;
    struct mix__tensors *f;
    write_bytes("f", bytes, size);
    CHECK_OK(mix__tensors_open(&f, ctx, "f"));
    assert_int_equal(mix__tensors_find(f, "half")->count, 3);
    mix__tensors_close(f);

    size = load("legacy");
    half_numbers(size)[4] = 5;
    check_refused(size, MIX_EFORMAT, "'half': size");
    size = load("legacy");
    *BEHIND(size, "little_endianq\2") = (char)0x89; /* NEWFALSE */
    check_refused(size, MIX_EUNSUPPORTED, "little_endian");
}

/* ---- by hand ---- */

#define STORAGE "(U\7storagectorch\nFloatStorage\nU\1kU\3cpuK\4NtQ"
/* {"a": a tensor of 4 floats of storage k} with these pickled numbers */
#define TENSOR(offset, size, stride)                                                               \
    "}U\1actorch._utils\n_rebuild_tensor_v2\n(" STORAGE offset size stride "tRs."
#define K8(n) "K" n "K" n "K" n "K" n "K" n "K" n "K" n "K" n

static const struct {
    const char *object;
    size_t size;
    const char *says; /* NULL: it is good */
    mix_status status;
} objects[] = {
#define ST(object, says, status)                                                                   \
    {                                                                                              \
        object, sizeof(object) - 1, says, status                                                   \
    }
#define N(object, says) ST(object, says, MIX_EFORMAT)
    N(TENSOR("K\0", "K\4\x85", "K\1\x85"), NULL),
    N(TENSOR("K\1", "K\3K\1\x86", "K\1M\xff\xff\x86"), NULL), /* that stride is never taken */
    N(TENSOR("K\4", "K\0\x85", "K\1\x85"), NULL),
    N(TENSOR("K\5", "K\0\x85", "K\1\x85"), "'a': size, stride and offset reach beyond the 4"),
    N(TENSOR("J\377\377\377\377", "K\1\x85", "K\1\x85"), "'a': expected a tensor's storage"),
    N(TENSOR("K\2", "K\2\x85", "J\377\377\377\377\x85"), "'a': expected a tensor's storage"),
    N(TENSOR("K\0", "J\377\377\377\377\x85", "K\1\x85"), "'a': expected a tensor's storage"),
    N(TENSOR("K\0", "K\2K\2\x86", "K\1\x85"), "'a': expected a tensor's storage"),
    N(TENSOR("K\0", "(" K8("\1") "t", "(" K8("\1") "t"), NULL),
    N(TENSOR("K\0", "(" K8("\1") "K\1t", "(" K8("\1") "K\1t"), "in at most 8 dimensions"),
    /* 2^33 * 2^33 elements, a reach of 2^62 * 7, an offset near 2^63 */
    N(TENSOR("K\0", "\x8a\5\0\0\0\0\2\x8a\5\0\0\0\0\2\x86", "K\0K\0\x86"), "reach beyond"),
    N(TENSOR("K\0", "K\10\x85", "\x8a\10\0\0\0\0\0\0\0\x40\x85"), "reach beyond"),
    N(TENSOR("\x8a\10\377\377\377\377\377\377\377\177", "K\3\x85",
             "\x8a\10\377\377\377\377\377\377"
             "\377\177\x85"),
      "reach beyond"),
    /* 2^33 elements that all are one: not more than what they are read into */
    N(TENSOR("K\0", "\x8a\5\0\0\0\0\2\x85", "K\0\x85"), NULL),
    N(STORAGE ".", "no tensors by name"),
    N("}U\1a" STORAGE "s.", "no tensors by name"),
    N("}K\1" STORAGE "s.", "expected a tensor's name"),
    N("}U\2a\n" STORAGE "s.", "control characters"),
    N("}U\1aU\1kQs.", "expected a storage: its type, key, device and size"),
    N("}U\1a(U\7storagectorch\nSize\nU\1kU\3cpuK\4NtQs.", "expected a storage"),
    N("}U\1a(U\7storagectorch\nFloatStorage\nU\1kU\3cpuJ\377\377\377\377NtQs.",
      "expected a storage"),
    N("}U\1a" STORAGE "sU\1b(U\7storagectorch\nFloatStorage\nU\1kU\3cpuK\5NtQs.",
      "storage 'k' has another type or size than at byte"),
    N("}U\1a(U\7storagectorch\nFloatStorage\nU\1lU\3cpuK\4NtQs.", "that no tensor is made of"),
    N("}U\1a(U\7storagectorch\nFloatStorage\nU\1kU\3cpuK\5NtQs.", "has 4 elements; expected 5"),
    N("}U\1a(U\7storagectorch\nDoubleStorage\nU\1kU\3cpuK\4NtQs.",
      "of 4 elements of 8 bytes has 16"),
    ST("}U\1a(U\7storagectorch\nFloatStorage\nU\1kU\3cpuK\4U\1vK\0K\4\x87tQs.",
       "a storage that is a part of another one", MIX_EUNSUPPORTED),
#undef ST
#undef N
};

static size_t put(size_t at, const void *what, size_t size)
{
    assert_true(at + size <= sizeof bytes);
    memcpy(bytes + at, what, size);
    return at + size;
}

/* A legacy file of this object and of storage k with 4 floats. */
static size_t compose(const char *object, size_t size)
{
    static const char before[] = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
                                 "M\xe9\3.}U\15little_endian\x88s.";
    static const uint64_t n = 4;
    static const float values[4] = { 1.0f, 2.0f, 3.0f, 4.0f };
    size_t at = put(0, before, sizeof before - 1);
    at = put(at, object, size);
    at = put(at, "]U\1ka.", 6);
    at = put(at, &n, sizeof n);
    return put(at, values, sizeof values);
}

static void test_by_hand(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_COUNT(objects); i++) {
        const size_t size = compose(objects[i].object, objects[i].size);
        struct mix__tensors *f;
        if (objects[i].says) {
            check_refused(size, objects[i].status, objects[i].says);
            continue;
        }
        write_bytes("f", bytes, size);
        CHECK_OK(mix__tensors_open(&f, ctx, "f"));
        const struct mix__tensor_view *t = mix__tensors_find(f, "a");
        float values[4];
        assert_non_null(t);
        if (t->count <= 4)
            assert_true(mix__tensor_floats(t, values));
        if (t->count > 0 && t->count <= 4)
            assert_true(values[t->count - 1] == (t->count == 1 ? 1.0f : 4.0f));
        mix__tensors_close(f);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, logged_set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_written_by_torch), TEST(test_nothing_is_run), TEST(test_truncation),
        TEST(test_corruption),       TEST(test_no_memory),      TEST(test_archive),
        TEST(test_bounds),           TEST(test_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
