/*
 * golden.h - reading the files that make_*.py wrote, and comparing with them.
 */
#ifndef METAMIX_TESTS_GOLDEN_H
#define METAMIX_TESTS_GOLDEN_H

#include <math.h>

#include "format/safetensors.h"
#include "support.h"

static inline struct mix__st_file *golden_open(mix_ctx *ctx, const char *name)
{
    struct mix__st_file *file;
    char path[4096];
    snprintf(path, sizeof path, "%s/golden/%s", MIX_TESTS_DIR, name);
    if (mix__st_open(&file, ctx, path) != MIX_OK)
        fail_msg("%s", mix_ctx_error(ctx));
    return file;
}

/* The tensor of that name, which must have the type; *count values when count is not NULL. */
static inline const void *golden(const struct mix__st_file *file, enum mix__st_dtype dtype,
                                 size_t *count, const char *format, ...) MIX_PRINTF(4, 5);

static inline const void *golden(const struct mix__st_file *file, enum mix__st_dtype dtype,
                                 size_t *count, const char *format, ...)
{
    static const size_t size[] = { [MIX__ST_F32] = 4, [MIX__ST_F64] = 8, [MIX__ST_I64] = 8,
                                   [MIX__ST_U64] = 8, [MIX__ST_I32] = 4, [MIX__ST_U8] = 1 };
    char name[128];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    const struct mix__st_tensor *t = mix__st_find(file, name);
    if (!t || t->dtype != dtype)
        fail_msg("%s: no such tensor, or of another type", name);
    if (count)
        *count = t->bytes / size[dtype];
    return t->data;
}

/* |found - expected| <= tolerance * the largest |expected|, or * floor where all are smaller. */
static inline void check_close(const char *what, const float *found, const float *expected,
                               size_t n, double tolerance, double floor)
{
    double largest = floor;
    assert_true(n > 0);
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(expected[i]));
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)found[i] - expected[i]) <= tolerance * largest))
            fail_msg("%s[%zu]: %.9g, PyTorch has %.9g, largest %.3g", what, i, found[i],
                     expected[i], largest);
}

#endif
