/*
 * format/onnx_write.c - the operators of an integer network as ONNX nodes.
 *
 * Every tensor is a float (N, C, H, W) there, and codes are whole numbers between a quantizer and
 * the convolution that reads them. The styles differ in where the factors are:
 *
 *   native  QuantizeLinear Clip DequantizeLinear(1) | Conv with codes as weights | Mul scale, Add
 *           offset: sums are whole numbers, so the result is the integer runtime's bit for bit
 *   int8    QuantizeLinear Clip DequantizeLinear(step) | Conv with step_w[k] * code: what runtimes
 *           fuse to integer convolutions; scale[k] = step * step_w[k]. In front of a quantizer the
 *           bias is int32 where that gives the same codes (onnx_stairs.h), else an Add behind
 *   qonnx   Quant(step) | Conv with Quant(step_w[k]), bias in float
 *
 * A shifted tensor's codes stand for step * code - shift. native has the offsets of model/border.h;
 * in the others the bias of a convolution without padding takes the shift off, else a Sub does, as
 * the padding stands for 0.
 */
#include "format/onnx_write.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "format/onnx_build.h"
#include "format/onnx_stairs.h"
#include "model/border.h"
#include "tensor/packed.h"

#define INPUT  "image"
#define OUTPUT "logits"

struct writer {
    struct mix__onnx_build build;
    const struct mix__net *net;
    enum mix__onnx_style style;
    const char **value; /* (tensor): name of its float */
    mix_status status;  /* of a border */
};

/* ---- codes ---------------------------------------------------------------------------------- */

/* The ONNX type of a tensor's codes, its range and what stands for code 0. There is no Clip of
 * 4-bit types, so only weights have them. */
struct container {
    enum mix__onnx_type type;
    int low, high, zero;
};

/* int8: one type for all, as ONNX Runtime fuses only convolutions that keep it. */
static struct container container_of(enum mix__onnx_style style, bool is_signed)
{
    if (is_signed && style == MIX__ONNX_QDQ_NATIVE)
        return (struct container){ MIX__ONNX_INT8, -128, 127, 0 };
    return (struct container){ MIX__ONNX_UINT8, 0, 255, is_signed ? 128 : 0 };
}

/* One number of an 8-bit type. */
static const char *code(struct writer *w, const char *name, enum mix__onnx_type type, int value)
{
    int8_t *byte = mix__onnx_take(&w->build, 1, 1);
    if (byte)
        *byte = (int8_t)value;
    return mix__onnx_put_constant(&w->build, name, type, 0, NULL, byte, 1);
}

/* y = op(x, constant); gives the name y. */
static const char *with_number(struct writer *w, const char *op, const char *y, const char *x,
                               float value)
{
    struct mix__onnx_build *b = &w->build;
    const char *number = mix__onnx_put_scalar(b, mix__onnx_text_of(b, "%s.by", y), value);
    mix__onnx_put_node(b, op, y, x, number, NULL);
    return y;
}

static const char *clip(struct writer *w, const char *name, const char *x, float low, float high)
{
    struct mix__onnx_build *b = &w->build;
    const char *lowest = mix__onnx_put_scalar(b, mix__onnx_text_of(b, "%s.low", name), low);
    const char *highest = mix__onnx_put_scalar(b, mix__onnx_text_of(b, "%s.high", name), high);
    const char *out = mix__onnx_text_of(b, "%s.clip", name);
    mix__onnx_put_node(b, "Clip", out, x, lowest, highest, NULL);
    return out;
}

/* "Quant" of x, of b-bit codes. */
static const char *quant(struct writer *w, const char *name, const char *x, const char *scale,
                         int bits, bool is_signed)
{
    struct mix__onnx_build *b = &w->build;
    const char *zero = mix__onnx_put_scalar(b, mix__onnx_text_of(b, "%s.zero", name), 0);
    const char *width = mix__onnx_put_scalar(b, mix__onnx_text_of(b, "%s.bits", name), (float)bits);
    const char *out = mix__onnx_text_of(b, "%s.quant", name);
    Onnx__NodeProto *node = mix__onnx_put_node(b, "Quant", out, x, scale, zero, width, NULL);
    node->domain = (char *)MIX__ONNX_QONNX_DOMAIN;
    mix__onnx_set_int(b, node, "signed", is_signed);
    mix__onnx_set_int(b, node, "narrow", is_signed);
    mix__onnx_set_text(b, node, "rounding_mode", "ROUND");
    return out;
}

