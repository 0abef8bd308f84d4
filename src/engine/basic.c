/*
 * engine/basic.c - add, channel gate, dropout and a lone activation.
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

/* to = a + b, or to = a when two is false; in parallel. */
static void add(const struct mix__engine *e, struct mix__values to, struct mix__values a,
                struct mix__values b, bool two, size_t n)
{
#pragma omp parallel for schedule(static)
    for (int group = 0; group < MIX__PARTS; group++) {
        const size_t from = mix__group_row(n, group), count = mix__group_row(n, group + 1) - from;
        const struct mix__values part = mix__values_from(to, from), one = mix__values_from(a, from);
        if (two)
            e->loops.add(part, one, mix__values_from(b, from), count);
        else
            e->loops.act_forward(part, one, count, MIX__ACT_NONE);
    }
}

static void add_backward(const struct mix__engine *e, const struct mix__step *s)
{
    const size_t n = mix__rows(e, &s->out) * (size_t)s->out.c;
    const struct mix__values dy = mix__engine_at(e, s->dy);
    for (int k = 0; k < 2; k++) {
        if (s->dx[k] == s->dy)
            continue; /* shares the gradient's place */
        const struct mix__values dx = mix__engine_at(e, s->dx[k]);
        add(e, dx, dy, dx, s->accumulate[k], n);
    }
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
    for (int group = 0; group < MIX__PARTS; group++) {
        const size_t from = mix__group_row(n, group);
        e->loops.act_forward(mix__values_from(y, from), mix__values_from(x, from),
                             mix__group_row(n, group + 1) - from, s->act);
    }
}

static void act_backward(const struct mix__engine *e, const struct mix__step *s)
{
    const size_t n = mix__rows(e, &s->out) * (size_t)s->out.c;
    const struct mix__values x = mix__engine_at(e, s->x[0]), dx = mix__engine_at(e, s->dx[0]);
    const struct mix__values dy = mix__engine_at(e, s->dy);
#pragma omp parallel for schedule(static)
    for (int group = 0; group < MIX__PARTS; group++) {
        const size_t from = mix__group_row(n, group);
        e->loops.act_backward(mix__values_from(dx, from), mix__values_from(dy, from),
                              mix__values_from(x, from), mix__group_row(n, group + 1) - from,
                              s->accumulate[0], s->act);
    }
}

void mix__basic_forward(struct mix__engine *e, const struct mix__step *s)
{
    switch (s->kind) {
    case MIX__STEP_ADD:
        add(e, mix__engine_at(e, s->y), mix__engine_at(e, s->x[0]), mix__engine_at(e, s->x[1]),
            true, mix__rows(e, &s->out) * (size_t)s->out.c);
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

void mix__basic_backward(struct mix__engine *e, const struct mix__step *s)
{
    switch (s->kind) {
    case MIX__STEP_ADD:
        add_backward(e, s);
        break;
    case MIX__STEP_GATE:
        gate_backward(e, s);
        break;
    case MIX__STEP_MAXPOOL:
        mix__maxpool_backward(e, s);
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
