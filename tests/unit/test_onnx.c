/*
 * ONNX files: what ONNX Runtime computes with small models of several tools and opsets, names, what
 * has to be refused and why, damaged files. Made by tests/onnx/make_onnx.py.
 */
#include "in_folder.h"

#include <math.h>

#include "base/file.h"
#include "engine/engine.h"
#include "format/graph_json.h"
#include "format/safetensors.h"
#include "metamix/metamix.h"

#define FOLDER MIX_TESTS_DIR "/onnx/"
/* Development data beside the project; the tests that want them are skipped without. */
#define SHARED MIX_TESTS_DIR "/../../shared/data/"

static mix_graph *read_model(const char *name, const mix_onnx_options *options)
{
    char path[512];
    mix_graph *graph;
    snprintf(path, sizeof path, FOLDER "%s.onnx", name);
    const mix_status status = mix_graph_from_onnx(&graph, ctx, path, options);
    if (status != MIX_OK)
        fail_msg("%s", mix_ctx_error(ctx));
    return graph;
}

static int find_node(const mix_graph *g, const char *name)
{
    for (size_t i = 0; i < g->n_nodes; i++)
        if (strcmp(g->nodes[i].name, name) == 0)
            return (int)i;
    fail_msg("no node '%s'", name);
    return -1;
}

static const struct mix__param *find_param(const mix_graph *g, const char *name)
{
    for (size_t i = 0; i < g->n_params; i++)
        if (strcmp(g->params[i].name, name) == 0)
            return &g->params[i];
    fail_msg("no parameter '%s'", name);
    return NULL;
}

/* ---- logits ---- */

/* Largest |difference| to expected (n, classes), for images (n, c, h, w); *scale: the largest
 * |logit|. */
static double largest_error(const mix_graph *g, const float *images, const float *expected, int n,
                            double *scale)
{
    struct mix__state *state;
    struct mix__engine *engine;
    const struct mix__pass pass = { .batch_stats = false };
    const struct mix__tensor *t = &g->tensors[0];
    const float *logits;
    double worst = 0.0;
    CHECK_OK(mix__state_new(&state, g, (int[]){ 8 }, 1, 0));
    CHECK_OK(mix__engine_new(&engine, state, n, false, MIX__DTYPE_F32));
    float *input = mix__engine_input(engine);
    const size_t plane = (size_t)t->h * (size_t)t->w, c = (size_t)t->c;
    for (size_t i = 0; i < (size_t)n; i++)
        for (size_t k = 0; k < c; k++)
            for (size_t p = 0; p < plane; p++)
                input[(i * plane + p) * c + k] = images[(i * c + k) * plane + p];
    CHECK_OK(mix__engine_forward(engine, &pass, &logits));
    *scale = 0.0;
    for (int i = 0; i < n * g->tensors[g->output].c; i++) {
        const double error = fabs((double)logits[i] - expected[i]);
        worst = error <= worst ? worst : error; /* a NaN stays */
        *scale = fmax(*scale, fabs((double)expected[i]));
    }
    mix__engine_free(engine);
    mix__state_free(state);
    return worst;
}

static const char *const models[] = { "torch_bn",     "torch_folded",   "torch_v3",
                                      "torch_v3_old", "torch_residual", "opset7",
                                      "tensorflow",   "softmax",        "spelled",
                                      "opset21" };

static void as_onnx_runtime(void **state)
{
    struct mix__st_file *file;
    (void)state;
    CHECK_OK(mix__st_open(&file, ctx, FOLDER "expected.safetensors"));
    const struct mix__st_tensor *images = mix__st_find(file, "input");
    assert_non_null(images);
    for (size_t i = 0; i < MIX_COUNT(models); i++) {
        const struct mix__st_tensor *logits = mix__st_find(file, models[i]);
        mix_graph *g = read_model(models[i], NULL);
        double scale;
        assert_non_null(logits);
        assert_int_equal(g->tensors[g->output].c, logits->dims[1]);
        const double error =
            largest_error(g, images->data, logits->data, (int)images->dims[0], &scale);
        if (!(error <= 1e-5 * fmax(scale, 1.0)))
            fail_msg("%s: logits up to %g are off by %g", models[i], scale, error);
        mix_graph_free(g);
    }
    mix__st_close(file);
}

