/*
 * format/safetensors.h - reading and writing .safetensors files.
 *
 *   0            8                 8 + N
 *   +------------+-----------------+---------------------------------+
 *   | u64 N (LE) | N bytes of JSON | data, tensors back to back       |
 *   +------------+-----------------+---------------------------------+
 */
#ifndef METAMIX_FORMAT_SAFETENSORS_H
#define METAMIX_FORMAT_SAFETENSORS_H

#include "base/file.h"

enum mix__st_dtype {
    MIX__ST_F32,
    MIX__ST_F64,
    MIX__ST_I64,
    MIX__ST_U64,
    MIX__ST_I32,
    MIX__ST_U8,
    MIX__ST_F16,
    MIX__ST_BF16,
    MIX__ST_I16,
    MIX__ST_I8,
    MIX__ST_BOOL,
    MIX__ST_OTHER
};

/* "F32"; "another type". Bytes of an element; of OTHER, which is not looked into, 1. */
const char *mix__st_dtype_name(enum mix__st_dtype dtype);
size_t mix__st_dtype_size(enum mix__st_dtype dtype);
/* "(32,3,3,3)" */
void mix__st_shape_text(char *text, size_t size, int rank, const int64_t *dims);

/* All values are finite and at least lowest (-INFINITY, 0 or above). MIX_EFORMAT names the first
 * that is not; path and name are for the sentence. */
mix_status mix__st_check_values(mix_ctx *ctx, const char *path, const char *name,
                                const float *values, size_t n, float lowest) MIX_CHECKED;

enum { MIX__ST_RANK_MAX = 8 };

struct mix__st_tensor {
    const char *name;
    enum mix__st_dtype dtype;
    int rank;
    int64_t dims[MIX__ST_RANK_MAX];
    const void *data; /* little-endian, aligned to its elements (not for OTHER) */
    size_t bytes;
};

/* Read: the whole file in memory, checked (sizes, overlaps, holes, duplicates, limits). */
struct mix__st_file;
mix_status mix__st_open(struct mix__st_file **out, mix_ctx *ctx, const char *path) MIX_CHECKED;
/* The same from the file's bytes, which it takes, also on failure. path is for sentences. */
mix_status mix__st_parse(struct mix__st_file **out, mix_ctx *ctx, const char *path, char *bytes,
                         size_t size) MIX_CHECKED;
void mix__st_close(struct mix__st_file *file);
size_t mix__st_count(const struct mix__st_file *file);
const struct mix__st_tensor *mix__st_at(const struct mix__st_file *file, size_t index);
const struct mix__st_tensor *mix__st_find(const struct mix__st_file *file, const char *name);
const char *mix__st_metadata(const struct mix__st_file *file, const char *key); /* NULL: none */

/* Write: atomically. metadata is pairs key, value, ..., NULL; tensors may be in any order. */
mix_status mix__st_save(mix_ctx *ctx, const char *path, const struct mix__st_tensor *tensors,
                        size_t n, const char *const *metadata) MIX_CHECKED;

#endif
