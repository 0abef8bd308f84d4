/*
 * job/trace.c - what each layer reads, of a run's fake-quantized evaluation or from a file.
 */
#include "metamix/trace.h"

#include <string.h>

#include "format/safetensors.h"
#include "job/job.h"

struct layer_values {
    const char *name; /* the graph's or the file's */
    const float *values;
    size_t count; /* of one image */
};

struct mix_trace {
    mix_ctx *ctx;
    int64_t images, next;
    mix_trace_image image;
    size_t n_layers;
    struct layer_values *layers;
    /* Of a run: images go through it one by one. */
    mix_settings settings;
    struct mix__trainer t;
    mix_graph *graph;
    mix_data *data;
    float *kept; /* of all layers */
    /* Of a file: the image, the logits. */
    struct mix__st_file *file;
    const float *pixels, *logits;
};

/* ---- a run ---------------------------------------------------------------------------------- */

static void keep_input(void *user, const struct mix__layer_input *input)
{
    const mix_trace *trace = user;
    const struct layer_values *layer = &trace->layers[input->layer];
    float *values = (float *)layer->values;
    for (size_t i = 0; i < input->count; i++)
        values[i] = input->step * input->number[i] - input->shift;
}

static mix_status make_layers(mix_trace *trace)
{
    const mix_graph *g = trace->graph;
    size_t sum = 0;
    trace->n_layers = g->n_layers;
    trace->layers = mix__zalloc(trace->ctx, g->n_layers, sizeof *trace->layers);
    if (!trace->layers)
        return MIX_ENOMEM;
    for (size_t l = 0; l < g->n_layers; l++) {
        const struct mix__tensor *x = &g->tensors[g->nodes[g->layers[l].node].in[0]];
        trace->layers[l].name = g->layers[l].info.name;
        trace->layers[l].count = (size_t)x->h * (size_t)x->w * (size_t)x->c;
        sum += trace->layers[l].count;
    }
    trace->kept = mix__alloc(trace->ctx, sum, sizeof *trace->kept);
    if (!trace->kept)
        return MIX_ENOMEM;
    float *at = trace->kept;
    for (size_t l = 0; l < g->n_layers; at += trace->layers[l].count, l++)
        trace->layers[l].values = at;
    return MIX_OK;
}

static mix_status build(mix_trace *trace, const struct mix__checkpoint *c, const char *from)
{
    mix_data_info data;
    MIX_TRY(mix__checkpoint_graph(c, &trace->graph));
    MIX_TRY(mix__data_for(trace->ctx, &trace->settings, trace->graph, &trace->data));
    MIX_TRY(mix__judge_make(&trace->t, c, trace->data, trace->graph, false));
    if (!trace->t.bits || !trace->t.state->weight_steps_ready)
        return mix__fail(trace->ctx, MIX_EINVAL,
                         "%s has no quantized weights; expected a run of "
                         "quantize or finetune",
                         from);
    mix_data_info_get(trace->data, &data);
    trace->images = (int64_t)data.images[MIX_VAL];
    const struct mix__tensor *x = &trace->graph->tensors[0];
    trace->image = (mix_trace_image){
        .height = x->h,
        .width = x->w,
        .channels = x->c,
        .classes = trace->graph->tensors[trace->graph->output].c,
    };
    MIX_TRY(make_layers(trace));
    MIX_TRY(mix__engine_watch(trace->t.judge, keep_input, trace));
    return mix__batches_seek(trace->t.validation, 0, 0);
}

static mix_status open_run(mix_trace *trace, const char *from)
{
    struct mix__checkpoint *c;
    trace->settings.batch = 1;
    trace->t.ctx = trace->ctx;
    trace->t.settings = &trace->settings;
    MIX_TRY(mix__settings_check(trace->ctx, &trace->settings, MIX_GROUP_DATA));
    MIX_TRY(mix__checkpoint_from(trace->ctx, from, &c));
    const mix_status status = build(trace, c, from);
    mix__checkpoint_close(c);
    return status;
}

static mix_status next_of_run(mix_trace *trace)
{
    const struct mix__pass pass = { .batch_stats = false };
    struct mix__batch batch;
    MIX_TRY(mix__batches_next(trace->t.validation, &batch));
    mix__engine_feed(trace->t.judge, &batch);
    trace->image.pixels = batch.images;
    return mix__engine_forward(trace->t.judge, &pass, &trace->image.logits);
}

/* ---- a file --------------------------------------------------------------------------------- */

