/*
 * model/graph.c - building a graph: nodes are appended in running order, shapes are inferred as
 * they come, and finish lays out the values and lists the layers.
 *
 * A builder makes many calls in a row, so the first failure is kept in graph->failed and the calls
 * after it do nothing; finish reports it.
 */
#include "model/graph.h"

#include <assert.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"

#define VALUES_MAX (1u << 28) /* floats of a network: 1 GiB */

static void fail(mix_graph *g, mix_status status, const char *format, ...) MIX_PRINTF(3, 4);

static void fail(mix_graph *g, mix_status status, const char *format, ...)
{
    char text[256];
    va_list args;
    if (g->failed != MIX_OK)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    g->failed = mix__fail(g->ctx, status, "%s", text);
}

static void copy_name(mix_graph *g, char *to, const char *name, const char *suffix)
{
    if (snprintf(to, MIX__NAME_MAX, "%s%s", name, suffix) >= MIX__NAME_MAX)
        fail(g, MIX_EINVAL, "name '%s%s' is longer than %d bytes", name, suffix, MIX__NAME_MAX - 1);
}

static int add_tensor(mix_graph *g, int h, int w, int c, mix_range range, int producer)
{
    const mix_status status =
        mix__grow(g->ctx, &g->tensors, g->n_tensors, &g->cap_tensors, sizeof *g->tensors);
    if (status != MIX_OK) {
        g->failed = status;
        return 0;
    }
    g->tensors[g->n_tensors] = (struct mix__tensor){
        .h = h, .w = w, .c = c, .range = range, .producer = producer, .reader = -1
    };
    return (int)g->n_tensors++;
}

static int add_param(mix_graph *g, const char *node, const char *suffix, enum mix__param_kind kind,
                     int rank, const int *dims)
{
    const mix_status status =
        mix__grow(g->ctx, &g->params, g->n_params, &g->cap_params, sizeof *g->params);
    if (status != MIX_OK) {
        g->failed = status;
        return -1;
    }
    struct mix__param *p = &g->params[g->n_params];
    *p = (struct mix__param){ .kind = kind, .rank = rank, .count = 1 };
    copy_name(g, p->name, node, suffix);
    for (int i = 0; i < rank; i++) {
        p->dims[i] = dims[i];
        p->count *= (size_t)dims[i];
    }
    return (int)g->n_params++;
}

/* Appends a node that reads a (and b, unless -1) and gives it an output of the shape; NULL after a
 * failure. */
static struct mix__node *add_node(mix_graph *g, enum mix__op op, const char *name, int a, int b,
                                  const struct mix__tensor *shape)
{
    if (g->failed != MIX_OK)
        return NULL;
    assert(a >= 0 && (size_t)a < g->n_tensors && b < (int)g->n_tensors);
    const mix_status status =
        mix__grow(g->ctx, &g->nodes, g->n_nodes, &g->cap_nodes, sizeof *g->nodes);
    if (status != MIX_OK) {
        g->failed = status;
        return NULL;
    }
    const int out = add_tensor(g, shape->h, shape->w, shape->c, shape->range, (int)g->n_nodes);
    if (g->failed != MIX_OK)
        return NULL;
    struct mix__node *node = &g->nodes[g->n_nodes++];
    *node = (struct mix__node){
        .op = op,
        .in = { a, b },
        .n_in = b < 0 ? 1 : 2,
        .out = out,
        .weight = -1,
        .bias = -1,
        .gamma = -1,
        .beta = -1,
        .mean = -1,
        .var = -1,
        .layer = -1,
    };
    copy_name(g, node->name, name, "");
    for (int i = 0; i < node->n_in; i++) {
        struct mix__tensor *t = &g->tensors[node->in[i]];
        t->n_consumers++;
        t->reader = (int)g->n_nodes - 1;
    }
    return node;
}

mix_status mix__graph_new(mix_graph **out, mix_ctx *ctx, const char *name, int size, int channels)
{
    *out = NULL;
    mix_graph *g = mix__zalloc(ctx, 1, sizeof *g);
    if (!g)
        return MIX_ENOMEM;
    g->ctx = ctx;
    copy_name(g, g->name, name, "");
    add_tensor(g, size, size, channels, MIX_RANGE_SIGNED, -1);
    if (g->failed != MIX_OK) {
        const mix_status status = g->failed;
        mix_graph_free(g);
        return status;
    }
    *out = g;
    return MIX_OK;
}

void mix_graph_free(mix_graph *g)
{
    if (!g)
        return;
    mix__free(g->ctx, g->tensors);
    mix__free(g->ctx, g->nodes);
    mix__free(g->ctx, g->params);
    mix__free(g->ctx, g->layers);
    mix__free(g->ctx, g->class_names);
    mix__free(g->ctx, g->values);
    mix__free(g->ctx, g);
}

