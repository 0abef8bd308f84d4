/*
 * format/onnx_graph.c - the walk over an ONNX file's nodes, and the names and values of the graph
 * that it builds.
 */
#include "format/onnx_walk.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"

enum { SIZE_DEFAULT = 224 };

static const struct {
    const char *name;
    mix__onnx_op *take;
} operators[] = {
    { "Add", mix__onnx_add },
    { "AveragePool", mix__onnx_average_pool },
    { "BatchNormalization", mix__onnx_batchnorm },
    { "Cast", mix__onnx_cast },
    { "Clip", mix__onnx_clip },
    { "Concat", mix__onnx_concat },
    { "Constant", mix__onnx_constant },
    { "Conv", mix__onnx_conv },
    { "Div", mix__onnx_div },
    { "Dropout", mix__onnx_dropout },
    { "Flatten", mix__onnx_flatten },
    { "Gather", mix__onnx_gather },
    { "Gemm", mix__onnx_gemm },
    { "GlobalAveragePool", mix__onnx_global_pool },
    { "HardSigmoid", mix__onnx_hard_sigmoid },
    { "HardSwish", mix__onnx_hard_swish },
    { "Identity", mix__onnx_identity },
    { "LogSoftmax", mix__onnx_softmax },
    { "MatMul", mix__onnx_matmul },
    { "MaxPool", mix__onnx_max_pool },
    { "Mul", mix__onnx_mul },
    { "Pad", mix__onnx_pad },
    { "ReduceMean", mix__onnx_reduce_mean },
    { "Relu", mix__onnx_relu },
    { "Reshape", mix__onnx_reshape },
    { "Shape", mix__onnx_shape },
    { "Slice", mix__onnx_slice },
    { "Softmax", mix__onnx_softmax },
    { "Squeeze", mix__onnx_squeeze },
    { "Transpose", mix__onnx_transpose },
    { "Unsqueeze", mix__onnx_unsqueeze },
};

/* ---- inputs and outputs of a node ---- */

struct mix__onnx_value *mix__onnx_in(const struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                                     size_t index)
{
    if (index >= node->n_input || !*node->input[index])
        return NULL;
    return &w->values[mix__onnx_find(w->file, node->input[index]) - w->file->names];
}

mix_status mix__onnx_constant_in(const struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                                 size_t index, struct mix__onnx_value **value)
{
    *value = mix__onnx_in(w, node, index);
    if (!*value || (*value)->kind == MIX__ONNX_CONSTANT)
        return MIX_OK;
    return mix__onnx_refuse(w->file, node, "input %zu, '%.100s', is no constant", index,
                            (*value)->name);
}

static int add_gate(struct mix__onnx_walk *w, const struct mix__onnx_value *v)
{
    char name[MIX__NAME_MAX];
    const struct mix__onnx_name *made = mix__onnx_find(w->file, v->name);
    mix__onnx_name(w, w->file->graph->node[made->index], NULL, "", name);
    return mix__graph_unary(w->graph, MIX__OP_HARDSIGMOID, name, v->tensor);
}

mix_status mix__onnx_tensor_in(struct mix__onnx_walk *w, const Onnx__NodeProto *node, size_t index,
                               struct mix__onnx_value **value)
{
    struct mix__onnx_value *v = *value = mix__onnx_in(w, node, index);
    if (!v)
        return mix__onnx_refuse(w->file, node, "input %zu is missing", index);
    if (v->kind == MIX__ONNX_GATE) {
        v->tensor = add_gate(w, v);
        v->kind = MIX__ONNX_TENSOR;
    }
    if (v->kind == MIX__ONNX_TENSOR && !v->channels_last)
        return w->graph->failed;
    return mix__onnx_refuse(w->file, node, "input '%.100s' %s", v->name,
                            v->channels_last              ? "has its channels last"
                            : v->kind == MIX__ONNX_PADDED ? "was padded"
                            : v->kind == MIX__ONNX_CONSTANT || v->kind <= MIX__ONNX_NUMBERS
                                ? "is a constant"
                                : "is part of no hard "
                                  "swish or sigmoid");
}

bool mix__onnx_number(const struct mix__onnx_walk *w, const struct mix__onnx_value *v,
                      float *number)
{
    size_t count;
    if (v->kind == MIX__ONNX_NUMBER)
        *number = v->number;
    else if (v->kind != MIX__ONNX_CONSTANT || mix__onnx_is_integers(v->constant) ||
             mix__onnx_count(w->file, v->name, v->constant, &count) != MIX_OK || count != 1 ||
             mix__onnx_floats(w->file, v->name, v->constant, number, 1) != MIX_OK)
        return false;
    return true;
}

