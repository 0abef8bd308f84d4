/*
 * engine/engine.h - runs a graph forward and backward in float on oneDNN, with fake quantizers.
 *
 * An engine is a plan for one batch size, made once: primitives, layouts, one arena for activations
 * and gradients by lifetime. A step allocates nothing. Several engines (training, evaluation,
 * teacher) may share one state. Tensors are (n, h, w, c).
 */
#ifndef METAMIX_ENGINE_ENGINE_H
#define METAMIX_ENGINE_ENGINE_H

#include "engine/state.h"

struct mix__engine;

/* How one layer is quantized now; switching costs nothing. */
enum mix__quant_mode {
    MIX__QUANT_OFF,    /* float input                                    */
    MIX__QUANT_ONE,    /* input at candidate number `choice`             */
    MIX__QUANT_MIXTURE /* softmax(alpha) over all candidates; fixed layers: their one */
};
struct mix__layer_mode {
    enum mix__quant_mode mode;
    int choice;
    int weight_bits; /* MIX_BITS_FLOAT: float weights */
};

struct mix__pass {
    bool batch_stats;  /* normalise by the batch (training); else by running statistics       */
    bool update_stats; /* and move the running statistics                                      */
    bool fixed_stats;  /* without batch_stats: training all the same, a backward pass may come  */
    bool dropout;
    uint64_t seed, step; /* of dropout                                                         */
    int branch,
        branches;   /* of the same batch, in order, see mix__engine_share_stem(); 0, 0: alone */
    float *measure; /* without batch_stats: where the batch's mean and variance at each batch
                       norm go, laid out as state->stats; NULL: not wanted                */
};

struct mix__memory {
    size_t arena, weights, scratch; /* bytes */
};

/* The type of what trains with a precision: "f32", "bf16" or, whichever is faster here, "auto". */
enum mix__dtype mix__training_dtype(const mix_ctx *ctx, const char *precision);

/* backward: also plan for mix__engine_backward(). dtype: of activations and gradients in memory and,
 * if the CPU can, of what convolutions multiply, F32 or BF16; sums, parameters, logits and the image
 * are float32 always. Evaluation on codes needs F32, and no backward: with it, expand layers are
 * not stored (expand.c) and evaluate on values. Takes nothing; state outlives the engine.
 * OpenMP's number of threads is set, for the calling thread, to the context's.
 * Errors: MIX_EINVAL (batch), MIX_ENOMEM, MIX_EBACKEND, MIX_EUNSUPPORTED. */
mix_status mix__engine_new(struct mix__engine **out, struct mix__state *state, int batch,
                           bool backward, enum mix__dtype dtype) MIX_CHECKED;
void mix__engine_free(struct mix__engine *engine);

struct mix__state *mix__engine_state(const struct mix__engine *engine);
int mix__engine_batch(const struct mix__engine *engine);
enum mix__dtype mix__engine_dtype(const struct mix__engine *engine);
struct mix__memory mix__engine_memory(const struct mix__engine *engine);

/* One entry per layer, all off at first; the caller writes it between passes. */
struct mix__layer_mode *mix__engine_modes(struct mix__engine *engine);
void mix__engine_mode_all(struct mix__engine *engine, enum mix__quant_mode mode, int choice,
                          int weight_bits); /* searched layers so; fixed ones on, their weights too
                                               unless all are float, iff mode is not OFF */

/* Where the next batch is to be written: (batch, size, size, channels). */
float *mix__engine_input(struct mix__engine *engine);
/* Runs; *logits is (batch, classes), the engine's, valid until the next call. */
mix_status mix__engine_forward(struct mix__engine *engine, const struct mix__pass *pass,
                               const float **logits) MIX_CHECKED;

/* What a layer is about to read in a forward pass: numbers (batch, h, w, c) that stand for
 * step * number - shift. They are codes where an evaluation quantizes the weights too; else values,
 * on the quantizer's grid unless it is off, and step 1. */
struct mix__layer_input {
    int layer;
    const float *number;
    size_t count;
    float step, shift;
};
/* Called for every layer in running order, in forward passes to come of a float32 engine without
 * backward; NULL: no more. Errors: MIX_EUNSUPPORTED (one with), MIX_ENOMEM. */
mix_status mix__engine_watch(struct mix__engine *engine,
                             void (*watch)(void *user, const struct mix__layer_input *input),
                             void *user) MIX_CHECKED;

/* Gradients of the last forward pass (with batch_stats or fixed_stats) from dlogits (batch,
 * classes): added to state->grad and state->alpha_grad as asked. Errors: MIX_EINVAL (there is no
 * such pass), MIX_EBACKEND. */
enum { MIX__GRAD_PARAMS = 1, MIX__GRAD_ALPHA = 2 };
mix_status mix__engine_backward(struct mix__engine *engine, const float *dlogits,
                                unsigned what) MIX_CHECKED;

/* From now on the branches of a batch, passes that differ in the bits of searched layers alone,
 * share the stem, all that runs before the first of those: it runs forward in the first branch and
 * backward in the last, with the sum of the gradients. Its running statistics move in the first
 * branch as far as by all of them. Nothing happens for networks whose stem is read elsewhere too.
 * Error: MIX_ENOMEM. */
mix_status mix__engine_share_stem(struct mix__engine *engine) MIX_CHECKED;

/* Where time went, in seconds. A layer's passes include the neighbours that are fused into it; a
 * depthwise layer's the products of the expand layer in front, where that is not stored. */
struct mix__layer_time {
    double forward, backward;
    int64_t forward_passes, data_passes, weights_passes; /* data, weights: backward */
    int64_t code_passes, product_passes; /* that read codes; forward, of codes with codes */
};
struct mix__times {
    double weights;                 /* quantizing and packing weights          */
    double rest;                    /* what is no layer: additions, pools, ... */
    struct mix__layer_time *layers; /* (layer), the caller's                   */
};
/* Passes to come add their time to *times, the caller's; NULL: they do not, as at first. */
void mix__engine_clock(struct mix__engine *engine, struct mix__times *times);

/* First activation steps from the input batch in place: one float pass that moves nothing else.
 * Errors: MIX_EINVAL (an engine without backward), MIX_ENOMEM, MIX_EBACKEND. */
mix_status mix__engine_calibrate(struct mix__engine *engine) MIX_CHECKED;

/* First weight steps from the weights as they are. */
void mix__state_init_weight_steps(struct mix__state *state, const struct mix__layer_mode *modes);

#endif
