/*
 * model/zoo/zoo.h - one builder for each named network.
 */
#ifndef METAMIX_MODEL_ZOO_ZOO_H
#define METAMIX_MODEL_ZOO_ZOO_H

#include "metamix/zoo.h"
#include "model/graph.h"

/* Appends the whole network behind tensor 0 and returns the logits. Failures stay in the graph. */
int mix__mobilenet_v2_build(mix_graph *g, const mix_zoo_options *options);

/* The channel count nearest to v that is a multiple of 8 and not below 0.9 v. */
int mix__make_divisible(double v);

#endif
