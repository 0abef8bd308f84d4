/*
 * format/onnx_stairs.c - codes as a function of the integer sum are stairs. A bias that is a whole
 * number of sums moves all of them, the slope stretches them; both together can put every stair
 * between the same two sums where the real offset has it:
 *
 *     sums, times factor     f(T-1)        fT            T: the first sum of code j or more
 *                         ------|-----------|------
 *                                    ^ (j - 1/2) / slope - bias
 */
#include "format/onnx_stairs.h"

#include <math.h>

#include "quant/quant.h"

/* Engines multiply, and some add, in float: sums keep away from edges by this part of themselves.
 */
#define MARGIN 4e-6

/* The runtime's code. */
static int code_of(const struct mix__stairs *s, int64_t sum)
{
    const float value = s->scale * (float)sum + s->offset;
    return (int)mix__round(mix__clip(value / s->step, (float)s->n, (float)s->p));
}

/* The first sum of code j or more; most + 1: there is none. */
static int64_t first_of(const struct mix__stairs *s, int j)
{
    int64_t low = s->least, high = s->most + 1;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (code_of(s, middle) >= j)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Narrows [*low, *high], inverses of a slope, to those that put the stair of code j into its gap.
 */
static void narrow(const struct mix__stairs *s, int64_t bias, int j, int64_t first, double *low,
                   double *high)
{
    const double half = j - 0.5;
    const double before = (double)((first - 1) * s->factor + bias);
    const double behind = (double)(first * s->factor + bias);
    const double from = (before + MARGIN * fabs(before)) / half;
    const double to = (behind - MARGIN * fabs(behind)) / half;
    if (first > s->least)
        *(half > 0 ? low : high) = half > 0 ? fmax(*low, from) : fmin(*high, from);
    if (first <= s->most)
        *(half > 0 ? high : low) = half > 0 ? fmin(*high, to) : fmax(*low, to);
}

bool mix__stairs_fit(int32_t *bias, double *slope, const struct mix__stairs *s)
{
    enum { CODES = 256 };
    int64_t first[CODES];
    const double limit = 1 << 30, nominal = s->factor * (double)s->offset / s->scale;
    const double inverse = s->factor * (double)s->step / s->scale;
    const int64_t middle = (int64_t)rint(fmin(fmax(nominal, -limit), limit));
    for (int j = s->n + 1; j <= s->p; j++)
        first[j - s->n] = first_of(s, j);
    double widest = 0;
    for (int d = -s->factor; d <= s->factor; d++) {
        const int64_t at = middle + d;
        double low = 0, high = 4.0 * fmin(inverse, limit);
        for (int j = s->n + 1; j <= s->p && low < high; j++)
            narrow(s, at, j, first[j - s->n], &low, &high);
        if (high - low <= widest)
            continue;
        widest = high - low;
        *bias = (int32_t)at;
        *slope = 2.0 / (low + high);
    }
    return widest > 0;
}
