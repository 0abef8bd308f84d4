/*
 * engine/plan.h - from a graph to a list of steps over buffers in one arena.
 *
 * The plan is made once. It decides
 *   - what is fused: a batch norm and its activation whose result one layer alone reads have no
 *     result in memory; the layer (CONV) makes what it reads, its quantizer included, from the
 *     batch norm's input, forward and backward, a tile at a time (layer.c). So does an addition
 *     with a batch norm in front of it, and the clip behind it is its own (basic.c); so does a max
 *     pool (pool.c)
 *   - which expand layers are never stored: the depthwise layer behind makes their results, a tile
 *     at a time (expand.c)
 *   - which buffers share one place: a gradient runs through a NORM step in place, through
 *     an addition without a copy for one side, or for both where that disturbs none; without a
 *     backward pass, values do so too
 *   - their types: with bfloat16, everything but the image and tensors of one pixel (logits, gates)
 *   - where each buffer lies: time runs over the steps forward, 0 .. S-1, and then back, the
 *     backward pass of step i being at 2S-1-i; buffers whose spans do not meet may overlap
 */
#ifndef METAMIX_ENGINE_PLAN_H
#define METAMIX_ENGINE_PLAN_H

#include "engine/conv.h"
#include "engine/loops.h"
#include "model/graph.h"
#include "tensor/dtype.h"

enum mix__step_kind {
    MIX__STEP_CONV,
    MIX__STEP_NORM,
    MIX__STEP_ACT,
    MIX__STEP_ADD,
    MIX__STEP_GATE,
    MIX__STEP_MAXPOOL,
    MIX__STEP_AVGPOOL,
    MIX__STEP_DROPOUT
};

struct mix__buffer {
    enum mix__dtype dtype;
    size_t count;    /* elements, the whole batch                */
    int first, last; /* time of the first and the last use       */
    size_t offset;   /* bytes in the arena, a multiple of MIX_ALIGN */
};

/* Buffers are given by number; -1: none. */
struct mix__step {
    enum mix__step_kind kind;
    const struct mix__node *node; /* NORM: the batch norm     */
    int layer;                    /* CONV: its own; else -1   */
    int x[2], y;                  /* values                   */
    int dx[2], dy;                /* gradients; a NORM's dx is its dy, behind the activation */
    bool accumulate[2];           /* dx is added to, not written */
    enum mix__act act;            /* NORM, ACT, ADD */
    int norm;                     /* NORM: number among the batch norms */
    bool fused;                   /* NORM: done by the step that reads it; y is x */
    int source;                   /* NORM: the layer whose output it reads, -1: none         */
    int before;    /* CONV, ADD, MAXPOOL: step of the fused NORM that x[0] is from, -1 */
    int where;     /* MAXPOOL, for the way back: which of its window each value is, -1 */
    int after;     /* CONV: step of the NORM behind it, -1 */
    bool turned;   /* ADD: x[0] is the node's second input */
    bool unstored; /* CONV: an expand layer whose result is never in memory; y is empty, dy has the
                      size of x (expand.c) */
    int expand;    /* CONV: the step of the unstored layer that it reads, -1                 */
    struct mix__tensor in, out; /* shapes */
};

struct mix__plan {
    mix_ctx *ctx;
    int batch;
    bool backward;
    enum mix__dtype dtype;
    struct mix__step *steps;
    struct mix__buffer *buffers;
    size_t n_steps, n_buffers, cap_steps, cap_buffers;
    int n_norms;
    int input, output, output_grad; /* buffers */
    size_t stem;  /* steps before the first searched layer, when what that one reads is all that
                     later  ones take from them; else 0 */
    size_t arena; /* bytes   */
    size_t values_live; /* bytes: largest sum of buffers in use at one time, the floor for arena */
};

mix_status mix__plan_make(struct mix__plan *plan, const mix_graph *graph, int batch, bool backward,
                          enum mix__dtype dtype) MIX_CHECKED;
void mix__plan_release(struct mix__plan *plan);

/* The shape of a CONV step's convolution; what belongs to an engine (image, rows, types) is 0. */
struct mix__conv_dims mix__step_dims(const struct mix__plan *plan, const struct mix__step *step);

#endif
