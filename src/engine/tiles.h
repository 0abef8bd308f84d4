/*
 * engine/tiles.h - a layer's batch in tiles that stay in a core's cache.
 *
 * What reads a layer's input, the convolution and what follows it are done tile by tile, so that
 * only the tensors between layers go to memory. A tile is a few whole images or, where one image is
 * too large and the operator allows it, a band of its rows:
 *
 *    input rows           output rows
 *    +-------------+
 *    |             |  x0   +---------+
 *    | dx0 ..      | ----> |         |  y0: own, as dx0 .. dx1 of the input are
 *    | dx1         |       |         |  y1
 *    |             |  x1   +---------+      and dy0 .. dy1 are those whose gradients
 *    +-------------+                        its input rows and its weights need
 *
 * dx0 is the row that y0's kernel is put at without padding, y0 * stride, so never before x0.
 *
 * Tiles are taken in `parts` runs, each by one thread; sums are kept for each part and added up in
 * order, so they do not depend on the number of threads.
 */
#ifndef METAMIX_ENGINE_TILES_H
#define METAMIX_ENGINE_TILES_H

#include <stdbool.h>
#include <stddef.h>

enum { MIX__PARTS = 16 }; /* at most */

/* First row of a part of MIX__PARTS; part == MIX__PARTS: the end. */
static inline size_t mix__part_row(size_t rows, int part)
{
    return rows * (size_t)part / MIX__PARTS;
}

struct mix__tile_shape {
    int n, h, w, c, oh, ow, k, kernel, stride, pad; /* k: output channels */
};

struct mix__tiling {
    int images; /* in a tile    */
    int bands;  /* in an image; 1 unless images is 1 */
    int count;  /* tiles in all */
    int parts;
};

struct mix__tile {
    int image, images;
    int x0, x1, y0, y1, dx0, dx1, dy0, dy1; /* rows of each image */
};

/* Whole images. */
void mix__tiling_images(struct mix__tiling *t, const struct mix__tile_shape *s);
/* Whole images, more of them where the weights, whose gradient is added up tile by tile, are larger
 * than a tile; at least one tile for each thread. */
void mix__tiling_grow(struct mix__tiling *t, const struct mix__tile_shape *s, int threads);
/* Bands where an image is large. */
void mix__tiling_bands(struct mix__tiling *t, const struct mix__tile_shape *s);
/* Equal bands of one "image" of single pixels: n and w are 1, the kernel is 1. half: of bfloat16,
 * whose products are so short that larger tiles pay. */
void mix__tiling_pixels(struct mix__tiling *t, const struct mix__tile_shape *s, bool half);

struct mix__tile mix__tile_at(const struct mix__tiling *t, const struct mix__tile_shape *s,
                              int index);
/* Tiles [first, end) of a part. */
static inline int mix__part_first(const struct mix__tiling *t, int part)
{
    return (int)((long)t->count * part / t->parts);
}

#endif
