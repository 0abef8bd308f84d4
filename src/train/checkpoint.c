/*
 * train/checkpoint.c - writing and reading of checkpoints.
 */
#include "train/checkpoint.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/image.h"
#include "format/graph_json.h"
#include "format/safetensors.h"

#define FORMAT     "metamix-checkpoint"
#define VERSION    "2"
#define ACT_STEPS  "metamix.act_steps"
#define ALPHA      "metamix.alpha"
#define BITS       "metamix.bits"
#define POSITION   "metamix.position"
#define SUMS       "metamix.sums"
#define TIMES      "metamix.times"
#define OPTIMIZER  "metamix.optimizer"
#define ALPHA_OPT  "metamix.alpha_optimizer"
#define AVERAGE    "metamix.average.value"
#define AVG_STATS  "metamix.average.stats"
#define WEIGHT_FMT "metamix.weight_step.%s"

enum { TENSOR_NAME_MAX = MIX__NAME_MAX + 32, N_POSITION = 8, N_SUMS = 13 };
static const int64_t counter_max = INT64_C(1) << 53; /* exact in double */

/* ---- the point as flat numbers ---- */

static void point_to_flat(const struct mix__point *p, const struct mix__optimizer *o,
                          const struct mix__optimizer *alpha, int64_t *position, double *sums,
                          double *times)
{
    const mix_accuracy *accuracy[] = { &p->start, &p->best, &p->last };
    const int64_t counters[N_POSITION] = { p->phase,  p->epoch, p->step,  p->log_lines,
                                           p->images, p->top1,  o->steps, alpha->steps };
    memcpy(position, counters, sizeof counters);
    sums[0] = p->loss;
    for (size_t i = 0; i < 3; i++) {
        sums[1 + 4 * i] = accuracy[i]->top1;
        sums[2 + 4 * i] = accuracy[i]->top5;
        sums[3 + 4 * i] = accuracy[i]->loss;
        sums[4 + 4 * i] = (double)accuracy[i]->images;
    }
    memcpy(times, p->seconds, sizeof p->seconds);
    times[MIX__PHASES_MAX] = p->waited;
}

static bool point_from_flat(struct mix__point *p, const int64_t *position, const double *sums,
                            const double *times)
{
    mix_accuracy *accuracy[] = { &p->start, &p->best, &p->last };
    for (size_t i = 0; i < N_POSITION; i++)
        if (position[i] < 0 || position[i] > counter_max)
            return false;
    for (size_t i = 0; i <= MIX__PHASES_MAX; i++)
        if (!isfinite(times[i]) || times[i] < 0.0)
            return false;
    for (size_t i = 0; i < N_SUMS; i++)
        if (!isfinite(sums[i]))
            return false;
    *p = (struct mix__point){ .phase = position[0],
                              .epoch = position[1],
                              .step = position[2],
                              .log_lines = position[3],
                              .images = position[4],
                              .top1 = position[5],
                              .loss = sums[0],
                              .waited = times[MIX__PHASES_MAX] };
    for (size_t i = 0; i < 3; i++) {
        const double images = sums[4 + 4 * i];
        if (images < 0.0 || images > (double)counter_max)
            return false;
        *accuracy[i] =
            (mix_accuracy){ sums[1 + 4 * i], sums[2 + 4 * i], sums[3 + 4 * i], (int64_t)images };
    }
    memcpy(p->seconds, times, sizeof p->seconds);
    return true;
}

/* ---- writing ---- */

struct writer {
    mix_ctx *ctx;
    struct mix__st_tensor *tensors;
    char (*names)[TENSOR_NAME_MAX];
    size_t n, capacity;
};

static void put(struct writer *w, enum mix__st_dtype dtype, const void *data, int rank,
                const int64_t *dims, const char *format, const char *argument)
{
    assert(w->n < w->capacity);
    struct mix__st_tensor *t = &w->tensors[w->n];
    char *name = w->names[w->n++];
    snprintf(name, TENSOR_NAME_MAX, format, argument);
    *t = (struct mix__st_tensor){ .name = name, .dtype = dtype, .rank = rank, .data = data };
    t->bytes = mix__st_dtype_size(dtype);
    for (int i = 0; i < rank; i++) {
        t->dims[i] = dims[i];
        t->bytes *= (size_t)dims[i];
    }
}

static void put_vector(struct writer *w, enum mix__st_dtype dtype, const void *data, size_t n,
                       const char *format, const char *argument)
{
    put(w, dtype, data, 1, &(int64_t){ (int64_t)n }, format, argument);
}

