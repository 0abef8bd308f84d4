/*
 * batches.c - a ring of batches that threads fill ahead of the caller.
 *
 * Batches are numbered through all epochs: ticket = epoch * per_epoch + batch. Ticket t lives in
 * slot t % slots. Threads claim tickets in order, so one order of the images is enough, made anew
 * under the lock when the claims enter another epoch; the slot keeps its batch's share of it.
 *
 *     given     next                claimed            end = next + slots
 *       |        |                    |                  |
 *     --+--------+--------------------+------------------+-----> tickets
 *       caller's   ready or in work     free for claims
 *
 * The slot of the batch that the caller holds is free again once the caller asks for the next.
 * `end` moves only then, so it never covers a slot in use.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/random.h"
#include "data/batches.h"
#include "data/dataset.h"
#include "metamix/graph.h"

enum { THREADS_MAX = 64 };
/* The counter of the shuffle that chooses the images under a limit; no epoch gets there. */
#define LIMIT_COUNTER (((uint64_t)1 << 40) - 1)

struct slot {
    float *images;   /* (batch, size, size, channels) */
    int *labels;     /* (batch) */
    uint32_t *index; /* (batch) images of the split */
    int count;
    int epoch;
    int64_t position; /* of the first image in the epoch */
    bool ready;
    mix_status status;
};

struct mix__batches {
    mix_data *data;
    struct mix__batches_options options;
    int64_t per_epoch;
    size_t images;    /* in an epoch, before a short last batch is left out */
    uint32_t *subset; /* (images) ascending; NULL: all of the split */
    uint32_t *order;  /* (images) of order_epoch */
    int order_epoch;
    struct slot *slots; /* (n_slots) */
    int n_slots;
    pthread_t *threads;
    int n_threads;

    pthread_mutex_t lock; /* for everything below, the order and slot.ready */
    pthread_cond_t work, done;
    int64_t next, claimed, end; /* tickets */
    int busy;                   /* threads at work on a claimed slot */
    bool stop;
    double waited; /* seconds */
};

static mix_status prepare_image(const struct mix__batches *b, const struct slot *slot, int i)
{
    const struct mix__batches_options *o = &b->options;
    const int size = b->data->size;
    const bool resized = o->train && o->crop == MIX__CROP_RESIZED;
    const struct mix__draws draws = { o->seed, MIX__STREAM(MIX__RANDOM_AUGMENT, slot->epoch),
                                      (uint64_t)slot->position + i };
    struct mix__image image;
    MIX_TRY(mix__data_image(b->data, o->split, slot->index[i], resized ? &draws : NULL, &image));
    int dy = 0, dx = 0;
    if (o->train && o->crop == MIX__CROP_PAD)
        mix__draw_shift(&draws, o->crop_padding, &dy, &dx);
    const bool flip = o->train && o->flip && mix__draw_flip(&draws);
    float *out = slot->images + (size_t)i * size * size * b->data->channels;
    mix__image_normalise(out, &image, dy, dx, flip, &b->data->normaliser);
    if (o->train && o->cutout > 0)
        mix__erase(out, b->data->size, b->data->channels,
                   mix__draw_hole(&draws, b->data->size, o->cutout));
    mix__image_release(b->data->ctx, &image);
    return MIX_OK;
}

static mix_status prepare(const struct mix__batches *b, const struct slot *slot)
{
    for (int i = 0; i < slot->count; i++) {
        slot->labels[i] = b->data->halves[b->options.split].labels[slot->index[i]];
        MIX_TRY(prepare_image(b, slot, i));
    }
    return MIX_OK;
}

static void make_order(struct mix__batches *b, int epoch)
{
    if (b->order_epoch == epoch)
        return;
    b->order_epoch = epoch;
    if (b->options.train)
        mix__random_shuffle(b->options.seed, MIX__STREAM(MIX__RANDOM_SHUFFLE, epoch), b->order,
                            b->images);
    else
        for (size_t i = 0; i < b->images; i++)
            b->order[i] = (uint32_t)i;
    for (size_t i = 0; b->subset && i < b->images; i++)
        b->order[i] = b->subset[b->order[i]];
}

