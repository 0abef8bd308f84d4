/*
 * zoo.h - the named networks.
 *
 * mobilenet_v2, mobilenet_v3_large and _small, resnet18, 34, 50 and 101. Layers and parameters
 * carry torchvision's names. Weights start as torchvision's do
 * (a ResNet's linear layer is PyTorch's default there):
 * convolutions normal with variance 2 / (out_channels * kernel^2), batch norm 1 and 0, linear
 * normal with deviation 0.01, biases 0; drawn from (seed, parameter, index), so they do not depend
 * on threads.
 */
#ifndef METAMIX_ZOO_H
#define METAMIX_ZOO_H

#include "metamix/graph.h"

typedef enum mix_stem { MIX_STEM_AUTO, MIX_STEM_STANDARD, MIX_STEM_SMALL } mix_stem;

/* "auto", "standard" or "small"; false: another name. */
MIX_API bool mix_stem_parse(const char *name, mix_stem *stem);

typedef struct mix_zoo_options {
    const char *arch; /* default "mobilenet_v2"; mix_zoo_names() lists them */
    double width;     /* channel multiplier, (0, 4], default 1.0            */
    int classes;      /* 2..MIX_CLASSES_MAX, default 1000                   */
    int size;         /* input height = width, 8..MIX_SIZE_MAX pixels, default 224 */
    int channels;     /* input channels, 1..MIX_CHANNELS_MAX, default 3     */
    mix_stem stem;    /* AUTO: small (stride 1) for size <= 64              */
    uint64_t seed;    /* default 1                                          */
} mix_zoo_options;

MIX_API void mix_zoo_options_init(mix_zoo_options *options);
MIX_API const char *const *mix_zoo_names(void); /* NULL-terminated */

/* Errors: MIX_EINVAL (unknown arch, bad value), MIX_ESHAPE (image too small), MIX_EUNSUPPORTED (more
 * than 2^28 weights), MIX_ENOMEM. */
MIX_API MIX_CHECKED mix_status mix_zoo_new(mix_graph **out, mix_ctx *ctx,
                                           const mix_zoo_options *options);

#endif
