/*
 * data.c - a data set whose layout is found by what its folder holds.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "data/dataset.h"
#include "metamix/graph.h"

void mix_data_options_init(mix_data_options *options)
{
    *options = (mix_data_options){ .memory_limit = (size_t)4 << 30 };
}

static const char *const normalize_names[] = {
#define X(name, text) text,
    MIX_NORMALIZE_MAP(X)
#undef X
};

const char *mix_normalize_name(mix_normalize how)
{
    assert(how >= 0 && how < MIX_COUNT(normalize_names));
    return normalize_names[how];
}

bool mix_normalize_parse(const char *name, mix_normalize *how)
{
    const int index = mix__text_index(name, normalize_names, MIX_COUNT(normalize_names));
    if (index >= 0)
        *how = (mix_normalize)index;
    return index >= 0;
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
    if (mix__packs_present(data->path))
        return mix__packs_open(data);
    if (mix__folder_present(data->path))
        return mix__folder_open(data);
    return mix__fail(data->ctx, MIX_EIO,
                     "%s: expected train-images-idx3-ubyte[.gz] and its companions, or folders "
                     "train and val, or train.pack and val.pack; found none of them",
                     data->path);
}

mix_status mix__data_check(mix_ctx *ctx, const mix_data_options *o)
{
    if (o->size < 0 || o->size > MIX_SIZE_MAX)
        return mix__fail(ctx, MIX_EINVAL, "image size %d, expected 0..%d pixels", o->size,
                         MIX_SIZE_MAX);
    if (o->resize != 0 && (o->size == 0 || o->resize < o->size || o->resize > MIX_SIZE_MAX))
        return mix__fail(ctx, MIX_EINVAL,
                         "images resized to %d and cropped to %d, expected 0 or %d..%d pixels and "
                         "an image size",
                         o->resize, o->size, o->size, MIX_SIZE_MAX);
    if ((unsigned)o->normalize >= MIX_COUNT(normalize_names))
        return mix__fail(ctx, MIX_EINVAL, "normalisation number %d, expected 0..%zu",
                         (int)o->normalize, MIX_COUNT(normalize_names) - 1);
    if (o->channels != 0 && o->channels != 1 && o->channels != 3)
        return mix__fail(ctx, MIX_EINVAL, "images of %d channels, expected 1 or 3, or 0 for any",
                         o->channels);
    return MIX_OK;
}

static mix_status choose_normalisation(mix_data *data)
{
    const int wanted = data->options.channels;
    if (wanted && wanted != data->channels)
        return mix__fail(data->ctx, MIX_ESHAPE, "%s: the images have %d channels, expected %d",
                         data->path, data->channels, wanted);
    return mix__normaliser_init(&data->normaliser, data->ctx, data->path, &data->options,
                                data->channels);
}

static mix_status open_data(mix_data **out, mix_ctx *ctx, const char *path,
                            const mix_data_options *options, bool unchecked)
{
    *out = NULL;
    MIX_TRY(mix__data_check(ctx, options));
    mix_data *data = mix__zalloc(ctx, 1, sizeof *data);
    if (!data)
        return MIX_ENOMEM;
    data->ctx = ctx;
    data->options = *options;
    data->unchecked = unchecked;
    data->path = mix__strdup(ctx, path);
    mix_status status = data->path ? read_layout(data) : MIX_ENOMEM;
    if (status == MIX_OK)
        status = choose_normalisation(data);
    data->options.mean = data->options.deviation = NULL; /* the caller's */
    if (status != MIX_OK) {
        mix_data_free(data);
        return status;
    }
    *out = data;
    return MIX_OK;
}

mix_status mix_data_open(mix_data **out, mix_ctx *ctx, const char *path,
                         const mix_data_options *options)
{
    return open_data(out, ctx, path, options, false);
}

mix_status mix__data_list(mix_data **out, mix_ctx *ctx, const char *path,
                          const mix_data_options *options)
{
    return open_data(out, ctx, path, options, true);
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
        mix__pack_close(half->pack);
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
        .path = data->path,
        .classes = data->classes,
        .channels = data->channels,
        .size = data->size,
        .normalize = data->normaliser.how,
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

mix_status mix__image_changed(mix_ctx *ctx, mix_status status, const char *path)
{
    if (status == MIX_ENOMEM)
        return mix__fail(ctx, MIX_ENOMEM, "%s: out of memory while it was read", path);
    return mix__fail(ctx, MIX_EIO, "%s: changed while it was read", path);
}

static int find(const char *name, const char *const *names, int n)
{
    int i = 0;
    while (i < n && strcmp(names[i], name) != 0)
        i++;
    return i < n ? i : -1;
}

mix_status mix_data_check_classes(const mix_data *data, const char *const *names, const char *path)
{
    enum { LOOKED_AT = 64 };
    int first = -1, differ = 0;
    for (int i = 0; i < data->classes && differ < LOOKED_AT; i++) {
        const char *own = mix_data_class_name(data, i);
        if (strcmp(own, names[i]) == 0)
            continue;
        const int there = find(own, names, data->classes);
        if (there >= 0)
            return mix__fail(
                data->ctx, MIX_EMISMATCH,
                "%s: class \"%s\" is number %d of the sorted names; in %s it is number "
                "%d, and number %d is \"%s\"",
                data->path, own, i, path, there, i, names[i]);
        first = differ++ == 0 ? i : first;
    }
    if (differ)
        mix__log(data->ctx, MIX_LOG_WARNING, "%s: class %d is \"%s\"; in %s it is \"%s\"",
                 data->path, first, mix_data_class_name(data, first), path, names[first]);
    return MIX_OK;
}
