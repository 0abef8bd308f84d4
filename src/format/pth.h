/*
 * format/pth.h - PyTorch's files: a pickle of a dict of tensors, beside it what the tensors hold.
 *
 *   since 1.6   a ZIP archive: <stem>/data.pkl, and <stem>/data/<key> for each storage
 *   0.1.10 on   pickles one after another: magic number, 1001, system, the dict, keys of storages;
 *               then for each key u64 n and n elements
 */
#ifndef METAMIX_FORMAT_PTH_H
#define METAMIX_FORMAT_PTH_H

#include "format/tensors.h"

/* The bytes begin as either kind of file does. */
bool mix__pth_is(const char *bytes, size_t size);

/*
 * The tensors of the dict, or of its "state_dict", "model" or "model_state_dict" when that is a
 * dict itself. An entry that is no tensor is one of type OTHER without values. Views point into
 * bytes, which are written to (names get their end); the caller frees *views with mix__free().
 * Errors: MIX_EFORMAT with the byte, MIX_EUNSUPPORTED (big-endian or compressed), MIX_ENOMEM.
 */
mix_status mix__pth_read(struct mix__tensor_view **views, size_t *n, mix_ctx *ctx, const char *path,
                         char *bytes, size_t size) MIX_CHECKED;

#endif
