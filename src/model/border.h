/*
 * model/border.h - which taps of a kernel lie inside the picture, and what that does to the offset
 * of a layer with a shifted input.
 *
 * Taps inside stand for step * code - shift, those outside for 0. So the shift comes off the offset
 * once for each weight under a tap inside, and places of the output with the same taps inside, a
 * class, share an offset: nine classes for a 3x3 kernel.
 */
#ifndef METAMIX_MODEL_BORDER_H
#define METAMIX_MODEL_BORDER_H

#include <stddef.h>
#include <stdint.h>

#include "model/net.h"

/* The taps [from, to) of a kernel row or column that lie inside a picture's side. */
struct mix__taps {
    int from, to;
};

static inline struct mix__taps mix__taps_at(int kernel, int stride, int pad, int side, int place)
{
    const int first = place * stride - pad;
    return (struct mix__taps){ first < 0 ? -first : 0,
                               side - first < kernel ? side - first : kernel };
}

struct mix__border_shape {
    int kernel, stride, pad;
    int h, w, oh, ow;
};

struct mix__border {
    mix_ctx *ctx;
    int n, n_cols, ow;                     /* classes; of columns; places in a row */
    uint16_t *row_class, *col_class;       /* (oh), (ow)                  */
    struct mix__taps *row_taps, *col_taps; /* (n / n_cols), (n_cols)      */
};

mix_status mix__border_make(struct mix__border *b, mix_ctx *ctx,
                            const struct mix__border_shape *shape) MIX_CHECKED;
void mix__border_release(struct mix__border *b); /* also of zeros */

/* Places are numbered row by row. The class of place `from`, and the end of its run: the first
 * place behind it of another class, at most `end`. Of zeros: class 0 and one run. */
size_t mix__border_run(const struct mix__border *b, size_t from, size_t end, int *class);

/* (n, channels) offset = plain offset - shift / step * scale * (sum of weight codes under the taps
 * inside), in double, rounded once. */
struct mix__border_layer {
    int kernel;
    size_t channels;
    const int32_t *tap_sum;      /* (channels, kernel, kernel): weight codes over input channels */
    double shift, step;          /* of the input */
    const float *scale, *offset; /* (channels)   */
};
void mix__border_offsets(const struct mix__border *b, float *offset,
                         const struct mix__border_layer *layer);

/* Border and (border.n, channels) offsets, for mix__free(), of a CONV with a shifted input. Errors:
 * MIX_EUNSUPPORTED (too many kinds of border), MIX_ENOMEM; then there is nothing to release. */
mix_status mix__border_of(struct mix__border *b, float **offset, const struct mix__net *net,
                          const struct mix__net_op *op) MIX_CHECKED;

#endif
