/*
 * format/c_write.c - the operators of an integer network as constants and calls; the functions that
 * they call are c_kernels.c, of which those that are used are copied.
 */
#include "format/c_write.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "model/arena.h"
#include "model/border.h"
#include "tensor/packed.h"

/* c_kernels.c, with a zero byte behind it. */
static const char kernels[] = {
#include "c_kernels.inc"
};

enum { NAME_MAX_BYTES = 64, SIDE_MAX = 65535 };

struct writer {
    const struct mix__net *net;
    struct mix__arena arena;
    size_t scratch;            /* bytes behind the tensors: one output channel's weights */
    char file[NAME_MAX_BYTES]; /* NAME of NAME.c */
    char name[NAME_MAX_BYTES], upper[NAME_MAX_BYTES];
    size_t weights, factors; /* bytes of constants */
    uint64_t macs;
    FILE *out;
};

/* ---- names and memory ----------------------------------------------------------------------- */

static mix_status take_name(struct writer *w, const char *path)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    const size_t length = strlen(base) >= 2 ? strlen(base) - 2 : 0;
    bool valid = mix__path_ends(path, ".c") && length > 0 && length < NAME_MAX_BYTES;
    for (size_t i = 0; valid && i < length; i++) {
        const char c = base[i] == '-' || base[i] == '.' ? '_' : base[i];
        valid = isalpha((unsigned char)c) || c == '_' || (i > 0 && isdigit((unsigned char)c));
        w->file[i] = base[i];
        w->name[i] = c;
        w->upper[i] = (char)toupper((unsigned char)c);
    }
    if (valid)
        return MIX_OK;
    return mix__fail(w->net->ctx, MIX_EINVAL,
                     "%s: expected the path of a file NAME.c, NAME being letters, digits, '_', "
                     "'-' and '.', no digit first, at most %d",
                     path, NAME_MAX_BYTES - 1);
}

static mix_status measure(struct writer *w)
{
    const struct mix__net *net = w->net;
    for (size_t t = 0; t < net->n_tensors; t++) {
        const struct mix__net_tensor *x = &net->tensors[t];
        if (x->h > SIDE_MAX || x->w > SIDE_MAX || x->c > SIDE_MAX)
            return mix__fail(net->ctx, MIX_EUNSUPPORTED,
                             "%s: a tensor of %dx%dx%d; exported C takes sides up to %d", net->name,
                             x->h, x->w, x->c, SIDE_MAX);
    }
    for (size_t i = 0; i < net->n_ops; i++) {
        const struct mix__net_op *op = &net->ops[i];
        if (op->kind != MIX__NET_CONV)
            continue;
        const size_t taps = mix__net_taps(net, op);
        w->scratch = taps > w->scratch ? taps : w->scratch;
        w->weights += mix__packed_bytes(mix__net_weights(net, op), op->weight_bits);
        w->macs += mix__net_macs(net, op);
    }
    return mix__arena_plan(&w->arena, net);
}

/* A name of a file's, made fit for a comment: nothing in it ends one. */
static const char *plain(char to[MIX__NAME_MAX], const char *name)
{
    size_t i = 0;
    for (; name[i] && i + 1 < MIX__NAME_MAX; i++)
        to[i] = isprint((unsigned char)name[i]) && name[i] != '*' ? name[i] : '_';
    to[i] = '\0';
    return to;
}

/* ---- constants ------------------------------------------------------------------------------ */

/* values: of so many bytes, 1 or 2. */
static void put_wholes(FILE *out, const char *name, size_t op, const void *values, size_t bytes,
                       size_t n)
{
    fprintf(out, "static const uint%zu_t %s%zu[%zu] = {", 8 * bytes, name, op, n);
    for (size_t i = 0; i < n; i++)
        fprintf(out, "%s%d,", i % 24 ? "" : "\n    ",
                bytes == 1 ? ((const uint8_t *)values)[i] : ((const uint16_t *)values)[i]);
    fprintf(out, "\n};\n");
}

