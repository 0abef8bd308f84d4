/*
 * report.h - runs as one page to look at.
 */
#ifndef METAMIX_REPORT_H
#define METAMIX_REPORT_H

#include "metamix/context.h"

enum { MIX_REPORT_RUNS = 64 }; /* most runs on one page */

/*
 * Writes an HTML page of n run folders (run.h), done or not: a table of their results, accuracy and
 * loss over the epochs, accuracy against bit operations, the bits of every layer, times and
 * settings. The page is one file without scripts. It appears at once or not at all. Errors:
 * MIX_EINVAL (n is not in [1, MIX_REPORT_RUNS]); MIX_EIO (no run in the folder; writing);
 * MIX_EFORMAT (a file of the run, with its line); MIX_ENOMEM.
 */
MIX_API MIX_CHECKED mix_status mix_report_write(mix_ctx *ctx, const char *const *runs, int n,
                                                const char *path);

#endif
