/*
 * pack_write.c - a folder's images into packed halves.
 *
 * A block of images is prepared in parallel and then written in order, so the files are the same
 * for any number of threads.
 */
#include <limits.h>
#include <string.h>
#include <zlib.h>

#include "base/file.h"
#include "data/dataset.h"
#include "metamix/graph.h"

enum { BLOCK = 256 };

void mix_pack_options_init(mix_pack_options *options)
{
    *options = (mix_pack_options){ .size = 256, .quality = 95 };
}

struct packer {
    mix_ctx *ctx;
    const mix_data *data;
    const mix_pack_options *options;
    mix_pack_info *info;
    mix_split split;
    struct mix__file_writer writer;
    uint64_t offset;  /* bytes written */
    uint8_t *records; /* (images of the half, MIX__PACK_RECORD) */
    uint32_t written;
    size_t done, images; /* of both halves, for progress */
};

/* An image on its way: its file or, resized, a new one. */
struct item {
    struct mix__file file;
    uint8_t *encoded; /* NULL: the file as it is */
    size_t size;
    int height, width;
    uint32_t crc;
    mix_status status;
};

static void item_release(mix_ctx *ctx, struct item *item)
{
    mix__file_release(ctx, &item->file);
    mix__free(ctx, item->encoded);
    item->encoded = NULL;
}

static const uint8_t *item_bytes(const struct item *item)
{
    return item->encoded ? item->encoded : item->file.source.bytes;
}

/* Decodes in any case: a bad image is not to be packed. */
static mix_status prepare_pixels(const struct packer *p, struct item *item)
{
    const int shorter = p->options->size ? p->options->size : INT_MAX;
    const struct mix__view view = mix__view_shorter(item->height, item->width, shorter);
    const bool kept = view.window.height == item->height && view.window.width == item->width;
    struct mix__image image;
    MIX_TRY(
        mix__image_decode(p->ctx, &item->file.source, kept ? 8 : mix__view_shrink(&view), &image));
    mix_status status = MIX_OK;
    if (!kept && (status = mix__image_view(p->ctx, &image, &view)) == MIX_OK) {
        item->height = image.height;
        item->width = image.width;
        status =
            mix__image_encode(p->ctx, &image, p->options->quality, &item->encoded, &item->size);
    }
    mix__image_release(p->ctx, &image);
    return status;
}

static mix_status prepare(const struct packer *p, size_t index, struct item *item)
{
    MIX_TRY(mix__data_file(p->data, p->split, index, &item->file));
    item->size = item->file.source.size;
    MIX_TRY(mix__source_size(p->ctx, &item->file.source, &item->height, &item->width));
    MIX_TRY(prepare_pixels(p, item));
    if (item->size > UINT32_MAX)
        return mix__fail(p->ctx, MIX_EUNSUPPORTED, "%s: %zu bytes, at most 4 GiB can be packed",
                         item->file.name, item->size);
    item->crc = (uint32_t)crc32(0, item_bytes(item), (uInt)item->size);
    return MIX_OK;
}

static mix_status write_item(struct packer *p, size_t index, const struct item *item)
{
    const struct mix__pack_record record = {
        .offset = p->offset,
        .bytes = (uint32_t)item->size,
        .label = (uint32_t)p->data->halves[p->split].labels[index],
        .height = (uint32_t)item->height,
        .width = (uint32_t)item->width,
        .crc = item->crc,
    };
    mix__pack_put_record(p->records + (size_t)p->written++ * MIX__PACK_RECORD, &record);
    p->offset += item->size;
    p->info->resized[p->split] += item->encoded != NULL;
    return mix__file_write(&p->writer, item_bytes(item), item->size);
}

/* The first image (in file order) that failed gives the sentence, whatever the threads' order. */
static mix_status judge(struct packer *p, size_t index, struct item *item)
{
    if (item->status == MIX_EFORMAT && p->options->skip_bad_images) {
        p->info->skipped[p->split]++;
        return MIX_OK;
    }
    const mix_status status = item->status;
    item_release(p->ctx, item);
    MIX_TRY(prepare(p, index, item));
    return mix__image_changed(p->ctx, status, item->file.name);
}

static mix_status write_block(struct packer *p, size_t first, int n, struct item *items)
{
    const int threads = mix_ctx_threads(p->ctx);
    memset(items, 0, (size_t)n * sizeof *items);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int i = 0; i < n; i++)
        items[i].status = prepare(p, first + (size_t)i, &items[i]);
    mix_status status = MIX_OK;
    for (int i = 0; i < n && status == MIX_OK; i++)
        status = items[i].status == MIX_OK ? write_item(p, first + (size_t)i, &items[i])
                                           : judge(p, first + (size_t)i, &items[i]);
    for (int i = 0; i < n; i++)
        item_release(p->ctx, &items[i]);
    return status;
}

static mix_status write_names(struct packer *p, uint32_t *bytes, uint32_t *crc)
{
    for (int i = 0; i < p->data->classes; i++) {
        const char *name = p->data->class_names[i];
        const size_t size = strlen(name) + 1;
        *bytes += (uint32_t)size;
        *crc = (uint32_t)crc32(*crc, (const Bytef *)name, (uInt)size);
        MIX_TRY(mix__file_write(&p->writer, name, size));
    }
    return MIX_OK;
}

