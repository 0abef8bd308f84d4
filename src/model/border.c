/*
 * model/border.c - places of a convolution's output by the taps that lie inside the picture.
 */
#include "model/border.h"

#include "tensor/packed.h"

enum { CLASSES_MAX = 1 << 24 }; /* times channels */

/* Numbers the different sets of taps along one side of n places; gives how many there are. */
static int classify(const struct mix__border_shape *s, int side, int n, uint16_t *class,
                    struct mix__taps *taps)
{
    int n_classes = 0;
    for (int i = 0; i < n; i++) {
        const struct mix__taps t = mix__taps_at(s->kernel, s->stride, s->pad, side, i);
        int c = 0;
        while (c < n_classes && (taps[c].from != t.from || taps[c].to != t.to))
            c++;
        if (c == n_classes)
            taps[n_classes++] = t;
        class[i] = (uint16_t)c;
    }
    return n_classes;
}

mix_status mix__border_make(struct mix__border *b, mix_ctx *ctx, const struct mix__border_shape *s)
{
    const size_t rows = (size_t)s->oh, cols = (size_t)s->ow;
    *b = (struct mix__border){
        .ctx = ctx,
        .ow = s->ow,
        .row_class = mix__alloc(ctx, rows, sizeof *b->row_class),
        .col_class = mix__alloc(ctx, cols, sizeof *b->col_class),
        .row_taps = mix__alloc(ctx, rows, sizeof *b->row_taps),
        .col_taps = mix__alloc(ctx, cols, sizeof *b->col_taps),
    };
    if (!b->row_class || !b->col_class || !b->row_taps || !b->col_taps) {
        mix__border_release(b);
        return MIX_ENOMEM;
    }
    b->n_cols = classify(s, s->w, s->ow, b->col_class, b->col_taps);
    b->n = b->n_cols * classify(s, s->h, s->oh, b->row_class, b->row_taps);
    return MIX_OK;
}

void mix__border_release(struct mix__border *b)
{
    if (b->ctx) {
        mix__free(b->ctx, b->row_class);
        mix__free(b->ctx, b->col_class);
        mix__free(b->ctx, b->row_taps);
        mix__free(b->ctx, b->col_taps);
    }
    *b = (struct mix__border){ 0 };
}

static int class_of(const struct mix__border *b, size_t place)
{
    return b->row_class[place / (size_t)b->ow] * b->n_cols + b->col_class[place % (size_t)b->ow];
}

size_t mix__border_run(const struct mix__border *b, size_t from, size_t end, int *class)
{
    *class = 0;
    if (b->n <= 1)
        return end;
    *class = class_of(b, from);
    size_t i = from + 1;
    while (i < end && class_of(b, i) == *class)
        i++;
    return i;
}

static int64_t sum_inside(const int32_t *tap_sum, int kernel, struct mix__taps rows,
                          struct mix__taps cols)
{
    int64_t sum = 0;
    for (int r = rows.from; r < rows.to; r++)
        for (int s = cols.from; s < cols.to; s++)
            sum += tap_sum[r * kernel + s];
    return sum;
}

void mix__border_offsets(const struct mix__border *b, float *offset,
                         const struct mix__border_layer *l)
{
    const size_t taps = (size_t)l->kernel * (size_t)l->kernel;
    for (int i = 0; i < b->n; i++)
        for (size_t k = 0; k < l->channels; k++) {
            const int64_t sum = sum_inside(l->tap_sum + k * taps, l->kernel,
                                           b->row_taps[i / b->n_cols], b->col_taps[i % b->n_cols]);
            *offset++ = (float)((double)l->offset[k] -
                                l->shift / l->step * (double)l->scale[k] * (double)sum);
        }
}

static mix_status fill_offsets(const struct mix__border *b, float *offset,
                               const struct mix__net *net, const struct mix__net_op *op)
{
    const struct mix__net_tensor *x = &net->tensors[op->in[0]];
    const size_t n = mix__net_weights(net, op), depth = (size_t)(x->c / op->groups);
    int8_t *codes = mix__alloc(net->ctx, n, 1);
    int32_t *tap_sum = mix__zalloc(net->ctx, n / depth, sizeof *tap_sum);
    const bool whole = codes && tap_sum;
    if (whole) {
        mix__codes_unpack(codes, op->weights, n, op->weight_bits);
        for (size_t i = 0; i < n; i++)
            tap_sum[i / depth] += codes[i];
        const struct mix__border_layer layer = {
            .kernel = op->kernel,
            .channels = (size_t)net->tensors[op->out].c,
            .tap_sum = tap_sum,
            .shift = mix__bounds_activation(x->bits, x->range).shift,
            .step = x->step,
            .scale = op->scale,
            .offset = op->offset
        };
        mix__border_offsets(b, offset, &layer);
    }
    mix__free(net->ctx, codes);
    mix__free(net->ctx, tap_sum);
    return whole ? MIX_OK : MIX_ENOMEM;
}

mix_status mix__border_of(struct mix__border *b, float **offset, const struct mix__net *net,
                          const struct mix__net_op *op)
{
    const struct mix__net_tensor *x = &net->tensors[op->in[0]], *y = &net->tensors[op->out];
    const struct mix__border_shape shape = {
        op->kernel, op->stride, op->pad, x->h, x->w, y->h, y->w
    };
    mix_status status = MIX_ENOMEM;
    *offset = NULL;
    MIX_TRY(mix__border_make(b, net->ctx, &shape));
    if ((size_t)b->n * (size_t)y->c > CLASSES_MAX)
        status = mix__fail(net->ctx, MIX_EUNSUPPORTED,
                           "layer '%s': %d kinds of border for %d channels are too many", op->name,
                           b->n, y->c);
    else if ((*offset = mix__alloc(net->ctx, (size_t)b->n * (size_t)y->c, sizeof **offset)))
        status = fill_offsets(b, *offset, net, op);
    if (status == MIX_OK)
        return MIX_OK;
    mix__border_release(b);
    mix__free(net->ctx, *offset);
    *offset = NULL;
    return status;
}
