/*
 * search/instability.c - activation instability: doc/method.md section 7.
 */
#include <math.h>
#include <string.h>

#include "search/search.h"

/* KL(N1 || N2) of two normal distributions: log(s2 / s1) + (s1^2 + (m1 - m2)^2) / (2 s2^2) - 1/2. */
static double divergence(double mean1, double var1, double mean2, double var2)
{
    const double apart = mean1 - mean2;
    return 0.5 * log(var2 / var1) + (var1 + apart * apart) / (2.0 * var2) - 0.5;
}

/* Mean over the channels of what is before a batch norm, here and in the reference; both are laid
 * out as state->stats. */
static double divergence_at(const mix_graph *g, const struct mix__node *bn, const float *stats,
                            const float *reference)
{
    const size_t mean = g->params[bn->mean].offset - g->n_trained;
    const size_t var = g->params[bn->var].offset - g->n_trained;
    const size_t n = g->params[bn->mean].count;
    double sum = 0.0;
    for (size_t c = 0; c < n; c++)
        sum += divergence(stats[mean + c], (double)stats[var + c] + bn->eps, reference[mean + c],
                          (double)reference[var + c] + bn->eps);
    return sum / (double)n;
}

/* Column c of a table (layer, columns). */
static void fill_column(const struct mix__state *s, const float *reference, double *kl, int c,
                        int columns)
{
    const mix_graph *g = s->graph;
    for (size_t l = 0; l < g->n_layers; l++) {
        const struct mix__node *behind =
            mix__graph_single_reader(g, g->nodes[g->layers[l].node].out);
        kl[l * (size_t)columns + (size_t)c] = behind && behind->op == MIX__OP_BATCHNORM
                                                  ? divergence_at(g, behind, s->stats, reference)
                                                  : NAN;
    }
}

mix_status mix__instability(struct mix__engine *engine, struct mix__batches *batches, double *kl)
{
    struct mix__state *s = mix__engine_state(engine);
    const int n = s->n_candidates;
    float *const highest = mix__alloc(s->ctx, s->n_stats, sizeof *highest);
    mix_status status = highest ? MIX_OK : MIX_ENOMEM;
    for (int b = n - 1; b >= 0 && status == MIX_OK; b--) {
        mix__engine_mode_all(engine, MIX__QUANT_ONE, b, MIX_BITS_FLOAT);
        status = mix__batches_seek(batches, 0, 0);
        if (status == MIX_OK)
            status = mix__restat(engine, batches, 1);
        if (b == n - 1)
            memcpy(highest, s->stats, s->n_stats * sizeof *highest);
        fill_column(s, highest, kl, b, n);
    }
    mix__free(s->ctx, highest);
    return status;
}
