/* cmd_verify.c - where a .mix file and another evaluation of the same network part. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "command_job.h"
#include "table.h"

/* How far codes are apart. */
struct apart {
    uint64_t codes; /* that differ                */
    int most;       /* the largest difference     */
};

/* The codes that one layer reads, over all images. */
struct layer {
    const char *name; /* the runtime's */
    int bits;
    uint64_t codes;
    struct apart all, first; /* first: of the images that part here, and nowhere before */
    uint64_t images;         /* that many                                               */
};

struct verify {
    struct job job;
    mix_trace *trace;
    mix_runtime *rt;
    mix_trace_image image;
    float *found;   /* logits of the runtime       */
    float *decoded; /* one of its values           */
    size_t room;
    struct layer *layers;
    int n_layers, at; /* at: the next one of this image */
    bool parted;      /* this image */
    mix_status status;
    const char *unlike; /* the layer whose number of values differs, NULL */
    uint64_t images, same_top1;
    double logits;            /* largest difference over the largest logit of its image */
    double same_codes_logits; /* the same of the images that do not part       */
};

/* A rounding may fall to the other side: one code, rarely. The same codes give the same logits but
 * for the order of additions. Beyond this the two are not the same network. */
static const double rare = 1e-3, near = 1e-3;

static bool decode(struct verify *v, const mix_runtime_value *value, size_t count)
{
    if (count > v->room) {
        float *more = realloc(v->decoded, count * sizeof *more);
        if (!more) {
            v->status = MIX_ENOMEM;
            return false;
        }
        v->decoded = more;
        v->room = count;
    }
    mix_runtime_decode(value, v->decoded);
    return true;
}

static void add(struct apart *to, const struct apart *here)
{
    to->codes += here->codes;
    to->most = here->most > to->most ? here->most : to->most;
}

static void compare(struct verify *v, struct layer *layer, const mix_runtime_value *value,
                    const float *reference, size_t count)
{
    struct apart here = { 0 };
    for (size_t i = 0; i < count; i++) {
        const float apart = fabsf(v->decoded[i] - reference[i]) / value->step;
        const int codes = apart < 256 ? (int)(apart + 0.5f) : 256; /* also for not a number */
        here.codes += codes > 0;
        here.most = codes > here.most ? codes : here.most;
    }
    layer->codes += count;
    add(&layer->all, &here);
    if (!here.codes || v->parted)
        return;
    add(&layer->first, &here);
    layer->images++;
    v->parted = true;
}

/* Behind each operator; the layers come in the same order for every image. */
static void on_value(void *user, const mix_runtime_value *value)
{
    struct verify *v = user;
    size_t count, own = (size_t)value->height * value->width * value->channels;
    if (!value->reader || v->unlike || v->status != MIX_OK)
        return;
    struct layer *layer = &v->layers[v->at++];
    layer->name = value->reader;
    layer->bits = value->bits;
    const float *reference = mix_trace_layer(v->trace, value->reader, &count);
    if (!reference)
        return;
    if (count != own)
        v->unlike = value->reader;
    else if (decode(v, value, count))
        compare(v, layer, value, reference, count);
}

static int best(const float *logits, int classes)
{
    int at = 0;
    for (int c = 1; c < classes; c++)
        at = logits[c] > logits[at] ? c : at;
    return at;
}

static void compare_logits(struct verify *v)
{
    const float *logits = v->found;
    const int classes = v->image.classes;
    double most = 0, largest = 0;
    for (int c = 0; c < classes; c++) {
        const double apart = fabs((double)logits[c] - v->image.logits[c]);
        most = fmax(most, apart < INFINITY ? apart : INFINITY); /* also for not a number */
        largest = fmax(largest, fabs(v->image.logits[c]));
    }
    most = largest > 0 ? most / largest : most;
    v->logits = fmax(v->logits, most);
    if (!v->parted)
        v->same_codes_logits = fmax(v->same_codes_logits, most);
    v->same_top1 += best(logits, classes) == best(v->image.logits, classes);
    v->images++;
}

