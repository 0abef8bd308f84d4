/*
 * format/zip.c - an archive is read from its end:
 *
 *   entries (local header, content) ... | directory | ZIP64 end, ZIP64 locator | end
 *
 * The locator and what it points to are there in ZIP64 archives only. Numbers are little-endian.
 */
#include "format/zip.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define LOCAL_MAGIC     "PK\3\4"
#define DIRECTORY_MAGIC "PK\1\2"
#define END_MAGIC       "PK\5\6"
#define END64_MAGIC     "PK\6\6"
#define LOCATOR_MAGIC   "PK\6\7"

/* Bytes of each record without what varies. */
enum {
    LOCAL_BYTES = 30,
    DIRECTORY_BYTES = 46,
    END_BYTES = 22,
    END64_BYTES = 56,
    LOCATOR_BYTES = 20,
    COMMENT_MAX = 65535,
    EXTRA_ZIP64 = 1
};

/* A record of so many bytes that begins with magic lies at the place. */
static bool record_at(const struct mix__zip *z, uint64_t place, size_t bytes, const char *magic)
{
    return place <= z->size && bytes <= z->size - place && memcmp(z->bytes + place, magic, 4) == 0;
}

static mix_status find_end(const struct mix__zip *z, size_t *place)
{
    *place = 0;
    for (size_t back = END_BYTES; back <= z->size && back <= END_BYTES + COMMENT_MAX; back++) {
        *place = z->size - back;
        if (record_at(z, *place, END_BYTES, END_MAGIC) &&
            mix__number(z->bytes + *place + 20, 2) == back - END_BYTES)
            return MIX_OK;
    }
    return mix__fail(z->ctx, MIX_EFORMAT,
                     "%s: byte %zu: a ZIP archive without its end record; the file may be cut off",
                     z->path, z->size);
}

struct directory {
    uint64_t place, bytes, entries;
};

static mix_status find_directory(const struct mix__zip *z, struct directory *d)
{
    size_t end;
    MIX_TRY(find_end(z, &end));
    const char *at = z->bytes + end;
    *d = (struct directory){ mix__number(at + 16, 4), mix__number(at + 12, 4),
                             mix__number(at + 10, 2) };
    if (end >= LOCATOR_BYTES && record_at(z, end - LOCATOR_BYTES, LOCATOR_BYTES, LOCATOR_MAGIC)) {
        const uint64_t place = mix__number(at - LOCATOR_BYTES + 8, 8);
        if (!record_at(z, place, END64_BYTES, END64_MAGIC))
            return mix__fail(z->ctx, MIX_EFORMAT,
                             "%s: byte %zu: expected the ZIP64 end record at byte %" PRIu64,
                             z->path, end - LOCATOR_BYTES, place);
        at = z->bytes + place;
        *d = (struct directory){ mix__number(at + 48, 8), mix__number(at + 40, 8),
                                 mix__number(at + 32, 8) };
    }
    if (d->place > z->size || d->bytes > z->size - d->place ||
        d->entries > d->bytes / DIRECTORY_BYTES)
        return mix__fail(z->ctx, MIX_EFORMAT,
                         "%s: byte %zu: a ZIP directory of %" PRIu64 " entries in %" PRIu64
                         " bytes from byte %" PRIu64 " on is not inside the file",
                         z->path, end, d->entries, d->bytes, d->place);
    return MIX_OK;
}

/* Numbers that have no room in four bytes follow in an extra field, in this order. */
static bool read_zip64(const char *extra, size_t size, uint64_t **wide, int n)
{
    while (n > 0 && size >= 4) {
        const size_t bytes = mix__number(extra + 2, 2);
        if (bytes > size - 4)
            return false;
        if (mix__number(extra, 2) == EXTRA_ZIP64) {
            for (int i = 0; i < n; i++) {
                if (bytes < 8 * ((size_t)i + 1))
                    return false;
                *wide[i] = mix__number(extra + 4 + 8 * i, 8);
            }
            return true;
        }
        extra += 4 + bytes;
        size -= 4 + bytes;
    }
    return n == 0;
}

