/*
 * job/run.c - the jobs' public names.
 */
#include <stdlib.h>

#include "job/job.h"

void mix_result_release(mix_result *result)
{
    free(result->bits);
    *result = (mix_result){ 0 };
}

void mix_bits_free(mix_ctx *ctx, mix_layer_bits *bits)
{
    mix__free(ctx, bits);
}

static mix_status run_job(mix_ctx *ctx, struct mix__job job, const char *run_dir,
                          const mix_observer *observer, mix_result *result)
{
    job.ctx = ctx;
    return mix__job_run(&job, run_dir, observer, result);
}

mix_status mix_train(mix_ctx *ctx, const char *run_dir, const mix_settings *settings,
                     const mix_observer *observer, mix_result *result)
{
    const struct mix__job job = { .kind = "train",
                                  .settings = settings,
                                  .groups = MIX_GROUP_NET | MIX_GROUP_DATA | MIX_GROUP_FLOAT |
                                            MIX_GROUP_RUN };
    return run_job(ctx, job, run_dir, observer, result);
}

mix_status mix_quantize(mix_ctx *ctx, const char *run_dir, const char *from,
                        const mix_settings *settings, const mix_observer *observer,
                        mix_result *result)
{
    const struct mix__job job = { .kind = "quantize",
                                  .from = from,
                                  .settings = settings,
                                  .groups = MIX_GROUP_DATA | MIX_GROUP_BITS | MIX_GROUP_SELECT |
                                            MIX_GROUP_FINETUNE | MIX_GROUP_RUN };
    return run_job(ctx, job, run_dir, observer, result);
}

mix_status mix_select(mix_ctx *ctx, const char *run_dir, const char *from,
                      const mix_settings *settings, const mix_observer *observer,
                      mix_result *result)
{
    const struct mix__job job = { .kind = "select",
                                  .from = from,
                                  .settings = settings,
                                  .groups = MIX_GROUP_DATA | MIX_GROUP_BITS | MIX_GROUP_SELECT |
                                            MIX_GROUP_RUN };
    return run_job(ctx, job, run_dir, observer, result);
}

mix_status mix_finetune(mix_ctx *ctx, const char *run_dir, const char *from, const char *bits,
                        const mix_settings *settings, const mix_observer *observer,
                        mix_result *result)
{
    const struct mix__job job = { .kind = "finetune",
                                  .from = from,
                                  .bits_text = bits,
                                  .settings = settings,
                                  .groups = MIX_GROUP_DATA | MIX_GROUP_FINETUNE | MIX_GROUP_RUN };
    return run_job(ctx, job, run_dir, observer, result);
}
