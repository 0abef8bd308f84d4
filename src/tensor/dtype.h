/*
 * tensor/dtype.h - the element types that a tensor can have.
 */
#ifndef METAMIX_TENSOR_DTYPE_H
#define METAMIX_TENSOR_DTYPE_H

#include <stddef.h>

enum mix__dtype { MIX__DTYPE_F32, MIX__DTYPE_BF16, MIX__DTYPE_S8, MIX__DTYPE_U8 };

/* Bytes of one element. */
static inline size_t mix__dtype_size(enum mix__dtype dtype)
{
    return dtype == MIX__DTYPE_F32 ? 4 : dtype == MIX__DTYPE_BF16 ? 2 : 1;
}

#endif
