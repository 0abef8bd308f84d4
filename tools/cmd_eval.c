/* cmd_eval.c - accuracy on the validation images. */
#include <inttypes.h>

#include "commands.h"
#include "job.h"
#include "table.h"

static void print(const mix_accuracy *a)
{
    struct table t;
    table_begin(&t, "rrrr");
    table_row(&t, "top-1 %%\ttop-5 %%\tloss\timages");
    table_row(&t, "%s\t%s\t%s\t%" PRId64, cell_number(a->top1, 2).text,
              cell_number(a->top5, 2).text, cell_number(a->loss, 4).text, a->images);
    table_end(&t, stdout);
}

static int run(const struct options *options)
{
    struct job job;
    mix_accuracy a;
    mix_status status = job_open(&job, options);
    if (status != MIX_OK)
        return status;
    status =
        mix_eval(job.ctx, options->from, &options->settings, &job.observer, options->as_float, &a);
    progress_clear(&job.progress);
    const int code = job_close(&job, status);
    if (code)
        return code;
    if (options->json)
        return job_print_json(options, json_pack("{s:s, s:s?, s:s?, s:b, s:o, s:o, s:o, s:I}",
                                                 "job", "eval", "from", options->from, "weights",
                                                 options->from ? NULL : options->settings.weights,
                                                 "as_float", options->as_float, "top1",
                                                 job_real(a.top1), "top5", job_real(a.top5), "loss",
                                                 job_real(a.loss), "images", (json_int_t)a.images));
    print(&a);
    return 0;
}

const struct command command_eval = {
    .name = "eval",
    .summary = "Top-1, top-5 and loss of a checkpoint on the validation images.",
    .groups = MIX_GROUP_NET | MIX_GROUP_DATA,
    .takes = TAKES_FROM | TAKES_FLOAT | TAKES_CPU,
    .needs = TAKES_FROM | TAKES_DATA,
    .run = run,
    .more =
        "Of a run folder its best.safetensors is taken. Weights of another tool: --weights FILE, "
        "with --arch, --width and --stem as they were made for.",
};
