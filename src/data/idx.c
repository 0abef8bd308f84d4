/*
 * idx.c - the IDX files of MNIST and its kin, plain or gzipped.
 *
 *     byte   0    1    2    3     4..7        8..11      12..15     then
 *          +----+----+----+----+-----------+----------+----------+---------
 *          | 0  | 0  | 08 | r  | count     | height   | width    | bytes...
 *          +----+----+----+----+-----------+----------+----------+---------
 *
 * 08 means unsigned bytes, r is 3 for images and 1 for labels (which have the count alone).
 * Sizes are big-endian. Nothing is allocated before the file is known to be able to hold it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <zlib.h>

#include "base/file.h"
#include "data/dataset.h"

enum { READ_CHUNK = 1 << 30 };

struct idx {
    mix_ctx *ctx;
    char path[MIX__PATH_MAX];
    gzFile file;
    uint64_t capacity; /* bytes that the file can hold once inflated */
    int rank;
    uint32_t sizes[3];
    uint64_t total; /* product of sizes */
};

static const char *const half_names[MIX_SPLITS] = { "train", "t10k" };

/* The file as it is, else gzipped. */
static bool find(const char *folder, const char *half, int rank, char path[MIX__PATH_MAX])
{
    const int n = snprintf(path, MIX__PATH_MAX, "%s/%s-%s-idx%d-ubyte", folder, half,
                           rank == 3 ? "images" : "labels", rank);
    if (n < 0 || n >= MIX__PATH_MAX - 3)
        return false;
    if (mix__path_exists(path))
        return true;
    strcpy(path + n, ".gz");
    return mix__path_exists(path);
}

bool mix__idx_present(const char *path)
{
    char name[MIX__PATH_MAX];
    for (int split = 0; split < MIX_SPLITS; split++)
        if (find(path, half_names[split], 3, name) || find(path, half_names[split], 1, name))
            return true;
    return false;
}

static mix_status read_bytes(struct idx *idx, uint8_t *bytes, uint64_t n, uint64_t offset)
{
    for (uint64_t done = 0; done < n;) {
        const unsigned want = n - done < READ_CHUNK ? (unsigned)(n - done) : READ_CHUNK;
        const int got = gzread(idx->file, bytes + done, want);
        if (got <= 0) {
            int error;
            const char *text = gzerror(idx->file, &error);
            return mix__fail(idx->ctx, MIX_EFORMAT,
                             "%s: expected %llu bytes, the data end at byte %llu%s%s", idx->path,
                             (unsigned long long)(offset + n), (unsigned long long)(offset + done),
                             error ? ": " : "", error ? text : "");
        }
        done += got;
    }
    return MIX_OK;
}

static mix_status read_header(struct idx *idx)
{
    uint8_t header[16];
    const int n = 4 + 4 * idx->rank;
    MIX_TRY(read_bytes(idx, header, n, 0));
    if (header[0] || header[1] || header[2] != 8 || header[3] != idx->rank)
        return mix__fail(idx->ctx, MIX_EFORMAT,
                         "%s: expected 00 00 08 %02x at byte 0, found %02x %02x %02x %02x",
                         idx->path, idx->rank, header[0], header[1], header[2], header[3]);
    idx->total = 1;
    for (int i = 0; i < idx->rank; i++) {
        const uint8_t *b = header + 4 + 4 * i;
        idx->sizes[i] = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
        if (idx->sizes[i] == 0 || (i > 0 && idx->sizes[i] > MIX__SIDE_MAX))
            return mix__fail(idx->ctx, MIX_EFORMAT, "%s: %s %lu at byte %d, expected 1..%lu",
                             idx->path,
                             i == 0   ? "count"
                             : i == 1 ? "height"
                                      : "width",
                             (unsigned long)idx->sizes[i], 4 + 4 * i,
                             (unsigned long)(i == 0 ? UINT32_MAX : MIX__SIDE_MAX));
        idx->total *= idx->sizes[i]; /* below 2^64: 2^32 * 2^16 * 2^16 */
    }
    /* A plain file holds exactly this; a gzipped one is checked at its end. */
    const bool plain = gzdirect(idx->file);
    if (idx->total + n > idx->capacity || (plain && idx->total + n != idx->capacity))
        return mix__fail(idx->ctx, MIX_EFORMAT,
                         "%s: its header promises %llu bytes, the file %s %llu", idx->path,
                         (unsigned long long)idx->total + n, plain ? "has" : "can hold at most",
                         (unsigned long long)idx->capacity);
    return MIX_OK;
}

static mix_status read_body(struct idx *idx, uint8_t *bytes)
{
    const uint64_t n = 4 + 4 * (uint64_t)idx->rank;
    MIX_TRY(read_bytes(idx, bytes, idx->total, n));
    uint8_t more;
    int error;
    const int got = gzread(idx->file, &more, 1);
    const char *text = gzerror(idx->file, &error);
    if (got > 0)
        return mix__fail(idx->ctx, MIX_EFORMAT, "%s: expected its end at byte %llu, found more",
                         idx->path, (unsigned long long)(idx->total + n));
    if (got < 0 || error != Z_OK)
        return mix__fail(idx->ctx, MIX_EFORMAT, "%s: %s behind byte %llu", idx->path, text,
                         (unsigned long long)(idx->total + n));
    return MIX_OK;
}

