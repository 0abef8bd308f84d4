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
enum { CHANNELS = 32, TAPS = 4, VECTORS = 4, VECTOR_BYTES = 32, COLUMNS = 3 };

static size_t groups_of(size_t kernel)
{
    return (kernel * kernel + TAPS - 1) / TAPS;
}

/* The slot of a tap, numbered by column: those of a 3x3 kernel have a group for each column. */
static size_t slot_of(size_t kernel, size_t tap)
{
    return kernel == COLUMNS ? tap / COLUMNS * TAPS + tap % COLUMNS : tap;
}

static size_t depthwise_packed_vnni(size_t kernel, size_t c)
{
    return mix__round_up(c, CHANNELS) * groups_of(kernel) * TAPS;
}

static void depthwise_pack_vnni(int8_t *to, const int8_t *codes, size_t kernel, size_t c)
{
    const size_t groups = groups_of(kernel), n_taps = kernel * kernel;
    __builtin_memset(to, 0, depthwise_packed_vnni(kernel, c));
    for (size_t i = 0; i < c; i++) {
        const size_t at = i % CHANNELS, vector = at % 16 / 4, lane = at / 16 * 4 + at % 4;
        int8_t *block = to + i / CHANNELS * CHANNELS * groups * TAPS;
        for (size_t t = 0; t < n_taps; t++) {
            const size_t slot = slot_of(kernel, t), column = t / kernel, row = t % kernel;
            block[(slot / TAPS * VECTORS + vector) * VECTOR_BYTES + lane * TAPS + slot % TAPS] =
                codes[i * n_taps + row * kernel + column];
        }
    }
}

/* A block of channels from i on; part: not all 32 are there. */
struct block {
    size_t i;
    bool part;
    unsigned mask;
};

MIX__KERNEL_TEMPLATE __m256i tap_at(const uint8_t *tap, struct block b)
{
    return b.part ? _mm256_maskz_loadu_epi8(b.mask, tap + b.i)
                  : _mm256_loadu_si256((const __m256i *)(const void *)(tap + b.i));
}

/* The vectors of up to four taps. */
MIX__KERNEL_TEMPLATE void interleave(__m256i *quads, const uint8_t *const *taps, size_t n,
                                     struct block b)
{
    const __m256i zero = _mm256_setzero_si256();
    __m256i x[TAPS];
    for (size_t k = 0; k < TAPS; k++)
        x[k] = k < n ? tap_at(taps[k], b) : zero;
    const __m256i low0 = _mm256_unpacklo_epi8(x[0], x[1]), low1 = _mm256_unpacklo_epi8(x[2], x[3]);
    const __m256i high0 = _mm256_unpackhi_epi8(x[0], x[1]);
    const __m256i high1 = _mm256_unpackhi_epi8(x[2], x[3]);
    quads[0] = _mm256_unpacklo_epi16(low0, low1);
    quads[1] = _mm256_unpackhi_epi16(low0, low1);
    quads[2] = _mm256_unpacklo_epi16(high0, high1);
    quads[3] = _mm256_unpackhi_epi16(high0, high1);
}

static inline void add_products(__m256i *sum, const __m256i *quads, const int8_t *w)
{
    for (int v = 0; v < VECTORS; v++)
        sum[v] = _mm256_dpbusd_epi32(
            sum[v], quads[v],
            _mm256_loadu_si256((const __m256i *)(const void *)(w + v * VECTOR_BYTES)));
}

/* What the four vectors start from. */
MIX__KERNEL_TEMPLATE void load_start(__m256i *sum, const int32_t *start, struct block b)
{
    __m256i s[VECTORS];
    for (size_t v = 0; v < VECTORS; v++)
        s[v] = _mm256_maskz_loadu_epi32((__mmask8)(b.mask >> 8 * v), start + b.i + 8 * v);
    sum[0] = _mm256_permute2x128_si256(s[0], s[2], 0x20);
    sum[1] = _mm256_permute2x128_si256(s[0], s[2], 0x31);
    sum[2] = _mm256_permute2x128_si256(s[1], s[3], 0x20);
    sum[3] = _mm256_permute2x128_si256(s[1], s[3], 0x31);
}

