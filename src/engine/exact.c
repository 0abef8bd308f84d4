/*
 * engine/exact.c - evaluation of quantized layers on codes.
 *
 * Where an evaluation quantizes a layer's input and its weights, the convolution reads codes
 * instead of values: float sums of whole numbers are exact up to 2^24, in any order. Behind it
 * comes the affine map of model/net.h, batch norm folded in, with the integer runtime's roundings.
 * So the two make the same numbers. (Training works on values: its batch statistics are new in
 * each step, and its gradients need them. So do expand layers that are not stored, which an engine
 * with a backward plan has.)
 */
#include "engine/engine_inside.h"

static mix_status make_border(struct mix__exact *x, mix_ctx *ctx, const struct mix__node *node,
                              const struct mix__tensor *in, const struct mix__tensor *out)
{
    const struct mix__border_shape shape = { node->kernel, node->stride, node->pad, in->h,
                                             in->w,        out->h,       out->w };
    const size_t taps = (size_t)node->kernel * (size_t)node->kernel, channels = (size_t)out->c;
    MIX_TRY(mix__border_make(&x->border, ctx, &shape));
    x->border_offset = mix__alloc(ctx, (size_t)x->border.n * channels, sizeof(float));
    x->tap_sum = mix__alloc(ctx, taps * channels, sizeof *x->tap_sum);
    return x->border_offset && x->tap_sum ? MIX_OK : MIX_ENOMEM;
}

mix_status mix__exact_make(struct mix__engine *e)
{
    const mix_graph *g = e->graph;
    e->exacts = mix__zalloc(e->ctx, g->n_layers, sizeof *e->exacts);
    if (!e->exacts)
        return MIX_ENOMEM;
    for (size_t l = 0; l < g->n_layers; l++) {
        const struct mix__node *node = &g->nodes[g->layers[l].node];
        const struct mix__tensor *in = &g->tensors[node->in[0]], *out = &g->tensors[node->out];
        struct mix__exact *x = &e->exacts[l];
        x->scale = mix__alloc(e->ctx, 2 * (size_t)out->c, sizeof *x->scale);
        if (!x->scale)
            return MIX_ENOMEM;
        x->offset = x->scale + out->c;
        if (g->layers[l].info.range == MIX_RANGE_SHIFTED)
            MIX_TRY(make_border(x, e->ctx, node, in, out));
    }
    return MIX_OK;
}

void mix__exact_free(struct mix__engine *e)
{
    for (size_t l = 0; e->exacts && l < e->graph->n_layers; l++) {
        struct mix__exact *x = &e->exacts[l];
        mix__border_release(&x->border);
        mix__free(e->ctx, x->scale);
        mix__free(e->ctx, x->border_offset);
        mix__free(e->ctx, x->tap_sum);
    }
    mix__free(e->ctx, e->exacts);
}

void mix__exact_choose(struct mix__engine *e)
{
    const bool evaluation = !mix__is_training(e) && !e->pass.measure;
    for (size_t l = 0; l < e->graph->n_layers; l++) {
        const bool on = evaluation && e->plan.dtype == MIX__DTYPE_F32 && !e->expands[l].gram &&
                        e->fakes[l].n_branch == 1 && e->modes[l].weight_bits != MIX_BITS_FLOAT;
        e->exacts[l].on = e->fakes[l].codes = on;
    }
}

/* weights: codes as floats, (k, c / groups, r, s) */
static void sum_taps(int32_t *tap_sum, const float *weights, const struct mix__param *p)
{
    const size_t channels = (size_t)p->dims[0], depth = (size_t)p->dims[1];
    const size_t taps = p->count / (channels * depth);
    for (size_t k = 0; k < channels; k++)
        for (size_t t = 0; t < taps; t++) {
            int32_t sum = 0;
            for (size_t c = 0; c < depth; c++)
                sum += (int32_t)weights[(k * depth + c) * taps + t];
            tap_sum[k * taps + t] = sum;
        }
}

void mix__exact_prepare(struct mix__engine *e, const struct mix__step *s, const float *weights)
{
    struct mix__exact *x = &e->exacts[s->layer];
    const struct mix__state *state = e->state;
    const struct mix__fake *fake = &e->fakes[s->layer];
    const struct mix__net_source source = { .graph = e->graph,
                                            .trained = state->value,
                                            .stats = state->stats };
    const struct mix__node *bn = s->after < 0 ? NULL : e->plan.steps[s->after].node;
    mix__net_fold(x->scale, x->offset, &source, s->node, bn, fake->step[0],
                  state->value + state->weight_step[s->layer]);
    if (!x->border_offset)
        return;
    sum_taps(x->tap_sum, weights, &e->graph->params[s->node->weight]);
    const struct mix__border_layer layer = { .kernel = s->node->kernel,
                                             .channels = (size_t)s->out.c,
                                             .tap_sum = x->tap_sum,
                                             .shift = fake->bounds[0].shift,
                                             .step = fake->step[0],
                                             .scale = x->scale,
                                             .offset = x->offset };
    mix__border_offsets(&x->border, x->border_offset, &layer);
}

/* As long as the offsets are the same, in one go. */
void mix__exact_finish(const struct mix__engine *e, const struct mix__step *s, size_t from,
                       size_t to)
{
    const struct mix__exact *x = &e->exacts[s->layer];
    const size_t c = (size_t)s->out.c, places = (size_t)s->out.h * (size_t)s->out.w;
    struct mix__affine affine = { x->scale, x->offset, MIX__ACT_NONE };
    for (size_t i = from, n = to - from; i < to; i += n) {
        if (x->border_offset) {
            const size_t at = i % places, left = to - i;
            int class;
            n = mix__border_run(&x->border, at, left < places - at ? at + left : places, &class) -
                at;
            affine.offset = x->border_offset + (size_t) class * c;
        }
        const struct mix__values y = mix__values_from(mix__engine_at(e, s->y), i * c);
        e->loops.norm_forward(y, y, n, c, &affine, &mix__not_quantized);
    }
}
