/*
 * test_runtime.c - the runtime's promises: the same numbers with every table and number of
 * threads, its operators against slow ones, memory near its floor, no allocation in a run, damaged
 * files, failing allocations.
 */
#include "net_fixture.h"
#include "slow_value.h"

#include "format/mix_file.h"
#include "tensor/packed.h"

enum { SIZE = 32, CLASSES = 7 };

static mix_zoo_options small(const char *arch, double width)
{
    mix_zoo_options options;
    mix_zoo_options_init(&options);
    options.arch = arch;
    options.width = width;
    options.size = SIZE;
    options.classes = CLASSES;
    return options;
}

static char *encoded(mix_ctx *ctx, const mix_zoo_options *options, int weight_bits, int act_bits,
                     size_t *size)
{
    struct net_fixture f;
    struct mix__net *net;
    char *bytes;
    fixture_make(&f, ctx, options, weight_bits, act_bits);
    CHECK_OK(fixture_lower(&f, &net));
    CHECK_OK(mix__mix_encode(net, &bytes, size));
    mix__net_free(net);
    fixture_release(&f);
    return bytes;
}

static void random_images(float *images, size_t n)
{
    for (size_t i = 0; i < n; i++)
        images[i] = (float)mix__random_normal(5, 0, i);
}

/* ---- slow operators ------------------------------------------------------------------------- */

/* Called after each operator: the sum for every output of a convolution, from codes alone. */
struct slow {
    mix_runtime *rt;
    size_t compared;
};

static void compare_slow(void *user, const mix_runtime_value *value)
{
    struct slow *s = user;
    const struct mix__step_plan *p = step_of(s->rt, value);
    const void *out = value->data;
    if (p->op->kind != MIX__NET_CONV)
        return;
    const size_t n = mix__net_weights(s->rt->net, p->op);
    int8_t *w = malloc(n);
    float *decoded = malloc(mix__net_elements(p->y) * sizeof *decoded);
    mix_runtime_decode(value, decoded);
    mix__codes_unpack(w, p->op->weights, n, p->op->weight_bits);
    for (int i = 0; i < p->y->h * p->y->w; i++)
        for (int k = 0; k<p->y->c; k += p->y->c> 64 ? 5 : 1, s->compared++) {
            const double exact_sum = slow_conv(s->rt, p, w, i / p->y->w, i % p->y->w, k);
            const float v = mix__activate((float)exact_sum, p->op->act);
            const size_t at = (size_t)i * p->y->c + k;
            if (!p->y->bits) {
                assert_true(fabs(((const float *)out)[at] - (double)v) <=
                            1e-4 * (1.0 + fabs(exact_sum)));
                continue;
            }
            const struct mix__bounds b = p->finish.bounds;
            const double exact = fmin(fmax((v + b.shift) / p->y->step, b.n), b.p);
            const double code = ((const uint8_t *)out)[at] + b.n;
            assert_true(fabs(code - exact) <= 0.5 + 1e-3);
            assert_float_equal(decoded[at], code * p->y->step - b.shift, 1e-5);
        }
    free(decoded);
    free(w);
}

static void check_slow(mix_ctx *ctx, const char *arch, int weight_bits, int act_bits)
{
    const mix_zoo_options options = small(arch, 0.25);
    size_t size;
    char *bytes = encoded(ctx, &options, weight_bits, act_bits, &size);
    struct slow s = { NULL, 0 };
    float image[SIZE * SIZE * 3], logits[CLASSES];
    random_images(image, MIX_COUNT(image));
    CHECK_OK(mix_runtime_open_bytes(&s.rt, ctx, bytes, size));
    mix_runtime_watch(s.rt, compare_slow, &s);
    mix_runtime_run(s.rt, image, 1, logits);
    assert_true(s.compared > 1000);
    mix_runtime_close(s.rt);
    mix__free(ctx, bytes);
}

static void test_against_slow(void **unused)
{
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    check_slow(ctx, "mobilenet_v2", 4, 4);
    check_slow(ctx, "mobilenet_v3_small", 8, 5); /* 5x5, shifted inputs, gates */
    check_slow(ctx, "resnet18", 3, 8);
    check_slow(ctx, "odd", 5, 6);
    mix_ctx_free(ctx);
}

/* ---- the same everywhere -------------------------------------------------------------------- */

/* Of all outputs of all operators so far. */
struct trace {
    mix_runtime *rt;
    uint64_t sum;
};

static void add_to_trace(void *user, const mix_runtime_value *value)
{
    struct trace *t = user;
    const unsigned char *bytes = value->data;
    const size_t n = mix__tensor_bytes(step_of(t->rt, value)->y);
    for (size_t i = 0; i < n; i++)
        t->sum = (t->sum ^ bytes[i]) * 0x100000001b3u;
}

