/* model.c - from a path to a runtime. */
#include "model.h"

#include <stdlib.h>
#include <string.h>

bool model_is_file(const char *path)
{
    const size_t n = strlen(path);
    return n > 4 && strcmp(path + n - 4, ".mix") == 0;
}

static mix_status open_run(struct model *model, mix_ctx *ctx, const char *from)
{
    size_t size;
    const mix_status status = mix_export_bytes(ctx, from, &model->bytes, &size);
    return status == MIX_OK ? mix_runtime_open_bytes(&model->rt, ctx, model->bytes, size) : status;
}

int model_open(struct model *model, struct job *job, const char *from)
{
    *model = (struct model){ 0 };
    const mix_status status = model_is_file(from) ? mix_runtime_open(&model->rt, job->ctx, from)
                                                  : open_run(model, job->ctx, from);
    if (status == MIX_OK)
        mix_runtime_info_get(model->rt, &model->info);
    return job_tell(job, status);
}

void model_close(struct model *model, struct job *job)
{
    mix_runtime_close(model->rt);
    mix_export_free(job->ctx, model->bytes);
}

int model_images(const struct model *model, const struct options *options, mix_data_options *images)
{
    const mix_runtime_info *i = &model->info;
    mix_data_options_init(images);
    if (i->height != i->width || (i->channels != 1 && i->channels != 3))
        return job_fail(options, MIX_EUNSUPPORTED,
                        "%s takes images of %d x %d x %d; expected squares of 1 or 3 channels",
                        i->name, i->height, i->width, i->channels);
    images->size = i->height;
    images->resize = options->settings.resize;
    images->channels = i->channels;
    images->mean = i->mean;
    images->deviation = i->deviation;
    return 0;
}

int model_room(const struct model *model, const struct options *options, size_t n, float **images,
               float **logits)
{
    const mix_runtime_info *i = &model->info;
    *images =
        calloc(n * (size_t)i->height * (size_t)i->width * (size_t)i->channels, sizeof **images);
    *logits = calloc(n * (size_t)i->classes, sizeof **logits);
    return *images && *logits ? 0 : job_no_memory(options);
}
