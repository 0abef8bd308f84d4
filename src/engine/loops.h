/*
 * engine/loops.h - the engine's own inner loops, one table for each instruction set.
 *
 * All are single-threaded, work on rows of c channels, (rows, c) without gaps, and add to
 * their sums, which the caller clears. Values are float32 or bfloat16 in memory and float32 in
 * every formula; codes may be written as bytes; per-channel vectors are float32 alone. The engine
 * cuts a tensor into pieces, gives each piece to one thread and adds the pieces' sums up in a fixed
 * order, so results do not depend on which thread took which piece. loops.c, loops_basic.c and
 * loops_depthwise.c are compiled once for each instruction set.
 */
#ifndef METAMIX_ENGINE_LOOPS_H
#define METAMIX_ENGINE_LOOPS_H

#include <stddef.h>

#include "quant/act.h"
#include "tensor/values.h"

enum { MIX__BRANCH_MAX = 7 }; /* bit-widths 2..8 */

/*
 * A fake quantizer as it is applied now:
 *   n_branch 0   off: y = x
 *   n_branch 1   y = Q(x), or its code; weight[0] is not looked at
 *   n_branch m   y = sum over b of weight[b] * Q_b(x)
 */
struct mix__fake {
    int n_branch;
    struct mix__bounds bounds[MIX__BRANCH_MAX];
    float step[MIX__BRANCH_MAX];
    float weight[MIX__BRANCH_MAX]; /* softmax(alpha) */
    bool codes;                    /* forward, one branch: y is the code, not its value */
};

/*
 * What the backward pass of a fake quantizer adds up, over the piece, with v = (x + shift) / step_b:
 *   step[b]    sum of dy * weight[b] * (n if v < n; p if v > p; q - v otherwise),
 *              without the factor g = 1 / sqrt(numel * p), which the engine applies
 *   weight[b]  sum of dy * Q_b(x), only written when n_branch > 1
 * Gradient to x: dx = dy * sum over b of weight[b] * [n <= v <= p].
 */
struct mix__fake_sums {
    double step[MIX__BRANCH_MAX];
    double weight[MIX__BRANCH_MAX];
};

/* y = fake(act(scale[c] * z + offset[c])): batch norm folded to an affine map, then the activation,
 * then the quantizer of the layer that reads it. */
struct mix__affine {
    const float *scale, *offset; /* (c) */
    enum mix__act act;
};

/* The way back through quantizer, activation and affine map, and what is added up on it:
 * dbeta[c] += sum du, dgamma[c] += sum du * (z - mean[c]) * rstd[c]. */
struct mix__norm_back {
    struct mix__affine affine;
    const float *mean, *rstd; /* (c) */
    const struct mix__fake *fake;
    float *dbeta, *dgamma;       /* (c)                        */
    struct mix__fake_sums *sums; /* may be NULL if fake is off */
};

/* A depthwise convolution of one image, (h, w, c) to (oh, ow, c), weights (r, s, c). Pointers to
 * what is at its input and at its output are to rows x_row and y_row of the image: what lies before
 * need not be in memory. kernel: 3 or 5, stride: 1 or 2. */
struct mix__dw_shape {
    int h, w, c, oh, ow, kernel, stride, pad;
    int x_row, y_row;
};

/* Its input x = fake(act(affine(z))); x = z, float32, if affine.scale is NULL. */
struct mix__dw_input {
    struct mix__values z;
    struct mix__affine affine;
    const struct mix__fake *fake;
};

/* The gradient at its output, dz = k1[c] * du + k2[c] * z + k3[c]; dz = du, float32, if k1 is NULL. */
struct mix__dw_gradient {
    struct mix__values du, z;
    const float *k1, *k2, *k3; /* (c) */
};

/* Where its gradients go, of output rows [y0, y1) and input rows [h0, h1): h0 is y0 * stride, or h
 * where that is less. dw (r, s, c) += unless it is NULL; du, from row h0 on, is the gradient at x,
 * float32, or what that is behind `back`, of x->z's type; stream: written by streaming stores. */
struct mix__dw_back {
    float *dw;
    struct mix__values du;
    const struct mix__norm_back *back; /* or NULL */
    bool stream;
    int y0, y1, h0, h1;
};

/* A max pool of one image, (h, w, c) to (oh, ow, c). */
struct mix__pool_shape {
    int h, w, c, oh, ow, kernel, stride, pad;
};

struct mix__loops {
    /* Streaming stores are there: written by them, a large tensor costs less of memory's time. */
    bool streams;