/* The code of a bound; of none, the quantizer's own. */
static int bound_code(float bound, float step, const struct mix__bounds *b)
{
    return (int)mix__round(mix__clip(bound / step, b->n, b->p));
}

/* native and int8: the codes of clip(x, low, high), and behind them what the next layer reads.
 * Rounding keeps order, so codes may be clipped instead of values: runtimes fuse a QuantizeLinear
 * with the convolution just in front of it. */
static const char *quantize_linear(struct writer *w, const char *name, const char *x,
                                   const struct mix__net_tensor *t, float low, float high)
{
    struct mix__onnx_build *b = &w->build;
    const struct mix__bounds bounds = mix__bounds_activation(t->bits, t->range);
    const struct container c = container_of(w->style, bounds.n < 0);
    const int n = c.zero + bound_code(low, t->step, &bounds);
    const int p = c.zero + bound_code(high, t->step, &bounds);
    const bool native = w->style == MIX__ONNX_QDQ_NATIVE;
    const char *step = mix__onnx_put_scalar(b, mix__onnx_text_of(b, "%s.step", name), t->step);
    const char *zero = code(w, mix__onnx_text_of(b, "%s.zero", name), c.type, c.zero);
    const char *codes = mix__onnx_text_of(b, "%s.codes", name);
    const char *out = mix__onnx_text_of(b, "%s.value", name);
    mix__onnx_put_node(b, "QuantizeLinear", codes, x, step, zero, NULL);
    if (n > c.low || p < c.high) {
        const char *lowest = code(w, mix__onnx_text_of(b, "%s.n", name), c.type, n);
        const char *highest = code(w, mix__onnx_text_of(b, "%s.p", name), c.type, p);
        const char *clipped = mix__onnx_text_of(b, "%s.clipped", name);
        mix__onnx_put_node(b, "Clip", clipped, codes, lowest, highest, NULL);
        codes = clipped;
    }
    if (native)
        step = mix__onnx_put_scalar(b, mix__onnx_text_of(b, "%s.one", name), 1);
    mix__onnx_put_node(b, "DequantizeLinear", out, codes, step, zero, NULL);
    return out;
}

/* What the next layer reads of the float x; low and high: of a ReLU that is still to be taken. */
static const char *quantize(struct writer *w, const char *name, const char *x,
                            const struct mix__net_tensor *t, float low, float high)
{
    struct mix__onnx_build *b = &w->build;
    const struct mix__bounds bounds = mix__bounds_activation(t->bits, t->range);
    if (bounds.shift != 0)
        x = with_number(w, "Add", mix__onnx_text_of(b, "%s.shifted", name), x, bounds.shift);
    if (w->style != MIX__ONNX_QONNX)
        return quantize_linear(w, name, x, t, low + bounds.shift, high + bounds.shift);
    const char *step = mix__onnx_put_scalar(b, mix__onnx_text_of(b, "%s.step", name), t->step);
    return quant(w, name, x, step, t->bits, bounds.n < 0);
}

/* ---- activations ---------------------------------------------------------------------------- */

/* h-swish and h-sigmoid in the runtime's own order: x clip(x + 3, 0, 6) / 6. */
static const char *spelled_out(struct writer *w, const char *name, const char *x, bool swish)
{
    struct mix__onnx_build *b = &w->build;
    const char *y = with_number(w, "Add", mix__onnx_text_of(b, "%s.plus", name), x, 3);
    y = clip(w, mix__onnx_text_of(b, "%s.six", name), y, 0, 6);
    if (swish) {
        const char *product = mix__onnx_text_of(b, "%s.product", name);
        mix__onnx_put_node(b, "Mul", product, x, y, NULL);
        y = product;
    }
    return with_number(w, "Div", mix__onnx_text_of(b, "%s.act", name), y, 6);
}

