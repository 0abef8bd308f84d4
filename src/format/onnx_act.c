/*
 * format/onnx_act.c - ONNX's activations, sums and products; hard swish and hard sigmoid in the
 * forms in which tools spell them out (onnx_walk.h).
 */
#include <math.h>

#include "format/onnx_walk.h"

static bool is(float number, double expected)
{
    return fabs((double)number - expected) <= 1e-5 * expected;
}

static mix_status put_unary(struct mix__onnx_walk *w, const Onnx__NodeProto *node, enum mix__op op,
                            const struct mix__onnx_value *x)
{
    char name[MIX__NAME_MAX];
    mix__onnx_name(w, node, NULL, "", name);
    return mix__onnx_put_like(w, node, mix__graph_unary(w->graph, op, name, x->tensor), x);
}

/* A value made of x's tensor that is no tensor yet. */
static mix_status put_part(struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                           enum mix__onnx_kind kind, const struct mix__onnx_value *x)
{
    struct mix__onnx_value part = *x;
    part.kind = kind;
    part.open_bias = -1;
    return mix__onnx_put(w, node, part);
}

mix_status mix__onnx_relu(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct mix__onnx_value *x;
    MIX_TRY(mix__onnx_tensor_in(w, node, 0, &x));
    return put_unary(w, node, MIX__OP_RELU, x);
}

/* Bounds of a Clip: attributes before opset 11, inputs since. */
static bool clip_bounds(const struct mix__onnx_walk *w, const Onnx__NodeProto *node, float *low,
                        float *high)
{
    const struct mix__onnx_value *min = mix__onnx_in(w, node, 1), *max = mix__onnx_in(w, node, 2);
    *low = mix__onnx_float(node, "min", -INFINITY);
    *high = mix__onnx_float(node, "max", INFINITY);
    return (!min || mix__onnx_number(w, min, low)) && (!max || mix__onnx_number(w, max, high));
}

mix_status mix__onnx_clip(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct mix__onnx_value *x = mix__onnx_in(w, node, 0);
    float low, high;
    if (!clip_bounds(w, node, &low, &high))
        return mix__onnx_refuse(w->file, node, "its bounds are no constants");
    const bool relu6 = low == 0.0f && high == 6.0f;
    if (x && x->kind == MIX__ONNX_PLUS3 && relu6)
        return put_part(w, node, MIX__ONNX_SIX_GATE, x);
    MIX_TRY(mix__onnx_tensor_in(w, node, 0, &x));
    if (relu6)
        return put_unary(w, node, MIX__OP_RELU6, x);
    if (low == 0.0f && high > 3e38f)
        return put_unary(w, node, MIX__OP_RELU, x);
    return mix__onnx_refuse(w->file, node, "bounds %g and %g; expected 0 and 6, or 0 alone",
                            (double)low, (double)high);
}

mix_status mix__onnx_hard_swish(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct mix__onnx_value *x;
    MIX_TRY(mix__onnx_tensor_in(w, node, 0, &x));
    return put_unary(w, node, MIX__OP_HARDSWISH, x);
}

mix_status mix__onnx_hard_sigmoid(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    const float alpha = mix__onnx_float(node, "alpha", 0.2f);
    const float beta = mix__onnx_float(node, "beta", 0.5f);
    struct mix__onnx_value *x;
    MIX_TRY(mix__onnx_tensor_in(w, node, 0, &x));
    if (!is(alpha, 1.0 / 6.0) || !is(beta, 0.5))
        return mix__onnx_refuse(w->file, node, "alpha %g and beta %g; expected 1/6 and 1/2",
                                (double)alpha, (double)beta);
    return put_part(w, node, MIX__ONNX_GATE, x);
}

/* ---- two operands ---- */

struct pair {
    struct mix__onnx_value *a, *b;
};

/* The pair, turned so that a constant comes second; *number is its value, NAN when b is none of one
 * element. */
static mix_status read_pair(const struct mix__onnx_walk *w, const Onnx__NodeProto *node, bool turn,
                            struct pair *p, float *number)
{
    *p = (struct pair){ mix__onnx_in(w, node, 0), mix__onnx_in(w, node, 1) };
    if (!p->a || !p->b)
        return mix__onnx_refuse(w->file, node, "an input is missing");
    if (turn && (p->a->kind == MIX__ONNX_CONSTANT || p->a->kind == MIX__ONNX_NUMBER))
        *p = (struct pair){ p->b, p->a };
    if (!mix__onnx_number(w, p->b, number))
        *number = NAN;
    return MIX_OK;
}

