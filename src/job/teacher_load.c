/*
 * job/teacher_load.c - the float network whose logits are the soft targets of a search and of
 * weight training (doc/method.md section 3). It runs once for each batch, whatever the number of
 * branches.
 */
#include <string.h>

#include "metamix/onnx.h"
#include "metamix/zoo.h"
#include "job/job.h"

/* A run or checkpoint of metamix. */
static mix_status from_run(struct mix__job *job, const char *path)
{
    struct mix__checkpoint *c;
    MIX_TRY(mix__checkpoint_from(job->ctx, path, &c));
    const bool quantized = mix__checkpoint_quantized(c);
    const mix_status status = quantized ? MIX_OK : mix__checkpoint_graph(c, &job->teacher_graph);
    mix__checkpoint_close(c);
    if (!quantized)
        return status;
    return mix__fail(job->ctx, MIX_EINVAL,
                     "teacher: %s is quantized; expected a float network, or no teacher", path);
}

/* The network that the settings name, from another tool's file, the classifier among its weights.
 */
static mix_status from_file(struct mix__job *job, const mix_settings *settings)
{
    mix_weights_info info;
    MIX_TRY(mix__network_for(settings, job->ctx, job->data, &job->teacher_graph, &info));
    if (!info.new_classifier)
        return MIX_OK;
    return mix__fail(job->ctx, MIX_EINVAL,
                     "teacher: %s has no classifier for the classes of %s; use no teacher, or "
                     "train the float network first",
                     settings->weights[0] ? settings->weights : settings->arch, settings->data);
}

/* The file in "resnet50:FILE", and the network it is for; NULL: not of this form. */
static const char *named_network(const char *text, const char **arch)
{
    for (const char *const *name = mix_zoo_names(); *name; name++) {
        const size_t length = strlen(*name);
        if (strncmp(text, *name, length) == 0 && text[length] == ':') {
            *arch = *name;
            return text + length + 1;
        }
    }
    return NULL;
}

static mix_status find(struct mix__job *job)
{
    const char *text = job->settings->teacher, *arch = NULL;
    const char *file = named_network(text, &arch);
    if (strcmp(text, "self") == 0)
        return job->from ? from_run(job, job->from) : from_file(job, job->settings);
    if (!file && !mix_onnx_is_path(text))
        return from_run(job, text);
    if (file && !*file)
        return mix__fail(job->ctx, MIX_EINVAL, "teacher is '%s'; expected a file behind the colon",
                         text);
    mix_settings named = *job->settings;
    strcpy(named.arch, file ? arch : text);
    strcpy(named.weights, file ? file : "");
    named.width = 1.0;
    return from_file(job, &named);
}

static mix_status check_shape(const struct mix__job *job)
{
    mix_graph_info teacher, student;
    mix_graph_info_get(job->teacher_graph, &teacher);
    mix_graph_info_get(job->graph, &student);
    const mix_normalize how = job->teacher_graph->normalize, own = job->graph->normalize;
    const bool known = how != MIX_NORMALIZE_AUTO && own != MIX_NORMALIZE_AUTO;
    if (teacher.size >= student.size && teacher.channels == student.channels &&
        teacher.classes == student.classes && (how == own || known))
        return MIX_OK;
    return mix__fail(
        job->ctx, MIX_ESHAPE,
        "teacher %s takes %s images of %d x %d x %d and tells %d classes apart; "
        "expected %d channels, %d classes and no smaller images than those of %d x %d, "
        "which are %s",
        job->settings->teacher, mix_normalize_name(how), teacher.size, teacher.size,
        teacher.channels, teacher.classes, student.channels, student.classes, student.size,
        student.size, mix_normalize_name(own));
}

mix_status mix__teacher_make(struct mix__job *job)
{
    if (strcmp(job->settings->teacher, "none") == 0 ||
        !(job->groups & (MIX_GROUP_SELECT | MIX_GROUP_FINETUNE)))
        return MIX_OK;
    MIX_TRY(find(job));
    MIX_TRY(check_shape(job));
    MIX_TRY(
        mix__state_new(&job->t.teacher_state, job->teacher_graph, &(int){ MIX_BITS_FIXED }, 1, 0));
    return mix__engine_new(&job->t.teacher, job->t.teacher_state, job->settings->batch, false,
                           mix__training_dtype(job->ctx, job->settings->precision));
}
