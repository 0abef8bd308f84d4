/*
 * format/bits_json.h - a bit assignment as a file that people read and edit.
 *
 *   { "format": "metamix-bits", "version": 1, "network": "mobilenet_v2",
 *     "gbops": 4.239, "mean_activation_bits": 3.0,            for people; not read back
 *     "layers": [ { "name": "features.0.0", "weight_bits": 8, "activation_bits": 8 }, ... ] }
 */
#ifndef METAMIX_FORMAT_BITS_JSON_H
#define METAMIX_FORMAT_BITS_JSON_H

#include "model/graph.h"

/* Writes one entry for each layer, atomically. Errors: MIX_EIO, MIX_ENOMEM. */
mix_status mix__bits_json_save(const mix_graph *graph, const char *path,
                               const mix_layer_bits *bits) MIX_CHECKED;

/* Layers are found by name, in any order; each of the graph's must be there once and no other.
 * Widths are 2..8 or 32. bits (one entry per layer) is written on success only.
 * Errors: MIX_EIO, MIX_EFORMAT (file and layer), MIX_ENOMEM. */
mix_status mix__bits_json_load(const mix_graph *graph, const char *path,
                               mix_layer_bits *bits) MIX_CHECKED;

#endif
