/*
 * model/net.c - an integer network's life, and the check that it fits together: nothing that reads
 * a checked net has to look again.
 */
#include "model/net.h"

#include <math.h>

void mix__net_free(struct mix__net *net)
{
    if (!net)
        return;
    for (size_t i = 0; i < net->n_blocks; i++)
        mix__free(net->ctx, net->blocks[i]);
    mix__free(net->ctx, net->blocks);
    mix__free(net->ctx, net->tensors);
    mix__free(net->ctx, net->ops);
    mix__free(net->ctx, net);
}

void *mix__net_block(struct mix__net *net, size_t n, size_t size)
{
    if (mix__grow(net->ctx, &net->blocks, net->n_blocks, &net->cap_blocks, sizeof *net->blocks) !=
        MIX_OK)
        return NULL;
    void *block = mix__alloc(net->ctx, n, size);
    if (block)
        net->blocks[net->n_blocks++] = block;
    return block;
}

const char *mix__net_kind_name(enum mix__net_kind kind)
{
    static const char *const names[MIX__NET_KINDS] = {
        [MIX__NET_IDENTITY] = "identity", [MIX__NET_CONV] = "conv",
        [MIX__NET_ADD] = "add",           [MIX__NET_MUL] = "mul",
        [MIX__NET_MAXPOOL] = "maxpool",   [MIX__NET_AVGPOOL] = "avgpool",
    };
    return names[kind];
}

size_t mix__net_taps(const struct mix__net *net, const struct mix__net_op *op)
{
    return (size_t)(net->tensors[op->in[0]].c / op->groups) * (size_t)op->kernel *
           (size_t)op->kernel;
}

/* ---- checks --------------------------------------------------------------------------------- */

struct checker {
    const struct mix__net *net;
    const char *what;
    size_t op; /* the one being looked at */
};

static mix_status refuse(const struct checker *c, mix_status status, const char *problem)
{
    return mix__fail(c->net->ctx, status, "%s: operator %zu ('%.95s'): %s", c->what, c->op,
                     c->net->ops[c->op].name, problem);
}

static bool between(int v, int low, int high)
{
    return v >= low && v <= high;
}

static mix_status check_tensor(const struct mix__net *net, size_t index, const char *what)
{
    const struct mix__net_tensor *t = &net->tensors[index];
    if (!between(t->h, 1, MIX__NET_SIDE_MAX) || !between(t->w, 1, MIX__NET_SIDE_MAX) ||
        !between(t->c, 1, MIX__NET_SIDE_MAX) || mix__net_elements(t) > MIX__NET_ELEMENTS_MAX)
        return mix__fail(net->ctx, MIX_EUNSUPPORTED,
                         "%s: tensor %zu has the shape %dx%dx%d; expected sides of 1 to %d and at "
                         "most %d elements",
                         what, index, t->h, t->w, t->c, MIX__NET_SIDE_MAX, MIX__NET_ELEMENTS_MAX);
    if (t->bits == 0)
        return MIX_OK;
    if (!between(t->bits, MIX_BITS_MIN, MIX_BITS_MAX) ||
        !between((int)t->range, MIX_RANGE_SIGNED, MIX_RANGE_SHIFTED) || !isfinite(t->step) ||
        t->step < MIX__STEP_MIN)
        return mix__fail(net->ctx, MIX_EFORMAT,
                         "%s: tensor %zu has %d bits, range %d, step %g; expected 2 to 8 bits, a "
                         "range of 0 to 2 and a step of at least %g",
                         what, index, t->bits, (int)t->range, (double)t->step,
                         (double)MIX__STEP_MIN);
    return MIX_OK;
}

/* Sides of what a window makes of a picture; -1: it does not fit. */
static int window_side(int side, const struct mix__net_op *op)
{
    const int reach = op->kernel - op->pad - op->pad_end;
    return side < reach ? -1 : (side - reach) / op->stride + 1;
}

/* Padding below the kernel's side leaves a pixel in every window. */
static mix_status check_window(const struct checker *c, const struct mix__net_op *op,
                               const struct mix__net_tensor *x, const struct mix__net_tensor *y)
{
    if (!between(op->kernel, 1, MIX__WINDOW_MAX) || !between(op->stride, 1, MIX__WINDOW_MAX) ||
        !between(op->pad, 0, op->kernel - 1) || !between(op->pad_end, 0, op->kernel - 1))
        return refuse(c, MIX_EFORMAT, "a kernel, stride or padding is out of range");
    if (window_side(x->h, op) != y->h || window_side(x->w, op) != y->w)
        return refuse(c, MIX_EFORMAT,
                      "the output's shape is not what kernel, stride and padding make");
    return MIX_OK;
}

static mix_status check_conv(const struct checker *c, const struct mix__net_op *op)
{
    const struct mix__net_tensor *x = &c->net->tensors[op->in[0]], *y = &c->net->tensors[op->out];
    MIX_TRY(check_window(c, op, x, y));
    if (!between(op->groups, 1, x->c) || x->c % op->groups || y->c % op->groups)
        return refuse(c, MIX_EFORMAT, "the groups do not divide the channels");
    if (!between(op->weight_bits, MIX_BITS_MIN, MIX_BITS_MAX))
        return refuse(c, MIX_EFORMAT, "expected weights of 2 to 8 bits");
    if (op->kernel > MIX__NET_TAPS_MAX / op->kernel ||
        mix__net_taps(c->net, op) > MIX__NET_TAPS_MAX)
        return refuse(c, MIX_EUNSUPPORTED, "too many products in a sum for 32 bits");
    for (int k = 0; k < y->c; k++)
        if (!isfinite(op->scale[k]) || !isfinite(op->offset[k]))
            return refuse(c, MIX_EFORMAT, "a factor or offset is not finite");
    return MIX_OK;
}