static void put_floats(struct writer *w, const char *name, size_t op, const float *values, size_t n)
{
    fprintf(w->out, "static const float %s%zu[%zu] = {", name, op, n);
    for (size_t i = 0; i < n; i++)
        fprintf(w->out, "%s%af,", i % 6 ? " " : "\n    ", (double)values[i]);
    fprintf(w->out, "\n};\n");
    w->factors += n * sizeof *values;
}

/* Offsets of a shifted input by the taps inside the picture. */
static mix_status put_border(struct writer *w, const struct mix__net_op *op, size_t i,
                             int *col_classes)
{
    const struct mix__net_tensor *y = &w->net->tensors[op->out];
    struct mix__border border;
    float *offset;
    MIX_TRY(mix__border_of(&border, &offset, w->net, op));
    put_floats(w, "offset", i, offset, (size_t)border.n * (size_t)y->c);
    put_wholes(w->out, "row", i, border.row_class, 2, (size_t)y->h);
    put_wholes(w->out, "col", i, border.col_class, 2, (size_t)y->w);
    *col_classes = border.n_cols;
    mix__free(w->net->ctx, offset);
    mix__border_release(&border);
    return MIX_OK;
}

static mix_status put_conv(struct writer *w, const struct mix__net_op *op, size_t i)
{
    const struct mix__net *net = w->net;
    const struct mix__net_tensor *x = &net->tensors[op->in[0]], *y = &net->tensors[op->out];
    const bool shifted = x->range == MIX_RANGE_SHIFTED;
    int cols = 1;
    put_wholes(w->out, "weights", i, op->weights, 1,
               mix__packed_bytes(mix__net_weights(net, op), op->weight_bits));
    put_floats(w, "scale", i, op->scale, (size_t)y->c);
    if (shifted)
        MIX_TRY(put_border(w, op, i, &cols));
    else
        put_floats(w, "offset", i, op->offset, (size_t)y->c);
    fprintf(w->out, "static const struct conv op%zu = { weights%zu, scale%zu, offset%zu, ", i, i, i,
            i);
    if (shifted)
        fprintf(w->out, "row%zu, col%zu, ", i, i);
    else
        fprintf(w->out, "0, 0, ");
    fprintf(w->out, "%d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d };\n", cols, x->h, x->w,
            x->c, y->h, y->w, y->c, op->groups, op->kernel, op->stride, op->pad, op->weight_bits,
            -(int)mix__bounds_activation(x->bits, x->range).n);
    return MIX_OK;
}

static mix_status put_op(struct writer *w, size_t i)
{
    static const char *const acts[] = { "ACT_NONE", "ACT_RELU", "ACT_RELU6", "ACT_HARDSWISH",
                                        "ACT_HARDSIGMOID" };
    const struct mix__net_op *op = &w->net->ops[i];
    const struct mix__net_tensor *x = &w->net->tensors[op->in[0]], *y = &w->net->tensors[op->out];
    const struct mix__bounds b =
        y->bits ? mix__bounds_activation(y->bits, y->range) : (struct mix__bounds){ 0 };
    char name[MIX__NAME_MAX];
    fprintf(w->out, "\n/* %zu: %s, %s */\n", i, plain(name, op->name),
            mix__net_kind_name(op->kind));
    if (op->kind == MIX__NET_CONV)
        MIX_TRY(put_conv(w, op, i));
    if (op->kind == MIX__NET_MAXPOOL)
        fprintf(w->out, "static const struct maxpool op%zu = { %d, %d, %d, %d, %d, %d, %d, %d };\n",
                i, x->h, x->w, x->c, y->h, y->w, op->kernel, op->stride, op->pad);
    fprintf(w->out, "static const struct finish finish%zu = { %s, %d, %af, %af, %af, %af };\n", i,
            acts[op->act], y->bits > 0, y->bits ? (double)y->step : 1.0, (double)b.shift,
            (double)b.n, (double)b.p);
    return MIX_OK;
}

/* ---- functions ------------------------------------------------------------------------------ */

