#include "train/profile.h"

#include <string.h>

#include "base/ctx.h"
#include "model/graph.h"

mix_status mix__profiler_new(struct mix__profiler **out, struct mix__engine *engine)
{
    const struct mix__state *state = mix__engine_state(engine);
    mix_ctx *ctx = state->ctx;
    *out = NULL;
    struct mix__profiler *p = mix__zalloc(ctx, 1, sizeof *p);
    if (!p)
        return MIX_ENOMEM;
    p->ctx = ctx;
    p->graph = state->graph;
    p->engine = engine;
    p->times.layers = mix__zalloc(ctx, p->graph->n_layers, sizeof *p->times.layers);
    p->layers = mix__zalloc(ctx, p->graph->n_layers, sizeof *p->layers);
    if (!p->times.layers || !p->layers) {
        mix__profiler_free(p);
        return MIX_ENOMEM;
    }
    *out = p;
    return MIX_OK;
}

void mix__profiler_free(struct mix__profiler *p)
{
    if (!p)
        return;
    mix__free(p->ctx, p->times.layers);
    mix__free(p->ctx, p->floors);
    mix__free(p->ctx, p->layers);
    mix__free(p->ctx, p);
}

void mix__profiler_begin(struct mix__profiler *p)
{
    if (p)
        mix__engine_clock(p->engine, &p->times);
}

void mix__profiler_end(struct mix__profiler *p, double seconds)
{
    if (!p)
        return;
    mix__engine_clock(p->engine, NULL);
    p->steps++;
    p->seconds += seconds;
}

static mix_status measure_floors(struct mix__profiler *p)
{
    struct mix__floor *floors = mix__zalloc(p->ctx, p->graph->n_layers, sizeof *floors);
    if (!floors)
        return MIX_ENOMEM;
    mix_status status = mix__floor_measure(p->engine, floors);
    if (status == MIX_OK)
        status = mix__floor_memory(p->engine, &p->copies);
    if (status == MIX_OK)
        p->floors = floors;
    else
        mix__free(p->ctx, floors);
    return status;
}

/* Everything begins anew but the floors. */
static void reset(struct mix__profiler *p)
{
    struct mix__layer_time *layers = p->times.layers;
    memset(layers, 0, p->graph->n_layers * sizeof *layers);
    p->times = (struct mix__times){ .layers = layers };
    p->steps = 0;
    p->seconds = p->waited = p->teacher = 0.0;
}

mix_status mix__profiler_report(struct mix__profiler *p, const char *phase, mix_profile *out)
{
    const struct mix__times *t = &p->times;
    const double steps = (double)p->steps;
    if (p->steps == 0)
        return mix__fail(p->ctx, MIX_EINVAL, "a profile of no steps");
    if (!p->floors)
        MIX_TRY(measure_floors(p));
    *out = (mix_profile){ .phase = phase,
                          .steps = p->steps,
                          .seconds = p->seconds / steps,
                          .waited = p->waited / steps,
                          .teacher = p->teacher / steps,
                          .weights = t->weights / steps,
                          .graph = t->rest / steps,
                          .copies = p->copies,
                          .layers = p->layers,
                          .n_layers = (int)p->graph->n_layers };
    for (size_t l = 0; l < p->graph->n_layers; l++) {
        const struct mix__floor *f = &p->floors[l];
        const struct mix__layer_time *time = &t->layers[l];
        mix_layer_profile *layer = &p->layers[l];
        *layer = (mix_layer_profile){
            .layer = &p->graph->layers[l].info,
            .forward = time->forward / steps,
            .backward = time->backward / steps,
            .bare = ((double)(time->forward_passes - time->product_passes) * f->forward +
                     (double)time->product_passes * f->forward_codes +
                     (double)time->data_passes * f->backward_data +
                     (double)time->weights_passes * f->backward_weights) /
                    steps,
            .bytes = ((double)time->forward_passes * f->bytes_forward +
                      (double)time->data_passes * f->bytes_backward -
                      (double)time->code_passes * f->bytes_spared) /
                     steps,
        };
        layer->floor = layer->bare + layer->bytes / p->copies;
        out->bare += layer->bare;
        out->bytes += layer->bytes;
        out->floor += layer->floor;
    }
    reset(p);
    return MIX_OK;
}
