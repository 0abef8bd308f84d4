/* cmd_export.c - a quantized network as a file that runs. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "commands.h"
#include "command_job.h"
#include "table.h"

static int run(const struct options *o)
{
    struct job job;
    struct stat file;
    mix_status status = job_open(&job, o);
    if (status != MIX_OK)
        return status;
    status = mix_export(job.ctx, o->from, &o->export, o->out);
    const int code = job_close(&job, status);
    if (code)
        return code;
    if (stat(o->out, &file) != 0)
        return job_fail(o, MIX_EIO, "%s: %s", o->out, strerror(errno));
    const char *format = mix_export_format_name(o->export.format);
    if (o->json)
        return job_print_json(o, json_pack("{s:s, s:o, s:s, s:o, s:I}", "job", "export", "from",
                                           job_text(o->from), "format", format, "file",
                                           job_text(o->out), "bytes", (json_int_t)file.st_size));
    printf("%s: %s, %s\n", o->out, format, cell_bytes((double)file.st_size).text);
    return 0;
}

const struct command command_export = {
    .name = "export",
    .summary = "Write a quantized network as a file that runs.",
    .takes = TAKES_FROM | TAKES_EXPORT,
    .needs = TAKES_FROM | TAKES_EXPORT,
    .run = run,
    .more = "--from is a run of quantize or finetune, of which best.safetensors is taken, a "
            "checkpoint, or a .mix file. Example: metamix export --from RUN --out model.mix",
};