mix_status mix__onnx_numbers_in(const struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                                size_t index, int64_t *at, size_t *n)
{
    const struct mix__onnx_value *v = mix__onnx_in(w, node, index);
    *n = 0;
    if (v && v->kind == MIX__ONNX_NUMBERS) {
        memcpy(at, v->at, sizeof v->at);
        *n = v->n;
        return MIX_OK;
    }
    if (!v || v->kind != MIX__ONNX_CONSTANT)
        return mix__onnx_refuse(w->file, node, "input %zu is no constant of whole numbers", index);
    return mix__onnx_integers(w->file, v->name, v->constant, at, MIX__ONNX_RANK_MAX, n);
}

mix_status mix__onnx_put(struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                         struct mix__onnx_value value)
{
    MIX_TRY(w->graph->failed);
    struct mix__onnx_name *name =
        node->n_output && *node->output[0] ? mix__onnx_find(w->file, node->output[0]) : NULL;
    if (!name)
        return mix__onnx_refuse(w->file, node, "it has no first output");
    value.name = name->text;
    w->values[name - w->file->names] = value;
    return MIX_OK;
}

mix_status mix__onnx_put_like(struct mix__onnx_walk *w, const Onnx__NodeProto *node, int tensor,
                              const struct mix__onnx_value *like)
{
    return mix__onnx_put(w, node,
                         (struct mix__onnx_value){ .kind = MIX__ONNX_TENSOR,
                                                   .tensor = tensor,
                                                   .rank = like->rank,
                                                   .pooled = like->pooled,
                                                   .open_bias = -1 });
}

/* ---- names ---- */

/* PyTorch's "/features/features.2/conv/conv.0/Conv" -> "features.2.conv.0": a part that goes on
 * from the one before it takes its place. */
static void module_path(const char *from, char *to, size_t size)
{
    size_t last = 0, used = 0; /* where the last part begins; the length */
    to[0] = '\0';
    for (const char *part = from + 1, *end; (end = strchr(part, '/')); part = end + 1) {
        const size_t n = (size_t)(end - part), before = used - last;
        if (used && before < n && part[before] == '.' && strncmp(part, to + last, before) == 0)
            used = last;
        else if (used && used + 1 < size)
            to[used++] = '.';
        last = used;
        if (used + n >= size)
            break;
        memcpy(to + used, part, n);
        used += n;
    }
    to[used] = '\0';
    if (used == 0)
        snprintf(to, size, "%s", strrchr(from, '/') + 1);
}

static bool taken(const mix_graph *g, const char *name)
{
    for (size_t i = 0; i < g->n_nodes; i++)
        if (strcmp(g->nodes[i].name, name) == 0)
            return true;
    return false;
}

void mix__onnx_name(const struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                    const char *weights, const char *suffix, char name[MIX__NAME_MAX])
{
    static const char ending[] = ".weight";
    enum { BASE_MAX = MIX__NAME_MAX - 36 }; /* leaves room for suffix, number and ".running_mean" */
    const size_t n = weights ? strlen(weights) : 0, tail = sizeof ending - 1;
    const char *own = mix__onnx_text(node->name);
    char base[BASE_MAX];
    if (n > tail && strcmp(weights + n - tail, ending) == 0)
        snprintf(base, sizeof base, "%.*s", (int)(n - tail), weights);
    else if (*own == '/')
        module_path(own, base, sizeof base);
    else
        snprintf(base, sizeof base, "%s", *own ? own : node->output[0]);
    for (char *c = base; *c; c++)
        *c = *c > ' ' && *c < 127 ? *c : '_';
    snprintf(name, MIX__NAME_MAX, "%s%s", *base ? base : "node", suffix);
    for (size_t i = w->index; taken(w->graph, name); i++)
        snprintf(name, MIX__NAME_MAX, "%s%s.%zu", *base ? base : "node", suffix, i);
}

/* ---- values of the parameters ---- */

static mix_status add_fill(struct mix__onnx_walk *w, struct mix__onnx_fill fill)
{
    MIX_TRY(w->graph->failed);
    MIX_TRY(mix__grow(w->graph->ctx, &w->fills, w->n_fills, &w->cap_fills, sizeof *w->fills));
    w->fills[w->n_fills++] = fill;
    return MIX_OK;
}

mix_status mix__onnx_fill_from(struct mix__onnx_walk *w, int param, const struct mix__onnx_value *v,
                               bool transposed)
{
    return add_fill(
        w, (struct mix__onnx_fill){
               .param = param, .name = v->name, .from = v->constant, .transposed = transposed });
}

mix_status mix__onnx_fill_number(struct mix__onnx_walk *w, int param, float number)
{
    return add_fill(w, (struct mix__onnx_fill){ .param = param, .number = number });
}