/* Both as different tensors of the graph with the same rank. */
static mix_status need_tensors(struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                               struct pair *p)
{
    MIX_TRY(mix__onnx_tensor_in(w, node, 0, &p->a));
    MIX_TRY(mix__onnx_tensor_in(w, node, 1, &p->b));
    if (p->a->tensor == p->b->tensor || p->a->rank != p->b->rank)
        return mix__onnx_refuse(
            w->file, node, "expected two different tensors with the same number of dimensions");
    return MIX_OK;
}

/* MatMul's bias: it may be added once, and nobody else reads the product. */
static bool is_bias(const struct mix__onnx_walk *w, const struct pair *p)
{
    size_t count;
    if (p->a->kind != MIX__ONNX_TENSOR || p->a->open_bias < 0 || p->b->kind != MIX__ONNX_CONSTANT)
        return false;
    if (mix__onnx_count(w->file, p->b->name, p->b->constant, &count) != MIX_OK)
        return false;
    const mix_graph *g = w->graph;
    const struct mix__onnx_value *x = p->a;
    return mix__onnx_find(w->file, x->name)->n_consumers == 1 &&
           (count == g->params[x->open_bias].count || x->open_bias == w->fresh_bias);
}

static mix_status add_bias(struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                           const struct pair *p)
{
    if (p->a->open_bias != w->fresh_bias)
        MIX_TRY(mix__onnx_fill_from(w, p->a->open_bias, p->b, false));
    return mix__onnx_put_like(w, node, p->a->tensor, p->a);
}

mix_status mix__onnx_add(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct pair p;
    float number;
    MIX_TRY(read_pair(w, node, true, &p, &number));
    if (is_bias(w, &p))
        return add_bias(w, node, &p);
    if (p.a->kind == MIX__ONNX_TENSOR && number == 3.0f)
        return put_part(w, node, MIX__ONNX_PLUS3, p.a);
    MIX_TRY(need_tensors(w, node, &p));
    char name[MIX__NAME_MAX];
    mix__onnx_name(w, node, NULL, "", name);
    return mix__onnx_put_like(w, node, mix__graph_add(w->graph, name, p.a->tensor, p.b->tensor),
                              p.a);
}

/* By 1/6, or through 6: finishes what is open. false: there is nothing to finish. */
static bool finish_sixth(struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                         const struct mix__onnx_value *x, mix_status *status)
{
    if (x->kind == MIX__ONNX_SIX_GATE)
        *status = put_part(w, node, MIX__ONNX_GATE, x);
    else if (x->kind == MIX__ONNX_PRODUCT)
        *status = put_unary(w, node, MIX__OP_HARDSWISH, x);
    else
        return false;
    return true;
}

mix_status mix__onnx_div(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct pair p;
    float number;
    mix_status status;
    MIX_TRY(read_pair(w, node, false, &p, &number));
    if (is(number, 6.0) && finish_sixth(w, node, p.a, &status))
        return status;
    return mix__onnx_refuse(w->file, node, "divisions are read in a hard swish or sigmoid only");
}

/* Channels by a gate of one pixel; of two such tensors the gate is the one behind the pool. */
static mix_status multiply(struct mix__onnx_walk *w, const Onnx__NodeProto *node, struct pair p)
{
    MIX_TRY(need_tensors(w, node, &p));
    const struct mix__tensor *a = &w->graph->tensors[p.a->tensor];
    const struct mix__tensor *b = &w->graph->tensors[p.b->tensor];
    const bool a_small = a->h == 1 && a->w == 1, b_small = b->h == 1 && b->w == 1;
    if (!a_small && !b_small)
        return mix__onnx_refuse(w->file, node,
                                "pictures of %dx%d and %dx%d; expected one value for each channel "
                                "as one of them",
                                a->h, a->w, b->h, b->w);
    if (a_small && (!b_small || (p.a->pooled && !p.b->pooled)))
        p = (struct pair){ p.b, p.a };
    char name[MIX__NAME_MAX];
    mix__onnx_name(w, node, NULL, "", name);
    return mix__onnx_put_like(w, node, mix__graph_mul(w->graph, name, p.a->tensor, p.b->tensor),
                              p.a);
}

mix_status mix__onnx_mul(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct pair p;
    float number;
    mix_status status;
    MIX_TRY(read_pair(w, node, true, &p, &number));
    if (is(number, 1.0 / 6.0) && finish_sixth(w, node, p.a, &status))
        return status;
    if (p.a->kind != MIX__ONNX_TENSOR)
        p = (struct pair){ p.b, p.a };
    if (p.a->kind == MIX__ONNX_TENSOR && p.b->tensor == p.a->tensor) {
        if (p.b->kind == MIX__ONNX_SIX_GATE)
            return put_part(w, node, MIX__ONNX_PRODUCT, p.a);
        if (p.b->kind == MIX__ONNX_GATE)
            return put_unary(w, node, MIX__OP_HARDSWISH, p.a);
    }
    return multiply(w, node, p);
}
