/*
 * model/arena.h - where the tensors of an integer network lie in one block of memory.
 */
#ifndef METAMIX_MODEL_ARENA_H
#define METAMIX_MODEL_ARENA_H

#include "model/net.h"

struct mix__arena {
    size_t *offset;     /* (tensor) bytes; the image and the logits are the caller's */
    size_t bytes, live; /* live: the floor */
};

/* arena->offset is the caller's, for mix__free(), also after an error. Errors: MIX_ENOMEM. */
mix_status mix__arena_plan(struct mix__arena *arena, const struct mix__net *net) MIX_CHECKED;

/* Bytes of a tensor: one for a code, four for a float. */
static inline size_t mix__tensor_bytes(const struct mix__net_tensor *t)
{
    return mix__net_elements(t) * (t->bits ? 1 : sizeof(float));
}

#endif
