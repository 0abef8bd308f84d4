/*
 * format/onnx_shape.c - what reshapes, and the whole numbers that say how.
 */
#include <string.h>

#include "format/onnx_walk.h"

/* ---- axes ---- */

mix_status mix__onnx_axes(const struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                          int64_t input_since, int rank, int64_t *axes, size_t *n)
{
    const struct mix__onnx_ints ints = mix__onnx_ints(node, "axes");
    *n = 0;
    if (w->file->opset >= input_since && mix__onnx_in(w, node, 1)) {
        MIX_TRY(mix__onnx_numbers_in(w, node, 1, axes, n));
    } else if (ints.n > MIX__ONNX_RANK_MAX) {
        return mix__onnx_refuse(w->file, node, "%zu axes", ints.n);
    } else if (ints.n) {
        memcpy(axes, ints.at, ints.n * sizeof *axes);
        *n = ints.n;
    }
    for (size_t i = 0; i < *n; i++)
        axes[i] += axes[i] < 0 ? rank : 0;
    return MIX_OK;
}

bool mix__onnx_is_picture(const int64_t *axes, size_t n)
{
    return n == 2 && ((axes[0] == 2 && axes[1] == 3) || (axes[0] == 3 && axes[1] == 2));
}

/* ---- tensors ---- */

mix_status mix__onnx_flat(struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                          struct mix__onnx_value *v)
{
    const struct mix__tensor *t = &w->graph->tensors[v->tensor];
    char name[MIX__NAME_MAX];
    if (v->rank == 2)
        return MIX_OK;
    if (t->h != 1 || t->w != 1)
        return mix__onnx_refuse(w->file, node,
                                "it flattens %dx%d pixels; expected one, behind a pool over the "
                                "whole picture",
                                t->h, t->w);
    mix__onnx_name(w, node, NULL, ".flat", name);
    v->tensor = mix__graph_unary(w->graph, MIX__OP_FLATTEN, name, v->tensor);
    v->rank = 2;
    return w->graph->failed;
}

static mix_status put_flat(struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                           const struct mix__onnx_value *x)
{
    struct mix__onnx_value y = *x;
    MIX_TRY(mix__onnx_flat(w, node, &y));
    return mix__onnx_put_like(w, node, y.tensor, &y);
}

static mix_status put_rank4(struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                            const struct mix__onnx_value *x)
{
    struct mix__onnx_value y = *x;
    y.rank = 4;
    return mix__onnx_put_like(w, node, y.tensor, &y);
}

mix_status mix__onnx_flatten(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct mix__onnx_value *x;
    MIX_TRY(mix__onnx_tensor_in(w, node, 0, &x));
    const int64_t axis = mix__onnx_int(node, "axis", 1);
    if (axis != 1 && axis != 1 - x->rank)
        return mix__onnx_refuse(w->file, node, "axis %lld; expected 1", (long long)axis);
    return put_flat(w, node, x);
}

/* The first dimension is that of the images, and the others are dims; -1 and 0 are resolved. */
static bool shape_is(const struct mix__onnx_walk *w, const int64_t *shape, size_t n,
                     const int64_t *dims)
{
    if (shape[0] != MIX__ONNX_BATCH && shape[0] != -1 && shape[0] != 0 &&
        (shape[0] != w->batch || w->batch < 1))
        return false;
    int open = shape[0] == -1;
    for (size_t i = 1; i < n; i++) {
        open += shape[i] == -1;
        if (shape[i] != dims[i - 1] && shape[i] != -1)
            return false;
    }
    return open <= 1;
}

mix_status mix__onnx_reshape(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct mix__onnx_value *x;
    int64_t shape[MIX__ONNX_RANK_MAX];
    size_t n;
    MIX_TRY(mix__onnx_tensor_in(w, node, 0, &x));
    MIX_TRY(mix__onnx_numbers_in(w, node, 1, shape, &n));
    const struct mix__tensor *t = &w->graph->tensors[x->tensor];
    const int64_t dims[3] = { t->c, t->h, t->w }, all = (int64_t)t->c * t->h * t->w;
    for (size_t i = 1; i < n && i < (size_t)x->rank && !mix__onnx_int(node, "allowzero", 0); i++)
        shape[i] = shape[i] == 0 ? dims[i - 1] : shape[i];
    if (n == 2 && shape_is(w, shape, n, &all))
        return put_flat(w, node, x);
    if (n == 4 && shape_is(w, shape, n, dims))
        return put_rank4(w, node, x);
    return mix__onnx_refuse(
        w->file, node, "expected a shape of the images and the %d channels (of 1x1 pixels)", t->c);
}

