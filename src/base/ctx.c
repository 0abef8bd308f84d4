/*
 * The context: aligned blocks on top of the user's allocator, the last error's sentence,
 * the log, and what machine this is.
 *
 * A block, as the user's allocator gave it:
 *
 *   raw          block - 8      block (MIX_ALIGN-aligned)
 *   +------------+--------------+------------------------------------+
 *   | 0..56 free | raw, pointer | n * size bytes, up to a whole line |
 *   +------------+--------------+------------------------------------+
 */
#define _GNU_SOURCE /* sched_getaffinity() */
#include "base/ctx.h"

#include <assert.h>
#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SENTENCE_MAX = 1024, THREADS_MAX = 256, GROW_MIN = 8, HUGE_LEAST = 8 << 20 /* bytes */ };

struct mix_ctx {
    mix_ctx_options options; /* cpu_mask and threads as they are in use */
    pthread_mutex_t lock;    /* of the sentence */
    char sentence[SENTENCE_MAX];
};

/* Asks for huge pages where that is worth it: a training step walks over hundreds of megabytes. */
static void *default_alloc(void *user, size_t bytes)
{
    (void)user;
    char *block = malloc(bytes);
#if defined(MADV_HUGEPAGE)
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (block && bytes >= HUGE_LEAST) {
        const size_t before = (page - (uintptr_t)block % page) % page;
        (void)madvise(block + before, (bytes - before) / page * page, MADV_HUGEPAGE);
    }
#endif
    return block;
}

static void default_free(void *user, void *block)
{
    (void)user;
    free(block);
}

/* NULL when there is no memory or the size overflows. */
static void *take(const mix_allocator *a, size_t n, size_t size)
{
    const size_t extra = sizeof(void *) + 2 * MIX_ALIGN;
    if (size && n > (SIZE_MAX - extra) / size)
        return NULL;
    const size_t bytes = mix__aligned(n * size);
    void *raw = a->alloc(a->user, bytes + MIX_ALIGN + sizeof raw);
    if (!raw)
        return NULL;
    const uintptr_t first = (uintptr_t)raw + sizeof raw;
    char *block = (char *)raw + sizeof raw + (MIX_ALIGN - first % MIX_ALIGN) % MIX_ALIGN;
    memcpy(block - sizeof raw, &raw, sizeof raw);
    return block;
}

static void give_back(const mix_allocator *a, void *block)
{
    void *raw;
    memcpy(&raw, (char *)block - sizeof raw, sizeof raw);
    a->free(a->user, raw);
}

#if defined(__x86_64__) || defined(__i386__)
/* Intel's cores multiply pairs of bfloat16 at half the rate of float32, which is no gain, and by
 * AMX at many times that rate. */
static bool multiplies_bf16_fast(void)
{
    const unsigned amx_bf16 = 1u << 22;
    unsigned a, b, c, d;
    return !__builtin_cpu_is("intel") || (__get_cpuid_count(7, 0, &a, &b, &c, &d) && d & amx_bf16);
}
#endif

