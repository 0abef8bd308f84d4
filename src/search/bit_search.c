/*
 * search/bit_search.c - bit-search training: a bit-meta step, then, on the same mini-batch, a step
 * of alpha with everything else fixed; and the selection at its end.
 */
#include <math.h>
#include <string.h>

#include "format/bits_json.h"
#include "search/search.h"

mix_status mix__search_enter(struct mix__trainer *t, const struct mix__phase *p, bool fresh)
{
    t->gbops = mix__search_gbops(t->state, t->settings->weight_bits);
    return mix__meta_enter(t, p, fresh);
}

/* Published: 1e-4 for about 5,000 steps. Fewer steps need larger ones for the same travel of 0.5
 * (doc/method.md section 3). */
static double alpha_rate(const struct mix__trainer *t, const struct mix__phase *p)
{
    return t->settings->alpha_lr > 0.0 ? t->settings->alpha_lr : fmax(1e-4, 0.5 / (double)p->steps);
}

/* Published: 4 for a target of 3.31 GBOPs. A smaller network's GBOPs weigh less against the task's
 * loss: by default the weight grows as the target shrinks, so that the same share of the budget
 * costs the same. */
static double cost_weight(const struct mix__trainer *t)
{
    return t->settings->lambda > 0.0 ? t->settings->lambda : 4.0 * 3.31 / t->target;
}

static void step_alpha(struct mix__trainer *t, const struct mix__phase *p)
{
    struct mix__state *s = t->state;
    const mix_graph *g = s->graph;
    const size_t n = (size_t)s->n_candidates;
    /* the first and the last layer are fixed: their alphas have no gradient */
    size_t first = 0, end = g->n_layers;
    while (first < end && !g->layers[first].info.searched)
        first++;
    while (end > first && !g->layers[end - 1].info.searched)
        end--;
    const struct mix__range range = { .offset = first * n,
                                      .count = (end - first) * n,
                                      .weight_decay = (float)t->settings->alpha_weight_decay,
                                      .floor = -INFINITY };
    mix__optimizer_step(&t->alpha_optimizer, s->alpha, s->alpha_grad, (float)alpha_rate(t, p),
                        &range, 1);
}

/* L_search = L_task(mixture) + lambda * |GBOPs(alpha) - target|; the cost counts picked bits and
 * differentiates expected ones (straight-through). */
mix_status mix__mixture_step(struct mix__trainer *t, const struct mix__phase *p, bool weights_too,
                             const int *labels, struct mix__loss *loss)
{
    struct mix__state *s = t->state;
    const int weight_bits = t->settings->weight_bits;
    mix__engine_mode_all(t->engine, MIX__QUANT_MIXTURE, 0, MIX_BITS_FLOAT);
    memset(s->alpha_grad, 0, s->n_alpha * sizeof *s->alpha_grad);
    if (weights_too)
        memset(s->grad, 0, s->n * sizeof *s->grad);
    MIX_TRY(mix__trainer_forward(t, weights_too, 0, 1, labels, 1.0f, loss));
    MIX_TRY(mix__engine_backward(t->engine, t->dlogits,
                                 MIX__GRAD_ALPHA | (weights_too ? MIX__GRAD_PARAMS : 0)));
    const double over = mix__search_gbops(s, weight_bits) - t->target;
    const double sign = over > 0.0 ? 1.0 : over < 0.0 ? -1.0 : 0.0;
    mix__search_gbops_gradient(s, weight_bits, cost_weight(t) * sign);
    for (size_t i = 0; i < s->n_alpha; i++)
        if (!isfinite(s->alpha_grad[i]))
            return mix__fail(t->ctx, MIX_ENUMERIC, "the gradient of alpha is not finite");
    step_alpha(t, p);
    t->gbops = mix__search_gbops(s, weight_bits);
    return weights_too ? mix__trainer_update(t) : MIX_OK;
}

mix_status mix__search_step(struct mix__trainer *t, const struct mix__phase *p, const int *labels,
                            struct mix__loss *loss)
{
    struct mix__loss mixture;
    MIX_TRY(mix__meta_step(t, p, labels, loss));
    return mix__mixture_step(t, p, false, labels, &mixture);
}

/* ---- selection ---- */

static void tell(struct mix__trainer *t, const struct mix__selection *s)
{
    mix__log(t->ctx, MIX_LOG_INFO,
             "selected bits: %.4f GBOPs, target %.4f (argmax %.4f; %d layers lowered, %d raised)",
             s->gbops, t->target, s->raw_gbops, s->lowered, s->raised);
    if (!s->met)
        mix__log(t->ctx, MIX_LOG_WARNING,
                 "the target is missed by %.4f GBOPs: even the lowest candidates cost %.4f",
                 s->gbops - t->target, s->gbops);
}

static mix_status log_selection(struct mix__trainer *t, const struct mix__selection *s)
{
    t->point.log_lines++;
    return mix__run_log_append(
        &t->folder, json_pack("{s:s, s:f, s:f, s:f, s:i, s:i, s:b, s:f, s:f, s:f}", "phase",
                              "select", "argmax_gbops", s->raw_gbops, "gbops", s->gbops,
                              "target_gbops", t->target, "lowered", s->lowered, "raised", s->raised,
                              "met", s->met, "val_top1", t->point.last.top1, "val_top5",
                              t->point.last.top5, "val_loss", t->point.last.loss));
}

/* Picks the bits, writes them down and evaluates the meta-state at them, weights float. */
mix_status mix__search_leave(struct mix__trainer *t, const struct mix__phase *p)
{
    struct mix__selection selection;
    if (!t->bits) {
        t->bits = mix__alloc(t->ctx, t->state->graph->n_layers, sizeof *t->bits);
        if (!t->bits)
            return MIX_ENOMEM;
    }
    MIX_TRY(mix__select_bits(t->state, t->settings->weight_bits, t->target, t->bits, &selection));
    MIX_TRY(mix__bits_json_save(t->state->graph, t->folder.bits, t->bits));
    mix__trainer_quantize(t, false);
    MIX_TRY(mix__trainer_judge(t, p, &t->point.last));
    t->point.best = t->point.last;
    tell(t, &selection);
    MIX_TRY(mix__trainer_save_best(t, p->name));
    return log_selection(t, &selection);
}