static bool same_shape(const struct mix__net_tensor *a, const struct mix__net_tensor *b)
{
    return a->h == b->h && a->w == b->w && a->c == b->c;
}

static bool one_pixel(const struct mix__net_tensor *t)
{
    return t->h == 1 && t->w == 1;
}

static mix_status check_op(const struct checker *c, const struct mix__net_op *op)
{
    const struct mix__net *net = c->net;
    const struct mix__net_tensor *x = &net->tensors[op->in[0]], *y = &net->tensors[op->out];
    const struct mix__net_tensor *second = op->in[1] < 0 ? NULL : &net->tensors[op->in[1]];
    if ((op->kind == MIX__NET_CONV) != (x->bits != 0) || (second && second->bits))
        return refuse(c, MIX_EFORMAT, "convolutions read codes, everything else reads floats");
    if (op->kind != MIX__NET_CONV && x->c != y->c)
        return refuse(c, MIX_EFORMAT, "the number of channels changes");
    switch (op->kind) {
    case MIX__NET_CONV:
        return check_conv(c, op);
    case MIX__NET_MAXPOOL:
        return check_window(c, op, x, y);
    case MIX__NET_AVGPOOL:
        if (!one_pixel(y))
            return refuse(c, MIX_EFORMAT, "an average pool's output is one pixel");
        return MIX_OK;
    case MIX__NET_MUL:
        if (!same_shape(x, y) || !one_pixel(second) || second->c != x->c)
            return refuse(c, MIX_EFORMAT, "a gate has one value for each channel");
        return MIX_OK;
    default:
        if (!same_shape(x, y) || (second && !same_shape(x, second)))
            return refuse(c, MIX_EFORMAT, "the shapes differ");
        return MIX_OK;
    }
}

/* Indices first: each tensor is written once, before it is read. */
static mix_status check_edges(const struct checker *c, const struct mix__net_op *op, bool *written)
{
    const int n = (int)c->net->n_tensors;
    const bool two = op->kind == MIX__NET_ADD || op->kind == MIX__NET_MUL;
    if (!between((int)op->kind, 0, MIX__NET_KINDS - 1) || !between((int)op->act, 0, MIX__ACTS - 1))
        return refuse(c, MIX_EFORMAT, "an operator or activation that this version does not know");
    if (!between(op->in[0], 0, n - 1) || !between(op->in[1], two ? 0 : -1, two ? n - 1 : -1) ||
        !between(op->out, 1, n - 1))
        return refuse(c, MIX_EFORMAT, "reads or writes a tensor that does not exist");
    if (!written[op->in[0]] || (two && !written[op->in[1]]) || written[op->out])
        return refuse(c, MIX_EFORMAT, "a tensor is read before it is written, or written twice");
    written[op->out] = true;
    return MIX_OK;
}

static mix_status check_ops(const struct mix__net *net, const char *what, bool *written)
{
    struct checker c = { net, what, 0 };
    written[0] = true;
    for (c.op = 0; c.op < net->n_ops; c.op++) {
        MIX_TRY(check_edges(&c, &net->ops[c.op], written));
        MIX_TRY(check_op(&c, &net->ops[c.op]));
    }
    if (!between(net->output, 1, (int)net->n_tensors - 1) || !written[net->output] ||
        net->tensors[net->output].bits || !one_pixel(&net->tensors[net->output]))
        return mix__fail(net->ctx, MIX_EFORMAT,
                         "%s: tensor %d cannot be the output: expected one pixel of floats, "
                         "written by an operator",
                         what, net->output);
    return MIX_OK;
}

static mix_status check_image(const struct mix__net *net, const char *what)
{
    if (net->n_tensors < 2 || net->tensors[0].bits)
        return mix__fail(net->ctx, MIX_EFORMAT, "%s: expected a float image as tensor 0", what);
    for (int i = 0; i < net->tensors[0].c; i++)
        if (!isfinite(net->mean[i]) || !isfinite(net->deviation[i]) || net->deviation[i] <= 0.0f)
            return mix__fail(net->ctx, MIX_EFORMAT,
                             "%s: channel %d of the image: mean %g, deviation %g; expected finite "
                             "numbers and a deviation above 0",
                             what, i, (double)net->mean[i], (double)net->deviation[i]);
    return MIX_OK;
}

mix_status mix__net_check(const struct mix__net *net, const char *what)
{
    if (net->n_tensors > MIX__NET_COUNT_MAX || net->n_ops > MIX__NET_COUNT_MAX)
        return mix__fail(net->ctx, MIX_EUNSUPPORTED,
                         "%s: %zu tensors, %zu operators; at most %d are supported", what,
                         net->n_tensors, net->n_ops, MIX__NET_COUNT_MAX);
    for (size_t t = 0; t < net->n_tensors; t++)
        MIX_TRY(check_tensor(net, t, what));
    MIX_TRY(check_image(net, what));
    bool *written = mix__zalloc(net->ctx, net->n_tensors, sizeof *written);
    if (!written)
        return MIX_ENOMEM;
    const mix_status status = check_ops(net, what, written);
    mix__free(net->ctx, written);
    return status;
}
