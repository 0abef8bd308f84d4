/*
 * tensor/packed.h - signed codes of 2 to 8 bits without gaps, as they lie in files.
 *
 * Code i takes bits [i * b, (i + 1) * b) of the stream, two's complement, the lowest bit first;
 * stream bit j is bit j % 8 of byte j / 8. Bits behind the last code are zero.
 *
 *   b = 3   byte        0                 1                 2
 *           bit    7 6 5 4 3 2 1 0   7 6 5 4 3 2 1 0   7 6 5 4 3 2 1 0
 *           code   2 2 1 1 1 0 0 0   5 4 4 4 3 3 3 2   7 7 7 6 6 6 5 5
 */
#ifndef METAMIX_TENSOR_PACKED_H
#define METAMIX_TENSOR_PACKED_H

#include <stddef.h>
#include <stdint.h>

static inline size_t mix__packed_bytes(size_t n, int bits)
{
    return n / 8 * (size_t)bits + (n % 8 * (size_t)bits + 7) / 8;
}

/* Codes lie in [-2^(bits-1), 2^(bits-1)). to: mix__packed_bytes(n, bits). */
void mix__codes_pack(uint8_t *to, const int8_t *codes, size_t n, int bits);
void mix__codes_unpack(int8_t *codes, const uint8_t *from, size_t n, int bits);

#endif
