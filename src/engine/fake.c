/*
 * engine/fake.c - the quantizers of a pass: activations as one bit-width or a mixture, and weights.
 */
#include <math.h>

#include "engine/inside.h"

/* softmax(alpha) of a layer over its candidates. */
static void mixture_weights(const struct mix__state *state, int layer, int n, float *weight)
{
    const float *alpha = state->alpha + (size_t)layer * state->n_candidates;
    double largest = alpha[0], sum = 0.0, p[MIX__BRANCH_MAX];
    for (int b = 1; b < n; b++)
        largest = alpha[b] > largest ? alpha[b] : largest;
    for (int b = 0; b < n; b++)
        sum += p[b] = exp(alpha[b] - largest);
    for (int b = 0; b < n; b++)
        weight[b] = (float)(p[b] / sum);
}

void mix__fakes_prepare(struct mix__engine *e)
{
    const struct mix__state *state = e->state;
    for (int l = 0; l < (int)e->graph->n_layers; l++) {
        const struct mix__layer_mode *mode = &e->modes[l];
        const int *candidate, n = mix__state_layer_candidates(state, l, &candidate);
        const mix_range range = e->graph->layers[l].info.range;
        const float *step = state->value + state->act_step + (size_t)l * state->n_candidates;
        struct mix__fake *fake = &e->fakes[l];
        *fake = (struct mix__fake){ 0 };
        if (mode->mode == MIX__QUANT_OFF)
            continue;
        /* A fixed layer has one candidate: its mixture is that one. */
        const bool one = mode->mode == MIX__QUANT_ONE || n == 1;
        const int first = one && n > 1 ? mode->choice : 0;
        fake->n_branch = one ? 1 : n;
        for (int b = 0; b < fake->n_branch; b++) {
            fake->bounds[b] = mix__bounds_activation(candidate[first + b], range);
            fake->step[b] = step[first + b];
        }
        if (!one)
            mixture_weights(state, l, n, fake->weight);
    }
}

void mix__fake_forward(struct mix__engine *e, const struct mix__step *s)
{
    const struct mix__fake *fake = &e->fakes[s->layer];
    const size_t n = mix__rows(e, &s->in) * (size_t)s->in.c;
    const float *x = mix__engine_at(e, s->x[0]);
    float *y = mix__engine_at(e, s->y);
    if (fake->n_branch == 0)
        return; /* the convolution reads x itself */
#pragma omp parallel for schedule(static)
    for (int group = 0; group < MIX__GROUPS; group++) {
        const size_t from = mix__group_row(n, group), to = mix__group_row(n, group + 1);
        e->loops.fake_forward(y + from, x + from, to - from, fake);
    }
}

void mix__fake_collect(struct mix__engine *e, const struct mix__step *s, unsigned what)
{
    const struct mix__fake *fake = &e->fakes[s->layer];
    struct mix__state *state = e->state;
    const size_t row = (size_t)s->layer * state->n_candidates;
    const double numel = (double)mix__rows(e, &s->out) * s->out.c;
    const bool mixture = fake->n_branch > 1;
    const int *candidate, n = mix__state_layer_candidates(state, s->layer, &candidate);
    const int first = !mixture && n > 1 ? e->modes[s->layer].choice : 0;
    double dp[MIX__BRANCH_MAX], mean_dp = 0.0;
    for (int b = 0; b < fake->n_branch; b++) {
        double dstep = 0.0;
        dp[b] = 0.0;
        for (int group = 0; group < MIX__GROUPS; group++) {
            dstep += e->fake_sums[group].step[b];
            dp[b] += e->fake_sums[group].weight[b];
        }
        if (what & MIX__GRAD_PARAMS)
            state->grad[state->act_step + row + first + b] +=
                (float)(dstep / sqrt(numel * fake->bounds[b].p));
        mean_dp += fake->weight[b] * dp[b];
    }
    /* Through the softmax: dalpha_b = p_b (dp_b - sum_j p_j dp_j). */
    if (what & MIX__GRAD_ALPHA && mixture)
        for (int b = 0; b < fake->n_branch; b++)
            state->alpha_grad[row + b] += (float)(fake->weight[b] * (dp[b] - mean_dp));
}

