/*
 * report/run_files.h - what a run's text files say, for a reader that takes nothing for granted.
 */
#ifndef METAMIX_REPORT_RUN_FILES_H
#define METAMIX_REPORT_RUN_FILES_H

#include <jansson.h>

#include "base/ctx.h"

struct mix__run_files {
    const char *path; /* borrowed                                        */
    json_t *config;   /* an object                                       */
    json_t *log;      /* an array of objects, one for each line          */
    json_t *bits;     /* an object; NULL before there is one             */
    json_t *result;   /* an object; NULL while the job is not done       */
};

/* Errors: MIX_EIO; MIX_EFORMAT, for the log with the line. A last line that is not complete is left
 * out: its job is being killed or still writing. */
MIX_CHECKED mix_status mix__run_files_read(struct mix__run_files *r, mix_ctx *ctx,
                                           const char *path);
void mix__run_files_release(struct mix__run_files *r);

/* "-" where object is none or has no such text. */
const char *mix__text_of(const json_t *object, const char *key);

#endif
