/*
 * runtime/run_conv.c - convolutions and linear layers on codes.
 *
 *   dense       tiles of MIX__TILE places: the codes under each kernel position are gathered to one
 *               row (unless they are one already), rows times weights give sums, MIX__TILE_K
 *               channels at a time, and sums become values or codes while they are in the cache
 *   depthwise   for places of a row, pointers to the pixels of their columns; outside of the
 *               picture, to a row of the stored zero
 */
#include <string.h>

#include "runtime/runtime_inside.h"
#include "tensor/packed.h"

/* ---- planning ------------------------------------------------------------------------------- */

static struct mix__taps taps_at(const struct mix__net_op *op, int side, int place)
{
    return mix__taps_at(op->kernel, op->stride, op->pad, side, place);
}

static int unpack_weights(const struct mix__net *net, const struct mix__net_op *op, int8_t *codes)
{
    const size_t n = mix__net_weights(net, op);
    const int lowest = -(1 << (op->weight_bits - 1));
    mix__codes_unpack(codes, op->weights, n, op->weight_bits);
    for (size_t i = 0; i < n; i++)
        if (codes[i] == lowest)
            return -1;
    return 0;
}

/* Weights as the kernels read them, and what the sums start from. */
static mix_status pack(mix_runtime *rt, struct mix__step_plan *s, const int8_t *codes)
{
    struct mix__conv_plan *p = &s->conv;
    const size_t groups = p->depthwise ? 1 : (size_t)s->op->groups;
    const size_t channels = (size_t)s->y->c / groups, taps = mix__net_taps(rt->net, s->op);
    const size_t bytes = p->depthwise
                             ? rt->kernels.depthwise_packed((size_t)s->op->kernel, channels)
                             : p->k * p->depth;
    p->weights = mix__alloc(rt->ctx, groups, bytes);
    p->start = mix__zalloc(rt->ctx, groups * p->k, sizeof *p->start);
    if (!p->weights || !p->start)
        return MIX_ENOMEM;
    rt->weight_bytes += groups * bytes;
    if (p->depthwise)
        rt->kernels.depthwise_pack(p->weights, codes, (size_t)s->op->kernel, channels);
    for (size_t g = 0; g < groups; g++) {
        const int8_t *from = codes + g * channels * taps;
        if (!p->depthwise)
            mix__gemm_pack(p->weights + g * bytes, from, channels, taps);
        for (size_t k = 0; k < channels; k++)
            for (size_t t = 0; t < taps; t++)
                p->start[g * p->k + k] -= p->zero * from[k * taps + t];
    }
    return MIX_OK;
}

static void choose(struct mix__step_plan *s, size_t taps)
{
    struct mix__conv_plan *p = &s->conv;
    const struct mix__net_op *op = s->op;
    const struct mix__bounds x = mix__bounds_activation(s->x->bits, s->x->range);
    const int w_max = (int)mix__bounds_weight(op->weight_bits).p, x_max = (int)(x.p - x.n);
    p->depthwise = mix__is_depthwise(op->groups, s->x->c, s->y->c);
    p->direct = !p->depthwise && op->kernel == 1 && op->stride == 1 && op->groups == 1 &&
                s->x->c % MIX__QUAD == 0;
    p->depth = p->depthwise ? 0 : mix__round_up(taps, MIX__QUAD);
    p->k =
        p->depthwise ? (size_t)s->y->c : mix__round_up((size_t)(s->y->c / op->groups), MIX__PANEL);
    p->runs = p->depthwise ? mix__depthwise_runs(x_max, w_max) : mix__gemm_runs(x_max, w_max);
    p->zero = (uint8_t)-x.n;
    p->offset = op->offset;
}

mix_status mix__conv_plan(mix_runtime *rt, struct mix__step_plan *s, const char *path)
{
    const size_t n = mix__net_weights(rt->net, s->op);
    choose(s, mix__net_taps(rt->net, s->op));
    int8_t *codes = mix__alloc(rt->ctx, n, 1);
    if (!codes)
        return MIX_ENOMEM;
    mix_status status;
    if (unpack_weights(rt->net, s->op, codes) != 0)
        status = mix__fail(
            rt->ctx, MIX_EFORMAT, "%s: layer '%s': a weight code of %d; expected at least %d", path,
            s->op->name, -(1 << (s->op->weight_bits - 1)), 1 - (1 << (s->op->weight_bits - 1)));
    else
        status = pack(rt, s, codes);
    mix__free(rt->ctx, codes);
    if (status != MIX_OK || s->x->range != MIX_RANGE_SHIFTED)
        return status;
    float *offset;
    MIX_TRY(mix__border_of(&s->conv.border, &offset, rt->net, s->op));
    s->conv.offset = offset;
    return MIX_OK;
}

