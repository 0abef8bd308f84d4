/*
 * context.h - what every call shares: allocator, log, CPU mask, threads, last error.
 *
 * There are no globals. A context and everything made from it is used by one
 * caller's thread at a time; different contexts are independent.
 */
#ifndef METAMIX_CONTEXT_H
#define METAMIX_CONTEXT_H

#include <stddef.h>
#include <stdint.h>

#include "metamix/status.h"

typedef struct mix_ctx mix_ctx;

/* Memory comes from alloc() (any alignment of at least 16; NULL when there is none) and
 * goes back through free(). Both may be called from several threads. */
typedef struct mix_allocator {
    void *(*alloc)(void *user, size_t bytes);
    void (*free)(void *user, void *block);
    void *user;
} mix_allocator;

typedef enum mix_log_level { MIX_LOG_INFO, MIX_LOG_WARNING } mix_log_level;

/* Instruction sets that may be used; the context keeps those that the CPU also has. */
enum {
    MIX_CPU_AVX2 = 1u << 0,
    MIX_CPU_AVX512 = 1u << 1,
    MIX_CPU_VNNI = 1u << 2,         /* AVX-512 with VNNI */
    MIX_CPU_BF16 = 1u << 3,         /* AVX-512 with bfloat16 */
    MIX_CPU_BF16_PRODUCTS = 1u << 4 /* and products of it faster than float32's */
};
#define MIX_CPU_ALL (~0u)

typedef struct mix_ctx_options {
    mix_allocator allocator; /* default: malloc and free                    */
    void (*log)(void *user, mix_log_level level, const char *line);
    void *log_user;    /* default log: none                           */
    unsigned cpu_mask; /* default: MIX_CPU_ALL                        */
    int threads;       /* 1..256; 0 (default): one per available core */
} mix_ctx_options;

MIX_API void mix_ctx_options_init(mix_ctx_options *options);

/* options NULL means the defaults; they are copied. Errors: MIX_EINVAL, MIX_ENOMEM. */
MIX_API MIX_CHECKED mix_status mix_ctx_new(mix_ctx **out, const mix_ctx_options *options);
MIX_API void mix_ctx_free(mix_ctx *ctx); /* after everything made from it; accepts NULL */

/* The sentence of the last failure, "" when none; valid until the next call that fails. */
MIX_API const char *mix_ctx_error(const mix_ctx *ctx);
MIX_API int mix_ctx_threads(const mix_ctx *ctx);
MIX_API unsigned mix_ctx_cpu(const mix_ctx *ctx); /* the MIX_CPU_ flags in use */

#endif
