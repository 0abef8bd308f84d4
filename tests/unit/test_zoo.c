/*
 * test_zoo.c - the zoo's options, and what it refuses; golden_zoo.c has the networks themselves.
 */
#include "support.h"

#include <math.h>

#include "metamix/zoo.h"
#include "model/graph.h"

static mix_graph *network(mix_ctx *ctx, int size, int classes, double width)
{
    mix_zoo_options options;
    mix_graph *g;
    mix_zoo_options_init(&options);
    options.size = size;
    options.classes = classes;
    options.width = width;
    CHECK_OK(mix_zoo_new(&g, ctx, &options));
    return g;
}

static void test_small(void **unused)
{
    mix_graph_info info;
    mix_layer_info layer;
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    mix_graph *g = network(ctx, 32, 10, 1.0);
    mix_graph_info_get(g, &info);
    assert_true(info.small_stem);
    assert_int_equal(info.classes, 10);
    mix_graph_layer_get(g, 0, &layer);
    assert_int_equal(layer.out_size, 32);
    mix_graph_layer_get(g, info.layers - 2, &layer);
    assert_int_equal(layer.out_size, 2);
    mix_graph_free(g);
    g = network(ctx, 64, 10, 0.35); /* widths are multiples of 8, never below 0.9 of the wish */
    mix_graph_layer_get(g, 0, &layer);
    assert_int_equal(layer.out_channels, 16);
    mix_graph_free(g);
    mix_ctx_free(ctx);
}

static void test_refuses(void **unused)
{
    mix_zoo_options options;
    mix_graph *g;
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    mix_zoo_options_init(&options);
    options.arch = "mobilenet_v9";
    CHECK_FAILS(ctx, mix_zoo_new(&g, ctx, &options), MIX_EINVAL, "mobilenet_v9");
    assert_null(g);
    mix_zoo_options_init(&options);
    options.width = NAN;
    CHECK_FAILS(ctx, mix_zoo_new(&g, ctx, &options), MIX_EINVAL, "width");
    mix_zoo_options_init(&options);
    options.size = 2;
    CHECK_FAILS(ctx, mix_zoo_new(&g, ctx, &options), MIX_EINVAL, "size");
    mix_zoo_options_init(&options);
    options.classes = MIX_CLASSES_MAX; /* 1280 million weights in the last layer */
    CHECK_FAILS(ctx, mix_zoo_new(&g, ctx, &options), MIX_EUNSUPPORTED, "more than 268435456");
    assert_null(g);
    mix_ctx_free(ctx);
}

/* Shapes that do not fit are told apart with the layer's name. */
static void test_shapes(void **unused)
{
    mix_graph *g;
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    CHECK_OK(mix__graph_new(&g, ctx, "test", 8, 3));
    const int a = mix__graph_conv(g, "a", 0, &(struct mix__conv_shape){ 8, 3, 2, 1, 1, false, 0 });
    mix__graph_add(g, "sum", 0, a);
    CHECK_FAILS(ctx, mix__graph_finish(g, a), MIX_ESHAPE, "sum: cannot add 8x8x3 and 4x4x8");
    mix_graph_free(g);
    mix_ctx_free(ctx);
}

/* What shapes do not show, and evaluation does not: torchvision's numbers of batch norms, dropout
 * and random weights. */
static void test_numbers(void **unused)
{
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    for (const char *const *arch = mix_zoo_names(); *arch; arch++) {
        const bool v3 = strncmp(*arch, "mobilenet_v3", 12) == 0;
        mix_zoo_options options;
        mix_graph *g;
        int drops = 0;
        mix_zoo_options_init(&options);
        options.arch = *arch;
        options.width = 0.25;
        CHECK_OK(mix_zoo_new(&g, ctx, &options));
        for (size_t i = 0; i < g->n_nodes; i++) {
            const struct mix__node *node = &g->nodes[i];
            if (node->op == MIX__OP_BATCHNORM)
                assert_true(node->momentum == (v3 ? 0.01f : 0.1f) &&
                            node->eps == (v3 ? 1e-3f : 1e-5f));
            if (node->op == MIX__OP_DROPOUT)
                assert_true(node->rate == 0.2f && ++drops == 1);
        }
        assert_int_equal(drops, strncmp(*arch, "mobilenet", 9) == 0);
        for (size_t i = 0; i < g->n_params; i++) {
            const struct mix__param *p = &g->params[i];
            double squares = 0.0;
            if (p->kind != MIX__PARAM_WEIGHT)
                continue;
            for (size_t k = 0; k < p->count; k++)
                squares += pow(g->values[p->offset + k], 2.0) / (double)p->count;
            const double expected =
                p->rank == 4 ? 2.0 / (p->dims[0] * p->dims[2] * p->dims[3]) : 1e-4;
            assert_true(fabs(squares / expected - 1.0) < 6.0 * sqrt(2.0 / (double)p->count));
        }
        mix_graph_free(g);
    }
    mix_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
