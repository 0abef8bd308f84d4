/*
 * pack.c - reading of packed halves. Nothing in a file is believed before it is checked.
 */
#include "data/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/bytes.h"
#include "base/file.h"
#include "data/dataset.h"

const char *const mix__pack_names[MIX_SPLITS] = { "train.pack", "val.pack" };

/* ---- numbers ---- */

static uint8_t *put(uint8_t *to, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        *to++ = (uint8_t)(value >> 8 * i);
    return to;
}

static uint64_t get(const uint8_t **from, int bytes)
{
    const uint64_t value = mix__number(*from, (size_t)bytes);
    *from += bytes;
    return value;
}

void mix__pack_put_record(uint8_t to[MIX__PACK_RECORD], const struct mix__pack_record *r)
{
    to = put(to, r->offset, 8);
    const uint32_t rest[] = { r->bytes, r->label, r->height, r->width, r->crc, 0 };
    for (size_t i = 0; i < MIX_COUNT(rest); i++)
        to = put(to, rest[i], 4);
}

void mix__pack_put_footer(uint8_t to[MIX__PACK_FOOTER], const struct mix__pack_footer *f,
                          uint32_t crc)
{
    uint8_t *at = put(to, f->index, 8);
    at = put(at, f->images, 4);
    at = put(at, f->classes, 4);
    at = put(at, f->names, 4);
    at = put(at, crc32(crc, to, (uInt)(at - to)), 4);
    memcpy(at, MIX__PACK_MAGIC, MIX__PACK_MAGIC_SIZE);
}

struct mix__pack_record mix__pack_record(const struct mix__pack *pack, size_t index)
{
    const uint8_t *at = pack->map + pack->footer.index + index * MIX__PACK_RECORD;
    struct mix__pack_record r = { .offset = get(&at, 8) };
    uint32_t *const rest[] = { &r.bytes, &r.label, &r.height, &r.width, &r.crc };
    for (size_t i = 0; i < MIX_COUNT(rest); i++)
        *rest[i] = (uint32_t)get(&at, 4);
    return r;
}

/* ---- one file ---- */

