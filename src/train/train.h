/*
 * train/train.h - loss, optimizer, schedule: the parts of a training step.
 */
#ifndef METAMIX_TRAIN_TRAIN_H
#define METAMIX_TRAIN_TRAIN_H

#include "engine/engine.h"

/*
 * Mean cross entropy over the batch. With teacher (n, classes) logits NULL: against labels; else
 * soft:
 * - sum_c softmax(teacher)_c log softmax(logits)_c, labels counting for accuracy only.
 * dlogits (n, classes) = scale * gradient of the mean; NULL: not wanted. Sums in double.
 */
struct mix__loss {
    double loss;    /* mean over n */
    int top1, top5; /* images among n whose label is first / among the first five */
};
struct mix__loss mix__loss_eval(const float *logits, const float *teacher, const int *labels, int n,
                                int classes, float scale, float *dlogits);

/* Optimizers over one flat array. In the options 0 means the default; double, as 1 - beta is taken
 * before it is rounded to float. */
enum mix__optimizer_kind { MIX__SGD, MIX__ADAM };
struct mix__optimizer_options {
    enum mix__optimizer_kind kind;
    double beta1, beta2, eps; /* Adam; defaults 0.9, 0.999, 1e-8            */
    double momentum;          /* SGD with Nesterov; default 0.9             */
};
struct mix__optimizer {
    mix_ctx *ctx;
    struct mix__optimizer_options options;
    size_t n;
    float *m, *v;  /* (n) moments; v only with Adam, both zero at first */
    int64_t steps; /* taken */
};
/* A run of parameters that is treated alike; parameters in no range do not move. */
struct mix__range {
    size_t offset, count;
    float floor;        /* values are kept at or above it; -INFINITY: free (steps: MIX__STEP_MIN) */
    float weight_decay; /* added to the gradient: decay * value (PyTorch's Adam and SGD)          */
    bool decoupled; /* Adam: the value shrinks by lr * decay instead (AdamW, arXiv 1711.05101) */
    float rate;     /* Adam: above 0 the step is lr * rate * value where it is lr else, that of a
                       value's logarithm (as arXiv 1903.08066 trains step sizes)               */
};
mix_status mix__optimizer_init(struct mix__optimizer *o, mix_ctx *ctx, size_t n,
                               const struct mix__optimizer_options *options) MIX_CHECKED;
void mix__optimizer_release(struct mix__optimizer *o);
void mix__optimizer_reset(struct mix__optimizer *o); /* as just made */
void mix__optimizer_step(struct mix__optimizer *o, float *value, const float *grad, float lr,
                         const struct mix__range *ranges, size_t n_ranges);

/* Euclidean norm of the ranges' gradients, in double; scales them by max_norm / norm when it is
 * larger and max_norm > 0. A result that is not finite leaves the gradients as they are. */
double mix__clip_gradients(float *grad, const struct mix__range *ranges, size_t n_ranges,
                           double max_norm);

/*
 * An exponential moving average of what a network learns and of its batch norm's statistics. The
 * decay of step k, counted from 0, is min(decay, k / (k + 9)): the first step is taken whole, so
 * that the start does not linger.
 */
struct mix__average {
    mix_ctx *ctx;
    double decay; /* 0: no average is kept, and the calls below do nothing */
    size_t n, n_stats;
    float *value, *stats; /* as in struct mix__state */
};
mix_status mix__average_init(struct mix__average *a, const struct mix__state *state,
                             double decay) MIX_CHECKED;
void mix__average_release(struct mix__average *a);
void mix__average_add(struct mix__average *a, const struct mix__state *state, int64_t step);
/* The state has the average's values and the average those of the state, until the next call. */
void mix__average_swap(struct mix__average *a, struct mix__state *state);

/* Linear from 0 over warmup steps (step 0 gives peak / warmup), then cosine to 0 at steps. */
double mix__schedule_cosine(double peak, int64_t step, int64_t warmup, int64_t steps);

#endif
