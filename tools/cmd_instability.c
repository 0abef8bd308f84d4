/* cmd_instability.c - how far a network's statistics move with the bits of its activations. */
#include <math.h>
#include <string.h>

#include "commands.h"
#include "command_job.h"
#include "table.h"

struct network {
    mix_graph *graph;
    mix_layer_bits *bits;
    mix_instability measured;
};

static mix_layer_info layer_at(const struct network *n, int layer)
{
    mix_layer_info info;
    mix_graph_layer_get(n->graph, layer, &info);
    return info;
}

static double at(const struct network *n, int layer, int candidate)
{
    return n->measured.divergence[layer * n->measured.n_candidates + candidate];
}

/* Over the layers of a kind that have a batch norm; NULL: of all kinds. */
static double mean(const struct network *n, const char *kind, int candidate)
{
    double sum = 0.0;
    int count = 0;
    for (int l = 0; l < n->measured.n_layers; l++) {
        if (!isfinite(at(n, l, candidate)) || (kind && strcmp(layer_at(n, l).kind, kind) != 0))
            continue;
        sum += at(n, l, candidate);
        count++;
    }
    return count ? sum / count : NAN;
}

/* A row's figures: of a layer, or (layer -1) of a kind. */
static const char *figures(const struct network *n, int layer, const char *kind, char *text,
                           size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (int c = 0; c < n->measured.n_candidates; c++)
        used +=
            (size_t)snprintf(text + used, size - used, "\t%s",
                             cell_number(layer >= 0 ? at(n, layer, c) : mean(n, kind, c), 4).text);
    return text;
}

static void print(const struct network *n)
{
    static const char *const kinds[] = { "conv", "depthwise", NULL };
    struct table t;
    char text[256] = "";
    size_t used = 0;
    table_begin(&t, "llrrrrrrr");
    for (int c = 0; c < n->measured.n_candidates; c++)
        used += (size_t)snprintf(text + used, sizeof text - used, "\t%d bits",
                                 n->measured.candidate[c]);
    table_row(&t, "layer\tkind%s", text);
    for (int l = 0; l < n->measured.n_layers; l++)
        if (isfinite(at(n, l, 0)))
            table_row(&t, "%s\t%s%s", layer_at(n, l).name, layer_at(n, l).kind,
                      figures(n, l, NULL, text, sizeof text));
    table_row(&t, "%s", "");
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++)
        if (isfinite(mean(n, kinds[k], 0)))
            table_row(&t, "mean\t%s%s", kinds[k] ? kinds[k] : "all",
                      figures(n, -1, kinds[k], text, sizeof text));
    table_end(&t, stdout);
}

static json_t *layers_json(const struct network *n)
{
    json_t *layers = json_array();
    for (int l = 0; l < n->measured.n_layers; l++) {
        json_t *values = json_array();
        for (int c = 0; c < n->measured.n_candidates; c++)
            json_array_append_new(values, job_real(at(n, l, c)));
        json_array_append_new(layers, json_pack("{s:s, s:s, s:o}", "name", layer_at(n, l).name,
                                                "kind", layer_at(n, l).kind, "divergence", values));
    }
    return layers;
}

static int print_json(const struct options *o, const struct network *n)
{
    json_t *candidates = json_array();
    for (int c = 0; c < n->measured.n_candidates; c++)
        json_array_append_new(candidates, json_integer(n->measured.candidate[c]));
    return job_print_json(o,
                          json_pack("{s:s, s:s, s:o, s:o}", "job", "instability", "from", o->from,
                                    "candidates", candidates, "layers", layers_json(n)));
}

static int run(const struct options *o)
{
    struct job job;
    struct network n = { 0 };
    mix_status status = job_open(&job, o);
    if (status != MIX_OK)
        return status;
    status = mix_run_graph(job.ctx, o->from, &n.graph, &n.bits);
    if (status == MIX_OK)
        status = mix_instability_measure(job.ctx, o->from, &o->settings, &n.measured);
    int code = job_tell(&job, status);
    if (!code && o->json)
        code = print_json(o, &n);
    else if (!code)
        print(&n);
    mix_instability_release(&n.measured);
    mix_bits_free(job.ctx, n.bits);
    mix_graph_free(n.graph);
    job_close(&job, MIX_OK);
    return code;
}

const struct command command_instability = {
    .name = "instability",
    .summary = "How far the statistics of activations move with their bits, layer by layer.",
    .groups = MIX_GROUP_DATA,
    .takes = TAKES_FROM | TAKES_CPU,
    .needs = TAKES_FROM | TAKES_DATA,
    .run = run,
    .more =
        "For each layer the mean and variance of what its batch norm sees on one training batch, "
        "all searched layers at one of the candidate bits, weights float: KL divergence from those "
        "at the highest candidate, mean over channels. Bit-meta training is to make it small. "
        "Compare a float run (candidates 2,3,4,8) with runs of select and select --search joint.",
};
