/*
 * format/onnx_build.c - protobuf-c's messages for an ONNX model, from memory that is given back in
 * one go.
 */
#include "format/onnx_build.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"

/* AttributeProto.AttributeType */
enum { ATTRIBUTE_FLOAT = 1, ATTRIBUTE_INT = 2, ATTRIBUTE_STRING = 3, ATTRIBUTE_INTS = 7 };
enum { INPUTS_MAX = 4, ATTRIBUTES_MAX = 6 };

struct mix__onnx_block {
    struct mix__onnx_block *next;
    _Alignas(16) char bytes[];
};

void mix__onnx_build_begin(struct mix__onnx_build *b, mix_ctx *ctx)
{
    *b = (struct mix__onnx_build){ .ctx = ctx };
    onnx__node_proto__init(&b->spare_node);
    onnx__attribute_proto__init(&b->spare_attribute);
}

void mix__onnx_build_release(struct mix__onnx_build *b)
{
    for (struct mix__onnx_block *block = b->blocks, *next; block; block = next) {
        next = block->next;
        mix__free(b->ctx, block);
    }
    mix__free(b->ctx, b->nodes.items);
    mix__free(b->ctx, b->constants.items);
    mix__free(b->ctx, b->notes.items);
    *b = (struct mix__onnx_build){ 0 };
}

void *mix__onnx_take(struct mix__onnx_build *b, size_t n, size_t size)
{
    const size_t head = sizeof(struct mix__onnx_block);
    struct mix__onnx_block *block =
        n <= (SIZE_MAX - head) / size ? mix__zalloc(b->ctx, 1, head + n * size) : NULL;
    b->failed = b->failed || !block;
    if (!block)
        return NULL;
    block->next = b->blocks;
    b->blocks = block;
    return block->bytes;
}

char *mix__onnx_text_of(struct mix__onnx_build *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = mix__onnx_take(b, (size_t)length + 1, 1);
    if (!text)
        return (char *)"";
    va_start(args, format);
    vsnprintf(text, (size_t)length + 1, format, args);
    va_end(args);
    return text;
}

static void append(struct mix__onnx_build *b, struct mix__onnx_list *list, void *item)
{
    if (item &&
        mix__grow(b->ctx, &list->items, list->n, &list->capacity, sizeof *list->items) == MIX_OK)
        list->items[list->n++] = item;
    else
        b->failed = true;
}

/* ---- nodes ---------------------------------------------------------------------------------- */

Onnx__NodeProto *mix__onnx_put_node(struct mix__onnx_build *b, const char *op, const char *out, ...)
{
    Onnx__NodeProto *node = mix__onnx_take(b, 1, sizeof *node);
    char **names = mix__onnx_take(b, INPUTS_MAX + 1, sizeof *names);
    Onnx__AttributeProto **attributes = mix__onnx_take(b, ATTRIBUTES_MAX, sizeof *attributes);
    if (!node || !names || !attributes)
        return &b->spare_node;
    onnx__node_proto__init(node);
    node->op_type = (char *)op;
    node->name = (char *)out;
    node->attribute = attributes;
    node->input = names;
    va_list args;
    va_start(args, out);
    for (char *in; (in = va_arg(args, char *));)
        names[node->n_input++] = in;
    va_end(args);
    node->output = names + INPUTS_MAX;
    node->output[0] = (char *)out;
    node->n_output = 1;
    append(b, &b->nodes, node);
    return node;
}

/* Its fields are the caller's to fill. */
static Onnx__AttributeProto *attribute(struct mix__onnx_build *b, Onnx__NodeProto *node,
                                       const char *name, int type)
{
    Onnx__AttributeProto *a = mix__onnx_take(b, 1, sizeof *a);
    if (!a || !node->attribute)
        return &b->spare_attribute;
    onnx__attribute_proto__init(a);
    a->name = (char *)name;
    a->has_type = 1;
    a->type = type;
    node->attribute[node->n_attribute++] = a;
    return a;
}

void mix__onnx_set_int(struct mix__onnx_build *b, Onnx__NodeProto *node, const char *name,
                       int64_t value)
{
    Onnx__AttributeProto *a = attribute(b, node, name, ATTRIBUTE_INT);
    a->has_i = 1;
    a->i = value;
}

void mix__onnx_set_float(struct mix__onnx_build *b, Onnx__NodeProto *node, const char *name,
                         float value)
{
    Onnx__AttributeProto *a = attribute(b, node, name, ATTRIBUTE_FLOAT);
    a->has_f = 1;
    a->f = value;
}

void mix__onnx_set_text(struct mix__onnx_build *b, Onnx__NodeProto *node, const char *name,
                        const char *value)
{
    Onnx__AttributeProto *a = attribute(b, node, name, ATTRIBUTE_STRING);
    a->has_s = 1;
    a->s = (ProtobufCBinaryData){ strlen(value), (uint8_t *)value };
}

void mix__onnx_set_ints(struct mix__onnx_build *b, Onnx__NodeProto *node, const char *name,
                        const int64_t *values, size_t n)
{
    Onnx__AttributeProto *a = attribute(b, node, name, ATTRIBUTE_INTS);
    int64_t *copy = mix__onnx_take(b, n, sizeof *copy);
    if (!copy)
        return;
    memcpy(copy, values, n * sizeof *copy);
    a->ints = copy;
    a->n_ints = n;
}

/* ---- constants ------------------------------------------------------------------------------ */

