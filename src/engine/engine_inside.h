/*
 * engine/engine_inside.h - the engine's inside, shared by the files that run its steps.
 *
 *   plan.c    what runs when, and where it lies       tiles.c   a layer's batch in tiles
 *   layer.c   a layer with its fused neighbours       conv.c    convolutions of a tile
 *   expand.c  expand layers that are not stored
 *   norm.c    batch norm + activation                 fake.c    quantizers and quantized weights
 *   exact.c   evaluation on codes                     pool.c    pools
 *   basic.c   add, gate, dropout, activation          engine.c  the walk over the steps
 *   state.c   what the network learns                 loops*.c  the innermost loops
 *   primitives.c  oneDNN                              floor.c   the time of bare convolutions
 *
 * Sums over a tensor are taken in at most MIX__PARTS parts of its rows, each part by one thread, in
 * pieces that stay in the cache; the parts are then added up in order. So a sum does not depend on
 * the number of threads.
 */
#ifndef METAMIX_ENGINE_ENGINE_INSIDE_H
#define METAMIX_ENGINE_ENGINE_INSIDE_H

#include "base/ctx.h"
#include "engine/conv.h"
#include "engine/engine.h"
#include "engine/plan.h"
#include "model/border.h"
#include "model/net.h"

enum { MIX__PIECE_BYTES = 64 * 1024 };

/* What one batch norm keeps from forward to backward; all (c). */
enum { MIX__NORM_ARRAYS = 7 };
struct mix__norm {
    float *mean, *rstd, *scale, *offset, *k1, *k2, *k3;
};

/* Rows of a batch norm in its backward pass. */
struct mix__norm_piece {
    struct mix__values du, dy, z;
    size_t rows;
    bool stream; /* du is written by streaming stores */
};

/* What a layer's operands are multiplied by to be values: 1, or steps where they are codes; bytes:
 * its forward pass multiplies those as integers. */
struct mix__units {
    float x;
    const float *w; /* (k); NULL: 1 */
    bool bytes;
};

