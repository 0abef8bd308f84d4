/*
 * train/evaluate.c - the evaluation loop.
 */
#include "train/evaluate.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"

void mix__engine_feed(struct mix__engine *engine, const struct mix__batch *batch)
{
    const struct mix__tensor *image = &mix__engine_state(engine)->graph->tensors[0];
    const size_t row = (size_t)image->h * (size_t)image->w * (size_t)image->c;
    const size_t used = row * (size_t)batch->count;
    float *input = mix__engine_input(engine);
    memcpy(input, batch->images, used * sizeof *input);
    memset(input + used, 0, (row * (size_t)mix__engine_batch(engine) - used) * sizeof *input);
}

mix_status mix__calibrate(struct mix__engine *engine, struct mix__batches *batches, int epoch)
{
    struct mix__batch batch;
    MIX_TRY(mix__batches_seek(batches, epoch, 0));
    MIX_TRY(mix__batches_next(batches, &batch));
    mix__engine_feed(engine, &batch);
    return mix__engine_calibrate(engine);
}

mix_progress mix_progress_at(const char *phase, int64_t step, int64_t steps)
{
    return (mix_progress){ .phase = phase,
                           .step = step,
                           .steps = steps,
                           .loss = NAN,
                           .top1 = NAN,
                           .gbops = NAN,
                           .images_per_second = NAN,
                           .seconds_left = NAN,
                           .data_wait = NAN,
                           .val_top1 = NAN,
                           .val_top5 = NAN,
                           .val_loss = NAN };
}

static void report(const mix_observer *observer, int64_t step, int64_t steps,
                   const mix_accuracy *accuracy, double seconds)
{
    if (!observer || !observer->progress)
        return;
    mix_progress progress = mix_progress_at("evaluate", step, steps);
    progress.epochs = 1;
    progress.loss = accuracy->loss;
    progress.top1 = accuracy->top1;
    progress.images_per_second = (double)accuracy->images / seconds;
    progress.seconds_left = seconds / (double)step * (double)(steps - step);
    observer->progress(observer->user, &progress);
}

mix_status mix__evaluate(struct mix__engine *engine, struct mix__batches *validation,
                         const mix_observer *observer, mix_accuracy *accuracy)
{
    const mix_graph *graph = mix__engine_state(engine)->graph;
    const struct mix__pass pass = { .batch_stats = false };
    const int64_t steps = mix__batches_per_epoch(validation);
    const int classes = graph->tensors[graph->output].c;
    const double began = mix__clock();
    mix_accuracy so_far = { 0 };
    *accuracy = so_far;
    MIX_TRY(mix__batches_seek(validation, 0, 0));
    for (int64_t step = 0; step < steps; step++) {
        struct mix__batch batch;
        const float *logits;
        MIX_TRY(mix__batches_next(validation, &batch));
        mix__engine_feed(engine, &batch);
        MIX_TRY(mix__engine_forward(engine, &pass, &logits));
        mix_accuracy_add(&so_far, logits, batch.labels, batch.count, classes);
        report(observer, step + 1, steps, &so_far, mix__clock() - began);
        if (observer && observer->stop && observer->stop(observer->user))
            return mix__fail(graph->ctx, MIX_ESTOPPED, "stopped while evaluating");
    }
    if (so_far.images == 0)
        return mix__fail(graph->ctx, MIX_EINVAL, "the data set has no validation images");
    *accuracy = so_far;
    return MIX_OK;
}

void mix_accuracy_add(mix_accuracy *a, const float *logits, const int *labels, int n, int classes)
{
    if (n == 0)
        return;
    const struct mix__loss sums = mix__loss_eval(logits, NULL, labels, n, classes, 1.0f, NULL);
    const double before = (double)a->images, now = before + n;
    /* Rounded, hits are whole numbers again. */
    a->top1 = 100.0 * (round(a->top1 * before / 100.0) + (double)sums.top1) / now;
    a->top5 = 100.0 * (round(a->top5 * before / 100.0) + (double)sums.top5) / now;
    a->loss = (a->loss * before + sums.loss * n) / now;
    a->images += n;
}