static void put_state(struct writer *w, const struct mix__state *state)
{
    const mix_graph *g = state->graph;
    for (size_t i = 0; i < g->n_params; i++) {
        const struct mix__param *p = &g->params[i];
        const int64_t dims[4] = { p->dims[0], p->dims[1], p->dims[2], p->dims[3] };
        put(w, MIX__ST_F32, mix__state_param(state, p), p->rank, dims, "%s", p->name);
    }
    if (state->act_steps_ready)
        put(w, MIX__ST_F32, state->value + state->act_step, 2,
            (int64_t[]){ (int64_t)g->n_layers, state->n_candidates }, "%s", ACT_STEPS);
    for (size_t l = 0; l < g->n_layers && state->weight_steps_ready; l++)
        put_vector(w, MIX__ST_F32, state->value + state->weight_step[l],
                   (size_t)g->layers[l].info.out_channels, WEIGHT_FMT, g->layers[l].info.name);
}

static void put_optimizer(struct writer *w, const struct mix__optimizer *o, const char *name)
{
    put_vector(w, MIX__ST_F32, o->m, o->n, "%s.m", name);
    if (o->options.kind == MIX__ADAM)
        put_vector(w, MIX__ST_F32, o->v, o->n, "%s.v", name);
}

static void put_average(struct writer *w, const struct mix__average *a)
{
    if (a->decay == 0.0)
        return;
    put_vector(w, MIX__ST_F32, a->value, a->n, "%s", AVERAGE);
    put_vector(w, MIX__ST_F32, a->stats, a->n_stats, "%s", AVG_STATS);
}

/* "2,3,4,8" */
static void candidates_text(const struct mix__state *state, char *text, size_t size)
{
    text[0] = '\0';
    for (int i = 0; i < state->n_candidates; i++) {
        const size_t used = strlen(text);
        snprintf(text + used, size - used, i ? ",%d" : "%d", state->candidate[i]);
    }
}

static mix_status write_file(struct writer *w, const struct mix__state *state, const char *path,
                             const struct mix__checkpoint_content *c)
{
    int64_t position[N_POSITION];
    double sums[N_SUMS], times[MIX__PHASES_MAX + 1];
    const mix_graph *g = state->graph;
    put_state(w, state);
    if (c->bits) {
        _Static_assert(sizeof(mix_layer_bits) == 8, "two int32");
        put(w, MIX__ST_I32, c->bits, 2, (int64_t[]){ (int64_t)g->n_layers, 2 }, "%s", BITS);
    }
    if (c->point) {
        point_to_flat(c->point, c->optimizer, c->alpha_optimizer, position, sums, times);
        put(w, MIX__ST_F32, state->alpha, 2,
            (int64_t[]){ (int64_t)g->n_layers, state->n_candidates }, "%s", ALPHA);
        put_optimizer(w, c->optimizer, OPTIMIZER);
        put_optimizer(w, c->alpha_optimizer, ALPHA_OPT);
        put_average(w, c->average);
        put_vector(w, MIX__ST_I64, position, MIX_COUNT(position), "%s", POSITION);
        put_vector(w, MIX__ST_F64, sums, MIX_COUNT(sums), "%s", SUMS);
        put_vector(w, MIX__ST_F64, times, MIX_COUNT(times), "%s", TIMES);
    }
    char candidates[32], images[24], *graph;
    candidates_text(state, candidates, sizeof candidates);
    snprintf(images, sizeof images, "%zu", c->images);
    MIX_TRY(mix__graph_json_write(g, &graph));
    const char *const metadata[] = { "format",     FORMAT,
                                     "version",    VERSION,
                                     "arch",       g->name,
                                     "graph",      graph,
                                     "candidates", candidates,
                                     "phase",      c->phase,
                                     "normalize",  mix_normalize_name(g->normalize),
                                     "images",     images,
                                     NULL };
    const mix_status status = mix__st_save(w->ctx, path, w->tensors, w->n, metadata);
    mix__free(w->ctx, graph);
    return status;
}

mix_status mix__checkpoint_save(const struct mix__state *state, const char *path,
                                const struct mix__checkpoint_content *content)
{
    struct writer w = { .ctx = state->ctx };
    w.capacity = state->graph->n_params + state->graph->n_layers + 16;
    w.tensors = mix__alloc(w.ctx, w.capacity, sizeof *w.tensors);
    w.names = mix__alloc(w.ctx, w.capacity, sizeof *w.names);
    const mix_status status =
        w.tensors && w.names ? write_file(&w, state, path, content) : MIX_ENOMEM;
    mix__free(w.ctx, w.tensors);
    mix__free(w.ctx, w.names);
    return status;
}