/* The array of that name in an .npz that stores, not packs; checks its count of floats. The caller
 * frees it. */
static float *load_npz(const char *path, const char *name, size_t count)
{
    char *bytes;
    size_t size;
    float *array = malloc(count * sizeof *array);
    assert_non_null(array);
    CHECK_OK(mix__file_read(ctx, path, 16 << 20, &bytes, &size));
    for (size_t at = 0; at + 128 < size; at++) {
        uint16_t name_length, extra, header;
        if (memcmp(bytes + at, "PK\3\4", 4) != 0 || bytes[at + 8] != 0)
            continue;
        memcpy(&name_length, bytes + at + 26, 2);
        memcpy(&extra, bytes + at + 28, 2);
        const char *npy = bytes + at + 30 + name_length + extra;
        if (strncmp(bytes + at + 30, name, strlen(name)) != 0)
            continue;
        memcpy(&header, npy + 8, 2);
        assert_memory_equal(npy, "\x93NUMPY", 6);
        assert_true(npy + 10 + header + count * 4 <= bytes + size);
        memcpy(array, npy + 10 + header, count * 4);
        mix__free(ctx, bytes);
        return array;
    }
    fail_msg("%s: no array '%s'", path, name);
    return NULL;
}

static void reference(const char *name, bool folded)
{
    char path[512], npz[512];
    mix_graph *g;
    mix_graph_info info;
    double scale;
    snprintf(path, sizeof path, SHARED "%s.onnx", name);
    snprintf(npz, sizeof npz, SHARED "%s_reference.npz", name);
    if (!mix__path_exists(path) || !mix__path_exists(npz)) {
        print_message("skipped: there is no %s.onnx in ../shared/data\n", name);
        skip();
    }
    if (mix_graph_from_onnx(&g, ctx, path, NULL) != MIX_OK)
        fail_msg("%s", mix_ctx_error(ctx));
    mix_graph_info_get(g, &info);
    assert_int_equal(info.size, 224);
    assert_int_equal(info.classes, 1000);
    assert_int_equal(info.recentre, folded);
    float *images = load_npz(npz, "input", 2 * 3 * 224 * 224);
    float *logits = load_npz(npz, "logits", 2 * 1000);
    const double error = largest_error(g, images, logits, 2, &scale);
    print_message("%s: logits up to %g, largest error %g\n", name, scale, error);
    assert_true(error <= 1e-3 * fmin(scale, 1.0));
    free(images);
    free(logits);
    mix_graph_free(g);
}

static void reference_folded(void **state)
{
    (void)state;
    reference("mobilenet_v2_folded", true);
}

static void reference_batchnorm(void **state)
{
    (void)state;
    reference("mobilenet_v2_bn_backbone", false);
}

/* ---- structure ---- */

static void names_and_numbers(void **state)
{
    mix_graph_info info;
    (void)state;
    mix_graph *g = read_model("torch_bn", NULL);
    mix_graph_info_get(g, &info);
    assert_string_equal(info.name, "torch_bn");
    assert_int_equal(info.size, 16);
    assert_int_equal(info.classes, 4);
    assert_false(info.recentre);
    const struct mix__node *bn = &g->nodes[find_node(g, "features.1.block.0.1")];
    assert_int_equal(bn->op, MIX__OP_BATCHNORM);
    assert_true(bn->momentum == 0.1f && bn->eps == 1e-5f);
    assert_int_equal(find_param(g, "features.1.block.2.0.weight")->count, 8 * 16);
    find_param(g, "features.1.block.2.1.running_var");
    find_param(g, "classifier.1.bias");
    mix_graph_free(g);

    g = read_model("torch_residual", NULL);
    bn = &g->nodes[find_node(g, "bn1")];
    assert_true(bn->momentum == 0.01f && bn->eps == 1e-3f);
    find_param(g, "layer1.0.0.weight");
    mix_graph_free(g);

    g = read_model("opset7", NULL);
    for (size_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op == MIX__OP_BATCHNORM)
            assert_true(g->nodes[i].momentum == 0.25f);
    mix_graph_free(g);
}

