/*
 * sample.c - one image of a data set, from memory or its file, as a batch wants it.
 */
#include <assert.h>
#include <stdio.h>

#include "base/file.h"
#include "data/dataset.h"

mix_status mix__data_file(const mix_data *data, mix_split split, size_t index,
                          struct mix__file *file)
{
    const struct mix__half *half = &data->halves[split];
    struct mix__source *source = &file->source;
    assert(index < half->count);
    file->owned = NULL;
    source->name = file->name;
    if (half->pack) {
        snprintf(file->name, sizeof file->name, "%s: image %zu", half->pack->path, index);
        return mix__pack_image(half->pack, index, &source->bytes, &source->size);
    }
    mix__folder_path(data, split, index, file->name);
    MIX_TRY(mix__file_read(data->ctx, file->name, MIX__FILE_MAX, &file->owned, &source->size));
    source->bytes = (const uint8_t *)file->owned;
    return MIX_OK;
}

void mix__file_release(mix_ctx *ctx, struct mix__file *file)
{
    mix__free(ctx, file->owned);
    file->owned = NULL;
}

static struct mix__view choose_view(const mix_data *data, int height, int width,
                                    const struct mix__draws *draws)
{
    if (draws)
        return mix__view_crop(mix__draw_box(draws, height, width), data->size);
    return mix__view_fit(height, width, data->size, data->options.resize);
}

mix_status mix__source_view(mix_ctx *ctx, const struct mix__source *source,
                            const struct mix__view *view, struct mix__image *image)
{
    MIX_TRY(mix__image_decode(ctx, source, mix__view_shrink(view), image));
    const mix_status status = mix__image_view(ctx, image, view);
    if (status != MIX_OK)
        mix__image_release(ctx, image);
    return status;
}

static mix_status decode_view(const mix_data *data, const struct mix__source *source,
                              const struct mix__draws *draws, struct mix__image *image)
{
    int height, width;
    MIX_TRY(mix__source_size(data->ctx, source, &height, &width));
    const struct mix__view view = choose_view(data, height, width, draws);
    return mix__source_view(data->ctx, source, &view, image);
}

mix_status mix__data_image(const mix_data *data, mix_split split, size_t index,
                           const struct mix__draws *draws, struct mix__image *image)
{
    const struct mix__half *half = &data->halves[split];
    assert(index < half->count);
    if (half->pixels && (half->original || !draws)) {
        const size_t bytes = (size_t)half->height * half->width * data->channels;
        *image = (struct mix__image){
            half->pixels + index * bytes, half->height, half->width, data->channels, NULL, 1
        };
        if (!half->original)
            return MIX_OK;
        const struct mix__view view = choose_view(data, half->height, half->width, draws);
        return mix__image_view(data->ctx, image, &view);
    }
    struct mix__file file;
    mix_status status = mix__data_file(data, split, index, &file);
    if (status == MIX_OK)
        status = decode_view(data, &file.source, draws, image);
    mix__file_release(data->ctx, &file);
    return status;
}