/* A section of c_kernels.c, from its title to the next one's. */
static void put_section(FILE *out, const char *title)
{
    char line[64];
    snprintf(line, sizeof line, "/* ==== %s ==== */\n", title);
    const char *from = strstr(kernels, line) + strlen(line), *to = strstr(from, "/* ==== ");
    fprintf(out, "%.*s", (int)(to - from), from);
}

static void put_kernels(struct writer *w)
{
    bool used[MIX__NET_KINDS] = { false };
    for (size_t i = 0; i < w->net->n_ops; i++)
        used[w->net->ops[i].kind] = true;
    put_section(w->out, "values");
    for (size_t kind = 0; kind < MIX__NET_KINDS; kind++)
        if (used[kind])
            put_section(w->out, mix__net_kind_name(kind));
}

/* "(const float *)(arena + 64)" */
static void put_place(struct writer *w, int tensor, bool constant)
{
    const struct mix__net_tensor *t = &w->net->tensors[tensor];
    if (tensor == 0)
        fprintf(w->out, "image");
    else if (tensor == w->net->output)
        fprintf(w->out, "logits");
    else
        fprintf(w->out, "(%s%s *)(void *)(arena + %zu)", constant ? "const " : "",
                t->bits ? "uint8_t" : "float", w->arena.offset[tensor]);
}

static void put_call(struct writer *w, size_t i)
{
    const struct mix__net_op *op = &w->net->ops[i];
    const struct mix__net_tensor *x = &w->net->tensors[op->in[0]];
    const size_t pixels = (size_t)x->h * (size_t)x->w;
    const bool has_shape = op->kind == MIX__NET_CONV || op->kind == MIX__NET_MAXPOOL;
    fprintf(w->out, "    %s(", mix__net_kind_name(op->kind));
    if (has_shape)
        fprintf(w->out, "&op%zu, ", i);
    fprintf(w->out, "&finish%zu, ", i);
    put_place(w, op->in[0], true);
    if (op->in[1] >= 0) {
        fprintf(w->out, ", ");
        put_place(w, op->in[1], true);
    }
    if (op->kind == MIX__NET_CONV)
        fprintf(w->out, ", (int8_t *)arena + %zu", w->arena.bytes);
    else if (op->kind == MIX__NET_MUL || op->kind == MIX__NET_AVGPOOL)
        fprintf(w->out, ", %zu, %d", pixels, x->c);
    else if (!has_shape)
        fprintf(w->out, ", %zu", mix__net_elements(x));
    fprintf(w->out, ", ");
    put_place(w, op->out, false);
    fprintf(w->out, ");\n");
}

/* ---- files ---------------------------------------------------------------------------------- */

static void put_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++)
        if (isprint((unsigned char)*text) && *text != '"' && *text != '\\' && *text != '?')
            fputc(*text, out);
        else
            fprintf(out, "\\%03o", (unsigned char)*text);
    fputc('"', out);
}

static void put_pixel_constants(struct writer *w)
{
    const struct mix__net *net = w->net;
    const int channels = net->tensors[0].c;
    const float *const values[] = { net->mean, net->deviation };
    static const char *const names[] = { "mean", "deviation" };
    for (size_t v = 0; v < 2; v++) {
        fprintf(w->out, "const float %s_%s[%d] = {", w->name, names[v], channels);
        for (int c = 0; c < channels; c++)
            fprintf(w->out, "%s%af", c ? ", " : " ", (double)values[v][c]);
        fprintf(w->out, " };\n");
    }
    if (!net->class_names)
        return;
    fprintf(w->out, "const char *const %s_class_names[%d] = {\n", w->name,
            net->tensors[net->output].c);
    for (size_t at = 0; at < net->class_names_bytes; at += strlen(net->class_names + at) + 1) {
        fprintf(w->out, "    ");
        put_text(w->out, net->class_names + at);
        fprintf(w->out, ",\n");
    }
    fprintf(w->out, "};\n");
}

