#include "in_folder.h"

#include <sys/stat.h>

#include "base/file.h"

static void test_read(void **state)
{
    (void)state;
    char *bytes;
    size_t size;
    write_bytes("f", "a\0b", 3);
    CHECK_OK(mix__file_read(ctx, "f", 3, &bytes, &size));
    assert_int_equal(size, 3);
    assert_memory_equal(bytes, "a\0b\0", 4);
    mix__free(ctx, bytes);
    CHECK_FAILS(ctx, mix__file_read(ctx, "f", 2, &bytes, &size), MIX_EIO, "f: 3 bytes, at most 2");
    assert_null(bytes);
    write_bytes("empty", "", 0);
    CHECK_OK(mix__file_read(ctx, "empty", 0, &bytes, &size));
    assert_int_equal(size, 0);
    assert_int_equal(bytes[0], 0);
    mix__free(ctx, bytes);
}

static void test_read_what_is_no_file(void **state)
{
    (void)state;
    char *bytes;
    size_t size;
    CHECK_FAILS(ctx, mix__file_read(ctx, "no/f", 9, &bytes, &size), MIX_EIO, "no/f: cannot open");
    CHECK_FAILS(ctx, mix__file_read(ctx, ".", 9, &bytes, &size), MIX_EIO, "found a folder");
    assert_int_equal(mkfifo("pipe", 0600), 0);
    CHECK_FAILS(ctx, mix__file_read(ctx, "pipe", 9, &bytes, &size), MIX_EIO, "device or pipe");
}

static void test_write(void **state)
{
    (void)state;
    struct mix__file_writer w;
    write_bytes("f", "old", 3);
    CHECK_OK(mix__file_begin(&w, ctx, "f"));
    CHECK_OK(mix__file_write(&w, "new", 3));
    CHECK_OK(mix__file_write(&w, NULL, 0));
    check_bytes("f", "old", 3); /* nothing appears before the commit */
    assert_true(mix__path_exists("f.part"));
    CHECK_OK(mix__file_commit(&w));
    check_bytes("f", "new", 3);
    assert_false(mix__path_exists("f.part"));
    mix__file_abandon(&w);
    check_bytes("f", "new", 3);
}

static void test_abandon(void **state)
{
    (void)state;
    struct mix__file_writer w;
    write_bytes("f", "old", 3);
    CHECK_OK(mix__file_begin(&w, ctx, "f"));
    CHECK_OK(mix__file_write(&w, "new", 3));
    mix__file_abandon(&w);
    mix__file_abandon(&w);
    check_bytes("f", "old", 3);
    assert_false(mix__path_exists("f.part"));
}

static void begin_on_full_disk(struct mix__file_writer *w)
{
    write_bytes("f", "old", 3);
    disk_holds(0);
    CHECK_OK(mix__file_begin(w, ctx, "f"));
}

static void test_full_disk_at_write(void **state)
{
    (void)state;
    struct mix__file_writer w;
    static char much[1 << 20];
    begin_on_full_disk(&w);
    CHECK_FAILS(ctx, mix__file_write(&w, much, sizeof much), MIX_EIO, "f.part: cannot write");
    mix__file_abandon(&w);
    disk_holds(-1);
    check_bytes("f", "old", 3);
    assert_int_not_equal(access("f.part", F_OK), 0);
}

static void test_full_disk_at_commit(void **state)
{
    (void)state;
    struct mix__file_writer w;
    begin_on_full_disk(&w);
    CHECK_OK(mix__file_write(&w, "new", 3));
    CHECK_FAILS(ctx, mix__file_commit(&w), MIX_EIO, "f.part: cannot write");
    mix__file_abandon(&w);
    disk_holds(-1);
    check_bytes("f", "old", 3);
    assert_int_not_equal(access("f.part", F_OK), 0);
}

static mix_status print_all(void *user, FILE *out)
{
    static const char much[1 << 20];
    const size_t *n = user;
    fwrite(much, 1, *n, out);
    return *n > sizeof much / 2 ? MIX_OK : mix__fail(ctx, MIX_EINVAL, "too little");
}

/* Nobody looked whether the words came out: the commit does. */
static void test_print(void **state)
{
    (void)state;
    struct mix__file_writer w;
    size_t n = 1 << 20;
    CHECK_OK(mix__file_print(ctx, "g", print_all, &n));
    n = 3;
    CHECK_FAILS(ctx, mix__file_print(ctx, "f", print_all, &n), MIX_EINVAL, "too little");
    assert_int_not_equal(access("f", F_OK), 0);
    assert_int_not_equal(access("f.part", F_OK), 0);
    begin_on_full_disk(&w);
    n = 1 << 20;
    assert_int_equal(print_all(&n, w.file), MIX_OK);
    CHECK_FAILS(ctx, mix__file_commit(&w), MIX_EIO, "f.part: cannot write");
    disk_holds(-1);
    check_bytes("f", "old", 3);
}

