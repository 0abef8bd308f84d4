/*
 * format/mix_read.c - the bytes of a .mix file to an integer network. Nothing in the file is
 * believed: places are checked here before they are looked at, what the numbers mean by
 * mix__net_check().
 */
#include <inttypes.h>
#include <string.h>

#include "format/mix_file.h"
#include "format/mix_layout.h"
#include "tensor/packed.h"

struct reader {
    mix_ctx *ctx;
    const char *what;
    const char *bytes;
    size_t size;
    struct mix__mix_header header;
    struct mix__net *net;
};

/* Where n elements of a size lie, if they do. */
static mix_status locate(const struct reader *r, const char *section, uint64_t at, uint64_t n,
                         size_t size, const void **out)
{
    *out = NULL;
    if (at % MIX__MIX_ALIGN || at > r->size || n > (r->size - at) / size)
        return mix__fail(r->ctx, MIX_EFORMAT,
                         "%s: %s: %" PRIu64 " x %zu bytes at %" PRIu64
                         " do not lie in the file's %zu bytes at a multiple of %d",
                         r->what, section, n, size, at, r->size, (int)MIX__MIX_ALIGN);
    *out = r->bytes + at;
    return MIX_OK;
}

static mix_status read_header(struct reader *r)
{
    struct mix__mix_header *h = &r->header;
    if (r->size < sizeof *h || memcmp(r->bytes, MIX__MAGIC, sizeof h->magic) != 0)
        return mix__fail(r->ctx, MIX_EFORMAT,
                         "%s: not a .mix file: expected %zu bytes of header, "
                         "beginning with \\x89MIX",
                         r->what, sizeof *h);
    memcpy(h, r->bytes, sizeof *h);
    if (h->version != MIX__MIX_VERSION)
        return mix__fail(r->ctx, MIX_EUNSUPPORTED,
                         "%s: byte 8: version %" PRIu32 " of the format; this library reads %d",
                         r->what, h->version, (int)MIX__MIX_VERSION);
    if (h->header_bytes != sizeof *h || h->file_bytes != r->size)
        return mix__fail(r->ctx, MIX_EFORMAT,
                         "%s: byte 24: expected a header of %zu and a file of %" PRIu64
                         " bytes, found %" PRIu32 " and %zu",
                         r->what, sizeof *h, h->file_bytes, h->header_bytes, r->size);
    const uint64_t sum = mix__mix_checksum(r->bytes, r->size);
    if (sum != h->checksum)
        return mix__fail(r->ctx, MIX_EFORMAT,
                         "%s: byte 16: checksum %016" PRIx64 ", but the bytes give %016" PRIx64
                         ": the file is damaged",
                         r->what, h->checksum, sum);
    return MIX_OK;
}

/* A record's name; it ends inside. */
static mix_status read_name(const struct reader *r, char *to, const char *from)
{
    if (!memchr(from, '\0', MIX__NAME_MAX))
        return mix__fail(r->ctx, MIX_EFORMAT, "%s: a name without an end", r->what);
    memcpy(to, from, MIX__NAME_MAX);
    return MIX_OK;
}

static int as_int(uint32_t v)
{
    return v > INT32_MAX ? -1 : (int)v; /* refused by the checks that follow */
}

static mix_status read_tensors(struct reader *r)
{
    const struct mix__mix_header *h = &r->header;
    struct mix__net *net = r->net;
    const void *at;
    MIX_TRY(locate(r, "tensors", h->tensors_at, h->n_tensors, sizeof(struct mix__mix_tensor), &at));
    if (!(net->tensors = mix__alloc(r->ctx, h->n_tensors, sizeof *net->tensors)))
        return MIX_ENOMEM;
    net->n_tensors = h->n_tensors;
    const struct mix__mix_tensor *record = at;
    for (size_t i = 0; i < net->n_tensors; i++)
        net->tensors[i] = (struct mix__net_tensor){ .h = as_int(record[i].h),
                                                    .w = as_int(record[i].w),
                                                    .c = as_int(record[i].c),
                                                    .bits = as_int(record[i].bits),
                                                    .range = (mix_range)as_int(record[i].range),
                                                    .step = record[i].step };
    return MIX_OK;
}

