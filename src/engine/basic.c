/*
 * engine/basic.c - add, channel gate, dropout and a lone activation.
 */
#include <assert.h>
#include <string.h>

#include "base/random.h"
#include "engine/inside.h"

/* y or dx = x or dy * mask / (1 - rate); the mask is drawn again in the backward pass. */
static void dropout(const struct mix__engine *e, const struct mix__step *s, float *to,
                    const float *from, bool accumulate)
{
    const size_t n = mix__rows(e, &s->in) * (size_t)s->in.c;
    const double rate = e->pass.dropout ? s->node->rate : 0.0;
    const float scale = (float)(1.0 / (1.0 - rate));
    const uint64_t stream = MIX__STREAM(MIX__RANDOM_DROPOUT, e->pass.step);
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) {
        const bool keep = rate == 0.0 || mix__random_uniform(e->pass.seed, stream, i) >= rate;
        const float v = keep ? from[i] * scale : 0.0f;
        to[i] = accumulate ? to[i] + v : v;
    }
}

/* to = a + b, or to = a when b is NULL; in parallel. */
static void add(const struct mix__engine *e, float *to, const float *a, const float *b, size_t n)
{
#pragma omp parallel for schedule(static)
    for (int group = 0; group < MIX__GROUPS; group++) {
        const size_t from = mix__group_row(n, group), count = mix__group_row(n, group + 1) - from;
        if (b)
            e->loops.add(to + from, a + from, b + from, count);
        else
            memcpy(to + from, a + from, count * sizeof *to);
    }
}

static void add_backward(const struct mix__engine *e, const struct mix__step *s)
{
    const size_t n = mix__rows(e, &s->out) * (size_t)s->out.c;
    const float *dy = mix__engine_at(e, s->dy);
    for (int k = 0; k < 2; k++) {
        if (s->dx[k] == s->dy)
            continue; /* shares the gradient's place */
        float *dx = mix__engine_at(e, s->dx[k]);
        add(e, dx, dy, s->accumulate[k] ? dx : NULL, n);
    }
}

static void gate_forward(const struct mix__engine *e, const struct mix__step *s, float *y,
                         const float *x)
{
    const float *gate = mix__engine_at(e, s->x[1]);
    const size_t c = (size_t)s->in.c, pixels = (size_t)s->in.h * s->in.w;
#pragma omp parallel for schedule(static)
    for (int n = 0; n < e->plan.batch; n++) {
        const size_t at = (size_t)n * pixels * c;
        e->loops.gate_forward(y + at, x + at, gate + (size_t)n * c, pixels, c);
    }
}

static void gate_backward(const struct mix__engine *e, const struct mix__step *s)
{
    const float *dy = mix__engine_at(e, s->dy), *x = mix__engine_at(e, s->x[0]);
    const float *gate = mix__engine_at(e, s->x[1]);
    float *dx = mix__engine_at(e, s->dx[0]), *dgate = mix__engine_at(e, s->dx[1]);
    const size_t c = (size_t)s->in.c, pixels = (size_t)s->in.h * s->in.w;
#pragma omp parallel for schedule(static)
    for (int n = 0; n < e->plan.batch; n++) {
        const size_t at = (size_t)n * pixels * c, row = (size_t)n * c;
        if (!s->accumulate[1])
            memset(dgate + row, 0, c * sizeof *dgate);
        e->loops.gate_backward(dx + at, dgate + row, dy + at, x + at, gate + row, pixels, c,
                               s->accumulate[0]);
    }
}

void mix__basic_forward(struct mix__engine *e, const struct mix__step *s)
{
    const float *x = mix__engine_at(e, s->x[0]);
    float *y = mix__engine_at(e, s->y);
    const size_t n = mix__rows(e, &s->out) * (size_t)s->out.c;
    switch (s->kind) {
    case MIX__STEP_ADD:
        add(e, y, x, mix__engine_at(e, s->x[1]), n);
        break;
    case MIX__STEP_GATE:
        gate_forward(e, s, y, x);
        break;
    case MIX__STEP_MAXPOOL:
        mix__maxpool_forward(e, s);
        break;
    case MIX__STEP_AVGPOOL:
        mix__avgpool_forward(e, s);
        break;
    case MIX__STEP_DROPOUT:
        dropout(e, s, y, x, false);
        break;
    default:
        assert(s->kind == MIX__STEP_ACT);
        e->loops.act_forward(y, x, n, s->act);
    }
}

void mix__basic_backward(struct mix__engine *e, const struct mix__step *s)
{
    const size_t n = mix__rows(e, &s->out) * (size_t)s->out.c;
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
        dropout(e, s, mix__engine_at(e, s->dx[0]), mix__engine_at(e, s->dy), s->accumulate[0]);
        break;
    default:
        assert(s->kind == MIX__STEP_ACT);
        e->loops.act_backward(mix__engine_at(e, s->dx[0]), mix__engine_at(e, s->dy),
                              mix__engine_at(e, s->x[0]), n, s->accumulate[0], s->act);
    }
}
