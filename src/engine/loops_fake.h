/*
 * engine/loops_fake.h - the quantizer on vectors, forward and back, for loops.c and
 * loops_depthwise.c.
 */
#ifndef METAMIX_ENGINE_LOOPS_FAKE_H
#define METAMIX_ENGINE_LOOPS_FAKE_H

#include "engine/loops_strip.h"
#include "engine/loops_vec.h"

#include <math.h>

/* One branch of a quantizer. */
struct branch {
    float n, p, shift, step, inverse;
    float unit, minus; /* a result is unit * code - minus */
};

MIX__TEMPLATE struct branch branch_at(const struct mix__fake *fake, int k)
{
    const struct mix__bounds *b = &fake->bounds[k];
    const float step = fake->step[k];
    return (struct branch){ .n = b->n,
                            .p = b->p,
                            .shift = b->shift,
                            .step = step,
                            .inverse = 1.0f / step,
                            .unit = fake->codes ? 1.0f : step,
                            .minus = fake->codes ? 0.0f : b->shift };
}

/* In steps; half: times the reciprocal. */
MIX__TEMPLATE vec scaled(vec x, const struct branch *b, bool half)
{
    return half ? (x + b->shift) * b->inverse : (x + b->shift) / b->step;
}

MIX__TEMPLATE vec code_of(vec v, const struct branch *b)
{
    return vec_round(vec_clip(v, b->n, b->p));
}

/*
 * With one branch on bfloat16, and an activation that only clips, the steps from z to the code
 * become one affine map and a clip: code = round(clip(scale / step * z + offset / step, low, high)).
 */
struct folded {
    float low, high; /* of the activation and the code, in steps */
};

MIX__TEMPLATE bool folds(enum mix__act act, int branches, struct mix__values z,
                         const struct mix__fake *fake)
{
    return branches == 1 && z.dtype == MIX__DTYPE_BF16 && fake->bounds[0].shift == 0.0f &&
           (act == MIX__ACT_NONE || act == MIX__ACT_RELU || act == MIX__ACT_RELU6);
}

MIX__TEMPLATE vec fake_vec(int branches, bool half, vec x, const struct branch *one,
                           const struct mix__fake *fake)
{
    vec y = { 0 };
    if (branches == 0)
        return x;
    if (branches == 1)
        return one->unit * code_of(scaled(x, one, half), one) - one->minus;
    for (int k = 0; k < fake->n_branch; k++) {
        const struct branch b = branch_at(fake, k);
        y += fake->weight[k] * (b.step * code_of(scaled(x, &b, false), &b) - b.shift);
    }
    return y;
}

MIX__TEMPLATE float top_of(enum mix__act act, const struct branch *b)
{
    return act == MIX__ACT_RELU6 ? 6.0f * b->inverse : INFINITY;
}

MIX__TEMPLATE struct folded folded_at(enum mix__act act, const struct branch *b)
{
    const float low = act == MIX__ACT_NONE ? -INFINITY : 0.0f, high = top_of(act, b);
    return (struct folded){ low > b->n ? low : b->n, high < b->p ? high : b->p };
}

/* x from the affine map's value v; folding: v is in steps. */
MIX__TEMPLATE vec forward_of(enum mix__act act, int branches, bool folding, bool half, vec v,
                             const struct folded *f, const struct branch *one,
                             const struct mix__fake *fake)
{
    if (folding)
        return one->unit * vec_round(vec_clip(v, f->low, f->high));
    return fake_vec(branches, half, vec_activate(v, act), one, fake);
}

/* The sums of a fake quantizer at each place of a strip. */
struct fake_places {
    ALIGNED float step[MIX__BRANCH_MAX][WIDE], weight[MIX__BRANCH_MAX][WIDE];
};