static mix_status put_source(void *writer, FILE *out)
{
    struct writer *w = writer;
    const size_t arena = w->arena.bytes + w->scratch;
    char network[MIX__NAME_MAX];
    w->out = out;
    fprintf(w->out,
            "/*\n * %s.c - the integer network %s, written by metamix.\n *\n"
            " * %zu bytes of weights and %" PRIu64 " multiply-accumulates for an image.\n */\n"
            "#include \"%s.h\"\n\n#include <math.h>\n#include <stdint.h>\n\n",
            w->file, plain(network, w->net->name), w->weights, w->macs, w->file);
    put_kernels(w);
    put_pixel_constants(w);
    for (size_t i = 0; i < w->net->n_ops; i++)
        MIX_TRY(put_op(w, i));
    fprintf(w->out,
            "\n_Static_assert(%s_ARENA_BYTES == %zu && %s_CLASSES == %d, \"%s.h is of another "
            "export\");\n"
            "static _Alignas(64) uint8_t arena[%zu];\n\n"
            "void %s_run(const float *image, float *logits)\n{\n",
            w->upper, arena, w->upper, w->net->tensors[w->net->output].c, w->file, arena, w->name);
    for (size_t i = 0; i < w->net->n_ops; i++)
        put_call(w, i);
    fprintf(w->out, "}\n");
    return MIX_OK;
}

static mix_status put_header(void *writer, FILE *out)
{
    struct writer *w = writer;
    const struct mix__net_tensor *x = &w->net->tensors[0];
    const char *name = w->name, *upper = w->upper;
    char network[MIX__NAME_MAX];
    const int classes = w->net->tensors[w->net->output].c;
    w->out = out;
    fprintf(w->out,
            "/*\n * %s.h - the integer network %s, written by metamix.\n */\n"
            "#ifndef %s_H\n#define %s_H\n\n"
            "enum {\n    %s_HEIGHT = %d,\n    %s_WIDTH = %d,\n    %s_CHANNELS = %d,\n"
            "    %s_CLASSES = %d,\n    %s_ARENA_BYTES = %zu /* static memory, of %s.c */\n};\n\n"
            "extern const float %s_mean[%d], %s_deviation[%d];\n",
            w->file, plain(network, w->net->name), upper, upper, upper, x->h, upper, x->w, upper,
            x->c, upper, classes, upper, w->arena.bytes + w->scratch, w->file, name, x->c, name,
            x->c);
    if (w->net->class_names)
        fprintf(w->out, "extern const char *const %s_class_names[%d];\n", name, classes);
    fprintf(
        w->out,
        "\n/* image (height, width, channels), (byte / 255 - mean) / deviation; logits (classes) "
        "are\n * written. One call at a time. */\n"
        "void %s_run(const float *image, float *logits);\n\n#endif\n",
        name);
    return MIX_OK;
}

static mix_status write_both(struct writer *w, const char *path)
{
    mix_ctx *ctx = w->net->ctx;
    char *header = mix__strdup(ctx, path);
    if (!header)
        return MIX_ENOMEM;
    header[strlen(header) - 1] = 'h';
    mix_status status = mix__file_print(ctx, header, put_header, w);
    mix__free(ctx, header);
    if (status == MIX_OK)
        status = mix__file_print(ctx, path, put_source, w);
    if (status == MIX_OK)
        mix__log(
            ctx, MIX_LOG_INFO,
            "%s: constants %zu bytes (weights %zu, factors and offsets %zu), static memory %zu "
            "bytes, %.1f million multiply-accumulates",
            path, w->weights + w->factors, w->weights, w->factors, w->arena.bytes + w->scratch,
            1e-6 * (double)w->macs);
    return status;
}

mix_status mix__c_write(const struct mix__net *net, const char *path)
{
    struct writer w = { .net = net };
    mix_status status = take_name(&w, path);
    if (status == MIX_OK)
        status = measure(&w);
    if (status == MIX_OK)
        status = write_both(&w, path);
    mix__free(net->ctx, w.arena.offset);
    return status;
}
