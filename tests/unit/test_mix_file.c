/*
 * test_mix_file.c - .mix files there and back, their sizes, and what damaged and lying ones meet.
 */
#include "net_fixture.h"

#include "base/file.h"
#include "format/mix_file.h"
#include "format/mix_layout.h"
#include "tensor/packed.h"

static mix_zoo_options options_of(const char *arch, double width, int size)
{
    mix_zoo_options options;
    mix_zoo_options_init(&options);
    options.arch = arch;
    options.width = width;
    options.size = size;
    options.classes = 10;
    return options;
}

static void check_equal(const struct mix__net *a, const struct mix__net *b)
{
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->n_tensors, b->n_tensors);
    assert_int_equal(a->n_ops, b->n_ops);
    assert_int_equal(a->output, b->output);
    for (size_t i = 0; i < a->n_tensors; i++)
        assert_memory_equal(&a->tensors[i], &b->tensors[i], sizeof a->tensors[i]);
    for (size_t i = 0; i < a->n_ops; i++) {
        const struct mix__net_op *x = &a->ops[i], *y = &b->ops[i];
        assert_string_equal(x->name, y->name);
        assert_memory_equal(x->in, y->in, sizeof x->in);
        assert_true(x->kind == y->kind && x->out == y->out && x->act == y->act &&
                    x->kernel == y->kernel && x->stride == y->stride && x->pad == y->pad &&
                    x->pad_end == y->pad_end && x->groups == y->groups &&
                    x->weight_bits == y->weight_bits);
        if (x->kind != MIX__NET_CONV)
            continue;
        const size_t k = (size_t)a->tensors[x->out].c;
        assert_memory_equal(x->scale, y->scale, k * sizeof(float));
        assert_memory_equal(x->offset, y->offset, k * sizeof(float));
        assert_memory_equal(x->weights, y->weights,
                            mix__packed_bytes(mix__net_weights(a, x), x->weight_bits));
    }
    assert_memory_equal(a->mean, b->mean, 3 * sizeof(float));
    assert_memory_equal(a->deviation, b->deviation, 3 * sizeof(float));
}

static void test_round_trip(void **unused)
{
    static const char names[] = "a\0bb\0c\0d\0e\0f\0g\0h\0i\0j";
    struct net_fixture f;
    struct mix__net *net, *back;
    char *bytes;
    size_t size;
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    enter_folder();
    const mix_zoo_options options = options_of("mobilenet_v3_small", 0.25, 32);
    fixture_make(&f, ctx, &options, 3, 5);
    CHECK_OK(fixture_lower(&f, &net));
    net->class_names = names;
    net->class_names_bytes = sizeof names;
    CHECK_OK(mix__mix_write(net, "net.mix"));
    CHECK_OK(mix__file_read(ctx, "net.mix", SIZE_MAX - 1, &bytes, &size));
    CHECK_OK(mix__mix_decode(&back, ctx, bytes, size, "net.mix"));
    check_equal(net, back);
    assert_int_equal(back->class_names_bytes, sizeof names);
    assert_memory_equal(back->class_names, names, sizeof names);
    mix__net_free(back);
    mix__free(ctx, bytes);
    net->class_names = "a\0bb\0c\0d\0e\0\033\0g\0h\0i\0j"; /* of no file that metamix wrote */
    CHECK_OK(mix__mix_encode(net, &bytes, &size));
    CHECK_FAILS(ctx, mix__mix_decode(&back, ctx, bytes, size, "net.mix"), MIX_EFORMAT,
                "net.mix: class name 5 has a control character, 0x1b");
    mix__net_free(net);
    mix__free(ctx, bytes);
    fixture_release(&f);
    leave_folder();
    mix_ctx_free(ctx);
}

