/*
 * model/lower.c - from a graph with trained numbers to an integer network.
 *
 * Nodes are taken in running order. A convolution, addition, gate or pool takes in what follows it
 * as long as each tensor in between has one reader: a batch norm (convolutions only), an
 * activation, and nodes that change nothing when a network is used (dropout, flatten of one
 * pixel). If the one reader behind that is a layer, the operator's output holds that layer's codes;
 * a layer whose input is still float gets an IDENTITY that makes them.
 */
#include <math.h>
#include <string.h>

#include "model/net.h"
#include "tensor/packed.h"

struct lowering {
    const struct mix__net_source *source;
    const mix_graph *graph;
    struct mix__net *net;
    int *value;         /* (graph tensor): its tensor in the net, -1: none */
    int *codes;         /* (layer): tensor with its input codes, -1: none yet */
    bool *taken;        /* (node): in an operator already */
    size_t weight_step; /* of the next layer, in source->weight_step */
};

static const float *value_of(const struct mix__net_source *source, int param)
{
    const mix_graph *g = source->graph;
    const size_t at = g->params[param].offset;
    return at < g->n_trained ? source->trained + at : source->stats + (at - g->n_trained);
}

/* ---- tensors and operators ------------------------------------------------------------------ */

/* layer: whose codes it holds; -1: float. */
static mix_status add_tensor(struct lowering *l, int graph_tensor, int layer, int *out)
{
    struct mix__net *net = l->net;
    const struct mix__tensor *t = &l->graph->tensors[graph_tensor];
    MIX_TRY(mix__grow(net->ctx, &net->tensors, net->n_tensors, &net->cap_tensors,
                      sizeof *net->tensors));
    struct mix__net_tensor *made = &net->tensors[net->n_tensors];
    *made = (struct mix__net_tensor){ .h = t->h, .w = t->w, .c = t->c };
    if (layer >= 0) {
        made->bits = l->source->bits[layer].activation;
        made->range = l->graph->layers[layer].info.range;
        made->step = l->source->act_step[layer];
    }
    *out = (int)net->n_tensors++;
    return MIX_OK;
}

static mix_status add_op(struct lowering *l, enum mix__net_kind kind, const struct mix__node *node,
                         struct mix__net_op **out)
{
    struct mix__net *net = l->net;
    MIX_TRY(mix__grow(net->ctx, &net->ops, net->n_ops, &net->cap_ops, sizeof *net->ops));
    *out = &net->ops[net->n_ops++];
    **out = (struct mix__net_op){ .kind = kind, .in = { -1, -1 }, .out = -1 };
    memcpy((*out)->name, node->name, sizeof node->name);
    return MIX_OK;
}

/* Nodes that are nothing when a network is used. */
static bool is_nothing(const struct lowering *l, const struct mix__node *node)
{
    const struct mix__tensor *x = &l->graph->tensors[node->in[0]];
    return node->op == MIX__OP_DROPOUT || (node->op == MIX__OP_FLATTEN && x->h == 1 && x->w == 1);
}

static void take(struct lowering *l, const struct mix__node *node)
{
    l->taken[node - l->graph->nodes] = true;
}

/* What follows the operator's value at the graph's tensor, and the operator's output. */
static mix_status finish(struct lowering *l, struct mix__net_op *op, int tensor)
{
    const struct mix__node *next = mix__graph_single_reader(l->graph, tensor);
    if (next && op->act == MIX__ACT_NONE && mix__op_act(next->op) != MIX__ACT_NONE) {
        op->act = mix__op_act(next->op);
        take(l, next);
        tensor = next->out;
        next = mix__graph_single_reader(l->graph, tensor);
    }
    while (next && is_nothing(l, next)) {
        take(l, next);
        tensor = next->out;
        next = mix__graph_single_reader(l->graph, tensor);
    }
    const int layer = next ? next->layer : -1;
    MIX_TRY(add_tensor(l, tensor, layer, &op->out));
    if (layer >= 0)
        l->codes[layer] = op->out;
    l->value[tensor] = op->out;
    return MIX_OK;
}

/* ---- convolutions --------------------------------------------------------------------------- */

/* The input codes of a layer, from its float input where nobody has made them. */
static mix_status need_codes(struct lowering *l, const struct mix__node *node)
{
    struct mix__net_op *op;
    if (l->codes[node->layer] >= 0)
        return MIX_OK;
    MIX_TRY(add_op(l, MIX__NET_IDENTITY, node, &op));
    op->in[0] = l->value[node->in[0]];
    MIX_TRY(add_tensor(l, node->in[0], node->layer, &op->out));
    l->codes[node->layer] = op->out;
    return MIX_OK;
}

