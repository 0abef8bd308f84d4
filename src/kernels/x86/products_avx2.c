/*
 * kernels/x86/products_avx2.c - sums of products without VNNI.
 *
 * vpmaddubsw adds two u8 * s8 products into an int16, and saturates: two times 255 * 127 do not
 * fit. Where they do (runs >= 1: 4-bit weights leave room for 9 of them) that instruction and
 * 16-bit additions do the work, 64 products in four instructions; the int16 sums go to int32 every
 * `runs` steps. Else codes are widened to int16 first and vpmaddwd gives exact int32 sums, at half
 * the speed.
 */
#include <immintrin.h>

#include "kernels/kernels_isa.h"

enum { ROWS = 4, HALF = MIX__PANEL / 2 };

static inline __m256i load(const void *from)
{
    return _mm256_loadu_si256(from);
}

static inline int32_t quad_at(const uint8_t *x)
{
    int32_t v;
    __builtin_memcpy(&v, x, sizeof v);
    return v;
}

/* Of `rows` rows and one panel; w: the panel's weights. */
MIX__KERNEL_TEMPLATE void narrow_tile(int rows, int32_t *acc, const uint8_t *x, const int8_t *w,
                                      const int32_t *start, const struct mix__gemm *g)
{
    const __m256i ones = _mm256_set1_epi16(1);
    const size_t quads = g->depth / MIX__QUAD;
    __m256i sum[ROWS][2], part[ROWS][2];
    for (int r = 0; r < rows; r++)
        for (int h = 0; h < 2; h++)
            sum[r][h] = load(start + h * HALF);
    for (size_t q = 0; q < quads;) {
        const size_t end = quads - q < (size_t)g->runs ? quads : q + (size_t)g->runs;
        for (int r = 0; r < rows; r++)
            part[r][0] = part[r][1] = _mm256_setzero_si256();
        for (; q < end; q++) {
            const __m256i w0 = load(w + q * 64), w1 = load(w + q * 64 + 32);
            for (int r = 0; r < rows; r++) {
                const __m256i v =
                    _mm256_set1_epi32(quad_at(x + (size_t)r * g->x_stride + q * MIX__QUAD));
                part[r][0] = _mm256_add_epi16(part[r][0], _mm256_maddubs_epi16(v, w0));
                part[r][1] = _mm256_add_epi16(part[r][1], _mm256_maddubs_epi16(v, w1));
            }
        }
        for (int r = 0; r < rows; r++)
            for (int h = 0; h < 2; h++)
                sum[r][h] = _mm256_add_epi32(sum[r][h], _mm256_madd_epi16(part[r][h], ones));
    }
    for (int r = 0; r < rows; r++)
        for (int h = 0; h < 2; h++)
            _mm256_storeu_si256((__m256i *)(void *)(acc + (size_t)r * g->k + h * HALF), sum[r][h]);
}

/* Half a panel: 8 channels. A lane holds the sum of every other pair of a channel's products:
 *   low   c0 c0 c1 c1 | c2 c2 c3 c3      high   c4 c4 c5 c5 | c6 c6 c7 c7 */
MIX__KERNEL_TEMPLATE void wide_tile(int rows, int32_t *acc, const uint8_t *x, const int8_t *w,
                                    const int32_t *start, const struct mix__gemm *g)
{
    const size_t quads = g->depth / MIX__QUAD;
    __m256i low[ROWS], high[ROWS];
    for (int r = 0; r < rows; r++)
        low[r] = high[r] = _mm256_setzero_si256();
    for (size_t q = 0; q < quads; q++) {
        const __m256i packed = load(w + q * 64);
        const __m256i w0 = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(packed));
        const __m256i w1 = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(packed, 1));
        for (int r = 0; r < rows; r++) {
            const __m256i v = _mm256_cvtepu8_epi16(
                _mm_set1_epi32(quad_at(x + (size_t)r * g->x_stride + q * MIX__QUAD)));
            low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(v, w0));
            high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(v, w1));
        }
    }
    for (int r = 0; r < rows; r++) {
        const __m256i sum =
            _mm256_permute4x64_epi64(_mm256_hadd_epi32(low[r], high[r]), _MM_SHUFFLE(3, 1, 2, 0));
        _mm256_storeu_si256((__m256i *)(void *)(acc + (size_t)r * g->k),
                            _mm256_add_epi32(sum, load(start)));
    }
}

MIX__KERNEL_TEMPLATE void rows_of(int rows, int32_t *acc, const uint8_t *x, const int8_t *w,
                                  const struct mix__gemm *g)
{
    for (size_t k = 0; k < g->k; k += MIX__PANEL) {
        const int8_t *panel = w + k * g->depth;
        if (g->runs > 0) {
            narrow_tile(rows, acc + k, x, panel, g->start + k, g);
            continue;
        }
        wide_tile(rows, acc + k, x, panel, g->start + k, g);
        wide_tile(rows, acc + k + HALF, x, panel + 32, g->start + k + HALF, g);
    }
}

