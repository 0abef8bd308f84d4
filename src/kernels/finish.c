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
 * Codes without a division, in fixed point: t = scale' * sum + offset', both times 65536 / step,
 * and the code is t / 65536 to the nearest. Against the exact quotient, times 65536, t is off by
 * 2^-24 times
 *
 *   6 |quotient| + 6 |offset'|    the roundings of both ways: factor, scale', offset', the addition
 *                                 of the half, t; and product, value and quotient
 *
 * and 0.5 for t as an integer, where |quotient| is at most 2^24 and |offset'| is held to 1.5 *
 * 2^24: less than 16. Where t lies within 16 of the edge between two codes, the exact formula
 * decides. Saturating packs clip from below, and what is below code 0 of a signed tensor is its own
 * max.
 */
enum { POINT = 16, EDGE = 16, LANES = 16, VECTORS = 4, BLOCK = LANES * VECTORS };

struct fixed {
    __m512 factor, high;
    __m512 half;  /* the stored code of 0, a half and EDGE                     */
    __m512i low;  /* lowest stored code, in each byte                          */
    __m512i near; /* the bits of t that are all 0 at an edge, and there alone */
    __m512i order;
    __m512 step, n, p; /* of the exact formula; a ReLU's clips included */
    __m512i zero;
};

/* Rounding keeps order, so a ReLU may clip codes instead of values. */
static struct fixed fixed_of(const struct mix__finish *f)
{
    const float n = f->act == MIX__ACT_NONE ? f->bounds.n : 0.0f;
    const float p = f->act == MIX__ACT_RELU6
                        ? mix__round(mix__clip(6.0f / f->step, f->bounds.n, f->bounds.p))
                        : f->bounds.p;
    const float one = (float)(1 << POINT), half = 0.5f * one + EDGE;
    return (struct fixed){
        .factor = _mm512_set1_ps(one / f->step),
        .high = _mm512_set1_ps((p + f->zero) * one + half),
        .half = _mm512_set1_ps(f->zero * one + half),
        .low = _mm512_set1_epi8((char)(n + f->zero)),
        .near = _mm512_set1_epi32((1 << POINT) - 2 * EDGE),
        .order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
        .step = _mm512_set1_ps(f->step),
        .n = _mm512_set1_ps(n),
        .p = _mm512_set1_ps(p),
        .zero = _mm512_set1_epi32((int)f->zero),
    };
}

/* The formula itself, for sums of up to 16 channels. */
static void exact_codes(uint8_t *y, const int32_t *acc, const float *scale, const float *offset,
                        __mmask16 mask, const struct fixed *k)
{
    const __m512 sum = _mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(mask, acc));
    const __m512 value = _mm512_add_ps(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, scale), sum),
                                       _mm512_maskz_loadu_ps(mask, offset));
    const __m512 code = _mm512_min_ps(_mm512_max_ps(_mm512_div_ps(value, k->step), k->n), k->p);
    _mm512_mask_cvtepi32_storeu_epi8(y, mask, _mm512_add_epi32(_mm512_cvtps_epi32(code), k->zero));
}

/* Channels of a block in vectors; those behind the last one are 0. */
struct channels {
    size_t from, n;
    __mmask16 mask[VECTORS];
    __m512 scale[VECTORS], offset[VECTORS];
};

/* false: the bounds of the fixed point do not hold. */
MIX__KERNEL_TEMPLATE bool load_channels(struct channels *c, int vectors, const struct mix__sums *s,
                                        const struct fixed *k)
{
    const __m512 most = _mm512_set1_ps(1.5f * (float)(1 << 24)), finite = _mm512_set1_ps(1e30f);
    unsigned beyond = 0;
    for (int v = 0; v < vectors; v++) {
        const size_t at = c->from + (size_t)v * LANES, left = s->n - at;
        c->mask[v] = left < LANES ? (__mmask16)((1u << left) - 1) : 0xffff;
        c->scale[v] = _mm512_mul_ps(_mm512_maskz_loadu_ps(c->mask[v], s->scale + at), k->factor);
        const __m512 o =
            _mm512_mul_ps(_mm512_maskz_loadu_ps(c->mask[v], s->offset + at), k->factor);
        beyond |= _mm512_cmp_ps_mask(_mm512_abs_ps(o), most, _CMP_NLE_UQ);
        beyond |= _mm512_cmp_ps_mask(_mm512_abs_ps(c->scale[v]), finite, _CMP_NLE_UQ);
        c->offset[v] = _mm512_add_ps(o, k->half);
    }
    return !beyond;
}