/* One record of the directory, whose fixed part lies in room bytes; *bytes is its length. */
static bool read_entry(struct mix__zip_entry *e, const char *at, uint64_t room, size_t *bytes)
{
    uint64_t packed = mix__number(at + 20, 4), place = mix__number(at + 42, 4);
    uint64_t *fields[] = { &e->size, &packed, &place }, *wide[3];
    int n = 0;
    const size_t extra = mix__number(at + 30, 2);
    e->name = at + DIRECTORY_BYTES;
    e->length = mix__number(at + 28, 2);
    e->size = mix__number(at + 24, 4);
    *bytes = DIRECTORY_BYTES + e->length + extra + mix__number(at + 32, 2);
    for (int i = 0; i < 3; i++)
        if (*fields[i] == UINT32_MAX)
            wide[n++] = fields[i];
    if (*bytes > room || !read_zip64(e->name + e->length, extra, wide, n))
        return false;
    const bool encrypted = mix__number(at + 8, 2) & 1;
    e->stored = mix__number(at + 10, 2) == 0 && packed == e->size && !encrypted;
    e->header = place;
    return true;
}

static int compare_names(const void *a, const void *b)
{
    const struct mix__zip_entry *x = a, *y = b;
    const size_t n = x->length < y->length ? x->length : y->length;
    const int order = memcmp(x->name, y->name, n);
    return order ? order : (x->length > y->length) - (x->length < y->length);
}

static mix_status read_directory(struct mix__zip *z)
{
    struct directory d;
    MIX_TRY(find_directory(z, &d));
    if (!(z->entries = mix__alloc(z->ctx, d.entries, sizeof *z->entries)))
        return MIX_ENOMEM;
    uint64_t place = d.place;
    const uint64_t end = d.place + d.bytes;
    for (; z->n < d.entries; z->n++) {
        size_t bytes;
        if (end - place < DIRECTORY_BYTES ||
            !record_at(z, place, DIRECTORY_BYTES, DIRECTORY_MAGIC) ||
            !read_entry(&z->entries[z->n], z->bytes + place, end - place, &bytes))
            return mix__fail(z->ctx, MIX_EFORMAT,
                             "%s: byte %" PRIu64 ": expected entry %zu of the ZIP directory",
                             z->path, place, z->n);
        place += bytes;
    }
    qsort(z->entries, z->n, sizeof *z->entries, compare_names);
    return MIX_OK;
}

mix_status mix__zip_open(struct mix__zip *zip, mix_ctx *ctx, const char *path, const char *bytes,
                         size_t size)
{
    *zip = (struct mix__zip){ .ctx = ctx, .path = path, .bytes = bytes, .size = size };
    const mix_status status = read_directory(zip);
    if (status != MIX_OK)
        mix__zip_close(zip);
    return status;
}

void mix__zip_close(struct mix__zip *zip)
{
    mix__free(zip->ctx, zip->entries);
    zip->entries = NULL;
    zip->n = 0;
}

const struct mix__zip_entry *mix__zip_find(const struct mix__zip *zip, const char *name)
{
    const struct mix__zip_entry key = { .name = name, .length = strlen(name) };
    return bsearch(&key, zip->entries, zip->n, sizeof key, compare_names);
}

mix_status mix__zip_locate(const struct mix__zip *z, const struct mix__zip_entry *e, size_t *begin,
                           size_t *end)
{
    const int length = (int)e->length;
    if (!e->stored)
        return mix__fail(z->ctx, MIX_EUNSUPPORTED,
                         "%s: byte %zu: entry '%.*s' is compressed or encrypted; expected it "
                         "stored, as torch.save does",
                         z->path, e->header, length, e->name);
    if (!record_at(z, e->header, LOCAL_BYTES, LOCAL_MAGIC))
        return mix__fail(z->ctx, MIX_EFORMAT, "%s: byte %zu: expected the header of entry '%.*s'",
                         z->path, e->header, length, e->name);
    const char *at = z->bytes + e->header;
    const size_t skip = LOCAL_BYTES + mix__number(at + 26, 2) + mix__number(at + 28, 2);
    const size_t room = z->size - e->header;
    if (skip > room || e->size > room - skip)
        return mix__fail(z->ctx, MIX_EFORMAT,
                         "%s: byte %zu: entry '%.*s' of %" PRIu64 " bytes ends behind the file",
                         z->path, e->header, length, e->name, e->size);
    *begin = e->header + skip;
    *end = *begin + (size_t)e->size;
    return MIX_OK;
}