static const char *hard(struct writer *w, const char *name, const char *x, bool swish)
{
    struct mix__onnx_build *b = &w->build;
    if (w->style == MIX__ONNX_QDQ_NATIVE)
        return spelled_out(w, name, x, swish);
    const char *y = mix__onnx_text_of(b, "%s.act", name);
    Onnx__NodeProto *node = mix__onnx_put_node(b, swish ? "HardSwish" : "HardSigmoid", y, x, NULL);
    if (!swish) {
        mix__onnx_set_float(b, node, "alpha", 1.0f / 6.0f);
        mix__onnx_set_float(b, node, "beta", 0.5f);
    }
    return y;
}

/* The operator's output: activation and quantizer of the value x. */
static void finish(struct writer *w, const struct mix__net_op *op, const char *name, const char *x)
{
    struct mix__onnx_build *b = &w->build;
    const struct mix__net_tensor *y = &w->net->tensors[op->out];
    /* The clip of a quantizer is a ReLU's too. */
    const bool joined = y->bits > 0 && w->style != MIX__ONNX_QONNX;
    const bool relu6 = op->act == MIX__ACT_RELU6, relu = relu6 || op->act == MIX__ACT_RELU;
    const char *out = mix__onnx_text_of(b, "%s.act", name);
    if (op->act == MIX__ACT_HARDSWISH || op->act == MIX__ACT_HARDSIGMOID)
        x = hard(w, name, x, op->act == MIX__ACT_HARDSWISH);
    else if (relu6 && !joined)
        x = clip(w, name, x, 0, 6);
    else if (relu && !joined) {
        mix__onnx_put_node(b, "Relu", out, x, NULL);
        x = out;
    }
    if (y->bits > 0)
        x = quantize(w, name, x, y, relu ? 0 : -INFINITY, relu6 ? 6 : INFINITY);
    w->value[op->out] = x;
}

/* ---- convolutions --------------------------------------------------------------------------- */

/* (k, r, s, c) to (k, c, r, s). */
static void turn(int8_t *to, const int8_t *from, size_t channels, size_t taps, size_t depth)
{
    for (size_t k = 0; k < channels; k++)
        for (size_t t = 0; t < taps; t++)
            for (size_t c = 0; c < depth; c++)
                to[(k * depth + c) * taps + t] = from[(k * taps + t) * depth + c];
}

/* A layer's weights and factors as they are written. NULL: there is no memory. */
struct layer {
    size_t channels, depth, taps; /* depth: input channels of a group */
    int64_t dims[4];
    int8_t *codes;      /* (k, c, r, s) */
    float *step, *bias; /* (k)          */
};

static struct layer make_layer(struct writer *w, const struct mix__net_op *op)
{
    struct mix__onnx_build *b = &w->build;
    const struct mix__net_tensor *x = &w->net->tensors[op->in[0]];
    struct layer l = { .channels = (size_t)w->net->tensors[op->out].c,
                       .depth = (size_t)(x->c / op->groups),
                       .taps = (size_t)(op->kernel * op->kernel) };
    const size_t n = l.channels * l.depth * l.taps;
    int8_t *unpacked = mix__onnx_take(b, n, 1);
    l.dims[0] = (int64_t)l.channels;
    l.dims[1] = (int64_t)l.depth;
    l.dims[2] = l.dims[3] = op->kernel;
    l.codes = mix__onnx_take(b, n, 1);
    l.step = mix__onnx_take(b, l.channels, sizeof *l.step);
    l.bias = mix__onnx_take(b, l.channels, sizeof *l.bias);
    if (!unpacked || !l.codes || !l.step || !l.bias)
        return (struct layer){ 0 };
    mix__codes_unpack(unpacked, op->weights, n, op->weight_bits);
    turn(l.codes, unpacked, l.channels, l.taps, l.depth);
    for (size_t k = 0; k < l.channels; k++)
        l.step[k] = (float)((double)op->scale[k] / x->step);
    memcpy(l.bias, op->offset, l.channels * sizeof *l.bias);
    return l;
}

