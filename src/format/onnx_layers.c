/*
 * format/onnx_layers.c - ONNX's convolutions, batch norms, linear layers and pools.
 */
#include <math.h>
#include <string.h>

#include "format/onnx_walk.h"

enum { DIM_MAX = 1 << 20 };
static const float bn_eps = 1e-5f, bn_momentum = 0.1f;

/* ---- windows: what convolutions and pools have in common ---- */

struct window {
    int kernel, stride;
    struct mix__onnx_pads pads;
};

/* All of an attribute's numbers are the same; value when it is not there. */
static mix_status same_ints(const struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                            const char *name, int64_t value, int *out)
{
    const struct mix__onnx_ints ints = mix__onnx_ints(node, name);
    *out = (int)value;
    if (ints.n == 0)
        return MIX_OK;
    if (ints.n != 2 || ints.at[0] != ints.at[1] || ints.at[0] < 1 || ints.at[0] > MIX__WINDOW_MAX)
        return mix__onnx_refuse(
            w->file, node, "%s of %zu numbers, %lld and %lld; expected two equal ones, 1 to %d",
            name, ints.n, (long long)ints.at[0], (long long)ints.at[ints.n - 1], MIX__WINDOW_MAX);
    *out = (int)ints.at[0];
    return MIX_OK;
}

/* (above, left, below, right) */
static mix_status pads_of(const struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                          const int64_t p[4], struct mix__onnx_pads *pads)
{
    for (int i = 0; i < 4; i++)
        if (p[i] < 0 || p[i] > MIX__WINDOW_MAX || p[i] != p[i & 2])
            return mix__onnx_refuse(w->file, node,
                                    "padding of %lld, %lld, %lld, %lld; expected the same above as "
                                    "left and below as right, 0 to %d",
                                    (long long)p[0], (long long)p[1], (long long)p[2],
                                    (long long)p[3], MIX__WINDOW_MAX);
    *pads = (struct mix__onnx_pads){ (int)p[0], (int)p[2] };
    return MIX_OK;
}

/* "Same": as many outputs as inputs / stride, rounded up; the odd one goes to the end, or with
 * SAME_LOWER to the beginning. */
static struct mix__onnx_pads same_pads(const struct window *win, int size, bool lower)
{
    const int outputs = (size + win->stride - 1) / win->stride;
    const int total = (outputs - 1) * win->stride + win->kernel - size;
    const int small = total > 0 ? total / 2 : 0, large = total > 0 ? total - small : 0;
    return lower ? (struct mix__onnx_pads){ large, small }
                 : (struct mix__onnx_pads){ small, large };
}

static mix_status window_pads(const struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                              const struct mix__tensor *x, struct window *win)
{
    const Onnx__AttributeProto *a = mix__onnx_attribute(node, "auto_pad");
    const size_t n = a && a->has_s ? a->s.len : 0;
    const char *mode = n ? (const char *)a->s.data : "";
    const struct mix__onnx_ints pads = mix__onnx_ints(node, "pads");
    win->pads = (struct mix__onnx_pads){ 0, 0 };
    if (n == 10 && (memcmp(mode, "SAME_UPPER", n) == 0 || memcmp(mode, "SAME_LOWER", n) == 0)) {
        win->pads = same_pads(win, x->h, mode[5] == 'L');
        return MIX_OK;
    }
    if (pads.n == 0 || (n == 5 && memcmp(mode, "VALID", n) == 0))
        return MIX_OK;
    if (pads.n != 4)
        return mix__onnx_refuse(w->file, node, "pads of %zu numbers; expected 4", pads.n);
    return pads_of(w, node, pads.at, &win->pads);
}

static mix_status read_window(const struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                              const struct mix__tensor *x, int kernel, struct window *win)
{
    int dilation;
    MIX_TRY(same_ints(w, node, "kernel_shape", kernel, &win->kernel));
    MIX_TRY(same_ints(w, node, "strides", 1, &win->stride));
    MIX_TRY(same_ints(w, node, "dilations", 1, &dilation));
    if (dilation != 1)
        return mix__onnx_refuse(w->file, node, "dilations of %d; expected 1", dilation);
    if (win->kernel < 1 || (kernel && win->kernel != kernel))
        return mix__onnx_refuse(w->file, node, "kernel_shape is %d; expected %d", win->kernel,
                                kernel);
    return window_pads(w, node, x, win);
}

