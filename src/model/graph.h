/*
 * model/graph.h - the graph's inside: nodes, tensors, parameters, layers.
 *
 * Built by mix__graph_* calls in the order in which nodes run, closed by
 * mix__graph_finish(), then never changed but for the values.
 *
 *   values   one flat array: [ trained parameters ... | batch norm running statistics ... ]
 *            0                                 n_trained                           n_values
 *
 * Convolution weights are (k, c / groups, r, s), linear weights (k, c): torchvision's order.
 * Tensors are (n, h, w, c) with n left open.
 */
#ifndef METAMIX_MODEL_GRAPH_H
#define METAMIX_MODEL_GRAPH_H

#include "base/ctx.h"
#include "metamix/data.h"
#include "metamix/graph.h"
#include "quant/act.h"

enum mix__op {
    MIX__OP_CONV2D,
    MIX__OP_BATCHNORM,
    MIX__OP_RELU,
    MIX__OP_RELU6,
    MIX__OP_HARDSWISH,   /* x relu6(x + 3) / 6 */
    MIX__OP_HARDSIGMOID, /* relu6(x + 3) / 6   */
    MIX__OP_ADD,
    MIX__OP_MUL, /* (h, w, c) by one value for each channel, (1, 1, c) */
    MIX__OP_MAXPOOL,
    MIX__OP_GLOBAL_AVGPOOL,
    MIX__OP_FLATTEN,
    MIX__OP_DROPOUT,
    MIX__OP_LINEAR
};

/* A name is a module path: "features.2.conv.1.0"; parameters add ".weight" and so on. */
enum { MIX__NAME_MAX = 96 };
static inline bool mix__bits_valid(int bits)
{
    return bits == MIX_BITS_FLOAT || (bits >= MIX_BITS_MIN && bits <= MIX_BITS_MAX);
}

/* Sides, strides and paddings of windows, here and in integer networks; exported C has bytes. */
enum { MIX__WINDOW_MAX = 255 };

struct mix__tensor {
    int h, w, c;
    mix_range range;
    int producer; /* node, -1 for the image                 */
    int reader;   /* node, the last of n_consumers; -1: none */
    int n_consumers;
};

enum mix__param_kind {
    MIX__PARAM_WEIGHT, /* weight decay applies to these only */
    MIX__PARAM_BIAS,
    MIX__PARAM_GAMMA,
    MIX__PARAM_BETA,
    MIX__PARAM_MEAN, /* running statistics: not trained */
    MIX__PARAM_VAR
};

struct mix__param {
    char name[MIX__NAME_MAX];
    enum mix__param_kind kind;
    int rank;
    int dims[4];
    size_t count, offset; /* floats, in values */
};

struct mix__node {
    enum mix__op op;
    char name[MIX__NAME_MAX];
    int in[2], n_in; /* tensors */
    int out;
    int kernel, stride, pad, groups; /* convolution, max pool: square; pad above and left */
    int pad_end;                     /* below and right                       */
    float eps, momentum;             /* batch norm; momentum as in PyTorch    */
    float rate;                      /* dropout                               */
    int weight, bias;                /* conv, linear: parameters, -1: none    */
    int gamma, beta, mean, var;      /* batch norm: parameters                */
    int layer;                       /* conv, linear: index in layers; else -1 */
};

struct mix__layer {
    int node;
    mix_layer_info info;
};

struct mix_graph {
    mix_ctx *ctx;
    char name[MIX__NAME_MAX];
    mix_normalize normalize;     /* of the images that it was trained with; auto: not known */
    bool recentre;               /* batch norms hold mean 0 and variance 1 for want of statistics */
    struct mix__tensor *tensors; /* 0 is the image */
    struct mix__node *nodes;
    struct mix__param *params;
    struct mix__layer *layers;
    size_t n_tensors, n_nodes, n_params, n_layers;
    size_t cap_tensors, cap_nodes, cap_params, cap_layers;
    int output;        /* tensor: logits */
    char *class_names; /* one after another, each with its zero byte; NULL: not known */
    size_t class_names_bytes;
    float *values;
    size_t n_trained, n_values;
    mix_status failed; /* first failure while building; reported by finish */
};

mix_status mix__graph_new(mix_graph **out, mix_ctx *ctx, const char *name, int size,
                          int channels) MIX_CHECKED;

/* Each adds a node and returns its output tensor; after a failure they do nothing and return 0, so
 * that a builder needs one check, at finish. */
struct mix__conv_shape {
    int out_channels, kernel, stride, pad, groups;
    bool bias;
    int pad_more; /* below and right, on top of pad: 1 in TensorFlow's "same" at stride 2 */
};
int mix__graph_conv(mix_graph *g, const char *name, int in, const struct mix__conv_shape *shape);
int mix__graph_batchnorm(mix_graph *g, const char *name, int in, float eps, float momentum);
int mix__graph_unary(mix_graph *g, enum mix__op op, const char *name,
                     int in); /* activations, global pool, flatten */
/* The padding never wins. */
int mix__graph_maxpool(mix_graph *g, const char *name, int in, int kernel, int stride, int pad);
int mix__graph_dropout(mix_graph *g, const char *name, int in, float rate);
int mix__graph_add(mix_graph *g, const char *name, int a, int b);
int mix__graph_mul(mix_graph *g, const char *name, int a, int gate);
int mix__graph_linear(mix_graph *g, const char *name, int in, int out_features);

/* Closes the graph: lays out values, lists layers, costs them, marks first and last as fixed.
 * Errors: the first failure of a builder; MIX_EINVAL (two parameters of one name), MIX_EUNSUPPORTED
 * (too many values), MIX_ENOMEM. */
mix_status mix__graph_finish(mix_graph *g, int output) MIX_CHECKED;

/* Of a finished graph: takes over the name of every class, UTF-8 text; what is none, and control
 * characters, become '?'. Error: MIX_ENOMEM, and the names are as before. */
typedef const char *mix__class_name(const void *of, int index);
mix_status mix__graph_name_classes(mix_graph *g, mix__class_name *name, const void *of) MIX_CHECKED;

/* The node that alone reads a tensor of a finished graph; NULL: none, or others read it too. */
static inline const struct mix__node *mix__graph_single_reader(const mix_graph *g, int tensor)
{
    const struct mix__tensor *t = &g->tensors[tensor];
    return t->n_consumers == 1 && tensor != g->output ? &g->nodes[t->reader] : NULL;
}

/* Each output channel reads one input channel, its own. */
static inline bool mix__is_depthwise(int groups, int in_channels, int out_channels)
{
    return groups > 1 && groups == in_channels && in_channels == out_channels;
}

/* GBOPs of the network with mix_bits_uniform(). */
double mix__uniform_gbops(const mix_graph *g, int weight, int activation);

enum mix__act mix__op_act(enum mix__op op); /* NONE: no activation */

/* Fills values as torchvision would, from the seed (zoo.h). */
void mix__graph_init_values(mix_graph *g, uint64_t seed);

#endif
