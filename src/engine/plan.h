/*
 * engine/plan.h - from a graph to a list of steps over buffers in one arena.
 *
 * The plan is made once. It decides
 *   - what is fused: batch norm + activation + the quantizer of the one layer that reads the result
 * are one NORM step; a quantizer whose input has other readers is a FAKE step of its own
 *   - which buffers share one place: a gradient runs through a NORM step in place, through
 *     an addition without a copy for one side; without a backward pass, values do so too
 *   - where each buffer lies: time runs over the steps forward, 0 .. S-1, and then back, the
 *     backward pass of step i being at 2S-1-i; buffers whose spans do not meet may overlap
 */
#ifndef METAMIX_ENGINE_PLAN_H
#define METAMIX_ENGINE_PLAN_H

#include "engine/loops.h"
#include "model/graph.h"
#include "tensor/dtype.h"

enum mix__step_kind {
    MIX__STEP_CONV,
    MIX__STEP_NORM,
    MIX__STEP_FAKE,
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
    const struct mix__node *node; /* NORM: the batch norm; FAKE: the reading layer's node */
    int layer;     /* CONV: its own; NORM, FAKE: the layer whose quantizer is applied, -1: none */
    int x[2], y;   /* values   */
    int raw;       /* CONV behind a FAKE step: what to read when the quantizer is off        */
    int dx[2], dy; /* gradients; CONV on the image: dx is only wanted for the quantizer's step */
    bool accumulate[2];         /* dx is added to, not written */
    enum mix__act act;          /* NORM, ACT */
    int norm;                   /* NORM: number among the batch norms */
    int source;                 /* NORM: the layer whose output it reads, -1: none          */
    const struct mix__node *bn; /* CONV: the batch norm that reads its output; NULL: none   */
    struct mix__tensor in, out; /* shapes */
};

struct mix__plan {
    mix_ctx *ctx;
    int batch;
    bool backward;
    struct mix__step *steps;
    struct mix__buffer *buffers;
    size_t n_steps, n_buffers, cap_steps, cap_buffers;
    int n_norms;
    int input, output, output_grad; /* buffers */
    size_t arena;                   /* bytes   */
    size_t values_live; /* bytes: largest sum of buffers in use at one time, the floor for arena */
};

mix_status mix__plan_make(struct mix__plan *plan, const mix_graph *graph, int batch,
                          bool backward) MIX_CHECKED;
void mix__plan_release(struct mix__plan *plan);

#endif
