/*
 * engine/fake.c - the quantizers of a pass: activations as one bit-width or a mixture, and weights.
 */
#include <math.h>
#include <omp.h>

#include "engine/engine_inside.h"

const struct mix__fake mix__not_quantized;

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

/* Without VNNI the CPU adds two products of bytes up to 16 bits, which saturate: 2 * 255 * 64 does
 * not. */
static bool multiplies_bytes(const struct mix__engine *e, int layer)
{
    const int most = mix_ctx_cpu(e->ctx) & MIX_CPU_VNNI ? 8 : 7;
    return mix__conv_types(e->convs[layer]).codes != MIX__DTYPE_F32 &&
           e->modes[layer].weight_bits <= most;
}

/* In bfloat16 codes are exact where values are not; in float32 they serve as bytes alone. */
void mix__units_prepare(struct mix__engine *e)
{
    for (size_t i = 0; i < e->plan.n_steps; i++) {
        const struct mix__step *s = &e->plan.steps[i];
        if (s->kind != MIX__STEP_CONV)
            continue;
        const int l = s->layer;
        struct mix__fake *fake = &e->fakes[l];
        struct mix__units *u = &e->units[l];
        const bool half = mix__conv_types(e->convs[l]).operand == MIX__DTYPE_BF16;
        const bool one = fake->n_branch == 1 && fake->bounds[0].shift == 0.0f;
        const bool bytes = one && multiplies_bytes(e, l);
        const bool wanted = mix__is_training(e) && mix__takes_units(s) && (half || bytes);
        *u = (struct mix__units){ .x = 1.0f, .bytes = bytes && (wanted || e->exacts[l].on) };
        if (!wanted) /* an exact layer has units of its own */
            continue;
        if (one) {
            fake->codes = true;
            u->x = fake->step[0];
        }
        if (e->modes[l].weight_bits != MIX_BITS_FLOAT)
            u->w = e->state->value + e->state->weight_step[l];
    }
}

void mix__fake_collect(struct mix__engine *e, const struct mix__step *s, int parts, unsigned what)
{
    const struct mix__fake *fake = &e->fakes[s->layer];
    struct mix__state *state = e->state;
    const size_t row = (size_t)s->layer * state->n_candidates;
    const double numel = (double)mix__rows(e, &s->in) * s->in.c;
    const bool mixture = fake->n_branch > 1;
    const int *candidate, n = mix__state_layer_candidates(state, s->layer, &candidate);
    const int first = !mixture && n > 1 ? e->modes[s->layer].choice : 0;
    double dp[MIX__BRANCH_MAX], mean_dp = 0.0;
    for (int b = 0; b < fake->n_branch; b++) {
        double dstep = 0.0;
        dp[b] = 0.0;
        for (int part = 0; part < parts; part++) {
            dstep += e->fake_sums[part].step[b];
            dp[b] += e->fake_sums[part].weight[b];
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
        .codes = e->exacts[layer].on || e->units[layer].w,
    };
}

const float *mix__quantized_weights(const struct mix__engine *e, int layer, float *work)
{
    const struct mix__param *p = weights_of(e, layer);
    const size_t channels = (size_t)p->dims[0], length = p->count / channels;
    const float *w = e->state->value + p->offset;
    if (e->modes[layer].weight_bits == MIX_BITS_FLOAT)
        return w;
    for (size_t k = 0; k < channels; k++) {
        const struct mix__fake fake = channel_fake(e, layer, k);
        e->loops.fake_forward(mix__f32(work + k * length), mix__f32(w + k * length), length, &fake);
    }
    return work;
}

static bool same_packed(const struct mix__packed *a, const struct mix__packed *b)
{
    return a->version == b->version && a->bits == b->bits && a->codes == b->codes &&
           a->exact == b->exact && a->bytes == b->bytes && (a->choice == b->choice || !a->exact);
}

static mix_status prepare_layer(struct mix__engine *e, const struct mix__step *s)
{
    const int l = s->layer;
    const bool exact = e->exacts[l].on;
    const struct mix__packed now = { e->state->version,
                                     e->modes[l].weight_bits,
                                     e->modes[l].choice,
                                     exact || e->units[l].w,
                                     exact,
                                     e->units[l].bytes };
    if (same_packed(&e->packed[l], &now))
        return MIX_OK;
    const float *weights =
        mix__quantized_weights(e, l, e->weights + (size_t)omp_get_thread_num() * e->most_weights);
    MIX_TRY(mix__conv_pack(e->convs[l], weights, now.bytes));
    if (s->unstored)
        mix__expand_keep(e, s, weights);
    if (exact)
        mix__exact_prepare(e, s, weights);
    e->packed[l] = now;
    return MIX_OK;
}

/* From the last layer on, as that and those before it have most weights. */
mix_status mix__weights_prepare(struct mix__engine *e)
{
    const int n = (int)e->plan.n_steps;
    mix_status status = MIX_OK;
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < n; i++) {
        const struct mix__step *s = &e->plan.steps[n - 1 - i];
        const mix_status own = s->kind == MIX__STEP_CONV ? prepare_layer(e, s) : MIX_OK;
        if (own != MIX_OK)
#pragma omp critical
            status = own;
    }
    return status;
}

/* From operands that were codes, and a dz that comes multiplied by the weights' unit. */
static void scale_gradient(float *dw, size_t n, const struct mix__units *u, size_t k)
{
    const float scale = u->x / (u->w ? u->w[k] : 1.0f);
    for (size_t i = 0; i < n && scale != 1.0f; i++)
        dw[i] *= scale;
}

void mix__weights_backward(struct mix__engine *e, int layer, size_t from, size_t to)
{
    const struct mix__param *p = weights_of(e, layer);
    const size_t length = p->count / (size_t)p->dims[0];
    const float *w = e->state->value + p->offset;
    float *grad = e->state->grad + p->offset;
    float *step_grad = e->state->grad + e->state->weight_step[layer];
    const bool quantized = e->modes[layer].weight_bits != MIX_BITS_FLOAT;
    for (size_t k = from; k < to; k++) {
        const struct mix__values sum = mix__f32(grad + k * length);
        float *dw = e->dweights + k * length;
        scale_gradient(dw, length, &e->units[layer], k);
        if (!quantized) {
            e->loops.add(sum, sum, mix__f32(dw), length);
            continue;
        }
        const struct mix__fake fake = channel_fake(e, layer, k);
        struct mix__fake_sums sums = { 0 };
        e->loops.fake_backward(sum, mix__f32(dw), mix__f32(w + k * length), length, 1, &fake,
                               &sums);
        step_grad[k] += (float)(sums.step[0] / sqrt((double)p->count * fake.bounds[0].p));
    }
}
