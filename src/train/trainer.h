/*
 * train/trainer.h - runs a list of phases from a point on: epochs, evaluation, checkpoints.
 *
 * The job fills the parts, which the trainer then owns; a phase says how a step is made.
 * A run that was killed goes on from last.safetensors and computes the same values: all that
 * later steps depend on is the state, the optimizers and the point.
 */
#ifndef METAMIX_TRAIN_TRAINER_H
#define METAMIX_TRAIN_TRAINER_H

#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/profile.h"
#include "train/run_folder.h"

struct mix__trainer;

struct mix__phase {
    const char *name; /* as in mix_progress                                        */
    double share;     /* epochs; a part of an epoch is so many of its steps, rounded up */
    double lr;        /* peak; cosine to 0 per step, or constant                   */
    double warmup;    /* epochs of linear warm-up                                  */
    bool constant;
    double weight_decay;
    bool decoupled;          /* struct mix__range */
    double weight_step_rate; /* rate of weights' steps, struct mix__range */
    bool evaluate;           /* after every val_interval epochs and the last */
    bool fixed_stats;        /* batch norm by running statistics, which do not move */
    bool goes_on; /* trains the network of the phase before: its best epoch may be of that one */
    /* Sets modes and ranges, also after a resume; fresh: the phase begins now. */
    mix_status (*enter)(struct mix__trainer *t, const struct mix__phase *phase, bool fresh);
    /* One step on the engine's input batch. */
    mix_status (*step)(struct mix__trainer *t, const struct mix__phase *phase, const int *labels,
                       struct mix__loss *loss);
    mix_status (*leave)(struct mix__trainer *t, const struct mix__phase *phase); /* may be NULL */
    /* Filled by mix__trainer_plan(). */
    int epochs;
    int64_t steps, warmup_steps; /* of the whole phase */
    int first_epoch;             /* number of its first epoch over all phases: what is shuffled */
};

struct mix__trainer {
    mix_ctx *ctx;
    const mix_settings *settings;
    const mix_observer *observer; /* may be NULL */
    double target;                /* GBOPs of bit selection; NAN without a budget */

    struct mix__state *state;
    struct mix__engine *engine, *judge; /* training, evaluation */
    struct mix__batches *batches, *validation;
    struct mix__optimizer optimizer, alpha_optimizer;
    struct mix__average average; /* evaluated and kept in phases that evaluate */
    struct mix__range *ranges;   /* that the current phase trains */
    size_t n_ranges;
    mix_layer_bits *bits; /* NULL until there are */
    float *dlogits;       /* (batch, classes)     */
    struct mix__state *teacher_state;
    struct mix__engine *teacher;
    const float *teacher_logits; /* of the current batch, NULL without a teacher */

    struct mix__run_folder folder;
    struct mix__phase phases[MIX__PHASES_MAX];
    int n_phases;
    struct mix__point point;

    /* Of the current step: learning rate, number over all phases, cost of the network that would
     * be picked now (NAN outside the search). */
    double lr, gbops;
    int64_t counter;

    /* Clocks; no value of the run depends on them. */
    double marked, saved, waited;     /* when time was last booked; last save; booked waiting  */
    double train_seconds, train_wait; /* of this phase, since this start                       */
    double judge_seconds;             /* of the last evaluation                                */
    int64_t train_images;
    struct mix__profiler *profiler; /* NULL: not asked for */
};

/* Appends a phase. */
static inline void mix__trainer_add(struct mix__trainer *t, const struct mix__phase *phase)
{
    t->phases[t->n_phases++] = *phase;
}
/* Float training; weight training's stages a, b and c (stages.c). */
void mix__phases_float(struct mix__trainer *t);
void mix__phases_finetune(struct mix__trainer *t);
/* Lays phases out over the data and leaves out empty ones. batches and phases are set. */
void mix__trainer_plan(struct mix__trainer *t);
/* Runs from the point to the end. Errors: MIX_ESTOPPED after saving, MIX_ENUMERIC. */
mix_status mix__trainer_run(struct mix__trainer *t) MIX_CHECKED;
void mix__trainer_release(struct mix__trainer *t);

/* What phases are made of. */

enum {
    MIX__TRAIN_PARAMS = 1,         /* weights, biases, batch norm            */
    MIX__TRAIN_ALL_STEPS = 2,      /* activation steps of all candidates     */
    MIX__TRAIN_SELECTED_STEPS = 4, /* of the candidates in bits              */
    MIX__TRAIN_WEIGHT_STEPS = 8
};
mix_status mix__trainer_ranges(struct mix__trainer *t, unsigned what,
                               const struct mix__phase *phase) MIX_CHECKED;
/* MIX_EINVAL names the first layer whose activation bits are not among its candidates. */
mix_status mix__bits_check(const struct mix__state *state, const mix_layer_bits *bits) MIX_CHECKED;
/* Modes of the engines that there are, from t->bits (checked); weights: quantize them too. */
void mix__trainer_quantize(struct mix__trainer *t, bool weights);
/* Accuracy as the modes stand, batch norm re-estimated before when asked for. */
mix_status mix__trainer_judge(struct mix__trainer *t, const struct mix__phase *phase,
                              mix_accuracy *accuracy) MIX_CHECKED;
mix_status mix__trainer_save_best(struct mix__trainer *t, const char *phase) MIX_CHECKED;

/* t->teacher_logits for a batch, if there is a teacher. */
mix_status mix__trainer_teach(struct mix__trainer *t, const struct mix__batch *batch) MIX_CHECKED;
/* A batch of images for network `from` becomes the input of network `to`, whose images are of the
 * same size or larger (bilinear, as PyTorch's interpolate() does it) and may be normalised
 * otherwise. */
void mix__teacher_feed(struct mix__engine *teacher, const mix_graph *from,
                       const struct mix__batch *batch);

/* First activation steps from the engine's input batch, unless there are steps. */
mix_status mix__trainer_calibrate(struct mix__trainer *t) MIX_CHECKED;
/* Forward in training mode with dropout, and the loss; dlogits holds scale * its gradient. branch:
 * of branches, see struct mix__pass. */
mix_status mix__trainer_forward(struct mix__trainer *t, bool update_stats, int branch, int branches,
                                const int *labels, float scale, struct mix__loss *loss) MIX_CHECKED;
/* Clips state->grad and steps the optimizer; MIX_ENUMERIC when the norm is not finite. */
mix_status mix__trainer_update(struct mix__trainer *t) MIX_CHECKED;
/* The step of float training and of the stages of weight training. */
mix_status mix__trainer_step(struct mix__trainer *t, const struct mix__phase *phase,
                             const int *labels, struct mix__loss *loss) MIX_CHECKED;

/* The candidate's number, -1 for MIX_BITS_FLOAT; -2: not a candidate of the layer. */
int mix__state_choice(const struct mix__state *state, size_t layer, int bits);

#endif
