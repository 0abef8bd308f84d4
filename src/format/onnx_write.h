/*
 * format/onnx_write.h - an integer network as an ONNX file for other runtimes and compilers.
 */
#ifndef METAMIX_FORMAT_ONNX_WRITE_H
#define METAMIX_FORMAT_ONNX_WRITE_H

#include "model/net.h"

/* How codes are written down; doc/onnx-export.md. */
enum mix__onnx_style {
    MIX__ONNX_QDQ_NATIVE, /* (Q, DQ) pairs; 4-bit weights as such, opset 21     */
    MIX__ONNX_QDQ_INT8,   /* (Q, DQ) pairs; 8-bit types, int32 biases, opset 14 */
    MIX__ONNX_QONNX       /* Quant nodes on floats                              */
};

/* The file appears at once or not at all. Errors: MIX_EIO, MIX_ENOMEM. */
mix_status mix__onnx_write(const struct mix__net *net, enum mix__onnx_style style,
                           const char *path) MIX_CHECKED;

#endif