static void gemm_avx2(int32_t *acc, const uint8_t *x, const int8_t *w, const struct mix__gemm *g)
{
    size_t r = 0;
    for (; r + ROWS <= g->rows; r += ROWS)
        rows_of(ROWS, acc + r * g->k, x + r * g->x_stride, w, g);
    acc += r * g->k;
    x += r * g->x_stride;
    switch (g->rows - r) {
    case 3:
        rows_of(3, acc, x, w, g);
        break;
    case 2:
        rows_of(2, acc, x, w, g);
        break;
    case 1:
        rows_of(1, acc, x, w, g);
        break;
    default:
        break;
    }
}

/* ---- depthwise: 16 channels at a time ------------------------------------------------------- */

static inline __m256i widen_u8(const uint8_t *from)
{
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)from));
}

static inline __m256i widen_s8(const int8_t *from)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)from));
}

static void store_sums(int32_t *acc, const int32_t *start, __m256i first, __m256i second)
{
    _mm256_storeu_si256((__m256i *)(void *)acc, _mm256_add_epi32(load(start), first));
    _mm256_storeu_si256((__m256i *)(void *)(acc + 8), _mm256_add_epi32(load(start + 8), second));
}

/* `runs` products at a time in int16. */
static void narrow_channels(int32_t *acc, const uint8_t *const *taps, const int8_t *w, size_t i,
                            const struct mix__depthwise *d)
{
    __m256i first = _mm256_setzero_si256(), second = first;
    const size_t n_taps = d->kernel * d->kernel;
    for (size_t t = 0; t < n_taps;) {
        const size_t end = n_taps - t < (size_t)d->runs ? n_taps : t + (size_t)d->runs;
        __m256i part = _mm256_setzero_si256();
        for (; t < end; t++)
            part = _mm256_add_epi16(
                part, _mm256_mullo_epi16(widen_u8(taps[t] + i), widen_s8(w + t * d->c + i)));
        first = _mm256_add_epi32(first, _mm256_cvtepi16_epi32(_mm256_castsi256_si128(part)));
        second = _mm256_add_epi32(second, _mm256_cvtepi16_epi32(_mm256_extracti128_si256(part, 1)));
    }
    store_sums(acc + i, d->start + i, first, second);
}

/* Two taps at a time, interleaved so that vpmaddwd adds them:
 *   low   channels 0..3 | 8..11      high   channels 4..7 | 12..15 */
static void wide_channels(int32_t *acc, const uint8_t *const *taps, const int8_t *w, size_t i,
                          const struct mix__depthwise *d)
{
    __m256i low = _mm256_setzero_si256(), high = low;
    const size_t n_taps = d->kernel * d->kernel;
    for (size_t t = 0; t < n_taps; t += 2) {
        const bool pair = t + 1 < n_taps;
        const __m256i zero = _mm256_setzero_si256();
        const __m256i x0 = widen_u8(taps[t] + i), w0 = widen_s8(w + t * d->c + i);
        const __m256i x1 = pair ? widen_u8(taps[t + 1] + i) : zero;
        const __m256i w1 = pair ? widen_s8(w + (t + 1) * d->c + i) : zero;
        low = _mm256_add_epi32(
            low, _mm256_madd_epi16(_mm256_unpacklo_epi16(x0, x1), _mm256_unpacklo_epi16(w0, w1)));
        high = _mm256_add_epi32(
            high, _mm256_madd_epi16(_mm256_unpackhi_epi16(x0, x1), _mm256_unpackhi_epi16(w0, w1)));
    }
    store_sums(acc + i, d->start + i, _mm256_permute2x128_si256(low, high, 0x20),
               _mm256_permute2x128_si256(low, high, 0x31));
}

static void depthwise_place(int32_t *acc, const uint8_t *const *taps, const int8_t *w,
                            const struct mix__depthwise *d)
{
    size_t i = 0;
    for (; i + 16 <= d->c; i += 16) {
        if (d->runs > 1)
            narrow_channels(acc, taps, w, i, d);
        else
            wide_channels(acc, taps, w, i, d);
    }
    for (; i < d->c; i++) {
        acc[i] = d->start[i];
        for (size_t t = 0; t < d->kernel * d->kernel; t++)
            acc[i] += taps[t][i] * w[t * d->c + i];
    }
}

static void depthwise_avx2(int32_t *acc, const uint8_t *const *taps, const int8_t *w,
                           const struct mix__depthwise *d)
{
    for (size_t p = 0; p < d->places; p++, acc += d->c, taps += d->stride * d->kernel)
        depthwise_place(acc, taps, w, d);
}

void mix__kernels_products_avx2(struct mix__kernels *k)
{
    k->gemm = gemm_avx2;
    k->depthwise = depthwise_avx2;
}
