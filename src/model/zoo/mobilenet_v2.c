/*
 * model/zoo/mobilenet_v2.c - MobileNet v2 (Sandler et al., arXiv 1801.04381) with torchvision's
 * names.
 *
 *   stem 3x3            features.0
 *   17 inverted residuals   features.1 .. features.17: [1x1 expand] 3x3 depthwise, 1x1 project
 * (linear) 1x1 to 1280         features.18 pool, dropout 0.2, linear   classifier.1
 */
#include <stdio.h>

#include "model/zoo/zoo.h"

enum { KERNEL = 3, STEM_CHANNELS = 32, LAST_CHANNELS = 1280 };
static const float bn_eps = 1e-5f, bn_momentum = 0.1f, dropout_rate = 0.2f;

/* expansion factor, output channels, blocks, stride of the first block */
static const struct stage {
    int expand, channels, blocks, stride;
} stages[] = {
    { 1, 16, 1, 1 }, { 6, 24, 2, 2 },  { 6, 32, 3, 2 },  { 6, 64, 4, 2 },
    { 6, 96, 3, 1 }, { 6, 160, 3, 2 }, { 6, 320, 1, 1 },
};

/* Convolution `prefix`.`conv` and batch norm `prefix`.`bn`; then ReLU6 unless linear. */
static int conv_bn(mix_graph *g, const char *prefix, const char *conv, const char *bn, int in,
                   struct mix__conv_shape shape, bool relu6)
{
    char name[MIX__NAME_MAX];
    shape.pad = shape.kernel / 2;
    snprintf(name, sizeof name, "%s.%s", prefix, conv);
    int x = mix__graph_conv(g, name, in, &shape);
    snprintf(name, sizeof name, "%s.%s", prefix, bn);
    x = mix__graph_batchnorm(g, name, x, bn_eps, bn_momentum);
    if (!relu6)
        return x;
    snprintf(name, sizeof name, "%s.%s.relu6", prefix, bn);
    return mix__graph_unary(g, MIX__OP_RELU6, name, x);
}

static int inverted_residual(mix_graph *g, const char *prefix, int in, int expand, int channels,
                             int stride)
{
    const int in_channels = g->tensors[in].c;
    const int hidden = in_channels * expand;
    const bool expands = expand != 1;
    int x = in;
    if (expands)
        x = conv_bn(g, prefix, "conv.0.0", "conv.0.1", x,
                    (struct mix__conv_shape){ hidden, 1, 1, 0, 1, false }, true);
    x = conv_bn(g, prefix, expands ? "conv.1.0" : "conv.0.0", expands ? "conv.1.1" : "conv.0.1", x,
                (struct mix__conv_shape){ hidden, KERNEL, stride, 0, hidden, false }, true);
    x = conv_bn(g, prefix, expands ? "conv.2" : "conv.1", expands ? "conv.3" : "conv.2", x,
                (struct mix__conv_shape){ channels, 1, 1, 0, 1, false }, false);
    if (stride != 1 || in_channels != channels)
        return x;
    char name[MIX__NAME_MAX];
    snprintf(name, sizeof name, "%s.add", prefix);
    return mix__graph_add(g, name, in, x);
}

int mix__mobilenet_v2_build(mix_graph *g, const mix_zoo_options *o)
{
    char prefix[32];
    int block = 0;
    const int stem_stride = o->stem == MIX_STEM_SMALL ? 1 : 2;
    int x = conv_bn(g, "features.0", "0", "1", 0,
                    (struct mix__conv_shape){ mix__make_divisible(STEM_CHANNELS * o->width), KERNEL,
                                              stem_stride, 0, 1, false },
                    true);
    for (size_t s = 0; s < MIX_COUNT(stages); s++) {
        for (int b = 0; b < stages[s].blocks; b++) {
            snprintf(prefix, sizeof prefix, "features.%d", ++block);
            x = inverted_residual(g, prefix, x, stages[s].expand,
                                  mix__make_divisible(stages[s].channels * o->width),
                                  b == 0 ? stages[s].stride : 1);
        }
    }
    snprintf(prefix, sizeof prefix, "features.%d", ++block);
    const double last = LAST_CHANNELS * (o->width > 1.0 ? o->width : 1.0);
    x = conv_bn(g, prefix, "0", "1", x,
                (struct mix__conv_shape){ mix__make_divisible(last), 1, 1, 0, 1, false }, true);
    x = mix__graph_unary(g, MIX__OP_GLOBAL_AVGPOOL, "pool", x);
    x = mix__graph_unary(g, MIX__OP_FLATTEN, "flatten", x);
    x = mix__graph_dropout(g, "classifier.0", x, dropout_rate);
    return mix__graph_linear(g, "classifier.1", x, o->classes);
}