static uint64_t traced(mix_ctx *ctx, const char *bytes, size_t size, const float *image)
{
    struct trace t = { NULL, 1 };
    float logits[CLASSES];
    CHECK_OK(mix_runtime_open_bytes(&t.rt, ctx, bytes, size));
    mix_runtime_watch(t.rt, add_to_trace, &t);
    mix_runtime_run(t.rt, image, 1, logits);
    mix_runtime_close(t.rt);
    return t.sum;
}

/* Codes as large as they get, of one sign: no kernel's 16-bit sums overflow, unsigned or signed. */
static void test_largest_codes(void **unused)
{
    static const unsigned masks[] = { 0, MIX_CPU_AVX2, MIX_CPU_ALL };
    static const int weight_bits[] = { 2, 4, 6, 8 };
    static float image[SIZE * SIZE * 3];
    (void)unused;
    for (size_t i = 0; i < MIX_COUNT(image); i++)
        image[i] = 1e3f;
    for (size_t b = 0; b < MIX_COUNT(weight_bits); b++) {
        const mix_zoo_options options = small("mobilenet_v2", 0.25);
        uint64_t sums[MIX_COUNT(masks)];
        for (size_t m = 0; m < MIX_COUNT(masks); m++) {
            mix_ctx_options o;
            mix_ctx *ctx;
            struct net_fixture f;
            struct mix__net *net;
            char *bytes;
            size_t size, channels = 0;
            mix_ctx_options_init(&o);
            o.cpu_mask = masks[m];
            CHECK_OK(mix_ctx_new(&ctx, &o));
            fixture_make(&f, ctx, &options, weight_bits[b], 8);
            for (size_t i = 0; i < f.graph->n_params; i++)
                for (size_t k = 0; k < f.graph->params[i].count; k++)
                    if (f.graph->params[i].kind == MIX__PARAM_WEIGHT)
                        f.graph->values[f.graph->params[i].offset + k] = 10.0f;
            for (size_t l = 0; l < f.graph->n_layers; l++) {
                f.act_step[l] = 1e-6f;
                channels += (size_t)f.graph->layers[l].info.out_channels;
            }
            for (size_t k = 0; k < channels; k++)
                f.weight_step[k] = 1e-2f;
            CHECK_OK(fixture_lower(&f, &net));
            CHECK_OK(mix__mix_encode(net, &bytes, &size));
            sums[m] = traced(ctx, bytes, size, image);
            mix__free(ctx, bytes);
            mix__net_free(net);
            fixture_release(&f);
            mix_ctx_free(ctx);
        }
        for (size_t m = 1; m < MIX_COUNT(masks); m++)
            assert_true(sums[m] == sums[0]);
    }
}

static void test_tables_and_threads(void **unused)
{
    static const unsigned masks[] = { 0, MIX_CPU_AVX2, MIX_CPU_AVX2 | MIX_CPU_AVX512, MIX_CPU_ALL };
    static const char *const archs[] = { "mobilenet_v2", "mobilenet_v3_large", "resnet50", "odd" };
    (void)unused;
    float *image = malloc(SIZE * SIZE * 3 * sizeof *image);
    random_images(image, SIZE * SIZE * 3);
    for (size_t a = 0; a < MIX_COUNT(archs); a++) {
        uint64_t want = 0;
        mix_ctx *ctx = plain_ctx();
        const mix_zoo_options net = small(archs[a], 0.25);
        size_t size;
        char *bytes = encoded(ctx, &net, a == 1 ? 8 : 4, 4, &size);
        for (size_t i = 0; i < 4 * MIX_COUNT(masks); i++) {
            mix_ctx *other;
            mix_ctx_options options;
            mix_ctx_options_init(&options);
            options.cpu_mask = masks[i / 4];
            options.threads = (int)(i % 4) + 1;
            CHECK_OK(mix_ctx_new(&other, &options));
            const uint64_t sum = traced(other, bytes, size, image);
            want = i ? want : sum;
            assert_true(sum == want);
            mix_ctx_free(other);
        }
        image[0] += 1.0f;
        assert_true(traced(ctx, bytes, size, image) != want);
        mix__free(ctx, bytes);
        mix_ctx_free(ctx);
    }
    free(image);
}

/* ---- memory --------------------------------------------------------------------------------- */

