/*
 * Adam, AdamW and SGD with PyTorch's arithmetic: factors in double, rounded once to float;
 * values, gradients and moments in float. Ranges are cut into chunks of a fixed size that threads
 * share, so a sum over them does not depend on the number of threads.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "train/train.h"

enum { CHUNK = 1 << 14, GROUP = 64, LANES = 8 };

static size_t count_chunks(const struct mix__range *r)
{
    return (r->count + CHUNK - 1) / CHUNK;
}

static size_t chunk_size(const struct mix__range *r, size_t chunk)
{
    const size_t left = r->count - chunk * CHUNK;
    return left < CHUNK ? left : CHUNK;
}

static double or_default(double value, double otherwise)
{
    return value == 0.0 ? otherwise : value;
}

static bool below_one(double beta)
{
    return beta > 0.0 && beta < 1.0;
}

mix_status mix__optimizer_init(struct mix__optimizer *o, mix_ctx *ctx, size_t n,
                               const struct mix__optimizer_options *options)
{
    *o = (struct mix__optimizer){
        .ctx = ctx,
        .options = { .kind = options->kind,
                     .beta1 = or_default(options->beta1, 0.9),
                     .beta2 = or_default(options->beta2, 0.999),
                     .eps = or_default(options->eps, 1e-8),
                     .momentum = or_default(options->momentum, 0.9) },
        .n = n,
    };
    if (!below_one(o->options.beta1) || !below_one(o->options.beta2) || !(o->options.eps > 0.0) ||
        !below_one(o->options.momentum))
        return mix__fail(ctx, MIX_EINVAL,
                         "optimizer: expected betas and momentum in (0, 1) and eps > 0, found "
                         "%g, %g, %g and %g",
                         o->options.beta1, o->options.beta2, o->options.momentum, o->options.eps);
    o->m = mix__zalloc(ctx, n, sizeof *o->m);
    if (options->kind == MIX__ADAM)
        o->v = mix__zalloc(ctx, n, sizeof *o->v);
    if (o->m && (o->v || options->kind != MIX__ADAM))
        return MIX_OK;
    mix__optimizer_release(o);
    return MIX_ENOMEM;
}

void mix__optimizer_release(struct mix__optimizer *o)
{
    if (o->ctx) {
        mix__free(o->ctx, o->m);
        mix__free(o->ctx, o->v);
    }
    *o = (struct mix__optimizer){ 0 };
}

void mix__optimizer_reset(struct mix__optimizer *o)
{
    memset(o->m, 0, o->n * sizeof *o->m);
    if (o->v)
        memset(o->v, 0, o->n * sizeof *o->v);
    o->steps = 0;
}

struct adam {
    float one_minus_beta1, beta2, one_minus_beta2;
    float step_size;       /* lr / (1 - beta1^t)    */
    float root_correction; /* sqrt(1 - beta2^t)     */
    float eps, floor;
    float decay;      /* added to the gradient       */
    float keep;       /* 1 - lr * decoupled decay    */
    float plain, own; /* a value's step is plain + own * value of step_size */
};

static void adam_chunk(const struct adam *a, size_t n, float *restrict value,
                       const float *restrict grad, float *restrict m, float *restrict v)
{
    const struct adam k = *a; /* so that stores cannot be taken to change it */
    for (size_t i = 0; i < n; i++) {
        const float g = grad[i] + k.decay * value[i];
        m[i] += k.one_minus_beta1 * (g - m[i]);
        v[i] = v[i] * k.beta2 + k.one_minus_beta2 * g * g;
        const float share = k.plain + k.own * value[i];
        const float x = value[i] * k.keep -
                        share * (k.step_size * (m[i] / (sqrtf(v[i]) / k.root_correction + k.eps)));
        value[i] = x < k.floor ? k.floor : x;
    }
}

struct sgd {
    float lr, momentum, decay, floor;
};

/* A moment of zero makes the first step's buffer the gradient, as in PyTorch. */
static void sgd_chunk(const struct sgd *s, size_t n, float *restrict value,
                      const float *restrict grad, float *restrict m)
{
    const struct sgd k = *s;
    for (size_t i = 0; i < n; i++) {
        const float g = grad[i] + k.decay * value[i];
        m[i] = m[i] * k.momentum + g;
        const float x = value[i] - k.lr * (g + k.momentum * m[i]);
        value[i] = x < k.floor ? k.floor : x;
    }
}