/* The batch norms that were folded come back, but for the gate's convolutions. */
static void folded(void **state)
{
    mix_graph_info info;
    (void)state;
    mix_graph *g = read_model("torch_v3_old", NULL);
    mix_graph_info_get(g, &info);
    assert_true(info.recentre);
    int norms = 0, biases = 0;
    for (size_t i = 0; i < g->n_nodes; i++) {
        norms += g->nodes[i].op == MIX__OP_BATCHNORM;
        biases += g->nodes[i].op == MIX__OP_CONV2D && g->nodes[i].bias >= 0;
    }
    assert_int_equal(norms, 5);
    assert_int_equal(biases, 2);
    assert_true(g->nodes[find_node(g, "features.1.block.2.fc1")].bias >= 0);
    const struct mix__param *gamma = find_param(g, "features.1.block.0.0.bn.weight");
    assert_true(g->values[gamma->offset] == sqrtf(1.0f + 1e-5f));
    assert_true(g->values[find_param(g, "features.1.block.0.0.bn.running_var")->offset] == 1.0f);
    mix_graph_free(g);
}

static size_t count_op(const mix_graph *g, enum mix__op op)
{
    size_t n = 0;
    for (size_t i = 0; i < g->n_nodes; i++)
        n += g->nodes[i].op == op;
    return n;
}

static void hard_swishes(void **state)
{
    static const struct {
        const char *model;
        size_t swishes, sigmoids;
    } cases[] = { { "torch_v3", 4, 1 }, { "torch_v3_old", 4, 1 }, { "spelled", 4, 1 } };
    (void)state;
    for (size_t i = 0; i < MIX_COUNT(cases); i++) {
        mix_graph *g = read_model(cases[i].model, NULL);
        assert_int_equal(count_op(g, MIX__OP_HARDSWISH), cases[i].swishes);
        assert_int_equal(count_op(g, MIX__OP_HARDSIGMOID), cases[i].sigmoids);
        mix_graph_free(g);
    }
}

static void other_classes_and_size(void **state)
{
    mix_graph_info info;
    mix_onnx_options options;
    (void)state;
    mix_onnx_options_init(&options);
    options.classes = 7;
    options.size = 32;
    static const char *const names[] = { "torch_bn", "tensorflow", "opset7" };
    for (size_t i = 0; i < MIX_COUNT(names); i++) {
        mix_graph *g = read_model(names[i], &options), *own = read_model(names[i], NULL);
        mix_graph_info_get(g, &info);
        assert_int_equal(info.classes, 7);
        assert_int_equal(info.size, 32);
        const struct mix__node *last = &g->nodes[g->layers[g->n_layers - 1].node];
        const struct mix__param *w = &g->params[last->weight];
        double sum = 0.0; /* N(0, 0.01), as fresh classifiers are */
        for (size_t k = 0; k < w->count; k++)
            sum += (double)g->values[w->offset + k] * g->values[w->offset + k];
        assert_true(sum > 0.0 && sqrt(sum / (double)w->count) < 0.02);
        assert_true(g->values[g->params[last->bias].offset] == 0.0f);
        assert_memory_equal(g->values + g->params[0].offset, own->values + own->params[0].offset,
                            g->params[0].count * sizeof(float));
        mix_graph_free(g);
        mix_graph_free(own);
    }
    mix_graph *g;
    CHECK_FAILS(ctx, mix_graph_from_onnx(&g, ctx, FOLDER "torch_residual.onnx", &options),
                MIX_EUNSUPPORTED, "whole picture");
    assert_null(g);
    options.classes = 1;
    CHECK_FAILS(ctx, mix_graph_from_onnx(&g, ctx, FOLDER "torch_bn.onnx", &options), MIX_EINVAL,
                "classes");
}

