/* cmd_select.c - the first phase alone: which bits. */
#include "commands.h"
#include "command_job.h"

static mix_status work(struct job *job, mix_result *result)
{
    const struct options *o = job->options;
    return mix_select(job->ctx, o->run, o->from, &o->settings, &job->observer, result);
}

static int run(const struct options *options)
{
    return job_run(options, work);
}

const struct command command_select = {
    .name = "select",
    .summary = "Find every activation's bit-width under a budget (the first phase of quantize).",
    .groups = MIX_GROUP_NET | MIX_GROUP_DATA | MIX_GROUP_BITS | MIX_GROUP_SELECT | MIX_GROUP_RUN,
    .takes = TAKES_RUN | TAKES_FROM | TAKES_CPU,
    .needs = TAKES_RUN | TAKES_FROM | TAKES_DATA,
    .run = run,
    .more = "Starts from a float run (--from) or another tool's weights (--weights with --arch, "
            "--width, --stem). Writes bits.json and the meta-state that finetune starts from.",
};
