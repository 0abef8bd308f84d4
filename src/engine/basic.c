/*
 * engine/basic.c - add with the batch norm before it and the clip behind it, channel gate, dropout
 * and a lone activation.
 */
#include <assert.h>
#include <string.h>

#include "base/random.h"
#include "engine/engine_inside.h"

/* y or dx = x or dy * mask / (1 - rate); the mask is drawn again in the backward pass. */
static void dropout(const struct mix__engine *e, const struct mix__step *s, int to_buffer,
                    int from_buffer, bool accumulate)
{
    const struct mix__values to = mix__engine_at(e, to_buffer),
                             from = mix__engine_at(e, from_buffer);
    const size_t n = mix__rows(e, &s->in) * (size_t)s->in.c;
    const double rate = e->pass.dropout ? s->node->rate : 0.0;
    const float scale = (float)(1.0 / (1.0 - rate));
    const uint64_t stream = MIX__STREAM(MIX__RANDOM_DROPOUT, e->pass.step);
    const uint64_t first = (uint64_t)(s - e->plan.steps) << 40; /* no two nodes share a mask */
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) {
        const bool keep =
            rate == 0.0 || mix__random_uniform(e->pass.seed, stream, first + i) >= rate;
        const float v = keep ? mix__values_get(from, i) * scale : 0.0f;
        mix__values_put(to, i, accumulate ? mix__values_get(to, i) + v : v);
    }
}

/* y = act(a + b) at some pixels, a behind its batch norm: what one loop wrote is in the cache for the
 * next. */
static void add_forward_piece(struct mix__engine *e, const struct mix__step *s, int part,
                              size_t first, size_t rows)
{
    (void)part;
    const int c = s->out.c;
    const size_t n = rows * (size_t)c;
    const struct mix__values y = mix__buffer_at(e, s->y, first, c);
    struct mix__values a = mix__buffer_at(e, s->x[0], first, c);
    if (s->before >= 0) {
        const struct mix__affine affine = mix__norm_affine(e, &e->plan.steps[s->before]);
        e->loops.norm_forward(y, a, rows, (size_t)c, &affine, &mix__not_quantized);
        a = y;
    }
    e->loops.add(y, a, mix__buffer_at(e, s->x[1], first, c), n);
    if (s->act != MIX__ACT_NONE)
        e->loops.act_forward(y, y, n, s->act);
}

/* dy becomes the gradient at the sum and goes to the inputs that have another place for it, with the
 * sums of the batch norm. */
static void add_backward_piece(struct mix__engine *e, const struct mix__step *s, int part,
                               size_t first, size_t rows)
{
    const int c = s->out.c;
    const size_t n = rows * (size_t)c;
    const struct mix__values dy = mix__buffer_at(e, s->dy, first, c);
    if (s->act != MIX__ACT_NONE)
        e->loops.act_backward(dy, dy, mix__buffer_at(e, s->y, first, c), n, false, s->act);
    for (int k = 0; k < 2; k++) {
        if (s->dx[k] == s->dy)
            continue;
        const struct mix__values dx = mix__buffer_at(e, s->dx[k], first, c);
        if (s->accumulate[k])
            e->loops.add(dx, dy, dx, n);
        else
            mix__convert(e, dx, dy, n);
    }
    if (s->before >= 0)
        mix__norm_back_add(
            e, &e->plan.steps[s->before], &mix__not_quantized, part,
            &(struct mix__norm_piece){ dy, dy, mix__buffer_at(e, s->x[0], first, c), rows, false });
}

static void add_backward(struct mix__engine *e, const struct mix__step *s, unsigned what)
{
    const bool norm = s->before >= 0;
    mix__each_piece(e, s, norm ? mix__norm_back_begin : NULL, add_backward_piece);
    if (norm)
        mix__norm_back_settle(e, &e->plan.steps[s->before], MIX__PARTS, what);
}

