/*
 * engine/engine.c - an engine's life, and the walk over its steps forward and back.
 */
#include <omp.h>
#include <stdint.h>
#include <string.h>

#include "base/clock.h"
#include "engine/engine_inside.h"

enum mix__dtype mix__training_dtype(const mix_ctx *ctx, const char *precision)
{
    const bool half = strcmp(precision, "auto") == 0 ? mix_ctx_cpu(ctx) & MIX_CPU_AVX2
                                                     : strcmp(precision, "bf16") == 0;
    return half ? MIX__DTYPE_BF16 : MIX__DTYPE_F32;
}

/* Bytes of a tensor that the second level caches of a few cores will not hold until it is read
 * again: it need not come into them. */
enum { LARGE = 4 << 20 };

/* What the layer's codes are as bytes, where the CPU multiplies those faster than values of this
 * type: without VNNI unsigned ones faster than float32. */
static enum mix__dtype code_type(const struct mix__engine *e, const struct mix__step *s,
                                 enum mix__dtype values)
{
    const unsigned cpu = mix_ctx_cpu(e->ctx);
    const bool vnni = cpu & MIX_CPU_VNNI, able = cpu & MIX_CPU_AVX2 && values == MIX__DTYPE_F32;
    const mix_range range = e->graph->layers[s->layer].info.range;
    if (!mix__takes_units(s) || s->unstored)
        return MIX__DTYPE_F32;
    return range == MIX_RANGE_UNSIGNED && (vnni || able) ? MIX__DTYPE_U8
           : range == MIX_RANGE_SIGNED && vnni           ? MIX__DTYPE_S8
                                                         : MIX__DTYPE_F32;
}

static mix_status make_conv(struct mix__engine *e, const struct mix__step *s)
{
    const enum mix__dtype x = e->plan.buffers[s->x[0]].dtype, y = e->plan.buffers[s->y].dtype;
    const bool products = mix_ctx_cpu(e->ctx) & MIX_CPU_BF16_PRODUCTS;
    struct mix__conv_dims dims = mix__step_dims(&e->plan, s);
    dims.image = mix__reads_image(s);
    dims.dtype = products && (x == y || dims.image) ? y : MIX__DTYPE_F32;
    dims.codes = code_type(e, s, dims.dtype);
    dims.y = y;
    dims.dx = x;
    dims.rows = e->expands[s->layer].rows;
    MIX_TRY(mix__conv_new(&e->convs[s->layer], e->backend, &e->loops, &dims, e->plan.backward));
    e->bytes_weights += mix__conv_packed(e->convs[s->layer]);
    return MIX_OK;
}

/* The layer that a depthwise one makes its input with, in pieces of that one's tiles. */
static mix_status make_expand(struct mix__engine *e, const struct mix__step *depthwise)
{
    const struct mix__step *s = &e->plan.steps[depthwise->expand];
    const struct mix__conv *conv = e->convs[depthwise->layer];
    struct mix__expand *x = &e->expands[s->layer];
    for (int i = 0; i < mix__conv_tiling(conv)->count; i++) {
        const struct mix__tile t = mix__conv_tile(conv, i);
        const int rows = (int)mix__x_span(conv, &t, t.dx0, t.dx1).count;
        x->rows = rows > x->rows ? rows : x->rows;
    }
    MIX_TRY(make_conv(e, s));
    return mix__expand_make(e, s);
}

static mix_status make_convs(struct mix__engine *e)
{
    e->convs = mix__zalloc(e->ctx, e->graph->n_layers, sizeof *e->convs);
    e->expands = mix__zalloc(e->ctx, e->graph->n_layers, sizeof *e->expands);
    if (!e->convs || !e->expands)
        return MIX_ENOMEM;
    for (size_t i = 0; i < e->plan.n_steps; i++) {
        const struct mix__step *s = &e->plan.steps[i];
        if (s->kind != MIX__STEP_CONV || s->unstored)
            continue;
        MIX_TRY(make_conv(e, s));
        if (s->expand >= 0)
            MIX_TRY(make_expand(e, s));
    }
    return mix__backend_ready(e->backend);
}

