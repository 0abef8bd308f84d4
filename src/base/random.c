/*
 * A counter-based generator: seed, stream and index are absorbed one after the other, each
 * followed by the 64-bit finaliser below, so that a change of one bit in any of them changes
 * each bit of the result with probability one half. Not for cryptography.
 */
#include "base/random.h"

#include <assert.h>
#include <math.h>

/* 2^64 / golden ratio, odd: separates counters that differ by small numbers. */
#define WEYL UINT64_C(0x9e3779b97f4a7c15)

/* Stafford's variant 13 of MurmurHash3's finaliser, as in SplitMix64: a bijection. */
static uint64_t finalise(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* Draw number `draw` of one index. */
static uint64_t hash(uint64_t seed, uint64_t stream, uint64_t index, uint64_t draw)
{
    uint64_t h = finalise(seed + WEYL);
    h = finalise(h ^ (stream * WEYL + 1));
    h = finalise(h + index * WEYL);
    return finalise(h + (draw + 1) * WEYL);
}

/* The upper 53 bits as a multiple of 2^-53 in [0, 1): every value is exact. */
static double unit(uint64_t bits)
{
    return (double)(bits >> 11) * 0x1p-53;
}

uint64_t mix__random_u64(uint64_t seed, uint64_t stream, uint64_t index)
{
    return hash(seed, stream, index, 0);
}

double mix__random_uniform(uint64_t seed, uint64_t stream, uint64_t index)
{
    return unit(hash(seed, stream, index, 0));
}

/* Box-Muller, the cosine half; 1 - u lies in (0, 1], so the logarithm is finite. */
double mix__random_normal(uint64_t seed, uint64_t stream, uint64_t index)
{
    const double two_pi = 6.283185307179586;
    const double radius = sqrt(-2.0 * log(1.0 - unit(hash(seed, stream, index, 0))));
    return radius * cos(two_pi * unit(hash(seed, stream, index, 1)));
}

void mix__random_shuffle(uint64_t seed, uint64_t stream, uint32_t *order, size_t n)
{
    assert(n <= UINT32_MAX);
    for (size_t i = 0; i < n; i++) {
        const size_t j = (size_t)(mix__random_uniform(seed, stream, i) * (double)(i + 1));
        order[i] = (uint32_t)i;
        const uint32_t swapped = order[j];
        order[j] = order[i];
        order[i] = swapped;
    }
}