/* Takes the shift of an input off the bias; every tap is inside. */
static void fold_shift(struct layer *l, double shift)
{
    const size_t length = l->depth * l->taps;
    for (size_t k = 0; k < l->channels; k++) {
        int64_t sum = 0;
        for (size_t i = 0; i < length; i++)
            sum += l->codes[k * length + i];
        l->bias[k] = (float)(l->bias[k] - shift * (double)l->step[k] * (double)sum);
    }
}

/* step[k] may be of either sign or 0 in a net, a scale of ONNX may not: signs go to the codes. */
static void make_steps_positive(struct layer *l)
{
    for (size_t k = 0; k < l->channels; k++) {
        if (l->step[k] > 0)
            continue;
        for (size_t i = 0; i < l->depth * l->taps; i++)
            l->codes[k * l->depth * l->taps + i] =
                l->step[k] < 0 ? (int8_t)-l->codes[k * l->depth * l->taps + i] : 0;
        l->step[k] = l->step[k] < 0 ? -l->step[k] : 1;
    }
}

static const char *qonnx_weights(struct writer *w, const char *name, const struct layer *l,
                                 int bits)
{
    struct mix__onnx_build *b = &w->build;
    const size_t length = l->depth * l->taps, n = l->channels * length;
    float *values = mix__onnx_take(b, n, sizeof *values);
    for (size_t i = 0; values && i < n; i++)
        values[i] = l->step[i / length] * l->codes[i];
    const char *weights =
        mix__onnx_put_constant(b, mix__onnx_text_of(b, "%s.weight", name), MIX__ONNX_FLOAT, 4,
                               l->dims, values, n * sizeof *values);
    const char *step = mix__onnx_put_constant(
        b, mix__onnx_text_of(b, "%s.weight.step", name), MIX__ONNX_FLOAT, 4,
        (int64_t[]){ l->dims[0], 1, 1, 1 }, l->step, l->channels * sizeof *l->step);
    return quant(w, mix__onnx_text_of(b, "%s.weight", name), weights, step, bits, true);
}

/* DequantizeLinear of constant codes, channel by channel. */
static const char *dequantized(struct writer *w, const char *name, enum mix__onnx_type type,
                               int rank, const int64_t *dims, const void *codes, size_t bytes,
                               const float *step)
{
    struct mix__onnx_build *b = &w->build;
    const size_t channels = (size_t)dims[0];
    void *zeros = mix__onnx_take(b, channels, sizeof(int32_t));
    const size_t zero_bytes = type == MIX__ONNX_INT32  ? channels * sizeof(int32_t)
                              : type == MIX__ONNX_INT4 ? (channels + 1) / 2
                                                       : channels;
    const char *from = mix__onnx_put_constant(b, mix__onnx_text_of(b, "%s.codes", name), type, rank,
                                              dims, codes, bytes);
    const char *scale =
        mix__onnx_put_constant(b, mix__onnx_text_of(b, "%s.step", name), MIX__ONNX_FLOAT, 1, dims,
                               step, channels * sizeof *step);
    const char *zero = mix__onnx_put_constant(b, mix__onnx_text_of(b, "%s.zero", name), type, 1,
                                              dims, zeros, zero_bytes);
    Onnx__NodeProto *node =
        mix__onnx_put_node(b, "DequantizeLinear", name, from, scale, zero, NULL);
    mix__onnx_set_int(b, node, "axis", 0);
    return name;
}