/* F32, (n, ...) of that rank, or any rank from 2 to 4 with 0. */
static mix_status check_tensor(const mix_trace *trace, const struct mix__st_tensor *t, int rank,
                               const char *from)
{
    const bool ranks = rank ? t->rank == rank : t->rank >= 2 && t->rank <= 4;
    if (t->dtype == MIX__ST_F32 && ranks && t->dims[0] == trace->images && t->bytes > 0)
        return MIX_OK;
    char shape[128];
    mix__st_shape_text(shape, sizeof shape, t->rank, t->dims);
    return mix__fail(trace->ctx, MIX_EFORMAT,
                     "%s: %.80s is %s %s; expected F32 of %d dimensions, the first one %lld images",
                     from, t->name, mix__st_dtype_name(t->dtype), shape, rank ? rank : 4,
                     (long long)trace->images);
}

static mix_status find(const mix_trace *trace, const char *name, int rank, const char *from,
                       const struct mix__st_tensor **out)
{
    *out = mix__st_find(trace->file, name);
    if (!*out)
        return mix__fail(trace->ctx, MIX_EFORMAT, "%s: no tensor \"%s\"", from, name);
    return trace->images ? check_tensor(trace, *out, rank, from) : MIX_OK;
}

static mix_status read_file(mix_trace *trace, const char *from)
{
    const struct mix__st_tensor *image, *logits;
    MIX_TRY(find(trace, "image", 4, from, &image));
    trace->images = image->rank ? image->dims[0] : 0;
    MIX_TRY(check_tensor(trace, image, 4, from));
    MIX_TRY(find(trace, "logits", 2, from, &logits));
    trace->pixels = image->data;
    trace->logits = logits->data;
    trace->image = (mix_trace_image){ .height = (int)image->dims[1],
                                      .width = (int)image->dims[2],
                                      .channels = (int)image->dims[3],
                                      .classes = (int)logits->dims[1] };
    const size_t n = mix__st_count(trace->file);
    trace->layers = mix__zalloc(trace->ctx, n, sizeof *trace->layers);
    if (!trace->layers)
        return MIX_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        const struct mix__st_tensor *t = mix__st_at(trace->file, i);
        MIX_TRY(check_tensor(trace, t, 0, from));
        if (t != image && t != logits) /* a layer may be called so; its values are not there then */
            trace->layers[trace->n_layers++] =
                (struct layer_values){ t->name, t->data,
                                       t->bytes / sizeof(float) / (size_t)t->dims[0] };
    }
    return MIX_OK;
}

static void next_of_file(mix_trace *trace)
{
    const mix_trace_image *image = &trace->image;
    const size_t pixels = (size_t)image->height * (size_t)image->width * (size_t)image->channels;
    trace->image.pixels = trace->pixels + (size_t)trace->next * pixels;
    trace->image.logits = trace->logits + (size_t)trace->next * (size_t)image->classes;
}

/* ---- both ----------------------------------------------------------------------------------- */

/* Of another program; a checkpoint, which has no tensor of this name, is not kept. */
static void find_file(mix_trace *trace, const char *from)
{
    if (!mix__path_ends(from, ".safetensors") ||
        mix__st_open(&trace->file, trace->ctx, from) != MIX_OK ||
        mix__st_find(trace->file, "image"))
        return;
    mix__st_close(trace->file);
    trace->file = NULL;
}

mix_status mix_trace_open(mix_trace **out, mix_ctx *ctx, const char *from,
                          const mix_settings *settings)
{
    *out = NULL;
    mix_trace *trace = mix__zalloc(ctx, 1, sizeof *trace);
    if (!trace)
        return MIX_ENOMEM;
    trace->ctx = ctx;
    trace->settings = *settings;
    find_file(trace, from);
    const mix_status status = trace->file ? read_file(trace, from) : open_run(trace, from);
    if (status != MIX_OK) {
        mix_trace_free(trace);
        return status;
    }
    *out = trace;
    return MIX_OK;
}

void mix_trace_free(mix_trace *trace)
{
    if (!trace)
        return;
    mix__trainer_release(&trace->t);
    mix_data_free(trace->data);
    mix_graph_free(trace->graph);
    mix__st_close(trace->file);
    mix__free(trace->ctx, trace->layers);
    mix__free(trace->ctx, trace->kept);
    mix__free(trace->ctx, trace);
}

mix_status mix_trace_next(mix_trace *trace, mix_trace_image *image)
{
    trace->image.pixels = trace->image.logits = NULL;
    if (trace->next < trace->images) {
        if (trace->file)
            next_of_file(trace);
        else
            MIX_TRY(next_of_run(trace));
        trace->next++;
    }
    *image = trace->image;
    return MIX_OK;
}

const float *mix_trace_layer(const mix_trace *trace, const char *name, size_t *count)
{
    for (size_t i = 0; i < trace->n_layers && trace->image.pixels; i++) {
        const struct layer_values *layer = &trace->layers[i];
        if (strcmp(layer->name, name) != 0)
            continue;
        *count = layer->count;
        return layer->values + (trace->file ? (size_t)(trace->next - 1) * layer->count : 0);
    }
    return NULL;
}
