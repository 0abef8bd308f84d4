/*
 * engine/expand.c - expand layers whose results are never in memory.
 *
 * A pointwise layer z = w x that widens, in front of a batch norm and a depthwise layer (the expand
 * layer of an inverted bottleneck), has the network's largest tensors behind it. They need not be
 * stored: the depthwise layer has its tiles of z made from x, forward and backward (remake), and
 * its gradient handed on at once (gradient). What is known only when a pass over all pixels is over
 * comes from sums of x, which is narrow. With n pixels, means m, the centred sums
 * C = sum (x - mean)(x - mean)^T and batch norm's dz = k1 du + k2 z + k3 (norm.c):
 *
 *   statistics   mean of z = w m_x,  sum of (z - mean)^2 = the diagonal of w C w^T
 *   gradients    dw = sum dz x^T = k1 sum du x^T + k2 w C + (k2 m_z + k3) n m_x^T
 *                dx = w^T dz     = (k1 w)^T du + (w^T k2 w) x + w^T k3
 *
 * sum du x^T and (k1 w)^T du are the depthwise layer's work, tile by tile; this layer's own forward
 * pass takes m_x and C, its backward pass adds the rest, both by walks over x alone.
 */
#include <omp.h>
#include <string.h>

#include "engine/engine_inside.h"
#include "engine/primitives.h"

static mix_status make_gram(struct mix__engine *e, const struct mix__step *s, struct mix__expand *x)
{
    const struct mix__conv_dims dims = {
        .n = e->plan.batch,
        .h = s->in.h,
        .w = s->in.w,
        .c = s->in.c,
        .oh = s->in.h,
        .ow = s->in.w,
        .k = s->in.c,
        .kernel = 1,
        .stride = 1,
        .groups = 1,
        .bias = true,
        .image = true,
        .dtype = mix__conv_types(e->convs[s->layer]).operand,
        .codes = MIX__DTYPE_F32,
        .y = MIX__DTYPE_F32,
        .dx = MIX__DTYPE_F32,
    };
    MIX_TRY(mix__conv_new(&x->gram, e->backend, &e->loops, &dims, true));
    e->bytes_weights += mix__conv_packed(x->gram);
    return MIX_OK;
}

mix_status mix__expand_make(struct mix__engine *e, const struct mix__step *s)
{
    struct mix__expand *x = &e->expands[s->layer];
    const size_t k = (size_t)s->out.c, c = (size_t)s->in.c,
                 floats = 3 * k * c + MIX__PARTS * c * c + c;
    MIX_TRY(make_gram(e, s, x));
    x->w = mix__alloc(e->ctx, floats, sizeof *x->w);
    x->mean = mix__alloc(e->ctx, c, sizeof *x->mean);
    if (!x->w || !x->mean)
        return MIX_ENOMEM;
    x->du_x = x->w + k * c;
    x->z_x = x->du_x + k * c;
    x->square = x->z_x + k * c;
    x->bias = x->square + MIX__PARTS * c * c;
    e->bytes_scratch += floats * sizeof *x->w + c * sizeof *x->mean;
    return MIX_OK;
}

void mix__expand_free(struct mix__engine *e)
{
    for (size_t l = 0; e->expands && l < e->graph->n_layers; l++) {
        mix__conv_free(e->expands[l].gram);
        mix__free(e->ctx, e->expands[l].w);
        mix__free(e->ctx, e->expands[l].mean);
    }
    mix__free(e->ctx, e->expands);
}

void mix__expand_keep(struct mix__engine *e, const struct mix__step *s, const float *weights)
{
    const size_t count = (size_t)s->out.c * (size_t)s->in.c;
    const bool half = mix__conv_types(e->convs[s->layer]).operand == MIX__DTYPE_BF16;
    for (size_t i = 0; i < count; i++)
        e->expands[s->layer].w[i] =
            half ? mix__bf16_widen(mix__bf16_round(weights[i])) : weights[i];
}

static struct mix__values read_x(const struct mix__engine *e, const struct mix__step *s,
                                 struct mix__span p)
{
    const enum mix__dtype dtype = mix__conv_types(e->expands[s->layer].gram).operand;
    return mix__read_input(e, s, mix__buffer_at(e, s->x[0], p.first, s->in.c), p.count, dtype,
                           mix__work_at(e, omp_get_thread_num(), MIX__WORK_READ));
}

/* ---- the depthwise layer's tiles ------------------------------------------------------------ */

/* Pixels from `first` on, of those that are there, move to the front. */
static void move_front(struct mix__values v, const struct mix__span *there, size_t first, size_t c)
{
    const size_t skip = first - there->first, size = c * mix__dtype_size(v.dtype);
    if (skip > 0)
        memmove(v.at, mix__values_from(v, skip * c).at, (there->count - skip) * size);
}

/* Rows that the last tile made are still there; the last product may make more than is asked for.
 */
