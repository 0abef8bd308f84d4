#include "support.h"

#include <pthread.h>

static void test_statuses(void **state)
{
    (void)state;
    assert_string_equal(mix_status_name(MIX_EFORMAT), "MIX_EFORMAT");
    assert_string_equal(mix_status_text(MIX_OK), "success");
    assert_string_equal(mix_status_name((mix_status)99), "MIX_?");
    assert_string_equal(mix_status_text((mix_status)1), "unknown status");
}

static void test_defaults(void **state)
{
    (void)state;
    mix_ctx *ctx = plain_ctx();
    assert_string_equal(mix_ctx_error(ctx), "");
    assert_in_range(mix_ctx_threads(ctx), 1, 256);
    assert_int_equal(mix_ctx_cpu(ctx) & ~(unsigned)(MIX_CPU_AVX2 | MIX_CPU_AVX512 | MIX_CPU_VNNI |
                                                    MIX_CPU_BF16 | MIX_CPU_BF16_PRODUCTS),
                     0);
    mix_ctx_free(ctx);
    mix_ctx_free(NULL);
}

static void test_options(void **state)
{
    (void)state;
    mix_ctx *ctx;
    mix_ctx_options o;
    mix_ctx_options_init(&o);
    o.threads = 7;
    o.cpu_mask = MIX_CPU_AVX512; /* stands on AVX2, which is masked */
    CHECK_OK(mix_ctx_new(&ctx, &o));
    assert_int_equal(mix_ctx_threads(ctx), 7);
    assert_int_equal(mix_ctx_cpu(ctx), 0);
    mix_ctx_free(ctx);
    o.cpu_mask = MIX_CPU_AVX2 | MIX_CPU_VNNI | MIX_CPU_BF16; /* these stand on AVX-512 */
    CHECK_OK(mix_ctx_new(&ctx, &o));
    assert_int_equal(mix_ctx_cpu(ctx) & ~(unsigned)MIX_CPU_AVX2, 0);
    mix_ctx_free(ctx);
    o.cpu_mask = MIX_CPU_ALL & ~(unsigned)MIX_CPU_BF16;
    CHECK_OK(mix_ctx_new(&ctx, &o));
    assert_int_equal(mix_ctx_cpu(ctx) & MIX_CPU_BF16_PRODUCTS, 0);
    mix_ctx_free(ctx);

    static const int bad[] = { -1, 257 };
    for (size_t i = 0; i < MIX_COUNT(bad); i++) {
        o.threads = bad[i];
        assert_int_equal(mix_ctx_new(&ctx, &o), MIX_EINVAL);
        assert_null(ctx);
    }
    mix_ctx_options_init(&o);
    o.allocator.free = NULL;
    assert_int_equal(mix_ctx_new(&ctx, &o), MIX_EINVAL);
    struct fault f = { .left = 0 };
    o.allocator = (mix_allocator){ fault_alloc, fault_free, &f };
    assert_int_equal(mix_ctx_new(&ctx, &o), MIX_ENOMEM);
    assert_null(ctx);
}

static void test_blocks(void **state)
{
    (void)state;
    struct fault f;
    mix_ctx *ctx = fault_ctx(&f, 100);
    for (size_t n = 0; n < 100; n++) {
        unsigned char *block = n % 2 ? mix__alloc(ctx, n, 3) : mix__zalloc(ctx, n, 3);
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % MIX_ALIGN, 0);
        for (size_t i = 0; i < 3 * n && n % 2 == 0; i++)
            assert_int_equal(block[i], 0);
        /* the whole last line may be written */
        memset(block, 0xa5, (3 * n + MIX_ALIGN - 1) / MIX_ALIGN * MIX_ALIGN);
        mix__free(ctx, block);
    }
    mix__free(ctx, NULL);
    assert_null(mix__alloc(ctx, 3, 5));
    assert_string_equal(mix_ctx_error(ctx), "out of memory: no room for 3 x 5 bytes");
    fault_ctx_free(&f, ctx);
}