/* The arrays of every batch norm, in one block. */
static mix_status make_norms(struct mix__engine *e)
{
    size_t channels = 0;
    for (size_t i = 0; i < e->plan.n_steps; i++)
        if (e->plan.steps[i].kind == MIX__STEP_NORM)
            channels += (size_t)e->plan.steps[i].in.c;
    e->norms = mix__alloc(e->ctx, (size_t)e->plan.n_norms, sizeof *e->norms);
    e->norm_block = mix__alloc(e->ctx, MIX__NORM_ARRAYS * channels, sizeof *e->norm_block);
    if (!e->norms || !e->norm_block)
        return MIX_ENOMEM;
    float *at = e->norm_block;
    for (size_t i = 0; i < e->plan.n_steps; i++) {
        const struct mix__step *s = &e->plan.steps[i];
        const size_t c = (size_t)s->in.c;
        if (s->kind != MIX__STEP_NORM)
            continue;
        e->norms[s->norm] = (struct mix__norm){ at,         at + c,     at + 2 * c, at + 3 * c,
                                                at + 4 * c, at + 5 * c, at + 6 * c };
        at += MIX__NORM_ARRAYS * c;
    }
    return MIX_OK;
}

static mix_status make_blocks(struct mix__engine *e)
{
    const mix_graph *g = e->graph;
    for (size_t t = 0; t < g->n_tensors; t++)
        if ((size_t)g->tensors[t].c > e->widest)
            e->widest = (size_t)g->tensors[t].c;
    for (size_t l = 0; l < g->n_layers; l++)
        if (g->layers[l].info.weights > e->most_weights)
            e->most_weights = g->layers[l].info.weights;
    e->arena = mix__alloc(e->ctx, e->plan.arena, 1);
    e->modes = mix__alloc(e->ctx, g->n_layers, sizeof *e->modes);
    e->packed = mix__zalloc(e->ctx, g->n_layers, sizeof *e->packed);
    e->fakes = mix__zalloc(e->ctx, g->n_layers, sizeof *e->fakes);
    e->units = mix__zalloc(e->ctx, g->n_layers, sizeof *e->units);
    e->zeros = mix__zalloc(e->ctx, e->widest, sizeof *e->zeros);
    e->made = mix__zalloc(e->ctx, (size_t)e->threads, sizeof *e->made);
    e->weights = mix__alloc(e->ctx, (size_t)e->threads * e->most_weights, sizeof *e->weights);
    e->dweights = mix__alloc(e->ctx, e->most_weights, sizeof *e->dweights);
    e->piece_sums = mix__alloc(e->ctx, MIX__PARTS * 2 * e->widest, sizeof *e->piece_sums);
    e->part_sums = mix__alloc(e->ctx, MIX__PARTS * 2 * e->widest, sizeof *e->part_sums);
    e->bias_sums = mix__alloc(e->ctx, MIX__PARTS * e->widest, sizeof *e->bias_sums);
    e->bytes_scratch +=
        ((size_t)e->threads + 1) * e->most_weights * sizeof *e->weights +
        MIX__PARTS * e->widest * (2 * sizeof *e->piece_sums + 3 * sizeof *e->part_sums);
    return e->arena && e->modes && e->packed && e->fakes && e->units && e->zeros && e->made &&
                   e->weights && e->dweights && e->piece_sums && e->part_sums && e->bias_sums
               ? MIX_OK
               : MIX_ENOMEM;
}

/* OpenMP counts for the calling thread, which may have run an engine of another context since. */
static void take_threads(const struct mix__engine *e)
{
    omp_set_num_threads(e->threads);
}

