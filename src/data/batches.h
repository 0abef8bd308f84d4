/*
 * data/batches.h - mini-batches, normalised as the data set says, prepared ahead by threads.
 *
 * What batch i of epoch e holds is a pure function of (seed, epoch, i): the order is
 * a shuffle of the epoch, and each image's augmentation is drawn from (seed, epoch, position in the
 * epoch). So threads, stops and restarts change nothing.
 */
#ifndef METAMIX_DATA_BATCHES_H
#define METAMIX_DATA_BATCHES_H

#include "metamix/data.h"

enum mix__crop { MIX__CROP_NONE, MIX__CROP_PAD, MIX__CROP_RESIZED };

struct mix__batches_options {
    mix_split split;
    int batch;
    bool train; /* shuffle, augment, leave out a last short batch; else file order, last batch short
                 */
    enum mix__crop crop;
    int crop_padding; /* pixels of MIX__CROP_PAD; the border is 0 after normalising */
    bool flip;
    int cutout;   /* side of a square set to 0 after normalising, pixels; 0: none */
    size_t limit; /* only the first so many images of a fixed shuffle; 0: all */
    int threads;  /* that prepare ahead, 1..64                                */
    uint64_t seed;
};

struct mix__batch {
    const float
        *images; /* (count, size, size, channels), normalised; the loader's until the next call */
    const int *labels; /* (count) */
    int count;
};

struct mix__batches;

/* Errors: MIX_EINVAL (an option, too few images), MIX_EUNSUPPORTED (a thread cannot be started),
 * MIX_ENOMEM. */
mix_status mix__batches_new(struct mix__batches **out, mix_data *data,
                            const struct mix__batches_options *options) MIX_CHECKED;
void mix__batches_free(struct mix__batches *batches); /* joins the threads; accepts NULL */

size_t mix__batches_images(const struct mix__batches *batches); /* that batches are drawn from */
int64_t mix__batches_per_epoch(const struct mix__batches *batches);

/* Begins with batch `first` of `epoch`; what was prepared for another place is dropped. */
mix_status mix__batches_seek(struct mix__batches *batches, int epoch, int64_t first) MIX_CHECKED;
/* The next batch; behind the last of an epoch comes the first of the next one. Blocks until it is
 * ready. */
mix_status mix__batches_next(struct mix__batches *batches, struct mix__batch *batch) MIX_CHECKED;
/* Seconds that _next() has blocked since the loader was made. */
double mix__batches_waited(const struct mix__batches *batches);

#endif
