/*
 * base/ctx.h - the context's inside, memory and errors for all folders.
 *
 *   return mix__fail(ctx, MIX_EFORMAT, "%s: ...", path);   sets the sentence, gives back the status
 *   MIX_TRY(expr);                                         returns when expr is not MIX_OK
 */
#ifndef METAMIX_BASE_CTX_H
#define METAMIX_BASE_CTX_H

#include <stdbool.h>

#include "metamix/context.h"

#define MIX_TRY(expr)                                                                              \
    do {                                                                                           \
        const mix_status mix_try_ = (expr);                                                        \
        if (mix_try_ != MIX_OK)                                                                    \
            return mix_try_;                                                                       \
    } while (0)

#define MIX_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Every block is aligned for the widest vectors, and a block's size is rounded up to it. */
enum { MIX_ALIGN = 64 };
/* Bytes, up to the next multiple of that. */
static inline size_t mix__aligned(size_t bytes)
{
    return (bytes + MIX_ALIGN - 1) / MIX_ALIGN * MIX_ALIGN;
}

/* Keeps the sentence (cut at 1 KiB) for mix_ctx_error() and returns status. Thread-safe: one of
 * several sentences wins. */
MIX_CHECKED mix_status mix__fail(mix_ctx *ctx, mix_status status, const char *format, ...)
    MIX_PRINTF(3, 4);

void mix__log(mix_ctx *ctx, mix_log_level level, const char *format, ...) MIX_PRINTF(3, 4);

/* n elements of size bytes, MIX_ALIGN-aligned; NULL with the sentence set when there is no
 * memory or n * size overflows. zalloc clears. free accepts NULL. Thread-safe. */
void *mix__alloc(mix_ctx *ctx, size_t n, size_t size);
void *mix__zalloc(mix_ctx *ctx, size_t n, size_t size);
void mix__free(mix_ctx *ctx, void *block);
char *mix__strdup(mix_ctx *ctx, const char *text);

/* Where the text stands among n of them; -1: nowhere. */
int mix__text_index(const char *text, const char *const *texts, size_t n);

/* Grows *array (count elements of size bytes, *capacity of them allocated) to hold at least one
 * more. */
MIX_CHECKED mix_status mix__grow(mix_ctx *ctx, void *array, size_t count, size_t *capacity,
                                 size_t size);

#endif
