/*
 * train/profile.h - where the time of a phase's steps goes, layer by layer, beside the floor.
 */
#ifndef METAMIX_TRAIN_PROFILE_H
#define METAMIX_TRAIN_PROFILE_H

#include "engine/floor.h"
#include "metamix/run.h"

/* What is added up while steps run; the caller books what is its own. */
struct mix__profiler {
    mix_ctx *ctx;
    const mix_graph *graph;
    struct mix__engine *engine; /* whose passes are timed */
    struct mix__times times;
    struct mix__floor *floors; /* (layer), once measured */
    double copies;             /* with them: mix__floor_memory() */
    mix_layer_profile *layers; /* (layer)                */
    int64_t steps;
    double seconds, waited, teacher; /* of the steps; of that for images, in the teacher */
};

/* Errors: MIX_ENOMEM. */
mix_status mix__profiler_new(struct mix__profiler **out, struct mix__engine *engine) MIX_CHECKED;
void mix__profiler_free(struct mix__profiler *profiler);
/* A step begins and ends: between them the engine's passes count. NULL: nothing happens. */
void mix__profiler_begin(struct mix__profiler *profiler);
void mix__profiler_end(struct mix__profiler *profiler, double seconds);
/* Means over the steps since the last report (MIX_EINVAL: there were none); the layers are the
 * profiler's, valid until the next call. The first report measures the floor. */
mix_status mix__profiler_report(struct mix__profiler *profiler, const char *phase,
                                mix_profile *profile) MIX_CHECKED;

#endif
