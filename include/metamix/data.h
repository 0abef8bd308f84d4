/*
 * data.h - labelled images: what is on disk.
 *
 * Two layouts are recognised by what the folder holds:
 *   IDX     train-images-idx3-ubyte[.gz] and its three companions (MNIST, Fashion-MNIST)
 *   folder  train/<class>/<*>.{jpg,jpeg,png} and val/<class>/...; the class index is the rank of
 *           the class name in byte order, and both halves must have the same classes
 * IDX images have one channel and are always kept in memory, folders' images have three (gray is
 * replicated, alpha dropped). An image file is decoded by what its first bytes say, not by its
 * name; hidden files and other endings are passed over, links are followed.
 */
#ifndef METAMIX_DATA_H
#define METAMIX_DATA_H

#include <stdbool.h>

#include "metamix/context.h"

typedef struct mix_data mix_data;

typedef enum mix_split { MIX_TRAIN, MIX_VAL, MIX_SPLITS } mix_split;

typedef struct mix_data_options {
    /* Pixels; images are brought to size x size, 0..4096. An image of that size stays as it is;
     * else its shorter side becomes round(size * 256 / 224) when size > 64 and size otherwise
     * (antialiased bilinear) and the center is cropped. 0: the images' own size, which must be
     * square and one and the same for all. */
    int size;
    bool skip_bad_images; /* count and leave out files that cannot be decoded; default false: the
                             first such file (by name) fails the open                     */
    size_t memory_limit;  /* bytes of decoded images kept in memory, default 4 GiB; a data set
                             above it is decoded again in every epoch                     */
} mix_data_options;

typedef struct mix_data_info {
    const char *path;
    int classes, channels, size; /* channels 1 or 3 */
    size_t images[MIX_SPLITS];
    size_t skipped[MIX_SPLITS]; /* bad images left out */
} mix_data_info;

MIX_API void mix_data_options_init(mix_data_options *options);

/* Finds and checks every image (in parallel). Errors: MIX_EIO (missing folder or file, named),
 * MIX_EFORMAT (file, what was expected, byte offset where known), MIX_ESHAPE (size 0, and images
 * that are not square or differ: the first two are named), MIX_EINVAL (options), MIX_ENOMEM. */
MIX_API MIX_CHECKED mix_status mix_data_open(mix_data **out, mix_ctx *ctx, const char *path,
                                             const mix_data_options *options);
MIX_API void mix_data_free(mix_data *data);
MIX_API void mix_data_info_get(const mix_data *data, mix_data_info *info);
/* The name of class 0 <= index < classes; lives with the data. */
MIX_API const char *mix_data_class_name(const mix_data *data, int index);

#endif