/* ---- convolution ---- */

/* Dimensions of weights, each 1 to DIM_MAX. */
static mix_status weight_dims(const struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                              const struct mix__onnx_value *weight, size_t rank, int *dims)
{
    const Onnx__TensorProto *t = weight ? weight->constant : NULL;
    if (!t || t->n_dims != rank)
        return mix__onnx_refuse(w->file, node, "weights of %zu dimensions; expected %zu",
                                t ? t->n_dims : 0, rank);
    for (size_t i = 0; i < rank; i++) {
        if (t->dims[i] < 1 || t->dims[i] > DIM_MAX)
            return mix__onnx_refuse(w->file, node, "weights '%.100s': dimension %zu is %lld",
                                    weight->name, i, (long long)t->dims[i]);
        dims[i] = (int)t->dims[i];
    }
    return mix__onnx_check_floats(w->file, weight->name, t);
}

/* The classifier, when another number of classes is asked for. */
static bool is_replaced(const struct mix__onnx_walk *w, int outputs)
{
    return w->index == w->last_layer && w->options->classes && w->options->classes != outputs;
}

static void tell_replaced(const struct mix__onnx_walk *w, const char *name, int outputs)
{
    mix__log(w->file->ctx, MIX_LOG_INFO,
             "%s: %s has %d classes; a fresh one for %d takes its place", w->file->path, name,
             outputs, w->options->classes);
}

static bool feeds_batchnorm(const struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    const struct mix__onnx_name *out = mix__onnx_find(w->file, node->output[0]);
    return out && out->n_consumers == 1 &&
           strcmp(mix__onnx_text(w->file->graph->node[out->consumer]->op_type),
                  "BatchNormalization") == 0;
}

/* The batch norm that was folded into a convolution, doing nothing in evaluation: its mean 0 and
 * variance 1 are what parameters start with. */
static mix_status unfold(struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                         const struct mix__onnx_value *bias, const char *weights, int *tensor)
{
    mix_graph *g = w->graph;
    char name[MIX__NAME_MAX];
    mix__onnx_name(w, node, weights, ".bn", name);
    *tensor = mix__graph_batchnorm(g, name, *tensor, bn_eps, bn_momentum);
    MIX_TRY(g->failed);
    g->recentre = true;
    const struct mix__node *bn = &g->nodes[g->n_nodes - 1];
    MIX_TRY(mix__onnx_fill_number(w, bn->gamma, sqrtf(1.0f + bn_eps)));
    return mix__onnx_fill_from(w, bn->beta, bias, false);
}

static mix_status conv_input(struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                             struct mix__onnx_value **x)
{
    *x = mix__onnx_in(w, node, 0);
    if (*x && (*x)->kind == MIX__ONNX_PADDED)
        return MIX_OK;
    return mix__onnx_tensor_in(w, node, 0, x);
}

static mix_status conv_shape(struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                             const struct mix__onnx_value *x, const int dims[4],
                             struct mix__conv_shape *shape)
{
    const struct mix__tensor *in = &w->graph->tensors[x->tensor];
    const int64_t groups = mix__onnx_int(node, "group", 1);
    struct window win;
    if (dims[2] != dims[3] || dims[2] > MIX__WINDOW_MAX)
        return mix__onnx_refuse(w->file, node,
                                "a %dx%d kernel; expected a square one of at most %d", dims[2],
                                dims[3], MIX__WINDOW_MAX);
    if (x->rank != 4 || groups < 1 || groups > in->c || dims[1] * groups != in->c)
        return mix__onnx_refuse(w->file, node,
                                "weights for %d channels in %lld groups on an input of %d "
                                "dimensions and %d channels",
                                dims[1], (long long)groups, x->rank, in->c);
    MIX_TRY(read_window(w, node, in, dims[2], &win));
    win.pads.before += x->pads.before;
    win.pads.after += x->pads.after;
    *shape = (struct mix__conv_shape){ .out_channels = dims[0],
                                       .kernel = win.kernel,
                                       .stride = win.stride,
                                       .pad = win.pads.before,
                                       .pad_more = win.pads.after - win.pads.before,
                                       .groups = (int)groups };
    if (win.pads.before >= win.kernel || win.pads.after >= win.kernel || shape->pad_more < 0)
        return mix__onnx_refuse(
            w->file, node,
            "padding of %d above and left and %d below and right; expected less "
            "than the kernel's %d, and not more above than below",
            win.pads.before, win.pads.after, win.kernel);
    return MIX_OK;
}

