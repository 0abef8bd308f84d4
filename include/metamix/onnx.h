/*
 * onnx.h - a float classification network from an ONNX file, with its weights.
 *
 * Read are models of opset 7 to 21 in one file, as PyTorch, TensorFlow and MXNet export them: Conv,
 * BatchNormalization, Relu, Clip as ReLU6, HardSwish and HardSigmoid (also spelled out), Add,
 * Mul by a channel gate, pooling, Gemm or MatMul + Add, and what reshapes between them. A Softmax
 * at the end is left out. Layers carry the name of their weights without ".weight" where there is
 * one, so that an export of torchvision's has the zoo's names, else the node's.
 *
 * A convolution with a bias and no batch norm (it was folded) gets one back that does nothing in
 * evaluation: mean 0, variance 1, the bias as its beta. mix_graph_info.recentre then says that its
 * statistics are still to be measured; training does so before its first step.
 */
#ifndef METAMIX_ONNX_H
#define METAMIX_ONNX_H

#include "metamix/graph.h"

typedef struct mix_onnx_options {
    int size;    /* height = width, 1..MIX_SIZE_MAX pixels; 0: the file's, 224 where that is open */
    int classes; /* 0: the file's; 2..MIX_CLASSES_MAX: the last layer is a fresh one for so many */
    uint64_t seed; /* of the fresh layer's weights, default 1                                   */
} mix_onnx_options;

/* The name of a network is that of a file: it ends in ".onnx". */
MIX_API bool mix_onnx_is_path(const char *name);

MIX_API void mix_onnx_options_init(mix_onnx_options *options);

/* options NULL: defaults. The caller frees *out with mix_graph_free(). Errors: MIX_EIO;
 * MIX_EFORMAT (malformed, a weight that is not finite, by name); MIX_EUNSUPPORTED (the node and why
 * it cannot be taken); MIX_ESHAPE (layers do not fit together or the picture); MIX_EINVAL (an
 * option out of range); MIX_ENOMEM. */
MIX_API MIX_CHECKED mix_status mix_graph_from_onnx(mix_graph **out, mix_ctx *ctx, const char *path,
                                                   const mix_onnx_options *options);

#endif