static size_t file_size(mix_ctx *ctx, int weight_bits)
{
    const mix_zoo_options options = options_of("mobilenet_v2", 1.0, 32);
    struct net_fixture f;
    struct mix__net *net;
    char *bytes;
    size_t size;
    fixture_make(&f, ctx, &options, weight_bits, 4);
    CHECK_OK(fixture_lower(&f, &net));
    CHECK_OK(mix__mix_encode(net, &bytes, &size));
    mix__free(ctx, bytes);
    mix__net_free(net);
    fixture_release(&f);
    return size;
}

/* MobileNet v2 for ten classes (the first and the last layer keep 8 bits). */
static void test_size(void **unused)
{
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    const size_t s8 = file_size(ctx, 8), s4 = file_size(ctx, 4), s2 = file_size(ctx, 2);
    assert_true((double)s4 <= 0.55 * (double)s8);
    assert_true((double)s2 <= 0.32 * (double)s8);
    mix_ctx_free(ctx);
}

/* ---- damaged files -------------------------------------------------------------------------- */

/* A graph of all kinds of operators that makes a small file. */
static void tiny(struct net_fixture *f, mix_ctx *ctx)
{
    mix_graph *g;
    const struct mix__conv_shape conv = { 4, 3, 1, 1, 1, false, 0 },
                                 gate = { 4, 1, 1, 0, 1, true, 0 };
    CHECK_OK(mix__graph_new(&g, ctx, "tiny", 6, 3));
    int x = mix__graph_conv(g, "conv", 0, &conv);
    x = mix__graph_unary(g, MIX__OP_HARDSWISH, "act",
                         mix__graph_batchnorm(g, "bn", x, 1e-5f, 0.1f));
    x = mix__graph_maxpool(g, "pool", x, 3, 2, 1);
    int y = mix__graph_unary(g, MIX__OP_GLOBAL_AVGPOOL, "mean", x);
    y = mix__graph_unary(g, MIX__OP_HARDSIGMOID, "sigmoid", mix__graph_conv(g, "gate", y, &gate));
    y = mix__graph_mul(g, "mul", x, y);
    x = mix__graph_add(g, "add", x, mix__graph_conv(g, "conv2", y, &conv));
    x = mix__graph_unary(g, MIX__OP_GLOBAL_AVGPOOL, "mean2", x);
    x = mix__graph_linear(g, "fc", mix__graph_unary(g, MIX__OP_FLATTEN, "flat", x), 2);
    CHECK_OK(mix__graph_finish(g, x));
    mix__graph_init_values(g, 1);
    fixture_of(f, g, 1, 4, 3);
}

struct damaged {
    mix_ctx *ctx;
    char *good, *bytes; /* the whole file and a copy to spoil */
    size_t size;
};

static void damaged_make(struct damaged *d)
{
    struct net_fixture f;
    struct mix__net *net;
    d->ctx = plain_ctx();
    tiny(&f, d->ctx);
    CHECK_OK(fixture_lower(&f, &net));
    CHECK_OK(mix__mix_encode(net, &d->good, &d->size));
    mix__net_free(net);
    fixture_release(&f);
    d->bytes = mix__alloc(d->ctx, d->size, 1);
    assert_non_null(d->bytes);
    memcpy(d->bytes, d->good, d->size);
}

static void damaged_release(struct damaged *d)
{
    mix__free(d->ctx, d->good);
    mix__free(d->ctx, d->bytes);
    mix_ctx_free(d->ctx);
}

static mix_status decode(struct damaged *d, size_t size)
{
    struct mix__net *net;
    /* A block of its own size: an over-read is seen by the sanitizer. */
    char *bytes = aligned_alloc(64, size ? (size + 63) / 64 * 64 : 64);
    assert_non_null(bytes);
    memcpy(bytes, d->bytes, size);
    const mix_status status = mix__mix_decode(&net, d->ctx, bytes, size, "bad.mix");
    assert_true((status == MIX_OK) == (net != NULL));
    mix__net_free(net);
    free(bytes);
    return status;
}

