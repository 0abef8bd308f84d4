/*
 * model/cost.c - bit assignments and what they cost in bit operations (doc/method.md section 5).
 */
#include "model/graph.h"

#include <stdio.h>
#include <string.h>

void mix_bits_uniform(const mix_graph *g, int weight, int activation, mix_layer_bits *bits)
{
    for (size_t l = 0; l < g->n_layers; l++)
        bits[l] = g->layers[l].info.searched ? (mix_layer_bits){ weight, activation }
                                             : (mix_layer_bits){ MIX_BITS_FIXED, MIX_BITS_FIXED };
}

bool mix_bits_parse(const char *text, int *weight, int *activation)
{
    char after; /* sscanf would pass over spaces and signs */
    return sscanf(text, "W%2dA%2d%c", weight, activation, &after) == 2 && !strpbrk(text, " +-") &&
           mix__bits_valid(*weight) && mix__bits_valid(*activation);
}

double mix__uniform_gbops(const mix_graph *g, int weight, int activation)
{
    uint64_t bops = 0;
    for (size_t l = 0; l < g->n_layers; l++) {
        const mix_layer_info *info = &g->layers[l].info;
        bops += info->macs *
                (uint64_t)(info->searched ? weight * activation : MIX_BITS_FIXED * MIX_BITS_FIXED);
    }
    return 1e-9 * (double)bops;
}

uint64_t mix_bits_bops(const mix_graph *g, const mix_layer_bits *bits)
{
    uint64_t bops = 0;
    for (size_t l = 0; l < g->n_layers; l++)
        bops += g->layers[l].info.macs * (uint64_t)(bits[l].weight * bits[l].activation);
    return bops;
}

double mix_bits_mean_activation(const mix_graph *g, const mix_layer_bits *bits)
{
    double sum = 0.0;
    int count = 0;
    for (size_t l = 0; l < g->n_layers; l++) {
        if (!g->layers[l].info.searched)
            continue;
        sum += bits[l].activation;
        count++;
    }
    return count ? sum / count : 0.0;
}
