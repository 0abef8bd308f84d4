/*
 * job/export.c - from what training left, or a .mix file, to what others run.
 */
#include <string.h>

#include "base/file.h"
#include "data/image.h"
#include "format/c_write.h"
#include "format/mix_file.h"
#include "format/onnx_write.h"
#include "metamix/export.h"
#include "job/job.h"

static const char *const format_names[] = {
#define X(name, text) [MIX_EXPORT_##name] = text,
    MIX_EXPORT_MAP(X)
#undef X
};

const char *mix_export_format_name(mix_export_format format)
{
    return (unsigned)format < MIX_COUNT(format_names) ? format_names[format] : "?";
}

bool mix_export_format_parse(const char *name, mix_export_format *format)
{
    const int index = mix__text_index(name, format_names, MIX_COUNT(format_names));
    if (index >= 0)
        *format = (mix_export_format)index;
    return index >= 0;
}

bool mix_onnx_types_parse(const char *name, mix_onnx_types *types)
{
    static const char *const names[] = { [MIX_ONNX_NATIVE] = "native", [MIX_ONNX_INT8] = "int8" };
    const int index = mix__text_index(name, names, MIX_COUNT(names));
    if (index >= 0)
        *types = (mix_onnx_types)index;
    return index >= 0;
}

/* ---- from a checkpoint ---------------------------------------------------------------------- */

/* Each layer's step for the bits that it has got; a layer in float has none. */
static void chosen_steps(const struct mix__state *state, const mix_layer_bits *bits, float *step)
{
    for (size_t l = 0; l < state->graph->n_layers; l++) {
        const int choice = mix__state_choice(state, l, bits[l].activation);
        step[l] = choice < 0 ? 0 : state->value[state->act_step + l * state->n_candidates + choice];
    }
}

static mix_status lower(struct mix__net **out, const struct mix__state *state,
                        const mix_layer_bits *bits)
{
    float mean[3], deviation[3];
    const mix_graph *graph = state->graph;
    float *step = mix__alloc(state->ctx, graph->n_layers, sizeof *step);
    if (!step)
        return MIX_ENOMEM;
    chosen_steps(state, bits, step);
    mix__normalize_values(graph->normalize, mean, deviation);
    const struct mix__net_source source = { .graph = graph,
                                            .trained = state->value,
                                            .stats = state->stats,
                                            .bits = bits,
                                            .act_step = step,
                                            .weight_step = state->value + state->weight_steps };
    const mix_status status = mix__net_lower(out, &source, mean, deviation);
    mix__free(state->ctx, step);
    return status;
}

static mix_status lower_checkpoint(struct mix__net **out, const struct mix__checkpoint *c,
                                   mix_graph *graph, const mix_layer_bits *bits, const char *from)
{
    const int *candidate;
    const int n = mix__checkpoint_candidates(c, &candidate);
    struct mix__state *state;
    MIX_TRY(mix__state_new(&state, graph, candidate, n, 0));
    mix_status status = mix__checkpoint_state(c, state);
    if (status == MIX_OK)
        status = mix__bits_check(state, bits);
    if (status == MIX_OK && !(state->act_steps_ready && state->weight_steps_ready))
        status = mix__fail(state->ctx, MIX_EINVAL,
                           "%s has bits, but its weights are not quantized yet; expected a run of "
                           "quantize or finetune that has reached stage b",
                           from);
    if (status == MIX_OK)
        status = lower(out, state, bits);
    mix__state_free(state);
    return status;
}

static mix_status net_of_run(struct mix__net **out, mix_ctx *ctx, const char *from)
{
    struct mix__checkpoint *c;
    mix_graph *graph = NULL;
    mix_layer_bits *bits = NULL;
    MIX_TRY(mix__checkpoint_from(ctx, from, &c));
    mix_status status = mix__checkpoint_graph(c, &graph);
    if (status == MIX_OK)
        status = mix__checkpoint_bits(c, graph, &bits);
    if (status == MIX_OK && !bits)
        status = mix__fail(ctx, MIX_EINVAL,
                           "%s is a float network; expected a run of quantize or finetune", from);
    if (status == MIX_OK)
        status = lower_checkpoint(out, c, graph, bits, from);
    mix_bits_free(ctx, bits);
    mix_graph_free(graph);
    mix__checkpoint_close(c);
    return status;
}

/* ---- writing -------------------------------------------------------------------------------- */

/* A net and, when it was read from a .mix file, the bytes that it points into. */
struct source {
    struct mix__net *net;
    void *bytes;
};

static void source_release(mix_ctx *ctx, struct source *source)
{
    mix__net_free(source->net);
    mix__free(ctx, source->bytes);
}

static mix_status source_open(struct source *source, mix_ctx *ctx, const char *from)
{
    *source = (struct source){ 0 };
    if (!mix__path_ends(from, ".mix"))
        return net_of_run(&source->net, ctx, from);
    char *bytes;
    size_t size;
    MIX_TRY(mix__file_read(ctx, from, SIZE_MAX - 1, &bytes, &size));
    source->bytes = bytes;
    const mix_status status = mix__mix_decode(&source->net, ctx, bytes, size, from);
    if (status != MIX_OK)
        source_release(ctx, source);
    return status;
}

static mix_status write_net(const struct mix__net *net, const mix_export_options *options,
                            const char *path)
{
    const bool native = options->onnx_types == MIX_ONNX_NATIVE;
    switch (options->format) {
    case MIX_EXPORT_ONNX:
        return mix__onnx_write(net, native ? MIX__ONNX_QDQ_NATIVE : MIX__ONNX_QDQ_INT8, path);
    case MIX_EXPORT_QONNX:
        return mix__onnx_write(net, MIX__ONNX_QONNX, path);
    case MIX_EXPORT_C:
        return mix__c_write(net, path);
    default:
        return mix__mix_write(net, path);
    }
}

mix_status mix_export(mix_ctx *ctx, const char *from, const mix_export_options *options,
                      const char *path)
{
    struct source source;
    MIX_TRY(source_open(&source, ctx, from));
    const mix_status status = write_net(source.net, options, path);
    source_release(ctx, &source);
    return status;
}

mix_status mix_export_bytes(mix_ctx *ctx, const char *from, void **bytes, size_t *size)
{
    struct source source;
    char *encoded = NULL;
    *bytes = NULL;
    MIX_TRY(source_open(&source, ctx, from));
    const mix_status status = mix__mix_encode(source.net, &encoded, size);
    source_release(ctx, &source);
    *bytes = encoded;
    return status;
}

void mix_export_free(mix_ctx *ctx, void *bytes)
{
    mix__free(ctx, bytes);
}