mix_status mix__engine_new(struct mix__engine **out, struct mix__state *state, int batch,
                           bool backward, enum mix__dtype dtype)
{
    mix_status status;
    *out = NULL;
    if (batch < 1 || batch > MIX_BATCH_MAX)
        return mix__fail(state->ctx, MIX_EINVAL, "batch of %d images; expected 1 to %d", batch,
                         MIX_BATCH_MAX);
    struct mix__engine *e = mix__zalloc(state->ctx, 1, sizeof *e);
    if (!e)
        return MIX_ENOMEM;
    e->ctx = state->ctx;
    e->state = state;
    e->graph = state->graph;
    e->threads = mix_ctx_threads(e->ctx);
    take_threads(e);
    mix__loops_init(&e->loops, mix_ctx_cpu(e->ctx));
    e->stream_from = e->loops.streams ? LARGE : SIZE_MAX;
    if ((status = mix__plan_make(&e->plan, e->graph, batch, backward, dtype)) != MIX_OK ||
        (status = mix__backend_new(&e->backend, e->ctx, e->threads)) != MIX_OK ||
        (status = make_convs(e)) != MIX_OK || (status = mix__work_make(e)) != MIX_OK ||
        (status = make_norms(e)) != MIX_OK || (status = make_blocks(e)) != MIX_OK ||
        (status = mix__exact_make(e)) != MIX_OK) {
        mix__engine_free(e);
        return status;
    }
    mix__engine_mode_all(e, MIX__QUANT_OFF, 0, MIX_BITS_FLOAT);
    *out = e;
    return MIX_OK;
}

void mix__engine_free(struct mix__engine *e)
{
    if (!e)
        return;
    for (size_t l = 0; e->convs && l < e->graph->n_layers; l++)
        mix__conv_free(e->convs[l]);
    mix__expand_free(e);
    mix__backend_free(e->backend);
    mix__exact_free(e);
    mix__plan_release(&e->plan);
    void *const blocks[] = { e->convs,    e->arena,     e->modes,      e->packed,    e->fakes,
                             e->units,    e->norms,     e->norm_block, e->made,      e->weights,
                             e->dweights, e->work,      e->piece_sums, e->part_sums, e->bias_sums,
                             e->watched,  e->stem_grad, e->zeros };
    for (size_t i = 0; i < MIX_COUNT(blocks); i++)
        mix__free(e->ctx, blocks[i]);
    mix__free(e->ctx, e);
}

struct mix__state *mix__engine_state(const struct mix__engine *e)
{
    return e->state;
}

int mix__engine_batch(const struct mix__engine *e)
{
    return e->plan.batch;
}

enum mix__dtype mix__engine_dtype(const struct mix__engine *e)
{
    return e->plan.dtype;
}

struct mix__memory mix__engine_memory(const struct mix__engine *e)
{
    return (struct mix__memory){ e->plan.arena, e->bytes_weights,
                                 e->bytes_scratch + mix__backend_scratch(e->backend) };
}

struct mix__layer_mode *mix__engine_modes(struct mix__engine *e)
{
    return e->modes;
}

void mix__engine_mode_all(struct mix__engine *e, enum mix__quant_mode mode, int choice,
                          int weight_bits)
{
    for (size_t l = 0; l < e->graph->n_layers; l++)
        e->modes[l] =
            e->graph->layers[l].info.searched
                ? (struct mix__layer_mode){ mode, choice, weight_bits }
                : (struct mix__layer_mode){ mode, 0,
                                            weight_bits == MIX_BITS_FLOAT ? weight_bits
                                                                          : MIX_BITS_FIXED };
}

float *mix__engine_input(struct mix__engine *e)
{
    return mix__engine_floats(e, e->plan.input);
}

void mix__engine_clock(struct mix__engine *e, struct mix__times *times)
{
    e->times = times;
}

/* Adds what passed since `began` to the place, which is one of e->times; gives the time now. */
static double book(double *place, double began)
{
    const double now = mix__clock();
    *place += now - began;
    return now;
}

