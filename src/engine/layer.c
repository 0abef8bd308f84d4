/*
 * engine/layer.c - a layer with what lies on both sides of it, one tile at a time.
 *
 *   forward    x = fake(act(affine(z0)))      of the fused batch norm before it, or fake(z0)
 *              z = conv(x)                    goes to memory
 *              statistics of z                for the batch norm behind it
 *
 *   backward   dz = k1 du + k2 z + k3         of the batch norm behind it, or the gradient as it is
 *              x                              made again
 *              dw += dz^T x,  dx = conv^T(dz)
 *              du0 = back through fake, act   goes to memory; its sums are the batch norm's
 *
 * x, dz and dx live in the cache. So a layer between two batch norms reads one tensor and writes
 * one forward, and reads three (du, z, z0) and writes one backward. Loops for depthwise layers do
 * all of that between two batch norms themselves, some rows at a time. A depthwise layer behind an
 * unstored expand layer (expand.c) makes z0 itself, and has that layer's products with du0 instead
 * of writing it.
 */
#include <omp.h>
#include <string.h>

#include "engine/engine_inside.h"

static void need(size_t *size, size_t values)
{
    const size_t bytes = mix__aligned(values * sizeof(float));
    if (bytes > *size)
        *size = bytes;
}

/* As many pixels of the layer's input as can be read in one go. */
static size_t pixels_at_once(const struct mix__engine *e, const struct mix__step *s)
{
    if (s->expand >= 0)
        return (size_t)e->expands[e->plan.steps[s->expand].layer].rows;
    return e->work_size / ((size_t)s->in.c * sizeof(float));
}

/* What a layer that makes its input makes for a tile's backward pass: what that reads, and where it
 * puts a gradient. */
static struct mix__span made_span(const struct mix__conv *c, const struct mix__tile *t)
{
    return mix__x_span(c, t, t->x0, t->x1 > t->dx1 ? t->x1 : t->dx1);
}

mix_status mix__work_make(struct mix__engine *e)
{
    for (size_t i = 0; i < e->plan.n_steps; i++) {
        const struct mix__step *s = &e->plan.steps[i];
        if (s->kind != MIX__STEP_CONV)
            continue;
        const struct mix__conv *conv = s->unstored ? e->expands[s->layer].gram : e->convs[s->layer];
        size_t most = 0;
        for (int k = 0; k < mix__conv_tiling(conv)->count; k++) {
            const struct mix__tile t = mix__conv_tile(conv, k);
            const size_t pixels = made_span(conv, &t).count;
            most = pixels > most ? pixels : most;
            need(&e->work_size, pixels * (size_t)s->in.c);
            need(&e->work_size, mix__y_span(conv, &t, t.dy0, t.dy1).count *
                                    (size_t)(s->unstored ? s->in.c : s->out.c));
        }
        if (s->expand >= 0) /* the last product may make more than is asked for */
            need(&e->work_size, (most + pixels_at_once(e, s)) * (size_t)s->in.c);
    }
    e->bytes_scratch += (size_t)e->threads * MIX__WORKS * e->work_size;
    e->work = mix__zalloc(e->ctx, (size_t)e->threads * MIX__WORKS, e->work_size);
    return e->work ? MIX_OK : MIX_ENOMEM;
}

static bool streams(const struct mix__engine *e, const struct mix__tensor *t, enum mix__dtype dtype)
{
    return mix__rows(e, t) * (size_t)t->c * mix__dtype_size(dtype) >= e->stream_from;
}

void mix__make_input(const struct mix__engine *e, const struct mix__step *s, struct mix__values x,
                     struct mix__values z, size_t pixels)
{
    const struct mix__fake *fake = &e->fakes[s->layer];
    const size_t c = (size_t)s->in.c;
    if (s->before < 0) {
        e->loops.fake_forward(x, z, pixels * c, fake);
        return;
    }
    const struct mix__affine affine = mix__norm_affine(e, &e->plan.steps[s->before]);
    e->loops.norm_forward(x, z, pixels, c, &affine, fake);
}

struct mix__values mix__read_input(const struct mix__engine *e, const struct mix__step *s,
                                   struct mix__values z, size_t pixels, enum mix__dtype dtype,
                                   void *work)
{
    const struct mix__values x = { work, dtype };
    if (s->before < 0 && e->fakes[s->layer].n_branch == 0 && z.dtype == dtype)
        return z;
    mix__make_input(e, s, x, z, pixels);
    return x;
}

