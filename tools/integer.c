/* integer.c - the validation images through the integer runtime, some at a time. */
#include "integer.h"

#include <stdlib.h>

#include "model.h"

enum { CHUNK = 32 };

struct evaluation {
    struct job *job;
    struct model model;
    mix_data *data;
    size_t count;           /* validation images */
    float *images, *logits; /* (CHUNK, size, size, channels), (CHUNK, classes) */
    int labels[CHUNK];
    double began; /* seconds */
};

static void report(const struct evaluation *e, const mix_accuracy *a)
{
    const double seconds = clock_seconds() - e->began;
    mix_progress now = mix_progress_at("evaluate", a->images, (int64_t)e->count);
    now.loss = a->loss;
    now.top1 = a->top1;
    now.images_per_second = (double)a->images / seconds;
    now.seconds_left = seconds * (double)(e->count - (size_t)a->images) / (double)a->images;
    e->job->observer.progress(e->job->observer.user, &now);
}

static mix_status run_chunk(struct evaluation *e, mix_accuracy *a)
{
    const size_t first = (size_t)a->images, left = e->count - first;
    const int n = left < CHUNK ? (int)left : CHUNK;
    const mix_status status = mix_data_read(e->data, MIX_VAL, first, n, e->images, e->labels);
    if (status != MIX_OK)
        return status;
    mix_runtime_run(e->model.rt, e->images, n, e->logits);
    mix_accuracy_add(a, e->logits, e->labels, n, e->model.info.classes);
    report(e, a);
    return MIX_OK;
}

/* Where the file has the names of its classes. */
static int check_classes(struct evaluation *e)
{
    const int n = e->model.info.classes;
    const char **names = calloc((size_t)n, sizeof *names);
    if (!names)
        return job_tell(e->job, MIX_ENOMEM);
    for (int i = 0; i < n; i++)
        names[i] = mix_runtime_class_name(e->model.rt, i);
    mix_status status = MIX_OK;
    if (names[0])
        status = mix_data_check_classes(e->data, names, e->job->options->from);
    free(names);
    return job_tell(e->job, status);
}

static int open_data(struct evaluation *e)
{
    const struct options *o = e->job->options;
    const mix_runtime_info *net = &e->model.info;
    mix_data_options images;
    mix_data_info data;
    int code = model_images(&e->model, o, &images);
    if (code)
        return code;
    images.size = o->settings.image_size ? o->settings.image_size : images.size;
    images.skip_bad_images = o->settings.skip_bad_images;
    if (!mix_normalize_parse(o->settings.normalize, &images.normalize))
        return job_fail(o, MIX_EINVAL,
                        "normalize is '%.64s'; expected auto, imagenet, symmetric or unit",
                        o->settings.normalize);
    code = job_tell(e->job, mix_data_open(&e->data, e->job->ctx, o->settings.data, &images));
    if (code)
        return code;
    mix_data_info_get(e->data, &data);
    e->count = data.images[MIX_VAL];
    if (data.classes == net->classes && data.size == net->height)
        return check_classes(e);
    return job_fail(o, MIX_ESHAPE,
                    "%s has %d classes and images of %d x %d pixels; %s expects %d and %d x %d",
                    o->settings.data, data.classes, data.size, data.size, o->from, net->classes,
                    net->width, net->height);
}

static int evaluate(struct evaluation *e, mix_accuracy *a)
{
    int code = model_open(&e->model, e->job, e->job->options->from);
    if (!code)
        code = open_data(e);
    if (!code)
        code = model_room(&e->model, e->job->options, CHUNK, &e->images, &e->logits);
    e->began = clock_seconds();
    while (!code && (size_t)a->images < e->count)
        code = job_tell(e->job, run_chunk(e, a));
    return code;
}

int integer_eval(struct job *job, mix_accuracy *accuracy)
{
    struct evaluation e = { .job = job };
    *accuracy = (mix_accuracy){ 0 };
    const int code = evaluate(&e, accuracy);
    free(e.images);
    free(e.logits);
    mix_data_free(e.data);
    model_close(&e.model, job);
    return code;
}
