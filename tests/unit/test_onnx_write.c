/*
 * test_onnx_write.c - the numbers in exported ONNX files; tests/peers runs the files themselves.
 */
#include "in_folder.h"

#include <math.h>

#include "base/file.h"
#include "format/onnx_write.h"
#include "net_fixture.h"
#include "onnx.pb-c.h"
#include "tensor/packed.h"

static const Onnx__AttributeProto *attribute(const Onnx__NodeProto *node, const char *name)
{
    for (size_t i = 0; i < node->n_attribute; i++)
        if (strcmp(node->attribute[i]->name, name) == 0)
            return node->attribute[i];
    fail_msg("%s has no '%s'", node->op_type, name);
    return NULL;
}

static void check_ints(const Onnx__NodeProto *node, const char *name, const int64_t *expected,
                       size_t n)
{
    const Onnx__AttributeProto *a = attribute(node, name);
    assert_int_equal(a->n_ints, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(a->ints[i], expected[i]);
}

/* The floats of a constant. */
static const float *constant(const Onnx__GraphProto *g, const char *name, size_t n)
{
    for (size_t i = 0; i < g->n_initializer; i++)
        if (strcmp(g->initializer[i]->name, name) == 0) {
            assert_int_equal(g->initializer[i]->raw_data.len, n * sizeof(float));
            return (const float *)(const void *)g->initializer[i]->raw_data.data;
        }
    fail_msg("no constant '%s'", name);
    return NULL;
}

static void check_window(const Onnx__NodeProto *node, const struct mix__net_op *op)
{
    check_ints(node, "kernel_shape", (int64_t[]){ op->kernel, op->kernel }, 2);
    check_ints(node, "strides", (int64_t[]){ op->stride, op->stride }, 2);
    check_ints(node, "pads", (int64_t[]){ op->pad, op->pad, op->pad_end, op->pad_end }, 4);
}

/* Weights have their factor's sign; a bias is without the shift of the input's codes, which every
 * tap sees. */
static void check_bias(const Onnx__GraphProto *g, const Onnx__NodeProto *node,
                       const struct mix__net *net, const struct mix__net_op *op)
{
    const struct mix__net_tensor *x = &net->tensors[op->in[0]];
    const size_t channels = (size_t)net->tensors[op->out].c, n = mix__net_weights(net, op);
    const double shift =
        x->range == MIX_RANGE_SHIFTED && op->pad == 0 && op->pad_end == 0 ? 0.375 : 0;
    char name[MIX__NAME_MAX + 16];
    snprintf(name, sizeof name, "%s.weight",
             strcmp(op->name, "image") == 0    ? "image.layer"
             : strcmp(op->name, "logits") == 0 ? "logits.layer"
                                               : op->name);
    const float *bias = constant(g, node->input[2], channels), *weights = constant(g, name, n);
    int8_t *codes = malloc(n);
    assert_non_null(codes);
    mix__codes_unpack(codes, op->weights, n, op->weight_bits);
    for (size_t k = 0; k < channels; k++) {
        double sum = 0, values = 0;
        for (size_t i = 0; i < n / channels; i++) {
            sum += codes[k * (n / channels) + i];
            values += weights[k * (n / channels) + i];
        }
        assert_true(fabs(values * x->step - op->scale[k] * sum) < 1e-5 * fabs(op->scale[k] * 1e3));
        const double expected = op->offset[k] - shift * op->scale[k] / x->step * sum;
        assert_true(fabs(bias[k] - expected) < 1e-5 * (1 + fabs(op->offset[k]) + fabs(expected)));
    }
    free(codes);
}

static void check_graph(const Onnx__GraphProto *g, const struct mix__net *net,
                        enum mix__onnx_style style)
{
    size_t at = 0, shifts = 0, sigmoids = 0;
    for (size_t i = 0; i < net->n_ops; i++) {
        const struct mix__net_op *op = &net->ops[i];
        const bool conv = op->kind == MIX__NET_CONV;
        sigmoids += op->act == MIX__ACT_HARDSIGMOID;
        shifts +=
            conv && net->tensors[op->in[0]].range == MIX_RANGE_SHIFTED && (op->pad || op->pad_end);
    }
    for (size_t i = 0; i < g->n_node; i++) {
        const Onnx__NodeProto *node = g->node[i];
        const char *type = node->op_type;
        const bool conv = strcmp(type, "Conv") == 0;
        if (conv || strcmp(type, "MaxPool") == 0) {
            while (net->ops[at].kind != (conv ? MIX__NET_CONV : MIX__NET_MAXPOOL))
                at++;
            check_window(node, &net->ops[at]);
            if (conv)
                assert_int_equal(attribute(node, "group")->i, net->ops[at].groups);
            if (conv && style == MIX__ONNX_QONNX)
                check_bias(g, node, net, &net->ops[at]);
            at++;
        } else if (strcmp(type, "HardSigmoid") == 0) {
            assert_true(attribute(node, "alpha")->f == 1.0f / 6.0f);
            assert_true(attribute(node, "beta")->f == 0.5f);
            sigmoids--;
        } else if (strcmp(type, "Clip") == 0 && style == MIX__ONNX_QONNX) {
            assert_true(*constant(g, node->input[1], 1) == 0.0f);
            assert_true(*constant(g, node->input[2], 1) == 6.0f);
        } else if (strcmp(type, "Quant") == 0) {
            assert_int_equal(attribute(node, "narrow")->i, attribute(node, "signed")->i);
        } else if (strcmp(type, "Sub") == 0) {
            assert_true(*constant(g, node->input[1], 1) == 0.375f);
            shifts--;
        }
    }
    assert_int_equal(shifts, 0);
    assert_int_equal(sigmoids, 0);
}

static void test_numbers(void **state)
{
    static const char *const archs[] = { "mobilenet_v2", "mobilenet_v3_small", "resnet18", "odd" };
    static const enum mix__onnx_style styles[] = { MIX__ONNX_QDQ_INT8, MIX__ONNX_QONNX };
    (void)state;
    for (size_t a = 0; a < MIX_COUNT(archs); a++)
        for (size_t s = 0; s < MIX_COUNT(styles); s++) {
            struct net_fixture f;
            struct mix__net *net;
            char *bytes;
            size_t size;
            fixture_make_small(&f, ctx, archs[a], 4);
            for (size_t i = 0; i < f.graph->n_params; i++) /* some factors below 0 */
                if (f.graph->params[i].kind == MIX__PARAM_GAMMA)
                    f.graph->values[f.graph->params[i].offset + 1] *= -1.0f;
            CHECK_OK(fixture_lower(&f, &net));
            CHECK_OK(mix__onnx_write(net, styles[s], "net.onnx"));
            CHECK_OK(mix__file_read(ctx, "net.onnx", SIZE_MAX - 1, &bytes, &size));
            Onnx__ModelProto *model = onnx__model_proto__unpack(NULL, size, (const uint8_t *)bytes);
            assert_non_null(model);
            check_graph(model->graph, net, styles[s]);
            onnx__model_proto__free_unpacked(model, NULL);
            mix__free(ctx, bytes);
            mix__net_free(net);
            fixture_release(&f);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_numbers) };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
