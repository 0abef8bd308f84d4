/*
 * model/arena.h - where things that live for a time lie in one block of memory: the tensors of an
 * integer network, the buffers of an engine.
 */
#ifndef METAMIX_MODEL_ARENA_H
#define METAMIX_MODEL_ARENA_H

#include "model/net.h"

struct mix__lifetime {
    size_t bytes;    /* a multiple of MIX_ALIGN */
    int first, last; /* times, both included; first -1: it needs no place */
};

struct mix__arena {
    size_t *offset; /* (thing) bytes */
    size_t bytes;
    size_t live; /* of the things alive at one time, the most: the floor for bytes */
};

/* arena->offset is the caller's, for mix__free(), also after an error. Errors: MIX_ENOMEM. */
mix_status mix__arena_place(struct mix__arena *arena, mix_ctx *ctx,
                            const struct mix__lifetime *things, size_t n) MIX_CHECKED;

/* The same for the tensors of a network; the image and the logits are the caller's. */
mix_status mix__arena_plan(struct mix__arena *arena, const struct mix__net *net) MIX_CHECKED;

/* Bytes of a tensor: one for a code, four for a float. */
static inline size_t mix__tensor_bytes(const struct mix__net_tensor *t)
{
    return mix__net_elements(t) * (t->bits ? 1 : sizeof(float));
}

#endif
