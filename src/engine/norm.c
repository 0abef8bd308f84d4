/*
 * engine/norm.c - batch norm with what follows it: activation and quantizer, one pass over memory
 * each way beside the one for the statistics.
 *
 *   y = fake(act(gamma * (z - mean) * rstd + beta))
 *
 * Backward, with R rows, xhat = (z - mean) * rstd and du the gradient behind the activation:
 *   dbeta = sum du,  dgamma = sum du * xhat
 *   dz = gamma * rstd * (du - dbeta / R - xhat * dgamma / R)          = k1 du + k2 z + k3
 *
 * Each way takes two walks over tensors that may be larger than the cache. The first one, the sums,
 * goes from the end to the beginning: what the convolution before it wrote last is still in
 * the cache, and what the sums read last is where the second walk begins.
 */
#include <string.h>

#include "engine/inside.h"

static float *value(const struct mix__engine *e, int param)
{
    return e->state->value + e->graph->params[param].offset;
}

static float *running(const struct mix__engine *e, int param)
{
    return e->state->stats + (e->graph->params[param].offset - e->graph->n_trained);
}

static size_t piece_rows(size_t c)
{
    const size_t rows = MIX__PIECE_BYTES / (c * sizeof(float));
    return rows ? rows : 1;
}

/* Joins (count, mean, m2) of b to a, per channel (Chan, Golub, LeVeque 1979). */
static void join(double *mean, double *m2, size_t count, const float *b_mean, const float *b_m2,
                 size_t b_count, size_t c)
{
    const double share = (double)b_count / (double)(count + b_count);
    for (size_t i = 0; i < c; i++) {
        const double delta = b_mean[i] - mean[i];
        mean[i] += delta * share;
        m2[i] += b_m2[i] + delta * delta * share * (double)count;
    }
}

/* Leaves mean and sum of squared deviations in group 0's sums. */
static void batch_statistics(struct mix__engine *e, const float *z, size_t rows, size_t c)
{
    const size_t step = piece_rows(c);
#pragma omp parallel for schedule(static)
    for (int group = MIX__GROUPS - 1; group >= 0; group--) {
        double *mean = e->group_sums + (size_t)group * 2 * e->widest, *m2 = mean + e->widest;
        float *piece_mean = e->piece_sums + (size_t)group * 2 * e->widest;
        float *piece_m2 = piece_mean + e->widest;
        const size_t from = mix__group_row(rows, group), to = mix__group_row(rows, group + 1);
        memset(mean, 0, c * sizeof *mean);
        memset(m2, 0, c * sizeof *m2);
        for (size_t end = to, n; end > from; end -= n) {
            n = end - from < step ? end - from : step;
            e->loops.norm_stats(piece_mean, piece_m2, z + (end - n) * c, n, c);
            join(mean, m2, to - end, piece_mean, piece_m2, n, c);
        }
        for (size_t i = 0; i < c; i++) {
            piece_mean[i] = (float)mean[i];
            piece_m2[i] = (float)m2[i];
        }
    }
    for (int group = 1; group < MIX__GROUPS; group++) {
        const size_t before = mix__group_row(rows, group);
        const size_t count = mix__group_row(rows, group + 1) - before;
        const float *mean = e->piece_sums + (size_t)group * 2 * e->widest;
        if (count > 0)
            join(e->group_sums, e->group_sums + e->widest, before, mean, mean + e->widest, count,
                 c);
    }
}

static void use_batch_statistics(struct mix__engine *e, const struct mix__step *s, const float *z)
{
    const struct mix__node *node = s->node;
    struct mix__norm *norm = &e->norms[s->norm];
    const size_t rows = mix__rows(e, &s->in), c = (size_t)s->in.c;
    batch_statistics(e, z, rows, c);
    const double *mean = e->group_sums, *m2 = e->group_sums + e->widest;
    float *running_mean = running(e, node->mean), *running_var = running(e, node->var);
    for (size_t i = 0; i < c; i++) {
        norm->mean[i] = (float)mean[i];
        norm->rstd[i] = (float)(1.0 / sqrt(m2[i] / (double)rows + node->eps));
        if (!e->pass.update_stats)
            continue;
        const double unbiased = rows > 1 ? m2[i] / (double)(rows - 1) : 0.0;
        running_mean[i] += node->momentum * ((float)mean[i] - running_mean[i]);
        running_var[i] += node->momentum * ((float)unbiased - running_var[i]);
    }
}

static void measure_statistics(struct mix__engine *e, const struct mix__step *s, const float *z)
{
    const mix_graph *g = e->graph;
    const size_t rows = mix__rows(e, &s->in), c = (size_t)s->in.c;
    float *mean = e->pass.measure + (g->params[s->node->mean].offset - g->n_trained);
    float *var = e->pass.measure + (g->params[s->node->var].offset - g->n_trained);
    batch_statistics(e, z, rows, c);
    for (size_t i = 0; i < c; i++) {
        mean[i] = (float)e->group_sums[i];
        var[i] = (float)(e->group_sums[e->widest + i] / (double)rows);
    }
}

static void use_running_statistics(struct mix__engine *e, const struct mix__step *s)
{
    struct mix__norm *norm = &e->norms[s->norm];
    const float *mean = running(e, s->node->mean), *var = running(e, s->node->var);
    for (int i = 0; i < s->in.c; i++) {
        norm->mean[i] = mean[i];
        norm->rstd[i] = (float)(1.0 / sqrt((double)var[i] + s->node->eps));
    }
}

