#include "engine/tiles.h"

/* Values of a tile's larger side: with its other side and their gradients in float32 it fills half
 * of a cache of 2 MB. */
enum { TILE_VALUES = 64 * 1024, ROWS_LEAST = 128, HALF_TIMES = 4, TILES_LEAST = 2 };
/* Bands are larger than other tiles: what is made for one is made again, in part, for the next. */
enum { BAND_VALUES = 2 * TILE_VALUES };

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

static int largest_divisor(int n, int most)
{
    int d = MAX(1, MIN(n, most));
    while (n % d)
        d--;
    return d;
}

static void count_tiles(struct mix__tiling *t, const struct mix__tile_shape *s)
{
    t->count = s->n / t->images * t->bands;
    t->parts = MIN(t->count, MIX__PARTS);
}

static size_t image_values(const struct mix__tile_shape *s)
{
    const size_t in = (size_t)s->h * s->w * s->c, out = (size_t)s->oh * s->ow * s->k;
    return MAX(in, out);
}

void mix__tiling_images(struct mix__tiling *t, const struct mix__tile_shape *s)
{
    const int fit = (int)(TILE_VALUES / MIN(image_values(s), TILE_VALUES));
    *t = (struct mix__tiling){ .images = largest_divisor(s->n, MIN(fit, s->n / MIX__PARTS)),
                               .bands = 1 };
    count_tiles(t, s);
}

void mix__tiling_grow(struct mix__tiling *t, const struct mix__tile_shape *s, int threads)
{
    const int least = MAX(TILES_LEAST, threads);
    const size_t weights = (size_t)s->k * s->c * s->kernel * s->kernel;
    const size_t images = MIN(weights / image_values(s), (size_t)s->n / least);
    t->images = MAX(t->images, largest_divisor(s->n, (int)images));
    count_tiles(t, s);
}

void mix__tiling_bands(struct mix__tiling *t, const struct mix__tile_shape *s)
{
    mix__tiling_images(t, s);
    const size_t bands = (image_values(s) + BAND_VALUES - 1) / BAND_VALUES;
    const int rows = MIN(s->h, s->oh);
    if (t->images == 1)
        t->bands = MAX(1, bands < (size_t)rows ? (int)bands : rows);
    count_tiles(t, s);
}

void mix__tiling_pixels(struct mix__tiling *t, const struct mix__tile_shape *s, bool half)
{
    /* Parts for all threads, but not so few rows that the weights are the larger operand. */
    const int fair = MAX(s->h / MIX__PARTS, MIN(s->h / 2, ROWS_LEAST));
    const int fit = TILE_VALUES * (half ? HALF_TIMES : 1) / MAX(s->c, s->k);
    const int rows = largest_divisor(s->h, MIN(fit, fair));
    *t = (struct mix__tiling){ .images = 1, .bands = s->h / rows };
    count_tiles(t, s);
}

static int ceil_div(int a, int b)
{
    return a > 0 ? (a + b - 1) / b : 0;
}

struct mix__tile mix__tile_at(const struct mix__tiling *t, const struct mix__tile_shape *s,
                              int index)
{
    const int band = index % t->bands;
    struct mix__tile tile = {
        .image = index / t->bands * t->images,
        .images = t->images,
        .y0 = (int)((long)s->oh * band / t->bands),
        .y1 = (int)((long)s->oh * (band + 1) / t->bands),
    };
    tile.dx0 = MIN(s->h, tile.y0 * s->stride);
    tile.dx1 = band == t->bands - 1 ? s->h : MIN(s->h, tile.y1 * s->stride);
    if (t->bands == 1) {
        tile.x1 = s->h;
        tile.dy1 = s->oh;
        return tile;
    }
    tile.x0 = MIN(s->h, MAX(0, tile.y0 * s->stride - s->pad));
    tile.x1 = MAX(tile.x0, MIN(s->h, (tile.y1 - 1) * s->stride - s->pad + s->kernel));
    tile.dy0 = MIN(tile.y0, ceil_div(tile.dx0 + s->pad - s->kernel + 1, s->stride));
    tile.dy1 = MAX(tile.y1, MIN(s->oh, (tile.dx1 - 1 + s->pad) / s->stride + 1));
    return tile;
}
