/*
 * command_job.h - what subcommands share: context, progress, stop, errors, the report of a result.
 */
#ifndef TOOLS_COMMAND_JOB_H
#define TOOLS_COMMAND_JOB_H

#include <jansson.h>

#include "options.h"
#include "progress.h"

struct job {
    const struct options *options;
    mix_ctx *ctx;
    struct progress progress;
    mix_observer observer;
};

/* Both print what went wrong; job_close() takes the outcome and gives the exit code. */
mix_status job_open(struct job *job, const struct options *options);
int job_close(struct job *job, mix_status status);

/* Runs a job that fills a run folder, with progress, and prints the outcome: a report, or the
 * folder's result.json. */
typedef mix_status job_work(struct job *job, mix_result *result);
int job_run(const struct options *options, job_work *work);

/* Of such a job alone: its run's page is written when it is done or was stopped. Gives the status. */
mix_status job_page(struct job *job, const char *run, mix_status status);

/* The page of these runs, report.html in the folder. */
mix_status job_write_page(struct job *job, const char *folder, const char *const *runs, int n);

/* A file of a folder, for free(); NULL: out of memory. */
char *job_path(const char *folder, const char *name);

/* "metamix info: SENTENCE" to standard error; gives the code back. */
int job_fail(const struct options *options, int code, const char *format, ...) MIX_PRINTF(3, 4);

int job_no_memory(const struct options *options);

/* The context's sentence, in the same way, unless status is MIX_OK; gives it back. */
int job_tell(struct job *job, mix_status status);

/* Takes object (NULL: out of memory) and prints it; gives the exit code. */
int job_print_json(const struct options *options, json_t *object);
/* x, or null when it is not finite, in a new reference. */
json_t *job_real(double x);
/* text, or null when it is NULL or no UTF-8, in a new reference. */
json_t *job_text(const char *text);
/* The file result.json of a run, in a new reference; NULL with *code set once it is told why. */
json_t *job_load_result(const struct options *options, const char *run, int *code);

#endif