static const char *qdq_weights(struct writer *w, const char *name, const struct layer *l, int bits)
{
    struct mix__onnx_build *b = &w->build;
    const bool narrow = w->style == MIX__ONNX_QDQ_NATIVE && bits <= 4;
    const enum mix__onnx_type type = narrow ? MIX__ONNX_INT4 : MIX__ONNX_INT8;
    const size_t n = l->channels * l->depth * l->taps;
    const void *data = l->codes;
    size_t bytes = n;
    if (narrow) {
        bytes = mix__packed_bytes(n, 4);
        uint8_t *packed = mix__onnx_take(b, bytes, 1);
        if (packed)
            mix__codes_pack(packed, l->codes, n, 4);
        data = packed;
    }
    return dequantized(w, mix__onnx_text_of(b, "%s.weight", name), type, 4, l->dims, data, bytes,
                       l->step);
}

static void set_window(struct mix__onnx_build *b, Onnx__NodeProto *node,
                       const struct mix__net_op *op)
{
    const int64_t kernel[] = { op->kernel, op->kernel }, strides[] = { op->stride, op->stride };
    const int64_t pads[] = { op->pad, op->pad, op->pad_end, op->pad_end };
    mix__onnx_set_ints(b, node, "kernel_shape", kernel, 2);
    mix__onnx_set_ints(b, node, "strides", strides, 2);
    mix__onnx_set_ints(b, node, "pads", pads, 4);
}

static void put_conv(struct writer *w, const struct mix__net_op *op, const char *out,
                     const char *in, const char *weights, const char *bias)
{
    struct mix__onnx_build *b = &w->build;
    Onnx__NodeProto *node = mix__onnx_put_node(b, "Conv", out, in, weights, bias, NULL);
    set_window(b, node, op);
    mix__onnx_set_int(b, node, "group", op->groups);
}

/* ---- native: sums of codes */

static const char *put_indices(struct writer *w, const char *name, const uint16_t *classes, int n)
{
    struct mix__onnx_build *b = &w->build;
    int64_t *wide = mix__onnx_take(b, (size_t)n, sizeof *wide);
    for (int i = 0; wide && i < n; i++)
        wide[i] = classes[i];
    return mix__onnx_put_constant(b, name, MIX__ONNX_INT64, 1, (int64_t[]){ n }, wide,
                                  (size_t)n * sizeof *wide);
}

/* (classes of rows, of columns, k) offsets, gathered to (oh, ow, k), as (k, oh, ow). */
static void gather_offsets(struct writer *w, const char *name, const char *out,
                           const struct mix__border *border, const float *offset,
                           const struct mix__net_tensor *y)
{
    struct mix__onnx_build *b = &w->build;
    const size_t n = (size_t)border->n * (size_t)y->c;
    const int64_t dims[] = { border->n / border->n_cols, border->n_cols, y->c };
    const char *by_row = mix__onnx_text_of(b, "%s.by_row", name);
    const char *by_place = mix__onnx_text_of(b, "%s.by_place", name);
    float *table = mix__onnx_take(b, n, sizeof *table);
    if (table)
        memcpy(table, offset, n * sizeof *table);
    const char *all = mix__onnx_put_constant(b, mix__onnx_text_of(b, "%s.borders", name),
                                             MIX__ONNX_FLOAT, 3, dims, table, n * sizeof *table);
    const char *rows =
        put_indices(w, mix__onnx_text_of(b, "%s.rows", name), border->row_class, y->h);
    const char *cols =
        put_indices(w, mix__onnx_text_of(b, "%s.cols", name), border->col_class, y->w);
    mix__onnx_set_int(b, mix__onnx_put_node(b, "Gather", by_row, all, rows, NULL), "axis", 0);
    mix__onnx_set_int(b, mix__onnx_put_node(b, "Gather", by_place, by_row, cols, NULL), "axis", 1);
    mix__onnx_set_ints(b, mix__onnx_put_node(b, "Transpose", out, by_place, NULL), "perm",
                       (int64_t[]){ 2, 0, 1 }, 3);
}

/* Offsets of a shifted input by the taps inside the picture. */
static const char *border_offset(struct writer *w, const struct mix__net_op *op, const char *name)
{
    const char *out = mix__onnx_text_of(&w->build, "%s.offset", name);
    struct mix__border border;
    float *offset;
    w->status = mix__border_of(&border, &offset, w->net, op);
    if (w->status != MIX_OK)
        return out;
    gather_offsets(w, name, out, &border, offset, &w->net->tensors[op->out]);
    mix__free(w->net->ctx, offset);
    mix__border_release(&border);
    return out;
}