/* ---- running -------------------------------------------------------------------------------- */

/* One running convolution, in one thread. */
struct run {
    const mix_runtime *rt;
    const struct mix__step_plan *s;
    const struct mix__scratch *scratch;
    const uint8_t *x;
    void *y;
};

/* Sums of places [from, from + n), channels [k, k + n_k), to values or codes: as long as the
 * offsets are the same, in one go. */
static void finish(const struct run *r, size_t from, size_t n, size_t k, size_t n_k, size_t stride)
{
    const struct mix__step_plan *s = r->s;
    const size_t channels = (size_t)s->y->c;
    for (size_t i = 0, end; i < n; i = end) {
        int class;
        end = mix__border_run(&s->conv.border, from + i, from + n, &class) - from;
        const struct mix__sums sums = { .acc = r->scratch->sums + i * stride,
                                        .rows = end - i,
                                        .n = n_k,
                                        .acc_stride = stride,
                                        .y_stride = channels,
                                        .scale = s->op->scale + k,
                                        .offset = s->conv.offset + (size_t) class * channels + k };
        r->rt->kernels.sums(mix__element(r->y, s->y, (from + i) * channels + k), &sums, &s->finish);
    }
}

/* memcpy() without a call for the few bytes of an image's kernel row. */
static inline void copy(uint8_t *to, const uint8_t *from, size_t n)
{
    if (n < 8 || n > 16) {
        memcpy(to, from, n);
        return;
    }
    memcpy(to, from, 8);
    memcpy(to + n - 8, from + n - 8, 8);
}

/* The codes of one group under the kernel at a place, (r, s, c / groups), in one row; what is
 * behind them, up to the depth, has weights of 0. */
static void gather(const struct run *r, uint8_t *to, size_t place, size_t group)
{
    const struct mix__net_op *op = r->s->op;
    const struct mix__net_tensor *x = r->s->x;
    const int zero = r->s->conv.zero;
    const size_t c = (size_t)(x->c / op->groups), row = (size_t)op->kernel * c;
    const int oh = (int)place / r->s->y->w, ow = (int)place % r->s->y->w; /* quicker than 64 bits */
    const struct mix__taps rows = taps_at(op, x->h, oh), cols = taps_at(op, x->w, ow);
    const int top = oh * op->stride - op->pad, left = ow * op->stride - op->pad;
    const bool whole = op->groups == 1 && cols.to - cols.from == op->kernel;
    for (int i = 0; i < op->kernel; i++, to += row) {
        if (i < rows.from || i >= rows.to) {
            memset(to, zero, row);
            continue;
        }
        const size_t before = (size_t)cols.from * c, inside = (size_t)(cols.to - cols.from);
        const uint8_t *from =
            r->x + ((size_t)(top + i) * (size_t)x->w + (size_t)(left + cols.from)) * (size_t)x->c +
            group * c;
        if (whole) {
            copy(to, from, row);
            continue;
        }
        memset(to, zero, before);
        if (op->groups == 1)
            memcpy(to + before, from, inside * c);
        else
            for (size_t j = 0; j < inside; j++)
                memcpy(to + before + j * c, from + j * (size_t)x->c, c);
        memset(to + before + inside * c, zero, row - before - inside * c);
    }
}

