/*
 * model/zoo/mobilenet_v3.c - MobileNet v3, Large and Small (Howard et al., arXiv 1905.02244), with
 * torchvision's names.
 *
 *   features.0      stem 3x3, h-swish
 *   features.i      [expand 1x1] depthwise [squeeze and excite] project 1x1 (linear)
 *   features.16/12  1x1 to six times the last block's channels, h-swish; pool
 *   classifier      linear, h-swish, dropout 0.2, linear
 *
 * Squeeze and excite:  x ---------------------------------------- * -- y
 *                        \- pool - fc1 - relu - fc2 - h-sigmoid -/
 */
#include <stdio.h>

#include "model/zoo/zoo.h"

enum { STEM_CHANNELS = 16, LAST_EXPANSION = 6, SQUEEZE = 4 };

/* depthwise kernel, expanded and output channels, squeeze and excite, h-swish, stride */
static const struct stage {
    int kernel, expanded, channels;
    bool excite, swish;
    int stride;
} large[] = {
    { 3, 16, 16, false, false, 1 },  { 3, 64, 24, false, false, 2 },
    { 3, 72, 24, false, false, 1 },  { 5, 72, 40, true, false, 2 },
    { 5, 120, 40, true, false, 1 },  { 5, 120, 40, true, false, 1 },
    { 3, 240, 80, false, true, 2 },  { 3, 200, 80, false, true, 1 },
    { 3, 184, 80, false, true, 1 },  { 3, 184, 80, false, true, 1 },
    { 3, 480, 112, true, true, 1 },  { 3, 672, 112, true, true, 1 },
    { 5, 672, 160, true, true, 2 },  { 5, 960, 160, true, true, 1 },
    { 5, 960, 160, true, true, 1 },
}, small[] = {
    { 3, 16, 16, true, false, 2 },   { 3, 72, 24, false, false, 2 },
    { 3, 88, 24, false, false, 1 },  { 5, 96, 40, true, true, 2 },
    { 5, 240, 40, true, true, 1 },   { 5, 240, 40, true, true, 1 },
    { 5, 120, 48, true, true, 1 },   { 5, 144, 48, true, true, 1 },
    { 5, 288, 96, true, true, 2 },   { 5, 576, 96, true, true, 1 },
    { 5, 576, 96, true, true, 1 },
};

static const struct variant {
    const struct stage *stages;
    size_t n_stages;
    int classifier; /* channels between its two layers */
} variants[] = {
    { large, MIX_COUNT(large), 1280 },
    { small, MIX_COUNT(small), 1024 },
};

static int conv_bn(mix_graph *g, const char *prefix, int in, int channels, int kernel, int stride,
                   int groups, int act)
{
    const struct mix__conv_bn b = { prefix, "0",    "1", channels, kernel,
                                    stride, groups, act, 1e-3f,    0.01f };
    return mix__zoo_conv_bn(g, in, &b);
}

static int excite(mix_graph *g, const char *prefix, int in)
{
    char name[MIX__NAME_MAX];
    const int channels = g->tensors[in].c;
    struct mix__conv_shape fc = { .kernel = 1, .stride = 1, .groups = 1, .bias = true };
    int x = mix__zoo_unary(g, MIX__OP_GLOBAL_AVGPOOL, prefix, "avgpool", in);
    fc.out_channels = mix__make_divisible(channels / SQUEEZE);
    snprintf(name, sizeof name, "%s.fc1", prefix);
    x = mix__graph_conv(g, name, x, &fc);
    x = mix__zoo_unary(g, MIX__OP_RELU, prefix, "activation", x);
    fc.out_channels = channels;
    snprintf(name, sizeof name, "%s.fc2", prefix);
    x = mix__graph_conv(g, name, x, &fc);
    x = mix__zoo_unary(g, MIX__OP_HARDSIGMOID, prefix, "scale_activation", x);
    snprintf(name, sizeof name, "%s.mul", prefix);
    return mix__graph_mul(g, name, in, x);
}

static int inverted_residual(mix_graph *g, int number, int in, const struct stage *s, double width)
{
    char prefix[64];
    int part = 0;
    const int in_channels = g->tensors[in].c, act = s->swish ? MIX__OP_HARDSWISH : MIX__OP_RELU;
    const int expanded = mix__make_divisible(s->expanded * width);
    const int channels = mix__make_divisible(s->channels * width);
#define PART() snprintf(prefix, sizeof prefix, "features.%d.block.%d", number, part++)
    int x = in;
    if (expanded != in_channels) {
        PART();
        x = conv_bn(g, prefix, x, expanded, 1, 1, 1, act);
    }
    PART();
    x = conv_bn(g, prefix, x, expanded, s->kernel, s->stride, expanded, act);
    if (s->excite) {
        PART();
        x = excite(g, prefix, x);
    }
    PART();
    x = conv_bn(g, prefix, x, channels, 1, 1, 1, MIX__LINEAR);
#undef PART
    snprintf(prefix, sizeof prefix, "features.%d", number);
    return s->stride == 1 && in_channels == channels ? mix__zoo_add(g, prefix, in, x) : x;
}

int mix__mobilenet_v3_build(mix_graph *g, const mix_zoo_options *o, int variant)
{
    const struct variant *v = &variants[variant];
    char prefix[32];
    int x = conv_bn(g, "features.0", 0, mix__make_divisible(STEM_CHANNELS * o->width), 3,
                    mix__zoo_stem_stride(o), 1, MIX__OP_HARDSWISH);
    for (size_t i = 0; i < v->n_stages; i++)
        x = inverted_residual(g, (int)i + 1, x, &v->stages[i], o->width);
    snprintf(prefix, sizeof prefix, "features.%zu", v->n_stages + 1);
    x = conv_bn(g, prefix, x, LAST_EXPANSION * g->tensors[x].c, 1, 1, 1, MIX__OP_HARDSWISH);
    x = mix__zoo_pool(g, x);
    x = mix__graph_linear(g, "classifier.0", x, mix__make_divisible(v->classifier * o->width));
    x = mix__graph_unary(g, MIX__OP_HARDSWISH, "classifier.1", x);
    x = mix__graph_dropout(g, "classifier.2", x, 0.2f);
    return mix__graph_linear(g, "classifier.3", x, o->classes);
}