/* The checksum of the spoilt file, so that the checks behind it are reached. */
static void sign(struct damaged *d)
{
    const uint64_t sum = mix__mix_checksum(d->bytes, d->size);
    memcpy(d->bytes + offsetof(struct mix__mix_header, checksum), &sum, sizeof sum);
}

static void test_truncation(void **unused)
{
    struct damaged d;
    (void)unused;
    damaged_make(&d);
    CHECK_OK(decode(&d, d.size));
    for (size_t size = 0; size < d.size; size++)
        assert_int_equal(decode(&d, size), MIX_EFORMAT);
    damaged_release(&d);
}

static void test_bit_flips(void **unused)
{
    struct damaged d;
    (void)unused;
    damaged_make(&d);
    for (size_t bit = 0; bit < 8 * d.size; bit++) {
        d.bytes[bit / 8] ^= (char)(1 << bit % 8);
        assert_int_not_equal(decode(&d, d.size), MIX_OK);
        d.bytes[bit / 8] ^= (char)(1 << bit % 8);
    }
    damaged_release(&d);
}

/* With a right checksum: no crash, and what is refused has a sentence. */
static void test_lies(void **unused)
{
    static const uint32_t lies[] = { 0, 1, 2, 7, 64, 0x7fffffff, 0x80000000, 0xffffffff };
    struct damaged d;
    size_t refused = 0, tried = 0;
    (void)unused;
    damaged_make(&d);
    for (size_t at = 8; at + 4 <= d.size; at += 4)
        for (size_t i = 0; i < MIX_COUNT(lies); i++) {
            if (at >= 16 && at < 24)
                continue;
            memcpy(d.bytes + at, &lies[i], sizeof lies[i]);
            sign(&d);
            const mix_status status = decode(&d, d.size);
            assert_true(status == MIX_OK || strstr(mix_ctx_error(d.ctx), "bad.mix"));
            refused += status != MIX_OK;
            tried++;
            memcpy(d.bytes, d.good, d.size);
        }
    assert_true(refused > tried / 10);
    damaged_release(&d);
}

static void test_sentences(void **unused)
{
    struct damaged d;
    struct mix__mix_header *h;
    (void)unused;
    damaged_make(&d);
    h = (struct mix__mix_header *)(void *)d.bytes;
    h->version = 2;
    CHECK_FAILS(d.ctx, decode(&d, d.size), MIX_EUNSUPPORTED, "version 2");
    memcpy(d.bytes, d.good, d.size);
    d.bytes[d.size - 1] ^= 1;
    CHECK_FAILS(d.ctx, decode(&d, d.size), MIX_EFORMAT, "damaged");
    memcpy(d.bytes, d.good, d.size);
    h->ops_at = d.size / 64 * 64;
    sign(&d);
    CHECK_FAILS(d.ctx, decode(&d, d.size), MIX_EFORMAT, "operators");
    memcpy(d.bytes, d.good, d.size);
    h->n_tensors = 0xffffffff;
    sign(&d);
    CHECK_FAILS(d.ctx, decode(&d, d.size), MIX_EFORMAT, "tensors");
    memcpy(d.bytes, d.good, d.size);
    struct mix__mix_op *op = (struct mix__mix_op *)(void *)(d.bytes + h->ops_at);
    op[2].in[0] = op[2].out;
    sign(&d);
    CHECK_FAILS(d.ctx, decode(&d, d.size), MIX_EFORMAT, "before it is written");
    memcpy(d.bytes, d.good, d.size);
    op[1].weights_at += 64 * 64;
    sign(&d);
    CHECK_FAILS(d.ctx, decode(&d, d.size), MIX_EFORMAT, "do not lie in the file");
    damaged_release(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_size),
        cmocka_unit_test(test_truncation), cmocka_unit_test(test_bit_flips),
        cmocka_unit_test(test_lies),       cmocka_unit_test(test_sentences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
