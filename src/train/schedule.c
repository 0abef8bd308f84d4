#include <math.h>

#include "train/train.h"

double mix__schedule_cosine(double peak, int64_t step, int64_t warmup, int64_t steps)
{
    const double pi = 3.141592653589793;
    if (step >= steps)
        return 0.0;
    if (step < warmup)
        return peak * (double)(step + 1) / (double)warmup;
    return peak * 0.5 * (1.0 + cos(pi * (double)(step - warmup) / (double)(steps - warmup)));
}
