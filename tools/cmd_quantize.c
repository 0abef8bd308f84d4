/* cmd_quantize.c - the whole method: bit selection, then weight training. */
#include "commands.h"
#include "command_job.h"

static mix_status work(struct job *job, mix_result *result)
{
    const struct options *o = job->options;
    return mix_quantize(job->ctx, o->run, o->from, &o->settings, &job->observer, result);
}

static int run(const struct options *options)
{
    return job_run(options, work);
}

const struct command command_quantize = {
    .name = "quantize",
    .summary = "Find every activation's bit-width under a budget and train the quantized network.",
    .groups = MIX_GROUP_NET | MIX_GROUP_DATA | MIX_GROUP_BITS | MIX_GROUP_SELECT |
              MIX_GROUP_FINETUNE | MIX_GROUP_RUN,
    .takes = TAKES_RUN | TAKES_FROM | TAKES_CPU,
    .needs = TAKES_RUN | TAKES_FROM | TAKES_DATA,
    .run = run,
    .more =
        "Bit selection and weight training in one go, from a float run (--from) or from another "
        "tool's weights (--weights with --arch, --width, --stem). The folder keeps bits.json, "
        "best.safetensors and result.json. Example: metamix quantize --from runs/float --data "
        "fashion --out runs/w4 --target W4A3",
};
