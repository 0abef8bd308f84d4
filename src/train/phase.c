/*
 * train/phase.c - what the phases' steps are made of: ranges, modes, forward pass, update.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "train/trainer.h"

int mix__state_choice(const struct mix__state *state, size_t layer, int bits)
{
    const int *candidate;
    const int n = mix__state_layer_candidates(state, (int)layer, &candidate);
    if (bits == MIX_BITS_FLOAT)
        return -1;
    for (int i = 0; i < n; i++)
        if (candidate[i] == bits)
            return i;
    return -2;
}

static struct mix__range *add_range(struct mix__trainer *t, size_t offset, size_t count)
{
    struct mix__range *r = &t->ranges[t->n_ranges++];
    *r = (struct mix__range){ .offset = offset, .count = count, .floor = -INFINITY };
    return r;
}

static void add_param(struct mix__trainer *t, const struct mix__param *param,
                      const struct mix__phase *phase)
{
    struct mix__range *r = add_range(t, param->offset, param->count);
    if (param->kind == MIX__PARAM_WEIGHT) {
        r->weight_decay = (float)phase->weight_decay;
        r->decoupled = phase->decoupled;
    }
}

static struct mix__range *add_steps(struct mix__trainer *t, size_t offset, size_t count)
{
    struct mix__range *r = add_range(t, offset, count);
    r->floor = MIX__STEP_MIN;
    return r;
}

static void add_act_steps(struct mix__trainer *t, size_t layer, bool selected_only)
{
    const struct mix__state *s = t->state;
    const size_t first = s->act_step + layer * (size_t)s->n_candidates;
    const int *candidate;
    if (!selected_only) {
        const int n = mix__state_layer_candidates(s, (int)layer, &candidate);
        add_steps(t, first, (size_t)n);
        return;
    }
    const int choice = mix__state_choice(s, layer, t->bits[layer].activation);
    if (choice >= 0)
        add_steps(t, first + (size_t)choice, 1);
}

mix_status mix__trainer_ranges(struct mix__trainer *t, unsigned what,
                               const struct mix__phase *phase)
{
    const struct mix__state *s = t->state;
    const mix_graph *g = s->graph;
    mix__free(t->ctx, t->ranges);
    t->n_ranges = 0;
    t->ranges = mix__alloc(t->ctx, g->n_params + g->n_layers + 1, sizeof *t->ranges);
    if (!t->ranges)
        return MIX_ENOMEM;
    for (size_t i = 0; i < g->n_params && (what & MIX__TRAIN_PARAMS); i++) {
        if (g->params[i].offset < g->n_trained)
            add_param(t, &g->params[i], phase);
    }
    if (what & (MIX__TRAIN_ALL_STEPS | MIX__TRAIN_SELECTED_STEPS))
        for (size_t l = 0; l < g->n_layers; l++)
            add_act_steps(t, l, !(what & MIX__TRAIN_ALL_STEPS));
    if (what & MIX__TRAIN_WEIGHT_STEPS)
        add_steps(t, s->weight_steps, s->n - s->weight_steps)->rate =
            (float)phase->weight_step_rate;
    return MIX_OK;
}

mix_status mix__bits_check(const struct mix__state *state, const mix_layer_bits *bits)
{
    for (size_t l = 0; l < state->graph->n_layers; l++) {
        const mix_layer_info *info = &state->graph->layers[l].info;
        if (mix__state_choice(state, l, bits[l].activation) == -2)
            return mix__fail(state->ctx, MIX_EINVAL, "layer %s has %d activation bits; expected %s",
                             info->name, bits[l].activation,
                             info->searched ? "one of the candidates that the steps are for"
                                            : "8: it is the first or the last layer");
    }
    return MIX_OK;
}

void mix__trainer_quantize(struct mix__trainer *t, bool weights)
{
    struct mix__engine *const engines[] = { t->engine, t->judge };
    for (size_t e = 0; e < MIX_COUNT(engines); e++) {
        if (!engines[e])
            continue;
        struct mix__layer_mode *modes = mix__engine_modes(engines[e]);
        for (size_t l = 0; l < t->state->graph->n_layers; l++) {
            const int choice = mix__state_choice(t->state, l, t->bits[l].activation);
            assert(choice >= -1);
            modes[l] = (struct mix__layer_mode){
                .mode = choice < 0 ? MIX__QUANT_OFF : MIX__QUANT_ONE,
                .choice = choice < 0 ? 0 : choice,
                .weight_bits = weights ? t->bits[l].weight : MIX_BITS_FLOAT,
            };
        }
    }
}

mix_status mix__trainer_calibrate(struct mix__trainer *t)
{
    return t->state->act_steps_ready ? MIX_OK : mix__engine_calibrate(t->engine);
}

mix_status mix__trainer_forward(struct mix__trainer *t, bool update_stats, int branch, int branches,
                                const int *labels, float scale, struct mix__loss *loss)
{
    const mix_graph *g = t->state->graph;
    const bool fixed = t->phases[t->point.phase].fixed_stats;
    const struct mix__pass pass = { .batch_stats = !fixed,
                                    .update_stats = update_stats && !fixed,
                                    .fixed_stats = fixed,
                                    .dropout = true,
                                    .seed = (uint64_t)t->settings->seed,
                                    .step = (uint64_t)t->counter,
                                    .branch = branch,
                                    .branches = branches };
    const float *logits;
    MIX_TRY(mix__engine_forward(t->engine, &pass, &logits));
    *loss = mix__loss_eval(logits, t->teacher_logits, labels, mix__engine_batch(t->engine),
                           g->tensors[g->output].c, scale, t->dlogits);
    if (!isfinite(loss->loss))
        return mix__fail(t->ctx, MIX_ENUMERIC, "the loss is %g", loss->loss);
    return MIX_OK;
}

mix_status mix__trainer_update(struct mix__trainer *t)
{
    struct mix__state *s = t->state;
    const double norm =
        mix__clip_gradients(s->grad, t->ranges, t->n_ranges, t->settings->clip_norm);
    if (!isfinite(norm))
        return mix__fail(t->ctx, MIX_ENUMERIC, "the gradient's norm is %g", norm);
    mix__optimizer_step(&t->optimizer, s->value, s->grad, (float)t->lr, t->ranges, t->n_ranges);
    s->version++;
    return MIX_OK;
}

mix_status mix__trainer_step(struct mix__trainer *t, const struct mix__phase *phase,
                             const int *labels, struct mix__loss *loss)
{
    struct mix__state *s = t->state;
    (void)phase;
    memset(s->grad, 0, s->n * sizeof *s->grad);
    MIX_TRY(mix__trainer_forward(t, true, 0, 1, labels, 1.0f, loss));
    MIX_TRY(mix__engine_backward(t->engine, t->dlogits, MIX__GRAD_PARAMS));
    return mix__trainer_update(t);
}
