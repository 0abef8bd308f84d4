/*
 * engine/loops_vec.h - vectors of floats as the engine's loops use them: LANES of them, as many as
 * the instruction set has, with the formulas of quant/quant.h and quant/act.h at every lane.
 *
 * Arithmetic is C's on GCC's vector types; what C has no operator for is here: types in memory,
 * comparison, choice and clipping. All lanes give the bits that the scalar formulas give.
 */
#ifndef METAMIX_ENGINE_LOOPS_VEC_H
#define METAMIX_ENGINE_LOOPS_VEC_H

#include "engine/loops_isa.h"

#include <stdbool.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX2__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif

enum { LINE_BYTES = 64 }; /* of the cache */

#if defined(MIX_NO_UNROLL) /* with a sanitizer's checks it takes compilers many minutes */
#define UNROLL
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

typedef float vec __attribute__((vector_size(LANES * sizeof(float))));
typedef uint32_t vec_bits __attribute__((vector_size(LANES * sizeof(uint32_t))));
typedef uint16_t vec_half __attribute__((vector_size(LANES * sizeof(uint16_t))));

/* ---- in memory: n of LANES values; those that are not there read as 0 ------------------------ */

#if defined(__AVX512F__)
MIX__TEMPLATE vec get_few(const float *p, int n)
{
    return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}

MIX__TEMPLATE void put_few(float *p, const vec *v, int n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)*v);
}

MIX__TEMPLATE vec_half get_few_halves(const uint16_t *p, int n)
{
    return (vec_half)_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p);
}

MIX__TEMPLATE void put_few_halves(uint16_t *p, const vec_half *v, int n)
{
    _mm256_mask_storeu_epi16(p, (__mmask16)((1u << n) - 1), (__m256i)*v);
}
#else
static __attribute__((noinline, unused)) vec get_few(const float *p, int n)
{
    vec v = { 0 };
    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
}

static __attribute__((noinline, unused)) void put_few(float *p, const vec *v, int n)
{
    memcpy(p, v, (size_t)n * sizeof *p);
}

static __attribute__((noinline, unused)) vec_half get_few_halves(const uint16_t *p, int n)
{
    vec_half v = { 0 };
    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
}

static __attribute__((noinline, unused)) void put_few_halves(uint16_t *p, const vec_half *v, int n)
{
    memcpy(p, v, (size_t)n * sizeof *p);
}
#endif

MIX__TEMPLATE vec vec_get(const float *p, int n)
{
    vec v;
    if (n < LANES)
        return get_few(p, n);
    memcpy(&v, p, sizeof v);
    return v;
}

MIX__TEMPLATE void vec_put(float *p, vec v, int n)
{
    if (n < LANES)
        put_few(p, &v, n);
    else
        memcpy(p, &v, sizeof v);
}

MIX__TEMPLATE vec vec_widen(const uint16_t *p, int n)
{
    vec_half h;
    if (n < LANES)
        h = get_few_halves(p, n);
    else
        memcpy(&h, p, sizeof h);
#if defined(__AVX512F__) /* gcc 12 converts halves of it */
    return (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)h), 16);
#elif defined(__AVX2__)
    return (vec)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)h), 16);
#else
    return (vec)(__builtin_convertvector(h, vec_bits) << 16);
#endif
}

/* As mix__bf16_round(); where the CPU does it, numbers below 2^-126 become 0. */
MIX__TEMPLATE vec_half vec_halves(vec v)
{
#if defined(__AVX512BF16__)
    return (vec_half)_mm512_cvtneps_pbh((__m512)v);
#else
    const vec_bits bits = (vec_bits)v, nan = (vec_bits)(v != v);
    const vec_bits even = bits + 0x7fffu + (bits >> 16 & 1u);
#if defined(__AVX2__) && !defined(__AVX512F__)
    const __m256i high = _mm256_srli_epi32(
        (__m256i)_mm256_blendv_ps((__m256)even, (__m256)(bits | 0x400000u), (__m256)nan), 16);
    return (vec_half)_mm_packus_epi32(_mm256_castsi256_si128(high),
                                      _mm256_extracti128_si256(high, 1));
#else
    return __builtin_convertvector(((nan & (bits | 0x400000u)) | (~nan & even)) >> 16, vec_half);
#endif
#endif
}

MIX__TEMPLATE void vec_narrow(uint16_t *p, vec v, int n)
{
    const vec_half h = vec_halves(v);
    if (n < LANES)
        put_few_halves(p, &h, n);
    else
        memcpy(p, &h, sizeof h);
}