static void test_overflow(void **state)
{
    (void)state;
    struct fault f;
    mix_ctx *ctx = fault_ctx(&f, 100);
    static const size_t sizes[][2] = {
        { SIZE_MAX, 1 },         { SIZE_MAX - 63, 1 }, { SIZE_MAX - 140, 1 },
        { SIZE_MAX / 2 + 1, 2 }, { 1, SIZE_MAX },      { (size_t)1 << 33, (size_t)1 << 33 }
    };
    for (size_t i = 0; i < MIX_COUNT(sizes); i++) {
        assert_null(mix__alloc(ctx, sizes[i][0], sizes[i][1]));
        assert_null(mix__zalloc(ctx, sizes[i][0], sizes[i][1]));
    }
    void *none = mix__alloc(ctx, SIZE_MAX, 0);
    assert_non_null(none);
    mix__free(ctx, none);
    fault_ctx_free(&f, ctx);
}

static void test_grow(void **state)
{
    (void)state;
    struct fault f;
    mix_ctx *ctx = fault_ctx(&f, 5);
    int *array = NULL;
    size_t capacity = 0, n = 0;
    while (mix__grow(ctx, &array, n, &capacity, sizeof *array) == MIX_OK) {
        assert_true(capacity > n);
        array[n] = (int)n;
        n++;
    }
    assert_int_equal(f.left, 0);
    assert_int_equal(capacity, n); /* left as it was */
    for (size_t i = 0; i < n; i++)
        assert_int_equal(array[i], i);
    f.left = 1;
    char *copy = mix__strdup(ctx, "name");
    assert_string_equal(copy, "name");
    assert_null(mix__strdup(ctx, "name"));
    mix__free(ctx, copy);
    mix__free(ctx, array);
    fault_ctx_free(&f, ctx);
}

static void test_sentence(void **state)
{
    (void)state;
    mix_ctx *ctx = plain_ctx();
    assert_int_equal(mix__fail(ctx, MIX_EIO, "byte %d", 7), MIX_EIO);
    assert_string_equal(mix_ctx_error(ctx), "byte 7");
    assert_int_equal(mix__fail(ctx, MIX_EINVAL, "%s, then", mix_ctx_error(ctx)), MIX_EINVAL);
    assert_string_equal(mix_ctx_error(ctx), "byte 7, then");
    assert_int_equal(mix__fail(ctx, MIX_EIO, "%02000d", 1), MIX_EIO);
    assert_int_equal(strlen(mix_ctx_error(ctx)), 1023);
    mix_ctx_free(ctx);
}

struct racer {
    mix_ctx *ctx;
    char letter;
};

static void *race(void *user)
{
    const struct racer *r = user;
    char text[512];
    memset(text, r->letter, sizeof text - 1);
    text[sizeof text - 1] = '\0';
    for (int i = 0; i < 2000; i++) {
        if (mix__fail(r->ctx, MIX_EIO, "%s", text) != MIX_EIO)
            return user;
    }
    return NULL;
}

static void test_threads_fail(void **state)
{
    (void)state;
    mix_ctx *ctx = plain_ctx();
    struct racer racers[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        racers[i] = (struct racer){ ctx, (char)('a' + i) };
        assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        void *failed;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    const char *sentence = mix_ctx_error(ctx);
    assert_int_equal(strlen(sentence), 511);
    assert_int_equal(strspn(sentence, (char[]){ sentence[0], '\0' }), 511);
    mix_ctx_free(ctx);
}

static void keep_line(void *user, mix_log_level level, const char *line)
{
    snprintf(user, 64, "%d %s", (int)level, line);
}

static void test_log(void **state)
{
    (void)state;
    char line[64] = "";
    mix_ctx *ctx = plain_ctx();
    mix__log(ctx, MIX_LOG_INFO, "nobody listens");
    mix_ctx_free(ctx);
    mix_ctx_options o;
    mix_ctx_options_init(&o);
    o.log = keep_line;
    o.log_user = line;
    CHECK_OK(mix_ctx_new(&ctx, &o));
    mix__log(ctx, MIX_LOG_WARNING, "%d images", 3);
    assert_string_equal(line, "1 3 images");
    mix_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statuses), cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_options),  cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_overflow), cmocka_unit_test(test_grow),
        cmocka_unit_test(test_sentence), cmocka_unit_test(test_threads_fail),
        cmocka_unit_test(test_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