/* Under the lock. */
static struct slot *claim(struct mix__batches *b)
{
    const int64_t ticket = b->claimed++;
    struct slot *slot = &b->slots[ticket % b->n_slots];
    const size_t left = b->images - (size_t)(ticket % b->per_epoch) * b->options.batch;
    slot->epoch = (int)(ticket / b->per_epoch);
    slot->position = ticket % b->per_epoch * b->options.batch;
    slot->count = left < (size_t)b->options.batch ? (int)left : b->options.batch;
    slot->ready = false;
    make_order(b, slot->epoch);
    memcpy(slot->index, b->order + slot->position, slot->count * sizeof *slot->index);
    return slot;
}

static void *fill_slots(void *user)
{
    struct mix__batches *b = user;
    pthread_mutex_lock(&b->lock);
    while (!b->stop) {
        if (b->claimed >= b->end) {
            pthread_cond_wait(&b->work, &b->lock);
            continue;
        }
        struct slot *slot = claim(b);
        b->busy++;
        pthread_mutex_unlock(&b->lock);
        slot->status = prepare(b, slot);
        pthread_mutex_lock(&b->lock);
        b->busy--;
        slot->ready = true;
        pthread_cond_signal(&b->done); /* the caller is the only one who waits */
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

static mix_status check_options(const mix_data *data, const struct mix__batches_options *o)
{
    mix_ctx *ctx = data->ctx;
    if (o->batch < 1 || o->batch > MIX_BATCH_MAX)
        return mix__fail(ctx, MIX_EINVAL, "batch of %d images, expected 1..%d", o->batch,
                         MIX_BATCH_MAX);
    if (o->threads < 1 || o->threads > THREADS_MAX)
        return mix__fail(ctx, MIX_EINVAL, "%d loader threads, expected 1..%d", o->threads,
                         THREADS_MAX);
    if (o->crop == MIX__CROP_PAD && (o->crop_padding < 0 || o->crop_padding > data->size))
        return mix__fail(ctx, MIX_EINVAL, "crop padding %d, expected 0..%d (the image size)",
                         o->crop_padding, data->size);
    if (o->cutout < 0 || o->cutout > data->size)
        return mix__fail(ctx, MIX_EINVAL, "cutout %d, expected 0..%d (the image size)", o->cutout,
                         data->size);
    if (data->halves[o->split].count > UINT32_MAX)
        return mix__fail(ctx, MIX_EUNSUPPORTED, "%s: more than %lu images", data->path,
                         (unsigned long)UINT32_MAX);
    return MIX_OK;
}

static int ascending(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static mix_status choose_subset(struct mix__batches *b)
{
    const size_t count = b->data->halves[b->options.split].count;
    b->images = count;
    if (b->options.limit == 0 || b->options.limit >= count)
        return MIX_OK;
    b->images = b->options.limit;
    b->subset = mix__alloc(b->data->ctx, count, sizeof *b->subset);
    if (!b->subset)
        return MIX_ENOMEM;
    mix__random_shuffle(b->options.seed, MIX__STREAM(MIX__RANDOM_SHUFFLE, LIMIT_COUNTER), b->subset,
                        count);
    qsort(b->subset, b->images, sizeof *b->subset, ascending);
    return MIX_OK;
}

static mix_status count_batches(struct mix__batches *b)
{
    const size_t batch = b->options.batch;
    b->per_epoch = (int64_t)((b->images + (b->options.train ? 0 : batch - 1)) / batch);
    if (b->per_epoch == 0)
        return mix__fail(b->data->ctx, MIX_EINVAL,
                         "a batch of %zu images is larger than the %zu training images", batch,
                         b->images);
    return MIX_OK;
}

static mix_status make_slots(struct mix__batches *b)
{
    mix_ctx *ctx = b->data->ctx;
    const size_t batch = b->options.batch;
    const size_t values = (size_t)b->data->size * b->data->size * b->data->channels;
    /* One with the caller, one ready, one for each thread. */
    const int n = b->options.threads + 2;
    b->slots = mix__zalloc(ctx, n, sizeof *b->slots);
    b->order = mix__alloc(ctx, b->images, sizeof *b->order);
    b->threads = mix__alloc(ctx, b->options.threads, sizeof *b->threads);
    if (!b->slots || !b->order || !b->threads)
        return MIX_ENOMEM;
    for (b->n_slots = 0; b->n_slots < n; b->n_slots++) {
        struct slot *slot = &b->slots[b->n_slots];
        slot->images = mix__alloc(ctx, batch * values, sizeof *slot->images);
        slot->labels = mix__alloc(ctx, batch, sizeof *slot->labels);
        slot->index = mix__alloc(ctx, batch, sizeof *slot->index);
        if (!slot->images || !slot->labels || !slot->index) {
            b->n_slots++;
            return MIX_ENOMEM;
        }
    }
    return MIX_OK;
}

static mix_status start_threads(struct mix__batches *b)
{
    for (; b->n_threads < b->options.threads; b->n_threads++) {
        const int error = pthread_create(&b->threads[b->n_threads], NULL, fill_slots, b);
        if (error)
            return mix__fail(b->data->ctx, MIX_EUNSUPPORTED,
                             "cannot start loader thread %d of %d: %s", b->n_threads + 1,
                             b->options.threads, strerror(error));
    }
    return MIX_OK;
}

static mix_status build(struct mix__batches *b)
{
    MIX_TRY(choose_subset(b));
    MIX_TRY(count_batches(b));
    MIX_TRY(make_slots(b));
    return start_threads(b);
}

mix_status mix__batches_new(struct mix__batches **out, mix_data *data,
                            const struct mix__batches_options *options)
{
    *out = NULL;
    MIX_TRY(check_options(data, options));
    struct mix__batches *b = mix__zalloc(data->ctx, 1, sizeof *b);
    if (!b)
        return MIX_ENOMEM;
    b->data = data;
    b->options = *options;
    b->order_epoch = -1;
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->work, NULL);
    pthread_cond_init(&b->done, NULL);
    const mix_status status = build(b);
    if (status != MIX_OK) {
        mix__batches_free(b);
        return status;
    }
    *out = b;
    return MIX_OK;
}

void mix__batches_free(struct mix__batches *b)
{
    if (!b)
        return;
    mix_ctx *ctx = b->data->ctx;
    pthread_mutex_lock(&b->lock);
    b->stop = true;
    pthread_cond_broadcast(&b->work);
    pthread_mutex_unlock(&b->lock);
    for (int i = 0; i < b->n_threads; i++)
        pthread_join(b->threads[i], NULL);
    pthread_cond_destroy(&b->done);
    pthread_cond_destroy(&b->work);
    pthread_mutex_destroy(&b->lock);
    for (int i = 0; i < b->n_slots; i++) {
        mix__free(ctx, b->slots[i].images);
        mix__free(ctx, b->slots[i].labels);
        mix__free(ctx, b->slots[i].index);
    }
    mix__free(ctx, b->slots);
    mix__free(ctx, b->threads);
    mix__free(ctx, b->order);
    mix__free(ctx, b->subset);
    mix__free(ctx, b);
}

size_t mix__batches_images(const struct mix__batches *batches)
{
    return batches->images;
}

int64_t mix__batches_per_epoch(const struct mix__batches *batches)
{
    return batches->per_epoch;
}

mix_status mix__batches_seek(struct mix__batches *b, int epoch, int64_t first)
{
    if (epoch < 0 || first < 0 || first >= b->per_epoch)
        return mix__fail(b->data->ctx, MIX_EINVAL,
                         "batch %lld of epoch %d, expected 0..%lld of epoch 0 or later",
                         (long long)first, epoch, (long long)b->per_epoch - 1);
    pthread_mutex_lock(&b->lock);
    b->end = b->claimed; /* no claims until nobody writes to a slot */
    while (b->busy)
        pthread_cond_wait(&b->done, &b->lock);
    for (int i = 0; i < b->n_slots; i++)
        b->slots[i].ready = false;
    b->next = b->claimed = epoch * b->per_epoch + first;
    b->end = b->next + b->n_slots;
    pthread_cond_broadcast(&b->work);
    pthread_mutex_unlock(&b->lock);
    return MIX_OK;
}

mix_status mix__batches_next(struct mix__batches *b, struct mix__batch *batch)
{
    struct slot *slot = &b->slots[b->next % b->n_slots];
    pthread_mutex_lock(&b->lock);
    b->end = b->next + b->n_slots;
    pthread_cond_broadcast(&b->work);
    const double begin = mix__clock();
    /* Until it is claimed, the slot may still hold an older batch. */
    while (b->claimed <= b->next || !slot->ready)
        pthread_cond_wait(&b->done, &b->lock);
    b->waited += mix__clock() - begin;
    b->next++;
    pthread_mutex_unlock(&b->lock);
    /* Once more in the caller's thread, so that the sentence is this batch's. */
    if (slot->status != MIX_OK)
        MIX_TRY(prepare(b, slot));
    *batch = (struct mix__batch){ slot->images, slot->labels, slot->count };
    return MIX_OK;
}

double mix__batches_waited(const struct mix__batches *batches)
{
    return batches->waited;
}