int mix__graph_conv(mix_graph *g, const char *name, int in, const struct mix__conv_shape *s)
{
    if (g->failed != MIX_OK)
        return 0;
    const struct mix__tensor x = g->tensors[in];
    const int reach = s->kernel - 2 * s->pad - s->pad_more;
    if (x.c % s->groups || s->out_channels % s->groups || x.h < reach || x.w < reach) {
        fail(
            g, MIX_ESHAPE,
            "%s: a %dx%d convolution to %d channels in %d groups does not fit an input of %dx%dx%d",
            name, s->kernel, s->kernel, s->out_channels, s->groups, x.h, x.w, x.c);
        return 0;
    }
    const struct mix__tensor shape = { .h = (x.h - reach) / s->stride + 1,
                                       .w = (x.w - reach) / s->stride + 1,
                                       .c = s->out_channels,
                                       .range = MIX_RANGE_SIGNED };
    struct mix__node *node = add_node(g, MIX__OP_CONV2D, name, in, -1, &shape);
    if (!node)
        return 0;
    node->kernel = s->kernel;
    node->stride = s->stride;
    node->pad = s->pad;
    node->pad_end = s->pad + s->pad_more;
    node->groups = s->groups;
    const int dims[4] = { s->out_channels, x.c / s->groups, s->kernel, s->kernel };
    node->weight = add_param(g, name, ".weight", MIX__PARAM_WEIGHT, 4, dims);
    if (s->bias)
        node->bias = add_param(g, name, ".bias", MIX__PARAM_BIAS, 1, dims);
    return node->out;
}

int mix__graph_batchnorm(mix_graph *g, const char *name, int in, float eps, float momentum)
{
    if (g->failed != MIX_OK)
        return 0;
    struct mix__tensor shape = g->tensors[in];
    shape.range = MIX_RANGE_SIGNED;
    struct mix__node *node = add_node(g, MIX__OP_BATCHNORM, name, in, -1, &shape);
    if (!node)
        return 0;
    node->eps = eps;
    node->momentum = momentum;
    node->gamma = add_param(g, name, ".weight", MIX__PARAM_GAMMA, 1, &shape.c);
    node->beta = add_param(g, name, ".bias", MIX__PARAM_BETA, 1, &shape.c);
    node->mean = add_param(g, name, ".running_mean", MIX__PARAM_MEAN, 1, &shape.c);
    node->var = add_param(g, name, ".running_var", MIX__PARAM_VAR, 1, &shape.c);
    return node->out;
}

int mix__graph_unary(mix_graph *g, enum mix__op op, const char *name, int in)
{
    if (g->failed != MIX_OK)
        return 0;
    struct mix__tensor shape = g->tensors[in];
    switch (op) {
    case MIX__OP_RELU:
    case MIX__OP_RELU6:
    case MIX__OP_HARDSIGMOID:
        shape.range = MIX_RANGE_UNSIGNED;
        break;
    case MIX__OP_HARDSWISH:
        shape.range = MIX_RANGE_SHIFTED;
        break;
    case MIX__OP_GLOBAL_AVGPOOL:
        shape.h = shape.w = 1;
        break;
    case MIX__OP_FLATTEN:
        if ((int64_t)shape.c * shape.h * shape.w > INT_MAX) {
            fail(g, MIX_ESHAPE, "%s: cannot flatten %dx%dx%d", name, shape.h, shape.w, shape.c);
            return 0;
        }
        shape.c *= shape.h * shape.w;
        shape.h = shape.w = 1;
        break;
    default:
        assert(!"not a node with one input and no numbers");
    }
    const struct mix__node *node = add_node(g, op, name, in, -1, &shape);
    return node ? node->out : 0;
}

int mix__graph_maxpool(mix_graph *g, const char *name, int in, int kernel, int stride, int pad)
{
    if (g->failed != MIX_OK)
        return 0;
    struct mix__tensor shape = g->tensors[in];
    const int reach = kernel - 2 * pad;
    if (2 * pad > kernel || shape.h < reach || shape.w < reach) {
        fail(g, MIX_ESHAPE, "%s: a %dx%d max pool with %d of padding does not fit %dx%dx%d", name,
             kernel, kernel, pad, shape.h, shape.w, shape.c);
        return 0;
    }
    shape.h = (shape.h - reach) / stride + 1;
    shape.w = (shape.w - reach) / stride + 1;
    struct mix__node *node = add_node(g, MIX__OP_MAXPOOL, name, in, -1, &shape);
    if (!node)
        return 0;
    node->kernel = kernel;
    node->stride = stride;
    node->pad = node->pad_end = pad;
    return node->out;
}

