/*
 * job/start.c - what a job starts from: a run of metamix, a network of the zoo that may take its
 * weights from another tool's file, or an ONNX file's network.
 */
#include <string.h>

#include "metamix/onnx.h"
#include "metamix/zoo.h"
#include "job/job.h"

/* Enough for means and variances that later training refines. */
enum { RECENTRE_IMAGES = 2048 };

mix_status mix__start_check(mix_ctx *ctx, const char *from, const mix_settings *settings,
                            unsigned groups)
{
    const bool onnx = mix_onnx_is_path(settings->arch);
    const char *weights = onnx ? settings->arch : settings->weights;
    if (onnx &&
        (settings->width != 1.0 || strcmp(settings->stem, "auto") != 0 || settings->weights[0]))
        return mix__fail(ctx, MIX_EINVAL,
                         "width, stem and weights are for named networks; %.200s brings its own",
                         settings->arch);
    if (from && weights[0])
        return mix__fail(ctx, MIX_EINVAL,
                         "both a run (%.200s) and weights (%.200s) are given to start from; "
                         "expected one of them",
                         from, weights);
    if (!from && !weights[0] && !(groups & MIX_GROUP_FLOAT))
        return mix__fail(
            ctx, MIX_EINVAL,
            "nothing is given to start from; expected a run, a checkpoint, or weights");
    return MIX_OK;
}

/* The file itself, or a run folder's best, else its last. */
static mix_status find_checkpoint(mix_ctx *ctx, const char *from, char **path)
{
    static const char *const names[] = { "best.safetensors", "last.safetensors" };
    *path = NULL;
    if (!mix__path_exists(from))
        return mix__fail(ctx, MIX_EIO, "%s: no such checkpoint or run folder", from);
    if (mix__path_ends(from, ".safetensors")) {
        *path = mix__strdup(ctx, from);
        return *path ? MIX_OK : MIX_ENOMEM;
    }
    for (size_t i = 0; i < MIX_COUNT(names); i++) {
        *path = mix__path_join(ctx, from, names[i]);
        if (!*path)
            return MIX_ENOMEM;
        if (mix__path_exists(*path))
            return MIX_OK;
        mix__free(ctx, *path);
        *path = NULL;
    }
    if (mix__path_ends(from, ".mix"))
        return mix__fail(
            ctx, MIX_EIO,
            "%s: an integer network; expected the run or the .safetensors file that it "
            "was made from",
            from);
    return mix__fail(ctx, MIX_EIO,
                     "%s: neither a .safetensors file nor a run folder with one; a file of another "
                     "tool is given as weights",
                     from);
}

mix_status mix__checkpoint_from(mix_ctx *ctx, const char *from, struct mix__checkpoint **out)
{
    char *path;
    *out = NULL;
    MIX_TRY(find_checkpoint(ctx, from, &path));
    const mix_status status = mix__checkpoint_open(out, ctx, path);
    mix__free(ctx, path);
    return status;
}

static mix_status from_zoo(const mix_settings *s, mix_ctx *ctx, const mix_data_info *data,
                           mix_graph **out, mix_weights_info *info)
{
    mix_zoo_options options;
    mix_graph_info net;
    mix_zoo_options_init(&options);
    options.arch = s->arch;
    options.width = s->width;
    options.classes = data->classes;
    options.size = data->size;
    options.channels = data->channels;
    options.seed = (uint64_t)s->seed;
    if (!mix_stem_parse(s->stem, &options.stem))
        return mix__fail(ctx, MIX_EINVAL, "stem is '%.64s'; expected auto, standard or small",
                         s->stem);
    MIX_TRY(mix_zoo_new(out, ctx, &options));
    mix_graph_info_get(*out, &net);
    if (s->weights[0] && net.small_stem && options.stem == MIX_STEM_AUTO)
        mix__log(ctx, MIX_LOG_INFO,
                 "%s: the first convolution has stride 1, as images are of at most 64 pixels; "
                 "torchvision's networks have 2: stem standard",
                 s->weights);
    return s->weights[0] ? mix_weights_load(*out, s->weights, info) : MIX_OK;
}

/* The file tells how many classes and channels are its own; it is read again for other classes. */
static mix_status from_onnx(const mix_settings *s, mix_ctx *ctx, const mix_data_info *data,
                            mix_graph **out, mix_weights_info *info)
{
    mix_onnx_options options;
    mix_graph_info net;
    mix_onnx_options_init(&options);
    options.size = data->size;
    options.seed = (uint64_t)s->seed;
    MIX_TRY(mix_graph_from_onnx(out, ctx, s->arch, &options));
    mix_graph_info_get(*out, &net);
    if (data->channels != net.channels)
        return mix__fail(ctx, MIX_ESHAPE, "%s has images of %d channels; %s expects %d", s->data,
                         data->channels, s->arch, net.channels);
    info->new_classifier = data->classes != net.classes;
    if (!info->new_classifier)
        return MIX_OK;
    mix_graph_free(*out);
    options.classes = data->classes;
    return mix_graph_from_onnx(out, ctx, s->arch, &options);
}

mix_status mix__network_for(const mix_settings *s, mix_ctx *ctx, const mix_data *images,
                            mix_graph **out, mix_weights_info *info)
{
    mix_data_info data;
    mix_data_info_get(images, &data);
    *info = (mix_weights_info){ 0 };
    MIX_TRY(mix_onnx_is_path(s->arch) ? from_onnx(s, ctx, &data, out, info)
                                      : from_zoo(s, ctx, &data, out, info));
    (*out)->normalize = data.normalize;
    return MIX_OK;
}

mix_status mix__network_recentre(struct mix__job *job)
{
    const struct mix__trainer *t = &job->t;
    if (!job->graph->recentre)
        return MIX_OK;
    const int64_t n = (RECENTRE_IMAGES + job->settings->batch - 1) / job->settings->batch;
    const int64_t most = mix__batches_per_epoch(t->batches), used = n < most ? n : most;
    MIX_TRY(mix__batches_seek(t->batches, 0, 0));
    MIX_TRY(mix__recentre(t->judge, t->batches, (int)used));
    job->graph->recentre = false;
    mix__log(job->ctx, MIX_LOG_INFO, "%s: statistics of its batch norms measured over %lld batches",
             job->graph->name, (long long)used);
    return MIX_OK;
}
