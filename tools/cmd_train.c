/* cmd_train.c - float training. */
#include "commands.h"
#include "command_job.h"

static mix_status work(struct job *job, mix_result *result)
{
    const struct options *o = job->options;
    return mix_train(job->ctx, o->run, &o->settings, &job->observer, result);
}

static int run(const struct options *options)
{
    return job_run(options, work);
}

const struct command command_train = {
    .name = "train",
    .summary = "Train a network in float.",
    .groups = MIX_GROUP_NET | MIX_GROUP_DATA | MIX_GROUP_FLOAT | MIX_GROUP_RUN,
    .takes = TAKES_RUN | TAKES_CPU,
    .needs = TAKES_RUN | TAKES_DATA,
    .run = run,
    .more = "The folder keeps log.jsonl, last.safetensors (to go on), best.safetensors and, at "
            "the end, result.json. Example: metamix train --data fashion --out runs/float",
};
