/*
 * format/tensors.h - named tensors of a file, whatever its kind: safetensors or PyTorch's .pth,
 * told apart by what it holds.
 */
#ifndef METAMIX_FORMAT_TENSORS_H
#define METAMIX_FORMAT_TENSORS_H

#include "format/safetensors.h"

struct mix__tensor_view {
    const char *name; /* without the prefixes "module." and "_orig_mod." of PyTorch's wrappers */
    enum mix__st_dtype dtype;
    int rank;
    int64_t dims[MIX__ST_RANK_MAX], strides[MIX__ST_RANK_MAX]; /* strides in elements, at least 0 */
    size_t count;                                              /* product of dims */
    const unsigned char *data; /* the first element, little-endian, unaligned */
};

/* Errors of open: those of safetensors.h and pth.h; MIX_EFORMAT: neither, or two of one name. */
struct mix__tensors;
mix_status mix__tensors_open(struct mix__tensors **out, mix_ctx *ctx, const char *path) MIX_CHECKED;
void mix__tensors_close(struct mix__tensors *file);
size_t mix__tensors_count(const struct mix__tensors *file);
const struct mix__tensor_view *mix__tensors_at(const struct mix__tensors *file, size_t index);
const struct mix__tensor_view *mix__tensors_find(const struct mix__tensors *file,
                                                 const char *name); /* NULL: none */

/* All count values, row by row, as floats; F16 and BF16 exactly, F64 rounded. false: the type is
 * none of these or F32. */
bool mix__tensor_floats(const struct mix__tensor_view *tensor, float *to);

#endif