static void gate_forward(const struct mix__engine *e, const struct mix__step *s)
{
    const struct mix__values x = mix__engine_at(e, s->x[0]), y = mix__engine_at(e, s->y);
    const float *gate = mix__engine_floats(e, s->x[1]);
    const size_t c = (size_t)s->in.c, pixels = (size_t)s->in.h * s->in.w;
#pragma omp parallel for schedule(static)
    for (int n = 0; n < e->plan.batch; n++) {
        const size_t at = (size_t)n * pixels * c;
        e->loops.gate_forward(mix__values_from(y, at), mix__values_from(x, at),
                              gate + (size_t)n * c, pixels, c);
    }
}

static void gate_backward(const struct mix__engine *e, const struct mix__step *s)
{
    const struct mix__values dy = mix__engine_at(e, s->dy), x = mix__engine_at(e, s->x[0]);
    const struct mix__values dx = mix__engine_at(e, s->dx[0]);
    const float *gate = mix__engine_floats(e, s->x[1]);
    float *dgate = mix__engine_floats(e, s->dx[1]);
    const size_t c = (size_t)s->in.c, pixels = (size_t)s->in.h * s->in.w;
#pragma omp parallel for schedule(static)
    for (int n = 0; n < e->plan.batch; n++) {
        const size_t at = (size_t)n * pixels * c, row = (size_t)n * c;
        if (!s->accumulate[1])
            memset(dgate + row, 0, c * sizeof *dgate);
        e->loops.gate_backward(mix__values_from(dx, at), dgate + row, mix__values_from(dy, at),
                               mix__values_from(x, at), gate + row, pixels, c, s->accumulate[0]);
    }
}

static void act_forward(const struct mix__engine *e, const struct mix__step *s)
{
    const size_t n = mix__rows(e, &s->out) * (size_t)s->out.c;
    const struct mix__values x = mix__engine_at(e, s->x[0]), y = mix__engine_at(e, s->y);
#pragma omp parallel for schedule(static)
    for (int part = 0; part < MIX__PARTS; part++) {
        const size_t from = mix__part_row(n, part);
        e->loops.act_forward(mix__values_from(y, from), mix__values_from(x, from),
                             mix__part_row(n, part + 1) - from, s->act);
    }
}

static void act_backward(const struct mix__engine *e, const struct mix__step *s)
{
    const size_t n = mix__rows(e, &s->out) * (size_t)s->out.c;
    const struct mix__values x = mix__engine_at(e, s->x[0]), dx = mix__engine_at(e, s->dx[0]);
    const struct mix__values dy = mix__engine_at(e, s->dy);
#pragma omp parallel for schedule(static)
    for (int part = 0; part < MIX__PARTS; part++) {
        const size_t from = mix__part_row(n, part);
        e->loops.act_backward(mix__values_from(dx, from), mix__values_from(dy, from),
                              mix__values_from(x, from), mix__part_row(n, part + 1) - from,
                              s->accumulate[0], s->act);
    }
}

void mix__basic_forward(struct mix__engine *e, const struct mix__step *s)
{
    switch (s->kind) {
    case MIX__STEP_ADD:
        mix__each_piece(e, s, NULL, add_forward_piece);
        break;
    case MIX__STEP_GATE:
        gate_forward(e, s);
        break;
    case MIX__STEP_MAXPOOL:
        mix__maxpool_forward(e, s);
        break;
    case MIX__STEP_AVGPOOL:
        mix__avgpool_forward(e, s);
        break;
    case MIX__STEP_DROPOUT:
        dropout(e, s, s->y, s->x[0], false);
        break;
    default:
        assert(s->kind == MIX__STEP_ACT);
        act_forward(e, s);
    }
}

void mix__basic_backward(struct mix__engine *e, const struct mix__step *s, unsigned what)
{
    switch (s->kind) {
    case MIX__STEP_ADD:
        add_backward(e, s, what);
        break;
    case MIX__STEP_GATE:
        gate_backward(e, s);
        break;
    case MIX__STEP_MAXPOOL:
        mix__maxpool_backward(e, s, what);
        break;
    case MIX__STEP_AVGPOOL:
        mix__avgpool_backward(e, s);
        break;
    case MIX__STEP_DROPOUT:
        dropout(e, s, s->dx[0], s->dy, s->accumulate[0]);
        break;
    default:
        assert(s->kind == MIX__STEP_ACT);
        act_backward(e, s);
    }
}
