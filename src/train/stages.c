/*
 * train/stages.c - float training, and weight training's stages: doc/method.md section 4.
 */
#include <string.h>

#include "train/trainer.h"

/* ---- float training ---- */

static mix_status float_enter(struct mix__trainer *t, const struct mix__phase *p, bool fresh)
{
    (void)fresh;
    return mix__trainer_ranges(t, MIX__TRAIN_PARAMS, p);
}

void mix__phases_float(struct mix__trainer *t)
{
    const mix_settings *s = t->settings;
    mix__trainer_add(t, &(struct mix__phase){ .name = "float",
                                              .share = s->epochs,
                                              .lr = s->lr,
                                              .warmup = s->warmup_epochs,
                                              .weight_decay = s->weight_decay,
                                              .evaluate = true,
                                              .enter = float_enter,
                                              .step = mix__trainer_step });
}

/* ---- weight training ---- */

/* Activations at the selected bits, float weights. */
static mix_status stage_a_enter(struct mix__trainer *t, const struct mix__phase *p, bool fresh)
{
    if (fresh)
        mix__optimizer_reset(&t->optimizer);
    mix__trainer_quantize(t, false);
    return mix__trainer_ranges(t, MIX__TRAIN_PARAMS | MIX__TRAIN_SELECTED_STEPS, p);
}

/* Weights quantized too; goes on from where stage a ended, with a fresh optimizer. Weight steps of
 * the run that this one starts from stay. */
static mix_status stage_b_enter(struct mix__trainer *t, const struct mix__phase *p, bool fresh)
{
    mix__trainer_quantize(t, true);
    if (fresh) {
        mix__optimizer_reset(&t->optimizer);
        if (!t->state->weight_steps_ready)
            mix__state_init_weight_steps(t->state, mix__engine_modes(t->engine));
    }
    return mix__trainer_ranges(
        t, MIX__TRAIN_PARAMS | MIX__TRAIN_SELECTED_STEPS | MIX__TRAIN_WEIGHT_STEPS, p);
}

/* The same by fixed statistics of batch norm, those of the weights as stage b left them: training
 * sees the network that evaluation sees. */
static mix_status stage_c_enter(struct mix__trainer *t, const struct mix__phase *p, bool fresh)
{
    MIX_TRY(stage_b_enter(t, p, fresh));
    if (!fresh || t->settings->bn_batches == 0)
        return MIX_OK;
    if (!t->state->act_steps_ready)
        MIX_TRY(mix__calibrate(t->engine, t->batches, p->first_epoch));
    MIX_TRY(mix__batches_seek(t->batches, p->first_epoch, 0));
    return mix__restat(t->engine, t->batches, t->settings->bn_batches);
}

static mix_status stage_step(struct mix__trainer *t, const struct mix__phase *p, const int *labels,
                             struct mix__loss *loss)
{
    MIX_TRY(mix__trainer_calibrate(t));
    return mix__trainer_step(t, p, labels, loss);
}

/* A channel that has lost its weights has next to no variance, which stage c fixes: a step size that
 * jumps from 0 to a learning rate would come out some hundred times as large. */
enum { STAGE_C_STEP_RATE = 4 };

void mix__phases_finetune(struct mix__trainer *t)
{
    const mix_settings *s = t->settings;
    struct mix__phase phase = { .name = "stage a",
                                .share = s->stage_a_epochs,
                                .lr = s->finetune_lr,
                                .weight_decay = s->finetune_weight_decay,
                                .decoupled = strcmp(s->finetune_optimizer, "adamw") == 0,
                                .weight_step_rate = s->weight_step_rate,
                                .evaluate = true,
                                .enter = stage_a_enter,
                                .step = stage_step };
    mix__trainer_add(t, &phase);
    phase.name = "stage b";
    phase.share = s->stage_b_epochs;
    phase.enter = stage_b_enter;
    mix__trainer_add(t, &phase);
    phase.name = "stage c";
    phase.share = s->stage_c_epochs;
    phase.lr = s->stage_c_lr;
    if (phase.weight_step_rate == 0.0)
        phase.weight_step_rate = STAGE_C_STEP_RATE;
    phase.fixed_stats = true;
    phase.goes_on = s->stage_b_epochs > 0;
    phase.enter = stage_c_enter;
    mix__trainer_add(t, &phase);
}
