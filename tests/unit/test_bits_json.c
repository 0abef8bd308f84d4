#include "support.h"

#include <jansson.h>

#include "base/file.h"
#include "format/bits_json.h"
#include "metamix/zoo.h"

enum { LAYERS_MAX = 64 };

static mix_ctx *ctx;
static mix_graph *graph;
static int n_layers;

static int set_up(void **state)
{
    (void)state;
    mix_zoo_options options;
    mix_graph_info info;
    mix_zoo_options_init(&options);
    options.width = 0.25;
    options.size = 32;
    options.classes = 10;
    ctx = plain_ctx();
    CHECK_OK(mix_zoo_new(&graph, ctx, &options));
    mix_graph_info_get(graph, &info);
    n_layers = info.layers;
    assert_in_range(n_layers, 3, LAYERS_MAX);
    enter_folder();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    leave_folder();
    mix_graph_free(graph);
    mix_ctx_free(ctx);
    return 0;
}

static void fill(mix_layer_bits *bits)
{
    for (int l = 0; l < n_layers; l++)
        bits[l] = (mix_layer_bits){ l % 3 ? 4 : 32, 2 + l % 7 };
}

static void test_round_trip(void **state)
{
    (void)state;
    mix_layer_bits bits[LAYERS_MAX], read[LAYERS_MAX];
    fill(bits);
    CHECK_OK(mix__bits_json_save(graph, "bits.json", bits));
    CHECK_OK(mix__bits_json_load(graph, "bits.json", read));
    assert_memory_equal(read, bits, (size_t)n_layers * sizeof *bits);
    assert_false(mix__path_exists("bits.json.part"));
}

static void test_figures(void **state)
{
    (void)state;
    mix_layer_bits bits[LAYERS_MAX];
    const char *format, *network, *name;
    int version, weight, activation;
    double gbops, mean;
    json_t *layers;
    mix_bits_uniform(graph, 4, 3, bits);
    CHECK_OK(mix__bits_json_save(graph, "bits.json", bits));
    json_t *root = json_load_file("bits.json", 0, NULL);
    assert_int_equal(json_unpack(root, "{s:s, s:i, s:s, s:f, s:f, s:o !}", "format", &format,
                                 "version", &version, "network", &network, "gbops", &gbops,
                                 "mean_activation_bits", &mean, "layers", &layers),
                     0);
    assert_string_equal(format, "metamix-bits");
    assert_int_equal(version, 1);
    assert_string_equal(network, "mobilenet_v2");
    assert_float_equal(gbops, 1e-9 * (double)mix_bits_bops(graph, bits), 1e-9);
    assert_float_equal(mean, 3.0, 0.0);
    assert_int_equal(json_array_size(layers), n_layers);
    mix_layer_info info;
    mix_graph_layer_get(graph, 1, &info);
    assert_int_equal(json_unpack(json_array_get(layers, 1), "{s:s, s:i, s:i !}", "name", &name,
                                 "weight_bits", &weight, "activation_bits", &activation),
                     0);
    assert_string_equal(name, info.name);
    assert_int_equal(weight, 4);
    assert_int_equal(activation, 3);
    json_decref(root);
}

/* The file with one change made by the caller. */
static json_t *saved(void)
{
    mix_layer_bits bits[LAYERS_MAX];
    fill(bits);
    CHECK_OK(mix__bits_json_save(graph, "bits.json", bits));
    return json_load_file("bits.json", 0, NULL);
}

static json_t *layer_of(json_t *root, size_t index)
{
    return json_array_get(json_object_get(root, "layers"), index);
}

static void check_refused(json_t *root, const char *says)
{
    mix_layer_bits bits[LAYERS_MAX], before[LAYERS_MAX];
    memset(bits, 0x5a, sizeof bits);
    memcpy(before, bits, sizeof bits);
    assert_int_equal(json_dump_file(root, "bits.json", 0), 0);
    json_decref(root);
    CHECK_FAILS(ctx, mix__bits_json_load(graph, "bits.json", bits), MIX_EFORMAT, says);
    assert_non_null(strstr(mix_ctx_error(ctx), "bits.json"));
    assert_memory_equal(bits, before, sizeof bits);
}

