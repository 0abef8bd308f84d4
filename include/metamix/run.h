/*
 * run.h - a run: one folder, one network, one job that can be stopped and gone on with.
 *
 * The folder holds
 *   config.json             the job and its settings
 *   log.jsonl               a line for every epoch and phase
 *   last.safetensors        everything needed to go on, bit for bit
 *   best.safetensors        the best validation epoch of the last phase, of stages b and c
 *                           together; of a selection the meta-state at the chosen bits
 *                           (evaluation only)
 *   bits.json               the bit assignment, once there is one
 *   result.json             the numbers of mix_result, when the job is done
 * Calling the same job on the same folder goes on from last.safetensors; a folder whose job is done
 * is left as it is and its result is given again. Other settings: MIX_EMISMATCH names the first
 * one.
 */
#ifndef METAMIX_RUN_H
#define METAMIX_RUN_H

#include "metamix/data.h"
#include "metamix/graph.h"
#include "metamix/settings.h"

/* What a long job tells while it works. Texts live during the call only. */
typedef struct mix_progress {
    const char *phase;   /* "float", "bit-meta", "bit-search", "stage a", "stage b", "stage c",
                            "evaluate",   "data" */
    int epoch, epochs;   /* counted from 0                                                  */
    int64_t step, steps; /* within the epoch                                                */
    double loss, top1;   /* running means of the epoch; top1 in percent; NAN when not known */
    double gbops;        /* of the network that would be picked now; NAN outside the search */
    double images_per_second, seconds_left;
    double data_wait; /* share of the time spent waiting for images, 0..1                */
    bool epoch_done;  /* with validation figures below when evaluated, else NAN         */
    double val_top1, val_top5, val_loss;
} mix_progress;

/* How far a job is, and nothing else: NAN where a number is not known. */
MIX_API mix_progress mix_progress_at(const char *phase, int64_t step, int64_t steps);

/* Where the time of a phase's training steps went: seconds of a mean step. The floor of a layer is
 * the time of oneDNN's bare convolutions that its passes need (the fastest layout, in the types of
 * the training step), measured when the phase ends, and of the bytes that have to move at the speed
 * at which memory copies: activations and gradients read and written once, weights not counted.
 * What does not fit into a cache, a bare convolution moves itself, and the floor has it twice. */
typedef struct mix_layer_profile {
    const mix_layer_info *layer;
    double forward, backward; /* all of its passes, with the batch norm, activation and quantizer
                                 that run inside the layer */
    double bare;              /* of both: convolutions alone */
    double bytes, floor;
} mix_layer_profile;

typedef struct mix_profile {
    const char *phase; /* as in mix_progress                                     */
    int64_t steps;     /* that were timed                                        */
    double seconds;    /* the whole step; what the rest does not name: loss, clipping, optimizer */
    double waited;     /* for images                                             */
    double teacher;    /* in the teacher's forward pass                          */
    double weights;    /* quantizing and packing weights                         */
    double graph;      /* what is no layer: additions, pools, batch norms of their own */
    double bare, bytes, floor; /* sums over the layers */
    double copies;             /* bytes a second that memory copies, read and written */
    const mix_layer_profile *layers;
    int n_layers;
} mix_profile;

typedef struct mix_observer {
    void (*progress)(void *user, const mix_progress *progress);
    bool (*stop)(void *user); /* asked after every step; true: save, return MIX_ESTOPPED */
    /* After every phase that trained, also one that was stopped; NULL: nothing is timed. Texts and
     * arrays live during the call only. */
    void (*profile)(void *user, const mix_profile *profile);
    void *user;
} mix_observer;

typedef struct mix_accuracy {
    double top1, top5; /* percent    */
    double loss;       /* mean cross entropy */
    int64_t images;
} mix_accuracy;

/* Takes n more images into *accuracy, which begins as zeros: logits (n, classes), labels (n) in [0,
 * classes). Among equal logits the first class is the better one; no logit that is not a number is
 * a hit. */
MIX_API void mix_accuracy_add(mix_accuracy *accuracy, const float *logits, const int *labels, int n,
                              int classes);

typedef struct mix_phase_time {
    char phase[16];
    int epochs;
    double seconds;
} mix_phase_time;

