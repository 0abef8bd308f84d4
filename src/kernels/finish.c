/*
 * kernels/finish.c - everything that computes in float: from sums or values to activated values or
 * codes. Compiled once for each instruction set; nothing is contracted and no sum crosses a
 * vector, so all copies give the same bits.
 */
#include "kernels/kernels_isa.h"

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define SIMD _Pragma("omp simd")

/* Not a number becomes n: the conversion to an integer must be defined. */
MIX__KERNEL_TEMPLATE uint8_t code_of(float u, const struct mix__finish *f)
{
    float v = (u + f->bounds.shift) / f->step;
    v = v > f->bounds.n ? v : f->bounds.n;
    v = v < f->bounds.p ? v : f->bounds.p;
    return (uint8_t)(int)(mix__round(v) + f->zero);
}

/* y[i] = what finish makes of VALUE, an expression in i; act and codes are constants. */
#define FINISH_LOOP(act, codes, y, n, f, VALUE)                                                    \
    do {                                                                                           \
        if (codes) {                                                                               \
            uint8_t *restrict out_ = (y);                                                          \
            SIMD for (size_t i = 0; i < (n); i++) out_[i] = code_of(mix__activate(VALUE, act), f); \
        } else {                                                                                   \
            float *restrict out_ = (y);                                                            \
            SIMD for (size_t i = 0; i < (n); i++) out_[i] = mix__activate(VALUE, act);             \
        }                                                                                          \
    } while (0)

/* Calls function(act, codes, ...) with constants. */
#define CASE(act, function, f, ...)                                                                \
    case act:                                                                                      \
        if ((f)->codes)                                                                            \
            function(act, true, f, __VA_ARGS__);                                                   \
        else                                                                                       \
            function(act, false, f, __VA_ARGS__);                                                  \
        break;
#define SPECIALISE(function, f, ...)                                                               \
    switch ((f)->act) {                                                                            \
        CASE(MIX__ACT_NONE, function, f, __VA_ARGS__)                                              \
        CASE(MIX__ACT_RELU, function, f, __VA_ARGS__)                                              \
        CASE(MIX__ACT_RELU6, function, f, __VA_ARGS__)                                             \
        CASE(MIX__ACT_HARDSWISH, function, f, __VA_ARGS__)                                         \
        CASE(MIX__ACT_HARDSIGMOID, function, f, __VA_ARGS__)                                       \
    default:                                                                                       \
        break;                                                                                     \
    }

/* Row r of y, elements of f's type. */
MIX__KERNEL_TEMPLATE void *row_of(void *y, size_t at, bool codes)
{
    return codes ? (void *)((uint8_t *)y + at) : (void *)((float *)y + at);
}

MIX__KERNEL_TEMPLATE void sums_as(enum mix__act act, bool codes, const struct mix__finish *f,
                                  void *y, const struct mix__sums *s)
{
    const struct mix__finish finish = *f;
    for (size_t r = 0; r < s->rows; r++) {
        const int32_t *restrict acc = s->acc + r * s->acc_stride;
        const float *restrict scale = s->scale, *restrict offset = s->offset;
        FINISH_LOOP(act, codes, row_of(y, r * s->y_stride, codes), s->n, &finish,
                    scale[i] * (float)acc[i] + offset[i]);
    }
}

#ifdef __AVX512F__
/*
 * Codes without a division, in fixed point. With t = value * (65536 / step), clipped, a code is t /
 * 65536 to the nearest, and t is at most 4 off the exact quotient's 65536-fold: three roundings of
 * at most 255 * 65536 * 2^-24 each, and that of t to an integer. Where t lies within 8 of the edge
 * between two codes, the exact formula decides.
 */
enum { POINT = 16, EDGE = 8, LANES = 16 };

struct fixed {
    __m512 factor, low, high;
    __m512i half; /* what is added before the shift                  */
    __m512i near; /* the bits that are then all 0 at an edge, and there alone */
};

static struct fixed fixed_of(const struct mix__finish *f)
{
    const bool relu = f->act != MIX__ACT_NONE;
    const float n = relu && f->bounds.n < 0.0f ? 0.0f : f->bounds.n, six = 6.0f / f->step;
    const float p = f->act == MIX__ACT_RELU6 && six < f->bounds.p ? six : f->bounds.p;
    const float one = (float)(1 << POINT);
    return (struct fixed){
        .factor = _mm512_set1_ps(one / f->step),
        .low = _mm512_set1_ps(n * one),
        .high = _mm512_set1_ps(p * one),
        .half = _mm512_set1_epi32(((int)f->zero << POINT) + (1 << (POINT - 1)) + EDGE),
        .near = _mm512_set1_epi32((1 << POINT) - 2 * EDGE),
    };
}

