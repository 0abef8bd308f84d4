/*
 * kernels/kernels.h - integer kernels, one table for each instruction set. The C table is the
 * specification; every other one gives the same bits: sums of products are exact, and what is done
 * to floats is done in one order (doc/numerics.md, "Integer inference").
 *
 * Activation codes are stored as u8: unsigned and shifted codes as they are, signed ones with p
 * added, so 0 is stored as p ("zero"). What that adds to a sum, p * (sum of weight codes), is taken
 * off by the sum's start.
 *
 * Kernels run in one thread and allocate nothing.
 */
#ifndef METAMIX_KERNELS_KERNELS_H
#define METAMIX_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "quant/act.h"

/* What is done with every float value: y = act(value), then, for codes, its stored code. */
struct mix__finish {
    enum mix__act act;
    bool codes; /* y is u8; else float */
    struct mix__bounds bounds;
    float step, zero; /* zero: p for a signed tensor, else 0 */
};

struct mix__finish mix__finish_floats(enum mix__act act);
struct mix__finish mix__finish_codes(enum mix__act act, int bits, mix_range range, float step);

/*
 * A product of matrices, acc (rows, k) = start (k) + x (rows, depth) * w (k, depth)^T. depth is a
 * multiple of MIX__QUAD, k of MIX__PANEL; missing weights are 0, what x holds there is not used.
 *
 * Packed weights: for each panel of 16 channels and each 4 products, 64 bytes:
 *
 *   byte   0   1   2   3    4   5   6   7         60  61  62  63
 *        +----------------+----------------+-- --+----------------+
 *        | d  d+1 d+2 d+3 | d  d+1 d+2 d+3 | ... | d  d+1 d+2 d+3 |
 *        +----------------+----------------+-- --+----------------+
 *            channel k        channel k+1            channel k+15
 */
enum { MIX__PANEL = 16, MIX__QUAD = 4 };

struct mix__gemm {
    size_t rows, depth, k;
    size_t x_stride; /* bytes from row to row of x */
    int runs;        /* how often the sum of two products fits into int16 without overflow: from
                        mix__gemm_runs(); 0: not even once */
    const int32_t *start;
};

/*
 * A depthwise convolution at some places of a row: acc (places, c) = start (c) + sum over the taps
 * of a place of tap[t][c] * w[t][c]. Taps are pixels by column, from top to bottom; neighbours
 * share columns, so the taps of a place begin `stride` columns behind those of the place before:
 *
 *     taps    0 3 6 | 9 ..     of a 3x3 kernel with stride 1: place 0 has 0 to 8,
 *             1 4 7 |10 ..     place 1 has 3 to 11
 *             2 5 8 |11 ..
 */
struct mix__depthwise {
    size_t kernel, stride, places, c;
    int runs; /* how many products fit into an int16: mix__depthwise_runs() */
    const int32_t *start;
};

/* Sums to values: value[r][i] = scale[i] * (float)acc[r][i] + offset[i], two roundings. */
struct mix__sums {
    const int32_t *acc;
    size_t rows, n, acc_stride, y_stride; /* strides in elements */
    const float *scale, *offset;          /* (n) */
};

struct mix__kernels {
    void (*gemm)(int32_t *acc, const uint8_t *x, const int8_t *w, const struct mix__gemm *g);
    /* w as depthwise_pack() leaves it, depthwise_packed() bytes; its codes are (c, r, s). */
    size_t (*depthwise_packed)(size_t kernel, size_t c);
    void (*depthwise_pack)(int8_t *to, const int8_t *codes, size_t kernel, size_t c);
    void (*depthwise)(int32_t *acc, const uint8_t *const *taps, const int8_t *w,
                      const struct mix__depthwise *d);
    void (*sums)(void *y, const struct mix__sums *s, const struct mix__finish *f);
    void (*values)(void *y, const float *x, size_t n, const struct mix__finish *f);
    void (*add)(void *y, const float *a, const float *b, size_t n, const struct mix__finish *f);
    /* x (rows, c) times gate (c) */
    void (*gate)(void *y, const float *x, const float *gate, size_t rows, size_t c,
                 const struct mix__finish *f);
    void (*largest)(float *y, const float *x, size_t n); /* y = max(x, y); x's not-a-numbers win */
    void (*accumulate)(float *y, const float *x, size_t n); /* y += x */
};

/* The table for these MIX_CPU_ flags: C, then AVX2, then AVX-512 with VNNI. */
void mix__kernels_init(struct mix__kernels *kernels, unsigned cpu);

/* x_max: largest stored code; w_max: largest |weight code|. */
int mix__gemm_runs(int x_max, int w_max);
int mix__depthwise_runs(int x_max, int w_max);

static inline size_t mix__round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* Bytes of k rows of depth codes when packed. */
static inline size_t mix__gemm_packed(size_t k, size_t depth)
{
    return mix__round_up(k, MIX__PANEL) * mix__round_up(depth, MIX__QUAD);
}
/* codes (k, depth), both of any size. */
void mix__gemm_pack(int8_t *to, const int8_t *codes, size_t k, size_t depth);

#endif
