/*
 * format/onnx_stairs.h - an int32 bias and a slope that give a channel's codes exactly.
 */
#ifndef METAMIX_FORMAT_ONNX_STAIRS_H
#define METAMIX_FORMAT_ONNX_STAIRS_H

#include <stdbool.h>
#include <stdint.h>

/* The codes of one channel, of every sum that can occur. */
struct mix__stairs {
    float scale, offset; /* of a sum: value = scale * sum + offset, scale > 0 */
    float step;          /* of the codes */
    int n, p;            /* lowest and highest code, a ReLU's clip included */
    int64_t least, most; /* sums */
    int factor;          /* what sums are multiplied by in the file */
};

/* Such that round(slope * (factor * sum + bias)), clipped to n..p, is the code of each sum, and no
 * sum lies closer to the edge of a code than the rounding of floats. false: there are none. */
bool mix__stairs_fit(int32_t *bias, double *slope, const struct mix__stairs *s);

#endif