/* What came out. Arrays belong to the result; mix_result_release() frees them. */
typedef struct mix_result {
    mix_accuracy float_accuracy; /* of the network that the job started from or trained */
    mix_accuracy best, last;     /* best epoch, as best.safetensors; last epoch         */
    mix_layer_bits *bits;        /* n_layers entries; NULL for float training          */
    int n_layers;
    double gbops;                /* reached; of a float network: at 32 x 32 bits */
    double target_gbops;         /* asked for; NAN without a budget              */
    double mean_activation_bits; /* NAN for float training                              */
    mix_phase_time phases[8];
    int n_phases;
    double seconds;
    double data_wait;                /* share of seconds spent waiting for training images  */
    uint64_t plan_bytes, peak_bytes; /* of the training engine; the process's peak memory   */
} mix_result;

MIX_API void mix_result_release(mix_result *result);

/*
 * The jobs. run_dir is made when missing. from is the checkpoint (.safetensors) or the folder of
 * the float run to start from, its best.safetensors or, where there is none, last.safetensors; NULL:
 * the network of settings->arch, width and stem for the images of settings->data, with the weights
 * of the file settings->weights (weights.h), or of the ONNX file settings->arch (onnx.h). bits is a
 * bits.json or "WxAy" for a uniform network. observer may be NULL. Errors besides those of the
 * parts: MIX_EINVAL (a setting out of range), MIX_ESTOPPED, MIX_ENUMERIC (loss not finite),
 * MIX_EMISMATCH.
 */
MIX_API MIX_CHECKED mix_status mix_train(mix_ctx *ctx, const char *run_dir,
                                         const mix_settings *settings, const mix_observer *observer,
                                         mix_result *result);
MIX_API MIX_CHECKED mix_status mix_quantize(mix_ctx *ctx, const char *run_dir, const char *from,
                                            const mix_settings *settings,
                                            const mix_observer *observer, mix_result *result);
MIX_API MIX_CHECKED mix_status mix_select(mix_ctx *ctx, const char *run_dir, const char *from,
                                          const mix_settings *settings,
                                          const mix_observer *observer, mix_result *result);
/* from may also be a run of mix_select(): its meta-state weights and steps are the start, and its
 * bits are used when bits is NULL. */
MIX_API MIX_CHECKED mix_status mix_finetune(mix_ctx *ctx, const char *run_dir, const char *from,
                                            const char *bits, const mix_settings *settings,
                                            const mix_observer *observer, mix_result *result);

/* Accuracy of a checkpoint file, or of a run folder's best.safetensors, else last, on the validation
 * images: as it was trained (quantized where it is), or in float with as_float. from NULL: as for
 * the jobs; MIX_ESHAPE when the weights' classes are not those of the images; MIX_EINVAL for a
 * selection that was stopped, unless as_float. */
MIX_API MIX_CHECKED mix_status mix_eval(mix_ctx *ctx, const char *from,
                                        const mix_settings *settings, const mix_observer *observer,
                                        bool as_float, mix_accuracy *accuracy);

/* Activation instability (doc/method.md section 7): how far mean and variance of what each layer
 * gives to its batch norm move with the bits of activations. */
typedef struct mix_instability {
    int n_layers, n_candidates;
    int candidate[MIX_BITS_MAX - MIX_BITS_MIN + 1]; /* ascending */
    /* (layer, candidate): KL divergence from the statistics at the highest candidate, normal
     * distributions, mean over channels; NAN for layers without a batch norm. */
    double *divergence;
} mix_instability;

/* On the first training batch, in training mode, all searched layers at one candidate, weights
 * float. from is a run or checkpoint as for mix_eval(): with the candidates and steps that it has,
 * or, a float one, with settings->candidates and first steps. The result is released by
 * mix_instability_release(). Errors: those of the parts; MIX_EINVAL (a setting out of range). */
MIX_API MIX_CHECKED mix_status mix_instability_measure(mix_ctx *ctx, const char *from,
                                                       const mix_settings *settings,
                                                       mix_instability *out);
MIX_API void mix_instability_release(mix_instability *instability);

/* The network of a checkpoint or run folder, and its bit assignment when it has one (*bits is
 * NULL otherwise; free with mix_bits_free()). Errors: MIX_EIO, MIX_EFORMAT, MIX_ENOMEM. */
MIX_API MIX_CHECKED mix_status mix_run_graph(mix_ctx *ctx, const char *from, mix_graph **graph,
                                             mix_layer_bits **bits);
MIX_API void mix_bits_free(mix_ctx *ctx, mix_layer_bits *bits);

/* "W4A3" or GBOPs as text -> GBOPs for this graph. Errors: MIX_EINVAL, MIX_ENOMEM. */
MIX_API MIX_CHECKED mix_status mix_budget_parse(mix_ctx *ctx, const mix_graph *graph,
                                                const char *text, double *gbops);

#endif