/* The numbers of a convolution: how many there are follows from its tensors. */
static mix_status read_numbers(const struct reader *r, const struct mix__mix_op *record,
                               struct mix__net_op *op)
{
    const struct mix__net *net = r->net;
    const void *at;
    if (op->in[0] < 0 || (size_t)op->in[0] >= net->n_tensors || op->out < 0 ||
        (size_t)op->out >= net->n_tensors || op->groups < 1 || op->kernel < 1 ||
        op->kernel > MIX__WINDOW_MAX || net->tensors[op->in[0]].c < 1 ||
        net->tensors[op->out].c < 1 || op->weight_bits < MIX_BITS_MIN ||
        op->weight_bits > MIX_BITS_MAX || mix__net_taps(net, op) > MIX__NET_TAPS_MAX)
        return mix__fail(r->ctx, MIX_EFORMAT,
                         "%s: layer '%s': a tensor, kernel, number of groups or bit-width is out "
                         "of range",
                         r->what, op->name);
    const uint64_t k = (uint64_t)net->tensors[op->out].c;
    MIX_TRY(locate(r, op->name, record->scale_at, k, sizeof(float), &at));
    op->scale = at;
    MIX_TRY(locate(r, op->name, record->offset_at, k, sizeof(float), &at));
    op->offset = at;
    MIX_TRY(locate(r, op->name, record->weights_at,
                   mix__packed_bytes(mix__net_weights(net, op), op->weight_bits), 1, &at));
    op->weights = at;
    return MIX_OK;
}

static mix_status read_op(struct reader *r, const struct mix__mix_op *record)
{
    struct mix__net_op *op = &r->net->ops[r->net->n_ops++];
    *op = (struct mix__net_op){ .kind = (enum mix__net_kind)as_int(record->kind),
                                .in = { record->in[0], record->in[1] },
                                .out = record->out,
                                .act = (enum mix__act)as_int(record->act),
                                .kernel = as_int(record->kernel),
                                .stride = as_int(record->stride),
                                .pad = as_int(record->pad),
                                .pad_end = as_int(record->pad_end),
                                .groups = as_int(record->groups),
                                .weight_bits = as_int(record->weight_bits) };
    MIX_TRY(read_name(r, op->name, record->name));
    return op->kind == MIX__NET_CONV ? read_numbers(r, record, op) : MIX_OK;
}

static mix_status read_ops(struct reader *r)
{
    const struct mix__mix_header *h = &r->header;
    const void *at;
    MIX_TRY(locate(r, "operators", h->ops_at, h->n_ops, sizeof(struct mix__mix_op), &at));
    if (!(r->net->ops = mix__alloc(r->ctx, h->n_ops, sizeof *r->net->ops)))
        return MIX_ENOMEM;
    const struct mix__mix_op *record = at;
    for (size_t i = 0; i < h->n_ops; i++)
        MIX_TRY(read_op(r, &record[i]));
    return MIX_OK;
}

/* What lies outside of tensors and operators: image and class names. */
static mix_status read_rest(struct reader *r)
{
    const struct mix__mix_header *h = &r->header;
    struct mix__net *net = r->net;
    const void *at;
    if (net->n_tensors == 0 || as_int(h->channels) != net->tensors[0].c)
        return mix__fail(r->ctx, MIX_EFORMAT, "%s: no image of %" PRIu32 " channels as tensor 0",
                         r->what, h->channels);
    MIX_TRY(locate(r, "the image's mean and deviation", h->image_at, 2 * (uint64_t)h->channels,
                   sizeof(float), &at));
    net->mean = at;
    net->deviation = net->mean + h->channels;
    MIX_TRY(locate(r, "class names", h->class_names_at, h->class_names_bytes, 1, &at));
    net->class_names = h->class_names_bytes ? at : NULL;
    net->class_names_bytes = h->class_names_bytes;
    net->output = as_int(h->output);
    return read_name(r, net->name, h->name);
}

static mix_status check_class_names(const struct reader *r)
{
    const struct mix__net *net = r->net;
    size_t n = 0;
    for (size_t i = 0; i < net->class_names_bytes; i++) {
        const unsigned char byte = (unsigned char)net->class_names[i];
        if ((byte && byte < ' ') || byte == 0x7f) /* a terminal would obey it */
            return mix__fail(r->ctx, MIX_EFORMAT, "%s: class name %zu has a control character, %#x",
                             r->what, n, byte);
        n += byte == '\0';
    }
    const size_t classes = (size_t)net->tensors[net->output].c;
    if (!net->class_names || (n == classes && net->class_names[net->class_names_bytes - 1] == '\0'))
        return MIX_OK;
    return mix__fail(r->ctx, MIX_EFORMAT, "%s: %zu class names for %zu classes", r->what, n,
                     classes);
}

static mix_status read_net(struct reader *r)
{
    MIX_TRY(read_header(r));
    MIX_TRY(read_tensors(r));
    MIX_TRY(read_rest(r));
    MIX_TRY(read_ops(r));
    MIX_TRY(mix__net_check(r->net, r->what));
    return check_class_names(r);
}

mix_status mix__mix_decode(struct mix__net **out, mix_ctx *ctx, const void *bytes, size_t size,
                           const char *what)
{
    *out = NULL;
    struct reader r = { .ctx = ctx, .what = what, .bytes = bytes, .size = size };
    if (!(r.net = mix__zalloc(ctx, 1, sizeof *r.net)))
        return MIX_ENOMEM;
    r.net->ctx = ctx;
    const mix_status status = read_net(&r);
    if (status != MIX_OK) {
        mix__net_free(r.net);
        return status;
    }
    *out = r.net;
    return MIX_OK;
}