/* The time of a step, forward or, as `what` says, backward. */
static double book_step(struct mix__engine *e, const struct mix__step *s, unsigned what,
                        double began)
{
    if (!e->times)
        return began;
    if (s->layer < 0)
        return book(&e->times->rest, began);
    struct mix__layer_time *layer = &e->times->layers[s->layer];
    layer->forward_passes += what == 0;
    layer->data_passes += what != 0;
    layer->weights_passes += (what & MIX__GRAD_PARAMS) != 0;
    const bool codes = e->fakes[s->layer].n_branch == 1;
    layer->code_passes += codes;
    layer->product_passes += codes && what == 0 && e->modes[s->layer].weight_bits != MIX_BITS_FLOAT;
    return book(what == 0 ? &layer->forward : &layer->backward, began);
}

static mix_status step_forward(struct mix__engine *e, const struct mix__step *s)
{
    switch (s->kind) {
    case MIX__STEP_CONV:
        return mix__layer_forward(e, s);
    case MIX__STEP_NORM:
        mix__norm_forward(e, s);
        return MIX_OK;
    default:
        mix__basic_forward(e, s);
        return MIX_OK;
    }
}

mix_status mix__engine_forward(struct mix__engine *e, const struct mix__pass *pass,
                               const float **logits)
{
    double began = mix__clock();
    take_threads(e);
    e->pass = *pass;
    mix__fakes_prepare(e);
    mix__exact_choose(e);
    mix__units_prepare(e);
    MIX_TRY(mix__weights_prepare(e));
    if (e->times)
        began = book(&e->times->weights, began);
    if (pass->branch == 0)
        e->stem_grad_filled = false;
    for (size_t i = pass->branch > 0 ? mix__shared_steps(e) : 0; i < e->plan.n_steps; i++) {
        MIX_TRY(step_forward(e, &e->plan.steps[i]));
        began = book_step(e, &e->plan.steps[i], 0, began);
    }
    *logits = mix__engine_floats(e, e->plan.output);
    return MIX_OK;
}

mix_status mix__engine_watch(struct mix__engine *e,
                             void (*watch)(void *user, const struct mix__layer_input *input),
                             void *user)
{
    size_t most = 0;
    if (e->plan.backward)
        return mix__fail(e->ctx, MIX_EUNSUPPORTED, "an engine that trains cannot be watched");
    for (size_t i = 0; i < e->plan.n_buffers; i++)
        most = e->plan.buffers[i].count > most ? e->plan.buffers[i].count : most;
    if (!e->watched)
        e->watched = mix__alloc(e->ctx, most, sizeof *e->watched);
    if (!e->watched)
        return MIX_ENOMEM;
    e->watch = watch;
    e->watch_user = user;
    return MIX_OK;
}

static mix_status step_backward(struct mix__engine *e, const struct mix__step *s, unsigned what)
{
    switch (s->kind) {
    case MIX__STEP_CONV:
        return mix__layer_backward(e, s, what);
    case MIX__STEP_NORM:
        mix__norm_backward(e, s, what);
        return MIX_OK;
    default:
        mix__basic_backward(e, s, what);
        return MIX_OK;
    }
}

/* Steps [to, from) from the last to the first. */
static mix_status steps_backward(struct mix__engine *e, size_t from, size_t to, unsigned what)
{
    double began = mix__clock();
    for (size_t i = from; i-- > to;) {
        MIX_TRY(step_backward(e, &e->plan.steps[i], what));
        began = book_step(e, &e->plan.steps[i], what, began);
    }
    return MIX_OK;
}

static int stem_gradient(const struct mix__engine *e)
{
    return e->plan.steps[e->plan.stem].dx[0];
}

mix_status mix__engine_share_stem(struct mix__engine *e)
{
    if (e->plan.stem == 0 || e->stem_grad)
        return MIX_OK;
    const struct mix__buffer *grad = &e->plan.buffers[stem_gradient(e)];
    const size_t size = mix__dtype_size(grad->dtype);
    e->stem_grad = mix__alloc(e->ctx, grad->count, size);
    e->bytes_scratch += e->stem_grad ? grad->count * size : 0;
    return e->stem_grad ? MIX_OK : MIX_ENOMEM;
}