mix_status mix__onnx_conv(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct mix__onnx_value *x, *weight, *bias;
    struct mix__conv_shape shape;
    int dims[4];
    MIX_TRY(conv_input(w, node, &x));
    MIX_TRY(mix__onnx_constant_in(w, node, 1, &weight));
    MIX_TRY(mix__onnx_constant_in(w, node, 2, &bias));
    MIX_TRY(weight_dims(w, node, weight, 4, dims));
    MIX_TRY(conv_shape(w, node, x, dims, &shape));
    const bool replaced = is_replaced(w, dims[0]);
    const bool folded =
        bias && !replaced && !x->pooled && w->index != w->last_layer && !feeds_batchnorm(w, node);
    char name[MIX__NAME_MAX];
    mix__onnx_name(w, node, node->input[1], "", name);
    if (replaced) {
        shape.out_channels = w->options->classes;
        tell_replaced(w, name, dims[0]);
    }
    shape.bias = bias && !folded;
    int y = mix__graph_conv(w->graph, name, x->tensor, &shape);
    MIX_TRY(w->graph->failed);
    const struct mix__node conv = w->graph->nodes[w->graph->n_nodes - 1];
    if (!replaced)
        MIX_TRY(mix__onnx_fill_from(w, conv.weight, weight, false));
    if (shape.bias && !replaced)
        MIX_TRY(mix__onnx_fill_from(w, conv.bias, bias, false));
    if (folded)
        MIX_TRY(unfold(w, node, bias, node->input[1], &y));
    return mix__onnx_put_like(w, node, y, x);
}

/* Zeros around the picture, for the convolution behind it. */
mix_status mix__onnx_pad(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct mix__onnx_value *x;
    const Onnx__AttributeProto *mode = mix__onnx_attribute(node, "mode");
    const struct mix__onnx_ints attribute = mix__onnx_ints(node, "pads");
    int64_t p[MIX__ONNX_RANK_MAX];
    size_t n = attribute.n;
    float value = mix__onnx_float(node, "value", 0.0f);
    MIX_TRY(mix__onnx_tensor_in(w, node, 0, &x));
    if (w->file->opset >= 11)
        MIX_TRY(mix__onnx_numbers_in(w, node, 1, p, &n));
    else if (n == MIX__ONNX_RANK_MAX)
        memcpy(p, attribute.at, sizeof p);
    const struct mix__onnx_value *number = mix__onnx_in(w, node, 2);
    if (number && !mix__onnx_number(w, number, &value))
        value = NAN;
    if ((mode && (mode->s.len != 8 || memcmp(mode->s.data, "constant", 8) != 0)) || value != 0.0f ||
        n != 8 || p[0] || p[1] || p[4] || p[5] || x->rank != 4 || node->n_input > 3)
        return mix__onnx_refuse(w->file, node, "expected zeros around height and width");
    struct mix__onnx_value padded = *x;
    padded.kind = MIX__ONNX_PADDED;
    MIX_TRY(pads_of(w, node, (int64_t[]){ p[2], p[3], p[6], p[7] }, &padded.pads));
    if (padded.pads.before == 0 && padded.pads.after == 0)
        padded.kind = MIX__ONNX_TENSOR;
    return mix__onnx_put(w, node, padded);
}

/* ---- batch norm ---- */