MIX__KERNEL_TEMPLATE void put_sums(int32_t *acc, const __m256i *sum, struct block b)
{
    const __m256i s[VECTORS] = { _mm256_permute2x128_si256(sum[0], sum[1], 0x20),
                                 _mm256_permute2x128_si256(sum[2], sum[3], 0x20),
                                 _mm256_permute2x128_si256(sum[0], sum[1], 0x31),
                                 _mm256_permute2x128_si256(sum[2], sum[3], 0x31) };
    for (size_t v = 0; v < VECTORS; v++)
        if (b.part)
            _mm256_mask_storeu_epi32(acc + b.i + 8 * v, (__mmask8)(b.mask >> 8 * v), s[v]);
        else
            _mm256_storeu_si256((__m256i *)(void *)(acc + b.i + 8 * v), s[v]);
}

MIX__KERNEL_TEMPLATE void any_kernel(struct block b, int32_t *acc, const uint8_t *const *taps,
                                     const int8_t *w, const struct mix__depthwise *d)
{
    const size_t n_taps = d->kernel * d->kernel;
    __m256i start[VECTORS];
    load_start(start, d->start, b);
    for (size_t p = 0; p < d->places; p++, acc += d->c, taps += d->stride * d->kernel) {
        __m256i sum[VECTORS] = { start[0], start[1], start[2], start[3] }, quads[VECTORS];
        for (size_t t = 0; t < n_taps; t += TAPS) {
            interleave(quads, taps + t, n_taps - t, b);
            add_products(sum, quads, w + t * VECTOR_BYTES);
        }
        put_sums(acc, sum, b);
    }
}

/* 3x3: a column is interleaved once for all places that see it. */
MIX__KERNEL_TEMPLATE void three_columns(size_t stride, struct block b, int32_t *acc,
                                        const uint8_t *const *taps, const int8_t *w,
                                        const struct mix__depthwise *d)
{
    const size_t kept = stride < COLUMNS ? COLUMNS - stride : 0;
    __m256i start[VECTORS], column[COLUMNS][VECTORS];
    load_start(start, d->start, b);
    for (size_t j = 0; j < kept; j++)
        interleave(column[j], taps + j * COLUMNS, COLUMNS, b);
    for (size_t p = 0; p < d->places; p++, acc += d->c, taps += d->stride * COLUMNS) {
        __m256i sum[VECTORS] = { start[0], start[1], start[2], start[3] };
        for (size_t j = 0; j < COLUMNS; j++) {
            if (j >= kept)
                interleave(column[j], taps + j * COLUMNS, COLUMNS, b);
            add_products(sum, column[j], w + j * VECTORS * VECTOR_BYTES);
        }
        put_sums(acc, sum, b);
        for (size_t j = 0; j < kept; j++)
            for (int v = 0; v < VECTORS; v++)
                column[j][v] = column[j + stride][v];
    }
}

MIX__KERNEL_TEMPLATE void block_of(struct block b, int32_t *acc, const uint8_t *const *taps,
                                   const int8_t *w, const struct mix__depthwise *d)
{
    if (d->kernel == COLUMNS && d->stride == 1)
        three_columns(1, b, acc, taps, w, d);
    else if (d->kernel == COLUMNS && d->stride == 2)
        three_columns(2, b, acc, taps, w, d);
    else if (d->kernel == COLUMNS)
        three_columns(COLUMNS, b, acc, taps, w, d);
    else
        any_kernel(b, acc, taps, w, d);
}

static void depthwise_vnni(int32_t *acc, const uint8_t *const *taps, const int8_t *w,
                           const struct mix__depthwise *d)
{
    const size_t bytes = CHANNELS * groups_of(d->kernel) * TAPS;
    size_t i = 0;
    for (; i + CHANNELS <= d->c; i += CHANNELS, w += bytes)
        block_of((struct block){ i, false, ~0u }, acc, taps, w, d);
    if (i < d->c)
        block_of((struct block){ i, true, (1u << (d->c - i)) - 1 }, acc, taps, w, d);
}

void mix__kernels_products_vnni(struct mix__kernels *k)
{
    k->gemm = gemm_vnni;
    k->depthwise_packed = depthwise_packed_vnni;
    k->depthwise_pack = depthwise_pack_vnni;
    k->depthwise = depthwise_vnni;
}
