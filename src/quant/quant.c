#include "quant/quant.h"

#include <assert.h>

static float levels(int bits)
{
    assert(bits >= 1 && bits <= MIX_BITS_MAX);
    return (float)((1 << bits) - 1);
}

/* One code is left unused so that the range is symmetric and 0 needs no zero point. */
static struct mix__bounds symmetric(int bits)
{
    const float p = levels(bits - 1);
    return (struct mix__bounds){ .n = -p, .p = p };
}

struct mix__bounds mix__bounds_weight(int bits)
{
    return symmetric(bits);
}

struct mix__bounds mix__bounds_activation(int bits, mix_range range)
{
    if (range == MIX_RANGE_SIGNED)
        return symmetric(bits);
    /* Hard-swish is lowest at x = -3/2: -3/8. */
    const float shift = range == MIX_RANGE_SHIFTED ? 0.375f : 0.0f;
    return (struct mix__bounds){ .p = levels(bits), .shift = shift };
}

static float step_init(double mean_abs, float p)
{
    const float step = (float)(2.0 * mean_abs / sqrt(p));
    return step > MIX__STEP_MIN ? step : MIX__STEP_MIN;
}

float mix__step_init_activation(double mean_abs, int bits)
{
    return step_init(mean_abs, levels(bits));
}

float mix__step_init_weight(double mean_abs, int bits)
{
    return step_init(mean_abs, symmetric(bits).p);
}