static void adam_range(struct mix__optimizer *o, float *value, const float *grad, float lr,
                       const struct mix__range *r)
{
    const struct mix__optimizer_options *opt = &o->options;
    const struct adam a = {
        .one_minus_beta1 = (float)(1.0 - opt->beta1),
        .beta2 = (float)opt->beta2,
        .one_minus_beta2 = (float)(1.0 - opt->beta2),
        .step_size = (float)(lr / (1.0 - pow(opt->beta1, (double)o->steps))),
        .root_correction = (float)sqrt(1.0 - pow(opt->beta2, (double)o->steps)),
        .eps = (float)opt->eps,
        .floor = r->floor,
        .decay = r->decoupled ? 0.0f : r->weight_decay,
        .keep = r->decoupled ? (float)(1.0 - (double)lr * r->weight_decay) : 1.0f,
        .plain = r->rate > 0.0f ? 0.0f : 1.0f,
        .own = r->rate,
    };
    const size_t chunks = count_chunks(r);
#pragma omp parallel for schedule(static) num_threads(mix_ctx_threads(o->ctx)) if (chunks > 1)
    for (size_t c = 0; c < chunks; c++) {
        const size_t at = r->offset + c * CHUNK;
        adam_chunk(&a, chunk_size(r, c), value + at, grad + at, o->m + at, o->v + at);
    }
}

static void sgd_range(struct mix__optimizer *o, float *value, const float *grad, float lr,
                      const struct mix__range *r)
{
    const struct sgd s = { lr, (float)o->options.momentum, r->weight_decay, r->floor };
    const size_t chunks = count_chunks(r);
#pragma omp parallel for schedule(static) num_threads(mix_ctx_threads(o->ctx)) if (chunks > 1)
    for (size_t c = 0; c < chunks; c++) {
        const size_t at = r->offset + c * CHUNK;
        sgd_chunk(&s, chunk_size(r, c), value + at, grad + at, o->m + at);
    }
}

void mix__optimizer_step(struct mix__optimizer *o, float *value, const float *grad, float lr,
                         const struct mix__range *ranges, size_t n_ranges)
{
    o->steps++;
    for (size_t i = 0; i < n_ranges; i++) {
        assert(ranges[i].count <= o->n && ranges[i].offset <= o->n - ranges[i].count);
        if (o->options.kind == MIX__ADAM)
            adam_range(o, value, grad, lr, &ranges[i]);
        else
            sgd_range(o, value, grad, lr, &ranges[i]);
    }
}

/* Lanes in a fixed order: vectorised, and the same on every machine. */
static double sum_squares(const float *x, size_t n)
{
    double lane[LANES] = { 0.0 }, sum = 0.0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t j = 0; j < LANES; j++)
            lane[j] += (double)x[i + j] * x[i + j];
    }
    for (; i < n; i++)
        sum += (double)x[i] * x[i];
    for (size_t j = 0; j < LANES; j++)
        sum += lane[j];
    return sum;
}

/* Chunk sums are added up in their order, GROUP at a time: no memory is needed. */
static double range_squares(const float *grad, const struct mix__range *r)
{
    const size_t chunks = count_chunks(r);
    double sum = 0.0;
    for (size_t first = 0; first < chunks; first += GROUP) {
        const size_t n = chunks - first < GROUP ? chunks - first : GROUP;
        double part[GROUP];
#pragma omp parallel for schedule(static) if (n > 1)
        for (size_t c = 0; c < n; c++)
            part[c] = sum_squares(grad + r->offset + (first + c) * CHUNK, chunk_size(r, first + c));
        for (size_t c = 0; c < n; c++)
            sum += part[c];
    }
    return sum;
}

static void scale_range(float *grad, const struct mix__range *r, float factor)
{
    float *x = grad + r->offset;
#pragma omp parallel for simd schedule(static) if (r->count > CHUNK)
    for (size_t i = 0; i < r->count; i++)
        x[i] *= factor;
}

double mix__clip_gradients(float *grad, const struct mix__range *ranges, size_t n_ranges,
                           double max_norm)
{
    double sum = 0.0;
    for (size_t i = 0; i < n_ranges; i++)
        sum += range_squares(grad, &ranges[i]);
    const double norm = sqrt(sum);
    if (isfinite(norm) && max_norm > 0.0 && norm > max_norm) {
        for (size_t i = 0; i < n_ranges; i++)
            scale_range(grad, &ranges[i], (float)(max_norm / norm));
    }
    return norm;
}