/* (k, c, r, s) in steps to codes (k, r, s, c). */
static void quantize_weights(int8_t *codes, const float *w, const float *step,
                             const struct mix__param *p, int bits)
{
    const struct mix__bounds bounds = mix__bounds_weight(bits);
    const size_t channels = (size_t)p->dims[0], c = (size_t)p->dims[1];
    const size_t taps = p->count / (channels * c);
    for (size_t k = 0; k < channels; k++)
        for (size_t t = 0; t < taps; t++)
            for (size_t i = 0; i < c; i++)
                *codes++ = (int8_t)mix__quantize(w[(k * c + i) * taps + t], step[k], &bounds);
}

static mix_status pack_weights(struct lowering *l, struct mix__net_op *op,
                               const struct mix__node *node)
{
    const struct mix__param *p = &l->graph->params[node->weight];
    uint8_t *packed = mix__net_block(l->net, mix__packed_bytes(p->count, op->weight_bits), 1);
    int8_t *codes = mix__alloc(l->net->ctx, p->count, 1);
    if (packed && codes) {
        quantize_weights(codes, value_of(l->source, node->weight),
                         l->source->weight_step + l->weight_step, p, op->weight_bits);
        mix__codes_pack(packed, codes, p->count, op->weight_bits);
    }
    mix__free(l->net->ctx, codes);
    op->weights = packed;
    return packed && codes ? MIX_OK : MIX_ENOMEM;
}

/* Of one channel, behind a sum of values. */
static void fold_channel(const struct mix__net_source *source, const struct mix__node *conv,
                         const struct mix__node *bn, int k, float *scale, float *offset)
{
    const float bias = conv->bias < 0 ? 0.0f : value_of(source, conv->bias)[k];
    *scale = 1.0f;
    *offset = bias;
    if (!bn)
        return;
    const float mean = value_of(source, bn->mean)[k], var = value_of(source, bn->var)[k];
    const float rstd = (float)(1.0 / sqrt((double)var + bn->eps));
    *scale = value_of(source, bn->gamma)[k] * rstd;
    *offset = value_of(source, bn->beta)[k] - mean * *scale + bias * *scale;
}

void mix__net_fold(float *scale, float *offset, const struct mix__net_source *source,
                   const struct mix__node *conv, const struct mix__node *bn, float act_step,
                   const float *weight_step)
{
    for (int k = 0; k < source->graph->tensors[conv->out].c; k++) {
        float s;
        fold_channel(source, conv, bn, k, &s, &offset[k]);
        scale[k] = (float)((double)s * act_step * weight_step[k]);
    }
}

static mix_status scale_codes(struct lowering *l, struct mix__net_op *op,
                              const struct mix__node *node, const struct mix__node *bn)
{
    const int channels = l->graph->tensors[node->out].c;
    float *scale = mix__net_block(l->net, (size_t)channels, sizeof *scale);
    float *offset = mix__net_block(l->net, (size_t)channels, sizeof *offset);
    if (!scale || !offset)
        return MIX_ENOMEM;
    mix__net_fold(scale, offset, l->source, node, bn, l->source->act_step[node->layer],
                  l->source->weight_step + l->weight_step);
    for (int k = 0; k < channels; k++)
        if (!isfinite(scale[k]) || !isfinite(offset[k]))
            return mix__fail(l->net->ctx, MIX_ENUMERIC,
                             "%s: channel %d: the folded factor %g or offset %g is not finite",
                             node->name, k, (double)scale[k], (double)offset[k]);
    op->scale = scale;
    op->offset = offset;
    return MIX_OK;
}

static bool is_quantized(const mix_layer_bits *bits)
{
    return bits->weight >= MIX_BITS_MIN && bits->weight <= MIX_BITS_MAX &&
           bits->activation >= MIX_BITS_MIN && bits->activation <= MIX_BITS_MAX;
}

static mix_status lower_conv(struct lowering *l, const struct mix__node *node)
{
    const mix_layer_bits *bits = &l->source->bits[node->layer];
    struct mix__net_op *op;
    if (!is_quantized(bits))
        return mix__fail(l->net->ctx, MIX_EUNSUPPORTED,
                         "%s: %d-bit weights, %d-bit inputs; integer inference needs 2 to 8 bits",
                         node->name, bits->weight, bits->activation);
    MIX_TRY(need_codes(l, node));
    MIX_TRY(add_op(l, MIX__NET_CONV, node, &op));
    op->in[0] = l->codes[node->layer];
    op->kernel = node->kernel;
    op->stride = node->stride;
    op->pad = node->pad;
    op->pad_end = node->pad_end;
    op->groups = node->groups;
    op->weight_bits = bits->weight;

    int out = node->out;
    const struct mix__node *bn = mix__graph_single_reader(l->graph, out);
    bn = bn && bn->op == MIX__OP_BATCHNORM ? bn : NULL;
    if (bn) {
        take(l, bn);
        out = bn->out;
    }
    MIX_TRY(pack_weights(l, op, node));
    MIX_TRY(scale_codes(l, op, node, bn));
    l->weight_step += (size_t)l->graph->tensors[node->out].c;
    return finish(l, op, out);
}

