/*
 * data/dataset.h - the inside of mix_data, filled by the reader of a layout.
 */
#ifndef METAMIX_DATA_DATASET_H
#define METAMIX_DATA_DATASET_H

#include "data/image.h"
#include "metamix/data.h"

/* Longest path of an image, with its zero byte. */
enum { MIX__PATH_MAX = 4096 };

struct mix__half {
    size_t count, skipped;
    int *labels;     /* (count) */
    char **names;    /* folder layout: (count) file names inside their class; else NULL */
    uint8_t *pixels; /* (count, height, width, channels); NULL: decoded at every use */
    int height, width;
    bool original; /* pixels are as in the file, not brought to the evaluation geometry */
};

struct mix_data {
    mix_ctx *ctx;
    char *path;
    mix_data_options options;
    int classes, channels, size;
    char **class_names; /* (classes) */
    struct mix__half halves[MIX_SPLITS];
};

bool mix__idx_present(const char *path);
MIX_CHECKED mix_status mix__idx_open(mix_data *data);

bool mix__folder_present(const char *path);
MIX_CHECKED mix_status mix__folder_open(mix_data *data);
/* Folder layout: the image's path. */
void mix__folder_path(const mix_data *data, mix_split split, size_t index,
                      char path[MIX__PATH_MAX]);

/* One image, as in its file or at the evaluation geometry (size,size,channels); release it with
 * mix__image_release(). Any thread. */
MIX_CHECKED mix_status mix__data_image(const mix_data *data, mix_split split, size_t index,
                                       bool original, struct mix__image *image);

#endif
