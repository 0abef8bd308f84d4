/*
 * train/average.c - the moving average of the weights that training leaves behind.
 */
#include <string.h>

#include "train/train.h"

mix_status mix__average_init(struct mix__average *a, const struct mix__state *state, double decay)
{
    *a = (struct mix__average){
        .ctx = state->ctx, .decay = decay, .n = state->n, .n_stats = state->n_stats
    };
    if (decay == 0.0)
        return MIX_OK;
    a->value = mix__zalloc(a->ctx, a->n, sizeof *a->value);
    a->stats = mix__zalloc(a->ctx, a->n_stats, sizeof *a->stats);
    if (a->value && a->stats)
        return MIX_OK;
    mix__average_release(a);
    return MIX_ENOMEM;
}

void mix__average_release(struct mix__average *a)
{
    if (a->ctx) {
        mix__free(a->ctx, a->value);
        mix__free(a->ctx, a->stats);
    }
    *a = (struct mix__average){ 0 };
}

static void approach(const struct mix__average *a, float *average, const float *value, size_t n,
                     float part)
{
#pragma omp parallel for simd schedule(static) num_threads(mix_ctx_threads(a->ctx))
    for (size_t i = 0; i < n; i++)
        average[i] += part * (value[i] - average[i]);
}

void mix__average_add(struct mix__average *a, const struct mix__state *state, int64_t step)
{
    if (a->decay == 0.0)
        return;
    if (step == 0) { /* exactly, whatever was there before */
        memcpy(a->value, state->value, a->n * sizeof *a->value);
        memcpy(a->stats, state->stats, a->n_stats * sizeof *a->stats);
        return;
    }
    const double early = (double)step / (double)(step + 9);
    const float part = (float)(1.0 - (a->decay < early ? a->decay : early));
    approach(a, a->value, state->value, a->n, part);
    approach(a, a->stats, state->stats, a->n_stats, part);
}

static void swap(float *a, float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const float was = a[i];
        a[i] = b[i];
        b[i] = was;
    }
}

void mix__average_swap(struct mix__average *a, struct mix__state *state)
{
    if (a->decay == 0.0)
        return;
    swap(a->value, state->value, a->n);
    swap(a->stats, state->stats, a->n_stats);
    state->version++;
}