static void test_bad_targets(void **state)
{
    (void)state;
    struct mix__file_writer w;
    CHECK_FAILS(ctx, mix__file_begin(&w, ctx, "no/f"), MIX_EIO, "no/f.part: cannot create");
    mix__file_abandon(&w);
    assert_int_equal(mkdir("d", 0777), 0);
    CHECK_FAILS(ctx, mix__file_begin(&w, ctx, "d"), MIX_EIO, "d: expected a regular file");
    assert_false(mix__path_exists("d.part"));
    assert_int_equal(mkfifo("pipe", 0600), 0);
    CHECK_FAILS(ctx, mix__file_begin(&w, ctx, "pipe"), MIX_EIO, "found a device or pipe");
    assert_int_equal(mkfifo("p.part", 0600), 0);
    CHECK_FAILS(ctx, mix__file_begin(&w, ctx, "p"), MIX_EIO, "p.part: ");
    write_bytes("other", "old", 3);
    assert_int_equal(symlink("other", "s.part"), 0); /* not to be written through */
    CHECK_FAILS(ctx, mix__file_begin(&w, ctx, "s"), MIX_EIO, "s.part: cannot create");
    check_bytes("other", "old", 3);
    CHECK_OK(mix__file_begin(&w, ctx, "d/f")); /* the folder of the name is synced */
    CHECK_OK(mix__file_commit(&w));
    check_bytes("d/f", "", 0);
}

/* A link's target is replaced, and the link stays one. */
static void test_link(void **state)
{
    (void)state;
    write_bytes("f", "old", 3);
    assert_int_equal(symlink("f", "link"), 0);
    CHECK_OK(mix__file_save(ctx, "link", "new", 3));
    check_bytes("f", "new", 3);
    char to[8] = "";
    assert_int_equal(readlink("link", to, sizeof to), 1);
}

static void test_two_writers(void **state)
{
    (void)state;
    struct mix__file_writer a, b;
    write_bytes("f.part", "left by a killed process", 24);
    CHECK_OK(mix__file_begin(&a, ctx, "f"));
    CHECK_OK(mix__file_write(&a, "first", 5));
    CHECK_FAILS(ctx, mix__file_begin(&b, ctx, "f"), MIX_EIO, "f: another process is writing it");
    CHECK_OK(mix__file_commit(&a));
    check_bytes("f", "first", 5);
    CHECK_OK(mix__file_begin(&b, ctx, "f"));
    CHECK_OK(mix__file_commit(&b));
    check_bytes("f", "", 0);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct fault f;
    mix_ctx *small = fault_ctx(&f, 0);
    struct mix__file_writer w;
    for (size_t left = 0; left < 2; left++) {
        f.left = left;
        assert_int_equal(mix__file_begin(&w, small, "f"), MIX_ENOMEM);
        assert_int_equal(f.live, 0);
        mix__file_abandon(&w);
    }
    char *bytes;
    size_t size;
    write_bytes("f", "abc", 3);
    assert_int_equal(mix__file_read(small, "f", 3, &bytes, &size), MIX_ENOMEM);
    assert_null(bytes);
    assert_int_equal(mix__make_folder(small, "d"), MIX_ENOMEM);
    assert_null(mix__path_join(small, "a", "b"));
    fault_ctx_free(&f, small);
}

static void test_folders(void **state)
{
    (void)state;
    CHECK_OK(mix__make_folder(ctx, "a/b//c/"));
    CHECK_OK(mix__make_folder(ctx, "a/b/c"));
    CHECK_OK(mix__make_folder(ctx, "/"));
    assert_true(mix__path_exists("a/b/c"));
    write_bytes("a/f", "", 0);
    CHECK_FAILS(ctx, mix__make_folder(ctx, "a/f"), MIX_EIO, "a/f: cannot make the folder");
    CHECK_FAILS(ctx, mix__make_folder(ctx, "a/f/g"), MIX_EIO, "a/f: cannot make the folder");
    CHECK_FAILS(ctx, mix__make_folder(ctx, ""), MIX_EINVAL, "empty");
    assert_int_equal(symlink("nowhere", "a/link"), 0);
    CHECK_FAILS(ctx, mix__make_folder(ctx, "a/link"), MIX_EIO, "make the folder: File exists");
    assert_false(mix__path_exists("a/g"));
}

static void test_join(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        { "a", "b", "a/b" }, { "a/", "b", "a/b" }, { "", "b", "b" }, { "/", "b", "/b" }
    };
    for (size_t i = 0; i < MIX_COUNT(cases); i++) {
        char *path = mix__path_join(ctx, cases[i][0], cases[i][1]);
        assert_string_equal(path, cases[i][2]);
        mix__free(ctx, path);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_read),
        TEST(test_read_what_is_no_file),
        TEST(test_write),
        TEST(test_abandon),
        TEST(test_full_disk_at_write),
        TEST(test_full_disk_at_commit),
        TEST(test_print),
        TEST(test_bad_targets),
        TEST(test_link),
        TEST(test_two_writers),
        TEST(test_no_memory),
        TEST(test_folders),
        TEST(test_join),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
