/*
 * format/onnx_file.c - opening an ONNX file: unpacking within a budget of memory, and its names in
 * one sorted list.
 */
#include "format/onnx_file.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

/* A small message takes up to some 60 times its bytes once unpacked; large files are weights. */
enum { FILE_MAX = 1 << 30, MEMORY_BASE = 64 << 20, MEMORY_FACTOR = 3, NODES_MAX = 16384 };

mix_status mix__onnx_refuse(const struct mix__onnx_file *f, const Onnx__NodeProto *node,
                            const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const char *name = mix__onnx_text(node->name);
    if (!*name && node->n_output > 0)
        name = node->output[0];
    return mix__fail(f->ctx, MIX_EUNSUPPORTED, "%s: node '%.100s' (%.40s): %s", f->path, name,
                     mix__onnx_text(node->op_type), text);
}

/* ---- unpacking ---- */

static void *take(void *user, size_t size)
{
    struct mix__onnx_file *f = user;
    const size_t whole = size + MIX_ALIGN;
    if (whole < size || whole > f->memory_left) {
        f->short_of_memory = true;
        return NULL;
    }
    f->memory_left -= whole;
    void *block = mix__alloc(f->ctx, 1, size);
    f->short_of_memory = f->short_of_memory || !block;
    return block;
}

static void give_back(void *user, void *block)
{
    mix__free(((struct mix__onnx_file *)user)->ctx, block);
}

static mix_status unpack(struct mix__onnx_file *f)
{
    char *bytes;
    size_t size;
    ProtobufCAllocator allocator = { take, give_back, f };
    MIX_TRY(mix__file_read(f->ctx, f->path, FILE_MAX, &bytes, &size));
    f->memory_left = MEMORY_BASE + MEMORY_FACTOR * size;
    f->model = onnx__model_proto__unpack(&allocator, size, (const uint8_t *)bytes);
    mix__free(f->ctx, bytes);
    if (f->short_of_memory)
        return mix__fail(f->ctx, MIX_ENOMEM, "%s: unpacking its %zu bytes takes too much memory",
                         f->path, size);
    if (!f->model)
        return mix__fail(f->ctx, MIX_EFORMAT,
                         "%s: no ONNX model: its %zu bytes are no protobuf message of one", f->path,
                         size);
    f->graph = f->model->graph;
    return MIX_OK;
}

static mix_status check_opset(struct mix__onnx_file *f)
{
    for (size_t i = 0; i < f->model->n_opset_import; i++) {
        const Onnx__OperatorSetIdProto *set = f->model->opset_import[i];
        const char *domain = mix__onnx_text(set->domain);
        if (!*domain || strcmp(domain, "ai.onnx") == 0)
            f->opset = set->version;
    }
    if (!f->graph || f->graph->n_node == 0)
        return mix__fail(f->ctx, MIX_EFORMAT, "%s: no ONNX model: it holds no nodes", f->path);
    if (f->graph->n_node > NODES_MAX)
        return mix__fail(f->ctx, MIX_EUNSUPPORTED, "%s: %zu nodes; at most %d are read", f->path,
                         f->graph->n_node, NODES_MAX);
    if (f->opset < MIX__ONNX_OPSET_MIN || f->opset > MIX__ONNX_OPSET_MAX)
        return mix__fail(f->ctx, MIX_EUNSUPPORTED, "%s: operator set %lld; expected %d to %d",
                         f->path, (long long)f->opset, MIX__ONNX_OPSET_MIN, MIX__ONNX_OPSET_MAX);
    return MIX_OK;
}

/* ---- names ---- */

static void define(struct mix__onnx_file *f, const char *text, int from, size_t index)
{
    if (text && *text)
        f->names[f->n_names++] = (struct mix__onnx_name){ text, from, index, 0, 0, false };
}

static int compare_names(const void *a, const void *b)
{
    const struct mix__onnx_name *x = a, *y = b;
    const int order = strcmp(x->text, y->text);
    return order ? order : (x->from > y->from) - (x->from < y->from);
}

/* Before IR 4 an initializer is listed among the inputs too: that is one definition. */
static mix_status drop_doubles(struct mix__onnx_file *f)
{
    size_t kept = 0;
    for (size_t i = 0; i < f->n_names; i++) {
        const struct mix__onnx_name *n = &f->names[i];
        const struct mix__onnx_name *last = kept ? &f->names[kept - 1] : NULL;
        if (!last || strcmp(last->text, n->text) != 0)
            f->names[kept++] = *n;
        else if (last->from != MIX__ONNX_INITIALIZER || n->from != MIX__ONNX_INPUT)
            return mix__fail(f->ctx, MIX_EFORMAT, "%s: '%.100s' is defined twice", f->path,
                             n->text);
    }
    f->n_names = kept;
    return MIX_OK;
}

static mix_status list_names(struct mix__onnx_file *f)
{
    const Onnx__GraphProto *g = f->graph;
    size_t n = g->n_initializer + g->n_input;
    for (size_t i = 0; i < g->n_node; i++)
        n += g->node[i]->n_output;
    if (!(f->names = mix__alloc(f->ctx, n, sizeof *f->names)))
        return MIX_ENOMEM;
    for (size_t i = 0; i < g->n_initializer; i++)
        define(f, g->initializer[i]->name, MIX__ONNX_INITIALIZER, i);
    for (size_t i = 0; i < g->n_input; i++)
        define(f, g->input[i]->name, MIX__ONNX_INPUT, i);
    for (size_t i = 0; i < g->n_node; i++)
        for (size_t k = 0; k < g->node[i]->n_output; k++)
            define(f, g->node[i]->output[k], MIX__ONNX_NODE, i);
    qsort(f->names, f->n_names, sizeof *f->names, compare_names);
    return drop_doubles(f);
}

