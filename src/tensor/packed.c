#include "tensor/packed.h"

void mix__codes_pack(uint8_t *to, const int8_t *codes, size_t n, int bits)
{
    const unsigned mask = (1u << bits) - 1;
    unsigned held = 0; /* bits that do not fill a byte yet */
    int n_held = 0;
    for (size_t i = 0; i < n; i++) {
        held |= ((unsigned)codes[i] & mask) << n_held;
        n_held += bits;
        if (n_held >= 8) {
            *to++ = (uint8_t)held;
            held >>= 8;
            n_held -= 8;
        }
    }
    if (n_held)
        *to = (uint8_t)held;
}

void mix__codes_unpack(int8_t *codes, const uint8_t *from, size_t n, int bits)
{
    const unsigned mask = (1u << bits) - 1;
    const int sign = 1 << (bits - 1);
    unsigned held = 0;
    int n_held = 0;
    for (size_t i = 0; i < n; i++) {
        if (n_held < bits) {
            held |= (unsigned)*from++ << n_held;
            n_held += 8;
        }
        codes[i] = (int8_t)(((int)(held & mask) ^ sign) - sign);
        held >>= bits;
        n_held -= bits;
    }
}
