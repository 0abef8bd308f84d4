/*
 * engine/norm.c - batch norm with its activation.
 *
 *   u = gamma * (z - mean) * rstd + beta,  y = act(u)
 *
 * Backward, with R rows, xhat = (z - mean) * rstd and du the gradient at u:
 *   dbeta = sum du,  dgamma = sum du * xhat
 *   dz = gamma * rstd * (du - dbeta / R - xhat * dgamma / R)          = k1 du + k2 z + k3
 *
 * The statistics of a convolution's output, and dz, are the convolution's work, tile by tile; so is
 * the rest where one layer alone reads y (layer.c). What is left to a step of its own is the walk
 * over y for other readers.
 *
 * Where a convolution multiplied codes instead of values, z is in units of x_unit * w_unit[k]
 * (unit_of): mean, scale and rstd absorb that, and dz comes multiplied by w_unit[k].
 */
#include <string.h>

#include "engine/engine_inside.h"

static float *value(const struct mix__engine *e, int param)
{
    return mix__state_param(e->state, &e->graph->params[param]);
}

/* What output channel k of a layer is multiplied by to be a value. */
static double unit_of(const struct mix__engine *e, int layer, size_t k)
{
    const struct mix__units *u = &e->units[layer];
    return (double)u->x * (u->w ? (double)u->w[k] : 1.0);
}

static size_t piece_rows(size_t c)
{
    const size_t rows = MIX__PIECE_BYTES / (c * sizeof(float));
    return rows ? rows : 1;
}

void mix__each_piece(struct mix__engine *e, const struct mix__step *s, mix__part_begin *begin,
                     mix__piece_work *work)
{
    const size_t rows = mix__rows(e, &s->in), step = piece_rows((size_t)s->in.c);
#pragma omp parallel for schedule(static)
    for (int part = 0; part < MIX__PARTS; part++) {
        const size_t to = mix__part_row(rows, part + 1);
        if (begin)
            begin(e, s, part);
        for (size_t r = mix__part_row(rows, part), n; r < to; r += n) {
            n = to - r < step ? to - r : step;
            work(e, s, part, r, n);
        }
    }
}

double *mix__norm_sums(const struct mix__engine *e, int part)
{
    return e->part_sums + (size_t)part * 2 * e->widest;
}

/* ---- statistics of a batch ------------------------------------------------------------------ */

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

static void clear_sums(struct mix__engine *e, int part, size_t c)
{
    double *sums = mix__norm_sums(e, part);
    memset(sums, 0, c * sizeof *sums);
    memset(sums + e->widest, 0, c * sizeof *sums);
}

void mix__norm_part_begin(struct mix__engine *e, const struct mix__step *s, int part)
{
    clear_sums(e, part, (size_t)s->out.c);
    e->part_rows[part] = 0;
}

void mix__norm_part_add(struct mix__engine *e, int part, struct mix__values to,
                        struct mix__values z, size_t rows, size_t c, bool stream)
{
    double *mean = mix__norm_sums(e, part);
    float *piece = e->piece_sums + (size_t)part * 2 * e->widest;
    e->loops.norm_stats(piece, piece + e->widest, to, z, rows, c, stream);
    join(mean, mean + e->widest, e->part_rows[part], piece, piece + e->widest, rows, c);
    e->part_rows[part] += rows;
}

/* Leaves mean and sum of squared deviations in part 0's sums; returns the rows. */
static size_t join_parts(struct mix__engine *e, int parts, size_t c)
{
    double *sums = mix__norm_sums(e, 0);
    size_t count = e->part_rows[0];
    for (int part = 1; part < parts; part++) {
        const double *from = mix__norm_sums(e, part);
        float *mean = e->piece_sums, *m2 = e->piece_sums + e->widest;
        for (size_t i = 0; i < c; i++) {
            mean[i] = (float)from[i];
            m2[i] = (float)from[e->widest + i];
        }
        if (e->part_rows[part] > 0)
            join(sums, sums + e->widest, count, mean, m2, e->part_rows[part], c);
        count += e->part_rows[part];
    }
    return count;
}