/* ---- reading ---- */

struct mix__checkpoint {
    mix_ctx *ctx;
    char *path;
    struct mix__st_file *file;
    int candidate[MIX__BRANCH_MAX], n_candidates;
};

static mix_status need_metadata(const struct mix__checkpoint *c, const char *key,
                                const char **value)
{
    *value = mix__st_metadata(c->file, key);
    if (*value)
        return MIX_OK;
    return mix__fail(
        c->ctx, MIX_EFORMAT,
        "%s: metadata has no '%s'; not a checkpoint of metamix (another tool's file is given as "
        "weights)",
        c->path, key);
}

static mix_status expect_metadata(const struct mix__checkpoint *c, const char *key,
                                  const char *expected)
{
    const char *value;
    MIX_TRY(need_metadata(c, key, &value));
    if (strcmp(value, expected) == 0)
        return MIX_OK;
    return mix__fail(c->ctx, MIX_EFORMAT, "%s: metadata '%s' is '%.64s'; expected '%s'", c->path,
                     key, value, expected);
}

static mix_status read_candidates(struct mix__checkpoint *c)
{
    const char *text;
    MIX_TRY(need_metadata(c, "candidates", &text));
    const char *at = text;
    int previous = 0;
    do {
        const int bits = *at >= '0' && *at <= '9' ? *at - '0' : 0;
        if (bits < MIX_BITS_MIN || bits > MIX_BITS_MAX || bits <= previous ||
            (at[1] != '\0' && at[1] != ','))
            return mix__fail(c->ctx, MIX_EFORMAT,
                             "%s: metadata 'candidates' is '%.64s'; expected ascending bit-widths "
                             "from %d to %d such as 2,3,4,8",
                             c->path, text, MIX_BITS_MIN, MIX_BITS_MAX);
        c->candidate[c->n_candidates++] = previous = bits;
        at += at[1] == ',' ? 2 : 1;
    } while (*at != '\0' || at[-1] == ',');
    return MIX_OK;
}

static mix_status open_file(struct mix__checkpoint *c, const char *path)
{
    c->path = mix__strdup(c->ctx, path);
    if (!c->path)
        return MIX_ENOMEM;
    MIX_TRY(mix__st_open(&c->file, c->ctx, path));
    MIX_TRY(expect_metadata(c, "format", FORMAT));
    MIX_TRY(expect_metadata(c, "version", VERSION));
    return read_candidates(c);
}

mix_status mix__checkpoint_open(struct mix__checkpoint **out, mix_ctx *ctx, const char *path)
{
    *out = NULL;
    struct mix__checkpoint *c = mix__zalloc(ctx, 1, sizeof *c);
    if (!c)
        return MIX_ENOMEM;
    c->ctx = ctx;
    const mix_status status = open_file(c, path);
    if (status != MIX_OK)
        mix__checkpoint_close(c);
    else
        *out = c;
    return status;
}

void mix__checkpoint_close(struct mix__checkpoint *c)
{
    if (!c)
        return;
    if (c->file)
        mix__st_close(c->file);
    mix__free(c->ctx, c->path);
    mix__free(c->ctx, c);
}

/* Copies a tensor of exactly this type and shape. */
static mix_status get(const struct mix__checkpoint *c, const char *name, enum mix__st_dtype dtype,
                      int rank, const int64_t *dims, void *to)
{
    const struct mix__st_tensor *t = mix__st_find(c->file, name);
    if (!t)
        return mix__fail(c->ctx, MIX_EFORMAT, "%s: no tensor '%s'", c->path, name);
    if (t->dtype != dtype)
        return mix__fail(c->ctx, MIX_EFORMAT, "%s: tensor '%s' has type %s; expected %s", c->path,
                         name, mix__st_dtype_name(t->dtype), mix__st_dtype_name(dtype));
    if (t->rank != rank || memcmp(t->dims, dims, (size_t)rank * sizeof *dims) != 0) {
        char found[128], expected[128];
        mix__st_shape_text(found, sizeof found, t->rank, t->dims);
        mix__st_shape_text(expected, sizeof expected, rank, dims);
        return mix__fail(c->ctx, MIX_EFORMAT, "%s: tensor '%s' has shape %s; expected %s", c->path,
                         name, found, expected);
    }
    memcpy(to, t->data, t->bytes);
    return MIX_OK;
}

