/*
 * search/bit_meta.c - bit-meta training: one step makes the weights good at all candidates.
 */
#include <string.h>

#include "search/search.h"

/* The weights' optimizer, new with the job, goes on from bit-meta training into bit search. */
mix_status mix__meta_enter(struct mix__trainer *t, const struct mix__phase *p, bool fresh)
{
    (void)fresh;
    MIX_TRY(mix__engine_share_stem(t->engine));
    return mix__trainer_ranges(t, MIX__TRAIN_PARAMS | MIX__TRAIN_ALL_STEPS, p);
}

/*
 * L_meta = (1/|B|) * sum over b in B of L_task(searched layers at b), weights float, first and last
 * layer at 8 bits. All branches see the same images and the same dropout; each moves the shared
 * running statistics. The reported loss and accuracy are means over the branches.
 */
mix_status mix__meta_step(struct mix__trainer *t, const struct mix__phase *p, const int *labels,
                          struct mix__loss *loss)
{
    struct mix__state *s = t->state;
    const bool all = strcmp(t->settings->meta_branches, "all") == 0;
    const int n = s->n_candidates;
    struct mix__loss sum = { 0 };
    (void)p;
    MIX_TRY(mix__trainer_calibrate(t));
    memset(s->grad, 0, s->n * sizeof *s->grad);
    for (int b = 0; b < n; b++) {
        mix__engine_mode_all(t->engine, MIX__QUANT_ONE, b, MIX_BITS_FLOAT);
        MIX_TRY(mix__trainer_forward(t, true, b, n, labels, 1.0f / (float)n, loss));
        if (all || b == n - 1)
            MIX_TRY(mix__engine_backward(t->engine, t->dlogits, MIX__GRAD_PARAMS));
        sum.loss += loss->loss / n;
        sum.top1 += loss->top1;
        sum.top5 += loss->top5;
    }
    *loss = (struct mix__loss){ sum.loss, sum.top1 / n, sum.top5 / n };
    return mix__trainer_update(t);
}
