/*
 * model/arena.c - one thing after another, each at the lowest place where it meets nothing that is
 * alive at the same time. No one order is best for all networks, so a few are tried: the largest
 * first, those at the most crowded times first, the longest alive first.
 */
#include "model/arena.h"

#include <string.h>

enum order { BY_SIZE, BY_CROWD, BY_LIFE, ORDERS };

struct placing {
    const struct mix__lifetime *things;
    size_t n;
    size_t *crowd;  /* (thing): bytes alive at its most crowded time */
    size_t *order;  /* indices of things                             */
    size_t *offset; /* (thing): in the order that is tried           */
};

static bool alive(const struct mix__lifetime *t, int time)
{
    return t->first >= 0 && t->first <= time && time <= t->last;
}

/* How much is alive when; gives the most. */
static size_t find_crowds(const struct placing *p)
{
    size_t most = 0;
    int end = 0;
    for (size_t i = 0; i < p->n; i++)
        end = p->things[i].last > end ? p->things[i].last : end;
    for (int time = 0; time <= end; time++) {
        size_t live = 0;
        for (size_t i = 0; i < p->n; i++)
            if (alive(&p->things[i], time))
                live += p->things[i].bytes;
        for (size_t i = 0; i < p->n; i++)
            if (alive(&p->things[i], time) && live > p->crowd[i])
                p->crowd[i] = live;
        most = live > most ? live : most;
    }
    return most;
}

static int life(const struct mix__lifetime *t)
{
    return t->last - t->first;
}

/* Whether thing i is placed before thing j. */
static bool before(const struct placing *p, size_t i, size_t j, enum order by)
{
    const struct mix__lifetime *a = &p->things[i], *b = &p->things[j];
    if (by == BY_CROWD && p->crowd[i] != p->crowd[j])
        return p->crowd[i] > p->crowd[j];
    if (by == BY_LIFE && life(a) != life(b))
        return life(a) > life(b);
    return a->bytes > b->bytes;
}

/* The things that need a place; gives their number. */
static size_t sort(const struct placing *p, enum order by)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (p->things[i].first < 0)
            continue;
        size_t j = n++;
        for (; j > 0 && before(p, i, p->order[j - 1], by); j--)
            p->order[j] = p->order[j - 1];
        p->order[j] = i;
    }
    return n;
}

static bool meet(const struct mix__lifetime *a, const struct mix__lifetime *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* Gives the bytes that the n first of the order take. */
static size_t place(const struct placing *p, size_t n)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        const struct mix__lifetime *t = &p->things[p->order[i]];
        size_t at = 0;
        for (bool moved = true; moved;) {
            moved = false;
            for (size_t j = 0; j < i; j++) {
                const struct mix__lifetime *o = &p->things[p->order[j]];
                const size_t begin = p->offset[p->order[j]], end = begin + o->bytes;
                if (meet(t, o) && begin < at + t->bytes && at < end) {
                    at = end;
                    moved = true;
                }
            }
        }
        p->offset[p->order[i]] = at;
        bytes = at + t->bytes > bytes ? at + t->bytes : bytes;
    }
    return bytes;
}

mix_status mix__arena_place(struct mix__arena *a, mix_ctx *ctx, const struct mix__lifetime *things,
                            size_t n)
{
    const struct placing p = { .things = things,
                               .n = n,
                               .crowd = mix__zalloc(ctx, n, sizeof *p.crowd),
                               .order = mix__alloc(ctx, n, sizeof *p.order),
                               .offset = mix__zalloc(ctx, n, sizeof *p.offset) };
    a->offset = mix__zalloc(ctx, n, sizeof *a->offset);
    const mix_status status = p.crowd && p.order && p.offset && a->offset ? MIX_OK : MIX_ENOMEM;
    if (status == MIX_OK) {
        a->live = find_crowds(&p);
        a->bytes = SIZE_MAX;
    }
    for (int by = 0; status == MIX_OK && by < ORDERS && a->bytes > a->live; by++) {
        const size_t bytes = place(&p, sort(&p, (enum order)by));
        if (bytes >= a->bytes)
            continue;
        a->bytes = bytes;
        memcpy(a->offset, p.offset, n * sizeof *p.offset);
    }
    mix__free(ctx, p.crowd);
    mix__free(ctx, p.order);
    mix__free(ctx, p.offset);
    return status;
}

/* ---- an integer network --------------------------------------------------------------------- */

/* A time is an operator's. */
static void find_lifetimes(const struct mix__net *net, struct mix__lifetime *tensors)
{
    for (size_t t = 0; t < net->n_tensors; t++)
        tensors[t] = (struct mix__lifetime){
            .bytes = mix__aligned(mix__tensor_bytes(&net->tensors[t])),
            .first = -1,
            .last = -1,
        };
    for (int i = 0; i < (int)net->n_ops; i++) {
        const struct mix__net_op *op = &net->ops[i];
        tensors[op->out].first = tensors[op->out].last = i;
        for (int k = 0; k < 2; k++)
            if (op->in[k] >= 0)
                tensors[op->in[k]].last = i;
    }
    tensors[0].first = tensors[net->output].first = -1; /* the caller's */
}

mix_status mix__arena_plan(struct mix__arena *a, const struct mix__net *net)
{
    struct mix__lifetime *tensors = mix__alloc(net->ctx, net->n_tensors, sizeof *tensors);
    if (!tensors)
        return MIX_ENOMEM;
    find_lifetimes(net, tensors);
    const mix_status status = mix__arena_place(a, net->ctx, tensors, net->n_tensors);
    mix__free(net->ctx, tensors);
    return status;
}
