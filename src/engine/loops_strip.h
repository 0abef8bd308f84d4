/*
 * engine/loops_strip.h - what loops.c, loops_basic.c and loops_depthwise.c walk over.
 *
 * Rows of channels are taken in strips of at most WIDE floats that lie side by side. A strip is a
 * block of one row's channels or, where rows are short, several whole rows; per-channel values are
 * repeated to the strip's length. Strips are multiples of GRAIN values where the channels allow it,
 * so that they begin and end with a cache line, of bfloat16 too.
 *
 *   c = 24    | row 0 | row 1 |  ...  | row 11 |              a strip of 288
 *   c = 320   | row 0, channels 0..159 | channels 160..319 |  two strips
 *
 * Sums are kept for each place in the strip, in float for at most FOLD strips and in double
 * after that. No sum crosses a vector, so every vector length gives the same bits; nothing is
 * contracted to FMA either (-ffp-contract=off).
 */
#ifndef METAMIX_ENGINE_LOOPS_STRIP_H
#define METAMIX_ENGINE_LOOPS_STRIP_H

#include "engine/loops_isa.h"

#include <assert.h>
#include <string.h>

enum { WIDE = 288, FOLD = 256, GRAIN = 32, PARTIAL = 8, AHEAD = 16384 /* bytes */ };

#define SIMD    _Pragma("omp simd")
#define ALIGNED _Alignas(64)

struct strip {
    size_t first, width; /* channels [first, first + width)        */
    size_t rows;         /* rows in a strip; 1 unless width == c   */
};

/* Blocks of nearly equal width; width 0 behind the last one. */
static inline struct strip strip_at(size_t c, size_t first)
{
    if (first >= c)
        return (struct strip){ 0 };
    const size_t blocks = (c + WIDE - 1) / WIDE;
    const size_t even = ((c + blocks - 1) / blocks + GRAIN - 1) / GRAIN * GRAIN;
    const size_t width = MIN(even, c - first);
    if (width < c)
        return (struct strip){ first, width, 1 };
    const size_t rows = WIDE / c;
    const size_t whole = GRAIN / MIN(c & -c, GRAIN); /* so many rows are a multiple of GRAIN */
    return (struct strip){ first, width, rows < whole ? rows : rows - rows % whole };
}

/* Asks for what lies behind a strip, to be read or written soon: the CPU's own prefetching alone
 * leaves the loops waiting for memory. */
MIX__TEMPLATE void ahead(struct mix__values x, size_t at, size_t n, bool write)
{
    const char *from = (const char *)mix__values_from(x, at).at + AHEAD;
    for (size_t b = 0; b < n * mix__dtype_size(x.dtype); b += 64)
        if (write)
            __builtin_prefetch(from + b, 1);
        else
            __builtin_prefetch(from + b, 0);
}

/* The values of a strip's channels to its places. */
static inline void spread(float *out, const float *in, const struct strip *s)
{
    for (size_t r = 0; r < s->rows; r++)
        memcpy(out + r * s->width, in, s->width * sizeof *out);
}

/* The sum of n floats, a multiple of PARTIAL, in an order that does not depend on the vector length.
 */
static inline double total(const float *place, size_t n)
{
    double part[PARTIAL] = { 0 }, sum = 0;
    for (size_t i = 0; i < n; i += PARTIAL)
        for (size_t k = 0; k < PARTIAL; k++)
            part[k] += place[i + k];
    for (size_t k = 0; k < PARTIAL; k++)
        sum += part[k];
    return sum;
}

/*
 * Activation and number of branches (2 stands for any number above 1) become constants. The
 * first arguments of f are these two.
 */
enum { MANY = 2 };
#define CASE(f, act, branches, ...)                                                                \
    case 3 * (act) + (branches):                                                                   \
        f(act, branches, __VA_ARGS__);                                                             \
        break;
#define CASES(f, act, ...)                                                                         \
    CASE(f, act, 0, __VA_ARGS__)                                                                   \
    CASE(f, act, 1, __VA_ARGS__)                                                                   \
    CASE(f, act, MANY, __VA_ARGS__)
#define SPECIALISE(f, act, branches, ...)                                                          \
    switch (3 * (int)(act) + MIN(branches, MANY)) {                                                \
        CASES(f, MIX__ACT_NONE, __VA_ARGS__)                                                       \
        CASES(f, MIX__ACT_RELU, __VA_ARGS__)                                                       \
        CASES(f, MIX__ACT_RELU6, __VA_ARGS__)                                                      \
        CASES(f, MIX__ACT_HARDSWISH, __VA_ARGS__)                                                  \
        CASES(f, MIX__ACT_HARDSIGMOID, __VA_ARGS__)                                                \
    }

#endif
