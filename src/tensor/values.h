/*
 * tensor/values.h - numbers in memory whose type is known only at run time: float32, bfloat16, or
 * bytes that hold a quantizer's codes and are only written.
 *
 * bfloat16 is the upper half of a float32, rounded to nearest, ties to even: 8 significant bits, so
 * whole numbers up to 256, the codes of a quantizer, are exact.
 *
 *          sign  exponent   fraction
 *    f32   31    30 .. 23   22 ......... 0
 *    bf16  15    14 .. 7     6 .. 0
 *    f16   15    14 .. 10    9 .. 0       (of files alone)
 */
#ifndef METAMIX_TENSOR_VALUES_H
#define METAMIX_TENSOR_VALUES_H

#include <stdint.h>
#include <string.h>

#include "tensor/dtype.h"

struct mix__values {
    void *at;
    enum mix__dtype dtype; /* F32 or BF16; written also S8 or U8 */
};

static inline struct mix__values mix__f32(const float *at)
{
    return (struct mix__values){ (void *)at, MIX__DTYPE_F32 };
}

/* Those from number i on. */
static inline struct mix__values mix__values_from(struct mix__values v, size_t i)
{
    return (struct mix__values){ (char *)v.at + i * mix__dtype_size(v.dtype), v.dtype };
}

static inline float mix__bf16_widen(uint16_t half)
{
    const uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Of a half, float16: exact. */
static inline float mix__f16_widen(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    const uint32_t exponent = half >> 10 & 31, fraction = half & 1023;
    uint32_t bits = sign | (exponent + 112) << 23 | fraction << 13; /* biases 127 and 15 */
    float value;
    if (exponent == 31) /* infinity, not a number */
        bits = sign | 0x7f800000u | fraction << 13;
    memcpy(&value, &bits, sizeof value);
    if (exponent == 0) /* zero, subnormal */
        value = (sign ? -0x1p-24f : 0x1p-24f) * (float)fraction;
    return value;
}

/* Not a number stays so. */
static inline uint16_t mix__bf16_round(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t even = bits + 0x7fffu + (bits >> 16 & 1u);
    return (uint16_t)((value != value ? bits | 0x400000u : even) >> 16);
}

static inline float mix__values_get(struct mix__values v, size_t i)
{
    return v.dtype == MIX__DTYPE_F32 ? ((const float *)v.at)[i]
                                     : mix__bf16_widen(((const uint16_t *)v.at)[i]);
}

static inline void mix__values_put(struct mix__values v, size_t i, float value)
{
    if (v.dtype == MIX__DTYPE_F32)
        ((float *)v.at)[i] = value;
    else if (v.dtype == MIX__DTYPE_BF16)
        ((uint16_t *)v.at)[i] = mix__bf16_round(value);
    else
        ((uint8_t *)v.at)[i] = (uint8_t)(int)value;
}

#endif