mix_status mix__expand_remake(struct mix__engine *e, const struct mix__step *s, int thread,
                              struct mix__span p, struct mix__values *out)
{
    struct mix__conv *conv = e->convs[s->layer];
    const struct mix__conv_types types = mix__conv_types(conv);
    const struct mix__values x = { mix__work_at(e, thread, MIX__WORK_NARROW), types.operand };
    const struct mix__values z = { mix__work_at(e, thread, MIX__WORK_MADE), types.y };
    const size_t c = (size_t)s->in.c, k = (size_t)s->out.c, all = mix__rows(e, &s->in);
    struct mix__span *made = &e->made[thread];
    if (p.first >= made->first && p.first < made->first + made->count) {
        move_front(x, made, p.first, c);
        move_front(z, made, p.first, k);
        made->count -= p.first - made->first;
    } else
        made->count = 0;
    made->first = p.first;
    while (made->count < p.count) {
        const size_t at = made->first + made->count, rows = (size_t)e->expands[s->layer].rows;
        const size_t n = all - at < rows ? all - at : rows;
        const struct mix__values piece = mix__values_from(x, made->count * c);
        mix__make_input(e, s, piece, mix__buffer_at(e, s->x[0], at, s->in.c), n);
        MIX_TRY(
            mix__conv_forward(conv, thread, mix__values_from(z, made->count * k).at, piece, NULL));
        made->count += n;
    }
    *out = z;
    return MIX_OK;
}

/* Zero for values [from, to), if any. */
static void clear(struct mix__values v, size_t from, size_t to)
{
    if (from < to)
        memset(mix__values_from(v, from).at, 0, (to - from) * mix__dtype_size(v.dtype));
}

mix_status mix__expand_gradient(struct mix__engine *e, const struct mix__step *s, int thread,
                                struct mix__span p, struct mix__values du, unsigned what)
{
    struct mix__conv *conv = e->convs[s->layer];
    const struct mix__conv_types types = mix__conv_types(conv);
    const size_t c = (size_t)s->in.c, k = (size_t)s->out.c;
    const size_t rows = (size_t)e->expands[s->layer].rows;
    const struct mix__span made = e->made[thread];
    const size_t skip = p.first - made.first;
    const struct mix__values x = { mix__work_at(e, thread, MIX__WORK_NARROW), types.operand };
    const struct mix__values work = { mix__work_at(e, thread, MIX__WORK_RESULT), types.dx };
    const struct mix__values to = mix__buffer_at(e, s->dy, p.first, s->in.c);
    const struct mix__values dx = p.count == rows && types.dx == to.dtype ? to : work;
    if (what & MIX__GRAD_PARAMS) {
        clear(du, p.count * k, rows * k);
        clear(x, made.count * c, (skip + rows) * c);
        MIX_TRY(mix__conv_backward_weights(conv, thread, mix__values_from(x, skip * c).at, du.at));
    }
    MIX_TRY(mix__conv_backward_data(conv, thread, dx.at, du.at));
    if (dx.at != to.at)
        mix__convert(e, to, dx, p.count * c);
    return MIX_OK;
}

/* ---- forward -------------------------------------------------------------------------------- */

static mix_status moments_tile(struct mix__engine *e, const struct mix__step *s, int part,
                               const struct mix__tile *t, unsigned what)
{
    const struct mix__expand *expand = &e->expands[s->layer];
    const struct mix__span p = mix__y_span(expand->gram, t, t->y0, t->y1);
    const struct mix__values x = read_x(e, s, p);
    const size_t c = (size_t)s->in.c;
    (void)what;
    e->loops.row_sums(e->bias_sums + (size_t)part * e->widest, x, p.count, c);
    return mix__conv_add_weights(expand->gram, omp_get_thread_num(),
                                 expand->square + (size_t)part * c * c, x.at, x.at);
}

/* m_x, and C as the first part of `square`. */
static mix_status take_moments(struct mix__engine *e, const struct mix__step *s)
{
    const struct mix__expand *x = &e->expands[s->layer];
    const size_t c = (size_t)s->in.c;
    const double n = (double)mix__rows(e, &s->in);
    memset(e->bias_sums, 0, MIX__PARTS * e->widest * sizeof *e->bias_sums);
    memset(x->square, 0, MIX__PARTS * c * c * sizeof *x->square);
    MIX_TRY(mix__each_tile(e, s, x->gram, NULL, moments_tile, 0));
    for (size_t i = 0; i < c; i++)
        x->mean[i] = mix__bias_sum(e, mix__conv_tiling(x->gram)->parts, i) / n;
    for (size_t i = 0; i < c * c; i++) {
        double sum = -n * x->mean[i / c] * x->mean[i % c];
        for (size_t part = 0; part < MIX__PARTS; part++)
            sum += x->square[part * c * c + i];
        x->square[i] = (float)sum;
    }
    return MIX_OK;
}

