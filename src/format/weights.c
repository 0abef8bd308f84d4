/*
 * format/weights.c - a file's tensors with torchvision's names into a graph.
 */
#include "metamix/weights.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "format/tensors.h"
#include "model/graph.h"

/* What metamix's own checkpoints hold beside parameters: train/checkpoint.h. */
#define OWN_PREFIX "metamix."

enum { NAMES_SHOWN = 20, NAMES_BYTES = 768 };

/* The classifier: weight and bias of the last layer. */
static bool of_last_layer(const mix_graph *g, const struct mix__param *p)
{
    const struct mix__node *node = &g->nodes[g->layers[g->n_layers - 1].node];
    const int index = (int)(p - g->params);
    return index == node->weight || index == node->bias;
}

/* From dimension `first` on. */
static bool same_shape(const struct mix__tensor_view *t, const struct mix__param *p, int first)
{
    if (t->rank != p->rank)
        return false;
    for (int i = first; i < p->rank; i++)
        if (t->dims[i] != p->dims[i])
            return false;
    return true;
}

/* ---- lists of names ---- */

struct names {
    char text[NAMES_BYTES];
    size_t used;
    int n, left_out;
};

static void add_name(struct names *l, const char *name)
{
    const size_t room = sizeof l->text - l->used;
    const int bytes = snprintf(l->text + l->used, room, "%s%s", l->n ? ", " : "", name);
    l->n++;
    if (l->n <= NAMES_SHOWN && (size_t)bytes < room && !l->left_out) {
        l->used += (size_t)bytes;
        return;
    }
    l->text[l->used] = '\0';
    l->left_out++;
}

/* " and 12 more" */
static const char *rest(const struct names *l, char *text, size_t size)
{
    snprintf(text, size, l->left_out ? " and %d more" : "", l->left_out);
    return text;
}

/* ---- parameters ---- */

static mix_status fail_shape(const mix_graph *g, const char *path, const struct mix__tensor_view *t,
                             const struct mix__param *p)
{
    char found[128], expected[128];
    const int64_t dims[4] = { p->dims[0], p->dims[1], p->dims[2], p->dims[3] };
    mix__st_shape_text(found, sizeof found, t->rank, t->dims);
    mix__st_shape_text(expected, sizeof expected, p->rank, dims);
    return mix__fail(g->ctx, MIX_EFORMAT, "%s: tensor '%s' has shape %s; %s needs %s", path,
                     p->name, found, g->name, expected);
}

static mix_status copy_values(mix_graph *g, const char *path, const struct mix__tensor_view *t,
                              const struct mix__param *p)
{
    const float lowest = p->kind == MIX__PARAM_VAR ? 0.0f : -INFINITY;
    float *to = g->values + p->offset;
    if (!same_shape(t, p, 0))
        return fail_shape(g, path, t, p);
    if (!mix__tensor_floats(t, to))
        return mix__fail(g->ctx, MIX_EFORMAT,
                         "%s: tensor '%s' has type %s; expected F32, F16, BF16 or F64", path,
                         p->name, mix__st_dtype_name(t->dtype));
    return mix__st_check_values(g->ctx, path, p->name, to, p->count, lowest);
}

/* The file's classifier is missing, or differs in its first dimension, the classes. */
static bool needs_classifier(const mix_graph *g, const struct mix__tensors *file, int *classes)
{
    for (size_t i = 0; i < g->n_params; i++) {
        const struct mix__param *p = &g->params[i];
        if (!of_last_layer(g, p))
            continue;
        const struct mix__tensor_view *t = mix__tensors_find(file, p->name);
        if (t && same_shape(t, p, 1) && t->dims[0] <= MIX_CLASSES_MAX)
            *classes = (int)t->dims[0];
        if (!t || (same_shape(t, p, 1) && t->dims[0] != p->dims[0]))
            return true;
    }
    return false;
}

static mix_status copy_all(mix_graph *g, const char *path, const struct mix__tensors *file,
                           mix_weights_info *info)
{
    struct names missing = { 0 };
    char more[32];
    info->new_classifier = needs_classifier(g, file, &info->classes);
    for (size_t i = 0; i < g->n_params; i++) {
        const struct mix__param *p = &g->params[i];
        const struct mix__tensor_view *t = mix__tensors_find(file, p->name);
        if (info->new_classifier && of_last_layer(g, p))
            continue;
        if (!t) {
            add_name(&missing, p->name);
            continue;
        }
        MIX_TRY(copy_values(g, path, t, p));
        info->taken++;
    }
    if (missing.n == 0)
        return MIX_OK;
    return mix__fail(g->ctx, MIX_EFORMAT, "%s: %d of the %zu tensors of %s are missing: %s%s", path,
                     missing.n, g->n_params, g->name, missing.text,
                     rest(&missing, more, sizeof more));
}

/* ---- what is told ---- */

static bool is_counter(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && strcmp(dot, ".num_batches_tracked") == 0;
}

static bool is_param(const mix_graph *g, const char *name)
{
    for (size_t p = 0; p < g->n_params; p++)
        if (strcmp(g->params[p].name, name) == 0)
            return true;
    return false;
}

static void tell_unused(const mix_graph *g, const char *path, const struct mix__tensors *file,
                        mix_weights_info *info)
{
    struct names unused = { 0 };
    char more[32];
    int own = 0;
    for (size_t i = 0; i < mix__tensors_count(file); i++) {
        const char *name = mix__tensors_at(file, i)->name;
        if (strncmp(name, OWN_PREFIX, sizeof OWN_PREFIX - 1) == 0)
            own++;
        else if (!is_counter(name) && !is_param(g, name))
            add_name(&unused, name);
    }
    info->unused = unused.n + own;
    if (own > 0)
        mix__log(g->ctx, MIX_LOG_INFO,
                 "%s: a checkpoint of metamix; its %d tensors of quantizers and training state are "
                 "not used",
                 path, own);
    if (unused.n > 0)
        mix__log(g->ctx, MIX_LOG_WARNING, "%s: %d tensors are not used by %s: %s%s", path, unused.n,
                 g->name, unused.text, rest(&unused, more, sizeof more));
}

static void tell_classifier(const mix_graph *g, const char *path, int classes)
{
    char but[40] = "";
    if (classes)
        snprintf(but, sizeof but, "; the file's is for %d", classes);
    mix__log(g->ctx, MIX_LOG_INFO, "%s: no classifier for %d classes; %s starts from random%s",
             path, g->tensors[g->output].c, g->layers[g->n_layers - 1].info.name, but);
}

mix_status mix_weights_load(mix_graph *graph, const char *path, mix_weights_info *info)
{
    struct mix__tensors *file;
    mix_weights_info ignored;
    info = info ? info : &ignored;
    *info = (mix_weights_info){ 0 };
    MIX_TRY(mix__tensors_open(&file, graph->ctx, path));
    const mix_status status = copy_all(graph, path, file, info);
    if (status == MIX_OK && info->new_classifier)
        tell_classifier(graph, path, info->classes);
    if (status == MIX_OK)
        tell_unused(graph, path, file, info);
    mix__tensors_close(file);
    return status;
}