static void test_order(void **state)
{
    (void)state;
    mix_layer_bits bits[LAYERS_MAX], read[LAYERS_MAX];
    fill(bits);
    json_t *root = saved(), *layers = json_object_get(root, "layers");
    json_t *first = json_incref(json_array_get(layers, 0));
    json_array_remove(layers, 0);
    json_array_append_new(layers, first);
    assert_int_equal(json_dump_file(root, "bits.json", 0), 0);
    json_decref(root);
    CHECK_OK(mix__bits_json_load(graph, "bits.json", read));
    assert_memory_equal(read, bits, (size_t)n_layers * sizeof *bits);
}

static void test_wrong_layers(void **state)
{
    (void)state;
    mix_layer_info second;
    char says[200];
    mix_graph_layer_get(graph, 2, &second);

    json_t *root = saved();
    json_array_remove(json_object_get(root, "layers"), 2);
    snprintf(says, sizeof says, "layer '%s' is missing", second.name);
    check_refused(root, says);

    root = saved();
    json_array_append(json_object_get(root, "layers"), layer_of(root, 2));
    snprintf(says, sizeof says, "layers[%d]: layer '%s' for the second time", n_layers,
             second.name);
    check_refused(root, says);

    root = saved();
    json_object_set_new(layer_of(root, 2), "name", json_string("conv9"));
    check_refused(root, "layers[2]: mobilenet_v2 has no layer 'conv9'");

    static const int widths[] = { -1, 0, 1, 9, 31, 33 };
    for (size_t i = 0; i < MIX_COUNT(widths); i++) {
        root = saved();
        json_object_set_new(layer_of(root, 2), i % 2 ? "weight_bits" : "activation_bits",
                            json_integer(widths[i]));
        snprintf(says, sizeof says, "layer '%s': expected widths of 2 to 8 or 32", second.name);
        check_refused(root, says);
    }
    root = saved();
    json_object_set_new(layer_of(root, 2), "weight_bits", json_real(4.0));
    check_refused(root, "layers[2]: ");
    root = saved();
    json_object_del(layer_of(root, 2), "activation_bits");
    check_refused(root, "activation_bits");
}

static void test_wrong_root(void **state)
{
    (void)state;
    json_t *root = saved();
    json_object_set_new(root, "network", json_string("resnet18"));
    check_refused(root, "bits for resnet18, but the network is mobilenet_v2");
    root = saved();
    json_object_set_new(root, "version", json_integer(2));
    check_refused(root, "expected format 'metamix-bits' version 1");
    root = saved();
    json_object_set_new(root, "format", json_string("x"));
    check_refused(root, "found 'x' version 1");
    root = saved();
    json_object_set_new(root, "layers", json_object());
    check_refused(root, "'layers' is no array");
    root = saved();
    json_object_del(root, "layers");
    check_refused(root, "layers");
    check_refused(json_array(), "");
}

static void test_wrong_text(void **state)
{
    (void)state;
    mix_layer_bits bits[LAYERS_MAX];
    char *text;
    size_t size;
    json_decref(saved());
    CHECK_OK(mix__file_read(ctx, "bits.json", 1 << 20, &text, &size));
    for (size_t n = 0; n + 2 < size; n++) { /* the last two bytes are the brace and a newline */
        write_bytes("cut.json", text, n);
        CHECK_FAILS(ctx, mix__bits_json_load(graph, "cut.json", bits), MIX_EFORMAT,
                    "cut.json: byte ");
    }
    mix__free(ctx, text);
    CHECK_FAILS(ctx, mix__bits_json_load(graph, "no.json", bits), MIX_EIO, "no.json");
    fill(bits);
    CHECK_FAILS(ctx, mix__bits_json_save(graph, "no/bits.json", bits), MIX_EIO, "no/bits.json");
    disk_holds(10);
    CHECK_FAILS(ctx, mix__bits_json_save(graph, "bits.json", bits), MIX_EIO, "cannot write");
    disk_holds(-1);
    CHECK_OK(mix__bits_json_load(graph, "bits.json", bits));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_round_trip),   TEST(test_figures),    TEST(test_order),
        TEST(test_wrong_layers), TEST(test_wrong_root), TEST(test_wrong_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