/* Every layer has a name of its own, by which checkpoints and bits.json know it. */
static void names_for_each(void **state)
{
    (void)state;
    static const char *const expected[] = { "a", "a.2", "a.3", "fc" };
    mix_graph *g;
    CHECK_OK(mix_graph_from_onnx(&g, ctx, FOLDER "names.onnx", NULL));
    assert_int_equal(g->n_layers, MIX_COUNT(expected));
    for (size_t l = 0; l < g->n_layers; l++)
        assert_string_equal(g->layers[l].info.name, expected[l]);
    mix_graph_free(g);
}

/* ---- refusals ---- */

static const struct {
    const char *name;
    mix_status status;
    const char *part;
} refusals[] = {
    { "sigmoid", MIX_EUNSUPPORTED, "node 'bad' (Sigmoid): this operator is not supported" },
    { "clip", MIX_EUNSUPPORTED, "node 'bad' (Clip): bounds 0 and 1" },
    { "hard_sigmoid", MIX_EUNSUPPORTED, "node 'bad' (HardSigmoid): alpha 0.2" },
    { "transpose", MIX_EUNSUPPORTED, "node 'bad' (Transpose)" },
    { "cast", MIX_EUNSUPPORTED, "node 'bad' (Cast): floats become type 6" },
    { "average", MIX_EUNSUPPORTED, "node 'bad' (AveragePool): the mean of 2x2" },
    { "max_pool", MIX_EUNSUPPORTED, "node 'bad' (MaxPool)" },
    { "add_constant", MIX_EUNSUPPORTED, "node 'bad' (Add): input 'c" },
    { "half_swish", MIX_EUNSUPPORTED, "input 'bad' is part of no hard swish" },
    { "domain", MIX_EUNSUPPORTED, "operators of 'com.example'" },
    { "softmax", MIX_EUNSUPPORTED, "node 'bad' (Softmax)" },
    { "concat", MIX_EUNSUPPORTED, "node 'bad' (Concat): joining tensors" },
    { "add_itself", MIX_EUNSUPPORTED, "node 'bad' (Add): expected two different tensors" },
    { "mul_pictures", MIX_EUNSUPPORTED, "node 'bad' (Mul): pictures of 8x8 and 8x8" },
    { "groups", MIX_EUNSUPPORTED, "node 'bad' (Conv): weights for 3 channels in 2 groups" },
    { "epsilon", MIX_EUNSUPPORTED, "node 'bad' (BatchNormalization): epsilon is -1" },
    { "variance", MIX_EFORMAT, "a variance, holds -" },
    { "channels", MIX_EFORMAT, "has 5 elements; expected 4" },
    { "identity_weights", MIX_EUNSUPPORTED, "node 'bad' (Conv): input 1, 'image', is no constant" },
    { "dilations", MIX_EUNSUPPORTED, "node 'conv0' (Conv): dilations of 2" },
    { "pads", MIX_EUNSUPPORTED, "node 'conv0' (Conv): padding of 1, 0, 1, 0" },
    { "pads_above", MIX_EUNSUPPORTED, "node 'conv0' (Conv): padding of 1 above" },
    { "pads_wide", MIX_EUNSUPPORTED, "node 'conv0' (Conv): padding of 3 above" },
    { "kernel", MIX_EUNSUPPORTED, "node 'conv0' (Conv): a 3x1 kernel" },
    { "flatten", MIX_EUNSUPPORTED, "node 'flatten' (Flatten): it flattens 8x8 pixels" },
    { "reshape", MIX_EUNSUPPORTED, "node 'reshape' (Reshape)" },
    { "inputs", MIX_EUNSUPPORTED, "node 'fc' (Gemm): weights for 5 inputs" },
    { "gemm", MIX_EUNSUPPORTED, "node 'fc' (Gemm): expected transA 0, alpha 1" },
    { "not_finite", MIX_EFORMAT, "tensor 'c0' holds nan" },
    { "external", MIX_EUNSUPPORTED, "tensor 'c0' lies in another file" },
    { "reverse", MIX_EFORMAT, "node 'relu_1' (Relu): its input 'conv0' is not made before it" },
    { "cycle", MIX_EFORMAT, "node 'conv0' (Conv): its input 'relu_1' is not made before it" },
    { "huge", MIX_EFORMAT, "tensor 'c0': its dimensions make" },
    { "overflow", MIX_EUNSUPPORTED, "weights 'c0': dimension 0" },
    { "negative", MIX_EUNSUPPORTED, "weights 'c0': dimension 0 is -4" },
    { "int_weights", MIX_EUNSUPPORTED, "tensor 'c0' has elements of type int64" },
    { "short", MIX_EFORMAT, "tensor 'c0': its dimensions make 108 elements" },
    { "undefined", MIX_EFORMAT, "its input 'nowhere' is defined nowhere" },
    { "twice", MIX_EFORMAT, "'conv0' is defined twice" },
    { "opset6", MIX_EUNSUPPORTED, "operator set 6" },
    { "opset99", MIX_EUNSUPPORTED, "operator set 99" },
    { "outputs", MIX_EUNSUPPORTED, "1 inputs and 2 outputs" },
    { "no_output", MIX_EFORMAT, "no node makes the output 'nowhere'" },
    { "no_nodes", MIX_EFORMAT, "it holds no nodes" },
    { "no_inputs", MIX_EUNSUPPORTED, "node 'relu_1' (Relu): input 0 is missing" },
    { "no_outputs", MIX_EFORMAT, "its input 'conv0' is defined nowhere" },
    { "rank3", MIX_EUNSUPPORTED, "input 'image' has 3 dimensions" },
    { "wide", MIX_EUNSUPPORTED, "pictures of 16x8" },
    { "bytes", MIX_EUNSUPPORTED, "input 'image' has elements of type 2; expected floats" },
    { "no_shape", MIX_EUNSUPPORTED, "input 'image' has 0 dimensions" },
};

