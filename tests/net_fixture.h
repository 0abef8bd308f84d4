/*
 * net_fixture.h - a network with random weights, batch norms and steps, lowered to integers.
 */
#ifndef METAMIX_TESTS_NET_FIXTURE_H
#define METAMIX_TESTS_NET_FIXTURE_H

#include "support.h"

#include "base/random.h"
#include "metamix/zoo.h"
#include "model/net.h"

struct net_fixture {
    mix_graph *graph;
    mix_layer_bits *bits;
    float *act_step, *weight_step;
};

/* Batch norms that have seen something: scales and variances around 1, offsets around 0. */
static inline void random_norms(mix_graph *g, uint64_t seed)
{
    for (size_t i = 0; i < g->n_params; i++) {
        const struct mix__param *p = &g->params[i];
        for (size_t k = 0; k < p->count; k++) {
            float *v = &g->values[p->offset + k];
            const double u = mix__random_uniform(seed, i, k);
            if (p->kind == MIX__PARAM_GAMMA || p->kind == MIX__PARAM_VAR)
                *v = (float)(0.5 + u);
            else if (p->kind != MIX__PARAM_WEIGHT)
                *v = (float)(0.4 * u - 0.2);
        }
    }
}

static inline void random_steps(struct net_fixture *f)
{
    const mix_graph *g = f->graph;
    size_t at = 0;
    for (size_t l = 0; l < g->n_layers; l++) {
        const struct mix__param *p = &g->params[g->nodes[g->layers[l].node].weight];
        const size_t channels = (size_t)p->dims[0], length = p->count / channels;
        f->act_step[l] =
            mix__step_init_activation(0.5 + 0.1 * (double)(l % 3), f->bits[l].activation);
        for (size_t k = 0; k < channels; k++) {
            double sum = 0.0;
            for (size_t i = 0; i < length; i++)
                sum += fabsf(g->values[p->offset + k * length + i]);
            f->weight_step[at++] = mix__step_init_weight(sum / (double)length, f->bits[l].weight);
        }
    }
}

/* Takes the finished graph. */
static inline void fixture_of(struct net_fixture *f, mix_graph *g, uint64_t seed, int weight_bits,
                              int act_bits)
{
    size_t channels = 0;
    for (size_t l = 0; l < g->n_layers; l++)
        channels += (size_t)g->layers[l].info.out_channels;
    f->graph = g;
    f->bits = calloc(g->n_layers, sizeof *f->bits);
    f->act_step = calloc(g->n_layers, sizeof *f->act_step);
    f->weight_step = calloc(channels, sizeof *f->weight_step);
    mix_bits_uniform(g, weight_bits, act_bits, f->bits);
    random_norms(g, seed);
    random_steps(f);
}

/* What ONNX files may have and no network of the zoo has: convolutions in groups that are not
 * single channels, more padding at one end, biases beside batch norms, names of their ends. */
static inline mix_graph *odd_graph(mix_ctx *owner, const mix_zoo_options *options)
{
    static const struct mix__conv_shape stem = { 8, 3, 2, 0, 1, true, 1 }; /* TensorFlow's "same" */
    static const struct mix__conv_shape pairs = { 12, 3, 1, 1, 2, false, 0 };
    static const struct mix__conv_shape fours = { 24, 5, 2, 1, 4, true, 1 };
    mix_graph *g;
    CHECK_OK(mix__graph_new(&g, owner, "odd", options->size, 3));
    int x = mix__graph_conv(g, "image", 0, &stem);
    x = mix__graph_unary(g, MIX__OP_HARDSWISH, "act1", x);
    x = mix__graph_conv(g, "pairs", x, &pairs);
    x = mix__graph_batchnorm(g, "bn", x, 1e-5f, 0.1f);
    x = mix__graph_unary(g, MIX__OP_HARDSWISH, "act2", x);
    x = mix__graph_conv(g, "fours", x, &fours);
    x = mix__graph_unary(g, MIX__OP_RELU, "act3", x);
    x = mix__graph_unary(g, MIX__OP_GLOBAL_AVGPOOL, "mean", x);
    x = mix__graph_unary(g, MIX__OP_FLATTEN, "flat", x);
    x = mix__graph_linear(g, "logits", x, options->classes);
    CHECK_OK(mix__graph_finish(g, x));
    mix__graph_init_values(g, options->seed);
    return g;
}

/* options->arch: of the zoo, or "odd". */
static inline void fixture_make(struct net_fixture *f, mix_ctx *owner,
                                const mix_zoo_options *options, int weight_bits, int act_bits)
{
    mix_graph *g;
    if (strcmp(options->arch, "odd") == 0)
        g = odd_graph(owner, options);
    else
        CHECK_OK(mix_zoo_new(&g, owner, options));
    fixture_of(f, g, options->seed, weight_bits, act_bits);
}

/* What tests of whole networks run: a quarter of the width, small images, few classes. */
enum { SMALL_SIZE = 32, SMALL_CLASSES = 10, SMALL_PIXELS = SMALL_SIZE * SMALL_SIZE * 3 };

static inline void fixture_make_small(struct net_fixture *f, mix_ctx *owner, const char *arch,
                                      int bits)
{
    mix_zoo_options options;
    mix_zoo_options_init(&options);
    options.arch = arch;
    options.width = 0.25;
    options.size = SMALL_SIZE;
    options.classes = SMALL_CLASSES;
    fixture_make(f, owner, &options, bits, bits);
}

static inline mix_status fixture_lower(const struct net_fixture *f, struct mix__net **net)
{
    static const float mean[3] = { 0.485f, 0.456f, 0.406f };
    static const float deviation[3] = { 0.229f, 0.224f, 0.225f };
    const mix_graph *g = f->graph;
    const struct mix__net_source source = { g,       g->values,   g->values + g->n_trained,
                                            f->bits, f->act_step, f->weight_step };
    return mix__net_lower(net, &source, mean, deviation);
}

static inline void fixture_release(struct net_fixture *f)
{
    mix_graph_free(f->graph);
    free(f->bits);
    free(f->act_step);
    free(f->weight_step);
}

#endif