/* t of the sums in vector v; whole: of 16. */
MIX__KERNEL_TEMPLATE __m512i fixed_point(bool whole, int v, const int32_t *acc,
                                         const struct channels *c, const struct fixed *k)
{
    const int32_t *from = acc + v * LANES;
    const __m512 sum = _mm512_cvtepi32_ps(whole ? _mm512_loadu_si512(from)
                                                : _mm512_maskz_loadu_epi32(c->mask[v], from));
    return _mm512_cvtps_epi32(
        _mm512_min_ps(_mm512_fmadd_ps(sum, c->scale[v], c->offset[v]), k->high));
}

/* The vectors of a row that have sums at an edge, once more. */
static __attribute__((noinline)) void mend_row(int vectors, uint8_t *y, const int32_t *acc,
                                               const struct channels *c, const struct mix__sums *s,
                                               const struct fixed *k)
{
    for (int v = 0; v < vectors; v++) {
        const size_t i = (size_t)v * LANES, at = c->from + i;
        if (_mm512_mask_testn_epi32_mask(c->mask[v], fixed_point(false, v, acc, c, k), k->near))
            exact_codes(y + i, acc + i, s->scale + at, s->offset + at, c->mask[v], k);
    }
}

MIX__KERNEL_TEMPLATE void fixed_row(int vectors, bool whole, uint8_t *y, const int32_t *acc,
                                    const struct channels *c, const struct mix__sums *s,
                                    const struct fixed *k)
{
    __m512i t[VECTORS];
    __mmask16 clear = 0xffff; /* lanes that no vector has at an edge, unused ones among them */
    for (int v = 0; v < vectors; v++) {
        t[v] = fixed_point(whole || v + 1 < vectors, v, acc, c, k);
        clear = _mm512_mask_test_epi32_mask(clear, t[v], k->near);
        t[v] = _mm512_srai_epi32(t[v], POINT);
    }
    const __m512i low = _mm512_packs_epi32(t[0], vectors > 1 ? t[1] : t[0]);
    const __m512i high = vectors > 2 ? _mm512_packs_epi32(t[2], vectors > 3 ? t[3] : t[2]) : low;
    const __m512i codes = _mm512_permutexvar_epi32(k->order, _mm512_packus_epi16(low, high));
    _mm512_mask_storeu_epi8(y, ~(__mmask64)0 >> (BLOCK - c->n), _mm512_max_epu8(codes, k->low));
    if (clear != 0xffff)
        mend_row(vectors, y, acc, c, s, k);
}

MIX__KERNEL_TEMPLATE void fixed_block(int vectors, bool whole, uint8_t *y,
                                      const struct mix__sums *s, size_t from, size_t n,
                                      const struct fixed *k)
{
    struct channels c;
    c.from = from;
    c.n = n;
    const bool holds = load_channels(&c, vectors, s, k);
    const int32_t *acc = s->acc + from;
    y += from;
    for (size_t r = 0; r < s->rows; r++, y += s->y_stride, acc += s->acc_stride) {
        if (holds) {
            fixed_row(vectors, whole, y, acc, &c, s, k);
            continue;
        }
        for (int v = 0; v < vectors; v++)
            exact_codes(y + v * LANES, acc + v * LANES, s->scale + from + v * LANES,
                        s->offset + from + v * LANES, c.mask[v], k);
    }
}

static void fixed_sums(uint8_t *y, const struct mix__sums *s, const struct mix__finish *f)
{
    const struct fixed k = fixed_of(f);
    size_t i = 0;
    for (; i + BLOCK <= s->n; i += BLOCK)
        fixed_block(VECTORS, true, y, s, i, BLOCK, &k);
    const size_t rest = s->n - i;
    if (rest > 3 * LANES)
        fixed_block(4, false, y, s, i, rest, &k);
    else if (rest > 2 * LANES)
        fixed_block(3, false, y, s, i, rest, &k);
    else if (rest == 2 * LANES)
        fixed_block(2, true, y, s, i, rest, &k);
    else if (rest > LANES)
        fixed_block(2, false, y, s, i, rest, &k);
    else if (rest > 0)
        fixed_block(1, false, y, s, i, rest, &k);
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
