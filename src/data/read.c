/*
 * read.c - images for those who run a network without training: of a data set, of a file.
 */
#include "base/file.h"
#include "data/dataset.h"

/* ---- of a data set ---- */

static mix_status read_one(const mix_data *data, mix_split split, size_t index, float *to)
{
    struct mix__image image;
    MIX_TRY(mix__data_image(data, split, index, NULL, &image));
    mix__image_normalise(to, &image, 0, 0, false, &data->normaliser);
    mix__image_release(data->ctx, &image);
    return MIX_OK;
}

mix_status mix_data_read(const mix_data *data, mix_split split, size_t first, int n, float *images,
                         int *labels)
{
    const struct mix__half *half = &data->halves[split];
    const size_t values = (size_t)data->size * data->size * data->channels;
    int bad = n;
    if (n < 0 || first > half->count || (size_t)n > half->count - first)
        return mix__fail(data->ctx, MIX_EINVAL, "%s: %d images from image %zu on; there are %zu",
                         data->path, n, first, half->count);
#pragma omp parallel for schedule(dynamic) num_threads(mix_ctx_threads(data->ctx))                 \
    reduction(min                                                                                  \
              : bad)
    for (int i = 0; i < n; i++) {
        labels[i] = half->labels[first + i];
        if (read_one(data, split, first + i, images + i * values) != MIX_OK)
            bad = i < bad ? i : bad;
    }
    /* Once more alone, so that the sentence is this image's. */
    return bad < n ? read_one(data, split, first + bad, images + bad * values) : MIX_OK;
}

/* ---- of a file ---- */

static mix_status read_source(mix_ctx *ctx, const struct mix__source *source,
                              const mix_data_options *o, struct mix__image *image)
{
    int height, width;
    MIX_TRY(mix__source_size(ctx, source, &height, &width));
    const struct mix__view view = mix__view_fit(height, width, o->size, o->resize);
    MIX_TRY(mix__source_view(ctx, source, &view, image));
    if (o->channels == 1)
        mix__image_gray(image);
    return MIX_OK;
}

mix_status mix_image_read(mix_ctx *ctx, const char *path, const mix_data_options *options,
                          float *to)
{
    struct mix__normaliser normaliser;
    struct mix__source source = { .name = path };
    struct mix__image image;
    char *bytes;
    MIX_TRY(mix__data_check(ctx, options));
    if (options->size == 0)
        return mix__fail(ctx, MIX_EINVAL, "%s: expected a size to bring the image to", path);
    MIX_TRY(mix__normaliser_init(&normaliser, ctx, path, options,
                                 options->channels ? options->channels : 3));
    MIX_TRY(mix__file_read(ctx, path, MIX__FILE_MAX, &bytes, &source.size));
    source.bytes = (const uint8_t *)bytes;
    const mix_status status = read_source(ctx, &source, options, &image);
    if (status == MIX_OK) {
        mix__image_normalise(to, &image, 0, 0, false, &normaliser);
        mix__image_release(ctx, &image);
    }
    mix__free(ctx, bytes);
    return status;
}
