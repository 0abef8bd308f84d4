/*
 * model/arena.c - one block for all tensors, by lifetime: one after another, each at the lowest
 * place where it meets no tensor that is alive at the same time. No one order is best for all
 * networks, so a few are tried: the largest first, those at the most crowded times first, the
 * longest alive first.
 */
#include <string.h>

#include "model/arena.h"

struct span {
    size_t bytes;
    int first, last; /* operators; first -1: never alive          */
    size_t crowd;    /* bytes alive at its most crowded time      */
};

enum order { BY_SIZE, BY_CROWD, BY_LIFE, ORDERS };

static void find_spans(const struct mix__net *net, struct span *spans)
{
    for (size_t t = 0; t < net->n_tensors; t++)
        spans[t] = (struct span){
            .bytes = mix__aligned(mix__tensor_bytes(&net->tensors[t])),
            .first = -1,
            .last = -1,
        };
    for (int i = 0; i < (int)net->n_ops; i++) {
        const struct mix__net_op *op = &net->ops[i];
        spans[op->out].first = spans[op->out].last = i;
        for (int k = 0; k < 2; k++)
            if (op->in[k] >= 0)
                spans[op->in[k]].last = i;
    }
    spans[0].first = spans[net->output].first = -1; /* the caller's */
}

static bool meet(const struct span *a, const struct span *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* How much is alive when; gives the most. */
static size_t find_crowds(const struct mix__net *net, struct span *spans)
{
    size_t most = 0;
    for (int time = 0; time < (int)net->n_ops; time++) {
        size_t live = 0;
        for (size_t t = 0; t < net->n_tensors; t++)
            if (spans[t].first >= 0 && spans[t].first <= time && time <= spans[t].last)
                live += spans[t].bytes;
        for (size_t t = 0; t < net->n_tensors; t++)
            if (spans[t].first <= time && time <= spans[t].last && live > spans[t].crowd)
                spans[t].crowd = live;
        most = live > most ? live : most;
    }
    return most;
}

/* Whether a is placed before b. */
static bool before(const struct span *a, const struct span *b, enum order by)
{
    if (by == BY_CROWD && a->crowd != b->crowd)
        return a->crowd > b->crowd;
    if (by == BY_LIFE && a->last - a->first != b->last - b->first)
        return a->last - a->first > b->last - b->first;
    return a->bytes > b->bytes;
}

/* Tensors that are alive at some time; gives their number. */
static size_t sort(const struct mix__net *net, const struct span *spans, enum order by,
                   size_t *order)
{
    size_t n = 0;
    for (size_t t = 0; t < net->n_tensors; t++) {
        if (spans[t].first < 0)
            continue;
        size_t j = n++;
        for (; j > 0 && before(&spans[t], &spans[order[j - 1]], by); j--)
            order[j] = order[j - 1];
        order[j] = t;
    }
    return n;
}

/* Gives the bytes that all of them take. */
static size_t place(size_t *offset, const struct span *spans, const size_t *order, size_t n)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        const struct span *s = &spans[order[i]];
        size_t at = 0;
        for (bool moved = true; moved;) {
            moved = false;
            for (size_t j = 0; j < i; j++) {
                const struct span *o = &spans[order[j]];
                const size_t begin = offset[order[j]], end = begin + o->bytes;
                if (meet(s, o) && begin < at + s->bytes && at < end) {
                    at = end;
                    moved = true;
                }
            }
        }
        offset[order[i]] = at;
        bytes = at + s->bytes > bytes ? at + s->bytes : bytes;
    }
    return bytes;
}

mix_status mix__arena_plan(struct mix__arena *a, const struct mix__net *net)
{
    struct span *spans = mix__alloc(net->ctx, net->n_tensors, sizeof *spans);
    size_t *order = mix__alloc(net->ctx, net->n_tensors, sizeof *order);
    a->offset = mix__zalloc(net->ctx, net->n_tensors, sizeof *a->offset);
    size_t *tried = mix__zalloc(net->ctx, net->n_tensors, sizeof *tried);
    const mix_status status = spans && order && tried && a->offset ? MIX_OK : MIX_ENOMEM;
    if (status == MIX_OK) {
        find_spans(net, spans);
        a->live = find_crowds(net, spans);
        a->bytes = SIZE_MAX;
    }
    for (int by = 0; status == MIX_OK && by < ORDERS && a->bytes > a->live; by++) {
        const size_t bytes = place(tried, spans, order, sort(net, spans, (enum order)by, order));
        if (bytes >= a->bytes)
            continue;
        a->bytes = bytes;
        memcpy(a->offset, tried, net->n_tensors * sizeof *tried);
    }
    mix__free(net->ctx, spans);
    mix__free(net->ctx, order);
    mix__free(net->ctx, tried);
    return status;
}
