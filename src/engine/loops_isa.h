/*
 * engine/loops_isa.h - what loops.c, loops_basic.c and loops_depthwise.c define, each time that
 * they are compiled: functions that put their loops into the table. MIX_LOOPS_ISA is the name of
 * the instruction set.
 */
#ifndef METAMIX_ENGINE_LOOPS_ISA_H
#define METAMIX_ENGINE_LOOPS_ISA_H

#include "engine/loops.h"

#define MIX__LOOPS_DECLARE(isa)                                                                    \
    void mix__loops_fill_##isa(struct mix__loops *loops);                                          \
    void mix__loops_fill_basic_##isa(struct mix__loops *loops);                                    \
    void mix__loops_fill_depthwise_##isa(struct mix__loops *loops);

MIX__LOOPS_DECLARE(c)
MIX__LOOPS_DECLARE(avx2)
MIX__LOOPS_DECLARE(avx512)
MIX__LOOPS_DECLARE(avx512_bf16)

#define MIX__LOOPS_PASTE(name, isa)  name##_##isa
#define MIX__LOOPS_EXPAND(name, isa) MIX__LOOPS_PASTE(name, isa)
#define MIX__LOOPS_NAME(name)        MIX__LOOPS_EXPAND(name, MIX_LOOPS_ISA)

/* The same values, their type a constant. */
#define F32(v)  ((struct mix__values){ (v).at, MIX__DTYPE_F32 })
#define BF16(v) ((struct mix__values){ (v).at, MIX__DTYPE_BF16 })
#define BYTE(v) ((struct mix__values){ (v).at, MIX__DTYPE_U8 }) /* S8 has the same bits */

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Copies of such a function are made for constant arguments. */
#define MIX__TEMPLATE static inline __attribute__((always_inline))

#endif
