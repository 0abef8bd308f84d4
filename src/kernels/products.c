/*
 * kernels/products.c - sums of products in C: what every other instruction set must give.
 */
#include "kernels/kernels_isa.h"

static void gemm_c(int32_t *acc, const uint8_t *x, const int8_t *w, const struct mix__gemm *g)
{
    for (size_t r = 0; r < g->rows; r++) {
        const uint8_t *row = x + r * g->x_stride;
        for (size_t k = 0; k < g->k; k++) {
            const size_t panel = k / MIX__PANEL * MIX__PANEL, lane = k % MIX__PANEL;
            const int8_t *from = w + panel * g->depth + lane * MIX__QUAD;
            int32_t sum = g->start[k];
            for (size_t d = 0; d < g->depth; d++)
                sum += row[d] * from[d / MIX__QUAD * MIX__PANEL * MIX__QUAD + d % MIX__QUAD];
            acc[r * g->k + k] = sum;
        }
    }
}

static size_t depthwise_packed_c(size_t kernel, size_t c)
{
    return kernel * kernel * c;
}

/* (s, r, c), for AVX2 too */
static void depthwise_pack_c(int8_t *to, const int8_t *codes, size_t kernel, size_t c)
{
    for (size_t i = 0; i < c; i++)
        for (size_t r = 0; r < kernel; r++)
            for (size_t s = 0; s < kernel; s++)
                to[(s * kernel + r) * c + i] = codes[(i * kernel + r) * kernel + s];
}

static void depthwise_c(int32_t *acc, const uint8_t *const *taps, const int8_t *w,
                        const struct mix__depthwise *d)
{
    for (size_t p = 0; p < d->places; p++, acc += d->c, taps += d->stride * d->kernel) {
        for (size_t i = 0; i < d->c; i++)
            acc[i] = d->start[i];
        for (size_t t = 0; t < d->kernel * d->kernel; t++)
            for (size_t i = 0; i < d->c; i++)
                acc[i] += taps[t][i] * w[t * d->c + i];
    }
}

void mix__kernels_products_c(struct mix__kernels *k)
{
    k->gemm = gemm_c;
    k->depthwise_packed = depthwise_packed_c;
    k->depthwise_pack = depthwise_pack_c;
    k->depthwise = depthwise_c;
}
