/*
 * format/onnx_build.h - an ONNX model in the making: nodes, constants, and the file.
 *
 * Calls do not report that memory has run out: they go on with spare messages, and
 * mix__onnx_build_write() says so. Names that are given must live until then; mix__onnx_text_of()
 * makes such.
 */
#ifndef METAMIX_FORMAT_ONNX_BUILD_H
#define METAMIX_FORMAT_ONNX_BUILD_H

#include "base/ctx.h"
#include "onnx.pb-c.h"

/* TensorProto.DataType */
enum mix__onnx_type {
    MIX__ONNX_FLOAT = 1,
    MIX__ONNX_UINT8 = 2,
    MIX__ONNX_INT8 = 3,
    MIX__ONNX_INT32 = 6,
    MIX__ONNX_INT64 = 7,
    MIX__ONNX_INT4 = 22
};

struct mix__onnx_block;

struct mix__onnx_list {
    void **items;
    size_t n, capacity;
};

struct mix__onnx_build {
    mix_ctx *ctx;
    struct mix__onnx_block *blocks; /* all memory but the lists' */
    bool failed;
    struct mix__onnx_list nodes, constants, notes;
    Onnx__NodeProto spare_node;
    Onnx__AttributeProto spare_attribute;
};

#define MIX__ONNX_QONNX_DOMAIN "qonnx.custom_op.general"

void mix__onnx_build_begin(struct mix__onnx_build *b, mix_ctx *ctx);
void mix__onnx_build_release(struct mix__onnx_build *b);

/* Zeroed memory of the build's, NULL when there is none. */
void *mix__onnx_take(struct mix__onnx_build *b, size_t n, size_t size);
/* printf() into the build's memory; never NULL. */
char *mix__onnx_text_of(struct mix__onnx_build *b, const char *format, ...) MIX_PRINTF(2, 3);

/* A node behind the others, with its one output's name as its own; inputs end with NULL. */
Onnx__NodeProto *mix__onnx_put_node(struct mix__onnx_build *b, const char *op, const char *out,
                                    ...);
void mix__onnx_set_int(struct mix__onnx_build *b, Onnx__NodeProto *node, const char *name,
                       int64_t value);
void mix__onnx_set_float(struct mix__onnx_build *b, Onnx__NodeProto *node, const char *name,
                         float value);
void mix__onnx_set_text(struct mix__onnx_build *b, Onnx__NodeProto *node, const char *name,
                        const char *value);
void mix__onnx_set_ints(struct mix__onnx_build *b, Onnx__NodeProto *node, const char *name,
                        const int64_t *values, size_t n);

/* A constant of rank 0..4 (dims is copied); data in the type's own bytes, 4-bit types two to a
 * byte, the first one low: bytes long, alive as long as names. Gives the name. */
const char *mix__onnx_put_constant(struct mix__onnx_build *b, const char *name,
                                   enum mix__onnx_type type, int rank, const int64_t *dims,
                                   const void *data, size_t bytes);
const char *mix__onnx_put_scalar(struct mix__onnx_build *b, const char *name, float value);

/* A line of the model's metadata. */
void mix__onnx_put_note(struct mix__onnx_build *b, const char *key, const char *value);

struct mix__onnx_model {
    const char *name; /* the graph's */
    int64_t ir_version, opset;
    bool qonnx;                 /* also imports qonnx.custom_op.general, version 1 */
    const char *input, *output; /* float: (N, dims...)                             */
    int input_rank, output_rank;
    int64_t input_dims[3], output_dims[3]; /* behind N */
};
/* The file appears at once or not at all. Errors: MIX_ENOMEM, MIX_EIO. */
mix_status mix__onnx_build_write(struct mix__onnx_build *b, const struct mix__onnx_model *model,
                                 const char *path) MIX_CHECKED;

#endif
