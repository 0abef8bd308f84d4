/*
 * graph.h - the network as a graph, its layers and what they cost.
 *
 * A graph is made by the zoo (zoo.h) or by a file reader; nothing later knows which.
 * It owns its parameters. Its layers are the convolutions and linear nodes, in the order in
 * which they run: a quantization point sits at each layer's input and on its weights.
 */
#ifndef METAMIX_GRAPH_H
#define METAMIX_GRAPH_H

#include <stdbool.h>

#include "metamix/context.h"

typedef struct mix_graph mix_graph;

/* What values a layer's input can take; decides the bounds of its quantizer. */
typedef enum mix_range {
    MIX_RANGE_SIGNED,   /* linear outputs, residual sums, the image     */
    MIX_RANGE_UNSIGNED, /* after ReLU or ReLU6                          */
    MIX_RANGE_SHIFTED   /* after h-swish: unsigned once 3/8 is added    */
} mix_range;

/* Bit-widths are MIN to MAX, or FLOAT for what is not quantized; FIXED is the first and the last
 * layer's. */
enum { MIX_BITS_MIN = 2, MIX_BITS_MAX = 8, MIX_BITS_FIXED = 8, MIX_BITS_FLOAT = 32 };

/* At most: pixels of an image's side, its channels; classes; images of a batch. */
enum {
    MIX_SIZE_MAX = 4096,
    MIX_CHANNELS_MAX = 64,
    MIX_CLASSES_MAX = 1000000,
    MIX_BATCH_MAX = 65536
};

typedef struct mix_layer_info {
    const char
        *name; /* torchvision's module path, e.g. "features.2.conv.1.0"; lives with the graph */
    const char *kind; /* "conv", "depthwise" or "linear" */
    int in_channels, out_channels, kernel, stride, groups;
    int in_size, out_size; /* height = width of input and output, pixels; 1 for linear */
    mix_range range;
    bool searched; /* false for the first and the last layer: fixed at 8/8                        */
    uint64_t macs; /* multiply-accumulates for one image                                          */
    uint64_t weights; /* number of weight values */
} mix_layer_info;

typedef struct mix_graph_info {
    const char *name;            /* "mobilenet_v2"                                */
    int classes, channels, size; /* output width; input channels; input height = width, pixels */
    bool small_stem;             /* first convolution with stride 1 instead of 2  */
    bool recentre;               /* some batch norms' statistics are still to be measured: onnx.h */
    int layers;
    uint64_t macs;
    uint64_t parameters; /* trained values, batch norm's affine included */
} mix_graph_info;

MIX_API void mix_graph_free(mix_graph *graph); /* accepts NULL */
MIX_API void mix_graph_info_get(const mix_graph *graph, mix_graph_info *info);
/* layer in [0, info.layers). */
MIX_API void mix_graph_layer_get(const mix_graph *graph, int layer, mix_layer_info *info);

/*
 * One bit-width for each layer's weights and input activations, in layer order. Plain data: the
 * caller owns the array of info.layers entries.
 */
typedef struct mix_layer_bits {
    int weight, activation;
} mix_layer_bits;

/* Searched layers at weight/activation bits, first and last layer at 8/8. */
MIX_API void mix_bits_uniform(const mix_graph *graph, int weight, int activation,
                              mix_layer_bits *bits);
/* "W4A3" and the like, both 2..8 or 32; false: another text. */
MIX_API bool mix_bits_parse(const char *text, int *weight, int *activation);

/*
 * BOPs = sum over layers of MACs * weight bits * activation bits, for one image (doc/method.md
 * section 5). Residual adds, pooling and batch norm are not counted.
 */
MIX_API uint64_t mix_bits_bops(const mix_graph *graph, const mix_layer_bits *bits);

/* Mean activation bit-width over the searched layers, each layer counting once. */
MIX_API double mix_bits_mean_activation(const mix_graph *graph, const mix_layer_bits *bits);

#endif