mix_status mix__expand_forward(struct mix__engine *e, const struct mix__step *s)
{
    const struct mix__expand *x = &e->expands[s->layer];
    const size_t k = (size_t)s->out.c, c = (size_t)s->in.c;
    if (!mix__wants_statistics(e))
        return MIX_OK;
    MIX_TRY(take_moments(e, s));
    MIX_TRY(mix__product(e->ctx, x->z_x, x->w, false, x->square, k, c, c));
    double *mean = mix__norm_sums(e, 0), *m2 = mean + e->widest;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < k; i++) {
        mean[i] = m2[i] = 0.0;
        for (size_t j = 0; j < c; j++) {
            mean[i] += x->w[i * c + j] * x->mean[j];
            m2[i] += (double)x->z_x[i * c + j] * x->w[i * c + j];
        }
        m2[i] = m2[i] > 0.0 ? m2[i] : 0.0; /* rounding */
    }
    e->part_rows[0] = mix__rows(e, &s->in);
    mix__norm_settle(e, &e->plan.steps[s->after], 1);
    return MIX_OK;
}

/* ---- backward ------------------------------------------------------------------------------- */

mix_status mix__expand_back_begin(struct mix__engine *e, const struct mix__step *s)
{
    const struct mix__expand *x = &e->expands[s->layer];
    const struct mix__norm *norm = &e->norms[e->plan.steps[s->after].norm];
    const size_t k = (size_t)s->out.c, c = (size_t)s->in.c;
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < c; j++)
            e->weights[i * c + j] = norm->scale[i] / e->units[s->layer].x * x->w[i * c + j];
    mix__conv_weights_begin(e->convs[s->layer]);
    return mix__conv_pack_back(e->convs[s->layer], e->weights);
}

static void weight_gradient(struct mix__engine *e, const struct mix__step *s)
{
    const struct mix__expand *x = &e->expands[s->layer];
    const struct mix__norm *norm = &e->norms[e->plan.steps[s->after].norm];
    const size_t k = (size_t)s->out.c, c = (size_t)s->in.c;
    const double n = (double)mix__rows(e, &s->in);
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < k; i++) {
        const double share = n * ((double)norm->k2[i] * norm->mean[i] + norm->k3[i]);
        for (size_t j = i * c; j < (i + 1) * c; j++) {
            e->dweights[j] = norm->k1[i] * x->du_x[j];
            if (!e->pass.fixed_stats)
                e->dweights[j] += norm->k2[i] * x->z_x[j] + (float)(share * x->mean[j - i * c]);
        }
        mix__weights_backward(e, s->layer, i, i + 1);
    }
}

/* Packs w^T k2 w, and w^T k3 as bias. */
static mix_status prepare_rest(struct mix__engine *e, const struct mix__step *s)
{
    const struct mix__expand *x = &e->expands[s->layer];
    const struct mix__norm *norm = &e->norms[e->plan.steps[s->after].norm];
    const size_t k = (size_t)s->out.c, c = (size_t)s->in.c;
    memset(x->bias, 0, c * sizeof *x->bias);
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < c; j++) {
            e->weights[i * c + j] = norm->k2[i] * x->w[i * c + j];
            x->bias[j] += norm->k3[i] * x->w[i * c + j];
        }
    MIX_TRY(mix__product(e->ctx, x->square, x->w, true, e->weights, c, c, k));
    return mix__conv_pack(x->gram, x->square, false);
}

static mix_status rest_tile(struct mix__engine *e, const struct mix__step *s, int part,
                            const struct mix__tile *t, unsigned what)
{
    const struct mix__expand *x = &e->expands[s->layer];
    const int thread = omp_get_thread_num();
    const struct mix__span p = mix__y_span(x->gram, t, t->y0, t->y1);
    const struct mix__values du = mix__buffer_at(e, s->dy, p.first, s->in.c);
    const struct mix__values dx = mix__f32(mix__work_at(e, thread, MIX__WORK_RESULT));
    (void)what;
    if (e->pass.fixed_stats) {
        mix__back_to_input(e, s, part, p, du);
        return MIX_OK;
    }
    MIX_TRY(mix__conv_forward(x->gram, thread, dx.at, read_x(e, s, p), x->bias));
    e->loops.add(dx, dx, du, p.count * (size_t)s->in.c);
    mix__back_to_input(e, s, part, p, dx);
    return MIX_OK;
}

mix_status mix__expand_backward(struct mix__engine *e, const struct mix__step *s, unsigned what)
{
    const struct mix__expand *x = &e->expands[s->layer];
    if (what & MIX__GRAD_PARAMS)
        weight_gradient(e, s);
    if (!e->pass.fixed_stats)
        MIX_TRY(prepare_rest(e, s));
    MIX_TRY(mix__each_tile(e, s, x->gram, mix__norm_back_begin, rest_tile, what));
    mix__back_settle(e, s, mix__conv_tiling(x->gram)->parts, what);
    return MIX_OK;
}