/* Whole numbers, modulo 256. */
MIX__TEMPLATE void vec_bytes(uint8_t *p, vec v, int n)
{
#if defined(__AVX512F__)
    const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_cvttps_epi32((__m512)v));
    _mm_mask_storeu_epi8(p, (__mmask16)((1u << n) - 1), bytes);
#else
#if defined(__AVX2__)
    if (n == LANES) {
        const __m256i low =
            _mm256_and_si256(_mm256_cvttps_epi32((__m256)v), _mm256_set1_epi32(255));
        const __m128i pairs =
            _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
        _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(pairs, pairs));
        return;
    }
#endif
    for (int i = 0; i < n; i++)
        p[i] = (uint8_t)(int)v[i];
#endif
}

MIX__TEMPLATE vec vec_load(struct mix__values x, size_t at, int n)
{
    return x.dtype == MIX__DTYPE_F32 ? vec_get((const float *)x.at + at, n)
                                     : vec_widen((const uint16_t *)x.at + at, n);
}

MIX__TEMPLATE void vec_store(struct mix__values y, size_t at, vec v, int n)
{
    if (y.dtype == MIX__DTYPE_F32)
        vec_put((float *)y.at + at, v, n);
    else if (y.dtype == MIX__DTYPE_BF16)
        vec_narrow((uint16_t *)y.at + at, v, n);
    else
        vec_bytes((uint8_t *)y.at + at, v, n);
}

/* Streaming stores, which write whole lines to memory without bringing them into the cache first.
 * Whoever wrote so calls vec_stream_end(), before another thread reads. */
#if defined(__AVX512F__)
enum { STREAMS = 1 };

MIX__TEMPLATE void vec_stream(struct mix__values y, size_t at, vec v)
{
    if (y.dtype == MIX__DTYPE_F32)
        _mm512_stream_ps((float *)y.at + at, (__m512)v);
    else
        _mm256_stream_si256((__m256i *)((uint16_t *)y.at + at), (__m256i)vec_halves(v));
}

MIX__TEMPLATE void vec_stream_end(void)
{
    _mm_sfence();
}
#else
enum { STREAMS = 0 };

MIX__TEMPLATE void vec_stream(struct mix__values y, size_t at, vec v)
{
    vec_store(y, at, v, LANES);
}

MIX__TEMPLATE void vec_stream_end(void)
{
}
#endif

/* `wide` vectors side by side; stream: by streaming stores, where they are whole lines. */
MIX__TEMPLATE void vec_store_wide(struct mix__values y, size_t at, const vec *v, int wide,
                                  int lanes, bool stream)
{
    const size_t size = mix__dtype_size(y.dtype), bytes = (size_t)(wide * lanes) * size;
    if (STREAMS && stream && bytes % LINE_BYTES == 0 &&
        ((uintptr_t)y.at + at * size) % LINE_BYTES == 0)
        UNROLL for (int k = 0; k < wide; k++) vec_stream(y, at + (size_t)k * LANES, v[k]);
    else
        UNROLL for (int k = 0; k < wide; k++) vec_store(y, at + (size_t)k * LANES, v[k], lanes);
}

/* f(first place, LANES or fewer, ...) for every vector of n places. */
#define EACH_VEC(n, f, ...)                                                                        \
    do {                                                                                           \
        size_t at_ = 0;                                                                            \
        for (; at_ + LANES <= (n); at_ += LANES)                                                   \
            f(at_, LANES, __VA_ARGS__);                                                            \
        if (at_ < (n))                                                                             \
            f(at_, (int)((n)-at_), __VA_ARGS__);                                                   \
    } while (0)

/* ---- comparison ------------------------------------------------------------------------------ */

#if defined(__AVX512F__)
typedef __mmask16 vec_mask;

MIX__TEMPLATE vec_mask vec_less(vec a, vec b)
{
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ);
}

MIX__TEMPLATE vec_mask vec_at_most(vec a, vec b)
{
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LE_OQ);
}

MIX__TEMPLATE vec_mask vec_equal(vec a, vec b)
{
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_EQ_OQ);
}

/* Where bytes, n of them, have this value. */
MIX__TEMPLATE vec_mask vec_equal_bytes(const uint8_t *p, int n, uint8_t value)
{
    const __mmask16 there = (__mmask16)((1u << n) - 1);
    return _mm_mask_cmpeq_epi8_mask(there, _mm_maskz_loadu_epi8(there, p),
                                    _mm_set1_epi8((char)value));
}

