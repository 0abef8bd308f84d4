/*
 * data/dataset.h - the inside of mix_data, filled by the reader of a layout.
 */
#ifndef METAMIX_DATA_DATASET_H
#define METAMIX_DATA_DATASET_H

#include "data/image.h"
#include "data/pack.h"

/* Longest path of an image, with its zero byte. */
enum { MIX__PATH_MAX = 4096 };
/* Largest file of an image, bytes. */
#define MIX__FILE_MAX ((size_t)1 << 30)

struct mix__half {
    size_t count, skipped;
    int *labels;     /* (count) */
    char **names;    /* folder layout: (count) file names inside their class; else NULL */
    uint8_t *pixels; /* (count, height, width, channels); NULL: decoded at every use */
    int height, width;
    bool original;          /* pixels are as in the file, not brought to the evaluation geometry */
    struct mix__pack *pack; /* pack layout; else NULL */
};

struct mix_data {
    mix_ctx *ctx;
    char *path;
    mix_data_options options;
    bool unchecked; /* a folder's images are listed only: to be packed */
    int classes, channels, size;
    struct mix__normaliser normaliser;
    char **class_names; /* (classes) */
    struct mix__half halves[MIX_SPLITS];
};

/* Sizes and channels. MIX_EINVAL. */
MIX_CHECKED mix_status mix__data_check(mix_ctx *ctx, const mix_data_options *options);

/* mix_data_open() without its checks of the images of a folder. */
MIX_CHECKED mix_status mix__data_list(mix_data **out, mix_ctx *ctx, const char *path,
                                      const mix_data_options *options);

bool mix__idx_present(const char *path);
MIX_CHECKED mix_status mix__idx_open(mix_data *data);

bool mix__packs_present(const char *path);
MIX_CHECKED mix_status mix__packs_open(mix_data *data);

/* The sentence for an image that could not be read and then, asked for why, could. */
mix_status mix__image_changed(mix_ctx *ctx, mix_status status, const char *path) MIX_CHECKED;

bool mix__folder_present(const char *path);
MIX_CHECKED mix_status mix__folder_open(mix_data *data);
/* Folder layout: the image's path. */
void mix__folder_path(const mix_data *data, mix_split split, size_t index,
                      char path[MIX__PATH_MAX]);

/* An image's file, read or mapped; release it with mix__file_release(). Folder and pack layout, any
 * thread. */
struct mix__file {
    struct mix__source source;
    char *owned; /* its bytes when they were read, else NULL */
    char name[MIX__PATH_MAX];
};
MIX_CHECKED mix_status mix__data_file(const mix_data *data, mix_split split, size_t index,
                                      struct mix__file *file);
void mix__file_release(mix_ctx *ctx, struct mix__file *file);

/* One image (size,size,channels): at the evaluation geometry, or with draws RandomResizedCrop's
 * box of it; release it with mix__image_release(). Any thread. */
MIX_CHECKED mix_status mix__data_image(const mix_data *data, mix_split split, size_t index,
                                       const struct mix__draws *draws, struct mix__image *image);

#endif