static int compare_text(const void *key, const void *name)
{
    return strcmp(key, ((const struct mix__onnx_name *)name)->text);
}

struct mix__onnx_name *mix__onnx_find(const struct mix__onnx_file *f, const char *name)
{
    return bsearch(name, f->names, f->n_names, sizeof *f->names, compare_text);
}

/* ---- what the output needs ---- */

static mix_status need_inputs(struct mix__onnx_file *f, size_t index)
{
    const Onnx__NodeProto *node = f->graph->node[index];
    for (size_t i = 0; i < node->n_input; i++) {
        if (!*node->input[i])
            continue;
        struct mix__onnx_name *name = mix__onnx_find(f, node->input[i]);
        if (!name)
            return mix__fail(f->ctx, MIX_EFORMAT,
                             "%s: node '%.100s' (%.40s): its input '%.100s' is defined nowhere",
                             f->path, mix__onnx_text(node->name), mix__onnx_text(node->op_type),
                             node->input[i]);
        if (name->from == MIX__ONNX_NODE && name->index >= index)
            return mix__fail(f->ctx, MIX_EFORMAT,
                             "%s: node '%.100s' (%.40s): its input '%.100s' is not made before it",
                             f->path, mix__onnx_text(node->name), mix__onnx_text(node->op_type),
                             node->input[i]);
        name->needed = true;
        name->n_consumers++;
        name->consumer = name->consumer > index ? name->consumer : index;
    }
    return MIX_OK;
}

static bool is_needed(const struct mix__onnx_file *f, size_t index)
{
    const Onnx__NodeProto *node = f->graph->node[index];
    for (size_t i = 0; i < node->n_output; i++) {
        const struct mix__onnx_name *name =
            *node->output[i] ? mix__onnx_find(f, node->output[i]) : NULL;
        if (name && name->needed)
            return true;
    }
    return false;
}

/* From the output backwards: whatever a needed node reads is needed. */
static mix_status mark_needed(struct mix__onnx_file *f)
{
    struct mix__onnx_name *output = mix__onnx_find(f, mix__onnx_text(f->output->name));
    if (!output || output->from != MIX__ONNX_NODE)
        return mix__fail(f->ctx, MIX_EFORMAT, "%s: no node makes the output '%.100s'", f->path,
                         mix__onnx_text(f->output->name));
    output->needed = true;
    if (!(f->needed = mix__zalloc(f->ctx, f->graph->n_node, sizeof *f->needed)))
        return MIX_ENOMEM;
    for (size_t i = f->graph->n_node; i-- > 0;) {
        f->needed[i] = is_needed(f, i);
        if (f->needed[i])
            MIX_TRY(need_inputs(f, i));
    }
    return MIX_OK;
}

static mix_status find_ends(struct mix__onnx_file *f)
{
    const Onnx__GraphProto *g = f->graph;
    size_t n = 0;
    for (size_t i = 0; i < g->n_input; i++) {
        const struct mix__onnx_name *name = mix__onnx_find(f, mix__onnx_text(g->input[i]->name));
        if (name && name->from == MIX__ONNX_INPUT && n++ == 0)
            f->input = g->input[i];
    }
    if (n != 1 || g->n_output != 1)
        return mix__fail(f->ctx, MIX_EUNSUPPORTED,
                         "%s: %zu inputs and %zu outputs; expected one image and one output of "
                         "class scores",
                         f->path, n, g->n_output);
    f->output = g->output[0];
    return MIX_OK;
}

mix_status mix__onnx_open(struct mix__onnx_file *f, mix_ctx *ctx, const char *path)
{
    *f = (struct mix__onnx_file){ .ctx = ctx, .path = path };
    MIX_TRY(unpack(f));
    MIX_TRY(check_opset(f));
    MIX_TRY(list_names(f));
    MIX_TRY(find_ends(f));
    return mark_needed(f);
}

void mix__onnx_close(struct mix__onnx_file *f)
{
    ProtobufCAllocator allocator = { take, give_back, f };
    if (f->model)
        onnx__model_proto__free_unpacked(f->model, &allocator);
    mix__free(f->ctx, f->names);
    mix__free(f->ctx, f->needed);
    f->model = NULL;
    f->names = NULL;
    f->needed = NULL;
}

/* ---- attributes ---- */

const Onnx__AttributeProto *mix__onnx_attribute(const Onnx__NodeProto *node, const char *name)
{
    for (size_t i = 0; i < node->n_attribute; i++)
        if (strcmp(mix__onnx_text(node->attribute[i]->name), name) == 0)
            return node->attribute[i];
    return NULL;
}

int64_t mix__onnx_int(const Onnx__NodeProto *node, const char *name, int64_t value)
{
    const Onnx__AttributeProto *a = mix__onnx_attribute(node, name);
    return a && a->has_i ? a->i : value;
}

float mix__onnx_float(const Onnx__NodeProto *node, const char *name, float value)
{
    const Onnx__AttributeProto *a = mix__onnx_attribute(node, name);
    return a && a->has_f ? a->f : value;
}

struct mix__onnx_ints mix__onnx_ints(const Onnx__NodeProto *node, const char *name)
{
    const Onnx__AttributeProto *a = mix__onnx_attribute(node, name);
    return a ? (struct mix__onnx_ints){ a->ints, a->n_ints } : (struct mix__onnx_ints){ NULL, 0 };
}