/* One batch's statistics: a pass from cleared running statistics leaves momentum * statistic. */
static void add_batch_stats(const struct mix__state *state, double *sum)
{
    const mix_graph *g = state->graph;
    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct mix__node *node = &g->nodes[i];
        if (node->op != MIX__OP_BATCHNORM)
            continue;
        const int params[] = { node->mean, node->var };
        for (size_t k = 0; k < MIX_COUNT(params); k++) {
            const struct mix__param *p = &g->params[params[k]];
            const size_t at = p->offset - g->n_trained;
            for (size_t c = 0; c < p->count; c++)
                sum[at + c] += (double)state->stats[at + c] / (double)node->momentum;
        }
    }
}

mix_status mix__restat(struct mix__engine *engine, struct mix__batches *batches, int n)
{
    struct mix__state *state = mix__engine_state(engine);
    const struct mix__pass pass = { .batch_stats = true, .update_stats = true };
    mix_status status = MIX_OK;
    double *sum = mix__zalloc(state->ctx, state->n_stats, sizeof *sum);
    if (!sum)
        return MIX_ENOMEM;
    for (int i = 0; i < n; i++) {
        struct mix__batch batch;
        const float *logits;
        memset(state->stats, 0, state->n_stats * sizeof *state->stats);
        if ((status = mix__batches_next(batches, &batch)) != MIX_OK)
            goto out;
        mix__engine_feed(engine, &batch);
        if ((status = mix__engine_forward(engine, &pass, &logits)) != MIX_OK)
            goto out;
        add_batch_stats(state, sum);
    }
    for (size_t i = 0; i < state->n_stats; i++)
        state->stats[i] = (float)(sum[i] / n);
    state->version++; /* folded batch norms are stale */
out:
    mix__free(state->ctx, sum);
    return status;
}

/*
 * gamma (z - mean) / sqrt(var + eps) + beta is the same map with new_mean and new_var when
 *   new_gamma = gamma sqrt((new_var + eps) / (var + eps))
 *   new_beta  = beta + gamma (new_mean - mean) / sqrt(var + eps)
 */
static void move_centre(struct mix__state *state, const struct mix__node *bn,
                        const double *measured)
{
    const mix_graph *g = state->graph;
    float *gamma = state->value + g->params[bn->gamma].offset;
    float *beta = state->value + g->params[bn->beta].offset;
    const size_t mean = g->params[bn->mean].offset - g->n_trained;
    const size_t var = g->params[bn->var].offset - g->n_trained;
    for (size_t c = 0; c < g->params[bn->gamma].count; c++) {
        const double old = sqrt((double)state->stats[var + c] + bn->eps);
        state->stats[var + c] = (float)measured[var + c];
        const float new_mean = (float)measured[mean + c];
        beta[c] += (float)(gamma[c] * ((double)new_mean - state->stats[mean + c]) / old);
        gamma[c] = (float)(gamma[c] * sqrt((double)state->stats[var + c] + bn->eps) / old);
        state->stats[mean + c] = new_mean;
    }
}

mix_status mix__recentre(struct mix__engine *engine, struct mix__batches *batches, int n)
{
    struct mix__state *state = mix__engine_state(engine);
    const mix_graph *g = state->graph;
    mix_status status = MIX_ENOMEM;
    struct mix__pass pass = { .measure = mix__zalloc(state->ctx, state->n_stats, sizeof(float)) };
    double *sum = mix__zalloc(state->ctx, state->n_stats, sizeof *sum);
    if (!pass.measure || !sum)
        goto out;
    for (int i = 0; i < n; i++) {
        struct mix__batch batch;
        const float *logits;
        if ((status = mix__batches_next(batches, &batch)) != MIX_OK)
            goto out;
        mix__engine_feed(engine, &batch);
        if ((status = mix__engine_forward(engine, &pass, &logits)) != MIX_OK)
            goto out;
        for (size_t s = 0; s < state->n_stats; s++)
            sum[s] += (double)pass.measure[s] / n;
    }
    for (size_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op == MIX__OP_BATCHNORM)
            move_centre(state, &g->nodes[i], sum);
    state->version++;
out:
    mix__free(state->ctx, pass.measure);
    mix__free(state->ctx, sum);
    return status;
}
