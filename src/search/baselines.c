/*
 * search/baselines.c - other ways to choose bits, which MetaMix is compared with (doc/method.md
 * section 7). Each leaves alphas behind, and selection is the same for all.
 */
#include <string.h>

#include "base/random.h"
#include "search/search.h"

/* ---- bits and weights together ---- */

/* Bit-search training whose weights are not fixed: the meta-state moves while alpha is trained. */
mix_status mix__unfixed_step(struct mix__trainer *t, const struct mix__phase *p, const int *labels,
                             struct mix__loss *loss)
{
    struct mix__loss mixture;
    MIX_TRY(mix__meta_step(t, p, labels, loss));
    return mix__mixture_step(t, p, true, labels, &mixture);
}

/* Joint search (DNAS, EdMIPS): no bit-meta training, the mixture alone trains weights and alpha. */
mix_status mix__joint_step(struct mix__trainer *t, const struct mix__phase *p, const int *labels,
                           struct mix__loss *loss)
{
    MIX_TRY(mix__trainer_calibrate(t));
    return mix__mixture_step(t, p, true, labels, loss);
}

/* ---- bits alone: the network stays as it is, but for its first activation steps ---- */

/* With every searched layer at its highest candidate. */
static mix_status highest_loss(struct mix__trainer *t, const int *labels, struct mix__loss *loss)
{
    MIX_TRY(mix__trainer_calibrate(t));
    mix__engine_mode_all(t->engine, MIX__QUANT_ONE, t->state->n_candidates - 1, MIX_BITS_FLOAT);
    return mix__trainer_forward(t, false, 0, 1, labels, 1.0f, loss);
}

mix_status mix__greedy_enter(struct mix__trainer *t, const struct mix__phase *p, bool fresh)
{
    (void)p;
    if (fresh)
        memset(t->state->alpha, 0, t->state->n_alpha * sizeof *t->state->alpha);
    return MIX_OK;
}

/*
 * alpha = - what the loss rises by when this layer alone gets these bits, all others the highest;
 * summed over the phase's batches. Selection then lowers the layers that cost the least loss for
 * each bit operation saved.
 */
mix_status mix__greedy_step(struct mix__trainer *t, const struct mix__phase *p, const int *labels,
                            struct mix__loss *loss)
{
    struct mix__state *s = t->state;
    const int highest = s->n_candidates - 1;
    (void)p;
    MIX_TRY(highest_loss(t, labels, loss));
    for (size_t l = 0; l < s->graph->n_layers; l++) {
        struct mix__layer_mode *mode = &mix__engine_modes(t->engine)[l];
        float *alpha = s->alpha + l * (size_t)s->n_candidates;
        if (!s->graph->layers[l].info.searched)
            continue;
        for (mode->choice = 0; mode->choice < highest; mode->choice++) {
            struct mix__loss lowered;
            MIX_TRY(mix__trainer_forward(t, false, 0, 1, labels, 1.0f, &lowered));
            alpha[mode->choice] -= (float)(lowered.loss - loss->loss);
        }
    }
    return MIX_OK;
}

/*
 * Selection lowers layers in the order of their prices, alpha lost for each bit operation saved.
 * Here the price of each step down is drawn from [0, 1), whatever the layer's size.
 */
mix_status mix__random_enter(struct mix__trainer *t, const struct mix__phase *p, bool fresh)
{
    struct mix__state *s = t->state;
    const int n = s->n_candidates;
    (void)p;
    for (size_t l = 0; l < s->graph->n_layers && fresh; l++) {
        const mix_layer_info *info = &s->graph->layers[l].info;
        float *alpha = s->alpha + l * (size_t)n;
        alpha[n - 1] = 0.0f;
        for (int b = n - 2; b >= 0 && info->searched; b--) {
            const double saved =
                1e-6 * (double)info->macs * (s->candidate[b + 1] - s->candidate[b]);
            const double price = mix__random_uniform((uint64_t)t->settings->seed,
                                                     MIX__STREAM(MIX__RANDOM_BITS, l), (uint64_t)b);
            alpha[b] = alpha[b + 1] - (float)(price * saved);
        }
    }
    return MIX_OK;
}

mix_status mix__random_step(struct mix__trainer *t, const struct mix__phase *p, const int *labels,
                            struct mix__loss *loss)
{
    (void)p;
    return highest_loss(t, labels, loss);
}
