/*
 * model/net.h - the integer network: what a runtime executes and what files and exports hold.
 *
 * Operators in running order over tensors; tensor 0 is the normalised float image. A tensor is
 * float, or it holds the codes of the one layer that reads it: then it has that layer's quantizer
 * (bits, range, step). Every operator makes a float value, then
 *
 *   y = act(value), and behind it the code of y when the output tensor holds codes
 *
 *   IDENTITY   value = x
 *   CONV       value = scale[k] * acc + offset[k], acc = the exact sum of code * weight code over
 *              the taps inside the picture; a "shifted" input takes (shift / step) * scale[k] *
 *              (the sum of those weight codes) off the offset. Also linear layers, 1x1.
 *   ADD        a + b                      MUL       x (h, w, c) * gate (1, 1, c)
 *   MAXPOOL    the padding never wins     AVGPOOL   over the picture
 *
 * doc/numerics.md, "Integer inference", has the order of the operations.
 * The i-th CONV is the graph's layer i. Weight codes are (k, r, s, c / groups), packed
 * (tensor/packed.h); -2^(bits-1) is not used.
 */
#ifndef METAMIX_MODEL_NET_H
#define METAMIX_MODEL_NET_H

#include "model/graph.h"

/* The order is the files': values never change. */
enum mix__net_kind {
    MIX__NET_IDENTITY,
    MIX__NET_CONV,
    MIX__NET_ADD,
    MIX__NET_MUL,
    MIX__NET_MAXPOOL,
    MIX__NET_AVGPOOL,
    MIX__NET_KINDS
};

const char *mix__net_kind_name(enum mix__net_kind kind); /* "identity", "conv", ... */

/* Limits that keep every size in range: accumulators stay in int32 also when signed codes are
 * stored with an offset, (255 + 127) * 127 * 44000 < 2^31. */
enum {
    MIX__NET_TAPS_MAX = 44000,
    MIX__NET_SIDE_MAX = 1 << 16,
    MIX__NET_ELEMENTS_MAX = 1 << 27,
    MIX__NET_COUNT_MAX = 4096 /* tensors, operators: plans take time by their square */
};

struct mix__net_tensor {
    int h, w, c;
    int bits;        /* 0: float; 2..8: codes */
    mix_range range; /* of codes */
    float step;
};

struct mix__net_op {
    enum mix__net_kind kind;
    char name[MIX__NAME_MAX]; /* the graph's node */
    int in[2], out;           /* tensors; in[1] -1 unless ADD, MUL */
    enum mix__act act;
    /* CONV, MAXPOOL; else 0 */
    int kernel, stride, pad, pad_end; /* pad: above and left; pad_end: below and right */
    /* CONV */
    int groups, weight_bits;
    const uint8_t *weights;      /* packed codes */
    const float *scale, *offset; /* (k)          */
};

struct mix__net {
    mix_ctx *ctx;
    char name[MIX__NAME_MAX];
    struct mix__net_tensor *tensors;
    struct mix__net_op *ops;
    size_t n_tensors, n_ops, cap_tensors, cap_ops;
    int output;                    /* tensor: logits, float, (1, 1, classes) */
    const float *mean, *deviation; /* (c) the image is (x - mean) / deviation for x in 0..1 */
    const char *class_names;       /* one after another, each with its zero byte; NULL: none */
    size_t class_names_bytes;
    void **blocks; /* what the pointers above point to, when the net owns it: (n_blocks) */
    size_t n_blocks, cap_blocks;
};

/* A graph's trained numbers, as plain arrays in layer order. */
struct mix__net_source {
    const mix_graph *graph;
    const float *trained, *stats; /* as the graph's values: before and behind n_trained */
    const mix_layer_bits *bits;   /* (layers) 2..8                                      */
    const float *act_step;        /* (layers)                                           */
    const float *weight_step;     /* (out channels of layer 0, of layer 1, ...)         */
};

/* Batch norms are folded, weights quantized. mean and deviation are copied, (image channels).
 * Errors: MIX_EUNSUPPORTED (a layer in float, a node that integer inference has no place for),
 * MIX_ENUMERIC (a factor that is not finite), MIX_ENOMEM. */
mix_status mix__net_lower(struct mix__net **out, const struct mix__net_source *source,
                          const float *mean, const float *deviation) MIX_CHECKED;
void mix__net_free(struct mix__net *net); /* accepts NULL */

/*
 * scale and offset (k) of the affine map behind a layer's sums of codes, the batch norm bn (NULL:
 * none) folded in: float where training is, and
 *   scale[k] = folded factor * act_step * weight_step[k], in double, rounded once.
 * Of the source only graph, trained and stats are looked at.
 */
void mix__net_fold(float *scale, float *offset, const struct mix__net_source *source,
                   const struct mix__node *conv, const struct mix__node *bn, float act_step,
                   const float *weight_step);

/* Whether everything fits together; what (a path) opens the sentence. Errors: MIX_EFORMAT,
 * MIX_EUNSUPPORTED (above the limits). Weight codes and pointers are not looked at. */
mix_status mix__net_check(const struct mix__net *net, const char *what) MIX_CHECKED;

/* Of a CONV. */
size_t mix__net_taps(const struct mix__net *net, const struct mix__net_op *op);
static inline size_t mix__net_weights(const struct mix__net *net, const struct mix__net_op *op)
{
    return mix__net_taps(net, op) * (size_t)net->tensors[op->out].c;
}
static inline uint64_t mix__net_macs(const struct mix__net *net, const struct mix__net_op *op)
{
    const struct mix__net_tensor *y = &net->tensors[op->out];
    return (uint64_t)mix__net_weights(net, op) * (uint64_t)y->h * (uint64_t)y->w;
}

/* Elements of a tensor. */
static inline size_t mix__net_elements(const struct mix__net_tensor *t)
{
    return (size_t)t->h * (size_t)t->w * (size_t)t->c;
}

/* mix__alloc() for something that the net frees. */
void *mix__net_block(struct mix__net *net, size_t n, size_t size);

#endif