int mix__graph_dropout(mix_graph *g, const char *name, int in, float rate)
{
    if (g->failed != MIX_OK)
        return 0;
    const struct mix__tensor shape = g->tensors[in];
    struct mix__node *node = add_node(g, MIX__OP_DROPOUT, name, in, -1, &shape);
    if (!node)
        return 0;
    node->rate = rate;
    return node->out;
}

int mix__graph_add(mix_graph *g, const char *name, int a, int b)
{
    if (g->failed != MIX_OK)
        return 0;
    const struct mix__tensor x = g->tensors[a], y = g->tensors[b];
    if (x.h != y.h || x.w != y.w || x.c != y.c) {
        fail(g, MIX_ESHAPE, "%s: cannot add %dx%dx%d and %dx%dx%d", name, x.h, x.w, x.c, y.h, y.w,
             y.c);
        return 0;
    }
    struct mix__tensor shape = x;
    shape.range = x.range == y.range && x.range == MIX_RANGE_UNSIGNED ? x.range : MIX_RANGE_SIGNED;
    const struct mix__node *node = add_node(g, MIX__OP_ADD, name, a, b, &shape);
    return node ? node->out : 0;
}

/* A hard sigmoid lies in 0..1 and keeps what it multiplies inside its range. */
static mix_range gate_range(const mix_graph *g, const struct mix__tensor *x,
                            const struct mix__tensor *gate)
{
    const bool to_one = gate->producer >= 0 && g->nodes[gate->producer].op == MIX__OP_HARDSIGMOID;
    if (to_one || (x->range == MIX_RANGE_UNSIGNED && gate->range == MIX_RANGE_UNSIGNED))
        return x->range;
    return MIX_RANGE_SIGNED;
}

int mix__graph_mul(mix_graph *g, const char *name, int a, int gate)
{
    if (g->failed != MIX_OK)
        return 0;
    const struct mix__tensor x = g->tensors[a], y = g->tensors[gate];
    if (y.h != 1 || y.w != 1 || x.c != y.c) {
        fail(g, MIX_ESHAPE, "%s: cannot multiply %dx%dx%d by %dx%dx%d; expected 1x1x%d", name, x.h,
             x.w, x.c, y.h, y.w, y.c, x.c);
        return 0;
    }
    struct mix__tensor shape = x;
    shape.range = gate_range(g, &x, &y);
    const struct mix__node *node = add_node(g, MIX__OP_MUL, name, a, gate, &shape);
    return node ? node->out : 0;
}

int mix__graph_linear(mix_graph *g, const char *name, int in, int out_features)
{
    if (g->failed != MIX_OK)
        return 0;
    const struct mix__tensor x = g->tensors[in];
    if (x.h != 1 || x.w != 1) {
        fail(g, MIX_ESHAPE, "%s: a linear layer needs a flat input, found %dx%dx%d", name, x.h, x.w,
             x.c);
        return 0;
    }
    const struct mix__tensor shape = {
        .h = 1, .w = 1, .c = out_features, .range = MIX_RANGE_SIGNED
    };
    struct mix__node *node = add_node(g, MIX__OP_LINEAR, name, in, -1, &shape);
    if (!node)
        return 0;
    node->kernel = node->stride = node->groups = 1;
    const int dims[2] = { out_features, x.c };
    node->weight = add_param(g, name, ".weight", MIX__PARAM_WEIGHT, 2, dims);
    node->bias = add_param(g, name, ".bias", MIX__PARAM_BIAS, 1, dims);
    return node->out;
}

enum mix__act mix__op_act(enum mix__op op)
{
    switch (op) {
    case MIX__OP_RELU:
        return MIX__ACT_RELU;
    case MIX__OP_RELU6:
        return MIX__ACT_RELU6;
    case MIX__OP_HARDSWISH:
        return MIX__ACT_HARDSWISH;
    case MIX__OP_HARDSIGMOID:
        return MIX__ACT_HARDSIGMOID;
    default:
        return MIX__ACT_NONE;
    }
}

static void describe_layer(const mix_graph *g, const struct mix__node *node, mix_layer_info *info)
{
    const struct mix__tensor *x = &g->tensors[node->in[0]], *y = &g->tensors[node->out];
    const bool depthwise = mix__is_depthwise(node->groups, x->c, y->c);
    *info = (mix_layer_info){
        .name = node->name,
        .kind = node->op == MIX__OP_LINEAR ? "linear"
                : depthwise                ? "depthwise"
                                           : "conv",
        .in_channels = x->c,
        .out_channels = y->c,
        .kernel = node->kernel,
        .stride = node->stride,
        .groups = node->groups,
        .in_size = x->h,
        .out_size = y->h,
        .range = x->range,
        .searched = node->in[0] != 0, /* the image's bits are fixed */
        .weights = g->params[node->weight].count,
    };
    info->macs = info->weights * (uint64_t)y->h * (uint64_t)y->w;
}