    /* y (n) = fake(x); y may be x. */
    void (*fake_forward)(struct mix__values y, struct mix__values x, size_t n,
                         const struct mix__fake *fake);
    /* dx = or += (accumulate) dy through the quantizer; dx may be dy when not accumulating. */
    void (*fake_backward)(struct mix__values dx, struct mix__values dy, struct mix__values x,
                          size_t n, bool accumulate, const struct mix__fake *fake,
                          struct mix__fake_sums *sums);
    /* y = the derivative of Q(x) by its step, as in mix__fake_sums; one branch. */
    void (*fake_slope)(struct mix__values y, struct mix__values x, size_t n,
                       const struct mix__fake *fake);
    /* Sums over n values, in double: of |x + shift|, and of x y. */
    double (*abs_sum)(struct mix__values x, size_t n, float shift);
    double (*dot)(struct mix__values x, struct mix__values y, size_t n);

    /* Per channel: mean (c) and m2 (c) = sum of squared deviations from that mean, of these rows.
     * Overwrites mean and m2. Unless `to` is z, z is copied there, by streaming stores if wanted. */
    void (*norm_stats)(float *mean, float *m2, struct mix__values to, struct mix__values z,
                       size_t rows, size_t c, bool stream);
    /* y = fake(act(affine(z))); y may be z. */
    void (*norm_forward)(struct mix__values y, struct mix__values z, size_t rows, size_t c,
                         const struct mix__affine *affine, const struct mix__fake *fake);
    /* du (rows, c) = the gradient at the affine map's output, from dy, which it may be. stream: du
     * is not dy and is written by streaming stores. */
    void (*norm_backward_sums)(struct mix__values du, struct mix__values dy, struct mix__values z,
                               size_t rows, size_t c, const struct mix__norm_back *back,
                               bool stream);
    /* dz = k1[c] * du + k2[c] * z + k3[c]; dz may be du. */
    void (*norm_backward_input)(struct mix__values dz, struct mix__values du, struct mix__values z,
                                size_t rows, size_t c, const float *k1, const float *k2,
                                const float *k3);

    /* y = a + b; may alias */
    void (*add)(struct mix__values y, struct mix__values a, struct mix__values b, size_t n);
    /* sum[c] += over rows. */
    void (*row_sums)(double *sum, struct mix__values x, size_t rows, size_t c);
    void (*act_forward)(struct mix__values y, struct mix__values x, size_t n, enum mix__act act);
    /* dx = or += dy times the activation's slope at x */
    void (*act_backward)(struct mix__values dx, struct mix__values dy, struct mix__values x,
                         size_t n, bool accumulate, enum mix__act act);

    /* y = x * gate[c]; y may be x. */
    void (*gate_forward)(struct mix__values y, struct mix__values x, const float *gate, size_t rows,
                         size_t c);
    /* dx = or += dy * gate[c]; dgate[c] += sum over rows of dy * x. */
    void (*gate_backward)(struct mix__values dx, float *dgate, struct mix__values dy,
                          struct mix__values x, const float *gate, size_t rows, size_t c,
                          bool accumulate);

    /* A row of a max pool's output: y (ow, c) = the largest act(affine(z)) of each window, z if
     * affine->scale is NULL; where (ow, c), unless NULL: which one it was, the first of equal ones,
     * as its row * kernel + its column in the window, below 256. */
    void (*maxpool)(struct mix__values y, uint8_t *where, struct mix__values z,
                    const struct mix__affine *affine, const struct mix__pool_shape *s, int row);
    /* A row of its input: dx (w, c) = or += (accumulate) the dy (oh, ow, c) of windows whose largest
     * it was. */
    void (*maxpool_backward)(struct mix__values dx, struct mix__values dy, const uint8_t *where,
                             bool accumulate, const struct mix__pool_shape *s, int row);

    /* Output rows [oh0, oh1) of one image: y = x (*) w. */
    void (*dw_forward)(struct mix__values y, const struct mix__dw_input *x, const float *w,
                       const struct mix__dw_shape *s, int oh0, int oh1);
    /* The way back of one image, of these rows. */
    void (*dw_backward)(const struct mix__dw_back *to, const struct mix__dw_input *x,
                        const struct mix__dw_gradient *dz, const float *w,
                        const struct mix__dw_shape *s);
};

/* The table for these MIX_CPU_ flags: C, AVX2 with FMA, AVX-512, and that with its instruction that
 * rounds to bfloat16. */
void mix__loops_init(struct mix__loops *loops, unsigned cpu);

#endif
