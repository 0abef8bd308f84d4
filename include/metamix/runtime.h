/*
 * runtime.h - runs a .mix file: the integer half of the library, libmetamix_rt, which needs libc
 * and libm alone.
 *
 *   mix_runtime *rt;
 *   mix_runtime_open(&rt, ctx, "model.mix");
 *   mix_runtime_run(rt, images, n, logits);
 *   mix_runtime_close(rt);
 *
 * A runtime and its context are used by one thread at a time; it has the context's number of
 * threads at work inside. The result does not depend on that number, nor on the CPU mask.
 */
#ifndef METAMIX_RUNTIME_H
#define METAMIX_RUNTIME_H

#include "metamix/graph.h"

typedef struct mix_runtime mix_runtime;

typedef struct mix_runtime_info {
    const char *name;                     /* "mobilenet_v2"; lives with the runtime */
    int classes, height, width, channels; /* of the logits and of an image        */
    int layers;                           /* convolutions and linear layers       */
    const float *mean, *deviation;        /* (channels); live with the runtime    */
    size_t file_bytes;
    size_t arena_bytes;   /* all tensors, one image, placed by lifetime              */
    size_t live_bytes;    /* largest sum of tensors alive at once: the arena's floor */
    size_t weight_bytes;  /* weights as the kernels read them                       */
    size_t scratch_bytes; /* of all threads                                         */
} mix_runtime_info;

/* Reads, checks and plans. Errors: MIX_EIO, MIX_EFORMAT (file, what was expected, where),
 * MIX_EUNSUPPORTED (a newer version, sizes beyond this library's, a thread that cannot be started),
 * MIX_ENOMEM. */
MIX_API MIX_CHECKED mix_status mix_runtime_open(mix_runtime **out, mix_ctx *ctx, const char *path);
/* The same from memory (mapped, compiled in), which must stay as it is until the close; bytes are
 * aligned to 64, else MIX_EINVAL. */
MIX_API MIX_CHECKED mix_status mix_runtime_open_bytes(mix_runtime **out, mix_ctx *ctx,
                                                      const void *bytes, size_t size);
MIX_API void mix_runtime_close(mix_runtime *rt); /* accepts NULL */

MIX_API void mix_runtime_info_get(const mix_runtime *rt, mix_runtime_info *info);
/* The name of class 0 <= index < classes; NULL when the file has no names. */
MIX_API const char *mix_runtime_class_name(const mix_runtime *rt, int index);

/* images (n, height, width, channels), (byte / 255 - mean) / deviation for each channel, finite;
 * logits (n, classes) are written. Allocates nothing and cannot fail. */
MIX_API void mix_runtime_run(mix_runtime *rt, const float *images, int n, float *logits);

/* What an operator has made, for one image; lives during the call. */
typedef struct mix_runtime_value {
    const char *name;   /* the operator's: the graph's layer or node       */
    const char *kind;   /* conv, add, mul, maxpool, avgpool, identity      */
    const char *reader; /* the layer that these codes are for; NULL: float */
    int height, width, channels;
    int bits; /* 0: float; 2..8: codes */
    mix_range range;
    float step;               /* of codes */
    int in_bits, weight_bits; /* of a conv: of the codes that it reads; else 0      */
    uint64_t macs;            /* of a conv: multiply-accumulates for an image; else 0 */
    const void *data; /* (height, width, channels) float; or bytes, each a code less the lowest one:
                         0 for the lowest, which is -(2^(bits-1) - 1) when signed, else 0 */
} mix_runtime_value;

/* From now on called behind every operator of a run, in running order; NULL: no more. */
MIX_API void mix_runtime_watch(mix_runtime *rt,
                               void (*watch)(void *user, const mix_runtime_value *value),
                               void *user);
/* What the codes or floats stand for: step * code - shift, (height, width, channels). */
MIX_API void mix_runtime_decode(const mix_runtime_value *value, float *out);

#endif