/* ---- the rest ------------------------------------------------------------------------------- */

static mix_status unsupported(const struct lowering *l, const struct mix__node *node)
{
    return mix__fail(l->net->ctx, MIX_EUNSUPPORTED,
                     "%s: integer inference takes batch norms behind convolutions and flattens one "
                     "pixel, nothing else of their kind",
                     node->name);
}

static mix_status lower_value(struct lowering *l, enum mix__net_kind kind,
                              const struct mix__node *node)
{
    struct mix__net_op *op;
    MIX_TRY(add_op(l, kind, node, &op));
    for (int i = 0; i < node->n_in; i++)
        op->in[i] = l->value[node->in[i]];
    if (kind == MIX__NET_MAXPOOL) {
        op->kernel = node->kernel;
        op->stride = node->stride;
        op->pad = node->pad;
        op->pad_end = node->pad_end;
    }
    op->act = mix__op_act(node->op);
    return finish(l, op, node->out);
}

static mix_status lower_node(struct lowering *l, const struct mix__node *node)
{
    switch (node->op) {
    case MIX__OP_CONV2D:
    case MIX__OP_LINEAR:
        return lower_conv(l, node);
    case MIX__OP_ADD:
        return lower_value(l, MIX__NET_ADD, node);
    case MIX__OP_MUL:
        return lower_value(l, MIX__NET_MUL, node);
    case MIX__OP_MAXPOOL:
        return lower_value(l, MIX__NET_MAXPOOL, node);
    case MIX__OP_GLOBAL_AVGPOOL:
        return lower_value(l, MIX__NET_AVGPOOL, node);
    case MIX__OP_BATCHNORM:
        return unsupported(l, node);
    case MIX__OP_FLATTEN:
    case MIX__OP_DROPOUT:
        if (!is_nothing(l, node))
            return unsupported(l, node);
        l->value[node->out] = l->value[node->in[0]];
        return MIX_OK;
    default:
        return lower_value(l, MIX__NET_IDENTITY, node);
    }
}

static mix_status copy_normalisation(struct mix__net *net, const float *mean,
                                     const float *deviation)
{
    const size_t c = (size_t)net->tensors[0].c;
    float *both = mix__net_block(net, 2 * c, sizeof *both);
    if (!both)
        return MIX_ENOMEM;
    memcpy(both, mean, c * sizeof *mean);
    memcpy(both + c, deviation, c * sizeof *deviation);
    net->mean = both;
    net->deviation = both + c;
    return MIX_OK;
}

static mix_status copy_class_names(struct mix__net *net, const mix_graph *g)
{
    if (!g->class_names)
        return MIX_OK;
    char *names = mix__net_block(net, g->class_names_bytes, 1);
    if (!names)
        return MIX_ENOMEM;
    memcpy(names, g->class_names, g->class_names_bytes);
    net->class_names = names;
    net->class_names_bytes = g->class_names_bytes;
    return MIX_OK;
}

static mix_status lower(struct lowering *l, const float *mean, const float *deviation)
{
    const mix_graph *g = l->graph;
    memcpy(l->net->name, g->name, sizeof g->name);
    for (size_t t = 0; t < g->n_tensors; t++)
        l->value[t] = -1;
    for (size_t i = 0; i < g->n_layers; i++)
        l->codes[i] = -1;
    MIX_TRY(add_tensor(l, 0, -1, &l->value[0]));
    MIX_TRY(copy_normalisation(l->net, mean, deviation));
    MIX_TRY(copy_class_names(l->net, g));
    for (size_t i = 0; i < g->n_nodes; i++)
        if (!l->taken[i])
            MIX_TRY(lower_node(l, &g->nodes[i]));
    l->net->output = l->value[g->output];
    return mix__net_check(l->net, g->name);
}

mix_status mix__net_lower(struct mix__net **out, const struct mix__net_source *source,
                          const float *mean, const float *deviation)
{
    const mix_graph *g = source->graph;
    mix_ctx *ctx = g->ctx;
    mix_status status = MIX_ENOMEM;
    *out = NULL;
    struct lowering l = {
        .source = source,
        .graph = g,
        .net = mix__zalloc(ctx, 1, sizeof *l.net),
        .value = mix__alloc(ctx, g->n_tensors, sizeof *l.value),
        .codes = mix__alloc(ctx, g->n_layers, sizeof *l.codes),
        .taken = mix__zalloc(ctx, g->n_nodes, sizeof *l.taken),
    };
    if (l.net)
        l.net->ctx = ctx;
    if (l.net && l.value && l.codes && l.taken)
        status = lower(&l, mean, deviation);
    mix__free(ctx, l.value);
    mix__free(ctx, l.codes);
    mix__free(ctx, l.taken);
    if (status != MIX_OK)
        mix__net_free(l.net);
    else
        *out = l.net;
    return status;
}
