/*
 * search/search.h - MetaMix's bit selection: doc/method.md section 3.
 *
 * Bit-meta training makes weights good at all candidates; bit-search training alternates it with
 * steps of alpha, whose weights are fixed; at its end each layer's bits are selected.
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

/* ---- phases (bit_meta.c, bit_search.c): enter, step and leave of struct mix__phase ---- */

mix_status mix__meta_enter(struct mix__trainer *t, const struct mix__phase *p,
                           bool fresh) MIX_CHECKED;
mix_status mix__meta_step(struct mix__trainer *t, const struct mix__phase *p, const int *labels,
                          struct mix__loss *loss) MIX_CHECKED;
mix_status mix__search_enter(struct mix__trainer *t, const struct mix__phase *p,
                             bool fresh) MIX_CHECKED;
mix_status mix__search_step(struct mix__trainer *t, const struct mix__phase *p, const int *labels,
                            struct mix__loss *loss) MIX_CHECKED;
mix_status mix__search_leave(struct mix__trainer *t, const struct mix__phase *p) MIX_CHECKED;

/* Adds the phases bit-meta and bit-search; selection is the end of the second. */
void mix__phases_select(struct mix__trainer *t);

#endif
