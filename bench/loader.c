/*
 * loader.c - images per second of the loader alone.
 *
 *   loader --data DIR [--data DIR2 ...] [--size 224] [--batch 64] [--crop resized] [--seconds 10]
 *          [--step IMAGES_PER_SECOND]
 *
 * Each data set (a folder, and its pack) with 1 and with 2 loader threads: decoding, cropping
 * (RandomResizedCrop, or with --crop pad a shift inside a border of an eighth), mirroring,
 * normalising. Decoded images are not kept, so each is read from its file every time; run it twice
 * to have the files in the system's cache. --step is the training step's figure in images per second
 * (bench/train_step prints it): the last column is how many of them the loader can feed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/ctx.h"
#include "data/batches.h"

enum { MAX_SETS = 8 };

struct plan {
    const char *sets[MAX_SETS];
    int n_sets, size, batch;
    bool pad;
    double seconds, step; /* step 0: not known */
};

/* Images per second over at least so many seconds, after one batch. */
static mix_status measure(mix_data *data, const struct plan *p, int threads, double *speed)
{
    const struct mix__batches_options options = { .split = MIX_TRAIN,
                                                  .batch = p->batch,
                                                  .train = true,
                                                  .crop =
                                                      p->pad ? MIX__CROP_PAD : MIX__CROP_RESIZED,
                                                  .crop_padding = p->size / 8,
                                                  .flip = true,
                                                  .threads = threads,
                                                  .seed = 1 };
    struct mix__batches *batches;
    struct mix__batch batch;
    int64_t images = 0;
    mix_status status = mix__batches_new(&batches, data, &options);
    if (status != MIX_OK)
        return status;
    status = mix__batches_next(batches, &batch);
    const double start = mix__clock();
    do {
        if (status == MIX_OK)
            status = mix__batches_next(batches, &batch);
        images += p->batch;
    } while (status == MIX_OK && mix__clock() - start < p->seconds);
    *speed = (double)images / (mix__clock() - start);
    mix__batches_free(batches);
    return status;
}

static mix_status measure_set(mix_ctx *ctx, const struct plan *p, const char *path)
{
    mix_data *data;
    mix_data_options options;
    mix_data_options_init(&options);
    options.size = p->size;
    options.memory_limit = 0;
    MIX_TRY(mix_data_open(&data, ctx, path, &options));
    mix_status status = MIX_OK;
    for (int threads = 1; threads <= 2 && status == MIX_OK; threads++) {
        double speed;
        status = measure(data, p, threads, &speed);
        if (status != MIX_OK)
            break;
        printf("  %-32s %7d %10.1f", path, threads, speed);
        if (p->step > 0)
            printf(" %14.2f", speed / p->step);
        putchar('\n');
    }
    mix_data_free(data);
    return status;
}

static void parse(struct plan *p, int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--data") && p->n_sets < MAX_SETS)
            p->sets[p->n_sets++] = argv[i + 1];
        else if (!strcmp(argv[i], "--size"))
            p->size = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--batch"))
            p->batch = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--crop"))
            p->pad = !strcmp(argv[i + 1], "pad");
        else if (!strcmp(argv[i], "--seconds"))
            p->seconds = atof(argv[i + 1]);
        else if (!strcmp(argv[i], "--step"))
            p->step = atof(argv[i + 1]);
    }
}

int main(int argc, char **argv)
{
    struct plan p = { .size = 224, .batch = 64, .seconds = 10 };
    mix_ctx *ctx;
    parse(&p, argc, argv);
    if (p.n_sets == 0) {
        fprintf(stderr, "loader: --data DIR is missing\n");
        return MIX_EINVAL;
    }
    if (mix_ctx_new(&ctx, NULL) != MIX_OK)
        return 1;
    printf("%s %d, batch %d\n  %-32s %7s %10s", p.pad ? "crop from a border," : "RandomResizedCrop",
           p.size, p.batch, "data", "threads", "images/s");
    if (p.step > 0)
        printf(" %14s\n  %-32s %7s %10.1f", "loader / step", "training step", "", p.step);
    putchar('\n');
    mix_status status = MIX_OK;
    for (int i = 0; i < p.n_sets && status == MIX_OK; i++)
        status = measure_set(ctx, &p, p.sets[i]);
    if (status != MIX_OK)
        fprintf(stderr, "loader: %s\n", mix_ctx_error(ctx));
    mix_ctx_free(ctx);
    return status;
}
