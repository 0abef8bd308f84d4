/*
 * engine/conv.h - one layer's convolution: oneDNN's, or our own loops where it is depthwise.
 *
 * Tensors are (n, h, w, c). A linear layer is a 1x1 convolution of a 1x1 image. Weights come in and
 * gradients go out as (k, c / groups, r, s); pack() lays them out for the primitives. Only conv.c
 * knows oneDNN.
 */
#ifndef METAMIX_ENGINE_CONV_H
#define METAMIX_ENGINE_CONV_H

#include "engine/loops.h"

struct mix__conv_dims {
    int n, h, w, c, oh, ow, k, kernel, stride, pad, pad_end, groups; /* pad: above, left */
    bool bias;
};

/* What all convolutions of one engine share: the library's handles and one scratch block. */
struct mix__backend;
struct mix__conv;

mix_status mix__backend_new(struct mix__backend **out, mix_ctx *ctx) MIX_CHECKED;
void mix__backend_free(struct mix__backend *backend);

/* Plans forward, and backward when asked; borrows loops and backend. */
mix_status mix__conv_new(struct mix__conv **out, struct mix__backend *backend,
                         const struct mix__loops *loops, const struct mix__conv_dims *dims,
                         bool backward) MIX_CHECKED;
void mix__conv_free(struct mix__conv *conv);
/* After the last mix__conv_new(): allocates the scratch that all plans need at most. */
mix_status mix__backend_ready(struct mix__backend *backend) MIX_CHECKED;

size_t mix__backend_scratch(const struct mix__backend *backend); /* bytes */
size_t mix__conv_packed(const struct mix__conv *conv);           /* bytes of packed weights */

mix_status mix__conv_pack(struct mix__conv *conv, const float *weights) MIX_CHECKED;
/* y = x * w + bias; bias (k) iff dims.bias. */
mix_status mix__conv_forward(struct mix__conv *conv, float *y, const float *x,
                             const float *bias) MIX_CHECKED;
mix_status mix__conv_backward_data(struct mix__conv *conv, float *dx, const float *dy) MIX_CHECKED;
/* dw is overwritten. */
mix_status mix__conv_backward_weights(struct mix__conv *conv, float *dw, const float *x,
                                      const float *dy) MIX_CHECKED;

#endif
