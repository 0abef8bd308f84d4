/*
 * kernels/kernels_isa.h - functions that put their kernels into the table. finish.c is compiled
 * once for each instruction set, MIX_KERNELS_ISA being its name; the files in x86/ are written for
 * one.
 */
#ifndef METAMIX_KERNELS_KERNELS_ISA_H
#define METAMIX_KERNELS_KERNELS_ISA_H

#include "kernels/kernels.h"

void mix__kernels_fill_c(struct mix__kernels *k);
void mix__kernels_fill_avx2(struct mix__kernels *k);
void mix__kernels_fill_avx512(struct mix__kernels *k);
void mix__kernels_products_c(struct mix__kernels *k);
void mix__kernels_products_avx2(struct mix__kernels *k);
void mix__kernels_products_vnni(struct mix__kernels *k);

#define MIX__KERNELS_PASTE(name, isa)  name##_##isa
#define MIX__KERNELS_EXPAND(name, isa) MIX__KERNELS_PASTE(name, isa)
#define MIX__KERNELS_NAME(name)        MIX__KERNELS_EXPAND(name, MIX_KERNELS_ISA)

/* Copies of such a function are made for constant arguments. */
#define MIX__KERNEL_TEMPLATE static inline __attribute__((always_inline))

#endif
