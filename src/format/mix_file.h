/*
 * format/mix_file.h - the .mix file: an integer network as one flat file (doc/mix-format.md).
 *
 * The bytes are used as they lie: a file can be mapped or compiled in, and a net that was read
 * from it points into it.
 */
#ifndef METAMIX_FORMAT_MIX_FILE_H
#define METAMIX_FORMAT_MIX_FILE_H

#include "model/net.h"

/* The file's bytes in a new block for mix__free(). Errors: MIX_ENOMEM. */
mix_status mix__mix_encode(const struct mix__net *net, char **bytes, size_t *size) MIX_CHECKED;

/* Appears at once or not at all. Errors: MIX_EIO, MIX_ENOMEM. */
mix_status mix__mix_write(const struct mix__net *net, const char *path) MIX_CHECKED;

/*
 * A checked net that points into bytes (MIX_ALIGN-aligned), which must outlive it; what, a path,
 * opens the error's sentence. Errors: MIX_EFORMAT with the byte offset where there is one,
 * MIX_EUNSUPPORTED (a version or size beyond this library's), MIX_ENOMEM.
 */
mix_status mix__mix_decode(struct mix__net **out, mix_ctx *ctx, const void *bytes, size_t size,
                           const char *what) MIX_CHECKED;

#endif
