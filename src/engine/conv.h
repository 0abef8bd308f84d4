/*
 * engine/conv.h - one layer's convolution, a tile at a time: oneDNN's primitives, or our own loops
 * where it is depthwise.
 *
 * Tensors are (n, h, w, c). A linear layer is a 1x1 convolution of a 1x1 image. Weights come in and
 * gradients go out as (k, c / groups, r, s); pack() lays them out for the primitives.
 *
 * A thread works on one tile at a time. Pointers are to the first row of the tile that the
 * operation needs: x to row x0, y to y0, dx to dx0, dy to dy0 (engine/tiles.h).
 */
#ifndef METAMIX_ENGINE_CONV_H
#define METAMIX_ENGINE_CONV_H

#include "engine/loops.h"
#include "engine/tiles.h"

struct mix__conv_dims {
    int n, h, w, c, oh, ow, k, kernel, stride, pad, pad_end, groups; /* pad: above, left */
    bool bias;
    bool image;            /* x is the input image: no gradient of it is wanted          */
    enum mix__dtype dtype; /* wanted for what is multiplied                            */
    enum mix__dtype codes; /* U8 or S8: forward shall multiply codes of x too; F32: not */
    enum mix__dtype y, dx; /* wanted for results; mix__conv_types() says what it will be */
    int rows; /* 1x1 alone: pixels of every call, where those are not tiles of its own; else 0 */
};

enum mix__conv_kind { MIX__CONV_DENSE, MIX__CONV_POINTWISE, MIX__CONV_DEPTHWISE };

/* Follows from c, k, kernel, stride, pads, groups and bias. DEPTHWISE: those that dw_ loops take. */
enum mix__conv_kind mix__conv_kind(const struct mix__conv_dims *dims);

/* What x and dy, y, and dx are; codes: what x may be in the forward pass instead, F32 if nothing.
 */
struct mix__conv_types {
    enum mix__dtype operand, codes, y, dx;
};

/* What all convolutions of one engine share: the library's handles and, for each thread, scratch
 * and sums. */
struct mix__backend;
struct mix__conv;

mix_status mix__backend_new(struct mix__backend **out, mix_ctx *ctx, int threads) MIX_CHECKED;
void mix__backend_free(struct mix__backend *backend);

/* Plans forward, and backward when asked; borrows loops and backend. */
mix_status mix__conv_new(struct mix__conv **out, struct mix__backend *backend,
                         const struct mix__loops *loops, const struct mix__conv_dims *dims,
                         bool backward) MIX_CHECKED;
void mix__conv_free(struct mix__conv *conv);
/* After the last mix__conv_new(): allocates the scratch that all plans need at most. */
mix_status mix__backend_ready(struct mix__backend *backend) MIX_CHECKED;

bool mix__conv_is_depthwise(const struct mix__conv *conv);
size_t mix__backend_scratch(const struct mix__backend *backend); /* bytes */
size_t mix__conv_packed(const struct mix__conv *conv);           /* bytes of packed weights */
struct mix__conv_types mix__conv_types(const struct mix__conv *conv);
const struct mix__tiling *mix__conv_tiling(const struct mix__conv *conv);
struct mix__tile mix__conv_tile(const struct mix__conv *conv, int index);
/* Rows of pixels, over all images, in front of row `row` of an image, and in a tile between rows.
 */
size_t mix__conv_x_pixels(const struct mix__conv *conv, int image, int row);
size_t mix__conv_y_pixels(const struct mix__conv *conv, int image, int row);

/* codes: weights are whole numbers within a signed byte, and forward's x will be codes; that of the
 * layer that reads the image may be values all the same. */
mix_status mix__conv_pack(struct mix__conv *conv, const float *weights, bool codes) MIX_CHECKED;
/* Other weights for backward_data than for forward; not of a depthwise layer. */
mix_status mix__conv_pack_back(struct mix__conv *conv, const float *weights) MIX_CHECKED;
/* Of a layer that is not depthwise: y = x * w + bias; bias (k) iff dims.bias. */
mix_status mix__conv_forward(struct mix__conv *conv, int thread, void *y, struct mix__values x,
                             const float *bias) MIX_CHECKED;
mix_status mix__conv_backward_data(struct mix__conv *conv, int thread, void *dx,
                                   const void *dy) MIX_CHECKED;
/* Between begin and end a layer's tiles add to their threads' sums; end puts the total of a piece,
 * which is output channels from its first to the next one's, into its place in dw. A layer with rows
 * of its caller may be between them while a depthwise one is. */
void mix__conv_weights_begin(struct mix__conv *conv);
mix_status mix__conv_backward_weights(struct mix__conv *conv, int thread, const void *x,
                                      const void *dy) MIX_CHECKED;
int mix__conv_weights_pieces(const struct mix__conv *conv);
size_t mix__conv_weights_first(const struct mix__conv *conv, int piece);
mix_status mix__conv_weights_end(struct mix__conv *conv, int thread, int piece,
                                 float *dw) MIX_CHECKED;
/* Of a depthwise layer: x from row x0 of the tile's first image on, dz from row dy0 and du from row
 * dx0 on. du: the gradient at x, float32, or what that
 * is behind `back`, then by streaming stores if wanted; weights: theirs is wanted too. */
void mix__depthwise_forward(const struct mix__conv *conv, const struct mix__tile *tile, void *y,
                            const struct mix__dw_input *x);
void mix__depthwise_backward(struct mix__conv *conv, int thread, const struct mix__tile *tile,
                             struct mix__values du, bool stream, const struct mix__norm_back *back,
                             const struct mix__dw_input *x, const struct mix__dw_gradient *dz,
                             bool weights);
/* Of a 1x1 layer, apart from that: a tile's weight gradient is added to sum (k, c). */
mix_status mix__conv_add_weights(struct mix__conv *conv, int thread, float *sum, const void *x,
                                 const void *dy) MIX_CHECKED;

#endif
