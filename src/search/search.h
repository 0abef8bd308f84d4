/*
 * search/search.h - MetaMix's bit selection: doc/method.md section 3.
 *
 * Bit-meta training makes weights good at all candidates; bit-search training alternates it with
 * steps of alpha, whose weights are fixed; at its end each layer's bits are selected. Beside it
 * other ways to come to alphas, for comparison.
 */
#ifndef METAMIX_SEARCH_SEARCH_H
#define METAMIX_SEARCH_SEARCH_H

#include "train/trainer.h"

/* ---- cost (alpha_cost.c): pure functions ---- */

/* E = sum over b of candidate[b] * softmax(alpha)[b], and dE/dalpha (n) unless NULL. */
double mix__expected_bits(const double *alpha, const int *candidate, int n, double *gradient);
int mix__argmax(const float *alpha, int n); /* the first of the largest */

/* GBOPs of the network that would be picked now, searched layers' weights at weight_bits. */
double mix__search_gbops(const struct mix__state *state, int weight_bits);
/* The same with expected instead of picked bits: what the gradient below differentiates. */
double mix__search_gbops_soft(const struct mix__state *state, int weight_bits);
/* state->alpha_grad += scale * gradient of the soft cost. */
void mix__search_gbops_gradient(struct mix__state *state, int weight_bits, double scale);

/* ---- selection (select.c) ---- */

struct mix__selection {
    double raw_gbops, gbops; /* of argmax alpha; after the repair                     */
    int lowered, raised;     /* layers that ended below and above their argmax        */
    bool met;                /* gbops <= target; false: even the lowest bits miss it  */
};
/* Bits of all layers from the alphas, at or under the target where that is possible. */
mix_status mix__select_bits(const struct mix__state *state, int weight_bits, double target,
                            mix_layer_bits *bits, struct mix__selection *selection) MIX_CHECKED;

/* ---- activation instability (instability.c) ---- */

/* kl (layer, candidate): how far mean and variance of what is before the layer's batch norm are,
 * with all searched layers at that candidate, from those at the highest: KL divergence of normal
 * distributions, mean over channels, in training mode on the first batch; NAN without a batch norm.
 * Weights are float; steps are ready. Overwrites the running statistics. */
mix_status mix__instability(struct mix__engine *engine, struct mix__batches *batches,
                            double *kl) MIX_CHECKED;

/* ---- phases: enter, step and leave of struct mix__phase ---- */

/* bit_meta.c */
mix_status mix__meta_enter(struct mix__trainer *t, const struct mix__phase *p,
                           bool fresh) MIX_CHECKED;
mix_status mix__meta_step(struct mix__trainer *t, const struct mix__phase *p, const int *labels,
                          struct mix__loss *loss) MIX_CHECKED;

/* bit_search.c */
mix_status mix__search_enter(struct mix__trainer *t, const struct mix__phase *p,
                             bool fresh) MIX_CHECKED;
mix_status mix__search_step(struct mix__trainer *t, const struct mix__phase *p, const int *labels,
                            struct mix__loss *loss) MIX_CHECKED;
mix_status mix__search_leave(struct mix__trainer *t, const struct mix__phase *p) MIX_CHECKED;
/* The part of a step that moves alpha; weights_too: and all else, statistics with it. */
mix_status mix__mixture_step(struct mix__trainer *t, const struct mix__phase *p, bool weights_too,
                             const int *labels, struct mix__loss *loss) MIX_CHECKED;

/* baselines.c */
mix_status mix__unfixed_step(struct mix__trainer *t, const struct mix__phase *p, const int *labels,
                             struct mix__loss *loss) MIX_CHECKED;
mix_status mix__joint_step(struct mix__trainer *t, const struct mix__phase *p, const int *labels,
                           struct mix__loss *loss) MIX_CHECKED;
mix_status mix__greedy_enter(struct mix__trainer *t, const struct mix__phase *p,
                             bool fresh) MIX_CHECKED;
mix_status mix__greedy_step(struct mix__trainer *t, const struct mix__phase *p, const int *labels,
                            struct mix__loss *loss) MIX_CHECKED;
mix_status mix__random_enter(struct mix__trainer *t, const struct mix__phase *p,
                             bool fresh) MIX_CHECKED;
mix_status mix__random_step(struct mix__trainer *t, const struct mix__phase *p, const int *labels,
                            struct mix__loss *loss) MIX_CHECKED;

/* Adds the phases that settings->search names (phases.c); selection is the end of the last. */
void mix__phases_select(struct mix__trainer *t);

#endif
