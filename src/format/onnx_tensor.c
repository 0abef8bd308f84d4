/*
 * format/onnx_tensor.c - constants of an ONNX file as floats and whole numbers.
 *
 * Elements lie in raw_data (little-endian) or in the field of their type; float16 and bfloat16 lie
 * in int32_data, one to each entry.
 */
#include <math.h>
#include <string.h>

#include "format/onnx_file.h"
#include "tensor/values.h"

/* TensorProto.DataType */
enum { FLOAT = 1, INT32 = 6, INT64 = 7, FLOAT16 = 10, DOUBLE = 11, BFLOAT16 = 16, EXTERNAL = 1 };

static const struct type {
    int id;
    const char *name;
    size_t bytes;
} types[] = {
    { FLOAT, "float32", 4 },   { INT32, "int32", 4 },    { INT64, "int64", 8 },
    { FLOAT16, "float16", 2 }, { DOUBLE, "float64", 8 }, { BFLOAT16, "bfloat16", 2 },
};

static const struct type *type_of(const Onnx__TensorProto *t)
{
    for (size_t i = 0; i < MIX_COUNT(types); i++)
        if (types[i].id == t->data_type)
            return &types[i];
    return NULL;
}

bool mix__onnx_is_integers(const Onnx__TensorProto *t)
{
    return t->data_type == INT64 || t->data_type == INT32;
}

bool mix__onnx_is_float(int64_t type)
{
    return type == FLOAT || type == FLOAT16 || type == BFLOAT16 || type == DOUBLE;
}

mix_status mix__onnx_count(const struct mix__onnx_file *f, const char *name,
                           const Onnx__TensorProto *t, size_t *count)
{
    *count = 1;
    for (size_t i = 0; i < t->n_dims; i++)
        if (t->dims[i] < 0 || __builtin_mul_overflow(*count, (uint64_t)t->dims[i], count))
            return mix__fail(f->ctx, MIX_EFORMAT, "%s: tensor '%.100s': dimension %zu is %lld",
                             f->path, name, i, (long long)t->dims[i]);
    return MIX_OK;
}

/* Entries that the typed field holds. */
static size_t typed_count(const Onnx__TensorProto *t)
{
    switch (t->data_type) {
    case FLOAT:
        return t->n_float_data;
    case INT64:
        return t->n_int64_data;
    case DOUBLE:
        return t->n_double_data;
    default:
        return t->n_int32_data;
    }
}

/* The data are there and as many as the dimensions say. */
static mix_status check(const struct mix__onnx_file *f, const char *name,
                        const Onnx__TensorProto *t, bool integers, size_t *count)
{
    const struct type *type = type_of(t);
    if (!type || mix__onnx_is_integers(t) != integers)
        return mix__fail(f->ctx, MIX_EUNSUPPORTED,
                         "%s: tensor '%.100s' has elements of type %s (%d); expected %s", f->path,
                         name, type ? type->name : "unknown here", t->data_type,
                         integers ? "int64 or int32" : "float32, float16, bfloat16 or float64");
    if (t->data_location == EXTERNAL)
        return mix__fail(f->ctx, MIX_EUNSUPPORTED,
                         "%s: tensor '%.100s' lies in another file; expected a model in one file "
                         "(torch.onnx.export with external_data=False, onnx.save without "
                         "save_as_external_data)",
                         f->path, name);
    MIX_TRY(mix__onnx_count(f, name, t, count));
    if (t->has_raw_data
            ? t->raw_data.len % type->bytes == 0 && t->raw_data.len / type->bytes == *count
            : typed_count(t) == *count)
        return MIX_OK;
    return mix__fail(f->ctx, MIX_EFORMAT,
                     "%s: tensor '%.100s': its dimensions make %zu elements of %s, its data have "
                     "%zu %s",
                     f->path, name, *count, type->name,
                     t->has_raw_data ? t->raw_data.len : typed_count(t),
                     t->has_raw_data ? "bytes" : "elements");
}

static float from_double(const void *at)
{
    double value;
    memcpy(&value, at, sizeof value);
    return (float)value;
}

static float element(const Onnx__TensorProto *t, size_t i)
{
    const uint8_t *raw = t->has_raw_data ? t->raw_data.data : NULL;
    uint16_t half;
    float value;
    switch (t->data_type) {
    case DOUBLE:
        return raw ? from_double(raw + 8 * i) : (float)t->double_data[i];
    case FLOAT16:
    case BFLOAT16:
        if (raw)
            memcpy(&half, raw + 2 * i, sizeof half);
        else
            half = (uint16_t)t->int32_data[i];
        return t->data_type == FLOAT16 ? mix__f16_widen(half) : mix__bf16_widen(half);
    default:
        if (!raw)
            return t->float_data[i];
        memcpy(&value, raw + 4 * i, sizeof value);
        return value;
    }
}

mix_status mix__onnx_check_floats(const struct mix__onnx_file *f, const char *name,
                                  const Onnx__TensorProto *t)
{
    size_t count;
    return check(f, name, t, false, &count);
}

mix_status mix__onnx_floats(const struct mix__onnx_file *f, const char *name,
                            const Onnx__TensorProto *t, float *to, size_t count)
{
    size_t found = 0;
    MIX_TRY(check(f, name, t, false, &found));
    if (found != count)
        return mix__fail(f->ctx, MIX_EFORMAT, "%s: tensor '%.100s' has %zu elements; expected %zu",
                         f->path, name, found, count);
    for (size_t i = 0; i < count; i++) {
        to[i] = element(t, i);
        if (!isfinite(to[i]))
            return mix__fail(f->ctx, MIX_EFORMAT,
                             "%s: tensor '%.100s' holds %g at index %zu; expected finite values",
                             f->path, name, (double)to[i], i);
    }
    return MIX_OK;
}

static int64_t integer(const Onnx__TensorProto *t, size_t i)
{
    int32_t narrow;
    int64_t wide;
    if (t->data_type == INT64) {
        if (!t->has_raw_data)
            return t->int64_data[i];
        memcpy(&wide, t->raw_data.data + 8 * i, sizeof wide);
        return wide;
    }
    if (!t->has_raw_data)
        return t->int32_data[i];
    memcpy(&narrow, t->raw_data.data + 4 * i, sizeof narrow);
    return narrow;
}

mix_status mix__onnx_integers(const struct mix__onnx_file *f, const char *name,
                              const Onnx__TensorProto *t, int64_t *to, size_t limit, size_t *count)
{
    MIX_TRY(check(f, name, t, true, count));
    if (*count > limit)
        return mix__fail(f->ctx, MIX_EUNSUPPORTED,
                         "%s: tensor '%.100s' has %zu whole numbers; expected at most %zu", f->path,
                         name, *count, limit);
    for (size_t i = 0; i < *count; i++)
        to[i] = integer(t, i);
    return MIX_OK;
}
