/*
 * test_lower.c - graphs to integer networks: what is fused, whose codes a tensor holds, folded
 * numbers against their formulas, refusals.
 */
#include "net_fixture.h"

#include "tensor/packed.h"

static mix_zoo_options small(const char *arch)
{
    mix_zoo_options options;
    mix_zoo_options_init(&options);
    options.arch = arch;
    options.width = 0.25;
    options.size = 32;
    options.classes = 7;
    return options;
}

/* Every tensor of codes belongs to the layer that reads it, and all readers are counted. */
static void check_quantizers(const struct net_fixture *f, const struct mix__net *net)
{
    size_t layer = 0;
    for (size_t i = 0; i < net->n_ops; i++) {
        const struct mix__net_op *op = &net->ops[i];
        if (op->kind != MIX__NET_CONV)
            continue;
        const struct mix__net_tensor *x = &net->tensors[op->in[0]];
        const mix_layer_info *info = &f->graph->layers[layer].info;
        assert_string_equal(op->name, info->name);
        assert_int_equal(x->bits, f->bits[layer].activation);
        assert_int_equal(x->range, info->range);
        assert_true(x->step == f->act_step[layer]);
        assert_int_equal(op->weight_bits, f->bits[layer].weight);
        layer++;
    }
    assert_int_equal(layer, f->graph->n_layers);
}

static void test_zoo(void **unused)
{
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    for (const char *const *arch = mix_zoo_names(); *arch; arch++) {
        struct net_fixture f;
        struct mix__net *net;
        const mix_zoo_options options = small(*arch);
        fixture_make(&f, ctx, &options, 4, 3);
        CHECK_OK(fixture_lower(&f, &net));
        check_quantizers(&f, net);
        mix__net_free(net);
        fixture_release(&f);
    }
    mix_ctx_free(ctx);
}

static const char *class_name(const void *names, int index)
{
    return ((const char *const *)names)[index];
}

static void test_class_names(void **unused)
{
    static const char *const names[] = { "a", "bc", "", "d", "e", "f", "gh" };
    static const char text[] = "a\0bc\0\0d\0e\0f\0gh";
    struct net_fixture f;
    struct mix__net *net;
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    const mix_zoo_options options = small("mobilenet_v2");
    fixture_make(&f, ctx, &options, 4, 3);
    CHECK_OK(fixture_lower(&f, &net));
    assert_null(net->class_names);
    mix__net_free(net);
    CHECK_OK(mix__graph_name_classes(f.graph, class_name, names));
    CHECK_OK(fixture_lower(&f, &net));
    fixture_release(&f); /* the net has names of its own */
    assert_int_equal(net->class_names_bytes, sizeof text);
    assert_memory_equal(net->class_names, text, sizeof text);
    mix__net_free(net);
    mix_ctx_free(ctx);
}

/* MobileNet v2: one operator for each layer, addition and pool, and the image's codes; the
 * tensors that additions read have codes made of them besides. */
static void test_fusion(void **unused)
{
    struct net_fixture f;
    struct mix__net *net;
    int count[MIX__NET_KINDS] = { 0 };
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    mix_zoo_options options = small("mobilenet_v2");
    options.width = 1.0;
    fixture_make(&f, ctx, &options, 4, 4);
    CHECK_OK(fixture_lower(&f, &net));
    for (size_t i = 0; i < net->n_ops; i++)
        count[net->ops[i].kind]++;
    assert_int_equal(count[MIX__NET_CONV], 53);
    assert_int_equal(count[MIX__NET_ADD], 10);
    assert_int_equal(count[MIX__NET_AVGPOOL], 1);
    assert_int_equal(count[MIX__NET_IDENTITY], 1 + 10); /* image; inputs of the ten blocks */
    const struct mix__net_op *last = &net->ops[net->n_ops - 1];
    assert_int_equal(net->ops[net->n_ops - 2].kind, MIX__NET_AVGPOOL);
    assert_int_equal(net->tensors[net->ops[net->n_ops - 2].out].bits, 8);
    assert_int_equal(last->out, net->output);
    mix__net_free(net);
    fixture_release(&f);
    mix_ctx_free(ctx);
}