void mix__fake_backward(struct mix__engine *e, const struct mix__step *s, unsigned what)
{
    const struct mix__fake *fake = &e->fakes[s->layer];
    const size_t n = mix__rows(e, &s->in) * (size_t)s->in.c;
    const float *x = mix__engine_at(e, s->x[0]);
    float *dy = mix__engine_at(e, s->dy);
    /* The image has no gradient of its own: what comes out is left where it was read. */
    float *dx = s->dx[0] < 0 ? dy : mix__engine_at(e, s->dx[0]);
    if (s->dx[0] < 0 && fake->n_branch == 0)
        return;
#pragma omp parallel for schedule(static)
    for (int group = 0; group < MIX__GROUPS; group++) {
        const size_t from = mix__group_row(n, group), to = mix__group_row(n, group + 1);
        e->fake_sums[group] = (struct mix__fake_sums){ 0 };
        e->loops.fake_backward(dx + from, dy + from, x + from, to - from, s->accumulate[0], fake,
                               &e->fake_sums[group]);
    }
    mix__fake_collect(e, s, what);
}

/* ---- weights -------------------------------------------------------------------------------- */

static const struct mix__param *weights_of(const struct mix__engine *e, int layer)
{
    return &e->graph->params[e->graph->nodes[e->graph->layers[layer].node].weight];
}

/* The quantizer of one output channel. */
static struct mix__fake channel_fake(const struct mix__engine *e, int layer, size_t channel)
{
    return (struct mix__fake){
        .n_branch = 1,
        .bounds = { mix__bounds_weight(e->modes[layer].weight_bits) },
        .step = { e->state->value[e->state->weight_step[layer] + channel] },
        .codes = e->exacts[layer].on,
    };
}

static const float *quantized_weights(struct mix__engine *e, int layer)
{
    const struct mix__param *p = weights_of(e, layer);
    const size_t channels = (size_t)p->dims[0], length = p->count / channels;
    const float *w = e->state->value + p->offset;
    if (e->modes[layer].weight_bits == 32)
        return w;
#pragma omp parallel for schedule(static)
    for (size_t k = 0; k < channels; k++) {
        const struct mix__fake fake = channel_fake(e, layer, k);
        e->loops.fake_forward(e->weights + k * length, w + k * length, length, &fake);
    }
    return e->weights;
}

static bool same_packed(const struct mix__packed *a, const struct mix__packed *b)
{
    return a->version == b->version && a->bits == b->bits && a->codes == b->codes &&
           (a->choice == b->choice || !a->codes);
}

static mix_status prepare_layer(struct mix__engine *e, const struct mix__step *s)
{
    const int l = s->layer;
    const struct mix__packed now = { e->state->version, e->modes[l].weight_bits, e->modes[l].choice,
                                     e->exacts[l].on };
    if (same_packed(&e->packed[l], &now))
        return MIX_OK;
    const float *weights = quantized_weights(e, l);
    MIX_TRY(mix__conv_pack(e->convs[l], weights));
    if (now.codes)
        mix__exact_prepare(e, s, weights);
    e->packed[l] = now;
    return MIX_OK;
}

mix_status mix__weights_prepare(struct mix__engine *e)
{
    for (size_t i = 0; i < e->plan.n_steps; i++)
        if (e->plan.steps[i].kind == MIX__STEP_CONV)
            MIX_TRY(prepare_layer(e, &e->plan.steps[i]));
    return MIX_OK;
}

void mix__weights_backward(struct mix__engine *e, int layer)
{
    const struct mix__param *p = weights_of(e, layer);
    const size_t channels = (size_t)p->dims[0], length = p->count / channels;
    const float *w = e->state->value + p->offset;
    float *grad = e->state->grad + p->offset;
    float *step_grad = e->state->grad + e->state->weight_step[layer];
    if (e->modes[layer].weight_bits == 32) {
        e->loops.add(grad, grad, e->dweights, p->count);
        return;
    }
#pragma omp parallel for schedule(static)
    for (size_t k = 0; k < channels; k++) {
        const struct mix__fake fake = channel_fake(e, layer, k);
        struct mix__fake_sums sums = { 0 };
        e->loops.fake_backward(grad + k * length, e->dweights + k * length, w + k * length, length,
                               1, &fake, &sums);
        step_grad[k] += (float)(sums.step[0] / sqrt((double)p->count * fake.bounds[0].p));
    }
}