static const char *channel_constant(struct writer *w, const char *name, const char *what,
                                    const struct layer *l, const float *values)
{
    struct mix__onnx_build *b = &w->build;
    return mix__onnx_put_constant(b, mix__onnx_text_of(b, "%s.%s", name, what), MIX__ONNX_FLOAT, 3,
                                  (int64_t[]){ l->dims[0], 1, 1 }, values,
                                  l->channels * sizeof *values);
}

static void write_exact_conv(struct writer *w, const struct mix__net_op *op, const char *name)
{
    struct mix__onnx_build *b = &w->build;
    const bool shifted = w->net->tensors[op->in[0]].range == MIX_RANGE_SHIFTED;
    struct layer l = make_layer(w, op);
    for (size_t k = 0; k < l.channels; k++)
        l.step[k] = 1;
    const char *weights = qdq_weights(w, name, &l, op->weight_bits);
    const char *sum = mix__onnx_text_of(b, "%s.sum", name);
    const char *scaled = mix__onnx_text_of(b, "%s.scaled", name);
    put_conv(w, op, sum, w->value[op->in[0]], weights, NULL);
    mix__onnx_put_node(b, "Mul", scaled, sum, channel_constant(w, name, "scale", &l, op->scale),
                       NULL);
    const char *offset =
        shifted ? border_offset(w, op, name) : channel_constant(w, name, "offset", &l, op->offset);
    mix__onnx_put_node(b, "Add", name, scaled, offset, NULL);
}

/* ---- int8 and qonnx: sums of values */

/* Whether codes are made of the layer's values as they are, but for a clip. */
static bool quantizes(const struct writer *w, const struct mix__net_op *op)
{
    const struct mix__net_tensor *y = &w->net->tensors[op->out];
    return y->bits > 0 && op->act <= MIX__ACT_RELU6 && y->range != MIX_RANGE_SHIFTED;
}

/* Sums are multiplied by the largest factor that keeps weights in int8 and, for engines that add up
 * pairs, the sum of two products in int16: a bias is then finer. */
static int factor_of(int widest, int x_most)
{
    const int fits = INT8_MAX / widest, pairs = INT16_MAX / (2 * x_most * widest);
    const int factor = pairs < fits ? pairs : fits;
    return factor > 1 ? factor : 1;
}

/* The stairs of channel k; x: its input. */
static struct mix__stairs stairs_of(const struct writer *w, const struct mix__net_op *op,
                                    const struct layer *l, size_t k)
{
    const struct mix__net_tensor *x = &w->net->tensors[op->in[0]], *y = &w->net->tensors[op->out];
    const struct mix__bounds xb = mix__bounds_activation(x->bits, x->range);
    const struct mix__bounds yb = mix__bounds_activation(y->bits, y->range);
    const bool relu6 = op->act == MIX__ACT_RELU6, relu = relu6 || op->act == MIX__ACT_RELU;
    const size_t length = l->depth * l->taps;
    struct mix__stairs s = { .scale = op->scale[k] != 0 ? fabsf(op->scale[k]) : x->step,
                             .offset = l->bias[k],
                             .step = y->step,
                             .n = bound_code(relu ? 0 : -INFINITY, y->step, &yb),
                             .p = bound_code(relu6 ? 6 : INFINITY, y->step, &yb) };
    int widest = 1;
    for (size_t i = k * length; i < (k + 1) * length; i++) {
        const int code = l->codes[i];
        s.least += code * (int)(code > 0 ? xb.n : xb.p);
        s.most += code * (int)(code > 0 ? xb.p : xb.n);
        widest = abs(code) > widest ? abs(code) : widest;
    }
    s.factor = factor_of(widest, container_of(w->style, xb.n < 0).zero + (int)xb.p);
    return s;
}

