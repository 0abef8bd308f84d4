/*
 * trace.h - what each layer of a network reads, image by image: to find where two evaluations part.
 *
 *   mix_trace_open(&trace, ctx, "RUN", &settings);
 *   while (mix_trace_next(trace, &image) == MIX_OK && image.pixels) ...
 */
#ifndef METAMIX_TRACE_H
#define METAMIX_TRACE_H

#include "metamix/settings.h"

typedef struct mix_trace mix_trace;

/* Lives until the next call. */
typedef struct mix_trace_image {
    const float *pixels; /* (height, width, channels) as the network sees them; NULL: no more */
    const float *logits; /* (classes) */
    int height, width, channels, classes;
} mix_trace_image;

/*
 * from is a run folder or checkpoint with quantized weights: the validation images of
 * settings->data go through its fake-quantized evaluation in float. Or a .safetensors file of
 * another program that holds, in F32, "image" (n, h, w, c), "logits" (n, classes) and by their
 * layers' names the quantized inputs of any layers, (n, h, w, c). Errors: those of mix_eval();
 * MIX_EFORMAT (tensor, what was expected); MIX_EINVAL (a float network).
 */
MIX_API MIX_CHECKED mix_status mix_trace_open(mix_trace **out, mix_ctx *ctx, const char *from,
                                              const mix_settings *settings);
MIX_API void mix_trace_free(mix_trace *trace); /* accepts NULL */

MIX_API MIX_CHECKED mix_status mix_trace_next(mix_trace *trace, mix_trace_image *image);
/* What a layer of that name read for the present image, *count values on its quantizer's grid
 * (h, w, c); NULL: not known. */
MIX_API const float *mix_trace_layer(const mix_trace *trace, const char *name, size_t *count);

#endif
