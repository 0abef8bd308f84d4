/*
 * resize.c - Pillow's antialiased bilinear resampling of a box, computed for a window only.
 */
#include <assert.h>
#include <math.h>

#include "data/image.h"

enum { COEF_BITS = 22 }; /* 8 bits of pixel and 2 of head room in an int32 */

/* Output i is the sum over j < count[i] of coefs[i * width + j] * input[first[i] + j]. */
struct taps {
    int width;
    int *first, *count; /* (side) */
    int32_t *coefs;     /* (side, width) */
};

static void taps_release(mix_ctx *ctx, struct taps *taps)
{
    mix__free(ctx, taps->first);
    mix__free(ctx, taps->coefs);
}

/* For outputs [from, from + side) of in inputs brought to out outputs. */
static mix_status taps_init(struct taps *taps, mix_ctx *ctx, int in, int out, int from, int side)
{
    const double scale = (double)in / out, support = scale > 1 ? scale : 1;
    taps->width = (int)ceil(support) * 2 + 1;
    taps->coefs = mix__zalloc(ctx, (size_t)side * taps->width, sizeof *taps->coefs);
    taps->first = mix__alloc(ctx, 2 * (size_t)side, sizeof *taps->first);
    if (!taps->coefs || !taps->first)
        return MIX_ENOMEM;
    taps->count = taps->first + side;
    for (int i = 0; i < side; i++) {
        const double center = (from + i + 0.5) * scale;
        const int low = (int)fmax(center - support + 0.5, 0);
        const int high = (int)fmin(center + support + 0.5, in);
        int32_t *coefs = taps->coefs + (size_t)i * taps->width;
        double total = 0;
        for (int j = low; j < high; j++)
            total += fmax(1 - fabs((j - center + 0.5) / support), 0);
        for (int j = low; j < high; j++) {
            const double weight = fmax(1 - fabs((j - center + 0.5) / support), 0) / total;
            coefs[j - low] = (int32_t)(weight * (1 << COEF_BITS) + 0.5);
        }
        taps->first[i] = low;
        taps->count[i] = high - low;
    }
    return MIX_OK;
}

/* One output byte from count inputs that are step bytes apart. */
static uint8_t blend(const uint8_t *in, size_t step, const int32_t *coefs, int count)
{
    int32_t sum = 1 << (COEF_BITS - 1);
    for (int j = 0; j < count; j++)
        sum += in[j * step] * coefs[j];
    sum >>= COEF_BITS;
    return (uint8_t)(sum > 255 ? 255 : sum);
}

/* rows (n, side, c) from the box's rows [top, top + n) of src. */
static void resize_across(uint8_t *rows, const struct mix__image *src, int top, int left, int n,
                          const struct taps *taps, int side)
{
    const int c = src->channels;
    for (int y = 0; y < n; y++) {
        const uint8_t *in = src->pixels + ((size_t)(top + y) * src->width + left) * c;
        for (int x = 0; x < side; x++)
            for (int k = 0; k < c; k++)
                *rows++ = blend(in + (size_t)taps->first[x] * c + k, c,
                                taps->coefs + (size_t)x * taps->width, taps->count[x]);
    }
}

static void resize_down(uint8_t *dst, const uint8_t *rows, int top, const struct taps *taps,
                        int side, size_t stride)
{
    for (int y = 0; y < side; y++) {
        const uint8_t *in = rows + (taps->first[y] - top) * stride;
        for (size_t i = 0; i < stride; i++)
            *dst++ = blend(in + i, stride, taps->coefs + (size_t)y * taps->width, taps->count[y]);
    }
}

mix_status mix__image_resize(mix_ctx *ctx, uint8_t *dst, const struct mix__image *src,
                             struct mix__box box, struct mix__window window)
{
    assert(box.top >= 0 && box.left >= 0 && box.height > 0 && box.width > 0);
    assert(box.top + box.height <= src->height && box.left + box.width <= src->width);
    assert(window.top >= 0 && window.top + window.side <= window.height);
    assert(window.left >= 0 && window.left + window.side <= window.width);
    const int side = window.side;
    const size_t stride = (size_t)side * src->channels;
    struct taps across = { 0 }, down = { 0 };
    uint8_t *rows = NULL;
    mix_status status = taps_init(&across, ctx, box.width, window.width, window.left, side);
    if (status == MIX_OK)
        status = taps_init(&down, ctx, box.height, window.height, window.top, side);
    if (status == MIX_OK) {
        const int top = down.first[0], n = down.first[side - 1] + down.count[side - 1] - top;
        rows = mix__alloc(ctx, n, stride);
        if (rows) {
            resize_across(rows, src, box.top + top, box.left, n, &across, side);
            resize_down(dst, rows, top, &down, side, stride);
        } else {
            status = MIX_ENOMEM;
        }
    }
    mix__free(ctx, rows);
    taps_release(ctx, &across);
    taps_release(ctx, &down);
    return status;
}

static mix_status replace(mix_ctx *ctx, struct mix__image *image, struct mix__box box,
                          struct mix__window window)
{
    const int side = window.side, channels = image->channels;
    uint8_t *pixels = mix__alloc(ctx, (size_t)side * side, channels);
    if (!pixels)
        return MIX_ENOMEM;
    const mix_status status = mix__image_resize(ctx, pixels, image, box, window);
    if (status != MIX_OK) {
        mix__free(ctx, pixels);
        return status;
    }
    mix__image_release(ctx, image);
    *image = (struct mix__image){ pixels, side, side, channels, pixels };
    return MIX_OK;
}

mix_status mix__image_fit(mix_ctx *ctx, struct mix__image *image, int size)
{
    const int h = image->height, w = image->width;
    if (h == size && w == size)
        return MIX_OK;
    const int shorter = size > 64 ? (int)lround(size * 256.0 / 224.0) : size;
    struct mix__window window = { .height = shorter, .width = shorter, .side = size };
    if (h < w)
        window.width = (int)((int64_t)shorter * w / h);
    else
        window.height = (int)((int64_t)shorter * h / w);
    window.top = (int)nearbyint((window.height - size) / 2.0);
    window.left = (int)nearbyint((window.width - size) / 2.0);
    return replace(ctx, image, (struct mix__box){ .height = h, .width = w }, window);
}

mix_status mix__image_crop(mix_ctx *ctx, struct mix__image *image, struct mix__box box, int size)
{
    return replace(ctx, image, box,
                   (struct mix__window){ .height = size, .width = size, .side = size });
}