mix_status mix__onnx_batchnorm(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct mix__onnx_value *x, *v[4];
    const float eps = mix__onnx_float(node, "epsilon", bn_eps);
    /* Of the old statistics here, of the new ones in the graph; the float of 0.9 becomes 0.1's. */
    const double kept = mix__onnx_float(node, "momentum", 0.9f);
    const double moved = round((1.0 - kept) * 1e6) / 1e6;
    MIX_TRY(mix__onnx_tensor_in(w, node, 0, &x));
    for (size_t i = 0; i < 4; i++) {
        MIX_TRY(mix__onnx_constant_in(w, node, 1 + i, &v[i]));
        if (!v[i])
            return mix__onnx_refuse(w->file, node, "input %zu is missing", 1 + i);
    }
    if (mix__onnx_int(node, "training_mode", 0) || mix__onnx_int(node, "spatial", 1) != 1)
        return mix__onnx_refuse(w->file, node, "expected one for evaluation, by channel");
    if (!(eps > 0.0f && eps < 1.0f))
        return mix__onnx_refuse(w->file, node, "epsilon is %g; expected between 0 and 1",
                                (double)eps);
    char name[MIX__NAME_MAX];
    mix__onnx_name(w, node, node->input[1], "", name);
    const int y = mix__graph_batchnorm(w->graph, name, x->tensor, eps,
                                       moved > 0.0 && moved <= 1.0 ? (float)moved : bn_momentum);
    MIX_TRY(w->graph->failed);
    const struct mix__node bn = w->graph->nodes[w->graph->n_nodes - 1];
    const int params[4] = { bn.gamma, bn.beta, bn.mean, bn.var };
    for (int i = 0; i < 4; i++)
        MIX_TRY(mix__onnx_fill_from(w, params[i], v[i], false));
    return mix__onnx_put_like(w, node, y, x);
}

/* ---- linear layers ---- */

static mix_status add_linear(struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                             const struct mix__onnx_value *x, bool transposed, int *y)
{
    struct mix__onnx_value *weight;
    int dims[2];
    MIX_TRY(mix__onnx_constant_in(w, node, 1, &weight));
    MIX_TRY(weight_dims(w, node, weight, 2, dims));
    const int in = dims[transposed ? 0 : 1], out = dims[transposed ? 1 : 0];
    const int found = w->graph->tensors[x->tensor].c;
    if (x->rank != 2 || in != found)
        return mix__onnx_refuse(
            w->file, node, "weights for %d inputs on a tensor of %d dimensions and %d channels", in,
            x->rank, found);
    const bool replaced = is_replaced(w, out);
    char name[MIX__NAME_MAX];
    mix__onnx_name(w, node, node->input[1], "", name);
    if (replaced)
        tell_replaced(w, name, out);
    *y = mix__graph_linear(w->graph, name, x->tensor, replaced ? w->options->classes : out);
    MIX_TRY(w->graph->failed);
    const struct mix__node *linear = &w->graph->nodes[w->graph->n_nodes - 1];
    if (!replaced)
        return mix__onnx_fill_from(w, linear->weight, weight, transposed);
    w->fresh_bias = linear->bias;
    return MIX_OK;
}

mix_status mix__onnx_gemm(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct mix__onnx_value *x, *bias;
    int y;
    MIX_TRY(mix__onnx_tensor_in(w, node, 0, &x));
    MIX_TRY(mix__onnx_constant_in(w, node, 2, &bias));
    if (mix__onnx_int(node, "transA", 0) || mix__onnx_float(node, "alpha", 1.0f) != 1.0f ||
        (bias && mix__onnx_float(node, "beta", 1.0f) != 1.0f))
        return mix__onnx_refuse(w->file, node, "expected transA 0, alpha 1 and beta 1");
    MIX_TRY(add_linear(w, node, x, mix__onnx_int(node, "transB", 0) == 0, &y));
    const int param = w->graph->nodes[w->graph->n_nodes - 1].bias;
    if (bias && param != w->fresh_bias)
        MIX_TRY(mix__onnx_fill_from(w, param, bias, false));
    return mix__onnx_put_like(w, node, y, x);
}

