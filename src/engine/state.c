/*
 * engine/state.c - the flat arrays of everything that is learned.
 */
#include "engine/engine.h"

#include <string.h>

#include "base/random.h"

static const int fixed_candidate[] = { MIX_BITS_FIXED };

int mix__state_layer_candidates(const struct mix__state *state, int layer, const int **candidate)
{
    if (!state->graph->layers[layer].info.searched) {
        *candidate = fixed_candidate;
        return 1;
    }
    *candidate = state->candidate;
    return state->n_candidates;
}

static mix_status check_candidates(mix_ctx *ctx, const int *candidate, int n)
{
    if (n < 1 || n > MIX__BRANCH_MAX)
        return mix__fail(ctx, MIX_EINVAL, "%d candidate bit-widths; expected 1 to %d", n,
                         MIX__BRANCH_MAX);
    for (int i = 0; i < n; i++) {
        if (candidate[i] < MIX_BITS_MIN || candidate[i] > MIX_BITS_MAX)
            return mix__fail(ctx, MIX_EINVAL, "candidate of %d bits; expected %d to %d",
                             candidate[i], MIX_BITS_MIN, MIX_BITS_MAX);
        if (i > 0 && candidate[i] <= candidate[i - 1])
            return mix__fail(ctx, MIX_EINVAL, "candidates must ascend; found %d after %d",
                             candidate[i], candidate[i - 1]);
    }
    return MIX_OK;
}

static void init_alpha(struct mix__state *state, uint64_t seed)
{
    const size_t n = (size_t)state->n_candidates;
    for (size_t l = 0; l < state->graph->n_layers; l++)
        for (size_t b = 0; b < n; b++)
            state->alpha[l * n + b] =
                (float)(1e-3 * mix__random_normal(seed, MIX__STREAM(MIX__RANDOM_ALPHA, l), b));
}

mix_status mix__state_new(struct mix__state **out, const mix_graph *graph, const int *candidate,
                          int n_candidates, uint64_t seed)
{
    *out = NULL;
    MIX_TRY(check_candidates(graph->ctx, candidate, n_candidates));
    struct mix__state *s = mix__zalloc(graph->ctx, 1, sizeof *s);
    if (!s)
        return MIX_ENOMEM;
    s->ctx = graph->ctx;
    s->graph = graph;
    s->n_candidates = n_candidates;
    memcpy(s->candidate, candidate, (size_t)n_candidates * sizeof *candidate);
    s->n_stats = graph->n_values - graph->n_trained;
    s->n_alpha = graph->n_layers * (size_t)n_candidates;
    s->act_step = graph->n_trained;
    s->weight_steps = s->act_step + s->n_alpha;
    s->n = s->weight_steps;
    s->weight_step = mix__alloc(s->ctx, graph->n_layers, sizeof *s->weight_step);
    if (!s->weight_step)
        goto fail;
    for (size_t l = 0; l < graph->n_layers; l++) {
        s->weight_step[l] = s->n;
        s->n += (size_t)graph->layers[l].info.out_channels;
    }
    s->value = mix__alloc(s->ctx, s->n, sizeof *s->value);
    s->grad = mix__zalloc(s->ctx, s->n, sizeof *s->grad);
    s->stats = mix__alloc(s->ctx, s->n_stats, sizeof *s->stats);
    s->alpha = mix__alloc(s->ctx, s->n_alpha, sizeof *s->alpha);
    s->alpha_grad = mix__zalloc(s->ctx, s->n_alpha, sizeof *s->alpha_grad);
    if (!s->value || !s->grad || !s->stats || !s->alpha || !s->alpha_grad)
        goto fail;
    memcpy(s->value, graph->values, graph->n_trained * sizeof *s->value);
    for (size_t i = graph->n_trained; i < s->n; i++)
        s->value[i] = 1.0f;
    memcpy(s->stats, graph->values + graph->n_trained, s->n_stats * sizeof *s->stats);
    init_alpha(s, seed);
    s->version = 1;
    *out = s;
    return MIX_OK;
fail:
    mix__state_free(s);
    return MIX_ENOMEM;
}

void mix__state_free(struct mix__state *s)
{
    if (!s)
        return;
    mix__free(s->ctx, s->weight_step);
    mix__free(s->ctx, s->value);
    mix__free(s->ctx, s->grad);
    mix__free(s->ctx, s->stats);
    mix__free(s->ctx, s->alpha);
    mix__free(s->ctx, s->alpha_grad);
    mix__free(s->ctx, s);
}

void mix__state_init_weight_steps(struct mix__state *s, const struct mix__layer_mode *modes)
{
    const mix_graph *g = s->graph;
    for (size_t l = 0; l < g->n_layers; l++) {
        const struct mix__param *p = &g->params[g->nodes[g->layers[l].node].weight];
        const size_t channels = (size_t)p->dims[0], length = p->count / channels;
        const float *w = s->value + p->offset;
        if (modes[l].weight_bits == MIX_BITS_FLOAT)
            continue;
        for (size_t k = 0; k < channels; k++) {
            double sum = 0.0;
            for (size_t i = 0; i < length; i++)
                sum += fabsf(w[k * length + i]);
            s->value[s->weight_step[l] + k] =
                mix__step_init_weight(sum / (double)length, modes[l].weight_bits);
        }
    }
    s->weight_steps_ready = true;
    s->version++;
}
