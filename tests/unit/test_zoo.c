/*
 * test_zoo.c - MobileNet v2 against torchvision's list of layers, and METHOD's bit operations.
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

/* GBOPs at 224 x 224, weights at 4 bits, first and last layer at 8/8. */
static void test_bops(void **unused)
{
    static const struct {
        int bits;
        double gbops;
    } expected[] = { { 2, 3.085 }, { 3, 4.239 }, { 4, 5.394 }, { 5, 6.549 }, { 8, 10.013 } };
    mix_layer_bits bits[64];
    mix_graph_info info;
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    mix_graph *g = network(ctx, 224, 1000, 1.0);
    mix_graph_info_get(g, &info);
    assert_int_equal(info.macs, 300774272);
    assert_int_equal(info.parameters, 3504872);
    assert_int_equal(info.layers, 53);
    assert_false(info.small_stem);
    int searched = 0;
    for (int l = 0; l < info.layers; l++) {
        mix_layer_info layer;
        mix_graph_layer_get(g, l, &layer);
        searched += layer.searched;
    }
    assert_int_equal(searched, 51);
    for (size_t i = 0; i < MIX_COUNT(expected); i++) {
        mix_bits_uniform(g, 4, expected[i].bits, bits);
        const double gbops = 1e-9 * (double)mix_bits_bops(g, bits);
        assert_true(fabs(gbops - expected[i].gbops) < 0.0005);
        assert_true(mix_bits_mean_activation(g, bits) == expected[i].bits);
    }
    mix_graph_free(g);
    mix_ctx_free(ctx);
}

/* Name, shape and MACs of some layers, and which values their inputs can take. */
static void test_layers(void **unused)
{
    static const struct {
        int layer;
        const char *name, *kind;
        uint64_t macs;
        mix_range range;
    } expected[] = {
        { 0, "features.0.0", "conv", 10838016, MIX_RANGE_SIGNED },
        { 1, "features.1.conv.0.0", "depthwise", 3612672, MIX_RANGE_UNSIGNED },
        { 2, "features.1.conv.1", "conv", 6422528, MIX_RANGE_UNSIGNED },
        { 3, "features.2.conv.0.0", "conv", 19267584, MIX_RANGE_SIGNED },
        { 4, "features.2.conv.1.0", "depthwise", 2709504, MIX_RANGE_UNSIGNED },
        { 6, "features.3.conv.0.0", "conv", 10838016, MIX_RANGE_SIGNED },
        { 9, "features.4.conv.0.0", "conv", 10838016, MIX_RANGE_SIGNED }, /* a residual sum */
        { 52, "classifier.1", "linear", 1280000, MIX_RANGE_UNSIGNED },
    };
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    mix_graph *g = network(ctx, 224, 1000, 1.0);
    for (size_t i = 0; i < MIX_COUNT(expected); i++) {
        mix_layer_info layer;
        mix_graph_layer_get(g, expected[i].layer, &layer);
        assert_string_equal(layer.name, expected[i].name);
        assert_string_equal(layer.kind, expected[i].kind);
        assert_int_equal(layer.macs, expected[i].macs);
        assert_int_equal(layer.range, expected[i].range);
    }
    /* torchvision's state_dict has 314 entries, 52 of them num_batches_tracked. */
    assert_int_equal(g->n_params, 314 - 52);
    assert_string_equal(g->params[1].name, "features.0.1.weight");
    mix_graph_free(g);
    mix_ctx_free(ctx);
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
    mix_ctx_free(ctx);
}

/* Shapes that do not fit are told apart with the layer's name. */
static void test_shapes(void **unused)
{
    mix_graph *g;
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    CHECK_OK(mix__graph_new(&g, ctx, "test", 8, 3));
    const int a = mix__graph_conv(g, "a", 0, &(struct mix__conv_shape){ 8, 3, 2, 1, 1, false });
    mix__graph_add(g, "sum", 0, a);
    CHECK_FAILS(ctx, mix__graph_finish(g, a), MIX_ESHAPE, "sum: cannot add 8x8x3 and 4x4x8");
    mix_graph_free(g);
    mix_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bops),    cmocka_unit_test(test_layers), cmocka_unit_test(test_small),
        cmocka_unit_test(test_refuses), cmocka_unit_test(test_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
