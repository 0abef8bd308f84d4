/*
 * search/select.c - from alphas to bits within the budget.
 *
 * The method's penalty |GBOPs - target| lets the search hover around the target, so that argmax
 * alpha ends a little above or under it. A budget is a promise, though; so (a choice of this
 * project) the argmax is repaired: while above the target, the move to lower bits that gives up the
 * least alpha for each GBOP saved is made; then, while there is room, the move to higher
 * bits that gives up the least alpha for each GBOP spent. The order depends on the alphas alone.
 */
#include <math.h>

#include "search/search.h"

struct picking {
    const struct mix__state *state;
    int weight_bits;
    double target; /* GBOPs */
    int *choice;   /* (layer) */
    uint64_t bops; /* of the choices */
};

struct move {
    size_t layer;
    int choice; /* -1: none */
    double price;
};

static int64_t move_bops(const struct picking *p, size_t layer, int choice)
{
    const struct mix__state *s = p->state;
    return (int64_t)s->graph->layers[layer].info.macs * p->weight_bits *
           (s->candidate[choice] - s->candidate[p->choice[layer]]);
}

static bool fits(const struct picking *p, uint64_t bops)
{
    return 1e-9 * (double)bops <= p->target;
}

/* Alpha lost for each bit operation changed, in one direction: -1 lowers, +1 raises. */
static void consider(const struct picking *p, size_t layer, int direction, struct move *best)
{
    const struct mix__state *s = p->state;
    const float *alpha = s->alpha + layer * (size_t)s->n_candidates;
    const int now = p->choice[layer];
    for (int c = now + direction; c >= 0 && c < s->n_candidates; c += direction) {
        const int64_t change = move_bops(p, layer, c);
        const double price = ((double)alpha[now] - alpha[c]) / fabs((double)change);
        if (direction > 0 && !fits(p, p->bops + (uint64_t)change))
            return;
        if (best->choice < 0 || price < best->price)
            *best = (struct move){ .layer = layer, .choice = c, .price = price };
    }
}

static bool make_best_move(struct picking *p, int direction)
{
    const mix_graph *g = p->state->graph;
    struct move best = { .choice = -1 };
    for (size_t l = 0; l < g->n_layers; l++)
        if (g->layers[l].info.searched)
            consider(p, l, direction, &best);
    if (best.choice < 0)
        return false;
    p->bops = (uint64_t)((int64_t)p->bops + move_bops(p, best.layer, best.choice));
    p->choice[best.layer] = best.choice;
    return true;
}

/* Writes the bits of a layer's choice; what they cost. */
static uint64_t put_bits(const struct picking *p, mix_layer_bits *bits)
{
    const struct mix__state *s = p->state;
    mix_bits_uniform(s->graph, p->weight_bits, 0, bits);
    for (size_t l = 0; l < s->graph->n_layers; l++)
        if (s->graph->layers[l].info.searched)
            bits[l].activation = s->candidate[p->choice[l]];
    return mix_bits_bops(s->graph, bits);
}

static int first_choice(const struct mix__state *s, size_t layer)
{
    return mix__argmax(s->alpha + layer * (size_t)s->n_candidates, s->n_candidates);
}

mix_status mix__select_bits(const struct mix__state *s, int weight_bits, double target,
                            mix_layer_bits *bits, struct mix__selection *selection)
{
    const mix_graph *g = s->graph;
    struct picking p = { .state = s, .weight_bits = weight_bits, .target = target };
    p.choice = mix__alloc(s->ctx, g->n_layers, sizeof *p.choice);
    if (!p.choice)
        return MIX_ENOMEM;
    for (size_t l = 0; l < g->n_layers; l++)
        p.choice[l] = first_choice(s, l);
    p.bops = put_bits(&p, bits);
    *selection = (struct mix__selection){ .raw_gbops = 1e-9 * (double)p.bops };
    while (!fits(&p, p.bops) && make_best_move(&p, -1))
        continue;
    while (fits(&p, p.bops) && make_best_move(&p, +1))
        continue;
    for (size_t l = 0; l < g->n_layers; l++) {
        const int change = g->layers[l].info.searched ? p.choice[l] - first_choice(s, l) : 0;
        selection->lowered += change < 0;
        selection->raised += change > 0;
    }
    selection->gbops = 1e-9 * (double)put_bits(&p, bits);
    selection->met = fits(&p, p.bops);
    mix__free(s->ctx, p.choice);
    return MIX_OK;
}