static mix_status map_file(struct mix__pack *p)
{
    struct stat info;
    const int fd = open(p->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return mix__fail(p->ctx, MIX_EIO, "%s: cannot open: %s", p->path, strerror(errno));
    const bool regular = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
    void *map = MAP_FAILED;
    int error = EINVAL;
    if (regular && info.st_size > 0) {
        map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
        error = errno;
    }
    close(fd);
    if (!regular)
        return mix__fail(p->ctx, MIX_EIO, "%s: expected a file", p->path);
    if (info.st_size < MIX__PACK_MAGIC_SIZE + MIX__PACK_FOOTER)
        return mix__fail(p->ctx, MIX_EFORMAT, "%s: expected a pack, found a file of %lld bytes",
                         p->path, (long long)info.st_size);
    if (map == MAP_FAILED)
        return mix__fail(p->ctx, MIX_EIO, "%s: cannot be mapped: %s", p->path, strerror(error));
    p->map = map;
    p->size = (size_t)info.st_size;
    return MIX_OK;
}

static mix_status read_footer(struct mix__pack *p)
{
    const uint8_t *at = p->map + p->size - MIX__PACK_FOOTER;
    const uint8_t *end = p->map + p->size - MIX__PACK_MAGIC_SIZE;
    if (memcmp(p->map, MIX__PACK_MAGIC, MIX__PACK_MAGIC_SIZE) != 0)
        return mix__fail(p->ctx, MIX_EFORMAT, "%s: expected '%s' at byte 0: no pack", p->path,
                         MIX__PACK_MAGIC);
    if (memcmp(end, MIX__PACK_MAGIC, MIX__PACK_MAGIC_SIZE) != 0)
        return mix__fail(p->ctx, MIX_EFORMAT,
                         "%s: expected '%s' at its end, byte %zu: the file is not whole", p->path,
                         MIX__PACK_MAGIC, p->size - MIX__PACK_MAGIC_SIZE);
    struct mix__pack_footer *f = &p->footer;
    f->index = get(&at, 8);
    f->images = (uint32_t)get(&at, 4);
    f->classes = (uint32_t)get(&at, 4);
    f->names = (uint32_t)get(&at, 4);
    const uint64_t room = p->size - MIX__PACK_FOOTER;
    if (f->index < MIX__PACK_MAGIC_SIZE || f->index > room || f->images == 0 ||
        (uint64_t)f->images * MIX__PACK_RECORD + f->names != room - f->index)
        return mix__fail(p->ctx, MIX_EFORMAT,
                         "%s: its end promises %lu images, %lu bytes of names and the index at "
                         "byte %llu, which a file of %zu bytes cannot hold",
                         p->path, (unsigned long)f->images, (unsigned long)f->names,
                         (unsigned long long)f->index, p->size);
    const uint32_t crc = (uint32_t)crc32_z(0, p->map + f->index, at - p->map - f->index);
    const uint32_t expected = (uint32_t)get(&at, 4);
    if (crc != expected)
        return mix__fail(p->ctx, MIX_EFORMAT,
                         "%s: the index at byte %llu is damaged: its checksum is %08lx, expected "
                         "%08lx",
                         p->path, (unsigned long long)f->index, (unsigned long)crc,
                         (unsigned long)expected);
    p->names = (const char *)p->map + f->index + (uint64_t)f->images * MIX__PACK_RECORD;
    return MIX_OK;
}

static mix_status check_names(const struct mix__pack *p)
{
    uint32_t zeros = 0;
    bool good = p->footer.names > 0 && p->names[p->footer.names - 1] == '\0';
    for (uint32_t i = 0; i < p->footer.names; i++) {
        if (p->names[i])
            continue;
        zeros++;
        good = good && i > 0 && p->names[i - 1] != '\0';
    }
    if (good && zeros == p->footer.classes && zeros <= INT32_MAX)
        return MIX_OK;
    return mix__fail(p->ctx, MIX_EFORMAT, "%s: expected the names of %lu classes at byte %zu",
                     p->path, (unsigned long)p->footer.classes,
                     (size_t)((const uint8_t *)p->names - p->map));
}

static mix_status check_records(const struct mix__pack *p)
{
    for (size_t i = 0; i < p->footer.images; i++) {
        const struct mix__pack_record r = mix__pack_record(p, i);
        if (r.offset < MIX__PACK_MAGIC_SIZE || r.offset > p->footer.index || r.bytes == 0 ||
            r.bytes > p->footer.index - r.offset || r.label >= p->footer.classes || r.height == 0 ||
            r.height > MIX__SIDE_MAX || r.width == 0 || r.width > MIX__SIDE_MAX)
            return mix__fail(
                p->ctx, MIX_EFORMAT,
                "%s: record %zu at byte %llu: %lu bytes at byte %llu, class %lu, %lu x "
                "%lu pixels, which cannot be",
                p->path, i, (unsigned long long)p->footer.index + i * MIX__PACK_RECORD,
                (unsigned long)r.bytes, (unsigned long long)r.offset, (unsigned long)r.label,
                (unsigned long)r.width, (unsigned long)r.height);
    }
    return MIX_OK;
}

static mix_status open_file(struct mix__pack *p, const char *path)
{
    if (!(p->path = mix__strdup(p->ctx, path)))
        return MIX_ENOMEM;
    MIX_TRY(map_file(p));
    MIX_TRY(read_footer(p));
    MIX_TRY(check_names(p));
    return check_records(p);
}

mix_status mix__pack_open(struct mix__pack **out, mix_ctx *ctx, const char *path)
{
    *out = NULL;
    struct mix__pack *p = mix__zalloc(ctx, 1, sizeof *p);
    if (!p)
        return MIX_ENOMEM;
    p->ctx = ctx;
    const mix_status status = open_file(p, path);
    if (status != MIX_OK)
        mix__pack_close(p);
    else
        *out = p;
    return status;
}

void mix__pack_close(struct mix__pack *p)
{
    if (!p)
        return;
    if (p->map)
        munmap((void *)(uintptr_t)p->map, p->size);
    mix__free(p->ctx, p->path);
    mix__free(p->ctx, p);
}

/* One read of the disk instead of one for every page. */
static void read_ahead(const uint8_t *bytes, size_t size)
{
    const size_t before = (uintptr_t)bytes % (size_t)sysconf(_SC_PAGESIZE);
    const int failed =
        posix_madvise((void *)(uintptr_t)(bytes - before), size + before, POSIX_MADV_WILLNEED);
    (void)failed; /* only an advice */
}

mix_status mix__pack_image(const struct mix__pack *p, size_t index, const uint8_t **bytes,
                           size_t *size)
{
    const struct mix__pack_record r = mix__pack_record(p, index);
    *bytes = p->map + r.offset;
    *size = r.bytes;
    read_ahead(*bytes, *size);
    const uint32_t crc = (uint32_t)crc32(0, *bytes, r.bytes);
    if (crc == r.crc)
        return MIX_OK;
    return mix__fail(p->ctx, MIX_EFORMAT,
                     "%s: image %zu (%lu bytes at byte %llu) is damaged: its checksum is %08lx, "
                     "expected %08lx",
                     p->path, index, (unsigned long)r.bytes, (unsigned long long)r.offset,
                     (unsigned long)crc, (unsigned long)r.crc);
}

/* ---- a data set of two files ---- */

bool mix__packs_present(const char *path)
{
    char name[MIX__PATH_MAX];
    for (int split = 0; split < MIX_SPLITS; split++) {
        const int n = snprintf(name, sizeof name, "%s/%s", path, mix__pack_names[split]);
        if (n > 0 && n < MIX__PATH_MAX && mix__path_exists(name))
            return true;
    }
    return false;
}

static mix_status open_half(mix_data *data, mix_split split)
{
    struct mix__half *half = &data->halves[split];
    char *path = mix__path_join(data->ctx, data->path, mix__pack_names[split]);
    if (!path)
        return MIX_ENOMEM;
    mix_status status;
    if (mix__path_exists(path))
        status = mix__pack_open(&half->pack, data->ctx, path);
    else
        status = mix__fail(data->ctx, MIX_EIO,
                           "%s is missing: the packing was not finished, start it again", path);
    mix__free(data->ctx, path);
    MIX_TRY(status);
    half->count = half->pack->footer.images;
    half->labels = mix__alloc(data->ctx, half->count, sizeof *half->labels);
    if (!half->labels)
        return MIX_ENOMEM;
    for (size_t i = 0; i < half->count; i++)
        half->labels[i] = (int)mix__pack_record(half->pack, i).label;
    return MIX_OK;
}

static mix_status take_classes(mix_data *data)
{
    const struct mix__pack *train = data->halves[MIX_TRAIN].pack, *val = data->halves[MIX_VAL].pack;
    if (train->footer.names != val->footer.names ||
        memcmp(train->names, val->names, val->footer.names) != 0)
        return mix__fail(data->ctx, MIX_EFORMAT, "%s and %s have different classes", train->path,
                         val->path);
    const char *name = train->names;
    const int classes = (int)train->footer.classes;
    data->class_names = mix__zalloc(data->ctx, classes, sizeof *data->class_names);
    if (!data->class_names)
        return MIX_ENOMEM;
    for (; data->classes < classes; data->classes++, name += strlen(name) + 1)
        if (!(data->class_names[data->classes] = mix__strdup(data->ctx, name)))
            return MIX_ENOMEM;
    return MIX_OK;
}

/* Without a size asked for, all images must be squares of one. */
static mix_status take_size(mix_data *data)
{
    const struct mix__pack_record first = mix__pack_record(data->halves[MIX_TRAIN].pack, 0);
    data->size = data->options.size ? data->options.size : (int)first.height;
    for (int split = 0; split < MIX_SPLITS && !data->options.size; split++)
        for (size_t i = 0; i < data->halves[split].count; i++) {
            const struct mix__pack *p = data->halves[split].pack;
            const struct mix__pack_record r = mix__pack_record(p, i);
            if (r.height != first.height || r.width != first.height)
                return mix__fail(
                    data->ctx, MIX_ESHAPE,
                    "%s: image 0 is %lu x %lu pixels and image %zu of %s %lu x %lu: "
                    "images that are not squares of one size need an image size to bring "
                    "them to",
                    data->halves[MIX_TRAIN].pack->path, (unsigned long)first.width,
                    (unsigned long)first.height, i, p->path, (unsigned long)r.width,
                    (unsigned long)r.height);
        }
    return MIX_OK;
}

mix_status mix__packs_open(mix_data *data)
{
    data->channels = 3;
    for (int split = 0; split < MIX_SPLITS; split++)
        MIX_TRY(open_half(data, split));
    MIX_TRY(take_classes(data));
    return data->unchecked ? MIX_OK : take_size(data);
}
