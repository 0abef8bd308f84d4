/*
 * tests/peers/peer_zoo.c - one network's logits and gradients, for zoo.py to compare.
 *
 *   peer_zoo ARCH WEIGHTS BATCH OUT
 *
 * BATCH is safetensors: image (n, h, w, 3) F32, labels (n) I64. OUT: logits (n, classes) by the
 * running statistics, loss (1) of one training step without dropout, and grad.NAME for every
 * trained parameter.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/safetensors.h"
#include "metamix/zoo.h"
#include "train/train.h"
#include "metamix/weights.h"

static mix_ctx *ctx;

static void need(mix_status status)
{
    if (status == MIX_OK)
        return;
    fprintf(stderr, "peer_zoo: %s\n", ctx ? mix_ctx_error(ctx) : "no context");
    exit((int)status);
}

static void *block(size_t n, size_t size)
{
    void *p = calloc(n, size);
    if (!p)
        need(MIX_ENOMEM);
    return p;
}

struct batch {
    const float *image;
    int *labels;
    int n, size;
};

static struct batch read_batch(const struct mix__st_file *file)
{
    const struct mix__st_tensor *image = mix__st_find(file, "image");
    const struct mix__st_tensor *labels = mix__st_find(file, "labels");
    if (!image || !labels || image->rank != 4 || labels->dtype != MIX__ST_I64)
        need(mix__fail(ctx, MIX_EFORMAT, "expected image (n,h,w,3) F32 and labels (n) I64"));
    struct batch b = { .image = image->data,
                       .n = (int)image->dims[0],
                       .size = (int)image->dims[1] };
    b.labels = block((size_t)b.n, sizeof *b.labels);
    for (int i = 0; i < b.n; i++)
        b.labels[i] = (int)((const int64_t *)labels->data)[i];
    return b;
}

static mix_graph *make_graph(const char *arch, const char *weights, int size)
{
    mix_zoo_options options;
    mix_graph *g;
    mix_zoo_options_init(&options);
    options.arch = arch;
    options.size = size;
    options.stem = MIX_STEM_STANDARD;
    need(mix_zoo_new(&g, ctx, &options));
    need(mix_weights_load(g, weights, NULL));
    return g;
}

struct results {
    struct mix__st_tensor *tensors;
    char (*names)[MIX__NAME_MAX + 8];
    size_t n;
};

static void add(struct results *r, const char *prefix, const char *name, const float *data,
                int rank, const int *dims)
{
    struct mix__st_tensor *t = &r->tensors[r->n];
    snprintf(r->names[r->n], sizeof *r->names, "%s%s", prefix, name);
    *t = (struct mix__st_tensor){ .name = r->names[r->n], .dtype = MIX__ST_F32, .rank = rank };
    t->data = data;
    t->bytes = sizeof *data;
    for (int i = 0; i < rank; i++) {
        t->dims[i] = dims[i];
        t->bytes *= (size_t)dims[i];
    }
    r->n++;
}

static void run(mix_graph *g, const struct batch *b, const char *out)
{
    struct mix__state *state;
    struct mix__engine *engine;
    const float *logits;
    const int classes = g->tensors[g->output].c;
    const size_t count = (size_t)b->n * (size_t)classes;
    float *evaluated = block(count, sizeof *evaluated), *dlogits = block(count, sizeof *dlogits);
    need(mix__state_new(&state, g, &(int){ 8 }, 1, 1));
    need(mix__engine_new(&engine, state, b->n, true, MIX__DTYPE_F32));
    memcpy(mix__engine_input(engine), b->image,
           (size_t)b->n * b->size * b->size * 3 * sizeof *b->image);
    need(mix__engine_forward(engine, &(struct mix__pass){ 0 }, &logits));
    memcpy(evaluated, logits, count * sizeof *logits);

    need(mix__engine_forward(engine, &(struct mix__pass){ .batch_stats = true }, &logits));
    const struct mix__loss loss =
        mix__loss_eval(logits, NULL, b->labels, b->n, classes, 1.0f, dlogits);
    need(mix__engine_backward(engine, dlogits, MIX__GRAD_PARAMS));

    struct results r = { .tensors = block(g->n_params + 2, sizeof *r.tensors),
                         .names = block(g->n_params + 2, sizeof *r.names) };
    const float mean_loss = (float)loss.loss;
    add(&r, "", "logits", evaluated, 2, (int[]){ b->n, classes });
    add(&r, "", "loss", &mean_loss, 1, (int[]){ 1 });
    for (size_t i = 0; i < g->n_params; i++) {
        const struct mix__param *p = &g->params[i];
        if (p->offset < g->n_trained)
            add(&r, "grad.", p->name, state->grad + p->offset, p->rank, p->dims);
    }
    need(mix__st_save(ctx, out, r.tensors, r.n, NULL));
    mix__engine_free(engine);
    mix__state_free(state);
    free(r.tensors);
    free(r.names);
    free(evaluated);
    free(dlogits);
}

int main(int argc, char **argv)
{
    struct mix__st_file *file;
    if (argc != 5) {
        fprintf(stderr, "usage: peer_zoo ARCH WEIGHTS BATCH OUT\n");
        return 2;
    }
    mix_ctx_options options;
    mix_ctx_options_init(&options);
    need(mix_ctx_new(&ctx, &options));
    need(mix__st_open(&file, ctx, argv[3]));
    const struct batch b = read_batch(file);
    mix_graph *g = make_graph(argv[1], argv[2], b.size);
    run(g, &b, argv[4]);
    free(b.labels);
    mix_graph_free(g);
    mix__st_close(file);
    mix_ctx_free(ctx);
    return 0;
}
