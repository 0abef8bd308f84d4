/*
 * runtime/runtime_inside.h - the runtime's inside.
 *
 *   run_conv.c   convolutions and linear layers         run_basic.c   everything between floats
 *   runtime.c    opening, the walk over the operators   team.c        threads
 */
#ifndef METAMIX_RUNTIME_RUNTIME_INSIDE_H
#define METAMIX_RUNTIME_RUNTIME_INSIDE_H

#include "kernels/kernels.h"
#include "metamix/runtime.h"
#include "model/arena.h"
#include "model/border.h"
#include "model/net.h"
#include "runtime/team.h"

/* A convolution as it runs. */
struct mix__conv_plan {
    bool depthwise; /* one tap row of channels at a time, weights as its kernel has them    */
    bool direct;    /* pixels of the input are rows of the product: nothing is gathered    */
    size_t depth;   /* products in a sum of one group, rounded up to MIX__QUAD             */
    size_t k;       /* output channels of one group, rounded up to MIX__PANEL              */
    int runs;       /* of the kernel */
    uint8_t zero;   /* the stored code of a tap outside of the picture */
    int8_t *weights;
    int32_t *start; /* (groups, k) */
    /* Offsets depend on which taps lie inside only when the input is shifted: (border.n, channels),
     * else (channels), the net's own, and no border. */
    const float *offset;
    struct mix__border border;
};

struct mix__step_plan {
    const struct mix__net_op *op;
    const struct mix__net_tensor *x, *y;
    struct mix__finish finish;
    struct mix__conv_plan conv;
};

/* What one thread needs besides tensors. */
enum { MIX__TILE = 24, MIX__TILE_K = 64, MIX__TILE_SUMS = 4096 };
struct mix__scratch {
    int32_t *sums;        /* MIX__TILE * MIX__TILE_K, or one place of the widest depthwise layer */
    uint8_t *rows;        /* (MIX__TILE, deepest gathered sum) */
    float *values;        /* (widest) of a pool */
    const uint8_t **taps; /* (most taps) of a depthwise layer's tile */
};

struct mix_runtime {
    mix_ctx *ctx;
    char *file; /* NULL: the bytes are the caller's */
    size_t file_bytes;
    struct mix__net *net;
    struct mix__kernels kernels;
    struct mix__team *team;
    struct mix__step_plan *steps;
    struct mix__arena plan;
    char *arena;
    void **at;                    /* (tensor) where it lies in this run */
    struct mix__scratch *scratch; /* (thread) */
    uint8_t *zeros;               /* (128, widest depthwise layer): a row of each stored zero */
    size_t widest, weight_bytes, scratch_bytes;
    void (*watch)(void *user, const mix_runtime_value *value); /* NULL: nobody */
    void *watch_user;
};

/* [*from, *to): the part of n units that a thread does, in whole grains. */
static inline void mix__part(size_t n, size_t grain, int part, int parts, size_t *from, size_t *to)
{
    const size_t grains = (n + grain - 1) / grain;
    *from = grains * (size_t)part / (size_t)parts * grain;
    *to = grains * (size_t)(part + 1) / (size_t)parts * grain;
    *from = *from < n ? *from : n;
    *to = *to < n ? *to : n;
}

/* Its element number i. */
static inline void *mix__element(void *base, const struct mix__net_tensor *t, size_t i)
{
    return (char *)base + i * (t->bits ? 1 : sizeof(float));
}

/* run_conv.c: path opens the sentence about weights that cannot be */
mix_status mix__conv_plan(mix_runtime *rt, struct mix__step_plan *s, const char *path) MIX_CHECKED;
void mix__conv_run(const mix_runtime *rt, const struct mix__step_plan *s, int part, int parts);

/* run_basic.c */
void mix__basic_run(const mix_runtime *rt, const struct mix__step_plan *s, int part, int parts);

#endif