/* As above for floats, all of them finite and at least lowest. */
static mix_status get_floats(const struct mix__checkpoint *c, const char *name, int rank,
                             const int64_t *dims, float lowest, float *to)
{
    MIX_TRY(get(c, name, MIX__ST_F32, rank, dims, to));
    size_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= (size_t)dims[i];
    return mix__st_check_values(c->ctx, c->path, name, to, n, lowest);
}

static mix_status get_param(const struct mix__checkpoint *c, const struct mix__param *p, float *to)
{
    const int64_t dims[4] = { p->dims[0], p->dims[1], p->dims[2], p->dims[3] };
    const float lowest = p->kind == MIX__PARAM_VAR ? 0.0f : -INFINITY;
    return get_floats(c, p->name, p->rank, dims, lowest, to);
}

/* Files from before there was a choice do not say. Means and deviations are those of RGB. */
static mix_status read_normalisation(const struct mix__checkpoint *c, mix_graph *g)
{
    const char *name = mix__st_metadata(c->file, "normalize");
    if (g->tensors[0].c > 3)
        return mix__fail(c->ctx, MIX_EFORMAT,
                         "%s: metadata 'graph': images of %d channels; expected 1 to 3", c->path,
                         g->tensors[0].c);
    if (!name)
        g->normalize = MIX_NORMALIZE_AUTO;
    if (!name || mix_normalize_parse(name, &g->normalize)) {
        if (g->normalize == MIX_NORMALIZE_AUTO)
            g->normalize = mix__normalize_auto(g->tensors[0].c);
        return MIX_OK;
    }
    return mix__fail(c->ctx, MIX_EFORMAT,
                     "%s: metadata 'normalize' is '%.64s'; expected imagenet, symmetric or unit",
                     c->path, name);
}

static mix_status read_values(const struct mix__checkpoint *c, mix_graph *g)
{
    for (size_t i = 0; i < g->n_params; i++)
        MIX_TRY(get_param(c, &g->params[i], g->values + g->params[i].offset));
    return MIX_OK;
}

mix_status mix__checkpoint_graph(const struct mix__checkpoint *c, mix_graph **out)
{
    const char *text;
    mix_graph *g;
    *out = NULL;
    MIX_TRY(need_metadata(c, "graph", &text));
    const mix_status read = mix__graph_json_read(&g, c->ctx, text);
    if (read != MIX_OK)
        return mix__fail(c->ctx, read, "%s: metadata 'graph': %s", c->path, mix_ctx_error(c->ctx));
    mix_status status = read_normalisation(c, g);
    if (status == MIX_OK)
        status = read_values(c, g);
    if (status != MIX_OK)
        mix_graph_free(g);
    else
        *out = g;
    return status;
}

int mix__checkpoint_candidates(const struct mix__checkpoint *c, const int **candidate)
{
    *candidate = c->candidate;
    return c->n_candidates;
}

bool mix__checkpoint_quantized(const struct mix__checkpoint *c)
{
    return mix__st_find(c->file, ACT_STEPS) || mix__st_find(c->file, BITS);
}

bool mix__checkpoint_stopped(const struct mix__checkpoint *c)
{
    return mix__checkpoint_quantized(c) && !mix__st_find(c->file, BITS);
}

static mix_status read_bits(const struct mix__checkpoint *c, const mix_graph *g,
                            mix_layer_bits *bits)
{
    MIX_TRY(get(c, BITS, MIX__ST_I32, 2, (int64_t[]){ (int64_t)g->n_layers, 2 }, bits));
    for (size_t l = 0; l < g->n_layers; l++)
        if (!mix__bits_valid(bits[l].weight) || !mix__bits_valid(bits[l].activation))
            return mix__fail(c->ctx, MIX_EFORMAT,
                             "%s: tensor '" BITS "' has W%dA%d for layer %s; expected %d to %d, or "
                             "32",
                             c->path, bits[l].weight, bits[l].activation, g->layers[l].info.name,
                             MIX_BITS_MIN, MIX_BITS_MAX);
    return MIX_OK;
}

mix_status mix__checkpoint_bits(const struct mix__checkpoint *c, const mix_graph *graph,
                                mix_layer_bits **bits)
{
    *bits = NULL;
    if (!mix__st_find(c->file, BITS))
        return MIX_OK;
    mix_layer_bits *b = mix__alloc(c->ctx, graph->n_layers, sizeof *b);
    if (!b)
        return MIX_ENOMEM;
    const mix_status status = read_bits(c, graph, b);
    if (status != MIX_OK)
        mix__free(c->ctx, b);
    else
        *bits = b;
    return status;
}

