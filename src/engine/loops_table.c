#include "engine/loops_isa.h"

void mix__loops_init(struct mix__loops *loops, unsigned cpu)
{
    mix__loops_fill_c(loops);
    mix__loops_fill_basic_c(loops);
    mix__loops_fill_depthwise_c(loops);
#if defined(__x86_64__)
    if (!(cpu & MIX_CPU_AVX2))
        return;
    mix__loops_fill_avx2(loops);
    mix__loops_fill_basic_avx2(loops);
    mix__loops_fill_depthwise_avx2(loops);
    if (!(cpu & MIX_CPU_AVX512))
        return;
    mix__loops_fill_avx512(loops);
    mix__loops_fill_basic_avx512(loops);
    mix__loops_fill_depthwise_avx512(loops);
    if (!(cpu & MIX_CPU_BF16))
        return;
    mix__loops_fill_avx512_bf16(loops);
    mix__loops_fill_basic_avx512_bf16(loops);
    mix__loops_fill_depthwise_avx512_bf16(loops);
#else
    (void)cpu;
#endif
}
