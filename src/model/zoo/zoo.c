/*
 * model/zoo/zoo.c - from a network's name to its graph.
 */
#include "model/zoo/zoo.h"

#include <string.h>

static const char *const names[] = {
    "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "resnet18",
    "resnet34",     "resnet50",           "resnet101",          NULL,
};

/* In the order of names. */
static const struct builder {
    int (*build)(mix_graph *, const mix_zoo_options *, int variant);
    int variant;
} builders[] = {
    { mix__mobilenet_v2_build, 0 }, { mix__mobilenet_v3_build, 0 }, { mix__mobilenet_v3_build, 1 },
    { mix__resnet_build, 0 },       { mix__resnet_build, 1 },       { mix__resnet_build, 2 },
    { mix__resnet_build, 3 },
};
_Static_assert(MIX_COUNT(names) == MIX_COUNT(builders) + 1, "a builder for each name");

bool mix_stem_parse(const char *name, mix_stem *stem)
{
    static const char *const stems[] = {
        [MIX_STEM_AUTO] = "auto", [MIX_STEM_STANDARD] = "standard", [MIX_STEM_SMALL] = "small"
    };
    const int index = mix__text_index(name, stems, MIX_COUNT(stems));
    if (index >= 0)
        *stem = (mix_stem)index;
    return index >= 0;
}

void mix_zoo_options_init(mix_zoo_options *options)
{
    *options = (mix_zoo_options){ .arch = "mobilenet_v2",
                                  .width = 1.0,
                                  .classes = 1000,
                                  .size = 224,
                                  .channels = 3,
                                  .stem = MIX_STEM_AUTO,
                                  .seed = 1 };
}

const char *const *mix_zoo_names(void)
{
    return names;
}

static mix_status check(mix_ctx *ctx, const mix_zoo_options *o)
{
    if (!(o->width > 0.0 && o->width <= 4.0))
        return mix__fail(ctx, MIX_EINVAL, "width is %g; expected more than 0, at most 4", o->width);
    if (o->classes < 2 || o->classes > MIX_CLASSES_MAX)
        return mix__fail(ctx, MIX_EINVAL, "%d classes; expected 2 to %d", o->classes,
                         MIX_CLASSES_MAX);
    if (o->size < 8 || o->size > MIX_SIZE_MAX)
        return mix__fail(ctx, MIX_EINVAL, "image size is %d pixels; expected 8 to %d", o->size,
                         MIX_SIZE_MAX);
    if ((unsigned)o->stem > MIX_STEM_SMALL)
        return mix__fail(ctx, MIX_EINVAL, "stem number %d; expected 0 to %d", (int)o->stem,
                         MIX_STEM_SMALL);
    if (o->channels < 1 || o->channels > MIX_CHANNELS_MAX)
        return mix__fail(ctx, MIX_EINVAL, "%d input channels; expected 1 to %d", o->channels,
                         MIX_CHANNELS_MAX);
    return MIX_OK;
}

static mix_status unknown(mix_ctx *ctx, const char *arch)
{
    char list[256] = "";
    for (size_t i = 0; names[i]; i++) {
        strcat(list, i ? ", " : "");
        strcat(list, names[i]);
    }
    return mix__fail(ctx, MIX_EINVAL, "no network is called '%.64s'; expected one of %s", arch,
                     list);
}

mix_status mix_zoo_new(mix_graph **out, mix_ctx *ctx, const mix_zoo_options *options)
{
    *out = NULL;
    MIX_TRY(check(ctx, options));
    size_t which = 0;
    while (names[which] && strcmp(names[which], options->arch) != 0)
        which++;
    if (!names[which])
        return unknown(ctx, options->arch);

    mix_zoo_options o = *options;
    if (o.stem == MIX_STEM_AUTO)
        o.stem = o.size <= 64 ? MIX_STEM_SMALL : MIX_STEM_STANDARD;
    mix_graph *g;
    MIX_TRY(mix__graph_new(&g, ctx, names[which], o.size, o.channels));
    const mix_status status =
        mix__graph_finish(g, builders[which].build(g, &o, builders[which].variant));
    if (status != MIX_OK) {
        mix_graph_free(g);
        return status;
    }
    mix__graph_init_values(g, o.seed);
    *out = g;
    return MIX_OK;
}