mix_status mix__onnx_squeeze(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct mix__onnx_value *x = mix__onnx_in(w, node, 0);
    int64_t axes[MIX__ONNX_RANK_MAX];
    size_t n;
    if (x && x->kind == MIX__ONNX_NUMBERS)
        return mix__onnx_put(w, node, *x);
    MIX_TRY(mix__onnx_tensor_in(w, node, 0, &x));
    MIX_TRY(mix__onnx_axes(w, node, 13, x->rank, axes, &n));
    if (n && !mix__onnx_is_picture(axes, n))
        return mix__onnx_refuse(w->file, node, "expected height and width as its axes");
    return put_flat(w, node, x);
}

mix_status mix__onnx_unsqueeze(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct mix__onnx_value *x = mix__onnx_in(w, node, 0);
    int64_t axes[MIX__ONNX_RANK_MAX];
    size_t n;
    if (x && x->kind == MIX__ONNX_NUMBERS)
        return mix__onnx_put(w, node, *x);
    MIX_TRY(mix__onnx_tensor_in(w, node, 0, &x));
    MIX_TRY(mix__onnx_axes(w, node, 13, 4, axes, &n));
    if (x->rank != 2 || !mix__onnx_is_picture(axes, n))
        return mix__onnx_refuse(w->file, node, "expected height and width as its axes");
    return put_rank4(w, node, x);
}

/* The image with its channels last becomes what the graph reads anyway. */
mix_status mix__onnx_transpose(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    const struct mix__onnx_value *x = mix__onnx_in(w, node, 0);
    const struct mix__onnx_ints p = mix__onnx_ints(node, "perm");
    if (!x || !x->channels_last || p.n != 4 || p.at[0] != 0 || p.at[1] != 3 || p.at[2] != 1 ||
        p.at[3] != 2)
        return mix__onnx_refuse(w->file, node,
                                "expected one of the image alone, from channels last to first");
    return mix__onnx_put_like(w, node, x->tensor, x);
}

mix_status mix__onnx_identity(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    const struct mix__onnx_value *x = mix__onnx_in(w, node, 0);
    if (!x)
        return mix__onnx_refuse(w->file, node, "its input is missing");
    const struct mix__onnx_name *from = mix__onnx_find(w->file, x->name);
    struct mix__onnx_value y = *x;
    y.open_bias = from && from->n_consumers == 1 ? x->open_bias : -1;
    return mix__onnx_put(w, node, y);
}

/* From one type of floats to another, or of whole numbers: all are floats and int64 here. */
mix_status mix__onnx_cast(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    const struct mix__onnx_value *x = mix__onnx_in(w, node, 0);
    const bool whole = x && (x->kind == MIX__ONNX_NUMBERS ||
                             (x->kind == MIX__ONNX_CONSTANT && mix__onnx_is_integers(x->constant)));
    const int64_t to = mix__onnx_int(node, "to", 0);
    if (x && !whole && !mix__onnx_is_float(to))
        return mix__onnx_refuse(w->file, node, "floats become type %lld; expected a type of floats",
                                (long long)to);
    return mix__onnx_identity(w, node);
}

/* Probabilities are left to the loss. */
mix_status mix__onnx_softmax(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct mix__onnx_value *x;
    MIX_TRY(mix__onnx_tensor_in(w, node, 0, &x));
    if (strcmp(node->n_output ? node->output[0] : "", w->file->output->name) != 0)
        return mix__onnx_refuse(w->file, node, "it is read at the end only, where it is left out");
    mix__log(w->file->ctx, MIX_LOG_INFO, "%s: the softmax at the end is left out", w->file->path);
    return mix__onnx_put_like(w, node, x->tensor, x);
}

/* ---- constants and whole numbers ---- */

mix_status mix__onnx_constant(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    const Onnx__AttributeProto *a = node->n_attribute == 1 ? node->attribute[0] : NULL;
    const char *name = a ? mix__onnx_text(a->name) : "";
    struct mix__onnx_value v = { .kind = MIX__ONNX_NUMBERS, .n = 1 };
    if (strcmp(name, "value") == 0 && a->t) {
        v.kind = MIX__ONNX_CONSTANT;
        v.constant = a->t;
    } else if (strcmp(name, "value_float") == 0) {
        v.kind = MIX__ONNX_NUMBER;
        v.number = a->f;
    } else if (strcmp(name, "value_int") == 0) {
        v.at[0] = a->i;
    } else if (strcmp(name, "value_ints") == 0 && a->n_ints <= MIX__ONNX_RANK_MAX) {
        v.n = a->n_ints;
        for (size_t i = 0; i < v.n; i++)
            v.at[i] = a->ints[i];
    } else {
        return mix__onnx_refuse(w->file, node, "expected a tensor, a float or a few whole numbers");
    }
    return mix__onnx_put(w, node, v);
}