static mix_status list_layers(mix_graph *g)
{
    for (size_t i = 0; i < g->n_nodes; i++) {
        struct mix__node *node = &g->nodes[i];
        if (node->op != MIX__OP_CONV2D && node->op != MIX__OP_LINEAR)
            continue;
        MIX_TRY(mix__grow(g->ctx, &g->layers, g->n_layers, &g->cap_layers, sizeof *g->layers));
        node->layer = (int)g->n_layers;
        struct mix__layer *layer = &g->layers[g->n_layers++];
        layer->node = (int)i;
        describe_layer(g, node, &layer->info);
    }
    if (g->n_layers == 0)
        return mix__fail(g->ctx, MIX_EINVAL, "%s: a network needs at least one layer", g->name);
    g->layers[0].info.searched = false; /* reads the image, but perhaps behind a pool */
    g->layers[g->n_layers - 1].info.searched = false;
    return MIX_OK;
}

static bool is_trained(const struct mix__param *p)
{
    return p->kind != MIX__PARAM_MEAN && p->kind != MIX__PARAM_VAR;
}

static mix_status lay_out_values(mix_graph *g)
{
    for (int trained = 1; trained >= 0; trained--) {
        for (size_t i = 0; i < g->n_params; i++) {
            if (is_trained(&g->params[i]) != (bool)trained)
                continue;
            g->params[i].offset = g->n_values;
            g->n_values += g->params[i].count;
        }
        if (trained)
            g->n_trained = g->n_values;
    }
    g->values = mix__zalloc(g->ctx, g->n_values, sizeof *g->values);
    return g->values ? MIX_OK : MIX_ENOMEM;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Parameters of a sane number, with names of their own: they are tensors of a file. */
static mix_status check_params(const mix_graph *g)
{
    const char *twice = NULL;
    uint64_t total = 0;
    const char **names = mix__alloc(g->ctx, g->n_params, sizeof *names);
    if (!names)
        return MIX_ENOMEM;
    for (size_t i = 0; i < g->n_params; i++) {
        names[i] = g->params[i].name;
        total += g->params[i].count < VALUES_MAX ? g->params[i].count : VALUES_MAX + 1u;
    }
    qsort(names, g->n_params, sizeof *names, compare_names);
    for (size_t i = 1; i < g->n_params && !twice; i++)
        twice = strcmp(names[i - 1], names[i]) == 0 ? names[i] : NULL;
    mix__free(g->ctx, names);
    if (twice)
        return mix__fail(g->ctx, MIX_EINVAL, "two parameters are called '%s'", twice);
    if (total > VALUES_MAX)
        return mix__fail(g->ctx, MIX_EUNSUPPORTED,
                         "the network has more than %u weights and other values", VALUES_MAX);
    return MIX_OK;
}

mix_status mix__graph_finish(mix_graph *g, int output)
{
    MIX_TRY(g->failed);
    MIX_TRY(check_params(g));
    g->output = output;
    MIX_TRY(list_layers(g));
    return lay_out_values(g);
}

static void init_param(mix_graph *g, size_t index, uint64_t seed)
{
    const struct mix__param *p = &g->params[index];
    float *value = g->values + p->offset;
    /* torchvision: kaiming_normal_(fan_out) for convolutions, N(0, 0.01) for linear layers. */
    const double deviation =
        p->rank == 4 ? sqrt(2.0 / ((double)p->dims[0] * p->dims[2] * p->dims[3])) : 0.01;
    const uint64_t stream = MIX__STREAM(MIX__RANDOM_WEIGHT, index);
    for (size_t i = 0; i < p->count; i++) {
        switch (p->kind) {
        case MIX__PARAM_WEIGHT:
            value[i] = (float)(deviation * mix__random_normal(seed, stream, i));
            break;
        case MIX__PARAM_GAMMA:
        case MIX__PARAM_VAR:
            value[i] = 1.0f;
            break;
        default:
            value[i] = 0.0f;
        }
    }
}

void mix__graph_init_values(mix_graph *g, uint64_t seed)
{
    for (size_t i = 0; i < g->n_params; i++)
        init_param(g, i, seed);
}

void mix_graph_info_get(const mix_graph *g, mix_graph_info *info)
{
    *info = (mix_graph_info){
        .name = g->name,
        .classes = g->tensors[g->output].c,
        .channels = g->tensors[0].c,
        .size = g->tensors[0].h,
        .small_stem = g->n_layers > 0 && g->layers[0].info.stride == 1,
        .recentre = g->recentre,
        .layers = (int)g->n_layers,
        .parameters = g->n_trained,
    };
    for (size_t l = 0; l < g->n_layers; l++)
        info->macs += g->layers[l].info.macs;
}

void mix_graph_layer_get(const mix_graph *g, int layer, mix_layer_info *info)
{
    assert(layer >= 0 && (size_t)layer < g->n_layers);
    *info = g->layers[layer].info;
}