static void use_batch_statistics(struct mix__engine *e, const struct mix__step *s, size_t rows)
{
    const struct mix__node *node = s->node;
    struct mix__norm *norm = &e->norms[s->norm];
    const double *mean = mix__norm_sums(e, 0), *m2 = mean + e->widest;
    float *running_mean = value(e, node->mean), *running_var = value(e, node->var);
    const bool shared = s < e->plan.steps + mix__shared_steps(e);
    const float momentum =
        shared ? (float)(1.0 - pow(1.0 - node->momentum, e->pass.branches)) : node->momentum;
    for (size_t i = 0; i < (size_t)s->in.c; i++) {
        const double unit = unit_of(e, s->source, i), square = unit * unit * m2[i];
        norm->mean[i] = (float)mean[i];
        norm->rstd[i] = (float)(unit / sqrt(square / (double)rows + node->eps));
        if (!e->pass.update_stats)
            continue;
        const double unbiased = rows > 1 ? square / (double)(rows - 1) : 0.0;
        running_mean[i] += momentum * ((float)(unit * mean[i]) - running_mean[i]);
        running_var[i] += momentum * ((float)unbiased - running_var[i]);
    }
}

static void measure_statistics(struct mix__engine *e, const struct mix__step *s, size_t rows)
{
    const mix_graph *g = e->graph;
    const double *mean = mix__norm_sums(e, 0), *m2 = mean + e->widest;
    float *to_mean = e->pass.measure + (g->params[s->node->mean].offset - g->n_trained);
    float *to_var = e->pass.measure + (g->params[s->node->var].offset - g->n_trained);
    for (size_t i = 0; i < (size_t)s->in.c; i++) {
        to_mean[i] = (float)mean[i];
        to_var[i] = (float)(m2[i] / (double)rows);
    }
}

void mix__norm_settle(struct mix__engine *e, const struct mix__step *s, int parts)
{
    const size_t rows = join_parts(e, parts, (size_t)s->in.c);
    if (e->pass.batch_stats)
        use_batch_statistics(e, s, rows);
    else
        measure_statistics(e, s, rows);
}

static void use_running_statistics(struct mix__engine *e, const struct mix__step *s)
{
    struct mix__norm *norm = &e->norms[s->norm];
    const float *mean = value(e, s->node->mean), *var = value(e, s->node->var);
    for (int i = 0; i < s->in.c; i++) {
        const double unit = unit_of(e, s->source, (size_t)i);
        norm->mean[i] = (float)(mean[i] / unit);
        norm->rstd[i] = (float)(unit / sqrt((double)var[i] + s->node->eps));
    }
}

/* ---- forward -------------------------------------------------------------------------------- */

struct mix__affine mix__norm_affine(const struct mix__engine *e, const struct mix__step *s)
{
    const struct mix__norm *norm = &e->norms[s->norm];
    return (struct mix__affine){ norm->scale, norm->offset, s->act };
}

void mix__norm_forward(struct mix__engine *e, const struct mix__step *s)
{
    struct mix__norm *norm = &e->norms[s->norm];
    const size_t rows = mix__rows(e, &s->in), c = (size_t)s->in.c;
    const float *gamma = value(e, s->node->gamma), *beta = value(e, s->node->beta);
    if (!e->pass.batch_stats)
        use_running_statistics(e, s);
    const bool folded = e->exacts[s->source].on;
    for (size_t i = 0; i < c; i++) {
        norm->scale[i] = folded ? 1.0f : gamma[i] * norm->rstd[i];
        norm->offset[i] = folded ? 0.0f : beta[i] - norm->mean[i] * norm->scale[i];
    }
    if (s->fused)
        return;
    const struct mix__affine affine = mix__norm_affine(e, s);
    const struct mix__values z = mix__engine_at(e, s->x[0]), y = mix__engine_at(e, s->y);
#pragma omp parallel for schedule(static)
    for (int part = 0; part < MIX__PARTS; part++) {
        const size_t from = mix__part_row(rows, part), to = mix__part_row(rows, part + 1);
        e->loops.norm_forward(mix__values_from(y, from * c), mix__values_from(z, from * c),
                              to - from, c, &affine, &mix__not_quantized);
    }
}

/* ---- backward ------------------------------------------------------------------------------- */

void mix__norm_back_begin(struct mix__engine *e, const struct mix__step *s, int part)
{
    clear_sums(e, part, (size_t)s->in.c);
    e->fake_sums[part] = (struct mix__fake_sums){ 0 };
}