static void refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_COUNT(refusals); i++) {
        char path[512];
        mix_graph *g;
        snprintf(path, sizeof path, FOLDER "refused/%s.onnx", refusals[i].name);
        const mix_status status = mix_graph_from_onnx(&g, ctx, path, NULL);
        assert_null(g);
        if (status != refusals[i].status || !strstr(mix_ctx_error(ctx), refusals[i].part))
            fail_msg("%s: status %d, '%s'", refusals[i].name, (int)status, mix_ctx_error(ctx));
    }
    mix_graph *g;
    CHECK_FAILS(ctx, mix_graph_from_onnx(&g, ctx, "none.onnx", NULL), MIX_EIO, "none.onnx");
    CHECK_FAILS(ctx, mix_graph_from_onnx(&g, ctx, FOLDER "make_onnx.py", NULL), MIX_EFORMAT,
                "no ONNX model");
}

/* With "same" padding the odd pixel may be at the beginning, where convolutions here have none. */
static void same_lower(void **state)
{
    char *bytes;
    size_t size, changed = 0;
    mix_graph *graph;
    (void)state;
    CHECK_OK(mix__file_read(ctx, FOLDER "tensorflow.onnx", 1 << 20, &bytes, &size));
    for (size_t at = 0; at + 10 <= size; at++)
        if (memcmp(bytes + at, "SAME_UPPER", 10) == 0) {
            memcpy(bytes + at, "SAME_LOWER", 10);
            changed++;
        }
    assert_true(changed > 0);
    write_bytes("lower.onnx", bytes, size);
    mix__free(ctx, bytes);
    CHECK_FAILS(ctx, mix_graph_from_onnx(&graph, ctx, "lower.onnx", NULL), MIX_EUNSUPPORTED,
                "not more above than below");
}

