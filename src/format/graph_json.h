/*
 * format/graph_json.h - a graph's structure, without its values, as JSON.
 *
 *   { "version": 1, "name": "mobilenet_v2", "size": 224, "channels": 3,
 *     "recentre": false, "classes": ["cat", "dog"],
 *     "nodes": [ { "op": "conv2d", "name": "features.0.0", "in": [0], "out_channels": 32,
 *                  "kernel": 3, "stride": 2, "pad": 1, "pad_more": 0, "groups": 1, "bias": false },
 *                ... ] }
 *
 * Tensor 0 is the image and tensor i the output of the i-th node; the last one's are the logits.
 * "recentre": some batch norms' statistics are still to be measured (onnx.h). "classes" is missing when their names are not known.
 */
#ifndef METAMIX_FORMAT_GRAPH_JSON_H
#define METAMIX_FORMAT_GRAPH_JSON_H

#include "model/graph.h"

/* *text is the caller's, for mix__free(). Errors: MIX_ENOMEM. */
mix_status mix__graph_json_write(const mix_graph *graph, char **text) MIX_CHECKED;

/* All values are 0. Errors: MIX_EFORMAT (what is wrong with which node; nothing about a file),
 * MIX_ENOMEM. */
mix_status mix__graph_json_read(mix_graph **out, mix_ctx *ctx, const char *text) MIX_CHECKED;

#endif
