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

void mix__kernels_products_vnni(struct mix__kernels *k)
{
    k->gemm = gemm_vnni;
}