MIX__TEMPLATE vec vec_choose(vec_mask m, vec yes, vec no)
{
    return (vec)_mm512_mask_mov_ps((__m512)no, m, (__m512)yes);
}

/* a > b ? a : b, and a < b ? a : b */
MIX__TEMPLATE vec vec_max(vec a, vec b)
{
    return (vec)_mm512_max_ps((__m512)a, (__m512)b);
}

MIX__TEMPLATE vec vec_min(vec a, vec b)
{
    return (vec)_mm512_min_ps((__m512)a, (__m512)b);
}
#else
typedef vec_bits vec_mask;

MIX__TEMPLATE vec_mask vec_less(vec a, vec b)
{
    return (vec_mask)(a < b);
}

MIX__TEMPLATE vec_mask vec_at_most(vec a, vec b)
{
    return (vec_mask)(a <= b);
}

MIX__TEMPLATE vec_mask vec_equal(vec a, vec b)
{
    return (vec_mask)(a == b);
}

MIX__TEMPLATE vec_mask vec_equal_bytes(const uint8_t *p, int n, uint8_t value)
{
#if defined(__AVX2__)
    if (n == LANES)
        return (vec_mask)_mm256_cmpeq_epi32(
            _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)), _mm256_set1_epi32(value));
#endif
    vec_bits v = { 0 };
    for (int i = 0; i < n; i++)
        v[i] = p[i] == value ? UINT32_MAX : 0;
    return v;
}

MIX__TEMPLATE vec vec_choose(vec_mask m, vec yes, vec no)
{
    return (vec)((m & (vec_bits)yes) | (~m & (vec_bits)no));
}

MIX__TEMPLATE vec vec_max(vec a, vec b)
{
#if defined(__AVX2__)
    return (vec)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__)
    return (vec)_mm_max_ps((__m128)a, (__m128)b);
#else
    return vec_choose(vec_less(b, a), a, b);
#endif
}

MIX__TEMPLATE vec vec_min(vec a, vec b)
{
#if defined(__AVX2__)
    return (vec)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__)
    return (vec)_mm_min_ps((__m128)a, (__m128)b);
#else
    return vec_choose(vec_less(a, b), a, b);
#endif
}
#endif

MIX__TEMPLATE vec vec_all(float x)
{
    return x - (vec){ 0 };
}

MIX__TEMPLATE vec vec_keep(vec_mask m, vec v)
{
    return vec_choose(m, v, (vec){ 0 });
}

/* ---- the formulas ---------------------------------------------------------------------------- */

/* As mix__clip(): not a number stays so. */
MIX__TEMPLATE vec vec_clip(vec v, float n, float p)
{
    return vec_min(vec_all(p), vec_max(vec_all(n), v));
}

/* a * b + c, rounded once where the CPU has that. */
MIX__TEMPLATE vec vec_fma(vec a, vec b, vec c)
{
#if defined(__AVX512F__)
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

MIX__TEMPLATE vec vec_round(vec v)
{
    const float magic = 12582912.0f; /* as mix__round() */
    return (v + magic) - magic;
}

MIX__TEMPLATE vec vec_activate(vec u, enum mix__act act)
{
    if (act == MIX__ACT_RELU)
        return vec_max((vec){ 0 }, u);
    if (act == MIX__ACT_RELU6)
        return vec_clip(u, 0.0f, 6.0f);
    if (act == MIX__ACT_HARDSWISH)
        return u * vec_clip(u + 3.0f, 0.0f, 6.0f) / 6.0f;
    return act == MIX__ACT_HARDSIGMOID ? vec_clip(u + 3.0f, 0.0f, 6.0f) / 6.0f : u;
}

/* dy times the slope of the activation at u. */
MIX__TEMPLATE vec vec_activate_back(vec dy, vec u, enum mix__act act)
{
    const vec zero = { 0 };
    if (act == MIX__ACT_NONE)
        return dy;
    if (act == MIX__ACT_RELU)
        return vec_keep(vec_less(zero, u), dy);
    if (act == MIX__ACT_RELU6)
        return vec_keep(vec_less(zero, u) & vec_less(u, vec_all(6.0f)), dy);
    const vec_mask above = vec_less(vec_all(-3.0f), u), below = vec_less(u, vec_all(3.0f));
    if (act == MIX__ACT_HARDSIGMOID)
        return vec_keep(above & below, dy / 6.0f);
    return vec_keep(above, vec_choose(below, dy * ((2.0f * u + 3.0f) / 6.0f), dy));
}

#endif
