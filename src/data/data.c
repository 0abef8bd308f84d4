/*
 * data.c - a data set whose layout is found by what its folder holds.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "data/dataset.h"

enum { SIZE_LIMIT = 4096 };

void mix_data_options_init(mix_data_options *options)
{
    *options = (mix_data_options){ .memory_limit = (size_t)4 << 30 };
}

static mix_status read_layout(mix_data *data)
{
    struct stat info;
    if (stat(data->path, &info) != 0)
        return mix__fail(data->ctx, MIX_EIO, "%s: %s", data->path, strerror(errno));
    if (!S_ISDIR(info.st_mode))
        return mix__fail(data->ctx, MIX_EIO, "%s: expected a folder", data->path);
    if (mix__idx_present(data->path))
        return mix__idx_open(data);
    if (mix__folder_present(data->path))
        return mix__folder_open(data);
    return mix__fail(data->ctx, MIX_EIO,
                     "%s: expected train-images-idx3-ubyte[.gz] and its companions, or folders "
                     "train and val; found neither",
                     data->path);
}

mix_status mix_data_open(mix_data **out, mix_ctx *ctx, const char *path,
                         const mix_data_options *options)
{
    *out = NULL;
    if (options->size < 0 || options->size > SIZE_LIMIT)
        return mix__fail(ctx, MIX_EINVAL, "image size %d, expected 0..%d pixels", options->size,
                         SIZE_LIMIT);
    mix_data *data = mix__zalloc(ctx, 1, sizeof *data);
    if (!data)
        return MIX_ENOMEM;
    data->ctx = ctx;
    data->options = *options;
    data->path = mix__strdup(ctx, path);
    const mix_status status = data->path ? read_layout(data) : MIX_ENOMEM;
    if (status != MIX_OK) {
        mix_data_free(data);
        return status;
    }
    *out = data;
    return MIX_OK;
}

void mix_data_free(mix_data *data)
{
    if (!data)
        return;
    for (int split = 0; split < MIX_SPLITS; split++) {
        struct mix__half *half = &data->halves[split];
        for (size_t i = 0; half->names && i < half->count; i++)
            mix__free(data->ctx, half->names[i]);
        mix__free(data->ctx, half->names);
        mix__free(data->ctx, half->labels);
        mix__free(data->ctx, half->pixels);
    }
    for (int i = 0; data->class_names && i < data->classes; i++)
        mix__free(data->ctx, data->class_names[i]);
    mix__free(data->ctx, data->class_names);
    mix__free(data->ctx, data->path);
    mix__free(data->ctx, data);
}

void mix_data_info_get(const mix_data *data, mix_data_info *info)
{
    *info = (mix_data_info){
        .path = data->path, .classes = data->classes, .channels = data->channels, .size = data->size
    };
    for (int split = 0; split < MIX_SPLITS; split++) {
        info->images[split] = data->halves[split].count;
        info->skipped[split] = data->halves[split].skipped;
    }
}

const char *mix_data_class_name(const mix_data *data, int index)
{
    assert(index >= 0 && index < data->classes);
    return data->class_names[index];
}

mix_status mix__data_image(const mix_data *data, mix_split split, size_t index, bool original,
                           struct mix__image *image)
{
    const struct mix__half *half = &data->halves[split];
    assert(index < half->count);
    if (half->pixels && (half->original || !original)) {
        const size_t bytes = (size_t)half->height * half->width * data->channels;
        *image = (struct mix__image){ half->pixels + index * bytes, half->height, half->width,
                                      data->channels, NULL };
    } else {
        char path[MIX__PATH_MAX];
        mix__folder_path(data, split, index, path);
        MIX_TRY(mix__image_decode(data->ctx, path, image));
    }
    if (original)
        return MIX_OK;
    const mix_status status = mix__image_fit(data->ctx, image, data->size);
    if (status != MIX_OK)
        mix__image_release(data->ctx, image);
    return status;
}
