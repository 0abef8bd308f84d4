/* cmd_predict.c - labels for image files. */
#include <math.h>
#include <stdlib.h>

#include "commands.h"
#include "model.h"
#include "table.h"

enum { TOP = 5 };

struct prediction {
    struct job job;
    struct model model;
    mix_data_options images;
    float *image, *logits; /* (size, size, channels), (classes) */
    json_t *all;           /* what --json prints */
};

/* The first classes by falling logit, ties by index; gives how many there are. */
static int rank(const float *logits, int classes, int top[TOP])
{
    int n = 0;
    for (int c = 0; c < classes; c++) {
        int at = n;
        while (at > 0 && logits[c] > logits[top[at - 1]])
            at--;
        if (at == TOP)
            continue;
        n = n < TOP ? n + 1 : n;
        for (int i = n - 1; i > at; i--)
            top[i] = top[i - 1];
        top[at] = c;
    }
    return n;
}

/* softmax(logits)[c]; best is the class with the largest logit. */
static double probability(const float *logits, int classes, int best, int c)
{
    double sum = 0;
    for (int i = 0; i < classes; i++)
        sum += exp((double)logits[i] - logits[best]);
    return exp((double)logits[c] - logits[best]) / sum;
}

static void print(const struct prediction *p, const char *file, double seconds)
{
    struct table t;
    int top[TOP];
    const int classes = p->model.info.classes, n = rank(p->logits, classes, top);
    printf("%s: %.3f ms\n", file, 1e3 * seconds);
    table_begin(&t, "lrl");
    for (int i = 0; i < n; i++) {
        const char *name = mix_runtime_class_name(p->model.rt, top[i]);
        const double percent = 100 * probability(p->logits, classes, top[0], top[i]);
        if (name)
            table_row(&t, "\t%s %%\t%s", cell_number(percent, 2).text, name);
        else
            table_row(&t, "\t%s %%\tclass %d", cell_number(percent, 2).text, top[i]);
    }
    table_end(&t, stdout);
}

static void add_json(const struct prediction *p, const char *file, double seconds)
{
    int top[TOP];
    const int classes = p->model.info.classes, n = rank(p->logits, classes, top);
    json_t *best = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(
            best, json_pack("{s:i, s:o, s:o}", "index", top[i], "name",
                            job_text(mix_runtime_class_name(p->model.rt, top[i])), "probability",
                            job_real(probability(p->logits, classes, top[0], top[i]))));
    json_array_append_new(p->all, json_pack("{s:o, s:o, s:o}", "file", job_text(file), "ms",
                                            job_real(1e3 * seconds), "classes", best));
}

static mix_status predict(struct prediction *p, const char *file, double *seconds)
{
    const mix_status status = mix_image_read(p->job.ctx, file, &p->images, p->image);
    if (status != MIX_OK)
        return status;
    const double began = clock_seconds();
    mix_runtime_run(p->model.rt, p->image, 1, p->logits);
    *seconds = clock_seconds() - began;
    return MIX_OK;
}

static int predict_file(struct prediction *p, const char *file)
{
    double seconds;
    const bool json = p->job.options->json;
    const mix_status status = predict(p, file, &seconds);
    if (status == MIX_OK && json)
        add_json(p, file, seconds);
    else if (status == MIX_OK)
        print(p, file, seconds);
    else if (json)
        json_array_append_new(p->all, json_pack("{s:o, s:o}", "file", job_text(file), "error",
                                                job_text(mix_ctx_error(p->job.ctx))));
    return job_tell(&p->job, status);
}

/* The exit code is that of the first file that failed. */
static int predict_all(struct prediction *p)
{
    const struct options *o = p->job.options;
    int code = model_open(&p->model, &p->job, o->args[0]);
    if (!code)
        code = model_images(&p->model, o, &p->images);
    if (!code)
        code = model_room(&p->model, o, 1, &p->image, &p->logits);
    if (code)
        return code;
    p->all = json_array(); /* NULL: printing it says so */
    for (int i = 1; i < o->n_args; i++) {
        const int failed = predict_file(p, o->args[i]);
        code = code ? code : failed;
    }
    if (!o->json)
        return code;
    const int printed = job_print_json(o, json_pack("{s:s, s:o, s:O}", "job", "predict", "model",
                                                    job_text(o->args[0]), "images", p->all));
    return code ? code : printed;
}

static int run(const struct options *o)
{
    struct prediction p = { 0 };
    if (o->n_args < 2)
        return job_fail(o, MIX_EINVAL, "IMAGE... is missing");
    const mix_status status = job_open(&p.job, o);
    if (status != MIX_OK)
        return status;
    const int code = predict_all(&p);
    free(p.image);
    free(p.logits);
    json_decref(p.all);
    model_close(&p.model, &p.job);
    job_close(&p.job, MIX_OK);
    return code;
}

const struct command command_predict = {
    .name = "predict",
    .summary = "The most probable classes of image files, with the integer runtime.",
    .args = "MODEL.mix IMAGE...",
    .takes = TAKES_RESIZE | TAKES_CPU,
    .run = run,
    .more = "Images are JPEG or PNG files. One that cannot be read is named, and the others are "
            "done; the exit code is then that of the first such file. The time is that of the run "
            "alone, without reading the image. A run with quantized weights may stand for the .mix "
            "file.",
};