/* The gradient of this branch is added to the sum, in the last one the sum to the gradient. */
static void sum_stem_gradient(struct mix__engine *e)
{
    const struct mix__buffer *buffer = &e->plan.buffers[stem_gradient(e)];
    const struct mix__values grad = mix__engine_at(e, stem_gradient(e));
    const struct mix__values sum = { e->stem_grad, buffer->dtype };
    const bool last = e->pass.branch == e->pass.branches - 1;
    const struct mix__values to = last ? grad : sum;
#pragma omp parallel for schedule(static)
    for (int part = 0; part < MIX__PARTS; part++) {
        const size_t first = mix__part_row(buffer->count, part);
        const size_t n = mix__part_row(buffer->count, part + 1) - first;
        const struct mix__values out = mix__values_from(to, first);
        const struct mix__values in = mix__values_from(grad, first);
        if (e->stem_grad_filled)
            e->loops.add(out, in, mix__values_from(sum, first), n);
        else if (!last)
            memcpy(out.at, in.at, n * mix__dtype_size(buffer->dtype));
    }
    e->stem_grad_filled = true;
}

mix_status mix__engine_backward(struct mix__engine *e, const float *dlogits, unsigned what)
{
    if (!e->plan.backward || !mix__is_training(e))
        return mix__fail(e->ctx, MIX_EINVAL,
                         "a backward pass needs a plan for it and a forward pass in training "
                         "before it");
    take_threads(e);
    const struct mix__buffer *out = &e->plan.buffers[e->plan.output_grad];
    memcpy(mix__engine_floats(e, e->plan.output_grad), dlogits, out->count * sizeof *dlogits);
    const size_t shared = mix__shared_steps(e);
    MIX_TRY(steps_backward(e, e->plan.n_steps, shared, what));
    if (shared == 0)
        return MIX_OK;
    sum_stem_gradient(e);
    return e->pass.branch < e->pass.branches - 1 ? MIX_OK : steps_backward(e, shared, 0, what);
}

mix_status mix__engine_calibrate(struct mix__engine *e)
{
    struct mix__state *state = e->state;
    const size_t n_layers = e->graph->n_layers;
    if (!e->plan.backward)
        return mix__fail(e->ctx, MIX_EINVAL, "calibration needs an engine with a backward plan");
    struct mix__layer_mode *kept = mix__alloc(e->ctx, n_layers, sizeof *kept);
    if (!kept)
        return MIX_ENOMEM;
    memcpy(kept, e->modes, n_layers * sizeof *kept);
    mix__engine_mode_all(e, MIX__QUANT_OFF, 0, MIX_BITS_FLOAT);
    const float *logits;
    const mix_status status =
        mix__engine_forward(e, &(struct mix__pass){ .batch_stats = true }, &logits);
    memcpy(e->modes, kept, n_layers * sizeof *kept);
    mix__free(e->ctx, kept);
    MIX_TRY(status);

    /* With a backward plan every layer's input is still there: its weight gradient would need it.
     */
    for (size_t i = 0; i < e->plan.n_steps; i++) {
        const struct mix__step *s = &e->plan.steps[i];
        if (s->kind != MIX__STEP_CONV)
            continue;
        const int l = s->layer, *candidate, n = mix__state_layer_candidates(state, l, &candidate);
        const float shift =
            mix__bounds_activation(candidate[0], e->graph->layers[l].info.range).shift;
        double mean;
        MIX_TRY(mix__layer_input_size(e, s, shift, &mean));
        for (int b = 0; b < n; b++)
            state->value[state->act_step + (size_t)l * state->n_candidates + b] =
                mix__step_init_activation(mean, candidate[b]);
    }
    state->act_steps_ready = true;
    return MIX_OK;
}
