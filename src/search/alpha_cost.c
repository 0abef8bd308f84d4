/*
 * search/alpha_cost.c - bit operations as a function of alpha (doc/method.md sections 3 and 5).
 */
#include <assert.h>
#include <math.h>

#include "search/search.h"

double mix__expected_bits(const double *alpha, const int *candidate, int n, double *gradient)
{
    double p[MIX__BRANCH_MAX], largest = alpha[0], total = 0.0, expected = 0.0;
    assert(n >= 1 && n <= MIX__BRANCH_MAX);
    for (int b = 1; b < n; b++)
        largest = alpha[b] > largest ? alpha[b] : largest;
    for (int b = 0; b < n; b++)
        total += p[b] = exp(alpha[b] - largest);
    for (int b = 0; b < n; b++)
        expected += candidate[b] * (p[b] /= total);
    for (int b = 0; gradient && b < n; b++)
        gradient[b] = p[b] * (candidate[b] - expected);
    return expected;
}

int mix__argmax(const float *alpha, int n)
{
    int best = 0;
    for (int b = 1; b < n; b++)
        if (alpha[b] > alpha[best])
            best = b;
    return best;
}

/* The layer's expected activation bits; fixed layers have one candidate. */
static double layer_bits(const struct mix__state *s, size_t layer, double *gradient)
{
    double alpha[MIX__BRANCH_MAX];
    const int *candidate;
    const int n = mix__state_layer_candidates(s, (int)layer, &candidate);
    for (int b = 0; b < n; b++)
        alpha[b] = s->alpha[layer * (size_t)s->n_candidates + (size_t)b];
    return mix__expected_bits(alpha, candidate, n, gradient);
}

/* GBOPs of the layer for each bit of its activations. */
static double layer_price(const struct mix__state *s, size_t layer, int weight_bits)
{
    const mix_layer_info *info = &s->graph->layers[layer].info;
    return 1e-9 * (double)info->macs * (info->searched ? weight_bits : MIX_BITS_FIXED);
}

double mix__search_gbops(const struct mix__state *s, int weight_bits)
{
    uint64_t bops = 0;
    for (size_t l = 0; l < s->graph->n_layers; l++) {
        const mix_layer_info *info = &s->graph->layers[l].info;
        const int *candidate;
        const int n = mix__state_layer_candidates(s, (int)l, &candidate);
        const int pick = mix__argmax(s->alpha + l * (size_t)s->n_candidates, n);
        bops += info->macs *
                (uint64_t)((info->searched ? weight_bits : MIX_BITS_FIXED) * candidate[pick]);
    }
    return 1e-9 * (double)bops;
}

double mix__search_gbops_soft(const struct mix__state *s, int weight_bits)
{
    double gbops = 0.0;
    for (size_t l = 0; l < s->graph->n_layers; l++)
        gbops += layer_price(s, l, weight_bits) * layer_bits(s, l, NULL);
    return gbops;
}

void mix__search_gbops_gradient(struct mix__state *s, int weight_bits, double scale)
{
    const size_t n = (size_t)s->n_candidates;
    for (size_t l = 0; l < s->graph->n_layers; l++) {
        double gradient[MIX__BRANCH_MAX];
        if (!s->graph->layers[l].info.searched)
            continue;
        layer_bits(s, l, gradient);
        for (size_t b = 0; b < n; b++)
            s->alpha_grad[l * n + b] +=
                (float)(scale * layer_price(s, l, weight_bits) * gradient[b]);
    }
}