static void report(struct verify *v, uint64_t images)
{
    const mix_progress progress = mix_progress_at("verify", (int64_t)v->images, (int64_t)images);
    v->job.observer.progress(v->job.observer.user, &progress);
}

static int check_shape(const struct verify *v)
{
    mix_runtime_info rt;
    const mix_trace_image *i = &v->image;
    const struct options *o = v->job.options;
    mix_runtime_info_get(v->rt, &rt);
    if (rt.height == i->height && rt.width == i->width && rt.channels == i->channels &&
        rt.classes == i->classes)
        return 0;
    return job_fail(o, MIX_ESHAPE,
                    "%s takes %d x %d x %d and gives %d classes; %s has %d x %d x %d and %d",
                    o->args[0], rt.height, rt.width, rt.channels, rt.classes, o->against, i->height,
                    i->width, i->channels, i->classes);
}

/* Gives the exit code, and tells why, like all below. */
static int run_images(struct verify *v)
{
    const uint64_t most = (uint64_t)v->job.options->images;
    while (v->images < most) {
        int code = job_tell(&v->job, mix_trace_next(v->trace, &v->image));
        if (code || !v->image.pixels)
            return code;
        if (v->images == 0 && (code = check_shape(v)) != 0)
            return code;
        v->at = 0;
        v->parted = false;
        mix_runtime_run(v->rt, v->image.pixels, 1, v->found);
        if (v->status != MIX_OK || v->unlike)
            return job_tell(&v->job, v->status);
        compare_logits(v);
        report(v, most);
    }
    return 0;
}

/* The first layer where an image parts from its twin, NULL: nowhere. */
static const struct layer *first_parting(const struct verify *v)
{
    for (int i = 0; i < v->n_layers; i++)
        if (v->layers[i].images)
            return &v->layers[i];
    return NULL;
}

/* No layer is where images part by more than a rare rounding, and those that do not part have the
 * same logits. */
static bool agree(const struct verify *v)
{
    for (int i = 0; i < v->n_layers; i++) {
        const struct layer *l = &v->layers[i];
        if (l->first.most > 1 || (double)l->first.codes > rare * (double)l->codes)
            return false;
    }
    return v->same_codes_logits <= near;
}

static bool any_layer(const struct verify *v)
{
    for (int i = 0; i < v->n_layers; i++)
        if (v->layers[i].codes)
            return true;
    return false;
}

static int print_json(const struct verify *v)
{
    const struct options *o = v->job.options;
    const struct layer *first = first_parting(v);
    json_t *layers = json_array();
    for (int i = 0; i < v->n_layers; i++) {
        const struct layer *l = &v->layers[i];
        json_array_append_new(layers,
                              json_pack("{s:s, s:i, s:I, s:I, s:i, s:I}", "layer", l->name, "bits",
                                        l->bits, "codes", (json_int_t)l->codes, "different",
                                        (json_int_t)l->all.codes, "largest_difference", l->all.most,
                                        "images_parting", (json_int_t)l->images));
    }
    return job_print_json(
        o, json_pack("{s:s, s:o, s:o, s:I, s:I, s:o, s:s?, s:b, s:o}", "job", "verify", "model",
                     job_text(o->args[0]), "against", job_text(o->against), "images",
                     (json_int_t)v->images, "same_top1", (json_int_t)v->same_top1,
                     "logits_difference", job_real(v->logits), "first_parting",
                     first ? first->name : NULL, "agree", agree(v), "layers", layers));
}

