/*
 * slow_value.h - what an operator of the runtime makes, in double, one element at a time.
 */
#ifndef METAMIX_TESTS_SLOW_VALUE_H
#define METAMIX_TESTS_SLOW_VALUE_H

#include <math.h>
#include <stdlib.h>

#include "runtime/runtime_inside.h"
#include "tensor/packed.h"

/* The operator that has made a value. */
static inline const struct mix__step_plan *step_of(const mix_runtime *rt,
                                                   const mix_runtime_value *value)
{
    size_t i = 0;
    while (rt->net->ops[i].name != value->name)
        i++;
    return &rt->steps[i];
}

/* Element (h, col, k) of a convolution in front of its activation; w: its weight codes. */
static inline double slow_conv(const mix_runtime *rt, const struct mix__step_plan *p,
                               const int8_t *w, int h, int col, int k)
{
    const struct mix__net_op *op = p->op;
    const struct mix__bounds b = mix__bounds_activation(p->x->bits, p->x->range);
    const uint8_t *x = rt->at[op->in[0]];
    const int c = p->x->c / op->groups, group = k / (p->y->c / op->groups);
    double sum = 0.0; /* of (step * code - shift) * weight code / step */
    for (int r = 0; r < op->kernel; r++)
        for (int q = 0; q < op->kernel; q++) {
            const int row = h * op->stride - op->pad + r, at = col * op->stride - op->pad + q;
            if (row < 0 || row >= p->x->h || at < 0 || at >= p->x->w)
                continue;
            for (int i = 0; i < c; i++) {
                const int code = x[(row * p->x->w + at) * p->x->c + group * c + i] + (int)b.n;
                sum += (code - (double)b.shift / p->x->step) *
                       w[((k * op->kernel + r) * op->kernel + q) * c + i];
            }
        }
    return sum * op->scale[k] + op->offset[k];
}

static inline double slow_avgpool(const float *x, size_t pixels, size_t c, size_t k)
{
    double sum = 0.0;
    for (size_t i = 0; i < pixels; i++)
        sum += x[i * c + k];
    return sum / (double)pixels;
}

static inline double slow_maxpool(const float *x, const struct mix__step_plan *p, int h, int col,
                                  int k)
{
    double largest = -INFINITY;
    for (int r = h * p->op->stride - p->op->pad, i = 0; i < p->op->kernel; i++, r++)
        for (int q = col * p->op->stride - p->op->pad, j = 0; j < p->op->kernel; j++, q++)
            if (r >= 0 && r < p->x->h && q >= 0 && q < p->x->w)
                largest = fmax(largest, x[(r * p->x->w + q) * p->x->c + k]);
    return largest;
}

/* Element i of an operator's output in front of its activation. */
static inline double slow_value(const mix_runtime *rt, const struct mix__step_plan *p, size_t i)
{
    const struct mix__net_op *op = p->op;
    const size_t c = (size_t)p->y->c, w = (size_t)p->y->w;
    const int h = (int)(i / c / w), col = (int)(i / c % w), k = (int)(i % c);
    const float *x = rt->at[op->in[0]];
    switch (op->kind) {
    case MIX__NET_CONV: {
        const size_t n = mix__net_weights(rt->net, op);
        int8_t *codes = malloc(n);
        mix__codes_unpack(codes, op->weights, n, op->weight_bits);
        const double value = slow_conv(rt, p, codes, h, col, k);
        free(codes);
        return value;
    }
    case MIX__NET_ADD:
        return (double)x[i] + ((const float *)rt->at[op->in[1]])[i];
    case MIX__NET_MUL:
        return (double)x[i] * ((const float *)rt->at[op->in[1]])[k];
    case MIX__NET_MAXPOOL:
        return slow_maxpool(x, p, h, col, k);
    case MIX__NET_AVGPOOL:
        return slow_avgpool(x, (size_t)p->x->h * p->x->w, c, (size_t)k);
    default:
        return x[i];
    }
}

#endif