/* A file cut anywhere, or with a bit turned, is read or refused, and nothing else. */
static void damaged(void **state)
{
    static const char *const names[] = { "opset7", "spelled", "tensorflow", "opset21" };
    size_t taken = 0, not_taken = 0;
    (void)state;
    for (size_t m = 0; m < MIX_COUNT(names); m++) {
        char path[512], *bytes;
        size_t size;
        snprintf(path, sizeof path, FOLDER "%s.onnx", names[m]);
        CHECK_OK(mix__file_read(ctx, path, SIZE_MAX, &bytes, &size));
        for (size_t at = 0; at < size; at += 3) {
            mix_graph *g;
            const char bit = (char)(1 << at * 5 % 8);
            if (at % 8 == 3) /* cut */
                write_bytes("damaged.onnx", bytes, at);
            else {
                bytes[at] ^= bit;
                write_bytes("damaged.onnx", bytes, size);
                bytes[at] ^= bit;
            }
            const mix_status status = mix_graph_from_onnx(&g, ctx, "damaged.onnx", NULL);
            assert_true((status == MIX_OK) == (g != NULL));
            taken += status == MIX_OK;
            not_taken += status != MIX_OK;
            mix_graph_free(g);
        }
        mix__free(ctx, bytes);
    }
    assert_true(taken > 50 && not_taken > 50);
}

/* Every allocation fails once. */
static void out_of_memory(void **state)
{
    mix_status status;
    size_t left = 0;
    (void)state;
    do {
        struct fault fault;
        mix_graph *g;
        mix_ctx *faulty = fault_ctx(&fault, left++);
        status = mix_graph_from_onnx(&g, faulty, FOLDER "spelled.onnx", NULL);
        assert_true((status == MIX_OK) == (g != NULL));
        mix_graph_free(g);
        fault_ctx_free(&fault, faulty);
    } while (status == MIX_ENOMEM);
    assert_int_equal(status, MIX_OK);
    assert_true(left > 100);
}

/* ---- as JSON ---- */

static void json_round_trip(void **state)
{
    (void)state;
    for (size_t m = 0; m < MIX_COUNT(models); m++) {
        mix_graph *g = read_model(models[m], NULL), *again;
        char *text;
        CHECK_OK(mix__graph_json_write(g, &text));
        CHECK_OK(mix__graph_json_read(&again, ctx, text));
        assert_int_equal(again->n_nodes, g->n_nodes);
        assert_int_equal(again->recentre, g->recentre);
        assert_int_equal(again->n_values, g->n_values);
        assert_memory_equal(again->nodes, g->nodes, g->n_nodes * sizeof *g->nodes);
        assert_memory_equal(again->tensors, g->tensors, g->n_tensors * sizeof *g->tensors);
        assert_memory_equal(again->params, g->params, g->n_params * sizeof *g->params);
        mix__free(ctx, text);
        mix_graph_free(g);
        mix_graph_free(again);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_onnx_runtime),
        cmocka_unit_test(reference_folded),
        cmocka_unit_test(reference_batchnorm),
        cmocka_unit_test(names_and_numbers),
        cmocka_unit_test(folded),
        cmocka_unit_test(hard_swishes),
        cmocka_unit_test(other_classes_and_size),
        cmocka_unit_test(names_for_each),
        cmocka_unit_test(refused),
        cmocka_unit_test(same_lower),
        cmocka_unit_test(damaged),
        cmocka_unit_test(out_of_memory),
        cmocka_unit_test(json_round_trip),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
