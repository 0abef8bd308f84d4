/*
 * train/checkpoint.h - everything a run needs to go on bit for bit, in one .safetensors file.
 *
 *   <parameter>                      F32  the graph's names and shapes: "features.0.0.weight"
 *   metamix.act_steps                F32  (layers, candidates); only once calibrated
 *   metamix.weight_step.<layer>      F32  (out channels); only once weights are quantized
 *   metamix.alpha                    F32  (layers, candidates)
 *   metamix.bits                     I32  (layers, 2) weight, activation; only once chosen
 *   metamix.optimizer.{m,v}          F32  (n) moments in the order of state->value
 *   metamix.alpha_optimizer.{m,v}    F32  (n_alpha)
 *   metamix.average.{value,stats}    F32  (n), (n_stats) of the moving average; only with one
 *   metamix.position                 I64  struct mix__point's counters
 *   metamix.sums                     F64  its running loss and accuracies
 *   metamix.times                    F64  seconds, the only values that differ between equal runs
 *
 * The metadata describes the network (format/graph_json.h), so that a checkpoint alone gives its
 * graph. A file for evaluation leaves out alphas, moments, average, position, sums and times.
 */
#ifndef METAMIX_TRAIN_CHECKPOINT_H
#define METAMIX_TRAIN_CHECKPOINT_H

#include "metamix/run.h"
#include "train/train.h"

enum { MIX__PHASES_MAX = 8 };

/* Where a run is: what comes next, and the sums of the epoch so far. */
struct mix__point {
    int64_t phase, epoch, step; /* next to do; step == steps of the epoch: evaluation comes next  */
    int64_t log_lines;          /* of log.jsonl that belong to this point                         */
    int64_t images, top1;       /* of the epoch so far                                            */
    double loss;                /* sum over those images                                          */
    mix_accuracy start, best, last; /* images == 0: not known */
    double seconds[MIX__PHASES_MAX], waited;
};

/* What a file holds besides the state. NULL: left out. */
struct mix__checkpoint_content {
    const char *phase;
    const mix_layer_bits *bits;
    const struct mix__point *point;
    const struct mix__optimizer *optimizer, *alpha_optimizer;
    const struct mix__average *average;
    size_t images; /* of an epoch, 0: not said; a run goes on with as many */
};

/* Errors: MIX_EIO, MIX_ENOMEM. */
mix_status mix__checkpoint_save(const struct mix__state *state, const char *path,
                                const struct mix__checkpoint_content *content) MIX_CHECKED;

struct mix__checkpoint;

/* Errors of all readers: MIX_EIO; MIX_EFORMAT with file and tensor (a missing or additional shape,
 * a value that is not finite, a step that is not positive); MIX_ENOMEM. */
mix_status mix__checkpoint_open(struct mix__checkpoint **out, mix_ctx *ctx,
                                const char *path) MIX_CHECKED;
void mix__checkpoint_close(struct mix__checkpoint *file);

/* The network with the file's parameters as its values. */
mix_status mix__checkpoint_graph(const struct mix__checkpoint *file, mix_graph **out) MIX_CHECKED;
/* The candidates of the state that was saved, for mix__state_new(). */
int mix__checkpoint_candidates(const struct mix__checkpoint *file, const int **candidate);
/* It has bits, or steps and, of a selection that was stopped, no bits yet. */
bool mix__checkpoint_quantized(const struct mix__checkpoint *file);
/* Training images of an epoch; 0: not said. */
size_t mix__checkpoint_images(const struct mix__checkpoint *file);
/* Of a selection that was stopped: trained for several bits, and none are chosen. */
bool mix__checkpoint_stopped(const struct mix__checkpoint *file);
/* *bits is NULL when the file has none; else the caller's, n_layers entries. */
mix_status mix__checkpoint_bits(const struct mix__checkpoint *file, const mix_graph *graph,
                                mix_layer_bits **bits) MIX_CHECKED;
/* Parameters, statistics and those steps that the file has; alphas when it has them. The state's
 * candidates are the file's. */
mix_status mix__checkpoint_state(const struct mix__checkpoint *file,
                                 struct mix__state *state) MIX_CHECKED;
/* The rest; optimizers and average have been made with the same options as the saved ones. */
mix_status mix__checkpoint_run(const struct mix__checkpoint *file, struct mix__point *point,
                               struct mix__optimizer *optimizer,
                               struct mix__optimizer *alpha_optimizer,
                               struct mix__average *average) MIX_CHECKED;

#endif
