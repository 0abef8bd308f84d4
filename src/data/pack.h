/*
 * data/pack.h - half a data set in one file, mapped into memory: train.pack or val.pack.
 *
 *   0          8                        index                     size - 32   size
 *   +----------+---------+---------+----+----------+----+---------+-----------+
 *   | mixpack1 | image 0 | image 1 | .. | record 0 | .. | names   | footer    |
 *   +----------+---------+---------+----+----------+----+---------+-----------+
 *
 *   image    a JPEG or PNG file
 *   record   u64 offset | u32 bytes | u32 label | u32 height | u32 width | u32 CRC-32 | u32 zero
 *   names    of the classes in the order of the labels, each with its zero byte
 *   footer   u64 index | u32 images | u32 classes | u32 bytes of names | u32 CRC-32 | mixpack1
 *
 * Numbers are little-endian. The footer's CRC-32 is that of records, names and the 20 bytes of the
 * footer before it. A file without a footer was not finished.
 */
#ifndef METAMIX_DATA_PACK_H
#define METAMIX_DATA_PACK_H

#include "base/ctx.h"
#include "data/image.h"

#define MIX__PACK_MAGIC "mixpack1"
enum { MIX__PACK_MAGIC_SIZE = 8, MIX__PACK_RECORD = 32, MIX__PACK_FOOTER = 32 };

extern const char *const mix__pack_names[MIX_SPLITS]; /* "train.pack", "val.pack" */

struct mix__pack_record {
    uint64_t offset;
    uint32_t bytes, label, height, width, crc;
};
void mix__pack_put_record(uint8_t to[MIX__PACK_RECORD], const struct mix__pack_record *record);

struct mix__pack_footer {
    uint64_t index;
    uint32_t images, classes, names;
};
/* crc: of records and names, zlib's. */
void mix__pack_put_footer(uint8_t to[MIX__PACK_FOOTER], const struct mix__pack_footer *footer,
                          uint32_t crc);

struct mix__pack {
    mix_ctx *ctx;
    char *path;
    const uint8_t *map; /* (size) */
    size_t size;
    struct mix__pack_footer footer;
    const char *names; /* in the map */
};

/* Checks everything but the images. Errors: MIX_EIO, MIX_EFORMAT with the byte, MIX_ENOMEM. */
MIX_CHECKED mix_status mix__pack_open(struct mix__pack **out, mix_ctx *ctx, const char *path);
void mix__pack_close(struct mix__pack *pack);
struct mix__pack_record mix__pack_record(const struct mix__pack *pack, size_t index);
/* The image's bytes, their checksum compared: MIX_EFORMAT. Any thread. */
MIX_CHECKED mix_status mix__pack_image(const struct mix__pack *pack, size_t index,
                                       const uint8_t **bytes, size_t *size);

#endif
