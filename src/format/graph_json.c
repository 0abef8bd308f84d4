/*
 * format/graph_json.c - graphs to JSON and back through the builders of model/graph.h, which infer
 * the shapes again.
 */
#include "format/graph_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/json.h"

enum { VERSION = 1, NODES_MAX = 65536, CHANNELS_MAX = 1 << 20 };

static const char *const op_names[] = {
    [MIX__OP_CONV2D] = "conv2d",
    [MIX__OP_BATCHNORM] = "batchnorm",
    [MIX__OP_RELU] = "relu",
    [MIX__OP_RELU6] = "relu6",
    [MIX__OP_HARDSWISH] = "hardswish",
    [MIX__OP_HARDSIGMOID] = "hardsigmoid",
    [MIX__OP_ADD] = "add",
    [MIX__OP_MUL] = "mul",
    [MIX__OP_MAXPOOL] = "maxpool",
    [MIX__OP_GLOBAL_AVGPOOL] = "global_avgpool",
    [MIX__OP_FLATTEN] = "flatten",
    [MIX__OP_DROPOUT] = "dropout",
    [MIX__OP_LINEAR] = "linear",
};

/* ---- writing ---- */

/* The numbers of an operator; NULL: out of memory. */
static json_t *numbers_of(const mix_graph *g, const struct mix__node *n)
{
    const int outputs = g->tensors[n->out].c;
    switch (n->op) {
    case MIX__OP_CONV2D:
        return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:b}", "out_channels", outputs, "kernel",
                         n->kernel, "stride", n->stride, "pad", n->pad, "pad_more",
                         n->pad_end - n->pad, "groups", n->groups, "bias", n->bias >= 0);
    case MIX__OP_MAXPOOL:
        return json_pack("{s:i, s:i, s:i}", "kernel", n->kernel, "stride", n->stride, "pad",
                         n->pad);
    case MIX__OP_BATCHNORM:
        return json_pack("{s:f, s:f}", "eps", (double)n->eps, "momentum", (double)n->momentum);
    case MIX__OP_DROPOUT:
        return json_pack("{s:f}", "rate", (double)n->rate);
    case MIX__OP_LINEAR:
        return json_pack("{s:i}", "out_features", outputs);
    default:
        return json_object();
    }
}

static json_t *node_json(const mix_graph *g, const struct mix__node *n)
{
    json_t *in =
        n->n_in == 2 ? json_pack("[i, i]", n->in[0], n->in[1]) : json_pack("[i]", n->in[0]);
    json_t *node = json_pack("{s:s, s:s, s:o}", "op", op_names[n->op], "name", n->name, "in", in);
    json_t *numbers = numbers_of(g, n);
    const bool ok = node && numbers && json_object_update(node, numbers) == 0;
    json_decref(numbers);
    if (ok)
        return node;
    json_decref(node);
    return NULL;
}

/* NULL: not known, or out of memory. */
static json_t *classes_json(const mix_graph *g)
{
    json_t *classes = g->class_names ? json_array() : NULL;
    const char *name = g->class_names, *end = name + g->class_names_bytes;
    for (; classes && name < end; name += strlen(name) + 1) {
        if (!mix__json_append(classes, json_string(name)))
            classes = NULL;
    }
    return classes;
}

static json_t *graph_json(const mix_graph *g)
{
    json_t *classes = classes_json(g);
    json_t *nodes = classes || !g->class_names ? json_array() : NULL;
    for (size_t i = 0; i < g->n_nodes; i++) {
        if (!mix__json_append(nodes, node_json(g, &g->nodes[i]))) {
            json_decref(classes);
            return NULL;
        }
    }
    return json_pack("{s:i, s:s, s:i, s:i, s:b, s:o*, s:o}", "version", VERSION, "name", g->name,
                     "size", g->tensors[0].h, "channels", g->tensors[0].c, "recentre", g->recentre,
                     "classes", classes, "nodes", nodes);
}

mix_status mix__graph_json_write(const mix_graph *g, char **text)
{
    json_t *root = graph_json(g);
    const size_t flags = JSON_COMPACT | JSON_REAL_PRECISION(9); /* gives back every float */
    const size_t n = root ? json_dumpb(root, NULL, 0, flags) : 0;
    *text = n ? mix__zalloc(g->ctx, n + 1, 1) : NULL;
    const bool ok = *text && json_dumpb(root, *text, n, flags) == n;
    json_decref(root);
    if (ok)
        return MIX_OK;
    mix__free(g->ctx, *text);
    *text = NULL;
    return mix__fail(g->ctx, MIX_ENOMEM, "out of memory for the description of %s", g->name);
}

