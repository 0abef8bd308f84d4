/*
 * quant/quant.h - what a quantized number means: bounds, codes, step sizes (doc/method.md section 2).
 *
 *   value = step * (code - zero) - shift        shift = 3/8 after h-swish, else 0
 *   code  = round_half_even(clip((x + shift) / step, n, p))
 *
 * Both halves, training and runtime, take their arithmetic from here.
 */
#ifndef METAMIX_QUANT_QUANT_H
#define METAMIX_QUANT_QUANT_H

#include <math.h>

#include "metamix/graph.h"

struct mix__bounds {
    float n, p;  /* lowest and highest code: whole numbers, n <= 0 < p */
    float shift; /* added before, taken off after                      */
};

/* Steps stay at or above this: a step that reaches zero can never come back. */
#define MIX__STEP_MIN 1e-8f

struct mix__bounds mix__bounds_weight(int bits);
struct mix__bounds mix__bounds_activation(int bits, mix_range range);

/* Initial steps from the mean absolute value: activations 2 m / sqrt(2^b - 1), weights 2 m /
 * sqrt(p); never below MIX__STEP_MIN. */
float mix__step_init_activation(double mean_abs, int bits);
float mix__step_init_weight(double mean_abs, int bits);

/* Rounding to nearest, ties to even, of |v| < 2^22, by the one addition that every instruction
 * set vectorises; the default rounding mode is assumed. */
static inline float mix__round(float v)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: its unit in the last place is 1 */
    return (v + magic) - magic;
}

static inline float mix__clip(float v, float n, float p)
{
    v = v < n ? n : v;
    return v > p ? p : v;
}

/* The code of x and its value. x is finite. */
static inline float mix__quantize(float x, float step, const struct mix__bounds *b)
{
    return mix__round(mix__clip((x + b->shift) / step, b->n, b->p));
}

static inline float mix__dequantize(float code, float step, const struct mix__bounds *b)
{
    return step * code - b->shift;
}

#endif
