/*
 * tests/golden/golden_zoo.c - the named networks against torchvision's lists in torchvision/:
 *
 *   NET.txt       every key of the state_dict with its shape
 *   NET.macs.txt  every layer in running order: name, kind, multiply-accumulates at 224 x 224
 *
 * and against the bit operations of METHOD's table.
 */
#include "support.h"

#include <math.h>
#include <stdio.h>

#include "metamix/zoo.h"
#include "model/graph.h"

enum { LINE = 256, BITS = 5 };

static const int act_bits[BITS] = { 2, 3, 4, 5, 8 };
static const struct network {
    const char *arch;
    int searched;
    uint64_t parameters; /* torchvision's documentation */
    double gbops[BITS];  /* 0: no figure */
    double gbops_within; /* half of the last digit given */
} networks[] = {
    { "mobilenet_v2", 51, 3504872, { 3.085, 4.239, 5.394, 6.549, 10.013 }, 0.0005 },
    { "mobilenet_v3_large", 62, 5483032, { 2.108, 2.947, 3.787, 4.627, 7.145 }, 0.0005 },
    { "mobilenet_v3_small", 52, 2542856, { 0 }, 0 },
    { "resnet18", 19, 11689512, { 21.15, 27.93, 34.71, 41.50, 61.84 }, 0.005 },
    { "resnet34", 35, 21797672, { 0 }, 0 },
    { "resnet50", 52, 25557032, { 0 }, 0 },
    { "resnet101", 103, 44549160, { 0 }, 0 },
};

static mix_graph *network(mix_ctx *ctx, const char *arch, int size, double width)
{
    mix_zoo_options options;
    mix_graph *g;
    mix_zoo_options_init(&options);
    options.arch = arch;
    options.size = size;
    options.width = width;
    CHECK_OK(mix_zoo_new(&g, ctx, &options));
    return g;
}

/* NULL: torchvision's list of this network is not kept here. */
static FILE *list_of(const char *arch, const char *ending)
{
    char path[512];
    snprintf(path, sizeof path, MIX_TESTS_DIR "/golden/torchvision/%s%s", arch, ending);
    return fopen(path, "r");
}

static void check_layers(const mix_graph *g, const char *arch)
{
    char line[LINE], name[LINE], kind[LINE];
    unsigned long long macs;
    size_t l = 0;
    FILE *f = list_of(arch, ".macs.txt");
    if (!f)
        return;
    for (; fgets(line, sizeof line, f); l++) {
        assert_int_equal(sscanf(line, "%255s %255s %llu", name, kind, &macs), 3);
        assert_true(l < g->n_layers);
        const mix_layer_info *info = &g->layers[l].info;
        assert_string_equal(info->name, name);
        assert_int_equal(info->kind[0], kind[0] == 'f' ? 'l' : kind[0]); /* fc: linear */
        assert_int_equal(info->macs, macs);
    }
    assert_int_equal(l, g->n_layers);
    fclose(f);
}

static const struct mix__param *find(const mix_graph *g, const char *name)
{
    for (size_t i = 0; i < g->n_params; i++)
        if (strcmp(g->params[i].name, name) == 0)
            return &g->params[i];
    fail_msg("%s has no parameter '%s'", g->name, name);
    return NULL;
}

static void check_keys(const mix_graph *g, const char *arch)
{
    char line[LINE], name[LINE], shape[LINE], ours[LINE];
    size_t found = 0;
    FILE *f = list_of(arch, ".txt");
    if (!f)
        return;
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%255s %255s", name, shape) != 2)
            continue; /* num_batches_tracked: a scalar */
        const struct mix__param *p = find(g, name);
        int n = 0;
        for (int d = 0; d < p->rank; d++)
            n += snprintf(ours + n, sizeof ours - (size_t)n, d ? "x%d" : "%d", p->dims[d]);
        assert_string_equal(ours, shape);
        found++;
    }
    assert_int_equal(found, g->n_params);
    fclose(f);
}

