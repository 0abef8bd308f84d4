/*
 * format/zip.h - where the entries of a ZIP or ZIP64 archive lie, for archives that store them
 * uncompressed, as torch.save does. Nothing is copied, and checksums are not looked at: PyTorch
 * may leave them out.
 */
#ifndef METAMIX_FORMAT_ZIP_H
#define METAMIX_FORMAT_ZIP_H

#include <stdint.h>

#include "base/ctx.h"

struct mix__zip_entry {
    const char *name; /* in the archive, not zero-terminated */
    size_t length;
    size_t header; /* the place of the entry's own header, */
    uint64_t size; /* and its bytes: both not yet checked  */
    bool stored;
};

struct mix__zip {
    mix_ctx *ctx;
    const char *path, *bytes; /* borrowed */
    size_t size;
    struct mix__zip_entry *entries; /* sorted by name */
    size_t n;
};

/* Reads the directory of the archive in bytes. Errors: MIX_EFORMAT with the byte, MIX_ENOMEM;
 * nothing is to be closed then. */
mix_status mix__zip_open(struct mix__zip *zip, mix_ctx *ctx, const char *path, const char *bytes,
                         size_t size) MIX_CHECKED;
void mix__zip_close(struct mix__zip *zip);

/* NULL: there is none of this name. */
const struct mix__zip_entry *mix__zip_find(const struct mix__zip *zip, const char *name);
/* The entry's content is bytes[*begin, *end). MIX_EFORMAT; MIX_EUNSUPPORTED: it is compressed. */
mix_status mix__zip_locate(const struct mix__zip *zip, const struct mix__zip_entry *entry,
                           size_t *begin, size_t *end) MIX_CHECKED;

#endif
