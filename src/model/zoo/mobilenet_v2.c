/*
 * model/zoo/mobilenet_v2.c - MobileNet v2 (Sandler et al., arXiv 1801.04381) with torchvision's
 * names.
 *
 *   features.0        stem 3x3
 *   features.1 .. 17  inverted residuals: [1x1 expand] 3x3 depthwise, 1x1 project (linear)
 *   features.18       1x1 to 1280; pool, dropout 0.2
 *   classifier.1      linear
 */
#include <stdio.h>

#include "model/zoo/zoo.h"

enum { KERNEL = 3, STEM_CHANNELS = 32, LAST_CHANNELS = 1280 };

/* expansion factor, output channels, blocks, stride of the first block */
static const struct stage {
    int expand, channels, blocks, stride;
} stages[] = {
    { 1, 16, 1, 1 }, { 6, 24, 2, 2 },  { 6, 32, 3, 2 },  { 6, 64, 4, 2 },
    { 6, 96, 3, 1 }, { 6, 160, 3, 2 }, { 6, 320, 1, 1 },
};

/* A block with the family's batch norm; the rest is for the caller to set. */
static struct mix__conv_bn block(const char *prefix, const char *conv, const char *bn, int channels,
                                 int act)
{
    return (struct mix__conv_bn){ .prefix = prefix,
                                  .conv = conv,
                                  .bn = bn,
                                  .channels = channels,
                                  .kernel = 1,
                                  .stride = 1,
                                  .groups = 1,
                                  .act = act,
                                  .eps = 1e-5f,
                                  .momentum = 0.1f };
}

static int inverted_residual(mix_graph *g, const char *prefix, int in, int expand, int channels,
                             int stride)
{
    const int in_channels = g->tensors[in].c, hidden = in_channels * expand;
    const bool expands = expand != 1;
    const struct mix__conv_bn widen = block(prefix, "conv.0.0", "conv.0.1", hidden, MIX__OP_RELU6);
    struct mix__conv_bn depthwise = block(prefix, expands ? "conv.1.0" : "conv.0.0",
                                          expands ? "conv.1.1" : "conv.0.1", hidden, MIX__OP_RELU6);
    const struct mix__conv_bn project = block(prefix, expands ? "conv.2" : "conv.1",
                                              expands ? "conv.3" : "conv.2", channels, MIX__LINEAR);
    depthwise.kernel = KERNEL;
    depthwise.stride = stride;
    depthwise.groups = hidden;
    int x = expands ? mix__zoo_conv_bn(g, in, &widen) : in;
    x = mix__zoo_conv_bn(g, x, &depthwise);
    x = mix__zoo_conv_bn(g, x, &project);
    return stride == 1 && in_channels == channels ? mix__zoo_add(g, prefix, in, x) : x;
}

int mix__mobilenet_v2_build(mix_graph *g, const mix_zoo_options *o, int variant)
{
    char prefix[32];
    int number = 0;
    (void)variant; /* there is one */
    struct mix__conv_bn stem =
        block("features.0", "0", "1", mix__make_divisible(STEM_CHANNELS * o->width), MIX__OP_RELU6);
    stem.kernel = KERNEL;
    stem.stride = mix__zoo_stem_stride(o);
    int x = mix__zoo_conv_bn(g, 0, &stem);
    for (size_t s = 0; s < MIX_COUNT(stages); s++) {
        for (int b = 0; b < stages[s].blocks; b++) {
            snprintf(prefix, sizeof prefix, "features.%d", ++number);
            x = inverted_residual(g, prefix, x, stages[s].expand,
                                  mix__make_divisible(stages[s].channels * o->width),
                                  b == 0 ? stages[s].stride : 1);
        }
    }
    snprintf(prefix, sizeof prefix, "features.%d", ++number);
    const double last = LAST_CHANNELS * (o->width > 1.0 ? o->width : 1.0);
    const struct mix__conv_bn top =
        block(prefix, "0", "1", mix__make_divisible(last), MIX__OP_RELU6);
    x = mix__zoo_conv_bn(g, x, &top);
    x = mix__graph_dropout(g, "classifier.0", mix__zoo_pool(g, x), 0.2f);
    return mix__graph_linear(g, "classifier.1", x, o->classes);
}