static unsigned detect_cpu(void)
{
    unsigned cpu = 0;
#if defined(__x86_64__) || defined(__i386__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        cpu |= MIX_CPU_AVX2;
    if (cpu && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        cpu |= MIX_CPU_AVX512;
    if (cpu & MIX_CPU_AVX512 && __builtin_cpu_supports("avx512vnni"))
        cpu |= MIX_CPU_VNNI;
    if (cpu & MIX_CPU_AVX512 && __builtin_cpu_supports("avx512bf16"))
        cpu |= MIX_CPU_BF16 | (multiplies_bf16_fast() ? MIX_CPU_BF16_PRODUCTS : 0);
#endif
    return cpu;
}

/* Cores that this process may run on, not those that the machine has. */
static int available_cores(void)
{
    cpu_set_t set;
    long n;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        n = CPU_COUNT(&set);
    else
        n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > THREADS_MAX ? THREADS_MAX : (int)n;
}

void mix_ctx_options_init(mix_ctx_options *options)
{
    *options = (mix_ctx_options){
        .allocator = { .alloc = default_alloc, .free = default_free },
        .cpu_mask = MIX_CPU_ALL,
    };
}

mix_status mix_ctx_new(mix_ctx **out, const mix_ctx_options *options)
{
    mix_ctx_options o;
    *out = NULL;
    mix_ctx_options_init(&o);
    if (options)
        o = *options;
    if (!o.allocator.alloc || !o.allocator.free || o.threads < 0 || o.threads > THREADS_MAX)
        return MIX_EINVAL;
    mix_ctx *ctx = take(&o.allocator, 1, sizeof *ctx);
    if (!ctx)
        return MIX_ENOMEM;
    o.cpu_mask &= detect_cpu();
    if (!(o.cpu_mask & MIX_CPU_AVX2)) /* a wider set stands on the narrower one */
        o.cpu_mask = 0;
    if (!(o.cpu_mask & MIX_CPU_AVX512))
        o.cpu_mask &= ~(unsigned)(MIX_CPU_VNNI | MIX_CPU_BF16);
    if (!(o.cpu_mask & MIX_CPU_BF16))
        o.cpu_mask &= ~(unsigned)MIX_CPU_BF16_PRODUCTS;
    if (!o.threads)
        o.threads = available_cores();
    ctx->options = o;
    ctx->sentence[0] = '\0';
    if (pthread_mutex_init(&ctx->lock, NULL) != 0) {
        give_back(&o.allocator, ctx);
        return MIX_ENOMEM;
    }
    *out = ctx;
    return MIX_OK;
}

void mix_ctx_free(mix_ctx *ctx)
{
    if (!ctx)
        return;
    const mix_allocator a = ctx->options.allocator;
    pthread_mutex_destroy(&ctx->lock);
    give_back(&a, ctx);
}

const char *mix_ctx_error(const mix_ctx *ctx)
{
    return ctx->sentence;
}

int mix_ctx_threads(const mix_ctx *ctx)
{
    return ctx->options.threads;
}

unsigned mix_ctx_cpu(const mix_ctx *ctx)
{
    return ctx->options.cpu_mask;
}

static void keep_sentence(mix_ctx *ctx, const char *sentence)
{
    pthread_mutex_lock(&ctx->lock);
    memcpy(ctx->sentence, sentence, strlen(sentence) + 1);
    pthread_mutex_unlock(&ctx->lock);
}

mix_status mix__fail(mix_ctx *ctx, mix_status status, const char *format, ...)
{
    /* Not straight into ctx: an argument may be the sentence before this one. */
    char sentence[SENTENCE_MAX];
    va_list args;
    assert(status != MIX_OK);
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    keep_sentence(ctx, sentence);
    return status;
}

void mix__log(mix_ctx *ctx, mix_log_level level, const char *format, ...)
{
    if (!ctx->options.log)
        return;
    char line[SENTENCE_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    ctx->options.log(ctx->options.log_user, level, line);
}

void *mix__alloc(mix_ctx *ctx, size_t n, size_t size)
{
    void *block = take(&ctx->options.allocator, n, size);
    if (!block) {
        char sentence[96];
        snprintf(sentence, sizeof sentence, "out of memory: no room for %zu x %zu bytes", n, size);
        keep_sentence(ctx, sentence);
    }
    return block;
}

void *mix__zalloc(mix_ctx *ctx, size_t n, size_t size)
{
    void *block = mix__alloc(ctx, n, size);
    if (block)
        memset(block, 0, n * size);
    return block;
}

void mix__free(mix_ctx *ctx, void *block)
{
    if (block)
        give_back(&ctx->options.allocator, block);
}

char *mix__strdup(mix_ctx *ctx, const char *text)
{
    const size_t size = strlen(text) + 1;
    char *copy = mix__alloc(ctx, size, 1);
    if (copy)
        memcpy(copy, text, size);
    return copy;
}

int mix__text_index(const char *text, const char *const *texts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(text, texts[i]) == 0)
            return (int)i;
    return -1;
}

mix_status mix__grow(mix_ctx *ctx, void *array, size_t count, size_t *capacity, size_t size)
{
    void *old, *new;
    if (count < *capacity)
        return MIX_OK;
    const size_t wanted = count < GROW_MIN ? GROW_MIN : count > SIZE_MAX / 2 ? count : 2 * count;
    if (!(new = mix__alloc(ctx, wanted, size)))
        return MIX_ENOMEM;
    memcpy(&old, array, sizeof old); /* array is a T **, whatever T is */
    if (count)
        memcpy(new, old, count * size);
    mix__free(ctx, old);
    memcpy(array, &new, sizeof new);
    *capacity = wanted;
    return MIX_OK;
}