/* ---- reading ---- */

/* One node while it is read; the first mistake is kept in bad. */
struct entry {
    mix_graph *graph;
    json_t *json;
    const char *name;
    const char *bad;
    int in[2], n_in;
};

static int number(struct entry *e, const char *key, int lowest, int highest)
{
    const json_t *value = json_object_get(e->json, key);
    const json_int_t n = json_integer_value(value);
    if (json_is_integer(value) && n >= lowest && n <= highest)
        return (int)n;
    e->bad = e->bad ? e->bad : key;
    return lowest;
}

/* Above lowest, at most 1. */
static float share(struct entry *e, const char *key, double lowest)
{
    const json_t *value = json_object_get(e->json, key);
    const double x = json_number_value(value);
    if (json_is_number(value) && x > lowest && x <= 1.0)
        return (float)x;
    e->bad = e->bad ? e->bad : key;
    return 1.0f;
}

static void read_inputs(struct entry *e, enum mix__op op)
{
    const json_t *in = json_object_get(e->json, "in");
    e->n_in = op == MIX__OP_ADD || op == MIX__OP_MUL ? 2 : 1;
    if (json_array_size(in) != (size_t)e->n_in)
        e->bad = "in";
    for (int i = 0; i < e->n_in && !e->bad; i++) {
        const json_t *value = json_array_get(in, (size_t)i);
        const json_int_t n = json_integer_value(value);
        if (!json_is_integer(value) || n < 0 || (size_t)n >= e->graph->n_tensors)
            e->bad = "in";
        e->in[i] = e->bad ? 0 : (int)n;
    }
    if (e->n_in == 2 && e->in[0] == e->in[1])
        e->bad = "in";
}

static void add_conv(struct entry *e)
{
    struct mix__conv_shape s = { .out_channels = number(e, "out_channels", 1, CHANNELS_MAX),
                                 .kernel = number(e, "kernel", 1, MIX__WINDOW_MAX),
                                 .stride = number(e, "stride", 1, MIX__WINDOW_MAX),
                                 .groups = number(e, "groups", 1, CHANNELS_MAX),
                                 .bias = json_is_true(json_object_get(e->json, "bias")) };
    s.pad = number(e, "pad", 0, s.kernel - 1);
    s.pad_more = number(e, "pad_more", 0, s.kernel - 1 - s.pad);
    if (!e->bad)
        mix__graph_conv(e->graph, e->name, e->in[0], &s);
}

static void add_maxpool(struct entry *e)
{
    const int kernel = number(e, "kernel", 1, MIX__WINDOW_MAX);
    const int stride = number(e, "stride", 1, MIX__WINDOW_MAX);
    const int pad = number(e, "pad", 0, kernel / 2);
    if (!e->bad)
        mix__graph_maxpool(e->graph, e->name, e->in[0], kernel, stride, pad);
}

static void add_op(struct entry *e, enum mix__op op)
{
    mix_graph *g = e->graph;
    float eps, momentum, rate;
    int features;
    switch (op) {
    case MIX__OP_CONV2D:
        add_conv(e);
        break;
    case MIX__OP_MAXPOOL:
        add_maxpool(e);
        break;
    case MIX__OP_BATCHNORM:
        eps = share(e, "eps", 0.0);
        momentum = share(e, "momentum", 0.0);
        if (!e->bad)
            mix__graph_batchnorm(g, e->name, e->in[0], eps, momentum);
        break;
    case MIX__OP_DROPOUT:
        rate = share(e, "rate", -1e-30);
        if (rate == 1.0f)
            e->bad = "rate";
        if (!e->bad)
            mix__graph_dropout(g, e->name, e->in[0], rate);
        break;
    case MIX__OP_LINEAR:
        features = number(e, "out_features", 1, CHANNELS_MAX);
        if (!e->bad)
            mix__graph_linear(g, e->name, e->in[0], features);
        break;
    case MIX__OP_ADD:
        mix__graph_add(g, e->name, e->in[0], e->in[1]);
        break;
    case MIX__OP_MUL:
        mix__graph_mul(g, e->name, e->in[0], e->in[1]);
        break;
    default:
        mix__graph_unary(g, op, e->name, e->in[0]);
    }
}

