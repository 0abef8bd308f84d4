/*
 * job/eval.c - what can be asked of a checkpoint: its accuracy, its network and bits.
 */
#include "job/job.h"

mix_status mix_run_graph(mix_ctx *ctx, const char *from, mix_graph **graph, mix_layer_bits **bits)
{
    struct mix__checkpoint *c;
    *graph = NULL;
    *bits = NULL;
    MIX_TRY(mix__checkpoint_from(ctx, from, &c));
    mix_status status = mix__checkpoint_graph(c, graph);
    if (status == MIX_OK && (status = mix__checkpoint_bits(c, *graph, bits)) != MIX_OK) {
        mix_graph_free(*graph);
        *graph = NULL;
    }
    mix__checkpoint_close(c);
    return status;
}

mix_status mix__judge_make(struct mix__trainer *t, const struct mix__checkpoint *c, mix_data *data,
                           const mix_graph *graph, bool as_float)
{
    const int *candidate = &(int){ MIX_BITS_FIXED };
    const int n = c ? mix__checkpoint_candidates(c, &candidate) : 1;
    MIX_TRY(mix__state_new(&t->state, graph, candidate, n, 0));
    if (c) {
        MIX_TRY(mix__checkpoint_state(c, t->state));
        MIX_TRY(mix__checkpoint_bits(c, graph, &t->bits));
        if (!as_float && mix__checkpoint_stopped(c))
            return mix__fail(t->ctx, MIX_EINVAL,
                             "the checkpoint is of a selection that was stopped; expected a float "
                             "network or bits: go on with it first, or leave all quantizers off");
    }
    MIX_TRY(mix__batches_open(&t->validation, data, t->settings, MIX_VAL));
    MIX_TRY(mix__engine_new(&t->judge, t->state, t->settings->batch, false, MIX__DTYPE_F32));
    if (!t->bits || as_float)
        return MIX_OK;
    if (!t->state->act_steps_ready)
        return mix__fail(t->ctx, MIX_EFORMAT, "the checkpoint has bits but no activation steps");
    MIX_TRY(mix__bits_check(t->state, t->bits));
    mix__trainer_quantize(t, t->state->weight_steps_ready);
    return MIX_OK;
}

static mix_status open_run(mix_ctx *ctx, const struct mix__checkpoint *c,
                           const mix_settings *settings, mix_graph **graph, mix_data **data)
{
    MIX_TRY(mix__checkpoint_graph(c, graph));
    return mix__data_for(ctx, settings, *graph, data);
}

static mix_status open_file(mix_ctx *ctx, const mix_settings *settings, mix_graph **graph,
                            mix_data **data)
{
    mix_weights_info info;
    MIX_TRY(mix__data_for(ctx, settings, NULL, data));
    MIX_TRY(mix__network_for(settings, ctx, *data, graph, &info));
    if (!info.new_classifier)
        return MIX_OK;
    return mix__fail(ctx, MIX_ESHAPE, "%s has no classifier for the %d classes of %s",
                     settings->weights[0] ? settings->weights : settings->arch,
                     (*graph)->tensors[(*graph)->output].c, settings->data);
}

mix_status mix_eval(mix_ctx *ctx, const char *from, const mix_settings *settings,
                    const mix_observer *observer, bool as_float, mix_accuracy *accuracy)
{
    struct mix__trainer t = { .ctx = ctx, .settings = settings };
    struct mix__checkpoint *c = NULL;
    mix_graph *graph = NULL;
    mix_data *data = NULL;
    mix_status status;
    *accuracy = (mix_accuracy){ 0 };
    MIX_TRY(mix__start_check(ctx, from, settings, MIX_GROUP_DATA));
    MIX_TRY(mix__settings_check(ctx, settings, MIX_GROUP_DATA | (from ? 0 : MIX_GROUP_NET)));
    if (from)
        MIX_TRY(mix__checkpoint_from(ctx, from, &c));
    status =
        from ? open_run(ctx, c, settings, &graph, &data) : open_file(ctx, settings, &graph, &data);
    if (status == MIX_OK && (status = mix__judge_make(&t, c, data, graph, as_float)) == MIX_OK)
        status = mix__evaluate(t.judge, t.validation, observer, accuracy);
    mix__trainer_release(&t);
    mix_data_free(data);
    mix_graph_free(graph);
    mix__checkpoint_close(c);
    return status;
}
