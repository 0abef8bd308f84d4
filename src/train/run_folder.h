/*
 * train/run_folder.h - the text files of a run: config.json, log.jsonl, result.json.
 */
#ifndef METAMIX_TRAIN_RUN_FOLDER_H
#define METAMIX_TRAIN_RUN_FOLDER_H

#include <dirent.h>

#include "metamix/run.h"
#include "base/file.h"
#include "format/json.h"

enum { MIX__LOG_LIMIT = 1 << 28 }; /* bytes of log.jsonl */

struct mix__run_folder {
    mix_ctx *ctx;
    char *path, *config, *log, *last, *best, *bits, *result; /* paths */
    DIR *lock; /* the folder, locked while it is open */
};

/* What config.json says: which job, from what, with which settings. */
struct mix__run_config {
    const char *job, *from, *bits; /* from and bits: NULL when the job takes none */
    const mix_settings *settings;
    unsigned groups; /* of the settings that the job takes */
};

/*
 * Makes the folder and config.json or, once there is a checkpoint, compares with the one that is
 * there: MIX_EMISMATCH names the first difference and both values. loader_threads and
 * checkpoint_minutes may differ: they change no number. A folder that another process has open is
 * refused (MIX_EIO). Errors: MIX_EIO, MIX_EFORMAT, MIX_ENOMEM.
 */
mix_status mix__run_folder_open(struct mix__run_folder *folder, mix_ctx *ctx, const char *path,
                                const struct mix__run_config *config) MIX_CHECKED;
void mix__run_folder_release(struct mix__run_folder *folder);

/* Cuts log.jsonl after so many lines, so that it continues where a checkpoint was made. */
mix_status mix__run_log_cut(struct mix__run_folder *folder, int64_t lines) MIX_CHECKED;
/* Appends one object as a line and waits until it is on the disk. Takes the object, NULL meaning
 * that making it ran out of memory. */
mix_status mix__run_log_append(struct mix__run_folder *folder, json_t *line) MIX_CHECKED;

/* result.json with the layers' names from the graph; reading it again gives the same result. */
mix_status mix__run_result_write(struct mix__run_folder *folder, const char *job,
                                 const mix_graph *graph, const mix_result *result) MIX_CHECKED;
mix_status mix__run_result_read(struct mix__run_folder *folder, mix_result *result) MIX_CHECKED;

#endif