static mix_status write_index(struct packer *p)
{
    const size_t bytes = (size_t)p->written * MIX__PACK_RECORD;
    struct mix__pack_footer footer = { .index = p->offset,
                                       .images = p->written,
                                       .classes = (uint32_t)p->data->classes };
    uint8_t end[MIX__PACK_FOOTER];
    uint32_t crc = (uint32_t)crc32_z(0, p->records, bytes);
    MIX_TRY(mix__file_write(&p->writer, p->records, bytes));
    MIX_TRY(write_names(p, &footer.names, &crc));
    mix__pack_put_footer(end, &footer, crc);
    MIX_TRY(mix__file_write(&p->writer, end, sizeof end));
    p->info->images[p->split] = p->written;
    p->info->bytes[p->split] = p->offset + bytes + footer.names + sizeof end;
    return MIX_OK;
}

static mix_status write_images(struct packer *p, struct item *items)
{
    const size_t count = p->data->halves[p->split].count;
    const mix_pack_options *o = p->options;
    for (size_t first = 0; first < count; first += BLOCK) {
        const int n = count - first < BLOCK ? (int)(count - first) : BLOCK;
        MIX_TRY(write_block(p, first, n, items));
        p->done += (size_t)n;
        if (o->progress)
            o->progress(o->user, p->done, p->images);
        if (o->stop && o->stop(o->user))
            return mix__fail(p->ctx, MIX_ESTOPPED, "stopped while packing; %s",
                             p->split == MIX_TRAIN
                                 ? "nothing was kept"
                                 : "train.pack was kept, which packing again replaces");
    }
    if (p->written == 0)
        return mix__fail(p->ctx, MIX_EFORMAT, "%s: none of %zu images can be decoded",
                         p->data->path, count);
    return MIX_OK;
}

static mix_status write_file(struct packer *p, const char *path)
{
    const size_t count = p->data->halves[p->split].count;
    if (count > UINT32_MAX)
        return mix__fail(p->ctx, MIX_EUNSUPPORTED, "%s: more than %lu images", p->data->path,
                         (unsigned long)UINT32_MAX);
    struct item *items = mix__alloc(p->ctx, BLOCK, sizeof *items);
    p->records = mix__alloc(p->ctx, count, MIX__PACK_RECORD);
    p->written = 0;
    p->offset = MIX__PACK_MAGIC_SIZE;
    mix_status status =
        items && p->records ? mix__file_begin(&p->writer, p->ctx, path) : MIX_ENOMEM;
    if (status == MIX_OK) {
        if ((status = mix__file_write(&p->writer, MIX__PACK_MAGIC, MIX__PACK_MAGIC_SIZE)) ==
                MIX_OK &&
            (status = write_images(p, items)) == MIX_OK && (status = write_index(p)) == MIX_OK)
            status = mix__file_commit(&p->writer);
        mix__file_abandon(&p->writer);
    }
    mix__free(p->ctx, items);
    mix__free(p->ctx, p->records);
    return status;
}

static mix_status write_half(struct packer *p, mix_split split, const char *to)
{
    char *path = mix__path_join(p->ctx, to, mix__pack_names[split]);
    if (!path)
        return MIX_ENOMEM;
    p->split = split;
    const mix_status status = write_file(p, path);
    mix__free(p->ctx, path);
    return status;
}

/* val.pack is the last to appear. */
static mix_status check_target(mix_ctx *ctx, const char *to)
{
    char *path = mix__path_join(ctx, to, mix__pack_names[MIX_VAL]);
    if (!path)
        return MIX_ENOMEM;
    mix_status status = MIX_OK;
    if (mix__path_exists(path))
        status = mix__fail(ctx, MIX_EINVAL, "%s: a packed data set is there already", path);
    mix__free(ctx, path);
    return status;
}

static mix_status check_options(mix_ctx *ctx, const mix_pack_options *o)
{
    if (o->size < 0 || o->size > MIX_SIZE_MAX)
        return mix__fail(ctx, MIX_EINVAL, "size of %d pixels, expected 0..%d", o->size,
                         MIX_SIZE_MAX);
    if (o->quality < 1 || o->quality > 100)
        return mix__fail(ctx, MIX_EINVAL, "JPEG quality %d, expected 1..100", o->quality);
    return MIX_OK;
}

static mix_status pack(struct packer *p, const char *to)
{
    const struct mix__half *halves = p->data->halves;
    if (!halves[MIX_TRAIN].names && !halves[MIX_TRAIN].pack)
        return mix__fail(p->ctx, MIX_EUNSUPPORTED,
                         "%s: expected folders of images; IDX files are packed already",
                         p->data->path);
    p->images = halves[MIX_TRAIN].count + halves[MIX_VAL].count;
    p->info->classes = p->data->classes;
    MIX_TRY(mix__make_folder(p->ctx, to));
    for (int split = 0; split < MIX_SPLITS; split++)
        MIX_TRY(write_half(p, split, to));
    return MIX_OK;
}

mix_status mix_data_pack(mix_ctx *ctx, const char *from, const char *to,
                         const mix_pack_options *options, mix_pack_info *info)
{
    mix_data_options data_options;
    mix_data *data;
    *info = (mix_pack_info){ 0 };
    MIX_TRY(check_options(ctx, options));
    MIX_TRY(check_target(ctx, to));
    mix_data_options_init(&data_options);
    MIX_TRY(mix__data_list(&data, ctx, from, &data_options));
    struct packer packer = { .ctx = ctx, .data = data, .options = options, .info = info };
    const mix_status status = pack(&packer, to);
    mix_data_free(data);
    return status;
}