struct mix__norm_back mix__norm_back_open(struct mix__engine *e, const struct mix__step *s,
                                          const struct mix__fake *fake, int part)
{
    const struct mix__norm *norm = &e->norms[s->norm];
    float *dbeta = e->piece_sums + (size_t)part * 2 * e->widest, *dgamma = dbeta + e->widest;
    memset(dbeta, 0, (size_t)s->in.c * sizeof *dbeta);
    memset(dgamma, 0, (size_t)s->in.c * sizeof *dgamma);
    return (struct mix__norm_back){
        mix__norm_affine(e, s), norm->mean, norm->rstd, fake, dbeta, dgamma, &e->fake_sums[part]
    };
}

void mix__norm_back_close(struct mix__engine *e, int part, size_t c)
{
    double *sums = mix__norm_sums(e, part);
    const float *piece = e->piece_sums + (size_t)part * 2 * e->widest;
    for (size_t i = 0; i < c; i++) {
        sums[i] += piece[i];
        sums[e->widest + i] += piece[e->widest + i];
    }
}

void mix__norm_back_add(struct mix__engine *e, const struct mix__step *s,
                        const struct mix__fake *fake, int part, const struct mix__norm_piece *p)
{
    const size_t c = (size_t)s->in.c;
    const struct mix__norm_back back = mix__norm_back_open(e, s, fake, part);
    e->loops.norm_backward_sums(p->du, p->dy, p->z, p->rows, c, &back, p->stream);
    mix__norm_back_close(e, part, c);
}

/* The batch norm that the stem ends with, done by the first searched layer in every branch. */
static bool reads_shared(const struct mix__engine *e, const struct mix__step *s)
{
    const size_t stem = mix__shared_steps(e);
    return stem > 0 && e->plan.steps[stem].before == (int)(s - e->plan.steps);
}

void mix__norm_back_settle(struct mix__engine *e, const struct mix__step *s, int parts,
                           unsigned what)
{
    const struct mix__norm *norm = &e->norms[s->norm];
    const size_t c = (size_t)s->in.c;
    const double rows = (double)mix__rows(e, &s->in);
    double *dbeta = mix__norm_sums(e, 0), *dgamma = dbeta + e->widest;
    for (int part = 1; part < parts; part++) {
        const double *from = mix__norm_sums(e, part);
        for (size_t i = 0; i < c; i++) {
            dbeta[i] += from[i];
            dgamma[i] += from[e->widest + i];
        }
    }
    if (what & MIX__GRAD_PARAMS) {
        float *gamma_grad = e->state->grad + e->graph->params[s->node->gamma].offset;
        float *beta_grad = e->state->grad + e->graph->params[s->node->beta].offset;
        for (size_t i = 0; i < c; i++) {
            gamma_grad[i] += (float)dgamma[i];
            beta_grad[i] += (float)dbeta[i];
        }
    }
    const double x_unit = e->units[s->source].x;
    const bool fixed = e->pass.fixed_stats;                      /* do not depend on z */
    const bool more = reads_shared(e, s) && e->stem_grad_filled; /* k2, k3 of branches add up */
    for (size_t i = 0; i < c; i++) {
        const double k1 = norm->scale[i] / x_unit, share = k1 / rows;
        const double k2 = fixed ? 0.0 : -share * norm->rstd[i] * dgamma[i];
        const double k3 = fixed ? 0.0 : -share * dbeta[i] - k2 * norm->mean[i];
        norm->k1[i] = (float)k1;
        norm->k2[i] = (float)(k2 + (more ? (double)norm->k2[i] : 0.0));
        norm->k3[i] = (float)(k3 + (more ? (double)norm->k3[i] : 0.0));
    }
}

/* dy becomes du; dz is the convolution's work. */
static void backward_piece(struct mix__engine *e, const struct mix__step *s, int part, size_t first,
                           size_t rows)
{
    const struct mix__values dy = mix__buffer_at(e, s->dy, first, s->in.c);
    const struct mix__norm_piece piece = { dy, dy, mix__buffer_at(e, s->x[0], first, s->in.c), rows,
                                           false };
    mix__norm_back_add(e, s, &mix__not_quantized, part, &piece);
}

void mix__norm_backward(struct mix__engine *e, const struct mix__step *s, unsigned what)
{
    if (s->fused)
        return;
    mix__each_piece(e, s, mix__norm_back_begin, backward_piece);
    mix__norm_back_settle(e, s, MIX__PARTS, what);
}
