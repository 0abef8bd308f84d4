/*
 * export.h - what leaves metamix: an integer network for its own runtime or for others'.
 */
#ifndef METAMIX_EXPORT_H
#define METAMIX_EXPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "metamix/context.h"

/*
 *   mix     doc/mix-format.md, for runtime.h
 *   onnx    quantized tensors as QuantizeLinear and DequantizeLinear: doc/onnx-export.md
 *   qonnx   quantized tensors as QONNX's Quant nodes, for FINN and hls4ml
 *   c       plain C: NAME.c and, beside it and before it, NAME.h for a path NAME.c; one with the
 *           other of another export does not compile
 */
#define MIX_EXPORT_MAP(X)                                                                          \
    X(MIX, "mix")                                                                                  \
    X(ONNX, "onnx")                                                                                \
    X(QONNX, "qonnx")                                                                              \
    X(C, "c")

typedef enum mix_export_format {
#define X(name, text) MIX_EXPORT_##name,
    MIX_EXPORT_MAP(X)
#undef X
} mix_export_format;

MIX_API const char *mix_export_format_name(mix_export_format format);
/* false: no such name, and *format is untouched */
MIX_API bool mix_export_format_parse(const char *name, mix_export_format *format);

/* The integer types of an ONNX file. */
typedef enum mix_onnx_types {
    MIX_ONNX_NATIVE, /* "native": weights of up to 4 bits in a 4-bit type: small (opset 21) */
    MIX_ONNX_INT8    /* "int8": 8-bit types, which runtimes are fast with (opset 14)        */
} mix_onnx_types;

/* false: no such name, and *types is untouched */
MIX_API bool mix_onnx_types_parse(const char *name, mix_onnx_types *types);

typedef struct mix_export_options {
    mix_export_format format;
    mix_onnx_types onnx_types; /* of format onnx alone */
} mix_export_options;

/*
 * The network of a run folder or checkpoint whose weights are quantized, or of a .mix file, as a
 * file that appears at once or not at all. Errors: those of reading; MIX_EINVAL (a float network,
 * or weights that are not quantized yet); MIX_EUNSUPPORTED (a layer in float, a size beyond the
 * runtime's); MIX_EIO (writing).
 */
MIX_API MIX_CHECKED mix_status mix_export(mix_ctx *ctx, const char *from,
                                          const mix_export_options *options, const char *path);
/* The .mix file in memory, for mix_runtime_open_bytes(); mix_export_free() frees it. Errors: those of
 * mix_export(), without writing; MIX_ENOMEM. */
MIX_API MIX_CHECKED mix_status mix_export_bytes(mix_ctx *ctx, const char *from, void **bytes,
                                                size_t *size);
MIX_API void mix_export_free(mix_ctx *ctx, void *bytes); /* accepts NULL */

#endif
