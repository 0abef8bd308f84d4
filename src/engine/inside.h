/*
 * engine/inside.h - the engine's inside, shared by the files that run its steps.
 *
 *   plan.c    what runs when, and where it lies       conv.c    convolutions
 *   norm.c    batch norm + activation + quantizer     fake.c    quantizers and quantized weights
 *   exact.c   evaluation on codes                     pool.c    pools
 *   basic.c   add, gate, dropout, activation
 *   engine.c  the walk over the steps
 *
 * Sums over a tensor are taken in MIX__GROUPS equal parts of its rows, each part by one thread, in
 * pieces that stay in the cache; the parts are then added up in order. So a sum does not depend on
 * the number of threads.
 */
#ifndef METAMIX_ENGINE_INSIDE_H
#define METAMIX_ENGINE_INSIDE_H

#include "base/ctx.h"
#include "engine/conv.h"
#include "engine/engine.h"
#include "engine/plan.h"
#include "model/border.h"
#include "model/net.h"

enum { MIX__GROUPS = 16, MIX__PIECE_BYTES = 64 * 1024 };

/* What one batch norm keeps from forward to backward; all (c). */
struct mix__norm {
    float *mean, *rstd, *scale, *offset;
};

/* What a layer's weights were last packed from. */
struct mix__packed {
    uint64_t version; /* of the state; 0: never */
    int bits, choice; /* choice: of the input's bits, which the folded factors hold */
    bool codes;
};

/* A layer on codes: how its sums become values. */
struct mix__exact {
    bool on;               /* in the running pass */
    float *scale, *offset; /* (k), as mix__net_fold() */
    /* Shifted inputs only. */
    struct mix__border border;
    float *border_offset; /* (border.n, k)     */
    int32_t *tap_sum;     /* (k, kernel, kernel) */
};

struct mix__engine {
    mix_ctx *ctx;
    struct mix__state *state;
    const mix_graph *graph;
    struct mix__loops loops;
    struct mix__backend *backend;
    struct mix__plan plan;
    char *arena;
    struct mix__conv **convs;      /* (layer) */
    struct mix__packed *packed;    /* (layer) */
    struct mix__layer_mode *modes; /* (layer) */
    struct mix__fake *fakes;       /* (layer): as the running pass applies them */
    struct mix__norm *norms;       /* (batch norm) */
    struct mix__exact *exacts;     /* (layer) */
    float *zeros;                  /* (widest): the bias of a layer on codes */
    float *norm_block;
    float *weights;        /* fake-quantized weights, as long as the widest layer's */
    float *dweights;       /* and the gradient there */
    struct mix__pass pass; /* the last one */
    /* Parts of sums: (group, 2, widest channel count) twice, and a quantizer's. */
    size_t widest;
    float *piece_sums;
    double *group_sums;
    struct mix__fake_sums fake_sums[MIX__GROUPS];
    size_t bytes_weights, bytes_scratch;
    void (*watch)(void *user, const struct mix__layer_input *input); /* NULL: nobody */
    void *watch_user;
};

static inline float *mix__engine_at(const struct mix__engine *e, int buffer)
{
    return (float *)(void *)(e->arena + e->plan.buffers[buffer].offset);
}

static inline size_t mix__rows(const struct mix__engine *e, const struct mix__tensor *t)
{
    return (size_t)e->plan.batch * t->h * t->w;
}

/* First row of a group's part; group == MIX__GROUPS: the end. */
static inline size_t mix__group_row(size_t rows, int group)
{
    return rows * (size_t)group / MIX__GROUPS;
}

/* norm.c */
void mix__norm_forward(struct mix__engine *e, const struct mix__step *s);
void mix__norm_backward(struct mix__engine *e, const struct mix__step *s, unsigned what);

/* fake.c */
void mix__fakes_prepare(struct mix__engine *e); /* from modes, steps and alphas */
static inline const struct mix__fake *mix__step_fake(const struct mix__engine *e,
                                                     const struct mix__step *s)
{
    static const struct mix__fake off;
    return s->layer < 0 ? &off : &e->fakes[s->layer];
}
void mix__fake_forward(struct mix__engine *e, const struct mix__step *s);
void mix__fake_backward(struct mix__engine *e, const struct mix__step *s, unsigned what);
/* Adds the groups' sums, in order, to the gradients of the layer's steps and alphas. */
void mix__fake_collect(struct mix__engine *e, const struct mix__step *s, unsigned what);
/* Quantizes (where asked) and packs the weights that have changed. */
mix_status mix__weights_prepare(struct mix__engine *e) MIX_CHECKED;
/* e->dweights, the gradient at the (quantized) weights, is added to state->grad. */
void mix__weights_backward(struct mix__engine *e, int layer);

/* exact.c */
mix_status mix__exact_make(struct mix__engine *e) MIX_CHECKED;
void mix__exact_free(struct mix__engine *e);
void mix__exact_choose(struct mix__engine *e); /* layers, from pass, modes and fakes */
/* weights: the layer's codes, (k, c / groups, r, s), which have changed. */
void mix__exact_prepare(struct mix__engine *e, const struct mix__step *s, const float *weights);
void mix__exact_finish(const struct mix__engine *e, const struct mix__step *s);

/* pool.c */
void mix__maxpool_forward(const struct mix__engine *e, const struct mix__step *s);
void mix__maxpool_backward(const struct mix__engine *e, const struct mix__step *s);
void mix__avgpool_forward(const struct mix__engine *e, const struct mix__step *s);
void mix__avgpool_backward(const struct mix__engine *e, const struct mix__step *s);

/* basic.c */
void mix__basic_forward(struct mix__engine *e, const struct mix__step *s);
void mix__basic_backward(struct mix__engine *e, const struct mix__step *s);

#endif