static void test_numbers(void **unused)
{
    struct net_fixture f;
    struct mix__net *net;
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    const mix_zoo_options options = small("mobilenet_v2");
    fixture_make(&f, ctx, &options, 5, 4);
    CHECK_OK(fixture_lower(&f, &net));
    const mix_graph *g = f.graph;
    /* The first layer, (k, 3, 3, 3), its batch norm and ReLU6. */
    const struct mix__net_op *op = &net->ops[1];
    const struct mix__node *conv = &g->nodes[0], *bn = &g->nodes[1];
    const float *w = g->values + g->params[conv->weight].offset;
    const int k = 5;
    int8_t codes[8 * 27];
    assert_int_equal(op->act, MIX__ACT_RELU6);
    assert_int_equal(mix__net_weights(net, op), 8 * 27);
    mix__codes_unpack(codes, op->weights, 8 * 27, op->weight_bits);
    for (int c = 0; c < 3; c++)
        for (int t = 0; t < 9; t++) {
            const double v = w[(k * 3 + c) * 9 + t] / f.weight_step[k];
            const double code = fmax(-127.0, fmin(127.0, nearbyint(v)));
            assert_int_equal(codes[(k * 9 + t) * 3 + c], code);
        }
    const double gamma = g->values[g->params[bn->gamma].offset + k];
    const double beta = g->values[g->params[bn->beta].offset + k];
    const double mean = g->values[g->params[bn->mean].offset + k];
    const double var = g->values[g->params[bn->var].offset + k];
    const double scale = gamma / sqrt(var + bn->eps);
    assert_true(fabs(op->scale[k] / (scale * f.act_step[0] * f.weight_step[k]) - 1.0) < 1e-6);
    assert_true(fabs(op->offset[k] - (beta - mean * scale)) < 1e-6);
    mix__net_free(net);
    fixture_release(&f);
    mix_ctx_free(ctx);
}

/* A bias in front of a batch norm goes through it. */
static void test_bias_and_norm(void **unused)
{
    static const struct mix__conv_shape shape = { 8, 3, 1, 1, 1, true, 0 };
    struct net_fixture f;
    struct mix__net *net;
    mix_graph *g;
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    CHECK_OK(mix__graph_new(&g, ctx, "bias", 8, 3));
    int x = mix__graph_conv(g, "conv", 0, &shape);
    x = mix__graph_batchnorm(g, "bn", x, 1e-5f, 0.1f);
    x = mix__graph_unary(g, MIX__OP_RELU, "relu", x);
    x = mix__graph_unary(g, MIX__OP_GLOBAL_AVGPOOL, "pool", x);
    x = mix__graph_unary(g, MIX__OP_FLATTEN, "flatten", x);
    x = mix__graph_linear(g, "last", x, 7);
    CHECK_OK(mix__graph_finish(g, x));
    mix__graph_init_values(g, 1);
    fixture_of(&f, g, 1, 4, 4);
    CHECK_OK(fixture_lower(&f, &net));
    const struct mix__net_op *op = &net->ops[1];
    const struct mix__node *conv = &g->nodes[0], *bn = &g->nodes[1];
    assert_string_equal(op->name, "conv");
    for (int k = 0; k < 8; k++) {
        const double bias = g->values[g->params[conv->bias].offset + k];
        const double gamma = g->values[g->params[bn->gamma].offset + k];
        const double beta = g->values[g->params[bn->beta].offset + k];
        const double mean = g->values[g->params[bn->mean].offset + k];
        const double var = g->values[g->params[bn->var].offset + k];
        const double scale = gamma / sqrt(var + bn->eps);
        assert_true(bias != 0.0);
        assert_true(fabs(op->offset[k] - (beta + (bias - mean) * scale)) < 1e-6);
    }
    mix__net_free(net);
    fixture_release(&f);
    mix_ctx_free(ctx);
}

static void test_refuses(void **unused)
{
    struct net_fixture f;
    struct mix__net *net;
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    const mix_zoo_options options = small("mobilenet_v2");
    fixture_make(&f, ctx, &options, 4, 4);
    f.bits[3].weight = 32;
    CHECK_FAILS(ctx, fixture_lower(&f, &net), MIX_EUNSUPPORTED, "32-bit weights");
    assert_null(net);
    f.bits[3].weight = 4;
    f.act_step[2] = INFINITY;
    CHECK_FAILS(ctx, fixture_lower(&f, &net), MIX_ENUMERIC, "not finite");
    f.act_step[2] = 0.0f;
    CHECK_FAILS(ctx, fixture_lower(&f, &net), MIX_EFORMAT, "step");
    fixture_release(&f);
    mix_ctx_free(ctx);
}

static void test_no_memory(void **unused)
{
    struct net_fixture f;
    mix_status status = MIX_ENOMEM;
    const mix_zoo_options options = small("mobilenet_v3_small");
    (void)unused;
    for (size_t left = 0; status == MIX_ENOMEM; left += 13) {
        struct fault fault;
        struct mix__net *net;
        mix_ctx *ctx = fault_ctx(&fault, SIZE_MAX);
        fixture_make(&f, ctx, &options, 4, 4);
        fault.left = left;
        status = fixture_lower(&f, &net);
        mix__net_free(net);
        fixture_release(&f);
        fault_ctx_free(&fault, ctx);
    }
    CHECK_OK(status);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zoo),           cmocka_unit_test(test_class_names),
        cmocka_unit_test(test_fusion),        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_bias_and_norm), cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
