/*
 * model/zoo/blocks.c - pieces that several families share.
 */
#include <stdio.h>

#include "model/zoo/zoo.h"

enum { LONGEST = 2 * MIX__NAME_MAX }; /* the graph refuses what is too long for it */

static const char *join(char name[LONGEST], const char *prefix, const char *rest)
{
    const char *dot = prefix ? "." : "";
    return snprintf(name, LONGEST, "%s%s%s", prefix ? prefix : "", dot, rest) < LONGEST ? name : "";
}

int mix__zoo_unary(mix_graph *g, enum mix__op op, const char *prefix, const char *rest, int in)
{
    char name[LONGEST];
    return mix__graph_unary(g, op, join(name, prefix, rest), in);
}

int mix__zoo_add(mix_graph *g, const char *prefix, int a, int b)
{
    char name[LONGEST];
    return mix__graph_add(g, join(name, prefix, "add"), a, b);
}

int mix__zoo_conv_bn(mix_graph *g, int in, const struct mix__conv_bn *b)
{
    char name[LONGEST];
    const struct mix__conv_shape shape = { .out_channels = b->channels,
                                           .kernel = b->kernel,
                                           .stride = b->stride,
                                           .pad = b->kernel / 2,
                                           .groups = b->groups };
    int x = mix__graph_conv(g, join(name, b->prefix, b->conv), in, &shape);
    x = mix__graph_batchnorm(g, join(name, b->prefix, b->bn), x, b->eps, b->momentum);
    return b->act == MIX__LINEAR ? x : mix__zoo_unary(g, (enum mix__op)b->act, name, "act", x);
}

int mix__zoo_pool(mix_graph *g, int in)
{
    const int x = mix__graph_unary(g, MIX__OP_GLOBAL_AVGPOOL, "avgpool", in);
    return mix__graph_unary(g, MIX__OP_FLATTEN, "flatten", x);
}

int mix__zoo_stem_stride(const mix_zoo_options *o)
{
    return o->stem == MIX_STEM_SMALL ? 1 : 2;
}

int mix__make_divisible(double v)
{
    int rounded = (int)(v + 4.0) / 8 * 8;
    if (rounded < 8)
        rounded = 8;
    return rounded < 0.9 * v ? rounded + 8 : rounded;
}