/* What the layer in front gave for these pixels, stored or made. */
static mix_status stored_input(struct mix__engine *e, const struct mix__step *s, int thread,
                               struct mix__span p, struct mix__values *z)
{
    if (s->expand < 0) {
        *z = mix__buffer_at(e, s->x[0], p.first, s->in.c);
        return MIX_OK;
    }
    return mix__expand_remake(e, &e->plan.steps[s->expand], thread, p, z);
}

/* These pixels of the gradient at the layer's output. */
static struct mix__values read_gradient(const struct mix__engine *e, const struct mix__step *s,
                                        struct mix__span p, void *work)
{
    const enum mix__dtype dtype = mix__conv_types(e->convs[s->layer]).operand;
    const struct mix__values dy = mix__buffer_at(e, s->dy, p.first, s->out.c);
    const struct mix__values dz = { work, dtype };
    const size_t k = (size_t)s->out.c;
    if (s->after >= 0) {
        const struct mix__norm *norm = &e->norms[e->plan.steps[s->after].norm];
        e->loops.norm_backward_input(dz, dy, mix__buffer_at(e, s->y, p.first, s->out.c), p.count, k,
                                     norm->k1, norm->k2, norm->k3);
        return dz;
    }
    if (dy.dtype == dtype)
        return dy;
    mix__convert(e, dz, dy, p.count * k);
    return dz;
}

mix_status mix__each_tile(struct mix__engine *e, const struct mix__step *s,
                          const struct mix__conv *conv, mix__part_begin *begin,
                          mix__tile_work *work, unsigned what)
{
    const struct mix__tiling *tiling = mix__conv_tiling(conv);
    mix_status status[MIX__PARTS] = { MIX_OK };
#pragma omp parallel for schedule(static)
    for (int part = 0; part < tiling->parts; part++) {
        if (begin)
            begin(e, s, part);
        e->made[omp_get_thread_num()].count = 0;
        for (int i = mix__part_first(tiling, part);
             i < mix__part_first(tiling, part + 1) && status[part] == MIX_OK; i++) {
            const struct mix__tile t = mix__conv_tile(conv, i);
            status[part] = work(e, s, part, &t, what);
        }
    }
    for (int part = 0; part < tiling->parts; part++)
        MIX_TRY(status[part]);
    return MIX_OK;
}

/* ---- forward -------------------------------------------------------------------------------- */

static const float *bias_of(const struct mix__engine *e, const struct mix__step *s)
{
    if (s->node->bias < 0)
        return NULL;
    return e->exacts[s->layer].on ? e->zeros
                                  : e->state->value + e->graph->params[s->node->bias].offset;
}

/* What a depthwise layer reads from these pixels, z: loops make it from that, unless it is no batch
 * norm that is in front. */
static struct mix__dw_input depthwise_input(const struct mix__engine *e, const struct mix__step *s,
                                            struct mix__values z, size_t pixels, void *work)
{
    const struct mix__fake *fake = &e->fakes[s->layer];
    if (s->before >= 0)
        return (struct mix__dw_input){ z, mix__norm_affine(e, &e->plan.steps[s->before]), fake };
    return (struct mix__dw_input){ .z = mix__read_input(e, s, z, pixels, MIX__DTYPE_F32, work) };
}

static mix_status multiply(struct mix__engine *e, const struct mix__step *s, int thread,
                           const struct mix__tile *t, void *z)
{
    struct mix__conv *conv = e->convs[s->layer];
    const struct mix__conv_types types = mix__conv_types(conv);
    const struct mix__span in = mix__x_span(conv, t, t->x0, t->x1);
    void *work = mix__work_at(e, thread, MIX__WORK_READ);
    struct mix__values stored;
    MIX_TRY(stored_input(e, s, thread, in, &stored));
    if (mix__conv_is_depthwise(conv)) {
        const struct mix__dw_input x = depthwise_input(e, s, stored, in.count, work);
        mix__depthwise_forward(conv, t, z, &x);
        return MIX_OK;
    }
    const struct mix__values x = mix__read_input(
        e, s, stored, in.count, e->units[s->layer].bytes ? types.codes : types.operand, work);
    return mix__conv_forward(conv, thread, z, x, bias_of(e, s));
}