/* What a layer's weights were last packed from. */
struct mix__packed {
    uint64_t version; /* of the state; 0: never */
    int bits, choice; /* choice: of the input's bits, which the folded factors hold */
    bool codes, exact, bytes;
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

/* An unstored expand layer, x (c) to z (k): expand.c. */
struct mix__expand {
    int rows;               /* pixels of each of its products */
    struct mix__conv *gram; /* (c) to (c): products of x by x, and by a matrix; NULL: is stored */
    float *w;               /* (k, c): as products read them */
    float *du_x, *z_x;      /* (k, c): sums over pixels of du x^T and z (x - mean)^T */
    float *square, *bias;   /* (MIX__PARTS, c, c), (c) */
    double *mean;           /* (c) */
};

/* Some pixels of a tensor (n, h, w, c): the first one's number and how many. */
struct mix__span {
    size_t first, count;
};

struct mix__engine {
    mix_ctx *ctx;
    struct mix__state *state;
    const mix_graph *graph;
    struct mix__loops loops;
    size_t stream_from; /* bytes of a tensor: from there on it is written by streaming stores */
    struct mix__backend *backend;
    struct mix__plan plan;
    char *arena;
    struct mix__conv **convs;      /* (layer) */
    struct mix__packed *packed;    /* (layer) */
    struct mix__layer_mode *modes; /* (layer) */
    struct mix__fake *fakes;       /* (layer): as the running pass applies them */
    struct mix__norm *norms;       /* (batch norm) */
    struct mix__exact *exacts;     /* (layer) */
    struct mix__expand *expands;   /* (layer) */
    struct mix__units *units;      /* (layer): in the running pass */
    float *zeros;                  /* (widest): a bias where none is to be added */
    float *norm_block;
    float *weights;        /* (threads, most_weights): fake-quantized ones of a layer */
    float *dweights;       /* (most_weights): the gradient there */
    size_t most_weights;   /* of a layer */
    struct mix__pass pass; /* the last one */
    int threads;
    char *work;             /* (thread, mix__work, work_size bytes) */
    struct mix__span *made; /* (thread): pixels in its WORK_MADE and WORK_NARROW */
    size_t work_size;
    /* Parts of sums: (part, 2, widest channel count) twice, (part, widest), and a quantizer's. */
    size_t widest;
    float *piece_sums;
    double *part_sums, *bias_sums;
    size_t part_rows[MIX__PARTS];
    struct mix__fake_sums fake_sums[MIX__PARTS];
    size_t bytes_weights, bytes_scratch;
    struct mix__times *times;                                        /* NULL: not wanted */
    void (*watch)(void *user, const struct mix__layer_input *input); /* NULL: nobody */
    void *watch_user;
    float *watched; /* a whole input */
    /* The gradient at what the stem gives, summed over branches; NULL: the stem is not shared. */
    void *stem_grad;
    bool stem_grad_filled;
};

static inline struct mix__values mix__engine_at(const struct mix__engine *e, int buffer)
{
    const struct mix__buffer *b = &e->plan.buffers[buffer];
    return (struct mix__values){ e->arena + b->offset, b->dtype };
}

/* A buffer that is float32 in every plan. */
static inline float *mix__engine_floats(const struct mix__engine *e, int buffer)
{
    return mix__engine_at(e, buffer).at;
}

static inline size_t mix__rows(const struct mix__engine *e, const struct mix__tensor *t)
{
    return (size_t)e->plan.batch * t->h * t->w;
}

/* Steps that run once for all branches of the running pass. */
static inline size_t mix__shared_steps(const struct mix__engine *e)
{
    return e->stem_grad && e->pass.branches > 1 ? e->plan.stem : 0;
}

/* Of what parts put into bias_sums. */
static inline double mix__bias_sum(const struct mix__engine *e, int parts, size_t channel)
{
    double sum = 0.0;
    for (int part = 0; part < parts; part++)
        sum += e->bias_sums[(size_t)part * e->widest + channel];
    return sum;
}

static inline bool mix__reads_image(const struct mix__step *s)
{
    return s->node->in[0] == 0;
}

/* The batch norm behind the layer takes its units in; it has to see all that the layer adds up. */
static inline bool mix__takes_units(const struct mix__step *s)
{
    return s->after >= 0 && s->node->bias < 0;
}

static inline bool mix__is_training(const struct mix__engine *e)
{
    return e->pass.batch_stats || e->pass.fixed_stats;
}

static inline bool mix__wants_statistics(const struct mix__engine *e)
{
    return e->pass.batch_stats || e->pass.measure;
}

/* A tile's rows [from, to) at the layer's output. */
static inline struct mix__span mix__y_span(const struct mix__conv *c, const struct mix__tile *t,
                                           int from, int to)
{
    const size_t first = mix__conv_y_pixels(c, t->image, from);
    return (struct mix__span){ first, mix__conv_y_pixels(c, t->image + t->images - 1, to) - first };
}

/* The same at its input. */
static inline struct mix__span mix__x_span(const struct mix__conv *c, const struct mix__tile *t,
                                           int from, int to)
{
    const size_t first = mix__conv_x_pixels(c, t->image, from);
    return (struct mix__span){ first, mix__conv_x_pixels(c, t->image + t->images - 1, to) - first };
}

/* n values in another type. */
static inline void mix__convert(const struct mix__engine *e, struct mix__values to,
                                struct mix__values from, size_t n)
{
    e->loops.act_forward(to, from, n, MIX__ACT_NONE);
}

static inline struct mix__values mix__buffer_at(const struct mix__engine *e, int buffer,
                                                size_t pixel, int c)
{
    return mix__values_from(mix__engine_at(e, buffer), pixel * (size_t)c);
}

/* A thread's places for a tile's values: what a layer reads, its gradient, a result; and of a
 * depthwise layer that makes its input, that and what it makes it from. */
enum mix__work {
    MIX__WORK_READ,
    MIX__WORK_GRADIENT,
    MIX__WORK_RESULT,
    MIX__WORK_MADE,
    MIX__WORK_NARROW,
    MIX__WORKS
};

static inline void *mix__work_at(const struct mix__engine *e, int thread, enum mix__work place)
{
    return e->work + ((size_t)thread * MIX__WORKS + (size_t)place) * e->work_size;
}

/* What is done with a tile; what: of the backward pass, MIX__GRAD_ flags. */
typedef mix_status mix__tile_work(struct mix__engine *e, const struct mix__step *s, int part,
                                  const struct mix__tile *t, unsigned what);

/* layer.c */
mix_status mix__work_make(struct mix__engine *e) MIX_CHECKED;
mix_status mix__layer_forward(struct mix__engine *e, const struct mix__step *s) MIX_CHECKED;
mix_status mix__layer_backward(struct mix__engine *e, const struct mix__step *s,
                               unsigned what) MIX_CHECKED;
/* Mean of |x + shift| over what the layer reads, after a forward pass. */
mix_status mix__layer_input_size(struct mix__engine *e, const struct mix__step *s, float shift,
                                 double *size) MIX_CHECKED;

/* The convolution's tiles, each part of them by one thread; begin, unless NULL, before a part's
 * first. */
typedef void mix__part_begin(struct mix__engine *e, const struct mix__step *s, int part);
mix_status mix__each_tile(struct mix__engine *e, const struct mix__step *s,
                          const struct mix__conv *conv, mix__part_begin *begin,
                          mix__tile_work *work, unsigned what) MIX_CHECKED;
/* `pixels` of the layer's input x from what is stored, z: batch norm, activation, quantizer. */
void mix__make_input(const struct mix__engine *e, const struct mix__step *s, struct mix__values x,
                     struct mix__values z, size_t pixels);
/* The same as the convolution reads them, in this type; in place where they are that
 * already, else in `work`. */
struct mix__values mix__read_input(const struct mix__engine *e, const struct mix__step *s,
                                   struct mix__values z, size_t pixels, enum mix__dtype dtype,
                                   void *work);
/* The gradient dx at what these pixels were read as goes to what is stored, with its sums. */
void mix__back_to_input(struct mix__engine *e, const struct mix__step *s, int part,
                        struct mix__span p, struct mix__values dx);
/* After that, for all parts: gradients of the quantizer and of the batch norm before the layer. */
void mix__back_settle(struct mix__engine *e, const struct mix__step *s, int parts, unsigned what);

/* expand.c; s is an unstored layer's step */
mix_status mix__expand_make(struct mix__engine *e, const struct mix__step *s) MIX_CHECKED;
void mix__expand_free(struct mix__engine *e);
/* The layer's weights (k, c), which have changed. */
void mix__expand_keep(struct mix__engine *e, const struct mix__step *s, const float *weights);
/* Makes what the layer gives for these pixels, z, in WORK_MADE; what it read stays in WORK_NARROW.
 */
mix_status mix__expand_remake(struct mix__engine *e, const struct mix__step *s, int thread,
                              struct mix__span p, struct mix__values *z) MIX_CHECKED;
/* Before the tiles of the depthwise layer's backward pass. */
mix_status mix__expand_back_begin(struct mix__engine *e, const struct mix__step *s) MIX_CHECKED;
/* In each of them, s being the unstored layer's step: what du, of pixels p, alone says of the
 * gradients at its weights and input. There is room for more behind du: rows of the layer's. */
mix_status mix__expand_gradient(struct mix__engine *e, const struct mix__step *s, int thread,
                                struct mix__span p, struct mix__values du,
                                unsigned what) MIX_CHECKED;
/* The layer's own passes. */
mix_status mix__expand_forward(struct mix__engine *e, const struct mix__step *s) MIX_CHECKED;
mix_status mix__expand_backward(struct mix__engine *e, const struct mix__step *s,
                                unsigned what) MIX_CHECKED;

/* norm.c; s is a NORM step */
/* The pixels of any step s in pieces that a cache keeps, each part by one thread; begin as above. */
typedef void mix__piece_work(struct mix__engine *e, const struct mix__step *s, int part,
                             size_t first, size_t rows);
void mix__each_piece(struct mix__engine *e, const struct mix__step *s, mix__part_begin *begin,
                     mix__piece_work *work);
void mix__norm_forward(struct mix__engine *e, const struct mix__step *s);
void mix__norm_backward(struct mix__engine *e, const struct mix__step *s, unsigned what);
struct mix__affine mix__norm_affine(const struct mix__engine *e, const struct mix__step *s);
/* Statistics: begin a part (of what any step s gives), add the rows of tiles (copied to `to`,
 * unless that is z), settle all parts into mean and rstd. */
double *mix__norm_sums(const struct mix__engine *e, int part); /* mean, and `widest` later m2 */
void mix__norm_part_begin(struct mix__engine *e, const struct mix__step *s, int part);
void mix__norm_part_add(struct mix__engine *e, int part, struct mix__values to,
                        struct mix__values z, size_t rows, size_t c, bool stream);
void mix__norm_settle(struct mix__engine *e, const struct mix__step *s, int parts);
/* The same for the way back, of what any step s reads: dy becomes du; gradients of gamma and beta,
 * and k1, k2, k3. */
void mix__norm_back_begin(struct mix__engine *e, const struct mix__step *s, int part);
void mix__norm_back_add(struct mix__engine *e, const struct mix__step *s,
                        const struct mix__fake *fake, int part, const struct mix__norm_piece *p);
void mix__norm_back_settle(struct mix__engine *e, const struct mix__step *s, int parts,
                           unsigned what);
/* The way back for loops, with sums that are cleared and then added to the part's. */
struct mix__norm_back mix__norm_back_open(struct mix__engine *e, const struct mix__step *s,
                                          const struct mix__fake *fake, int part);
void mix__norm_back_close(struct mix__engine *e, int part, size_t c);

/* fake.c */
extern const struct mix__fake mix__not_quantized;
void mix__fakes_prepare(struct mix__engine *e); /* from modes, steps and alphas */
void mix__units_prepare(struct mix__engine *e); /* after that and exact_choose  */
/* Adds the parts' sums, in order, to the gradients of the CONV step's quantizer and alphas. */
void mix__fake_collect(struct mix__engine *e, const struct mix__step *s, int parts, unsigned what);
/* The weights as the layer multiplies by them, in `work` unless they are not quantized. */
const float *mix__quantized_weights(const struct mix__engine *e, int layer, float *work);
/* Quantizes (where asked) and packs the weights that have changed. */
mix_status mix__weights_prepare(struct mix__engine *e) MIX_CHECKED;
/* e->dweights, the gradient at the (quantized) weights, is added to state->grad: that of output
 * channels [from, to). */
void mix__weights_backward(struct mix__engine *e, int layer, size_t from, size_t to);

/* exact.c */
mix_status mix__exact_make(struct mix__engine *e) MIX_CHECKED;
void mix__exact_free(struct mix__engine *e);
void mix__exact_choose(struct mix__engine *e); /* layers, from pass, modes and fakes */
/* weights: the layer's codes, (k, c / groups, r, s), which have changed. */
void mix__exact_prepare(struct mix__engine *e, const struct mix__step *s, const float *weights);
/* Sums of pixels [from, to) to values, in place. */
void mix__exact_finish(const struct mix__engine *e, const struct mix__step *s, size_t from,
                       size_t to);

/* pool.c */
void mix__maxpool_forward(const struct mix__engine *e, const struct mix__step *s);
void mix__maxpool_backward(struct mix__engine *e, const struct mix__step *s, unsigned what);
void mix__avgpool_forward(const struct mix__engine *e, const struct mix__step *s);
void mix__avgpool_backward(const struct mix__engine *e, const struct mix__step *s);

/* basic.c */
void mix__basic_forward(struct mix__engine *e, const struct mix__step *s);
void mix__basic_backward(struct mix__engine *e, const struct mix__step *s, unsigned what);

#endif
