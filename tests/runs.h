/*
 * runs.h - a tiny data set, a float run on it, and comparison of checkpoints, for the tests of
 * jobs.
 */
#ifndef METAMIX_TESTS_RUNS_H
#define METAMIX_TESTS_RUNS_H

#include "support.h"

#include <math.h>
#include <sys/stat.h>

#include "base/random.h"
#include "format/safetensors.h"
#include "metamix/metamix.h"

enum { RUN_SIZE = 16, RUN_CLASSES = 4, RUN_TRAIN = 48, RUN_VAL = 20, RUN_BATCH = 8 };

/* One thread: images as small as these only wait for each other. */
static inline mix_ctx *run_ctx(void)
{
    mix_ctx *ctx;
    mix_ctx_options options;
    mix_ctx_options_init(&options);
    options.threads = 1;
    CHECK_OK(mix_ctx_new(&ctx, &options));
    return ctx;
}

static inline void put_u32(FILE *f, uint32_t v)
{
    const unsigned char bytes[4] = { v >> 24, v >> 16 & 255, v >> 8 & 255, v & 255 };
    assert_int_equal(fwrite(bytes, 1, 4, f), 4);
}

/* Class c is a bright quadrant c on noise. */
static inline unsigned char run_pixel(int image, int y, int x)
{
    const int quadrant = 2 * (y >= RUN_SIZE / 2) + (x >= RUN_SIZE / 2);
    const double noise =
        mix__random_uniform(7, (uint64_t)image, (uint64_t)(y * RUN_SIZE + x)) * 100.0;
    return (unsigned char)(noise + (quadrant == image % RUN_CLASSES ? 120.0 : 20.0));
}

static inline void write_idx(const char *images, const char *labels, int first, int n)
{
    FILE *f = fopen(images, "wb");
    assert_non_null(f);
    put_u32(f, 0x803);
    put_u32(f, (uint32_t)n);
    put_u32(f, RUN_SIZE);
    put_u32(f, RUN_SIZE);
    for (int i = 0; i < n; i++)
        for (int p = 0; p < RUN_SIZE * RUN_SIZE; p++)
            fputc(run_pixel(first + i, p / RUN_SIZE, p % RUN_SIZE), f);
    assert_int_equal(fclose(f), 0);
    f = fopen(labels, "wb");
    assert_non_null(f);
    put_u32(f, 0x801);
    put_u32(f, (uint32_t)n);
    for (int i = 0; i < n; i++)
        fputc((first + i) % RUN_CLASSES, f);
    assert_int_equal(fclose(f), 0);
}

static inline void write_tiny_data(const char *folder)
{
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(chdir(folder), 0);
    write_idx("train-images-idx3-ubyte", "train-labels-idx1-ubyte", 0, RUN_TRAIN);
    write_idx("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", 1000, RUN_VAL);
    assert_int_equal(chdir(".."), 0);
}

/* Six steps in an epoch of a network of width 0.1. */
static inline void tiny_settings(mix_settings *s)
{
    mix_settings_init(s);
    strcpy(s->data, "data");
    s->width = 0.1;
    s->batch = RUN_BATCH;
    s->epochs = 2;
    s->warmup_epochs = 0.5;
    s->lr = 0.02;
    s->crop_padding = 1;
    s->flip = false;
    s->meta_warmup_epochs = 0.5;
    s->search_epochs = 1.5;
    s->stage_a_epochs = 1;
    s->stage_b_epochs = 1;
    s->bn_batches = 2;
    strcpy(s->target, "W4A4");
}

static inline void train_tiny(mix_ctx *ctx, const char *run)
{
    mix_settings s;
    mix_result result;
    tiny_settings(&s);
    CHECK_OK(mix_train(ctx, run, &s, NULL, &result));
    mix_result_release(&result);
}

/* All tensors are equal bit for bit, but for times. */
static inline void check_same_tensors(mix_ctx *ctx, const char *a, const char *b)
{
    struct mix__st_file *fa, *fb;
    CHECK_OK(mix__st_open(&fa, ctx, a));
    CHECK_OK(mix__st_open(&fb, ctx, b));
    assert_int_equal(mix__st_count(fa), mix__st_count(fb));
    assert_true(mix__st_count(fa) > 0);
    for (size_t i = 0; i < mix__st_count(fa); i++) {
        const struct mix__st_tensor *ta = mix__st_at(fa, i), *tb = mix__st_find(fb, ta->name);
        assert_non_null(tb);
        assert_int_equal(ta->bytes, tb->bytes);
        if (strcmp(ta->name, "metamix.times") != 0 && memcmp(ta->data, tb->data, ta->bytes) != 0)
            fail_msg("%s and %s differ in %s", a, b, ta->name);
    }
    mix__st_close(fa);
    mix__st_close(fb);
}

#endif