static void cut(struct mix__onnx_value *v, int64_t from, int64_t to)
{
    const int64_t n = (int64_t)v->n;
    from = from < -n ? 0 : from < 0 ? from + n : from;
    to = to < -n ? 0 : to < 0 ? to + n : to < n ? to : n;
    v->n = from < to ? (size_t)(to - from) : 0;
    memmove(v->at, v->at + (v->n ? from : 0), v->n * sizeof *v->at);
}

mix_status mix__onnx_shape(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct mix__onnx_value *x;
    MIX_TRY(mix__onnx_tensor_in(w, node, 0, &x));
    const struct mix__tensor *t = &w->graph->tensors[x->tensor];
    struct mix__onnx_value v = { .kind = MIX__ONNX_NUMBERS,
                                 .at = { MIX__ONNX_BATCH, t->c, t->h, t->w },
                                 .n = (size_t)x->rank };
    cut(&v, mix__onnx_int(node, "start", 0), mix__onnx_int(node, "end", 4));
    return mix__onnx_put(w, node, v);
}

/* An input of whole numbers, to be changed and put. */
static mix_status numbers_value(const struct mix__onnx_walk *w, const Onnx__NodeProto *node,
                                struct mix__onnx_value *v)
{
    *v = (struct mix__onnx_value){ .kind = MIX__ONNX_NUMBERS };
    return mix__onnx_numbers_in(w, node, 0, v->at, &v->n);
}

mix_status mix__onnx_gather(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct mix__onnx_value v;
    int64_t index[MIX__ONNX_RANK_MAX];
    size_t n;
    MIX_TRY(numbers_value(w, node, &v));
    MIX_TRY(mix__onnx_numbers_in(w, node, 1, index, &n));
    struct mix__onnx_value y = { .kind = MIX__ONNX_NUMBERS, .n = n };
    for (size_t i = 0; i < n; i++) {
        const int64_t at = index[i] < 0 ? index[i] + (int64_t)v.n : index[i];
        if (at < 0 || at >= (int64_t)v.n)
            return mix__onnx_refuse(w->file, node, "index %lld of %zu numbers", (long long)index[i],
                                    v.n);
        y.at[i] = v.at[at];
    }
    return mix__onnx_put(w, node, y);
}

mix_status mix__onnx_concat(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct mix__onnx_value v = { .kind = MIX__ONNX_NUMBERS };
    for (size_t i = 0; i < node->n_input; i++) {
        const struct mix__onnx_value *x = mix__onnx_in(w, node, i);
        int64_t more[MIX__ONNX_RANK_MAX];
        size_t n;
        if (x && x->kind >= MIX__ONNX_TENSOR)
            return mix__onnx_refuse(w->file, node, "joining tensors is not supported");
        MIX_TRY(mix__onnx_numbers_in(w, node, i, more, &n));
        if (v.n + n > MIX__ONNX_RANK_MAX)
            return mix__onnx_refuse(w->file, node, "more than %d numbers", MIX__ONNX_RANK_MAX);
        memcpy(v.at + v.n, more, n * sizeof *more);
        v.n += n;
    }
    return mix__onnx_put(w, node, v);
}

mix_status mix__onnx_slice(struct mix__onnx_walk *w, const Onnx__NodeProto *node)
{
    struct mix__onnx_value v;
    int64_t from[MIX__ONNX_RANK_MAX], to[MIX__ONNX_RANK_MAX], step[MIX__ONNX_RANK_MAX] = { 1 };
    size_t n_from, n_to, n_step = 1;
    MIX_TRY(numbers_value(w, node, &v));
    if (w->file->opset < 10) {
        const struct mix__onnx_ints starts = mix__onnx_ints(node, "starts");
        const struct mix__onnx_ints ends = mix__onnx_ints(node, "ends");
        n_from = starts.n;
        n_to = ends.n;
        from[0] = n_from ? starts.at[0] : 0;
        to[0] = n_to ? ends.at[0] : 0;
    } else {
        MIX_TRY(mix__onnx_numbers_in(w, node, 1, from, &n_from));
        MIX_TRY(mix__onnx_numbers_in(w, node, 2, to, &n_to));
        if (mix__onnx_in(w, node, 4))
            MIX_TRY(mix__onnx_numbers_in(w, node, 4, step, &n_step));
    }
    if (n_from != 1 || n_to != 1 || n_step != 1 || step[0] != 1)
        return mix__onnx_refuse(w->file, node, "expected one range with step 1");
    cut(&v, from[0], to[0]);
    return mix__onnx_put(w, node, v);
}
