/*
 * data.h - labelled images: what is on disk.
 *
 * Three layouts are recognised by what the folder holds:
 *   IDX     train-images-idx3-ubyte[.gz] and its three companions (MNIST, Fashion-MNIST)
 *   pack    train.pack and val.pack, written by mix_data_pack() and drawn in doc/pack.md
 *   folder  train/<class>/<*>.{jpg,jpeg,png} and val/<class>/...; the class index is the rank of
 *           the class name in byte order, and both halves must have the same classes
 * IDX images have one channel and are always kept in memory, the others' images have three (gray is
 * replicated, alpha dropped). An image file is decoded by what its first bytes say, not by its
 * name; hidden files and other endings are passed over, links are followed.
 */
#ifndef METAMIX_DATA_H
#define METAMIX_DATA_H

#include <stdbool.h>

#include "metamix/context.h"

typedef struct mix_data mix_data;

typedef enum mix_split { MIX_TRAIN, MIX_VAL, MIX_SPLITS } mix_split;

/*
 * What the network sees of a byte x:
 *   auto        imagenet for three channels, symmetric for one
 *   imagenet    (x / 255 - mean) / deviation, by channel (0.485, 0.456, 0.406), (0.229, 0.224,
 *               0.225); three channels only
 *   symmetric   x / 127.5 - 1
 *   unit        x / 255
 */
#define MIX_NORMALIZE_MAP(X)                                                                       \
    X(AUTO, "auto")                                                                                \
    X(IMAGENET, "imagenet")                                                                        \
    X(SYMMETRIC, "symmetric")                                                                      \
    X(UNIT, "unit")

typedef enum mix_normalize {
#define X(name, text) MIX_NORMALIZE_##name,
    MIX_NORMALIZE_MAP(X)
#undef X
} mix_normalize;

MIX_API const char *mix_normalize_name(mix_normalize how);
/* false: no such name, and *how is untouched */
MIX_API bool mix_normalize_parse(const char *name, mix_normalize *how);

typedef struct mix_data_options {
    /* Pixels; images are brought to size x size, 0..4096. 0: the images' own size, which must be
     * square and one and the same for all. */
    int size;
    /* Evaluation with a size: the shorter side becomes resize (at least size), the longer one in
     * proportion, rounded down, and the center is cropped, as torchvision's transforms do
     * (antialiased bilinear). 0 is by rule: an image of size x size stays as it is; else
     * round(size * 256 / 224) when size > 64 and size otherwise. */
    int resize;
    int channels; /* that the images must have, 1 or 3; 0 (default): whatever they have */
    mix_normalize normalize;
    /* NULL, or (channels) each, not 0 then: the network sees (x / 255 - mean) / deviation, in place
     * of normalize, which is auto. Copied. */
    const float *mean, *deviation;
    bool skip_bad_images; /* count and leave out files that cannot be decoded; default false: the
                             first such file (by name) fails the open                     */
    size_t memory_limit;  /* bytes of decoded images of a folder kept in memory, default 4 GiB; one
                             above it is decoded again in every epoch, like a pack         */
} mix_data_options;

typedef struct mix_data_info {
    const char *path;
    int classes, channels, size; /* channels 1 or 3 */
    mix_normalize normalize;     /* auto only when mean and deviation were given */
    size_t images[MIX_SPLITS];
    size_t skipped[MIX_SPLITS]; /* bad images left out */
} mix_data_info;

MIX_API void mix_data_options_init(mix_data_options *options);

/* Finds and, but for a pack, checks every image (in parallel). Errors: MIX_EIO (missing folder or
 * file, named), MIX_EFORMAT (file, what was expected, byte offset where known), MIX_ESHAPE (size 0,
 * and images that are not square or differ: the first two are named; other channels), MIX_EINVAL
 * (options), MIX_ENOMEM. */
MIX_API MIX_CHECKED mix_status mix_data_open(mix_data **out, mix_ctx *ctx, const char *path,
                                             const mix_data_options *options);
MIX_API void mix_data_free(mix_data *data);
MIX_API void mix_data_info_get(const mix_data *data, mix_data_info *info);
/* The name of class 0 <= index < classes; lives with the data. */
MIX_API const char *mix_data_class_name(const mix_data *data, int index);
/* Whether classes are in a network's order: names (classes) are that network's, path is its own.
 * MIX_EMISMATCH: a class has another number there, so labels would be wrong; classes that merely
 * have other names get a warning in the log. */
MIX_API MIX_CHECKED mix_status mix_data_check_classes(const mix_data *data,
                                                      const char *const *names, const char *path);

/*
 * Images [first, first + n) of a half in the data set's order, as evaluation sees them: images (n,
 * size, size, channels), normalised, and labels (n) are written. In parallel. Errors: those of
 * reading and decoding, for the first bad image; MIX_EINVAL (no such images), MIX_ENOMEM.
 */
MIX_API MIX_CHECKED mix_status mix_data_read(const mix_data *data, mix_split split, size_t first,
                                             int n, float *images, int *labels);

/*
 * One JPEG or PNG file, brought to size x size and normalised as an image of a data set with these
 * options would be for evaluation; size is not 0, channels 0 is 3. With one channel a color image
 * becomes gray after it is resized, (19595 r + 38470 g + 7471 b) / 65536, ITU-R 601's luma as
 * Pillow computes it. image (size, size, channels) is written. Errors: MIX_EIO, MIX_EFORMAT (file,
 * what was expected), MIX_EINVAL (options), MIX_ENOMEM.
 */
MIX_API MIX_CHECKED mix_status mix_image_read(mix_ctx *ctx, const char *path,
                                              const mix_data_options *options, float *image);

typedef struct mix_pack_options {
    int size;             /* shorter side, 0..4096 pixels, default 256; images that are no larger,
                             and all with 0, are taken as the files that they are           */
    int quality;          /* JPEG quality of the resized ones, 1..100, default 95           */
    bool skip_bad_images; /* as above */
    void (*progress)(void *user, size_t done, size_t images); /* NULL, or called now and then */
    bool (*stop)(void *user); /* NULL, or asked now and then; true: MIX_ESTOPPED              */
    void *user;
} mix_pack_options;

typedef struct mix_pack_info {
    int classes;
    size_t images[MIX_SPLITS], resized[MIX_SPLITS], skipped[MIX_SPLITS];
    uint64_t bytes[MIX_SPLITS]; /* of the two files */
} mix_pack_info;

MIX_API void mix_pack_options_init(mix_pack_options *options);

/*
 * Writes the images of the folder (or pack) `from` once into the folder `to`, which is made when
 * missing: train.pack, then val.pack, each under its name only when it is whole. In parallel; the
 * files do not depend on the number of threads. Errors: those of mix_data_open(); MIX_EINVAL (`to`
 * holds a finished pack); MIX_EIO (disk full and the like); MIX_ESTOPPED; MIX_EUNSUPPORTED (IDX).
 */
MIX_API MIX_CHECKED mix_status mix_data_pack(mix_ctx *ctx, const char *from, const char *to,
                                             const mix_pack_options *options, mix_pack_info *info);

#endif