static mix_status forward_tile(struct mix__engine *e, const struct mix__step *s, int part,
                               const struct mix__tile *t, unsigned what)
{
    (void)what;
    struct mix__conv *conv = e->convs[s->layer];
    const int thread = omp_get_thread_num();
    const struct mix__conv_types types = mix__conv_types(conv);
    const struct mix__span own = mix__y_span(conv, t, t->y0, t->y1);
    const struct mix__values y = mix__buffer_at(e, s->y, own.first, s->out.c);
    const bool statistics = s->after >= 0 && mix__wants_statistics(e), same = types.y == y.dtype;
    const bool stream = statistics && !e->exacts[s->layer].on && streams(e, &s->out, y.dtype);
    const struct mix__values work = { mix__work_at(e, thread, MIX__WORK_RESULT), types.y };
    const struct mix__values z = same && !stream ? y : work;
    MIX_TRY(multiply(e, s, thread, t, z.at));
    if (!same && !statistics)
        mix__convert(e, y, z, own.count * (size_t)s->out.c);
    if (e->exacts[s->layer].on)
        mix__exact_finish(e, s, own.first, own.first + own.count);
    if (statistics)
        mix__norm_part_add(e, part, y, z, own.count, (size_t)s->out.c, stream);
    return MIX_OK;
}

/* The whole input, for who watches an engine without a backward pass: one that stores it all. */
static void show_input(struct mix__engine *e, const struct mix__step *s)
{
    const struct mix__fake *fake = &e->fakes[s->layer];
    const bool codes = e->exacts[s->layer].on;
    const size_t pixels = mix__rows(e, &s->in);
    mix__make_input(e, s, mix__f32(e->watched), mix__engine_at(e, s->x[0]), pixels);
    const struct mix__layer_input input = { s->layer, e->watched, pixels * (size_t)s->in.c,
                                            codes ? fake->step[0] : 1.0f,
                                            codes ? fake->bounds[0].shift : 0.0f };
    e->watch(e->watch_user, &input);
}

mix_status mix__layer_forward(struct mix__engine *e, const struct mix__step *s)
{
    const bool statistics = s->after >= 0 && mix__wants_statistics(e);
    if (e->watch)
        show_input(e, s);
    if (s->unstored)
        return mix__expand_forward(e, s);
    MIX_TRY(mix__each_tile(e, s, e->convs[s->layer], statistics ? mix__norm_part_begin : NULL,
                           forward_tile, 0));
    if (statistics)
        mix__norm_settle(e, &e->plan.steps[s->after], mix__conv_tiling(e->convs[s->layer])->parts);
    return MIX_OK;
}

mix_status mix__layer_input_size(struct mix__engine *e, const struct mix__step *s, float shift,
                                 double *size)
{
    const size_t pixels = mix__rows(e, &s->in), c = (size_t)s->in.c, step = pixels_at_once(e, s);
    const enum mix__dtype dtype = mix__conv_types(e->convs[s->layer]).operand;
    mix_status status[MIX__PARTS] = { MIX_OK };
    double part_sum[MIX__PARTS] = { 0 }, sum = 0.0;
#pragma omp parallel for schedule(static)
    for (int part = 0; part < MIX__PARTS; part++) {
        const size_t to = mix__part_row(pixels, part + 1);
        e->made[omp_get_thread_num()].count = 0;
        for (size_t r = mix__part_row(pixels, part), n; r < to && status[part] == MIX_OK; r += n) {
            const int thread = omp_get_thread_num();
            struct mix__values z = { NULL, dtype };
            n = to - r < step ? to - r : step;
            status[part] = stored_input(e, s, thread, (struct mix__span){ r, n }, &z);
            if (status[part] == MIX_OK)
                part_sum[part] += e->loops.abs_sum(
                    mix__read_input(e, s, z, n, dtype, mix__work_at(e, thread, MIX__WORK_READ)),
                    n * c, shift);
        }
    }
    for (int part = 0; part < MIX__PARTS; part++) {
        MIX_TRY(status[part]);
        sum += part_sum[part];
    }
    *size = sum / (double)(pixels * c);
    return MIX_OK;
}

/* ---- backward ------------------------------------------------------------------------------- */

void mix__back_to_input(struct mix__engine *e, const struct mix__step *s, int part,
                        struct mix__span p, struct mix__values dx)
{
    const struct mix__fake *fake = &e->fakes[s->layer];
    const struct mix__values z = mix__buffer_at(e, s->x[0], p.first, s->in.c);
    const struct mix__values to = mix__buffer_at(e, s->dx[0], p.first, s->in.c);
    if (s->before >= 0)
        mix__norm_back_add(
            e, &e->plan.steps[s->before], fake, part,
            &(struct mix__norm_piece){ to, dx, z, p.count, streams(e, &s->in, to.dtype) });
    else if (fake->n_branch > 0 || dx.at != to.at)
        e->loops.fake_backward(to, dx, z, p.count * (size_t)s->in.c, s->accumulate[0], fake,
                               &e->fake_sums[part]);
}

