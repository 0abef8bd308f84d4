/*
 * base/bytes.h - numbers in files.
 */
#ifndef METAMIX_BASE_BYTES_H
#define METAMIX_BASE_BYTES_H

#include <stddef.h>
#include <stdint.h>

/* Of 1 to 8 bytes, the lowest one first. */
static inline uint64_t mix__number(const void *at, size_t bytes)
{
    uint64_t n = 0;
    while (bytes-- > 0)
        n = n << 8 | ((const unsigned char *)at)[bytes];
    return n;
}

#endif
