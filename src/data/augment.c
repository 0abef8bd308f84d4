/*
 * augment.c - what training does to an image before the network sees it.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/random.h"
#include "data/image.h"

/* An image's random numbers; each image has DRAWS of them in its epoch's stream. */
enum { BOX_TRIES = 10 };
enum {
    DRAW_FLIP,
    DRAW_DY,
    DRAW_DX,
    DRAW_BOX,
    DRAW_HOLE_Y = DRAW_BOX + 4 * BOX_TRIES,
    DRAW_HOLE_X,
    DRAWS = 64
};

static double draw(const struct mix__draws *draws, int which)
{
    return mix__random_uniform(draws->seed, draws->stream, draws->position * DRAWS + which);
}

/* Uniform on the integers 0..n. */
static int draw_int(const struct mix__draws *draws, int which, int n)
{
    return (int)(draw(draws, which) * (n + 1.0));
}

bool mix__draw_flip(const struct mix__draws *draws)
{
    return draw(draws, DRAW_FLIP) < 0.5;
}

void mix__draw_shift(const struct mix__draws *draws, int padding, int *dy, int *dx)
{
    *dy = draw_int(draws, DRAW_DY, 2 * padding) - padding;
    *dx = draw_int(draws, DRAW_DX, 2 * padding) - padding;
}

struct mix__box mix__draw_hole(const struct mix__draws *draws, int size, int side)
{
    const int cy = draw_int(draws, DRAW_HOLE_Y, size - 1),
              cx = draw_int(draws, DRAW_HOLE_X, size - 1);
    const int top = cy - side / 2, left = cx - side / 2;
    struct mix__box hole = { .top = top > 0 ? top : 0, .left = left > 0 ? left : 0 };
    hole.height = (top + side < size ? top + side : size) - hole.top;
    hole.width = (left + side < size ? left + side : size) - hole.left;
    return hole;
}

struct mix__box mix__draw_box(const struct mix__draws *draws, int height, int width)
{
    const double area = (double)height * width, low = 3.0 / 4, high = 4.0 / 3;
    struct mix__box box;
    for (int try = 0; try < BOX_TRIES; try++) {
        const int first = DRAW_BOX + 4 * try;
        const double part = area * (0.08 + (1 - 0.08) * draw(draws, first));
        const double ratio = low * pow(high / low, draw(draws, first + 1));
        box.width = (int)lround(sqrt(part * ratio));
        box.height = (int)lround(sqrt(part / ratio));
        if (box.width < 1 || box.width > width || box.height < 1 || box.height > height)
            continue;
        box.top = draw_int(draws, first + 2, height - box.height);
        box.left = draw_int(draws, first + 3, width - box.width);
        return box;
    }
    box.width = (int)fmin(width, fmax(1, lround(height * high)));
    box.height = (int)fmin(height, fmax(1, lround(width / low)));
    box.top = (height - box.height) / 2;
    box.left = (width - box.width) / 2;
    return box;
}

mix_normalize mix__normalize_auto(int channels)
{
    return channels == 3 ? MIX_NORMALIZE_IMAGENET : MIX_NORMALIZE_SYMMETRIC;
}

void mix__normalize_values(mix_normalize how, float mean[3], float deviation[3])
{
    static const struct {
        float mean[3], deviation[3];
    } all[] = {
        [MIX_NORMALIZE_IMAGENET] = { { 0.485f, 0.456f, 0.406f }, { 0.229f, 0.224f, 0.225f } },
        [MIX_NORMALIZE_SYMMETRIC] = { { 0.5f, 0.5f, 0.5f }, { 0.5f, 0.5f, 0.5f } },
        [MIX_NORMALIZE_UNIT] = { { 0, 0, 0 }, { 1, 1, 1 } },
    };
    assert(how > MIX_NORMALIZE_AUTO && how <= MIX_NORMALIZE_UNIT);
    memcpy(mean, all[how].mean, sizeof all[how].mean);
    memcpy(deviation, all[how].deviation, sizeof all[how].deviation);
}

static void fill(struct mix__normaliser *normaliser, const float *mean, const float *deviation,
                 int channels)
{
    for (int c = 0; c < channels; c++)
        for (int v = 0; v < 256; v++)
            normaliser->value[c][v] = (v / 255.0f - mean[c]) / deviation[c];
}

static bool is_given_well(const mix_data_options *o)
{
    bool well = o->mean && o->deviation && o->channels > 0 && o->normalize == MIX_NORMALIZE_AUTO;
    for (int c = 0; well && c < o->channels; c++)
        well = isfinite(o->mean[c]) && isfinite(o->deviation[c]) && o->deviation[c] > 0;
    return well;
}

mix_status mix__normaliser_init(struct mix__normaliser *normaliser, mix_ctx *ctx, const char *what,
                                const mix_data_options *o, int channels)
{
    float mean[3], deviation[3];
    normaliser->how = o->normalize;
    if (o->mean || o->deviation) {
        if (!is_given_well(o))
            return mix__fail(ctx, MIX_EINVAL,
                             "%s: expected finite means and deviations above 0 together, with the "
                             "number of channels and no other normalisation",
                             what);
        fill(normaliser, o->mean, o->deviation, channels);
        return MIX_OK;
    }
    if (o->normalize == MIX_NORMALIZE_IMAGENET && channels != 3)
        return mix__fail(ctx, MIX_EINVAL,
                         "%s: imagenet normalisation is for three channels, the images have %d",
                         what, channels);
    if (o->normalize == MIX_NORMALIZE_AUTO)
        normaliser->how = mix__normalize_auto(channels);
    mix__normalize_values(normaliser->how, mean, deviation);
    fill(normaliser, mean, deviation, channels);
    return MIX_OK;
}

void mix__image_gray(struct mix__image *image)
{
    const size_t n = (size_t)image->height * image->width;
    uint8_t *p = image->owned;
    assert(image->channels == 3 && p && p == image->pixels);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)((19595 * p[3 * i] + 38470 * p[3 * i + 1] + 7471 * p[3 * i + 2] + 0x8000) >>
                         16);
    image->channels = 1;
}

void mix__image_normalise(float *out, const struct mix__image *image, int dy, int dx, bool flip,
                          const struct mix__normaliser *normaliser)
{
    const int h = image->height, w = image->width, c = image->channels;
    memset(out, 0, sizeof *out * h * w * c);
    for (int y = 0; y < h; y++) {
        if (y + dy < 0 || y + dy >= h)
            continue;
        const uint8_t *row = image->pixels + (size_t)(y + dy) * w * c;
        for (int x = 0; x < w; x++) {
            const int from = (flip ? w - 1 - x : x) + dx;
            if (from < 0 || from >= w)
                continue;
            for (int k = 0; k < c; k++)
                out[((size_t)y * w + x) * c + k] = normaliser->value[k][row[(size_t)from * c + k]];
        }
    }
}

void mix__erase(float *out, int size, int channels, struct mix__box hole)
{
    for (int y = hole.top; y < hole.top + hole.height; y++)
        memset(out + ((size_t)y * size + hole.left) * channels, 0,
               sizeof *out * hole.width * channels);
}