static mix_status input_gradient(struct mix__engine *e, const struct mix__step *s, int part,
                                 const struct mix__tile *t, const void *dz)
{
    struct mix__conv *conv = e->convs[s->layer];
    const enum mix__dtype dtype = mix__conv_types(conv).dx;
    const int thread = omp_get_thread_num();
    const struct mix__span own = mix__x_span(conv, t, t->dx0, t->dx1);
    const struct mix__values work = { mix__work_at(e, thread, MIX__WORK_RESULT), dtype };
    const struct mix__values to = mix__buffer_at(e, s->dx[0], own.first, s->in.c);
    const bool stream = s->before >= 0 && streams(e, &s->in, to.dtype);
    const struct mix__values dx = to.dtype == dtype && !s->accumulate[0] && !stream ? to : work;
    MIX_TRY(mix__conv_backward_data(conv, thread, dx.at, dz));
    mix__back_to_input(e, s, part, own, dx);
    return MIX_OK;
}

static bool trains_image_step(const struct mix__engine *e, const struct mix__step *s, unsigned what)
{
    return mix__reads_image(s) && what & MIX__GRAD_PARAMS && e->fakes[s->layer].n_branch > 0;
}

/*
 * Of the image no gradient is wanted, but the step of its quantizer is trained. With slope_i the
 * derivative of the quantized x_i by the step,
 *   dstep = sum_i slope_i (w^T dz)_i = sum_o (w slope)_o dz_o,
 * a forward product, of the slopes, times dz. That is far cheaper than w^T dz, of few channels and
 * many pixels.
 */
static mix_status image_step_gradient(struct mix__engine *e, const struct mix__step *s, int part,
                                      const struct mix__tile *t, struct mix__values dz)
{
    struct mix__conv *conv = e->convs[s->layer];
    const struct mix__conv_types types = mix__conv_types(conv);
    const int thread = omp_get_thread_num();
    const struct mix__span in = mix__x_span(conv, t, t->x0, t->x1);
    const struct mix__span out = mix__y_span(conv, t, t->y0, t->y1);
    const struct mix__values slope = { mix__work_at(e, thread, MIX__WORK_READ), types.operand };
    const struct mix__values y = { mix__work_at(e, thread, MIX__WORK_RESULT), types.y };
    e->loops.fake_slope(slope, mix__buffer_at(e, s->x[0], in.first, s->in.c),
                        in.count * (size_t)s->in.c, &e->fakes[s->layer]);
    MIX_TRY(mix__conv_forward(conv, thread, y.at, slope, s->node->bias < 0 ? NULL : e->zeros));
    e->fake_sums[part].step[0] += e->loops.dot(y, dz, out.count * (size_t)s->out.c);
    return MIX_OK;
}

static mix_status backward_tile(struct mix__engine *e, const struct mix__step *s, int part,
                                const struct mix__tile *t, unsigned what)
{
    struct mix__conv *conv = e->convs[s->layer];
    const int thread = omp_get_thread_num();
    const struct mix__span in = mix__x_span(conv, t, t->x0, t->x1);
    const struct mix__span out = mix__y_span(conv, t, t->y0, t->y1);
    const struct mix__values dz =
        read_gradient(e, s, out, mix__work_at(e, thread, MIX__WORK_GRADIENT));
    if (what & MIX__GRAD_PARAMS) {
        const struct mix__values x =
            mix__read_input(e, s, mix__buffer_at(e, s->x[0], in.first, s->in.c), in.count,
                            mix__conv_types(conv).operand, mix__work_at(e, thread, MIX__WORK_READ));
        MIX_TRY(mix__conv_backward_weights(conv, thread, x.at, dz.at));
        if (s->node->bias >= 0)
            e->loops.row_sums(e->bias_sums + (size_t)part * e->widest, dz, out.count,
                              (size_t)s->out.c);
    }
    if (trains_image_step(e, s, what))
        return image_step_gradient(e, s, part, t, dz);
    return mix__reads_image(s) ? MIX_OK : input_gradient(e, s, part, t, dz.at);
}

/* dz as loops make it from what is stored, unless no batch norm is behind. */
static struct mix__dw_gradient depthwise_gradient(const struct mix__engine *e,
                                                  const struct mix__step *s, struct mix__span p,
                                                  void *work)
{
    if (s->after < 0)
        return (struct mix__dw_gradient){ .du = read_gradient(e, s, p, work) };
    const struct mix__norm *norm = &e->norms[e->plan.steps[s->after].norm];
    return (struct mix__dw_gradient){ mix__buffer_at(e, s->dy, p.first, s->out.c),
                                      mix__buffer_at(e, s->y, p.first, s->out.c), norm->k1,
                                      norm->k2, norm->k3 };
}