static void check_bit_operations(const mix_graph *g, const struct network *n)
{
    mix_layer_bits bits[128];
    int searched = 0;
    for (size_t l = 0; l < g->n_layers; l++)
        searched += g->layers[l].info.searched;
    assert_int_equal(searched, n->searched);
    for (int b = 0; b < BITS && n->gbops[b] > 0; b++) {
        mix_bits_uniform(g, 4, act_bits[b], bits);
        const double gbops = 1e-9 * (double)mix_bits_bops(g, bits);
        if (!(fabs(gbops - n->gbops[b]) <= n->gbops_within))
            fail_msg("%s at W4A%d: %.4f GBOPs, expected %.4g", n->arch, act_bits[b], gbops,
                     n->gbops[b]);
    }
}

static void lists(void **state)
{
    mix_ctx *ctx = plain_ctx();
    (void)state;
    for (size_t i = 0; i < MIX_COUNT(networks); i++) {
        const struct network *n = &networks[i];
        mix_graph_info info;
        mix_graph *g = network(ctx, n->arch, 224, 1.0);
        mix_graph_info_get(g, &info);
        assert_int_equal(info.parameters, n->parameters);
        check_layers(g, n->arch);
        check_keys(g, n->arch);
        check_bit_operations(g, n);
        mix_graph_free(g);
    }
    mix_ctx_free(ctx);
}

/* What lies in front of a layer decides its quantizer's bounds. */
static void ranges(void **state)
{
    static const struct {
        const char *arch, *layer;
        mix_range range;
    } expected[] = {
        { "mobilenet_v2", "features.0.0", MIX_RANGE_SIGNED },
        { "mobilenet_v2", "features.1.conv.0.0", MIX_RANGE_UNSIGNED },
        { "mobilenet_v2", "features.2.conv.0.0", MIX_RANGE_SIGNED },
        { "mobilenet_v2", "features.4.conv.0.0", MIX_RANGE_SIGNED }, /* residual sum */
        { "mobilenet_v2", "classifier.1", MIX_RANGE_UNSIGNED },
        { "mobilenet_v3_large", "features.1.block.0.0", MIX_RANGE_SHIFTED },
        { "mobilenet_v3_large", "features.2.block.0.0", MIX_RANGE_SIGNED }, /* residual sum */
        { "mobilenet_v3_large", "features.4.block.2.fc1", MIX_RANGE_UNSIGNED },
        { "mobilenet_v3_large", "features.4.block.3.0", MIX_RANGE_UNSIGNED }, /* gated ReLU */
        { "mobilenet_v3_large", "features.11.block.2.fc1", MIX_RANGE_SHIFTED },
        { "mobilenet_v3_large", "features.11.block.2.fc2", MIX_RANGE_UNSIGNED },
        { "mobilenet_v3_large", "features.11.block.3.0", MIX_RANGE_SHIFTED }, /* gated h-swish */
        { "mobilenet_v3_large", "classifier.0", MIX_RANGE_SHIFTED },
        { "mobilenet_v3_large", "classifier.3", MIX_RANGE_SHIFTED },
        { "resnet18", "layer1.0.conv1", MIX_RANGE_UNSIGNED },
        { "resnet18", "layer2.0.downsample.0", MIX_RANGE_UNSIGNED },
        { "resnet18", "fc", MIX_RANGE_UNSIGNED },
    };
    mix_ctx *ctx = plain_ctx();
    (void)state;
    for (size_t i = 0; i < MIX_COUNT(expected); i++) {
        mix_graph *g = network(ctx, expected[i].arch, 64, 0.5);
        size_t l = 0;
        while (strcmp(g->layers[l].info.name, expected[i].layer) != 0)
            assert_true(++l < g->n_layers);
        assert_int_equal(g->layers[l].info.range, expected[i].range);
        mix_graph_free(g);
    }
    mix_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(lists), cmocka_unit_test(ranges) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
