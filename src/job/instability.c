/*
 * job/instability.c - activation instability of a checkpoint.
 */
#include <stdlib.h>
#include <string.h>

#include "job/job.h"

void mix_instability_release(mix_instability *instability)
{
    free(instability->divergence);
    *instability = (mix_instability){ 0 };
}

/* The checkpoint's candidates and steps; of a float network the settings' and the first batch's. */
static mix_status make_parts(struct mix__trainer *t, const struct mix__checkpoint *c,
                             mix_data *data, const mix_graph *graph)
{
    const bool quantized = mix__checkpoint_quantized(c);
    const int *candidate;
    int n = mix__checkpoint_candidates(c, &candidate), parsed[MIX__BRANCH_MAX];
    if (!quantized) {
        MIX_TRY(mix__candidates_parse(t->ctx, t->settings->candidates, parsed, &n));
        candidate = parsed;
    }
    MIX_TRY(mix__state_new(&t->state, graph, candidate, n, 0));
    if (quantized)
        MIX_TRY(mix__checkpoint_state(c, t->state));
    MIX_TRY(mix__batches_open(&t->batches, data, t->settings, MIX_TRAIN));
    MIX_TRY(mix__engine_new(&t->engine, t->state, t->settings->batch, true, MIX__DTYPE_F32));
    return t->state->act_steps_ready ? MIX_OK : mix__calibrate(t->engine, t->batches, 0);
}

static mix_status measure(struct mix__trainer *t, mix_instability *out)
{
    const struct mix__state *s = t->state;
    const size_t layers = s->graph->n_layers, n = (size_t)s->n_candidates;
    out->divergence = calloc(layers * n, sizeof *out->divergence);
    if (!out->divergence)
        return MIX_ENOMEM;
    out->n_layers = (int)layers;
    out->n_candidates = (int)n;
    memcpy(out->candidate, s->candidate, n * sizeof *s->candidate);
    return mix__instability(t->engine, t->batches, out->divergence);
}

mix_status mix_instability_measure(mix_ctx *ctx, const char *from, const mix_settings *settings,
                                   mix_instability *out)
{
    struct mix__trainer t = { .ctx = ctx, .settings = settings };
    struct mix__checkpoint *c;
    mix_graph *graph = NULL;
    mix_data *data = NULL;
    *out = (mix_instability){ 0 };
    MIX_TRY(mix__settings_check(ctx, settings, MIX_GROUP_DATA));
    MIX_TRY(mix__checkpoint_from(ctx, from, &c));
    mix_status status = mix__checkpoint_graph(c, &graph);
    if (status == MIX_OK)
        status = mix__data_for(ctx, settings, graph, &data);
    if (status == MIX_OK)
        status = make_parts(&t, c, data, graph);
    if (status == MIX_OK)
        status = measure(&t, out);
    if (status != MIX_OK)
        mix_instability_release(out);
    mix__trainer_release(&t);
    mix_data_free(data);
    mix_graph_free(graph);
    mix__checkpoint_close(c);
    return status;
}