static mix_status depthwise_tile(struct mix__engine *e, const struct mix__step *s, int part,
                                 const struct mix__tile *t, unsigned what)
{
    struct mix__conv *conv = e->convs[s->layer];
    const int thread = omp_get_thread_num();
    const struct mix__span made = made_span(conv, t), own = mix__x_span(conv, t, t->dx0, t->dx1);
    const bool weights = what & MIX__GRAD_PARAMS;
    void *read = mix__work_at(e, thread, MIX__WORK_READ); /* x, or where loops make that, du */
    const struct mix__dw_gradient dz = depthwise_gradient(
        e, s, mix__y_span(conv, t, t->dy0, t->dy1), mix__work_at(e, thread, MIX__WORK_GRADIENT));
    struct mix__values z;
    MIX_TRY(stored_input(e, s, thread, made, &z));
    const struct mix__dw_input x = depthwise_input(e, s, z, made.count, read);
    if (s->before < 0) {
        const struct mix__values dx = mix__f32(mix__work_at(e, thread, MIX__WORK_RESULT));
        mix__depthwise_backward(conv, thread, t, dx, false, NULL, &x, &dz, weights);
        mix__back_to_input(e, s, part, own, dx);
        return MIX_OK;
    }
    const struct mix__step *norm = &e->plan.steps[s->before];
    const struct mix__norm_back back = mix__norm_back_open(e, norm, &e->fakes[s->layer], part);
    const struct mix__values du = s->expand >= 0 ? (struct mix__values){ read, z.dtype }
                                                 : mix__buffer_at(e, s->dx[0], own.first, s->in.c);
    const bool stream = s->expand < 0 && streams(e, &s->in, du.dtype);
    mix__depthwise_backward(conv, thread, t, du, stream, &back, &x, &dz, weights);
    mix__norm_back_close(e, part, (size_t)s->in.c);
    return s->expand < 0
               ? MIX_OK
               : mix__expand_gradient(e, &e->plan.steps[s->expand], thread, own, du, what);
}

/* dw, the gradient at what the layer multiplied by; back: and at its weights, piece by piece. */
static mix_status end_weights(struct mix__engine *e, const struct mix__step *s, float *dw,
                              bool back)
{
    struct mix__conv *conv = e->convs[s->layer];
    mix_status status = MIX_OK;
#pragma omp parallel for schedule(static)
    for (int i = 0; i < mix__conv_weights_pieces(conv); i++) {
        const mix_status own = mix__conv_weights_end(conv, omp_get_thread_num(), i, dw);
        if (own != MIX_OK)
#pragma omp critical
            status = own;
        else if (back)
            mix__weights_backward(e, s->layer, mix__conv_weights_first(conv, i),
                                  mix__conv_weights_first(conv, i + 1));
    }
    return status;
}

static void add_bias_gradient(const struct mix__engine *e, const struct mix__step *s, int parts)
{
    float *grad = e->state->grad + e->graph->params[s->node->bias].offset;
    for (size_t i = 0; i < (size_t)s->out.c; i++)
        grad[i] += (float)mix__bias_sum(e, parts, i);
}

void mix__back_settle(struct mix__engine *e, const struct mix__step *s, int parts, unsigned what)
{
    mix__fake_collect(e, s, parts, what);
    if (s->before >= 0)
        mix__norm_back_settle(e, &e->plan.steps[s->before], parts, what);
}

mix_status mix__layer_backward(struct mix__engine *e, const struct mix__step *s, unsigned what)
{
    struct mix__conv *conv = e->convs[s->layer];
    const struct mix__step *from = s->expand >= 0 ? &e->plan.steps[s->expand] : NULL;
    const int parts = mix__conv_tiling(conv)->parts;
    const bool weights = what & MIX__GRAD_PARAMS;
    if (s->unstored)
        return mix__expand_backward(e, s, what);
    if (from)
        MIX_TRY(mix__expand_back_begin(e, from));
    if (weights)
        mix__conv_weights_begin(conv);
    if (weights && s->node->bias >= 0)
        memset(e->bias_sums, 0, MIX__PARTS * e->widest * sizeof *e->bias_sums);
    MIX_TRY(mix__each_tile(e, s, conv, mix__norm_back_begin,
                           mix__conv_is_depthwise(conv) ? depthwise_tile : backward_tile, what));
    if (from && weights)
        MIX_TRY(end_weights(e, from, e->expands[from->layer].du_x, false));
    if (weights)
        MIX_TRY(end_weights(e, s, e->dweights, true));
    if (weights && s->node->bias >= 0)
        add_bias_gradient(e, s, parts);
    mix__back_settle(e, s, parts, what);
    return MIX_OK;
}