/* Places [from, from + n), n <= MIX__TILE, channels [k0, k1) of one group. */
static void dense_tile(const struct run *r, size_t from, size_t n, size_t group, size_t k0,
                       size_t k1)
{
    const struct mix__conv_plan *p = &r->s->conv;
    const size_t per_group = (size_t)(r->s->y->c / r->s->op->groups);
    const uint8_t *rows = r->x + from * p->depth;
    if (!p->direct) {
        for (size_t i = 0; i < n; i++)
            gather(r, r->scratch->rows + i * p->depth, from + i, group);
        rows = r->scratch->rows;
    }
    for (size_t k = k0; k < k1; k += MIX__TILE_K) {
        const size_t left = k1 - k < MIX__TILE_K ? k1 - k : MIX__TILE_K;
        const struct mix__gemm g = { .rows = n,
                                     .depth = p->depth,
                                     .k = mix__round_up(left, MIX__PANEL),
                                     .x_stride = p->depth,
                                     .runs = p->runs,
                                     .start = p->start + group * p->k + k };
        r->rt->kernels.gemm(r->scratch->sums, rows, p->weights + (group * p->k + k) * p->depth, &g);
        finish(r, from, n, group * per_group + k, left, g.k);
    }
}

/* Threads share the places or, where these are few, the channels. */
static void run_dense(const struct run *r, int part, int parts)
{
    const size_t places = (size_t)r->s->y->h * (size_t)r->s->y->w;
    const size_t groups = (size_t)r->s->op->groups, channels = (size_t)r->s->y->c / groups;
    const bool by_channel = places < MIX__TILE * (size_t)parts;
    size_t from = 0, to = places, k0 = 0, k1 = channels;
    if (by_channel)
        mix__part(channels, MIX__PANEL, part, parts, &k0, &k1);
    else
        mix__part(places, MIX__TILE, part, parts, &from, &to);
    for (size_t g = 0; g < groups; g++)
        for (size_t i = from; i < to; i += MIX__TILE)
            dense_tile(r, i, to - i < MIX__TILE ? to - i : MIX__TILE, g, k0, k1);
}

/* The pixels of the columns that n places of a row see, by column, from (oh, ow) on. */
static void point_taps(const struct run *r, const uint8_t **tap, int oh, int ow, size_t n)
{
    const struct mix__net_op *op = r->s->op;
    const struct mix__net_tensor *x = r->s->x;
    const uint8_t *zeros = r->rt->zeros + r->s->conv.zero * r->rt->widest;
    const int top = oh * op->stride - op->pad, left = ow * op->stride - op->pad;
    const int right = left + ((int)n - 1) * op->stride + op->kernel;
    for (int w = left; w < right; w++)
        for (int h = top; h < top + op->kernel; h++) {
            const bool inside = h >= 0 && h < x->h && w >= 0 && w < x->w;
            *tap++ = inside ? r->x + ((size_t)h * (size_t)x->w + (size_t)w) * (size_t)x->c : zeros;
        }
}

static void run_depthwise(const struct run *r, int part, int parts)
{
    const struct mix__net_op *op = r->s->op;
    const struct mix__conv_plan *p = &r->s->conv;
    const size_t c = (size_t)r->s->y->c, width = (size_t)r->s->y->w;
    const size_t places = (size_t)r->s->y->h * width;
    const size_t fit = MIX__TILE_SUMS / c, tile = fit < 1 ? 1 : fit < MIX__TILE ? fit : MIX__TILE;
    struct mix__depthwise d = { .kernel = (size_t)op->kernel,
                                .stride = (size_t)op->stride,
                                .c = c,
                                .runs = p->runs,
                                .start = p->start };
    size_t from, to;
    mix__part(places, tile, part, parts, &from, &to);
    for (size_t i = from, n; i < to; i += n) {
        n = to - i < tile ? to - i : tile;
        for (size_t j = 0; j < n; j += d.places) {
            const size_t oh = (i + j) / width, ow = (i + j) % width;
            d.places = n - j < width - ow ? n - j : width - ow;
            point_taps(r, r->scratch->taps, (int)oh, (int)ow, d.places);
            r->rt->kernels.depthwise(r->scratch->sums + j * c, r->scratch->taps, p->weights, &d);
        }
        finish(r, i, n, 0, c, c);
    }
}

void mix__conv_run(const mix_runtime *rt, const struct mix__step_plan *s, int part, int parts)
{
    const struct run r = { rt, s, &rt->scratch[part], rt->at[s->op->in[0]], rt->at[s->op->out] };
    if (s->conv.depthwise)
        run_depthwise(&r, part, parts);
    else
        run_dense(&r, part, parts);
}
