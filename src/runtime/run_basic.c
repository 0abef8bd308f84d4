/*
 * runtime/run_basic.c - what runs between floats: codes of floats, additions, gates, pools.
 */
#include <math.h>
#include <string.h>

#include "runtime/runtime_inside.h"

static void identity(const mix_runtime *rt, const struct mix__step_plan *s, size_t from, size_t n)
{
    const float *x = rt->at[s->op->in[0]];
    rt->kernels.values(mix__element(rt->at[s->op->out], s->y, from), x + from, n, &s->finish);
}

static void add(const mix_runtime *rt, const struct mix__step_plan *s, size_t from, size_t n)
{
    const float *a = rt->at[s->op->in[0]], *b = rt->at[s->op->in[1]];
    rt->kernels.add(mix__element(rt->at[s->op->out], s->y, from), a + from, b + from, n,
                    &s->finish);
}

static void gate(const mix_runtime *rt, const struct mix__step_plan *s, size_t from, size_t rows)
{
    const size_t c = (size_t)s->x->c;
    const float *x = rt->at[s->op->in[0]], *g = rt->at[s->op->in[1]];
    rt->kernels.gate(mix__element(rt->at[s->op->out], s->y, from * c), x + from * c, g, rows, c,
                     &s->finish);
}

static void maxpool_at(const mix_runtime *rt, const struct mix__step_plan *s, float *y,
                       size_t place)
{
    const struct mix__net_op *op = s->op;
    const float *x = rt->at[op->in[0]];
    const int top = (int)(place / (size_t)s->y->w) * op->stride - op->pad;
    const int left = (int)(place % (size_t)s->y->w) * op->stride - op->pad;
    const int bottom = s->x->h - top < op->kernel ? s->x->h : top + op->kernel;
    const int right = s->x->w - left < op->kernel ? s->x->w : left + op->kernel;
    const size_t c = (size_t)s->x->c;
    for (size_t i = 0; i < c; i++)
        y[i] = -INFINITY;
    for (int h = top > 0 ? top : 0; h < bottom; h++)
        for (int w = left > 0 ? left : 0; w < right; w++)
            rt->kernels.largest(y, x + ((size_t)h * (size_t)s->x->w + (size_t)w) * c, c);
}

static void maxpool(const mix_runtime *rt, const struct mix__step_plan *s, int part, size_t from,
                    size_t to)
{
    const size_t c = (size_t)s->y->c;
    float *y = rt->scratch[part].values;
    for (size_t i = from; i < to; i++) {
        maxpool_at(rt, s, y, i);
        rt->kernels.values(mix__element(rt->at[s->op->out], s->y, i * c), y, c, &s->finish);
    }
}

/* Channels [from, from + n): sums in the order of the pixels, then one division. */
static void avgpool(const mix_runtime *rt, const struct mix__step_plan *s, int part, size_t from,
                    size_t n)
{
    const size_t c = (size_t)s->x->c, pixels = (size_t)s->x->h * (size_t)s->x->w;
    const float *x = rt->at[s->op->in[0]];
    float *y = rt->scratch[part].values;
    memset(y, 0, n * sizeof *y);
    for (size_t i = 0; i < pixels; i++)
        rt->kernels.accumulate(y, x + i * c + from, n);
    for (size_t i = 0; i < n; i++)
        y[i] /= (float)pixels;
    rt->kernels.values(mix__element(rt->at[s->op->out], s->y, from), y, n, &s->finish);
}

void mix__basic_run(const mix_runtime *rt, const struct mix__step_plan *s, int part, int parts)
{
    enum { GRAIN = 16 };
    const size_t pixels = (size_t)s->y->h * (size_t)s->y->w, c = (size_t)s->y->c;
    size_t from, to;
    switch (s->op->kind) {
    case MIX__NET_MUL:
        mix__part(pixels, 1, part, parts, &from, &to);
        gate(rt, s, from, to - from);
        break;
    case MIX__NET_MAXPOOL:
        mix__part(pixels, 1, part, parts, &from, &to);
        maxpool(rt, s, part, from, to);
        break;
    case MIX__NET_AVGPOOL:
        mix__part(c, GRAIN, part, parts, &from, &to);
        avgpool(rt, s, part, from, to - from);
        break;
    case MIX__NET_ADD:
        mix__part(pixels * c, GRAIN, part, parts, &from, &to);
        add(rt, s, from, to - from);
        break;
    default:
        mix__part(pixels * c, GRAIN, part, parts, &from, &to);
        identity(rt, s, from, to - from);
        break;
    }
}
