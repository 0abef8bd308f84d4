/*
 * format/onnx_file.h - an ONNX file in memory: its messages, its names and its constants.
 *
 * Checked when it is opened: it parses, its operator set is one that is read, every name is defined
 * once and before it is used (so there are no cycles), nodes that the output does not need are
 * marked. Constants are checked when they are read.
 */
#ifndef METAMIX_FORMAT_ONNX_FILE_H
#define METAMIX_FORMAT_ONNX_FILE_H

#include "base/ctx.h"
#include "onnx.pb-c.h"

enum { MIX__ONNX_OPSET_MIN = 7, MIX__ONNX_OPSET_MAX = 21 };

/* Where a name is defined. Names are sorted. */
struct mix__onnx_name {
    const char *text;
    enum { MIX__ONNX_INITIALIZER, MIX__ONNX_INPUT, MIX__ONNX_NODE } from;
    size_t index;       /* of the initializer, input or node         */
    size_t n_consumers; /* nodes that are needed and read it         */
    size_t consumer;    /* the last of them                          */
    bool needed;
};

struct mix__onnx_file {
    mix_ctx *ctx;
    const char *path; /* the caller's */
    Onnx__ModelProto *model;
    const Onnx__GraphProto *graph; /* the model's */
    int64_t opset;
    const Onnx__ValueInfoProto *input, *output; /* the one of each */
    struct mix__onnx_name *names;
    size_t n_names;
    bool *needed;       /* (node): the output depends on it */
    size_t memory_left; /* for unpacking */
    bool short_of_memory;
};

/* Errors: MIX_EIO, MIX_EFORMAT, MIX_EUNSUPPORTED, MIX_ENOMEM. Close it in any case. */
mix_status mix__onnx_open(struct mix__onnx_file *file, mix_ctx *ctx, const char *path) MIX_CHECKED;
void mix__onnx_close(struct mix__onnx_file *file);

/* NULL: no such name. */
struct mix__onnx_name *mix__onnx_find(const struct mix__onnx_file *file, const char *name);

/* "FILE: node 'NAME' (Conv): SENTENCE". */
mix_status mix__onnx_refuse(const struct mix__onnx_file *file, const Onnx__NodeProto *node,
                            const char *format, ...) MIX_CHECKED MIX_PRINTF(3, 4);

/* Text of an optional field: never NULL. */
static inline const char *mix__onnx_text(const char *text)
{
    return text ? text : "";
}

/* ---- attributes; the value when there is no such attribute ---- */

const Onnx__AttributeProto *mix__onnx_attribute(const Onnx__NodeProto *node, const char *name);
int64_t mix__onnx_int(const Onnx__NodeProto *node, const char *name, int64_t value);
float mix__onnx_float(const Onnx__NodeProto *node, const char *name, float value);
/* Whole numbers of an attribute, or n == 0. */
struct mix__onnx_ints {
    const int64_t *at;
    size_t n;
};
struct mix__onnx_ints mix__onnx_ints(const Onnx__NodeProto *node, const char *name);

/* ---- constants (onnx_tensor.c): name is for the sentences ---- */

/* Number of elements. Errors: MIX_EFORMAT (a negative dimension, a product that overflows). */
mix_status mix__onnx_count(const struct mix__onnx_file *file, const char *name,
                           const Onnx__TensorProto *tensor, size_t *count) MIX_CHECKED;
/* The tensor is of a type that can be read as floats and has as many as its dimensions say. */
mix_status mix__onnx_check_floats(const struct mix__onnx_file *file, const char *name,
                                  const Onnx__TensorProto *tensor) MIX_CHECKED;
/* Exactly count elements of float32, float16, bfloat16 or float64 as floats, all finite. */
mix_status mix__onnx_floats(const struct mix__onnx_file *file, const char *name,
                            const Onnx__TensorProto *tensor, float *to, size_t count) MIX_CHECKED;
/* At most limit elements of int64 or int32. */
mix_status mix__onnx_integers(const struct mix__onnx_file *file, const char *name,
                              const Onnx__TensorProto *tensor, int64_t *to, size_t limit,
                              size_t *count) MIX_CHECKED;
bool mix__onnx_is_integers(const Onnx__TensorProto *tensor);
/* A TensorProto.DataType that is read as floats. */
bool mix__onnx_is_float(int64_t type);

#endif
