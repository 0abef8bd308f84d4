/*
 * engine/state.h - everything a network learns, in flat arrays shared by all engines on it.
 *
 *   value, grad         graph's trained parameters   graph->n_trained
 *                       activation steps             (layer, candidate)
 *                       weight steps                 one per output channel, in layer order
 *   stats               batch norm's running means and variances, as in the graph's values behind
 *                       n_trained
 *   alpha, alpha_grad   (layer, candidate), of searched layers only in use
 *
 * A searched layer's candidates are the state's; a fixed layer has the one candidate 8 in column 0.
 */
#ifndef METAMIX_ENGINE_STATE_H
#define METAMIX_ENGINE_STATE_H

#include "engine/loops.h"
#include "model/graph.h"

struct mix__state {
    mix_ctx *ctx;
    const mix_graph *graph;
    int n_candidates;
    int candidate[MIX__BRANCH_MAX]; /* ascending */
    size_t n;
    float *value, *grad;
    size_t n_stats;
    float *stats;
    size_t n_alpha;
    float *alpha, *alpha_grad;
    size_t act_step;      /* offset of the activation steps: + layer * n_candidates + candidate */
    size_t weight_steps;  /* offset of the weight steps                                         */
    size_t *weight_step;  /* (layer): offset of the layer's first weight step                   */
    bool act_steps_ready; /* set by the first calibration            */
    bool weight_steps_ready; /* set when weights are first quantized    */
    uint64_t version;        /* bump after changing value: engines repack their weights */
};

/* Copies the graph's values; alphas N(0,1) * 1e-3 from the seed; steps 1 and not ready.
 * n_candidates 1..MIX__BRANCH_MAX, each 2..8. */
mix_status mix__state_new(struct mix__state **out, const mix_graph *graph, const int *candidate,
                          int n_candidates, uint64_t seed) MIX_CHECKED;
void mix__state_free(struct mix__state *state);

/* Where a parameter of the graph is: in value, or of running statistics in stats. */
static inline float *mix__state_param(const struct mix__state *state, const struct mix__param *p)
{
    const size_t n = state->graph->n_trained;
    return p->offset < n ? state->value + p->offset : state->stats + (p->offset - n);
}

/* The candidates of a layer: {8} when it is fixed. Returns how many. */
int mix__state_layer_candidates(const struct mix__state *state, int layer, const int **candidate);

#endif