mix_status mix__onnx_matmul(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct mix__onnx_value *x;
    int y;
    MIX_TRY(mix__onnx_tensor_in(w, node, 0, &x));
    MIX_TRY(add_linear(w, node, x, true, &y));
    struct mix__onnx_value out = *x;
    out.tensor = y;
    out.open_bias = w->graph->nodes[w->graph->n_nodes - 1].bias;
    return mix__onnx_put(w, node, out);
}

/* ---- pools ---- */

static mix_status global_pool(struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                              const struct mix__onnx_value *x, bool keep)
{
    char name[MIX__NAME_MAX];
    if (x->rank != 4)
        return mix__onnx_refuse(w->file, node, "a tensor of %d dimensions; expected 4", x->rank);
    mix__onnx_name(w, node, NULL, "", name);
    struct mix__onnx_value y = *x;
    y.pooled = true;
    y.tensor = mix__graph_unary(w->graph, MIX__OP_GLOBAL_AVGPOOL, name, x->tensor);
    MIX_TRY(w->graph->failed);
    if (!keep)
        MIX_TRY(mix__onnx_flat(w, node, &y));
    return mix__onnx_put(w, node, y);
}

mix_status mix__onnx_global_pool(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct mix__onnx_value *x;
    MIX_TRY(mix__onnx_tensor_in(w, node, 0, &x));
    return global_pool(w, node, x, true);
}

mix_status mix__onnx_reduce_mean(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct mix__onnx_value *x;
    int64_t axes[MIX__ONNX_RANK_MAX];
    size_t n;
    MIX_TRY(mix__onnx_tensor_in(w, node, 0, &x));
    MIX_TRY(mix__onnx_axes(w, node, 18, x->rank, axes, &n));
    if (!mix__onnx_is_picture(axes, n))
        return mix__onnx_refuse(w->file, node, "expected the mean over height and width");
    return global_pool(w, node, x, mix__onnx_int(node, "keepdims", 1) != 0);
}

mix_status mix__onnx_average_pool(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct mix__onnx_value *x;
    struct window win;
    MIX_TRY(mix__onnx_tensor_in(w, node, 0, &x));
    const struct mix__tensor in = w->graph->tensors[x->tensor];
    MIX_TRY(read_window(w, node, &in, 0, &win));
    if (win.kernel != in.h || win.kernel != in.w || win.pads.before || win.pads.after)
        return mix__onnx_refuse(w->file, node,
                                "the mean of %dx%d pixels; expected that of the whole picture, "
                                "%dx%d at this image size",
                                win.kernel, win.kernel, in.h, in.w);
    return global_pool(w, node, x, true);
}

mix_status mix__onnx_max_pool(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct mix__onnx_value *x;
    struct window win;
    MIX_TRY(mix__onnx_tensor_in(w, node, 0, &x));
    MIX_TRY(read_window(w, node, &w->graph->tensors[x->tensor], 0, &win));
    if (win.pads.before != win.pads.after || mix__onnx_int(node, "ceil_mode", 0) || x->rank != 4)
        return mix__onnx_refuse(
            w->file, node, "expected a picture, the same padding on all sides and ceil_mode 0");
    char name[MIX__NAME_MAX];
    mix__onnx_name(w, node, NULL, "", name);
    const int y =
        mix__graph_maxpool(w->graph, name, x->tensor, win.kernel, win.stride, win.pads.before);
    return mix__onnx_put_like(w, node, y, x);
}

mix_status mix__onnx_dropout(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct mix__onnx_value *x;
    float rate = mix__onnx_float(node, "ratio", 0.5f);
    MIX_TRY(mix__onnx_tensor_in(w, node, 0, &x));
    const struct mix__onnx_value *ratio = mix__onnx_in(w, node, 1);
    if ((ratio && !mix__onnx_number(w, ratio, &rate)) || !(rate >= 0.0f && rate < 1.0f))
        return mix__onnx_refuse(w->file, node, "the ratio is no constant from 0 to below 1");
    char name[MIX__NAME_MAX];
    mix__onnx_name(w, node, NULL, "", name);
    return mix__onnx_put_like(w, node, mix__graph_dropout(w->graph, name, x->tensor, rate), x);
}