static mix_status read_steps(const struct mix__checkpoint *c, struct mix__state *s)
{
    const mix_graph *g = s->graph;
    char name[TENSOR_NAME_MAX];
    const int64_t dims[2] = { (int64_t)g->n_layers, s->n_candidates };
    s->act_steps_ready = mix__st_find(c->file, ACT_STEPS) != NULL;
    if (s->act_steps_ready)
        MIX_TRY(get_floats(c, ACT_STEPS, 2, dims, MIX__STEP_MIN, s->value + s->act_step));
    if (mix__st_find(c->file, ALPHA))
        MIX_TRY(get_floats(c, ALPHA, 2, dims, -INFINITY, s->alpha));
    snprintf(name, sizeof name, WEIGHT_FMT, g->layers[0].info.name);
    s->weight_steps_ready = mix__st_find(c->file, name) != NULL;
    for (size_t l = 0; l < g->n_layers && s->weight_steps_ready; l++) {
        snprintf(name, sizeof name, WEIGHT_FMT, g->layers[l].info.name);
        MIX_TRY(get_floats(c, name, 1, &(int64_t){ g->layers[l].info.out_channels }, MIX__STEP_MIN,
                           s->value + s->weight_step[l]));
    }
    return MIX_OK;
}

mix_status mix__checkpoint_state(const struct mix__checkpoint *c, struct mix__state *s)
{
    const mix_graph *g = s->graph;
    if (s->n_candidates != c->n_candidates ||
        memcmp(s->candidate, c->candidate, (size_t)c->n_candidates * sizeof *c->candidate) != 0)
        return mix__fail(c->ctx, MIX_EFORMAT, "%s: candidates differ from the run's", c->path);
    for (size_t i = 0; i < g->n_params; i++) {
        const struct mix__param *p = &g->params[i];
        MIX_TRY(get_param(c, p, mix__state_param(s, p)));
    }
    s->version++;
    return read_steps(c, s);
}

static mix_status read_optimizer(const struct mix__checkpoint *c, const char *prefix,
                                 struct mix__optimizer *o)
{
    char name[TENSOR_NAME_MAX];
    const int64_t n = (int64_t)o->n;
    snprintf(name, sizeof name, "%s.m", prefix);
    MIX_TRY(get_floats(c, name, 1, &n, -INFINITY, o->m));
    snprintf(name, sizeof name, "%s.v", prefix);
    return o->options.kind == MIX__ADAM ? get_floats(c, name, 1, &n, 0.0f, o->v) : MIX_OK;
}

static mix_status read_average(const struct mix__checkpoint *c, struct mix__average *a)
{
    if (a->decay == 0.0)
        return MIX_OK;
    MIX_TRY(get_floats(c, AVERAGE, 1, &(int64_t){ (int64_t)a->n }, -INFINITY, a->value));
    return get_floats(c, AVG_STATS, 1, &(int64_t){ (int64_t)a->n_stats }, -INFINITY, a->stats);
}

size_t mix__checkpoint_images(const struct mix__checkpoint *c)
{
    const char *text = mix__st_metadata(c->file, "images");
    return text ? (size_t)strtoull(text, NULL, 10) : 0;
}

mix_status mix__checkpoint_run(const struct mix__checkpoint *c, struct mix__point *point,
                               struct mix__optimizer *optimizer,
                               struct mix__optimizer *alpha_optimizer, struct mix__average *average)
{
    int64_t position[N_POSITION];
    double sums[N_SUMS], times[MIX__PHASES_MAX + 1];
    MIX_TRY(get(c, POSITION, MIX__ST_I64, 1, &(int64_t){ N_POSITION }, position));
    MIX_TRY(get(c, SUMS, MIX__ST_F64, 1, &(int64_t){ N_SUMS }, sums));
    MIX_TRY(get(c, TIMES, MIX__ST_F64, 1, &(int64_t){ MIX__PHASES_MAX + 1 }, times));
    if (!point_from_flat(point, position, sums, times))
        return mix__fail(c->ctx, MIX_EFORMAT,
                         "%s: tensors '" POSITION "' and '" SUMS "' hold impossible values",
                         c->path);
    MIX_TRY(read_optimizer(c, OPTIMIZER, optimizer));
    MIX_TRY(read_optimizer(c, ALPHA_OPT, alpha_optimizer));
    MIX_TRY(read_average(c, average));
    optimizer->steps = position[6];
    alpha_optimizer->steps = position[7];
    return MIX_OK;
}
