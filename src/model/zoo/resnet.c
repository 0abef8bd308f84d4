/*
 * model/zoo/resnet.c - ResNet-18, 34, 50 and 101 (He et al., arXiv 1512.03385; the stride of a
 * bottleneck sits in its 3x3 convolution) with torchvision's names.
 *
 *   conv1, bn1     stem 7x7, max pool 3x3 of stride 2
 *   layer1 .. 4    basic blocks (3x3, 3x3) or bottlenecks (1x1, 3x3, 1x1 to four times the width);
 *                  the first of a layer has a 1x1 convolution in its shortcut where shapes differ
 *   fc             pool, linear
 */
#include <stdio.h>

#include "model/zoo/zoo.h"

enum { LAYERS = 4, FIRST_CHANNELS = 64, WIDENING = 4 };

static const struct variant {
    int blocks[LAYERS];
    bool bottleneck;
} variants[] = {
    { { 2, 2, 2, 2 }, false }, /* 18, 34, 50, 101 */
    { { 3, 4, 6, 3 }, false },
    { { 3, 4, 6, 3 }, true },
    { { 3, 4, 23, 3 }, true },
};

static int conv_bn(mix_graph *g, const char *prefix, const char *conv, const char *bn, int in,
                   int channels, int kernel, int stride, int act)
{
    const struct mix__conv_bn b = {
        prefix, conv, bn, channels, kernel, stride, 1, act, 1e-5f, 0.1f
    };
    return mix__zoo_conv_bn(g, in, &b);
}

static int residual(mix_graph *g, const char *prefix, int in, int width, int stride,
                    bool bottleneck)
{
    const int channels = bottleneck ? WIDENING * width : width;
    int x = in, shortcut = in;
    if (bottleneck) {
        x = conv_bn(g, prefix, "conv1", "bn1", x, width, 1, 1, MIX__OP_RELU);
        x = conv_bn(g, prefix, "conv2", "bn2", x, width, 3, stride, MIX__OP_RELU);
        x = conv_bn(g, prefix, "conv3", "bn3", x, channels, 1, 1, MIX__LINEAR);
    } else {
        x = conv_bn(g, prefix, "conv1", "bn1", x, width, 3, stride, MIX__OP_RELU);
        x = conv_bn(g, prefix, "conv2", "bn2", x, channels, 3, 1, MIX__LINEAR);
    }
    if (stride != 1 || g->tensors[in].c != channels)
        shortcut = conv_bn(g, prefix, "downsample.0", "downsample.1", in, channels, 1, stride,
                           MIX__LINEAR);
    return mix__zoo_unary(g, MIX__OP_RELU, prefix, "relu", mix__zoo_add(g, prefix, x, shortcut));
}

int mix__resnet_build(mix_graph *g, const mix_zoo_options *o, int variant)
{
    const struct variant *v = &variants[variant];
    char prefix[32];
    int x = conv_bn(g, NULL, "conv1", "bn1", 0, mix__make_divisible(FIRST_CHANNELS * o->width), 7,
                    mix__zoo_stem_stride(o), MIX__OP_RELU);
    x = mix__graph_maxpool(g, "maxpool", x, 3, 2, 1);
    for (int layer = 0; layer < LAYERS; layer++) {
        const int width = mix__make_divisible((FIRST_CHANNELS << layer) * o->width);
        for (int b = 0; b < v->blocks[layer]; b++) {
            snprintf(prefix, sizeof prefix, "layer%d.%d", layer + 1, b);
            x = residual(g, prefix, x, width, b == 0 && layer > 0 ? 2 : 1, v->bottleneck);
        }
    }
    return mix__graph_linear(g, "fc", mix__zoo_pool(g, x), o->classes);
}