static mix_status transpose(const mix_graph *g, float *values, size_t out, size_t in)
{
    float *copy = mix__alloc(g->ctx, out * in, sizeof *copy);
    if (!copy)
        return MIX_ENOMEM;
    memcpy(copy, values, out * in * sizeof *copy);
    for (size_t o = 0; o < out; o++)
        for (size_t i = 0; i < in; i++)
            values[o * in + i] = copy[i * out + o];
    mix__free(g->ctx, copy);
    return MIX_OK;
}

static mix_status fill(const struct mix__onnx_walk *w, const struct mix__onnx_fill *f)
{
    const struct mix__param *p = &w->graph->params[f->param];
    float *to = w->graph->values + p->offset;
    if (!f->from) {
        for (size_t i = 0; i < p->count; i++)
            to[i] = f->number;
        return MIX_OK;
    }
    MIX_TRY(mix__onnx_floats(w->file, f->name, f->from, to, p->count));
    for (size_t i = 0; i < p->count && p->kind == MIX__PARAM_VAR; i++)
        if (to[i] < 0.0f)
            return mix__fail(w->graph->ctx, MIX_EFORMAT,
                             "%s: tensor '%.100s', a variance, holds %g at index %zu",
                             w->file->path, f->name, (double)to[i], i);
    return f->transposed
               ? transpose(w->graph, to, (size_t)p->dims[0], p->count / (size_t)p->dims[0])
               : MIX_OK;
}

/* ---- the ends ---- */

/* A file for pictures with their channels last begins by transposing them, as from TensorFlow. */
static bool is_channels_last(const struct mix__onnx_file *f)
{
    const struct mix__onnx_name *input = mix__onnx_find(f, f->input->name);
    return input->n_consumers == 1 &&
           strcmp(mix__onnx_text(f->graph->node[input->consumer]->op_type), "Transpose") == 0;
}

static mix_status read_input(struct mix__onnx_walk *w)
{
    const struct mix__onnx_file *f = w->file;
    const Onnx__TypeProto__Tensor *type = f->input->type ? f->input->type->tensor_type : NULL;
    const Onnx__TensorShapeProto *shape = type ? type->shape : NULL;
    const bool last = is_channels_last(f);
    int64_t dims[4];
    if (!shape || shape->n_dim != 4)
        return mix__fail(f->ctx, MIX_EUNSUPPORTED,
                         "%s: input '%.100s' has %zu dimensions; expected 4: images, channels, "
                         "height, width",
                         f->path, f->input->name, shape ? shape->n_dim : 0);
    for (size_t i = 0; i < 4; i++)
        dims[i] = shape->dim[i]->has_dim_value ? shape->dim[i]->dim_value : 0;
    w->batch = dims[0];
    const int64_t c = dims[last ? 3 : 1], h = dims[last ? 1 : 2], width = dims[last ? 2 : 3];
    if (c < 1 || c > MIX_CHANNELS_MAX)
        return mix__fail(f->ctx, MIX_EUNSUPPORTED,
                         "%s: input '%.100s' has %lld channels; expected 1 to %d", f->path,
                         f->input->name, (long long)c, MIX_CHANNELS_MAX);
    if (!w->options->size && h != width && h > 0 && width > 0)
        return mix__fail(f->ctx, MIX_EUNSUPPORTED,
                         "%s: pictures of %lldx%lld; expected height = width (another size may be "
                         "asked for)",
                         f->path, (long long)h, (long long)width);
    const int64_t size = w->options->size ? w->options->size : h > 0 ? h : SIZE_DEFAULT;
    if (size < 1 || size > MIX_SIZE_MAX)
        return mix__fail(f->ctx, MIX_EINVAL, "%s: image size is %lld pixels; expected 1 to %d",
                         f->path, (long long)size, MIX_SIZE_MAX);
    const char *slash = strrchr(f->path, '/'), *name = slash ? slash + 1 : f->path;
    char base[MIX__NAME_MAX];
    snprintf(base, sizeof base, "%.*s", (int)strcspn(name, "."), name);
    if (!mix__onnx_is_float(type->elem_type))
        return mix__fail(
            f->ctx, MIX_EUNSUPPORTED,
            "%s: input '%.100s' has elements of type %d; expected floats: pictures are "
            "normalised before",
            f->path, f->input->name, type->elem_type);
    MIX_TRY(mix__graph_new(&w->graph, f->ctx, base, (int)size, (int)c));
    w->values[mix__onnx_find(f, f->input->name) - f->names] =
        (struct mix__onnx_value){ .kind = MIX__ONNX_TENSOR,
                                  .name = f->input->name,
                                  .rank = 4,
                                  .channels_last = last,
                                  .open_bias = -1 };
    return MIX_OK;
}

