/* cmd_eval.c - accuracy on the validation images. */
#include <inttypes.h>

#include "commands.h"
#include "integer.h"
#include "command_job.h"
#include "model.h"
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

static int print_json(const struct options *o, bool integer, const mix_accuracy *a)
{
    return job_print_json(o, json_pack("{s:s, s:o, s:o, s:b, s:b, s:o, s:o, s:o, s:I}", "job",
                                       "eval", "from", job_text(o->from), "weights",
                                       job_text(o->from ? NULL : o->settings.weights), "as_float",
                                       o->as_float, "integer", integer, "top1", job_real(a->top1),
                                       "top5", job_real(a->top5), "loss", job_real(a->loss),
                                       "images", (json_int_t)a->images));
}

static int evaluate(struct job *job, bool integer, mix_accuracy *a)
{
    const struct options *o = job->options;
    if (integer)
        return integer_eval(job, a);
    return job_tell(job, mix_eval(job->ctx, o->from, &o->settings, &job->observer, o->as_float, a));
}

static int run(const struct options *o)
{
    struct job job;
    mix_accuracy a;
    const bool integer = o->integer || (o->from && model_is_file(o->from));
    if (integer && !o->from)
        return job_fail(o, MIX_EINVAL, "--from is missing: the run or .mix file for --integer");
    if (integer && o->as_float)
        return job_fail(o, MIX_EINVAL, "--float does not go with --integer or a .mix file");
    const mix_status status = job_open(&job, o);
    if (status != MIX_OK)
        return status;
    const int code = evaluate(&job, integer, &a);
    job_close(&job, MIX_OK);
    if (code)
        return code;
    if (o->json)
        return print_json(o, integer, &a);
    print(&a);
    return 0;
}

const struct command command_eval = {
    .name = "eval",
    .summary = "Top-1, top-5 and loss of a network on the validation images.",
    .groups = MIX_GROUP_NET | MIX_GROUP_DATA,
    .takes = TAKES_FROM | TAKES_FLOAT | TAKES_CPU,
    .needs = TAKES_FROM | TAKES_DATA,
    .run = run,
    .more =
        "--from is a run, of which best.safetensors is taken, a checkpoint, or a .mix file. "
        "Weights "
        "of another tool: --weights FILE, with --arch, --width and --stem as they were made for.",
};
