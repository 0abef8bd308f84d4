/* cmd_finetune.c - the second phase alone: weights under fixed bits. */
#include "commands.h"
#include "command_job.h"

static mix_status work(struct job *job, mix_result *result)
{
    const struct options *o = job->options;
    return mix_finetune(job->ctx, o->run, o->from, o->bits, &o->settings, &job->observer, result);
}

static int run(const struct options *options)
{
    return job_run(options, work);
}

const struct command command_finetune = {
    .name = "finetune",
    .summary = "Train the weights under a given bit assignment (the second phase of quantize).",
    .groups = MIX_GROUP_NET | MIX_GROUP_DATA | MIX_GROUP_FINETUNE | MIX_GROUP_RUN,
    .takes = TAKES_RUN | TAKES_FROM | TAKES_BITS | TAKES_CPU,
    .needs = TAKES_RUN | TAKES_FROM | TAKES_DATA,
    .run = run,
    .more =
        "Without --bits, --from must be a run of select or quantize: its state and bits are used. "
        "With --bits W4A4 it trains the uniform network, from --from or from another tool's "
        "weights (--weights with --arch, --width, --stem).",
};
