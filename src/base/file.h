/*
 * base/file.h - whole files and files that appear at once or not at all.
 */
#ifndef METAMIX_BASE_FILE_H
#define METAMIX_BASE_FILE_H

#include <stdio.h>

#include "base/ctx.h"

/* The file's bytes, with one zero byte behind them; the caller frees *bytes with mix__free().
 * Errors: MIX_EIO with the path and the system's reason, also when the file is larger than limit.
 */
MIX_CHECKED mix_status mix__file_read(mix_ctx *ctx, const char *path, size_t limit, char **bytes,
                                      size_t *size);

/*
 * Atomic writing: open "<path>.part", write, then commit = flush, fsync, rename, fsync of the
 * folder. A failed or abandoned write removes the part file and leaves an old file at path as it
 * was; only when it is the folder that cannot be synced, the new one is there and MIX_EIO says so.
 * A link at path is followed. MIX_EIO: what is there is no regular file, or another writer, of any
 * process, is between begin and commit.
 */
struct mix__file_writer {
    mix_ctx *ctx;
    FILE *file;
    char *path, *part;
};
MIX_CHECKED mix_status mix__file_begin(struct mix__file_writer *w, mix_ctx *ctx, const char *path);
MIX_CHECKED mix_status mix__file_write(struct mix__file_writer *w, const void *bytes, size_t size);
MIX_CHECKED mix_status mix__file_commit(struct mix__file_writer *w);
void mix__file_abandon(struct mix__file_writer *w); /* after begin, when commit was not reached or
                                                       failed: harmless twice */

/* All of that with what print() puts out (numbers with a point; it need not ask whether all went
 * well), or with bytes that are there. Errors: print's, MIX_EIO, MIX_ENOMEM. */
MIX_CHECKED mix_status mix__file_print(mix_ctx *ctx, const char *path,
                                       mix_status (*print)(void *user, FILE *out), void *user);
MIX_CHECKED mix_status mix__file_save(mix_ctx *ctx, const char *path, const void *bytes,
                                      size_t size);

/* Makes the folder and its parents; an existing folder is fine. */
MIX_CHECKED mix_status mix__make_folder(mix_ctx *ctx, const char *path);
bool mix__path_exists(const char *path);
/* A name in front of the ending, ".mix". */
bool mix__path_ends(const char *path, const char *ending);
/* "folder/name" in a new string for mix__free(); NULL when out of memory. */
char *mix__path_join(mix_ctx *ctx, const char *folder, const char *name);

#endif