void mix__norm_forward(struct mix__engine *e, const struct mix__step *s)
{
    struct mix__norm *norm = &e->norms[s->norm];
    const float *z = mix__engine_at(e, s->x[0]);
    float *y = mix__engine_at(e, s->y);
    const size_t rows = mix__rows(e, &s->in), c = (size_t)s->in.c;
    const float *gamma = value(e, s->node->gamma), *beta = value(e, s->node->beta);
    if (!e->pass.batch_stats && e->pass.measure)
        measure_statistics(e, s, z);
    if (e->pass.batch_stats)
        use_batch_statistics(e, s, z);
    else
        use_running_statistics(e, s);
    const bool folded = s->source >= 0 && e->exacts[s->source].on;
    for (size_t i = 0; i < c; i++) {
        norm->scale[i] = folded ? 1.0f : gamma[i] * norm->rstd[i];
        norm->offset[i] = folded ? 0.0f : beta[i] - norm->mean[i] * norm->scale[i];
    }
    const struct mix__affine affine = { norm->scale, norm->offset, s->act };
    const struct mix__fake *fake = mix__step_fake(e, s);
#pragma omp parallel for schedule(static)
    for (int group = 0; group < MIX__GROUPS; group++) {
        const size_t from = mix__group_row(rows, group), to = mix__group_row(rows, group + 1);
        e->loops.norm_forward(y + from * c, z + from * c, to - from, c, &affine, fake);
    }
}

/* dy becomes du; leaves dbeta and dgamma in group 0's sums. */
static void backward_sums(struct mix__engine *e, const struct mix__step *s, float *dy,
                          const float *z)
{
    const struct mix__norm *norm = &e->norms[s->norm];
    const struct mix__affine affine = { norm->scale, norm->offset, s->act };
    const struct mix__fake *fake = mix__step_fake(e, s);
    const size_t rows = mix__rows(e, &s->in), c = (size_t)s->in.c, step = piece_rows(c);
#pragma omp parallel for schedule(static)
    for (int group = MIX__GROUPS - 1; group >= 0; group--) {
        double *sums = e->group_sums + (size_t)group * 2 * e->widest;
        float *piece = e->piece_sums + (size_t)group * 2 * e->widest;
        const size_t from = mix__group_row(rows, group), to = mix__group_row(rows, group + 1);
        memset(sums, 0, 2 * e->widest * sizeof *sums);
        e->fake_sums[group] = (struct mix__fake_sums){ 0 };
        for (size_t end = to, n; end > from; end -= n) {
            n = end - from < step ? end - from : step;
            const size_t at = (end - n) * c;
            memset(piece, 0, 2 * e->widest * sizeof *piece);
            e->loops.norm_backward_sums(dy + at, z + at, n, c, &affine, norm->mean, norm->rstd,
                                        fake, piece, piece + e->widest, &e->fake_sums[group]);
            for (size_t i = 0; i < c; i++) {
                sums[i] += piece[i];
                sums[e->widest + i] += piece[e->widest + i];
            }
        }
    }
    for (int group = 1; group < MIX__GROUPS; group++) {
        const double *sums = e->group_sums + (size_t)group * 2 * e->widest;
        for (size_t i = 0; i < c; i++) {
            e->group_sums[i] += sums[i];
            e->group_sums[e->widest + i] += sums[e->widest + i];
        }
    }
}

void mix__norm_backward(struct mix__engine *e, const struct mix__step *s, unsigned what)
{
    const struct mix__norm *norm = &e->norms[s->norm];
    const float *z = mix__engine_at(e, s->x[0]);
    float *dy = mix__engine_at(e, s->dy);
    const size_t rows = mix__rows(e, &s->in), c = (size_t)s->in.c;
    backward_sums(e, s, dy, z);
    if (s->layer >= 0)
        mix__fake_collect(e, s, what);

    const double *dbeta = e->group_sums, *dgamma = e->group_sums + e->widest;
    if (what & MIX__GRAD_PARAMS) {
        float *gamma_grad = e->state->grad + e->graph->params[s->node->gamma].offset;
        float *beta_grad = e->state->grad + e->graph->params[s->node->beta].offset;
        for (size_t i = 0; i < c; i++) {
            gamma_grad[i] += (float)dgamma[i];
            beta_grad[i] += (float)dbeta[i];
        }
    }
    float *k2 = e->piece_sums, *k3 = e->piece_sums + e->widest;
    for (size_t i = 0; i < c; i++) {
        const double k1 = norm->scale[i] / (double)rows;
        k2[i] = (float)(-k1 * norm->rstd[i] * dgamma[i]);
        k3[i] = (float)(-k1 * dbeta[i] + k1 * norm->rstd[i] * dgamma[i] * norm->mean[i]);
    }
#pragma omp parallel for schedule(static)
    for (int group = 0; group < MIX__GROUPS; group++) {
        const size_t from = mix__group_row(rows, group), to = mix__group_row(rows, group + 1);
        e->loops.norm_backward_input(dy + from * c, dy + from * c, z + from * c, to - from, c,
                                     norm->scale, k2, k3);
    }
}
