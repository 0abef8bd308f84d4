/*
 * kernels/x86/products_vnni.c - sums of products by AVX-512 VNNI: vpdpbusd adds four u8 * s8
 * products to an int32, 64 in one instruction, at any width.
 */
#include <immintrin.h>

#include "kernels/kernels_isa.h"

enum { ROWS = 6, PANELS = 2 };

static inline int32_t quad_at(const uint8_t *x)
{
    int32_t v;
    __builtin_memcpy(&v, x, sizeof v);
    return v;
}

MIX__KERNEL_TEMPLATE void tile(int rows, int panels, int32_t *acc, const uint8_t *x,
                               const int8_t *w, const int32_t *start, const struct mix__gemm *g)
{
    __m512i sum[ROWS][PANELS];
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < panels; p++)
            sum[r][p] = _mm512_loadu_si512(start + p * MIX__PANEL);
    for (size_t d = 0; d < g->depth; d += MIX__QUAD) {
        __m512i weights[PANELS];
        for (int p = 0; p < panels; p++)
            weights[p] = _mm512_loadu_si512(w + (size_t)p * MIX__PANEL * g->depth + d * MIX__PANEL);
        for (int r = 0; r < rows; r++) {
            const __m512i v = _mm512_set1_epi32(quad_at(x + (size_t)r * g->x_stride + d));
            for (int p = 0; p < panels; p++)
                sum[r][p] = _mm512_dpbusd_epi32(sum[r][p], v, weights[p]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < panels; p++)
            _mm512_storeu_si512(acc + (size_t)r * g->k + p * MIX__PANEL, sum[r][p]);
}

MIX__KERNEL_TEMPLATE void rows_of(int rows, int32_t *acc, const uint8_t *x, const int8_t *w,
                                  const struct mix__gemm *g)
{
    size_t k = 0;
    for (; k + PANELS * MIX__PANEL <= g->k; k += PANELS * MIX__PANEL)
        tile(rows, PANELS, acc + k, x, w + k * g->depth, g->start + k, g);
    if (k < g->k)
        tile(rows, 1, acc + k, x, w + k * g->depth, g->start + k, g);
}

static void gemm_vnni(int32_t *acc, const uint8_t *x, const int8_t *w, const struct mix__gemm *g)
{
    size_t r = 0;
    for (; r + ROWS <= g->rows; r += ROWS)
        rows_of(ROWS, acc + r * g->k, x + r * g->x_stride, w, g);
    for (; r + 2 <= g->rows; r += 2)
        rows_of(2, acc + r * g->k, x + r * g->x_stride, w, g);
    if (r < g->rows)
        rows_of(1, acc + r * g->k, x + r * g->x_stride, w, g);
}

/* ---- depthwise: 32 channels and 4 taps at a time -------------------------------------------- */

/*
 * Bytes of four taps are interleaved, so that the four of a channel lie side by side. That leaves
 * channels in this order in the four vectors, and weights are packed in the same:
 *
 *   0..3 | 16..19     4..7 | 20..23     8..11 | 24..27     12..15 | 28..31
 */
enum { CHANNELS = 32, TAPS = 4, VECTORS = 4, VECTOR_BYTES = 32 };

static size_t groups_of(size_t n_taps)
{
    return (n_taps + TAPS - 1) / TAPS;
}

static size_t depthwise_packed_vnni(size_t n_taps, size_t c)
{
    return mix__round_up(c, CHANNELS) * groups_of(n_taps) * TAPS;
}

static void depthwise_pack_vnni(int8_t *to, const int8_t *codes, size_t n_taps, size_t c)
{
    const size_t groups = groups_of(n_taps);
    __builtin_memset(to, 0, depthwise_packed_vnni(n_taps, c));
    for (size_t i = 0; i < c; i++) {
        const size_t at = i % CHANNELS, vector = at % 16 / 4, lane = at / 16 * 4 + at % 4;
        int8_t *block = to + i / CHANNELS * CHANNELS * groups * TAPS;
        for (size_t t = 0; t < n_taps; t++)
            block[(t / TAPS * VECTORS + vector) * VECTOR_BYTES + lane * TAPS + t % TAPS] =
                codes[i * n_taps + t];
    }
}

/* part: not all 32 channels are there. */
MIX__KERNEL_TEMPLATE __m256i tap_at(const uint8_t *tap, bool part, __mmask32 mask)
{
    return part ? _mm256_maskz_loadu_epi8(mask, tap)
                : _mm256_loadu_si256((const __m256i *)(const void *)tap);
}

static inline void add_taps(__m256i *sum, const __m256i *x, const int8_t *w)
{
    const __m256i low0 = _mm256_unpacklo_epi8(x[0], x[1]), low1 = _mm256_unpacklo_epi8(x[2], x[3]);
    const __m256i high0 = _mm256_unpackhi_epi8(x[0], x[1]);
    const __m256i high1 = _mm256_unpackhi_epi8(x[2], x[3]);
    const __m256i quads[VECTORS] = { _mm256_unpacklo_epi16(low0, low1),
                                     _mm256_unpackhi_epi16(low0, low1),
                                     _mm256_unpacklo_epi16(high0, high1),
                                     _mm256_unpackhi_epi16(high0, high1) };
    for (int v = 0; v < VECTORS; v++)
        sum[v] = _mm256_dpbusd_epi32(
            sum[v], quads[v],
            _mm256_loadu_si256((const __m256i *)(const void *)(w + v * VECTOR_BYTES)));
}

MIX__KERNEL_TEMPLATE void put_sums(int32_t *acc, const int32_t *start, __m256i sum, bool part,
                                   unsigned mask)
{
    const __mmask8 m = part ? (__mmask8)mask : 0xff;
    _mm256_mask_storeu_epi32(acc, m, _mm256_add_epi32(sum, _mm256_maskz_loadu_epi32(m, start)));
}

/* 32 channels from i on. */
MIX__KERNEL_TEMPLATE void channels_of(size_t n_taps, bool part, int32_t *acc,
                                      const uint8_t *const *taps, const int8_t *w, size_t i,
                                      const struct mix__depthwise *d)
{
    const unsigned mask = part ? (1u << (d->c - i)) - 1 : ~0u;
    const __m256i zero = _mm256_setzero_si256();
    __m256i sum[VECTORS] = { zero, zero, zero, zero };
    for (size_t t = 0; t < n_taps; t += TAPS, w += VECTORS * VECTOR_BYTES) {
        __m256i x[TAPS];
        for (size_t k = 0; k < TAPS; k++)
            x[k] = t + k < n_taps ? tap_at(taps[t + k] + i, part, mask) : zero;
        add_taps(sum, x, w);
    }
    const int32_t *start = d->start + i;
    acc += i;
    put_sums(acc, start, _mm256_permute2x128_si256(sum[0], sum[1], 0x20), part, mask);
    put_sums(acc + 8, start + 8, _mm256_permute2x128_si256(sum[2], sum[3], 0x20), part, mask >> 8);
    put_sums(acc + 16, start + 16, _mm256_permute2x128_si256(sum[0], sum[1], 0x31), part,
             mask >> 16);
    put_sums(acc + 24, start + 24, _mm256_permute2x128_si256(sum[2], sum[3], 0x31), part,
             mask >> 24);
}

/* 3x3 kernels have loops of a known length. */
MIX__KERNEL_TEMPLATE void depthwise_as(size_t n_taps, int32_t *acc, const uint8_t *const *taps,
                                       const int8_t *w, const struct mix__depthwise *d)
{
    const size_t block = CHANNELS * groups_of(n_taps) * TAPS;
    size_t i = 0;
    for (; i + CHANNELS <= d->c; i += CHANNELS, w += block)
        channels_of(n_taps, false, acc, taps, w, i, d);
    if (i < d->c)
        channels_of(n_taps, true, acc, taps, w, i, d);
}

static void depthwise_vnni(int32_t *acc, const uint8_t *const *taps, const int8_t *w,
                           const struct mix__depthwise *d)
{
    if (d->n_taps == 9)
        depthwise_as(9, acc, taps, w, d);
    else
        depthwise_as(d->n_taps, acc, taps, w, d);
}

void mix__kernels_products_vnni(struct mix__kernels *k)
{
    k->gemm = gemm_vnni;
    k->depthwise_packed = depthwise_packed_vnni;
    k->depthwise_pack = depthwise_pack_vnni;
    k->depthwise = depthwise_vnni;
}