/* Codes of those sums of 16 that the mask has; gives whether one lies at an edge. */
MIX__KERNEL_TEMPLATE __mmask16 fixed_codes(uint8_t *y, const int32_t *acc, const float *scale,
                                           const float *offset, struct fixed k, __mmask16 mask)
{
    const __m512 sum = _mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(mask, acc));
    const __m512 value = _mm512_add_ps(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, scale), sum),
                                       _mm512_maskz_loadu_ps(mask, offset));
    const __m512 t = _mm512_max_ps(_mm512_mul_ps(value, k.factor), k.low);
    const __m512i code = _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_min_ps(t, k.high)), k.half);
    _mm_mask_storeu_epi8(y, mask, _mm512_cvtepi32_epi8(_mm512_srai_epi32(code, POINT)));
    return _mm512_mask_testn_epi32_mask(mask, code, k.near);
}

static void exact_codes(uint8_t *y, const int32_t *acc, const float *scale, const float *offset,
                        size_t n, const struct mix__finish *f)
{
    for (size_t i = 0; i < n; i++)
        y[i] = code_of(mix__activate(scale[i] * (float)acc[i] + offset[i], f->act), f);
}

static void fixed_sums(uint8_t *y, const struct mix__sums *s, const struct mix__finish *f)
{
    const struct fixed k = fixed_of(f);
    const float *scale = s->scale, *offset = s->offset;
    const size_t n = s->n, rest = n % LANES, whole = n - rest;
    const __mmask16 all = 0xffff, some = (__mmask16)((1u << rest) - 1);
    for (size_t r = 0; r < s->rows; r++, y += s->y_stride) {
        const int32_t *acc = s->acc + r * s->acc_stride;
        for (size_t i = 0; i < whole; i += LANES)
            if (fixed_codes(y + i, acc + i, scale + i, offset + i, k, all))
                exact_codes(y + i, acc + i, scale + i, offset + i, LANES, f);
        if (rest && fixed_codes(y + whole, acc + whole, scale + whole, offset + whole, k, some))
            exact_codes(y + whole, acc + whole, scale + whole, offset + whole, rest, f);
    }
}

static bool fits_fixed(const struct mix__finish *f)
{
    const bool clips = f->act <= MIX__ACT_RELU6;
    return f->codes && clips && f->bounds.shift == 0.0f && f->step > 1e-30f && f->step < 1e30f;
}
#endif

static void sums(void *y, const struct mix__sums *s, const struct mix__finish *f)
{
#ifdef __AVX512F__
    if (fits_fixed(f)) {
        fixed_sums(y, s, f);
        return;
    }
#endif
    SPECIALISE(sums_as, f, y, s)
}

MIX__KERNEL_TEMPLATE void values_as(enum mix__act act, bool codes, const struct mix__finish *f,
                                    void *y, const float *restrict x, size_t n)
{
    const struct mix__finish finish = *f;
    FINISH_LOOP(act, codes, y, n, &finish, x[i]);
}

static void values(void *y, const float *x, size_t n,
                   const struct mix__finish *f){ SPECIALISE(values_as, f, y, x, n) }

MIX__KERNEL_TEMPLATE
    void add_as(enum mix__act act, bool codes, const struct mix__finish *f, void *y,
                const float *restrict a, const float *restrict b, size_t n)
{
    const struct mix__finish finish = *f;
    FINISH_LOOP(act, codes, y, n, &finish, a[i] + b[i]);
}

static void add(void *y, const float *a, const float *b, size_t n,
                const struct mix__finish *f){ SPECIALISE(add_as, f, y, a, b, n) }

MIX__KERNEL_TEMPLATE
    void gate_as(enum mix__act act, bool codes, const struct mix__finish *f, void *y,
                 const float *x, const float *restrict g, size_t rows, size_t c)
{
    const struct mix__finish finish = *f;
    for (size_t r = 0; r < rows; r++) {
        const float *restrict from = x + r * c;
        FINISH_LOOP(act, codes, row_of(y, r * c, codes), c, &finish, from[i] * g[i]);
    }
}

static void gate(void *y, const float *x, const float *g, size_t rows, size_t c,
                 const struct mix__finish *f)
{
    SPECIALISE(gate_as, f, y, x, g, rows, c)
}

static void largest(float *restrict y, const float *restrict x, size_t n)
{
    SIMD for (size_t i = 0; i < n; i++) y[i] = x[i] <= y[i] ? y[i] : x[i];
}

static void accumulate(float *restrict y, const float *restrict x, size_t n)
{
    SIMD for (size_t i = 0; i < n; i++) y[i] += x[i];
}

void MIX__KERNELS_NAME(mix__kernels_fill)(struct mix__kernels *k)
{
    k->sums = sums;
    k->values = values;
    k->add = add;
    k->gate = gate;
    k->largest = largest;
    k->accumulate = accumulate;
}
