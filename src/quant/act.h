/*
 * quant/act.h - activation functions, as training and runtime both compute them.
 */
#ifndef METAMIX_QUANT_ACT_H
#define METAMIX_QUANT_ACT_H

#include "quant/quant.h"

enum mix__act {
    MIX__ACT_NONE,
    MIX__ACT_RELU,
    MIX__ACT_RELU6,
    MIX__ACT_HARDSWISH,   /* u relu6(u + 3) / 6 */
    MIX__ACT_HARDSIGMOID, /* relu6(u + 3) / 6   */
    MIX__ACTS
};

/* Not a number stays so. Always inlined: act is a constant where speed matters. */
static inline __attribute__((always_inline)) float mix__activate(float u, enum mix__act act)
{
    if (act == MIX__ACT_RELU)
        return u < 0.0f ? 0.0f : u;
    if (act == MIX__ACT_RELU6)
        return mix__clip(u, 0.0f, 6.0f);
    if (act == MIX__ACT_HARDSWISH)
        return u * mix__clip(u + 3.0f, 0.0f, 6.0f) / 6.0f;
    return act == MIX__ACT_HARDSIGMOID ? mix__clip(u + 3.0f, 0.0f, 6.0f) / 6.0f : u;
}

#endif