const char *mix__onnx_put_constant(struct mix__onnx_build *b, const char *name,
                                   enum mix__onnx_type type, int rank, const int64_t *dims,
                                   const void *data, size_t bytes)
{
    Onnx__TensorProto *t = mix__onnx_take(b, 1, sizeof *t);
    int64_t *copy = mix__onnx_take(b, (size_t)rank + 1, sizeof *copy);
    if (!t || !copy)
        return name;
    onnx__tensor_proto__init(t);
    for (int i = 0; i < rank; i++)
        copy[i] = dims[i];
    t->dims = copy;
    t->n_dims = (size_t)rank;
    t->has_data_type = 1;
    t->data_type = type;
    t->name = (char *)name;
    t->has_raw_data = 1;
    t->raw_data = (ProtobufCBinaryData){ bytes, (uint8_t *)data };
    append(b, &b->constants, t);
    return name;
}

const char *mix__onnx_put_scalar(struct mix__onnx_build *b, const char *name, float value)
{
    float *copy = mix__onnx_take(b, 1, sizeof *copy);
    if (copy)
        *copy = value;
    return mix__onnx_put_constant(b, name, MIX__ONNX_FLOAT, 0, NULL, copy, sizeof *copy);
}

void mix__onnx_put_note(struct mix__onnx_build *b, const char *key, const char *value)
{
    Onnx__StringStringEntryProto *entry = mix__onnx_take(b, 1, sizeof *entry);
    if (!entry)
        return;
    onnx__string_string_entry_proto__init(entry);
    entry->key = (char *)key;
    entry->value = (char *)value;
    append(b, &b->notes, entry);
}

/* ---- the model ------------------------------------------------------------------------------ */

/* (N, dims...) of floats */
struct port {
    Onnx__ValueInfoProto info, *list[1];
    Onnx__TypeProto type;
    Onnx__TypeProto__Tensor tensor;
    Onnx__TensorShapeProto shape;
    Onnx__TensorShapeProto__Dimension dim[4], *dims[4];
};

static void port_init(struct port *p, const char *name, int rank, const int64_t *dims)
{
    onnx__value_info_proto__init(&p->info);
    onnx__type_proto__init(&p->type);
    onnx__type_proto__tensor__init(&p->tensor);
    onnx__tensor_shape_proto__init(&p->shape);
    for (int i = 0; i <= rank; i++) {
        onnx__tensor_shape_proto__dimension__init(&p->dim[i]);
        p->dims[i] = &p->dim[i];
        p->dim[i].dim_param = i == 0 ? (char *)"N" : NULL;
        p->dim[i].has_dim_value = i > 0;
        p->dim[i].dim_value = i > 0 ? dims[i - 1] : 0;
    }
    p->shape.dim = p->dims;
    p->shape.n_dim = (size_t)rank + 1;
    p->tensor.has_elem_type = 1;
    p->tensor.elem_type = MIX__ONNX_FLOAT;
    p->tensor.shape = &p->shape;
    p->type.tensor_type = &p->tensor;
    p->info.name = (char *)name;
    p->info.type = &p->type;
    p->list[0] = &p->info;
}

static mix_status write_packed(struct mix__onnx_build *b, const Onnx__ModelProto *model,
                               const char *path)
{
    const size_t size = onnx__model_proto__get_packed_size(model);
    uint8_t *bytes = mix__alloc(b->ctx, size, 1);
    if (!bytes)
        return MIX_ENOMEM;
    onnx__model_proto__pack(model, bytes);
    const mix_status status = mix__file_save(b->ctx, path, bytes, size);
    mix__free(b->ctx, bytes);
    return status;
}

mix_status mix__onnx_build_write(struct mix__onnx_build *b, const struct mix__onnx_model *m,
                                 const char *path)
{
    Onnx__GraphProto graph = ONNX__GRAPH_PROTO__INIT;
    Onnx__ModelProto model = ONNX__MODEL_PROTO__INIT;
    Onnx__OperatorSetIdProto sets[2] = { ONNX__OPERATOR_SET_ID_PROTO__INIT,
                                         ONNX__OPERATOR_SET_ID_PROTO__INIT };
    Onnx__OperatorSetIdProto *set_list[] = { &sets[0], &sets[1] };
    struct port in, out;
    if (b->failed)
        return mix__fail(b->ctx, MIX_ENOMEM, "out of memory for the ONNX model of %s", m->name);
    port_init(&in, m->input, m->input_rank, m->input_dims);
    port_init(&out, m->output, m->output_rank, m->output_dims);
    graph.name = (char *)m->name;
    graph.node = (Onnx__NodeProto **)b->nodes.items;
    graph.n_node = b->nodes.n;
    graph.initializer = (Onnx__TensorProto **)b->constants.items;
    graph.n_initializer = b->constants.n;
    graph.input = in.list;
    graph.output = out.list;
    graph.n_input = graph.n_output = 1;
    sets[0].has_version = sets[1].has_version = 1;
    sets[0].version = m->opset;
    sets[1].version = 1;
    sets[1].domain = (char *)MIX__ONNX_QONNX_DOMAIN;
    model.has_ir_version = 1;
    model.ir_version = m->ir_version;
    model.producer_name = (char *)"metamix";
    model.graph = &graph;
    model.opset_import = set_list;
    model.n_opset_import = m->qonnx ? 2 : 1;
    model.metadata_props = (Onnx__StringStringEntryProto **)b->notes.items;
    model.n_metadata_props = b->notes.n;
    return write_packed(b, &model, path);
}
