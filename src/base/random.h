/*
 * base/random.h - counter-based random numbers: a pure function of (seed, stream, index).
 *
 * Nothing is kept between calls, so a value does not depend on thread, order or a
 * restart. A stream is one purpose (the list below) with the epoch, parameter or layer number
 * added.
 */
#ifndef METAMIX_BASE_RANDOM_H
#define METAMIX_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* Purposes; add counters up to 2^40 - 1. */
#define MIX__STREAM(purpose, counter) (((uint64_t)(purpose) << 40) | (uint64_t)(counter))
enum {
    MIX__RANDOM_WEIGHT = 1, /* counter: parameter */
    MIX__RANDOM_SHUFFLE,    /* counter: epoch     */
    MIX__RANDOM_AUGMENT,    /* counter: epoch     */
    MIX__RANDOM_DROPOUT,    /* counter: step      */
    MIX__RANDOM_ALPHA,      /* counter: layer     */
    MIX__RANDOM_BITS        /* counter: layer     */
};

uint64_t mix__random_u64(uint64_t seed, uint64_t stream, uint64_t index);
double mix__random_uniform(uint64_t seed, uint64_t stream, uint64_t index); /* [0, 1) */
double mix__random_normal(uint64_t seed, uint64_t stream, uint64_t index);  /* N(0, 1) */
/* order[0..n) becomes a permutation of 0..n-1 (Fisher-Yates). */
void mix__random_shuffle(uint64_t seed, uint64_t stream, uint32_t *order, size_t n);

#endif
