/*
 * model/zoo/zoo.h - one builder for each family of named networks.
 */
#ifndef METAMIX_MODEL_ZOO_ZOO_H
#define METAMIX_MODEL_ZOO_ZOO_H

#include "metamix/zoo.h"
#include "model/graph.h"

/* Each appends the whole network behind tensor 0 and returns the logits. Failures stay in the
 * graph. options->stem is STANDARD or SMALL; variant counts the networks of a family
 * in the order of zoo.c's names. */
int mix__mobilenet_v2_build(mix_graph *g, const mix_zoo_options *options, int variant);
int mix__mobilenet_v3_build(mix_graph *g, const mix_zoo_options *options, int variant);
int mix__resnet_build(mix_graph *g, const mix_zoo_options *options, int variant);

/* What the builders share (blocks.c). */

enum { MIX__LINEAR = -1 }; /* no activation */

/* Convolution, batch norm, activation. Names are `prefix`.`conv` and `prefix`.`bn`; without a
 * prefix as they stand. The padding keeps the picture's size at stride 1. */
struct mix__conv_bn {
    const char *prefix, *conv, *bn;
    int channels, kernel, stride, groups;
    int act; /* enum mix__op, or MIX__LINEAR */
    float eps, momentum;
};
int mix__zoo_conv_bn(mix_graph *g, int in, const struct mix__conv_bn *block);

/* A node without numbers, `prefix`.`name`. */
int mix__zoo_unary(mix_graph *g, enum mix__op op, const char *prefix, const char *name, int in);
int mix__zoo_add(mix_graph *g, const char *prefix, int a, int b);

/* Global average pool, flattened. */
int mix__zoo_pool(mix_graph *g, int in);

/* The stride of the first convolution. */
int mix__zoo_stem_stride(const mix_zoo_options *options);

/* The channel count nearest to v that is a multiple of 8 and not below 0.9 v. */
int mix__make_divisible(double v);

#endif