/* Of the first `places`. */
MIX__TEMPLATE void fake_clear(struct fake_places *at, int branches, size_t places)
{
    for (int k = 0; k < branches; k++) {
        memset(at->step[k], 0, places * sizeof *at->step[k]);
        memset(at->weight[k], 0, places * sizeof *at->weight[k]);
    }
}

MIX__TEMPLATE void fake_fold(struct fake_places *at, size_t places, const struct mix__fake *fake,
                             struct mix__fake_sums *sums)
{
    for (int k = 0; k < fake->n_branch; k++) {
        const bool mixed = fake->n_branch > 1;
        sums->step[k] += total(at->step[k], places) * (mixed ? (double)fake->weight[k] : 1.0);
        if (mixed)
            sums->weight[k] += total(at->weight[k], places);
    }
    fake_clear(at, fake->n_branch, places);
}

/* Of v steps through one branch, the result's derivative by the step: q - v inside the bounds, the
 * bound outside. */
MIX__TEMPLATE vec step_slope(vec v, const struct branch *b, vec *code, vec_mask *inside)
{
    const vec clipped = vec_clip(v, b->n, b->p);
    *code = vec_round(clipped);
    *inside = vec_equal(v, clipped);
    return *code - vec_keep(*inside, v);
}

/* dy through the quantizer of x; adds to the sums at place i, for one branch to *step. */
MIX__TEMPLATE vec fake_back(int branches, bool half, vec dy, vec x, const struct branch *one,
                            vec *step, size_t i, const struct mix__fake *fake,
                            struct fake_places *at)
{
    vec code, keep = { 0 };
    vec_mask inside;
    if (branches == 0)
        return dy;
    if (branches == 1) {
        *step += dy * step_slope(scaled(x, one, half), one, &code, &inside);
        return vec_keep(inside, dy);
    }
    for (int k = 0; k < fake->n_branch; k++) {
        const struct branch b = branch_at(fake, k);
        float *step_at = at->step[k] + i, *weight_at = at->weight[k] + i;
        const vec slope = step_slope(scaled(x, &b, false), &b, &code, &inside);
        vec_put(step_at, vec_get(step_at, LANES) + dy * slope, LANES);
        vec_put(weight_at, vec_get(weight_at, LANES) + dy * (b.step * code - b.shift), LANES);
        keep += vec_keep(inside, vec_all(fake->weight[k]));
    }
    return keep * dy;
}

/* The bounds of the clip; v has a gradient below `top` (and above 0 where the activation begins
 * there), and what is below `inside` is clipped by the activation, if at all, not by the quantizer. */
struct folded_back {
    float low, high, top, inside;
};

MIX__TEMPLATE struct folded_back folded_back_at(enum mix__act act, const struct branch *b)
{
    const struct folded f = folded_at(act, b);
    const float top = nextafterf(b->p, INFINITY);
    return b->p < top_of(act, b) ? (struct folded_back){ f.low, f.high, top, top }
                                 : (struct folded_back){ f.low, f.high, f.high, INFINITY };
}

/* The gradient g at x back to v, the affine map's value (folding: in steps). */
MIX__TEMPLATE vec back_of(enum mix__act act, int branches, bool folding, bool half, vec g, vec v,
                          const struct folded_back *f, const struct branch *one, vec *step,
                          size_t i, const struct mix__fake *fake, struct fake_places *at)
{
    if (!folding) {
        g = fake_back(branches, half, g, vec_activate(v, act), one, step, i, fake, at);
        return vec_activate_back(g, v, act);
    }
    const vec x = vec_clip(v, f->low, f->high);
    vec_mask inside, kept;
    if (act == MIX__ACT_NONE) {
        inside = kept = vec_equal(v, x);
    } else {
        inside = vec_less(v, vec_all(f->inside));
        kept = vec_less((vec){ 0 }, v) & vec_less(v, vec_all(f->top));
    }
    *step += g * (vec_round(x) - vec_keep(inside, x));
    return vec_keep(kept, g);
}

#endif
