/* cmd_report.c - several runs as one page to look at. */
#include "commands.h"
#include "command_job.h"

static int run(const struct options *options)
{
    struct job job;
    const char *out = options->out ? options->out : "report.html";
    const mix_status status = job_open(&job, options);
    if (status != MIX_OK)
        return status;
    const int code = job_close(
        &job, mix_report_write(job.ctx, (const char *const *)options->args, options->n_args, out));
    if (code)
        return code;
    if (options->json)
        return job_print_json(
            options, json_pack("{s:o, s:i}", "report", job_text(out), "runs", options->n_args));
    printf("%s: %d run%s\n", out, options->n_args, options->n_args == 1 ? "" : "s");
    return 0;
}

const struct command command_report = {
    .name = "report",
    .summary = "Write one HTML page of several runs: tables and plots.",
    .args = "RUN...",
    .takes = TAKES_REPORT,
    .run = run,
    .more = "Every job writes such a page of its own run, report.html in the run's folder. Runs "
            "that are not done are shown as far as they are. Example: metamix report runs/float "
            "runs/mixed --out both.html",
};
