/*
 * engine/floor.h - what an engine's passes are held against: the time that its convolutions need
 * bare, the bytes that have to move and how fast memory moves them.
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
    double bytes_spared; /* of each, when the layer's input is read as bytes of codes */
};

/* Measures floors (layer), each primitive alone with all threads, on zeros, and keeps the fastest
 * of oneDNN's own layout and plain nhwc; of an engine in bfloat16 also in it, where the CPU
 * multiplies that faster. An operand that fits into a cache is there, which in a step of many layers
 * it is not. Takes seconds. Errors: MIX_ENOMEM, MIX_EBACKEND. */
mix_status mix__floor_measure(const struct mix__engine *engine,
                              struct mix__floor *floors) MIX_CHECKED;

/* Bytes a second that all threads together copy in memory, read and written. Errors: MIX_ENOMEM. */
mix_status mix__floor_memory(const struct mix__engine *engine, double *speed) MIX_CHECKED;

#endif
