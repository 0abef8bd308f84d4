/*
 * kernels/kernels.c - the choice of a table, packing, and what follows from bit-widths.
 */
#include <string.h>

#include "kernels/kernels_isa.h"
#include "metamix/context.h"

void mix__kernels_init(struct mix__kernels *k, unsigned cpu)
{
    mix__kernels_fill_c(k);
    mix__kernels_products_c(k);
#if defined(__x86_64__)
    if (!(cpu & MIX_CPU_AVX2))
        return;
    mix__kernels_fill_avx2(k);
    mix__kernels_products_avx2(k);
    if (!(cpu & MIX_CPU_AVX512))
        return;
    mix__kernels_fill_avx512(k);
    if (cpu & MIX_CPU_VNNI)
        mix__kernels_products_vnni(k);
#else
    (void)cpu;
#endif
}

struct mix__finish mix__finish_floats(enum mix__act act)
{
    return (struct mix__finish){ .act = act, .step = 1.0f };
}

struct mix__finish mix__finish_codes(enum mix__act act, int bits, mix_range range, float step)
{
    const struct mix__bounds b = mix__bounds_activation(bits, range);
    return (struct mix__finish){ act, true, b, step, -b.n };
}

int mix__gemm_runs(int x_max, int w_max)
{
    return INT16_MAX / (2 * x_max * w_max);
}

int mix__depthwise_runs(int x_max, int w_max)
{
    return INT16_MAX / (x_max * w_max);
}

void mix__gemm_pack(int8_t *to, const int8_t *codes, size_t k, size_t depth)
{
    const size_t padded = mix__round_up(depth, MIX__QUAD);
    memset(to, 0, mix__gemm_packed(k, depth));
    for (size_t i = 0; i < k; i++) {
        int8_t *at = to + i / MIX__PANEL * MIX__PANEL * padded + i % MIX__PANEL * MIX__QUAD;
        for (size_t d = 0; d < depth; d++)
            at[d / MIX__QUAD * MIX__PANEL * MIX__QUAD + d % MIX__QUAD] = codes[i * depth + d];
    }
}