/* The tensor of class scores. */
static mix_status read_output(struct mix__onnx_walk *w, int *tensor)
{
    const struct mix__onnx_file *f = w->file;
    const struct mix__onnx_name *name = mix__onnx_find(f, f->output->name);
    const Onnx__NodeProto *last = f->graph->node[name->index];
    struct mix__onnx_value v = w->values[name - f->names];
    if (v.kind != MIX__ONNX_TENSOR)
        return mix__onnx_refuse(f, last, "its output is no tensor of class scores");
    MIX_TRY(mix__onnx_flat(w, last, &v));
    const int classes = w->graph->tensors[v.tensor].c;
    if (w->options->classes && classes != w->options->classes)
        return mix__onnx_refuse(f, last,
                                "%d outputs that are not the last layer's; expected %d "
                                "classes",
                                classes, w->options->classes);
    if (v.tensor == 0 || classes < 2 || classes > MIX_CLASSES_MAX)
        return mix__onnx_refuse(f, last, "%d classes; expected 2 to %d", classes, MIX_CLASSES_MAX);
    *tensor = v.tensor;
    return MIX_OK;
}

/* ---- the walk ---- */

static mix_status take_node(struct mix__onnx_walk *w)
{
    const Onnx__NodeProto *node = w->file->graph->node[w->index];
    const char *type = mix__onnx_text(node->op_type), *domain = mix__onnx_text(node->domain);
    if (*domain && strcmp(domain, "ai.onnx") != 0)
        return mix__onnx_refuse(w->file, node, "operators of '%.60s' are not supported", domain);
    for (size_t i = 0; i < MIX_COUNT(operators); i++)
        if (strcmp(operators[i].name, type) == 0)
            return operators[i].take(w, node);
    return mix__onnx_refuse(w->file, node, "this operator is not supported");
}

static bool is_layer(const Onnx__NodeProto *node)
{
    const char *type = mix__onnx_text(node->op_type);
    return strcmp(type, "Conv") == 0 || strcmp(type, "Gemm") == 0 || strcmp(type, "MatMul") == 0;
}

static void place_constants(struct mix__onnx_walk *w)
{
    for (size_t i = 0; i < w->file->n_names; i++) {
        const struct mix__onnx_name *name = &w->file->names[i];
        if (name->from == MIX__ONNX_INITIALIZER)
            w->values[i] = (struct mix__onnx_value){
                .kind = MIX__ONNX_CONSTANT,
                .name = name->text,
                .constant = w->file->graph->initializer[name->index],
            };
    }
}

static mix_status build(struct mix__onnx_walk *w)
{
    const size_t n = w->file->graph->n_node;
    int output = 0;
    if (!(w->values = mix__zalloc(w->file->ctx, w->file->n_names, sizeof *w->values)))
        return MIX_ENOMEM;
    place_constants(w);
    MIX_TRY(read_input(w));
    for (size_t i = 0; i < n; i++)
        if (w->file->needed[i] && is_layer(w->file->graph->node[i]))
            w->last_layer = i;
    for (w->index = 0; w->index < n; w->index++)
        if (w->file->needed[w->index])
            MIX_TRY(take_node(w));
    MIX_TRY(read_output(w, &output));
    MIX_TRY(mix__graph_finish(w->graph, output));
    mix__graph_init_values(w->graph, w->options->seed);
    for (size_t i = 0; i < w->n_fills; i++)
        MIX_TRY(fill(w, &w->fills[i]));
    return MIX_OK;
}

bool mix_onnx_is_path(const char *name)
{
    return mix__path_ends(name, ".onnx");
}

void mix_onnx_options_init(mix_onnx_options *options)
{
    *options = (mix_onnx_options){ .seed = 1 };
}

mix_status mix_graph_from_onnx(mix_graph **out, mix_ctx *ctx, const char *path,
                               const mix_onnx_options *options)
{
    mix_onnx_options o;
    struct mix__onnx_file file;
    struct mix__onnx_walk w = { .file = &file,
                                .options = options ? options : &o,
                                .fresh_bias = -1 };
    *out = NULL;
    mix_onnx_options_init(&o);
    if (w.options->classes < 0 || w.options->classes == 1 || w.options->classes > MIX_CLASSES_MAX ||
        w.options->size < 0)
        return mix__fail(ctx, MIX_EINVAL,
                         "%d classes and images of %d pixels; expected 2 to %d classes and 1 to %d "
                         "pixels, or 0 for the file's",
                         w.options->classes, w.options->size, MIX_CLASSES_MAX, MIX_SIZE_MAX);
    mix_status status = mix__onnx_open(&file, ctx, path);
    if (status == MIX_OK)
        status = build(&w);
    mix__onnx_close(&file);
    mix__free(ctx, w.values);
    mix__free(ctx, w.fills);
    if (status != MIX_OK)
        mix_graph_free(w.graph);
    else
        *out = w.graph;
    return status;
}