/* The name of an int32 bias that leaves all codes as they are; weights and steps then fit it. NULL:
 * there is none. */
static const char *int32_bias(struct writer *w, const struct mix__net_op *op, const char *name,
                              struct layer *l)
{
    struct mix__onnx_build *b = &w->build;
    const float x_step = w->net->tensors[op->in[0]].step, y_step = w->net->tensors[op->out].step;
    const size_t length = l->depth * l->taps;
    int32_t *codes = mix__onnx_take(b, l->channels, sizeof *codes);
    float *bias_step = mix__onnx_take(b, l->channels, sizeof *bias_step);
    float *step = mix__onnx_take(b, l->channels, sizeof *step);
    int *factor = mix__onnx_take(b, l->channels, sizeof *factor);
    if (!codes || !bias_step || !step || !factor)
        return NULL;
    for (size_t k = 0; k < l->channels; k++) {
        const struct mix__stairs s = stairs_of(w, op, l, k);
        double slope;
        if (!mix__stairs_fit(&codes[k], &slope, &s))
            return NULL;
        factor[k] = s.factor;
        step[k] = (float)(slope * y_step / x_step);
        bias_step[k] = step[k] * x_step;
    }
    for (size_t i = 0; i < l->channels * length; i++)
        l->codes[i] = (int8_t)(l->codes[i] * factor[i / length]);
    l->step = step;
    return dequantized(w, mix__onnx_text_of(b, "%s.bias", name), MIX__ONNX_INT32, 1, l->dims, codes,
                       l->channels * sizeof *codes, bias_step);
}

static void write_value_conv(struct writer *w, const struct mix__net_op *op, const char *name)
{
    struct mix__onnx_build *b = &w->build;
    const struct mix__net_tensor *x = &w->net->tensors[op->in[0]];
    const float shift = mix__bounds_activation(x->bits, x->range).shift;
    const bool int8 = w->style == MIX__ONNX_QDQ_INT8, padded = op->pad > 0 || op->pad_end > 0;
    const bool whole = int8 && quantizes(w, op); /* from codes to codes */
    const char *in = w->value[op->in[0]], *bias = NULL;
    struct layer l = make_layer(w, op);
    make_steps_positive(&l);
    if (shift != 0 && padded)
        in = with_number(w, "Sub", mix__onnx_text_of(b, "%s.in", name), in, shift);
    else if (shift != 0)
        fold_shift(&l, shift);
    if (whole && !(shift != 0 && padded))
        bias = int32_bias(w, op, name, &l);
    const char *weights = int8 ? qdq_weights(w, name, &l, op->weight_bits)
                               : qonnx_weights(w, name, &l, op->weight_bits);
    if (whole && !bias) {
        const char *sum = mix__onnx_text_of(b, "%s.sum", name);
        put_conv(w, op, sum, in, weights, NULL);
        mix__onnx_put_node(b, "Add", name, sum, channel_constant(w, name, "offset", &l, l.bias),
                           NULL);
        return;
    }
    if (!bias)
        bias = mix__onnx_put_constant(b, mix__onnx_text_of(b, "%s.bias", name), MIX__ONNX_FLOAT, 1,
                                      l.dims, l.bias, l.channels * sizeof *l.bias);
    put_conv(w, op, name, in, weights, bias);
}

/* ---- the network ---------------------------------------------------------------------------- */

/* Of the operator's output: its layer's name, unless that is one of the graph's ends'. An identity
 * has the name of the layer that it makes codes for. */
static const char *name_of(struct writer *w, const struct mix__net_op *op)
{
    if (op->kind == MIX__NET_IDENTITY)
        return mix__onnx_text_of(&w->build, "%s.codes", op->name);
    if (strcmp(op->name, INPUT) == 0 || strcmp(op->name, OUTPUT) == 0)
        return mix__onnx_text_of(&w->build, "%s.layer", op->name);
    return op->name;
}

