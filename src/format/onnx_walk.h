/*
 * format/onnx_walk.h - from the nodes of an ONNX file, in order, to a graph.
 *
 *   onnx_graph.c    the walk, names, values
 *   onnx_layers.c   convolutions, linear layers, pools
 *   onnx_shape.c    reshaping, whole numbers
 *   onnx_act.c      activations, add, multiply
 *
 * Every name of the file has a value. A spelled-out hard swish passes through values that are no
 * tensors of the graph yet:
 *
 *   x --Add 3--> PLUS3 --Clip 0..6--> SIX_GATE --Div 6--> GATE     (a node when another reads it)
 *                                        |                  |
 *                                      Mul x              Mul x
 *                                        |                  |
 *                                     PRODUCT --Div 6--> hard swish
 */
#ifndef METAMIX_FORMAT_ONNX_WALK_H
#define METAMIX_FORMAT_ONNX_WALK_H

#include "format/onnx_file.h"
#include "metamix/onnx.h"
#include "model/graph.h"

enum mix__onnx_kind {
    MIX__ONNX_NOTHING,
    MIX__ONNX_CONSTANT, /* an initializer or Constant: `constant`  */
    MIX__ONNX_NUMBER,   /* one float: `number`                     */
    MIX__ONNX_NUMBERS,  /* whole numbers: `at`, `n`                */
    MIX__ONNX_TENSOR,   /* the graph's `tensor`                    */
    MIX__ONNX_PADDED,   /* it with zeros around, for a convolution */
    MIX__ONNX_PLUS3,    /* the others are made of `tensor` x: x + 3 */
    MIX__ONNX_SIX_GATE, /* relu6(x + 3)                            */
    MIX__ONNX_GATE,     /* relu6(x + 3) / 6                        */
    MIX__ONNX_PRODUCT   /* x relu6(x + 3)                          */
};

enum { MIX__ONNX_RANK_MAX = 8 };
#define MIX__ONNX_BATCH INT64_MIN /* in shapes: the open number of images */

struct mix__onnx_pads {
    int before, after; /* above and left, below and right */
};

struct mix__onnx_value {
    enum mix__onnx_kind kind;
    const char *name; /* the file's */
    const Onnx__TensorProto *constant;
    float number;
    int64_t at[MIX__ONNX_RANK_MAX];
    size_t n;
    int tensor, rank;   /* rank in the file: 4, or 2 behind a flattening              */
    bool pooled;        /* behind the global pool: a gate or the classifier           */
    bool channels_last; /* the image, to be transposed                               */
    int open_bias;      /* parameter of a MatMul's layer that an Add may fill; else -1 */
    struct mix__onnx_pads pads;
};

/* Where a parameter's values come from, once the graph is finished. */
struct mix__onnx_fill {
    int param;
    const char *name;
    const Onnx__TensorProto *from; /* NULL: all are `number` */
    float number;
    bool transposed; /* (in, out) in the file */
};

struct mix__onnx_walk {
    struct mix__onnx_file *file;
    const mix_onnx_options *options;
    mix_graph *graph;
    struct mix__onnx_value *values; /* (names) */
    struct mix__onnx_fill *fills;
    size_t n_fills, cap_fills;
    size_t index;      /* of the running node */
    size_t last_layer; /* node                */
    int64_t batch;     /* the file's, 0: open */
    int fresh_bias;    /* of the layer for another number of classes; -1: none */
};

typedef mix_status mix__onnx_op(struct mix__onnx_walk *w, const Onnx__NodeProto *node);

/* An input; NULL: not given. */
struct mix__onnx_value *mix__onnx_in(const struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                                     size_t index);
/* An input that has to be a constant; *value NULL: not given. */
mix_status mix__onnx_constant_in(const struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                                 size_t index, struct mix__onnx_value **value) MIX_CHECKED;
/* An input that has to be a tensor of the graph; a GATE becomes one. */
mix_status mix__onnx_tensor_in(struct mix__onnx_walk *w, const Onnx__NodeProto *node, size_t index,
                               struct mix__onnx_value **value) MIX_CHECKED;
/* Whole numbers of an input, at most MIX__ONNX_RANK_MAX. */
mix_status mix__onnx_numbers_in(const struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                                size_t index, int64_t *at, size_t *n) MIX_CHECKED;
/* A constant of one float; false: it is none. */
bool mix__onnx_number(const struct mix__onnx_walk *w, const struct mix__onnx_value *value,
                      float *number);

/* Sets output 0. Failures of the graph's builder are passed on here. */
mix_status mix__onnx_put(struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                         struct mix__onnx_value value) MIX_CHECKED;
/* A tensor that keeps rank and place (behind the pool or not) of `like`. */
mix_status mix__onnx_put_like(struct mix__onnx_walk *w, const Onnx__NodeProto *node, int tensor,
                              const struct mix__onnx_value *like) MIX_CHECKED;

/* A name for the graph's node that no other has: of weights "x.weight" it is x (weights may be
 * NULL), else the module path in the node's name. */
void mix__onnx_name(const struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                    const char *weights, const char *suffix, char name[MIX__NAME_MAX]);

mix_status mix__onnx_fill_from(struct mix__onnx_walk *w, int param,
                               const struct mix__onnx_value *value, bool transposed) MIX_CHECKED;
mix_status mix__onnx_fill_number(struct mix__onnx_walk *w, int param, float number) MIX_CHECKED;

/* ---- operators ---- */

mix__onnx_op mix__onnx_conv, mix__onnx_batchnorm, mix__onnx_gemm, mix__onnx_matmul, mix__onnx_pad,
    mix__onnx_global_pool, mix__onnx_reduce_mean, mix__onnx_average_pool, mix__onnx_max_pool,
    mix__onnx_dropout;
mix__onnx_op mix__onnx_relu, mix__onnx_clip, mix__onnx_hard_swish, mix__onnx_hard_sigmoid,
    mix__onnx_add, mix__onnx_mul, mix__onnx_div;
mix__onnx_op mix__onnx_flatten, mix__onnx_reshape, mix__onnx_squeeze, mix__onnx_unsqueeze,
    mix__onnx_transpose, mix__onnx_identity, mix__onnx_cast, mix__onnx_softmax, mix__onnx_constant,
    mix__onnx_shape, mix__onnx_gather, mix__onnx_concat, mix__onnx_slice;

/* value's tensor of 1x1 pixels, flattened; rank 2. */
mix_status mix__onnx_flat(struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                          struct mix__onnx_value *value) MIX_CHECKED;
/* Axes of an attribute, or of an input from the given opset on, made positive; n == 0: none. */
mix_status mix__onnx_axes(const struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                          int64_t input_since, int rank, int64_t *axes, size_t *n) MIX_CHECKED;
/* The axes are height and width. */
bool mix__onnx_is_picture(const int64_t *axes, size_t n);

#endif