static mix_status open_file(struct idx *idx)
{
    struct stat info;
    if (stat(idx->path, &info) != 0)
        return mix__fail(idx->ctx, MIX_EIO, "%s: %s", idx->path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return mix__fail(idx->ctx, MIX_EIO, "%s: expected a file", idx->path);
    idx->file = gzopen(idx->path, "rb");
    if (!idx->file)
        return mix__fail(idx->ctx, MIX_EIO, "%s: %s", idx->path,
                         errno ? strerror(errno) : "no memory to open it");
    idx->capacity = (uint64_t)info.st_size * (gzdirect(idx->file) ? 1 : MIX__DEFLATE_RATIO);
    return MIX_OK;
}

/* *bytes belongs to the caller, also after a failure. */
static mix_status read_idx(struct idx *idx, uint8_t **bytes)
{
    MIX_TRY(open_file(idx));
    MIX_TRY(read_header(idx));
    *bytes = mix__alloc(idx->ctx, idx->total, 1);
    return *bytes ? read_body(idx, *bytes) : MIX_ENOMEM;
}

static mix_status read_named(mix_data *data, mix_split split, struct idx *idx, uint8_t **bytes)
{
    idx->ctx = data->ctx;
    if (!find(data->path, half_names[split], idx->rank, idx->path))
        return mix__fail(data->ctx, MIX_EIO, "%s/%s-%s-idx%d-ubyte[.gz]: not found", data->path,
                         half_names[split], idx->rank == 3 ? "images" : "labels", idx->rank);
    const mix_status status = read_idx(idx, bytes);
    if (idx->file)
        gzclose(idx->file);
    idx->file = NULL;
    return status;
}

static mix_status keep_labels(mix_data *data, mix_split split, const uint8_t *bytes,
                              const char *path)
{
    struct mix__half *half = &data->halves[split];
    half->labels = mix__alloc(data->ctx, half->count, sizeof *half->labels);
    if (!half->labels)
        return MIX_ENOMEM;
    for (size_t i = 0; i < half->count; i++) {
        half->labels[i] = bytes[i];
        if (split == MIX_TRAIN && bytes[i] >= data->classes)
            data->classes = bytes[i] + 1;
        if (bytes[i] >= data->classes)
            return mix__fail(data->ctx, MIX_EFORMAT,
                             "%s: label %d at byte %zu, expected 0..%d as in the training labels",
                             path, bytes[i], 8 + i, data->classes - 1);
    }
    return MIX_OK;
}

static mix_status read_half(mix_data *data, mix_split split)
{
    struct mix__half *half = &data->halves[split];
    struct idx images = { .rank = 3 }, labels = { .rank = 1 };
    uint8_t *bytes = NULL;
    MIX_TRY(read_named(data, split, &images, &half->pixels));
    half->count = images.sizes[0];
    half->height = (int)images.sizes[1];
    half->width = (int)images.sizes[2];
    half->original = true;
    mix_status status = read_named(data, split, &labels, &bytes);
    if (status == MIX_OK && labels.sizes[0] != images.sizes[0])
        status =
            mix__fail(data->ctx, MIX_EFORMAT, "%s: %lu labels, but %s has %lu images", labels.path,
                      (unsigned long)labels.sizes[0], images.path, (unsigned long)images.sizes[0]);
    if (status == MIX_OK)
        status = keep_labels(data, split, bytes, labels.path);
    mix__free(data->ctx, bytes);
    return status;
}

static mix_status name_classes(mix_data *data)
{
    data->class_names = mix__zalloc(data->ctx, data->classes, sizeof *data->class_names);
    if (!data->class_names)
        return MIX_ENOMEM;
    for (int i = 0; i < data->classes; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        data->class_names[i] = mix__strdup(data->ctx, name);
        if (!data->class_names[i])
            return MIX_ENOMEM;
    }
    return MIX_OK;
}

mix_status mix__idx_open(mix_data *data)
{
    data->channels = 1;
    for (int split = 0; split < MIX_SPLITS; split++)
        MIX_TRY(read_half(data, split));
    const struct mix__half *train = &data->halves[MIX_TRAIN], *val = &data->halves[MIX_VAL];
    data->size = data->options.size ? data->options.size : train->height;
    if (data->options.size == 0 &&
        (train->width != train->height || val->height != data->size || val->width != data->size))
        return mix__fail(data->ctx, MIX_ESHAPE,
                         "%s: training images are %d x %d pixels, validation images %d x %d: give "
                         "the size to bring them to, or square images of one size",
                         data->path, train->width, train->height, val->width, val->height);
    return name_classes(data);
}