static void print(const struct verify *v)
{
    const struct options *o = v->job.options;
    const struct layer *first = first_parting(v);
    struct table t;
    table_begin(&t, "lrrrrr");
    table_row(&t, "layer\tA\tcodes\tdifferent\tlargest\timages that part here");
    for (int i = 0; i < v->n_layers; i++) {
        const struct layer *l = &v->layers[i];
        if (l->codes)
            table_row(&t, "%s\t%d\t%" PRIu64 "\t%" PRIu64 "\t%d\t%" PRIu64, l->name, l->bits,
                      l->codes, l->all.codes, l->all.most, l->images);
        else
            table_row(&t, "%s\t%d\t-\t-\t-\t-", l->name, l->bits);
    }
    table_end(&t, stdout);
    printf("\n%" PRIu64 " images, %" PRIu64 " with the same top-1, logits differ by %.2e of the "
           "largest\n",
           v->images, v->same_top1, v->logits);
    if (first)
        printf("the first layer where images part: %s%s\n", first->name,
               agree(v) ? ", where a rounding falls to the other side" : "");
    else
        puts(any_layer(v) ? "every code is the same" : "no layer was compared, the logits alone");
    if (!agree(v))
        printf("%s and %s are NOT the same network\n", o->args[0], o->against);
}

static int finish(struct verify *v)
{
    const struct options *o = v->job.options;
    if (v->unlike)
        return job_fail(o, MIX_ESHAPE, "%s: layer %s has another number of values than in %s",
                        o->against, v->unlike, o->args[0]);
    if (v->images == 0)
        return job_fail(o, MIX_EINVAL, "%s: no image to compare", o->against);
    int code = 0;
    if (o->json)
        code = print_json(v);
    else
        print(v);
    return code ? code : agree(v) ? 0 : MIX_EMISMATCH;
}

static int open_both(struct verify *v)
{
    const struct options *o = v->job.options;
    mix_runtime_info info;
    int code = job_tell(&v->job, mix_runtime_open(&v->rt, v->job.ctx, o->args[0]));
    if (!code)
        code = job_tell(&v->job, mix_trace_open(&v->trace, v->job.ctx, o->against, &o->settings));
    if (code)
        return code;
    mix_runtime_info_get(v->rt, &info);
    v->n_layers = info.layers;
    v->layers = calloc((size_t)info.layers, sizeof *v->layers);
    v->found = calloc((size_t)info.classes, sizeof *v->found);
    return job_tell(&v->job, v->layers && v->found ? MIX_OK : MIX_ENOMEM);
}

static int compare_both(struct verify *v)
{
    int code = open_both(v);
    if (code)
        return code;
    mix_runtime_watch(v->rt, on_value, v);
    code = run_images(v);
    progress_clear(&v->job.progress);
    return code ? code : finish(v);
}

static int run(const struct options *o)
{
    struct verify v = { 0 };
    struct options own = *o;
    /* Engine and runtime take turns, an image each; with threads of both waiting for work, each
     * would keep the other's cores busy. */
    own.threads = o->threads ? o->threads : 1;
    const mix_status status = job_open(&v.job, &own);
    if (status != MIX_OK)
        return status;
    const int code = compare_both(&v);
    free(v.layers);
    free(v.found);
    free(v.decoded);
    mix_runtime_close(v.rt);
    mix_trace_free(v.trace);
    job_close(&v.job, MIX_OK);
    return code;
}

const struct command command_verify = {
    .name = "verify",
    .summary = "Compare a .mix file with the run that it comes from, code for code.",
    .args = "MODEL.mix",
    .groups = MIX_GROUP_DATA,
    .takes = TAKES_AGAINST | TAKES_CPU,
    .needs = TAKES_AGAINST,
    .run = run,
    .more = "--against is a run or checkpoint, evaluated on the validation images of --data, or a "
            ".safetensors file of another program with F32 tensors \"image\" (n, h, w, c), "
            "\"logits\" (n, classes) and, named as layers, what layers read (n, h, w, c). The exit "
            "code is 0 when codes part by roundings alone and logits, where no code parts, by a "
            "thousandth of the largest, else 9. One thread is used unless --threads says "
            "otherwise.",
};
