/*
 * format/mix_layout.h - the records of a .mix file as they lie: little-endian, naturally aligned,
 * no gaps. Drawn in doc/mix-format.md. "at" is a byte offset in the file.
 */
#ifndef METAMIX_FORMAT_MIX_LAYOUT_H
#define METAMIX_FORMAT_MIX_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "records are used as they lie");

/* As in PNG: a byte above 127, line ends that a text transfer would change. */
#define MIX__MAGIC "\x89MIX\r\n\x1a\n"

enum { MIX__MIX_VERSION = 1, MIX__MIX_ALIGN = 64, MIX__MIX_NAME = 96 };

struct mix__mix_header {
    char magic[8];
    uint32_t version, header_bytes;
    uint64_t checksum; /* of all bytes, these eight taken as zero */
    uint64_t file_bytes;
    uint32_t n_tensors, n_ops, output, channels; /* channels: of the image */
    uint64_t tensors_at, ops_at;
    uint64_t image_at; /* float mean (channels), float deviation (channels) */
    uint64_t class_names_at, class_names_bytes;
    char name[MIX__MIX_NAME];
    uint64_t zero;
};
_Static_assert(sizeof(struct mix__mix_header) == 192, "the header's size is the format's");

struct mix__mix_tensor {
    uint32_t h, w, c, bits, range;
    float step;
};
_Static_assert(sizeof(struct mix__mix_tensor) == 24, "a tensor's size is the format's");

struct mix__mix_op {
    char name[MIX__MIX_NAME];
    uint32_t kind, act;
    int32_t in[2], out;
    uint32_t kernel, stride, pad, pad_end, groups, weight_bits, zero;
    uint64_t weights_at, scale_at, offset_at;
};
_Static_assert(sizeof(struct mix__mix_op) == 168, "an operator's size is the format's");

/* 64-bit FNV-1a over the whole file, the checksum's own bytes taken as zero. size is at least the
 * header's. */
static inline uint64_t mix__mix_checksum(const void *bytes, size_t size)
{
    const unsigned char *p = bytes;
    const size_t from = offsetof(struct mix__mix_header, checksum);
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++)
        h = (h ^ (i - from < sizeof(uint64_t) ? 0u : p[i])) * 0x100000001b3u;
    return h;
}

#endif
