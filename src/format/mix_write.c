/*
 * format/mix_write.c - an integer network to the bytes of a .mix file: laid out once to measure and
 * once to write, by the same code.
 */
#include <string.h>

#include "base/file.h"
#include "format/mix_file.h"
#include "format/mix_layout.h"
#include "tensor/packed.h"

_Static_assert((int)MIX__MIX_NAME == (int)MIX__NAME_MAX, "names fit into their records");

struct writer {
    char *bytes; /* NULL while measuring */
    size_t used;
};

/* Puts a section at the next aligned place, empty when data is NULL; gives its offset. */
static uint64_t put(struct writer *w, const void *data, size_t size)
{
    const size_t at = (w->used + MIX__MIX_ALIGN - 1) / MIX__MIX_ALIGN * MIX__MIX_ALIGN;
    if (w->bytes && data && size)
        memcpy(w->bytes + at, data, size);
    w->used = at + size;
    return at;
}

static void write_tensors(const struct mix__net *net, char *to)
{
    for (size_t i = 0; i < net->n_tensors; i++) {
        const struct mix__net_tensor *t = &net->tensors[i];
        const struct mix__mix_tensor record = { .h = (uint32_t)t->h,
                                                .w = (uint32_t)t->w,
                                                .c = (uint32_t)t->c,
                                                .bits = (uint32_t)t->bits,
                                                .range = (uint32_t)t->range,
                                                .step = t->step };
        memcpy(to + i * sizeof record, &record, sizeof record);
    }
}

static struct mix__mix_op record_of(const struct mix__net_op *op)
{
    struct mix__mix_op r = { .kind = (uint32_t)op->kind,
                             .act = (uint32_t)op->act,
                             .in = { op->in[0], op->in[1] },
                             .out = op->out,
                             .kernel = (uint32_t)op->kernel,
                             .stride = (uint32_t)op->stride,
                             .pad = (uint32_t)op->pad,
                             .pad_end = (uint32_t)op->pad_end,
                             .groups = (uint32_t)op->groups,
                             .weight_bits = (uint32_t)op->weight_bits };
    memcpy(r.name, op->name, strlen(op->name)); /* the rest stays zero */
    return r;
}

static void lay_out(struct writer *w, const struct mix__net *net)
{
    struct mix__mix_header h = { .version = MIX__MIX_VERSION,
                                 .header_bytes = sizeof h,
                                 .n_tensors = (uint32_t)net->n_tensors,
                                 .n_ops = (uint32_t)net->n_ops,
                                 .output = (uint32_t)net->output,
                                 .channels = (uint32_t)net->tensors[0].c };
    const size_t channels = h.channels;
    w->used = 0;
    memcpy(h.magic, MIX__MAGIC, sizeof h.magic);
    memcpy(h.name, net->name, strlen(net->name));
    put(w, NULL, sizeof h); /* sections whose bytes come last are only given room */
    h.tensors_at = put(w, NULL, net->n_tensors * sizeof(struct mix__mix_tensor));
    h.ops_at = put(w, NULL, net->n_ops * sizeof(struct mix__mix_op));
    h.image_at = put(w, NULL, 2 * channels * sizeof(float));
    h.class_names_at = put(w, net->class_names, net->class_names_bytes);
    h.class_names_bytes = net->class_names_bytes;

    for (size_t i = 0; i < net->n_ops; i++) {
        const struct mix__net_op *op = &net->ops[i];
        struct mix__mix_op record = record_of(op);
        if (op->kind == MIX__NET_CONV) {
            const size_t k = (size_t)net->tensors[op->out].c;
            record.scale_at = put(w, op->scale, k * sizeof *op->scale);
            record.offset_at = put(w, op->offset, k * sizeof *op->offset);
            record.weights_at =
                put(w, op->weights, mix__packed_bytes(mix__net_weights(net, op), op->weight_bits));
        }
        if (w->bytes)
            memcpy(w->bytes + h.ops_at + i * sizeof record, &record, sizeof record);
    }
    h.file_bytes = w->used;
    if (!w->bytes)
        return;
    write_tensors(net, w->bytes + h.tensors_at);
    memcpy(w->bytes + h.image_at, net->mean, channels * sizeof(float));
    memcpy(w->bytes + h.image_at + channels * sizeof(float), net->deviation,
           channels * sizeof(float));
    memcpy(w->bytes, &h, sizeof h);
    h.checksum = mix__mix_checksum(w->bytes, w->used);
    memcpy(w->bytes, &h, sizeof h);
}

mix_status mix__mix_encode(const struct mix__net *net, char **bytes, size_t *size)
{
    struct writer w = { NULL, 0 };
    *bytes = NULL;
    *size = 0;
    lay_out(&w, net);
    if (!(w.bytes = mix__zalloc(net->ctx, w.used, 1)))
        return MIX_ENOMEM;
    lay_out(&w, net);
    *bytes = w.bytes;
    *size = w.used;
    return MIX_OK;
}

mix_status mix__mix_write(const struct mix__net *net, const char *path)
{
    char *bytes;
    size_t size;
    MIX_TRY(mix__mix_encode(net, &bytes, &size));
    const mix_status status = mix__file_save(net->ctx, path, bytes, size);
    mix__free(net->ctx, bytes);
    return status;
}