static mix_status read_node(mix_graph *g, size_t index, json_t *json)
{
    const char *op = json_string_value(json_object_get(json, "op"));
    struct entry e = { .graph = g,
                       .json = json,
                       .name = json_string_value(json_object_get(json, "name")) };
    const int which = op ? mix__text_index(op, op_names, MIX_COUNT(op_names)) : -1;
    if (which < 0 || !e.name || !*e.name)
        return mix__fail(g->ctx, MIX_EFORMAT, "node %zu: name '%.64s', operator '%.64s'", index,
                         e.name ? e.name : "", op ? op : "");
    read_inputs(&e, (enum mix__op)which);
    if (!e.bad)
        add_op(&e, (enum mix__op)which);
    if (e.bad)
        return mix__fail(g->ctx, MIX_EFORMAT, "node %zu, '%.64s': '%s' is missing or out of range",
                         index, e.name, e.bad);
    return g->failed;
}

static const char *class_of(const void *classes, int index)
{
    return json_string_value(json_array_get(classes, (size_t)index));
}

static mix_status read_classes(mix_graph *g, const json_t *classes)
{
    const size_t n = (size_t)g->tensors[g->output].c;
    size_t texts = 0;
    if (!classes)
        return MIX_OK;
    for (size_t i = 0; i < json_array_size(classes); i++)
        texts += json_is_string(json_array_get(classes, i));
    if (texts != n || json_array_size(classes) != n)
        return mix__fail(g->ctx, MIX_EFORMAT, "'classes': expected the names of %zu classes", n);
    return mix__graph_name_classes(g, class_of, classes);
}

static mix_status read_graph(mix_graph *g, const json_t *root)
{
    const json_t *nodes = json_object_get(root, "nodes");
    const size_t n = json_array_size(nodes);
    if (n < 1 || n > NODES_MAX)
        return mix__fail(g->ctx, MIX_EFORMAT, "%zu nodes; expected 1 to %d", n, NODES_MAX);
    for (size_t i = 0; i < n; i++)
        MIX_TRY(read_node(g, i, json_array_get(nodes, i)));
    const struct mix__tensor *logits = &g->tensors[g->n_tensors - 1];
    if (logits->h != 1 || logits->w != 1 || logits->c < 2)
        return mix__fail(g->ctx, MIX_EFORMAT,
                         "the last node's output is %dx%dx%d; expected classes", logits->h,
                         logits->w, logits->c);
    g->recentre = json_is_true(json_object_get(root, "recentre"));
    MIX_TRY(mix__graph_finish(g, (int)g->n_tensors - 1));
    return read_classes(g, json_object_get(root, "classes"));
}

static mix_status read_root(mix_graph **out, mix_ctx *ctx, json_t *root)
{
    struct entry e = { .json = root };
    const char *name = json_string_value(json_object_get(root, "name"));
    number(&e, "version", VERSION, VERSION);
    const int size = number(&e, "size", 1, MIX_SIZE_MAX);
    const int channels = number(&e, "channels", 1, CHANNELS_MAX);
    if (e.bad || !name)
        return mix__fail(ctx, MIX_EFORMAT, "'%s' is missing or out of range",
                         e.bad ? e.bad : "name");
    MIX_TRY(mix__graph_new(out, ctx, name, size, channels));
    return read_graph(*out, root);
}

mix_status mix__graph_json_read(mix_graph **out, mix_ctx *ctx, const char *text)
{
    json_t *root;
    *out = NULL;
    MIX_TRY(mix__json_parse(ctx, NULL, 0, text, strlen(text), &root));
    const mix_status status = read_root(out, ctx, root);
    json_decref(root);
    if (status == MIX_OK)
        return MIX_OK;
    mix_graph_free(*out);
    *out = NULL;
    if (status != MIX_ESHAPE && status != MIX_EINVAL && status != MIX_EUNSUPPORTED)
        return status;
    return mix__fail(ctx, MIX_EFORMAT, "%s", mix_ctx_error(ctx)); /* the builder's sentence */
}