static void write_op(struct writer *w, const struct mix__net_op *op)
{
    struct mix__onnx_build *b = &w->build;
    const char *name = name_of(w, op);
    const char *x = w->value[op->in[0]];
    switch (op->kind) {
    case MIX__NET_CONV:
        if (w->style == MIX__ONNX_QDQ_NATIVE)
            write_exact_conv(w, op, name);
        else
            write_value_conv(w, op, name);
        break;
    case MIX__NET_ADD:
        mix__onnx_put_node(b, "Add", name, x, w->value[op->in[1]], NULL);
        break;
    case MIX__NET_MUL:
        mix__onnx_put_node(b, "Mul", name, x, w->value[op->in[1]], NULL);
        break;
    case MIX__NET_MAXPOOL:
        set_window(b, mix__onnx_put_node(b, "MaxPool", name, x, NULL), op);
        break;
    case MIX__NET_AVGPOOL:
        mix__onnx_put_node(b, "GlobalAveragePool", name, x, NULL);
        break;
    default:
        finish(w, op, name, x);
        return;
    }
    finish(w, op, name, name);
}

static const char *numbers(struct writer *w, const float *values, int n)
{
    const locale_t before = mix__number_point();
    char *text = mix__onnx_text_of(&w->build, "%.9g", (double)values[0]);
    for (int i = 1; i < n; i++)
        text = mix__onnx_text_of(&w->build, "%s,%.9g", text, (double)values[i]);
    mix__number_back(before);
    return text;
}

/* Strings behind one another, each with its zero byte, as lines. */
static const char *lines(struct writer *w, const char *strings, size_t bytes)
{
    char *text = mix__onnx_take(&w->build, bytes, 1);
    if (!text)
        return "";
    memcpy(text, strings, bytes);
    for (size_t i = 0; i + 1 < bytes; i++)
        if (text[i] == '\0')
            text[i] = '\n';
    return text;
}

static void write_notes(struct writer *w)
{
    struct mix__onnx_build *b = &w->build;
    const struct mix__net *net = w->net;
    const int channels = net->tensors[0].c;
    mix__onnx_put_note(b, "input", "(pixel / 255 - mean) / deviation, channels first");
    mix__onnx_put_note(b, "mean", numbers(w, net->mean, channels));
    mix__onnx_put_note(b, "deviation", numbers(w, net->deviation, channels));
    if (net->class_names)
        mix__onnx_put_note(b, "classes", lines(w, net->class_names, net->class_names_bytes));
}

static mix_status write_net(struct writer *w, const char *path)
{
    const struct mix__net *net = w->net;
    const struct mix__net_tensor *in = &net->tensors[0], *out = &net->tensors[net->output];
    const bool native = w->style == MIX__ONNX_QDQ_NATIVE;
    const struct mix__onnx_model model = { .name = net->name,
                                           .ir_version = native ? 10 : 7,
                                           .opset = native ? 21 : 14,
                                           .qonnx = w->style == MIX__ONNX_QONNX,
                                           .input = INPUT,
                                           .input_rank = 3,
                                           .input_dims = { in->c, in->h, in->w },
                                           .output = OUTPUT,
                                           .output_rank = 1,
                                           .output_dims = { out->c } };
    write_notes(w);
    w->value[0] = model.input;
    for (size_t i = 0; i < net->n_ops && w->status == MIX_OK; i++)
        write_op(w, &net->ops[i]);
    MIX_TRY(w->status);
    mix__onnx_put_node(&w->build, "Flatten", model.output, w->value[net->output], NULL);
    return mix__onnx_build_write(&w->build, &model, path);
}

mix_status mix__onnx_write(const struct mix__net *net, enum mix__onnx_style style, const char *path)
{
    struct writer w = { .net = net, .style = style };
    mix_status status = MIX_ENOMEM;
    mix__onnx_build_begin(&w.build, net->ctx);
    w.value = mix__zalloc(net->ctx, net->n_tensors, sizeof *w.value);
    if (w.value)
        status = write_net(&w, path);
    mix__free(net->ctx, w.value);
    mix__onnx_build_release(&w.build);
    return status;
}
