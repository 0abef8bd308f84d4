/*
 * job/job.h - what the command does: runs from settings to files, evaluation, export, traces.
 *
 *   run        phases
 *   train      float
 *   select     bit-meta, bit-search or what settings->search names (then selection)
 *   finetune   stages a, b and c
 *   quantize   all of select's and finetune's
 */
#ifndef METAMIX_JOB_JOB_H
#define METAMIX_JOB_JOB_H

#include "metamix/weights.h"
#include "search/search.h"

struct mix__job {
    struct mix__trainer t;
    mix_ctx *ctx;
    const char *kind, *from, *bits_text;
    const mix_settings *settings;
    unsigned groups;
    mix_graph *graph, *teacher_graph;
    mix_data *data;
    int candidate[MIX__BRANCH_MAX], n_candidates;
    uint64_t plan_bytes;
};

/* ---- settings that a run starts with (check.c) ---- */

/* MIX_EINVAL names the setting, its value and the range. */
mix_status mix__settings_check(mix_ctx *ctx, const mix_settings *settings,
                               unsigned groups) MIX_CHECKED;
/* "2,3,4,8" -> ascending array of MIX__BRANCH_MAX; MIX_EINVAL. */
mix_status mix__candidates_parse(mix_ctx *ctx, const char *text, int *candidate,
                                 int *n) MIX_CHECKED;

/* ---- what a job starts from (start.c) ---- */

/* MIX_EINVAL: both of from and settings->weights, or neither though the job needs one. */
mix_status mix__start_check(mix_ctx *ctx, const char *from, const mix_settings *settings,
                            unsigned groups) MIX_CHECKED;
/* Opens the checkpoint that a path names: the file itself, or a run folder's best, else its last.
 */
mix_status mix__checkpoint_from(mix_ctx *ctx, const char *from,
                                struct mix__checkpoint **out) MIX_CHECKED;
/* The network that the settings name, for these images: of the zoo, with the weights that the
 * settings name or random ones, or an ONNX file's. *info says what the file gave. */
mix_status mix__network_for(const mix_settings *settings, mix_ctx *ctx, const mix_data *images,
                            mix_graph **out, mix_weights_info *info) MIX_CHECKED;
/* Measures what a new network's graph is marked for (mix_graph_info.recentre) and takes the mark
 * away. */
mix_status mix__network_recentre(struct mix__job *job) MIX_CHECKED;

/* ---- the teacher (teacher_load.c) ---- */

/* Fills the trainer's teacher as settings->teacher says; "none": leaves it. MIX_EINVAL: it is no
 * float network, or has no classifier; MIX_ESHAPE: other images or classes than the student's. */
mix_status mix__teacher_make(struct mix__job *job) MIX_CHECKED;

/* ---- evaluation (eval.c) ---- */

/* The parts of a trainer (its ctx and settings are set) that judging needs; c NULL: in float, the
 * graph's values. */
mix_status mix__judge_make(struct mix__trainer *t, const struct mix__checkpoint *c, mix_data *data,
                           const mix_graph *graph, bool as_float) MIX_CHECKED;

/* ---- parts shared by the jobs (job.c) ---- */

/* Images as the graph takes them (MIX_ESHAPE: they are not); graph NULL: as settings say, which may
 * leave the size to an ONNX file. */
mix_status mix__data_for(mix_ctx *ctx, const mix_settings *settings, const mix_graph *graph,
                         mix_data **out) MIX_CHECKED;
mix_status mix__batches_open(struct mix__batches **out, mix_data *data,
                             const mix_settings *settings, mix_split split) MIX_CHECKED;
/* Runs a whole job; kind, from, bits_text, settings and groups are set in *job. Without from,
 * MIX_GROUP_NET is added to groups. */
mix_status mix__job_run(struct mix__job *job, const char *run_dir, const mix_observer *observer,
                        mix_result *result) MIX_CHECKED;

#endif
