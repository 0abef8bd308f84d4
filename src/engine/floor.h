/*
 * engine/floor.h - the time that an engine's convolutions need bare: what its passes are held
 * against.
 */
#ifndef METAMIX_ENGINE_FLOOR_H
#define METAMIX_ENGINE_FLOOR_H

#include "engine/engine.h"

/* One layer's bare primitives, in seconds, and the bytes that have to move at the least: operands
 * read and results written once, weights not counted. Of the layer that reads the image
 * backward_data is 0. */
struct mix__floor {
    double forward, backward_data, backward_weights;
    double forward_codes; /* of products of codes: of bytes, where that is faster */
    double bytes_forward, bytes_backward;
};

/* Measures floors (layer), each primitive alone with all threads, on zeros, and keeps the fastest
 * of oneDNN's own layout and plain nhwc; with BF16 also of bfloat16 and float32, and of bytes.
 * dtype: of activations and gradients in memory. Takes seconds. Errors: MIX_ENOMEM, MIX_EBACKEND.
 */
mix_status mix__floor_measure(const struct mix__engine *engine, enum mix__dtype dtype,
                              struct mix__floor *floors) MIX_CHECKED;

#endif
