#include "format/bits_json.h"

#include <string.h>

#include "format/json.h"

#define FORMAT "metamix-bits"

enum { VERSION = 1 };

static json_t *describe(const mix_graph *graph, const mix_layer_bits *bits)
{
    json_t *layers = json_array();
    for (size_t l = 0; l < graph->n_layers; l++) {
        json_t *layer =
            json_pack("{s:s, s:i, s:i}", "name", graph->layers[l].info.name, "weight_bits",
                      bits[l].weight, "activation_bits", bits[l].activation);
        if (!mix__json_append(layers, layer))
            return NULL;
    }
    return json_pack("{s:s, s:i, s:s, s:f, s:f, s:o}", "format", FORMAT, "version", VERSION,
                     "network", graph->name, "gbops", 1e-9 * (double)mix_bits_bops(graph, bits),
                     "mean_activation_bits", mix_bits_mean_activation(graph, bits), "layers",
                     layers);
}

mix_status mix__bits_json_save(const mix_graph *graph, const char *path, const mix_layer_bits *bits)
{
    return mix__json_save(graph->ctx, path, describe(graph, bits), 10);
}

static int find_layer(const mix_graph *graph, const char *name)
{
    for (size_t l = 0; l < graph->n_layers; l++) {
        if (strcmp(graph->layers[l].info.name, name) == 0)
            return (int)l;
    }
    return -1;
}

/* bits[layer].weight is 0 until the layer has been read. */
static mix_status read_layer(const mix_graph *graph, const char *path, size_t i, json_t *entry,
                             mix_layer_bits *bits)
{
    const char *name;
    mix_layer_bits b;
    json_error_t error;
    if (json_unpack_ex(entry, &error, 0, "{s:s, s:i, s:i}", "name", &name, "weight_bits", &b.weight,
                       "activation_bits", &b.activation) != 0)
        return mix__fail(graph->ctx, MIX_EFORMAT, "%s: layers[%zu]: %s", path, i, error.text);
    const int layer = find_layer(graph, name);
    if (layer < 0)
        return mix__fail(graph->ctx, MIX_EFORMAT, "%s: layers[%zu]: %s has no layer '%s'", path, i,
                         graph->name, name);
    if (bits[layer].weight)
        return mix__fail(graph->ctx, MIX_EFORMAT, "%s: layers[%zu]: layer '%s' for the second time",
                         path, i, name);
    if (!mix__bits_valid(b.weight) || !mix__bits_valid(b.activation))
        return mix__fail(graph->ctx, MIX_EFORMAT,
                         "%s: layer '%s': expected widths of %d to %d or %d bits, found weights of "
                         "%d and activations of %d",
                         path, name, MIX_BITS_MIN, MIX_BITS_MAX, MIX_BITS_FLOAT, b.weight,
                         b.activation);
    bits[layer] = b;
    return MIX_OK;
}

static mix_status read_layers(const mix_graph *graph, const char *path, json_t *layers,
                              mix_layer_bits *bits)
{
    size_t i;
    json_t *entry;
    if (!json_is_array(layers))
        return mix__fail(graph->ctx, MIX_EFORMAT, "%s: 'layers' is no array", path);
    json_array_foreach(layers, i, entry) MIX_TRY(read_layer(graph, path, i, entry, bits));
    for (size_t l = 0; l < graph->n_layers; l++) {
        if (!bits[l].weight)
            return mix__fail(graph->ctx, MIX_EFORMAT, "%s: layer '%s' is missing", path,
                             graph->layers[l].info.name);
    }
    return MIX_OK;
}

static mix_status read_root(const mix_graph *graph, const char *path, json_t *root,
                            mix_layer_bits *bits)
{
    const char *format, *network;
    int version;
    json_t *layers;
    json_error_t error;
    if (json_unpack_ex(root, &error, 0, "{s:s, s:i, s:s, s:o}", "format", &format, "version",
                       &version, "network", &network, "layers", &layers) != 0)
        return mix__fail(graph->ctx, MIX_EFORMAT, "%s: %s", path, error.text);
    if (strcmp(format, FORMAT) != 0 || version != VERSION)
        return mix__fail(graph->ctx, MIX_EFORMAT,
                         "%s: expected format '" FORMAT "' version %d, found '%s' version %d", path,
                         VERSION, format, version);
    if (strcmp(network, graph->name) != 0)
        return mix__fail(graph->ctx, MIX_EFORMAT, "%s: bits for %s, but the network is %s", path,
                         network, graph->name);
    return read_layers(graph, path, layers, bits);
}

mix_status mix__bits_json_load(const mix_graph *graph, const char *path, mix_layer_bits *bits)
{
    json_t *root = NULL;
    mix_layer_bits *read = mix__zalloc(graph->ctx, graph->n_layers, sizeof *read);
    if (!read)
        return MIX_ENOMEM;
    mix_status status = mix__json_load(graph->ctx, path, &root);
    if (status == MIX_OK)
        status = read_root(graph, path, root, read);
    if (status == MIX_OK)
        memcpy(bits, read, graph->n_layers * sizeof *read);
    json_decref(root);
    mix__free(graph->ctx, read);
    return status;
}
