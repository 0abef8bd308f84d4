/*
 * engine/primitives.h - the passes of one layer by oneDNN 2.6's C interface: convolutions of whole
 * images (MIX__CONV_DENSE), or matrix products over pixels (MIX__CONV_POINTWISE),
 *   y (m, k) = x (m, c) w^T,  dx (m, c) = dy (m, k) w,  dw (k, c) = dy^T x
 * No other file but floor.c includes dnnl.h.
 *
 * Primitives are made for one tile and one thread; threads run them side by side, each with memory
 * objects of its own. Weights are in the layout that each primitive likes best, and are packed when
 * they change, not when they are used.
 */
#ifndef METAMIX_ENGINE_PRIMITIVES_H
#define METAMIX_ENGINE_PRIMITIVES_H

#include "engine/conv.h"

/* The library's handles, and scratch for each thread. */
struct mix__onednn;
mix_status mix__onednn_new(struct mix__onednn **out, mix_ctx *ctx, int threads) MIX_CHECKED;
void mix__onednn_free(struct mix__onednn *dnn);
/* After the last mix__primitives_new(): allocates the scratch that all need at most. */
mix_status mix__onednn_ready(struct mix__onednn *dnn) MIX_CHECKED;
size_t mix__onednn_scratch(const struct mix__onednn *dnn); /* bytes, of all threads */

/* FORWARD_CODES is FORWARD on bytes, whose sums are exact integers. MORE_WEIGHTS is BACKWARD_WEIGHTS
 * that adds to what is there instead of overwriting it, which only a product can. */
enum mix__primitive_pass {
    MIX__FORWARD,
    MIX__FORWARD_CODES,
    MIX__BACKWARD_DATA,
    MIX__BACKWARD_WEIGHTS,
    MIX__MORE_WEIGHTS,
    MIX__PASSES
};

struct mix__primitives_shape {
    struct mix__conv_dims dims;
    enum mix__conv_kind kind;
    struct mix__conv_types types;
    int images, rows; /* of a tile: images of a dense layer, pixels of a pointwise one */
    bool backward;
};

/* Borrows dnn. Errors: MIX_EBACKEND, MIX_ENOMEM. */
struct mix__primitives;
mix_status mix__primitives_new(struct mix__primitives **out, struct mix__onednn *dnn,
                               const struct mix__primitives_shape *shape) MIX_CHECKED;
void mix__primitives_free(struct mix__primitives *p);

/* One of them is oneDNN's reference implementation. */
bool mix__primitives_slow(const struct mix__primitives *p);
size_t mix__primitives_packed(const struct mix__primitives *p);   /* bytes of packed weights */
size_t mix__primitives_gradient(const struct mix__primitives *p); /* bytes of their gradient */

/* weights (k, c / groups, r, s) for a pass; nothing is done for one that there is not. Any thread.
 */
mix_status mix__primitives_pack(struct mix__primitives *p, enum mix__primitive_pass pass,
                                const float *weights) MIX_CHECKED;
/* What BACKWARD_WEIGHTS of a dense layer writes is so many pieces of equal size, each of the same
 * number of output channels; unpack() makes dw (k / pieces, c / groups, r, s) of one of them. */
int mix__primitives_pieces(const struct mix__primitives *p);
mix_status mix__primitives_unpack(struct mix__primitives *p, int thread, const float *gradient,
                                  float *dw) MIX_CHECKED;
/* x and y: the tile on the image's and the output's side, or their gradients; other: the bias of a
 * forward pass, or the weights' gradient. */
mix_status mix__primitives_run(struct mix__primitives *p, enum mix__primitive_pass pass, int thread,
                               const void *x, const void *y, const void *other) MIX_CHECKED;

/* A product of matrices, by all threads: y (m, n) = a (m, k) or, turned, a^T of (k, m), times
 * b (k, n). Error: MIX_EBACKEND. */
mix_status mix__product(mix_ctx *ctx, float *y, const float *a, bool turned, const float *b,
                        size_t m, size_t n, size_t k) MIX_CHECKED;

#endif