static void test_arena(void **unused)
{
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    for (const char *const *arch = mix_zoo_names(); *arch; arch++)
        for (int size = 32; size <= 224; size += 192) {
            struct net_fixture f;
            struct mix__net *net;
            struct mix__arena arena = { 0 };
            mix_zoo_options options = small(*arch, 0.5);
            options.size = size;
            fixture_make(&f, ctx, &options, 4, 4);
            CHECK_OK(fixture_lower(&f, &net));
            CHECK_OK(mix__arena_plan(&arena, net));
            assert_true(arena.bytes >= arena.live &&
                        (double)arena.bytes <= 1.1 * (double)arena.live);
            mix__free(ctx, arena.offset);
            mix__net_free(net);
            fixture_release(&f);
        }
    mix_ctx_free(ctx);
}

static void test_run_allocates_nothing(void **unused)
{
    struct fault fault;
    mix_runtime *rt;
    mix_runtime_info info;
    float image[SIZE * SIZE * 3], logits[CLASSES];
    size_t size;
    (void)unused;
    mix_ctx *ctx = fault_ctx(&fault, SIZE_MAX);
    const mix_zoo_options options = small("mobilenet_v3_small", 0.5);
    char *bytes = encoded(ctx, &options, 4, 4, &size);
    random_images(image, MIX_COUNT(image));
    CHECK_OK(mix_runtime_open_bytes(&rt, ctx, bytes, size));
    fault.left = 0;
    mix_runtime_run(rt, image, 1, logits);
    mix_runtime_info_get(rt, &info);
    assert_string_equal(info.name, "mobilenet_v3_small");
    assert_int_equal(info.classes, CLASSES);
    assert_true(info.height == SIZE && info.width == SIZE && info.channels == 3);
    assert_int_equal(info.layers, 54);
    assert_int_equal(info.file_bytes, size);
    assert_true(info.arena_bytes >= info.live_bytes && info.weight_bytes > 0);
    assert_null(mix_runtime_class_name(rt, 0));
    mix_runtime_close(rt);
    mix__free(ctx, bytes);
    fault_ctx_free(&fault, ctx);
}

static void test_no_memory(void **unused)
{
    mix_status status = MIX_ENOMEM;
    const mix_zoo_options options = small("mobilenet_v3_small", 0.25);
    size_t size;
    (void)unused;
    mix_ctx *own = plain_ctx();
    char *bytes = encoded(own, &options, 4, 4, &size);
    for (size_t left = 0; status == MIX_ENOMEM; left += left < 30 ? 1 : 11) {
        struct fault fault;
        mix_runtime *rt;
        mix_ctx *ctx = fault_ctx(&fault, left);
        status = mix_runtime_open_bytes(&rt, ctx, bytes, size);
        assert_true((status == MIX_OK) == (rt != NULL));
        mix_runtime_close(rt);
        fault_ctx_free(&fault, ctx);
    }
    CHECK_OK(status);
    mix__free(own, bytes);
    mix_ctx_free(own);
}

/* ---- files ---------------------------------------------------------------------------------- */

static void test_files(void **unused)
{
    static const char names[] = "cat\0dog\0c\0d\0e\0f\0g";
    struct net_fixture f;
    struct mix__net *net;
    mix_runtime *rt;
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    enter_folder();
    const mix_zoo_options options = small("mobilenet_v2", 0.25);
    fixture_make(&f, ctx, &options, 4, 4);
    CHECK_OK(fixture_lower(&f, &net));
    net->class_names = names;
    net->class_names_bytes = sizeof names;
    CHECK_OK(mix__mix_write(net, "net.mix"));
    CHECK_OK(mix_runtime_open(&rt, ctx, "net.mix"));
    assert_string_equal(mix_runtime_class_name(rt, 1), "dog");
    assert_string_equal(mix_runtime_class_name(rt, 6), "g");
    mix_runtime_close(rt);

    /* The code that is not used: a first weight becomes -8. */
    struct mix__net_op *op = net->ops;
    while (op->weight_bits != 4)
        op++;
    ((uint8_t *)op->weights)[0] = 0x18;
    CHECK_OK(mix__mix_write(net, "net.mix"));
    CHECK_FAILS(ctx, mix_runtime_open(&rt, ctx, "net.mix"), MIX_EFORMAT, "weight code of -8");
    assert_null(rt);
    write_bytes("net.mix", "not a net", 9);
    CHECK_FAILS(ctx, mix_runtime_open(&rt, ctx, "net.mix"), MIX_EFORMAT, "net.mix: not a .mix");
    CHECK_FAILS(ctx, mix_runtime_open(&rt, ctx, "none.mix"), MIX_EIO, "none.mix");
    CHECK_FAILS(ctx, mix_runtime_open_bytes(&rt, ctx, names + 1, 8), MIX_EINVAL, "aligned");
    mix__net_free(net);
    fixture_release(&f);
    leave_folder();
    mix_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_slow),
        cmocka_unit_test(test_largest_codes),
        cmocka_unit_test(test_tables_and_threads),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_run_allocates_nothing),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
