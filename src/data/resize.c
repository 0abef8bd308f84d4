/*
 * resize.c - Pillow's antialiased bilinear resampling of a box, computed for a window only.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "data/image.h"

enum { COEF_BITS = 22 }; /* 8 bits of pixel and 2 of head room in an int32 */

/* Output i is the sum over j < count[i] of coefs[i * width + j] * input[first[i] + j]. */
struct taps {
    int width;
    int *first, *count; /* (outputs) */
    int32_t *coefs;     /* (outputs, width) */
};

static void taps_release(mix_ctx *ctx, struct taps *taps)
{
    mix__free(ctx, taps->first);
    mix__free(ctx, taps->coefs);
}

/* The box along one axis, in decoded pixels: it begins inside pixel `first`. */
struct span {
    int first, pixels; /* pixels that the box touches */
    double begin, length;
};

static struct span make_span(int from, int length, int shrink)
{
    const int first = from / shrink, end = (from + length + shrink - 1) / shrink;
    return (struct span){ first, end - first, (double)(from % shrink) / shrink,
                          (double)length / shrink };
}

/* The arithmetic of Pillow's precompute_coeffs(), for outputs [from, from + n) of out. */
static mix_status taps_init(struct taps *taps, mix_ctx *ctx, const struct span *span, int out,
                            int from, int n)
{
    const double scale = span->length / out, support = scale > 1 ? scale : 1, inverse = 1 / support;
    taps->width = (int)ceil(support) * 2 + 1;
    taps->coefs = mix__zalloc(ctx, (size_t)n * taps->width, sizeof *taps->coefs);
    taps->first = mix__alloc(ctx, 2 * (size_t)n, sizeof *taps->first);
    if (!taps->coefs || !taps->first)
        return MIX_ENOMEM;
    taps->count = taps->first + n;
    for (int i = 0; i < n; i++) {
        const double center = span->begin + (from + i + 0.5) * scale;
        const int low = (int)fmax(center - support + 0.5, 0);
        const int high = (int)fmin(center + support + 0.5, span->pixels);
        int32_t *coefs = taps->coefs + (size_t)i * taps->width;
        double total = 0;
        for (int j = low; j < high; j++)
            total += fmax(1 - fabs((j - center + 0.5) * inverse), 0);
        for (int j = low; j < high; j++) {
            const double weight = fmax(1 - fabs((j - center + 0.5) * inverse), 0) / total;
            coefs[j - low] = (int32_t)(weight * (1 << COEF_BITS) + 0.5);
        }
        taps->first[i] = low;
        taps->count[i] = high - low;
    }
    return MIX_OK;
}

static uint8_t to_byte(int32_t sum)
{
    sum >>= COEF_BITS;
    return (uint8_t)(sum > 255 ? 255 : sum);
}

/* One RGB pixel from count pixels next to each other. */
static void blend_rgb(uint8_t *out, const uint8_t *in, const int32_t *coefs, int count)
{
    int32_t r = 1 << (COEF_BITS - 1), g = r, b = r;
    for (int j = 0; j < count; j++, in += 3) {
        r += in[0] * coefs[j];
        g += in[1] * coefs[j];
        b += in[2] * coefs[j];
    }
    out[0] = to_byte(r);
    out[1] = to_byte(g);
    out[2] = to_byte(b);
}

static uint8_t blend_gray(const uint8_t *in, const int32_t *coefs, int count)
{
    int32_t sum = 1 << (COEF_BITS - 1);
    for (int j = 0; j < count; j++)
        sum += in[j] * coefs[j];
    return to_byte(sum);
}

/* rows (n, columns, c) from rows [top, top + n) of src, whose box begins in column left. */
static void resize_across(uint8_t *rows, const struct mix__image *src, int top, int left, int n,
                          const struct taps *taps, int columns)
{
    const int c = src->channels;
    for (int y = 0; y < n; y++) {
        const uint8_t *in = src->pixels + ((size_t)(top + y) * src->width + left) * c;
        for (int x = 0; x < columns; x++, rows += c) {
            const uint8_t *from = in + (size_t)taps->first[x] * c;
            const int32_t *coefs = taps->coefs + (size_t)x * taps->width;
            if (c == 3)
                blend_rgb(rows, from, coefs, taps->count[x]);
            else
                *rows = blend_gray(from, coefs, taps->count[x]);
        }
    }
}

/* dst (n, stride) from rows, the first of which is the box's row top; sums has stride elements. */
static void resize_down(uint8_t *dst, const uint8_t *rows, int top, const struct taps *taps, int n,
                        size_t stride, int32_t *sums)
{
    for (int y = 0; y < n; y++, dst += stride) {
        const uint8_t *in = rows + (taps->first[y] - top) * stride;
        for (size_t i = 0; i < stride; i++)
            sums[i] = 1 << (COEF_BITS - 1);
        for (int j = 0; j < taps->count[y]; j++, in += stride) {
            const int32_t coef = taps->coefs[(size_t)y * taps->width + j];
            for (size_t i = 0; i < stride; i++)
                sums[i] += in[i] * coef;
        }
        for (size_t i = 0; i < stride; i++)
            dst[i] = to_byte(sums[i]);
    }
}

static mix_status resize(mix_ctx *ctx, uint8_t *dst, const struct mix__image *src,
                         const struct span *down, const struct span *across,
                         const struct mix__window *w)
{
    const size_t stride = (size_t)w->columns * src->channels;
    struct taps x = { 0 }, y = { 0 };
    uint8_t *rows = NULL;
    int32_t *sums = NULL;
    mix_status status = taps_init(&x, ctx, across, w->width, w->left, w->columns);
    if (status == MIX_OK)
        status = taps_init(&y, ctx, down, w->height, w->top, w->rows);
    if (status == MIX_OK) {
        const int top = y.first[0], n = y.first[w->rows - 1] + y.count[w->rows - 1] - top;
        rows = mix__alloc(ctx, n, stride);
        sums = mix__alloc(ctx, stride, sizeof *sums);
        if (rows && sums) {
            resize_across(rows, src, down->first + top, across->first, n, &x, w->columns);
            resize_down(dst, rows, top, &y, w->rows, stride, sums);
        } else {
            status = MIX_ENOMEM;
        }
    }
    mix__free(ctx, rows);
    mix__free(ctx, sums);
    taps_release(ctx, &x);
    taps_release(ctx, &y);
    return status;
}

/* ---- views ---- */

enum {
    PREPARED_SIZE = 64, /* up to here the rule takes images as made for the network's size */
    LEFT = 4            /* a shrunk box is at least so many times as large as it is wanted */
};

/* Brings the shorter side to `shorter`; nothing is cut off yet. */
static struct mix__window whole_window(int height, int width, int shorter)
{
    struct mix__window w = { .height = shorter, .width = shorter };
    if (height < width)
        w.width = (int)((int64_t)shorter * width / height);
    else
        w.height = (int)((int64_t)shorter * height / width);
    w.rows = w.height;
    w.columns = w.width;
    return w;
}

static struct mix__box whole_box(int height, int width)
{
    return (struct mix__box){ .height = height, .width = width };
}

struct mix__view mix__view_fit(int height, int width, int size, int resize)
{
    const bool stays = resize == 0 && ((height == size && width == size) || size <= PREPARED_SIZE);
    const int shorter = resize ? resize : stays ? size : (int)lround(size * 256.0 / 224.0);
    struct mix__window w = whole_window(height, width, shorter);
    w.top = (int)nearbyint((w.height - size) / 2.0);
    w.left = (int)nearbyint((w.width - size) / 2.0);
    w.rows = w.columns = size;
    return (struct mix__view){ whole_box(height, width), w };
}

struct mix__view mix__view_crop(struct mix__box box, int size)
{
    return (struct mix__view){ box,
                               { .height = size, .width = size, .rows = size, .columns = size } };
}

struct mix__view mix__view_shorter(int height, int width, int size)
{
    const int now = height < width ? height : width;
    return (struct mix__view){ whole_box(height, width),
                               whole_window(height, width, size < now ? size : now) };
}

int mix__view_shrink(const struct mix__view *view)
{
    const struct mix__box *box = &view->box;
    const struct mix__window *w = &view->window;
    int shrink = 8;
    while (shrink > 1 && (box->height < (int64_t)LEFT * shrink * w->height ||
                          box->width < (int64_t)LEFT * shrink * w->width))
        shrink /= 2;
    return shrink;
}

static bool is_identity(const struct mix__image *image, const struct mix__view *view)
{
    const struct mix__box *b = &view->box;
    const struct mix__window *w = &view->window;
    return image->shrink <= 1 && b->height == image->height && b->width == image->width &&
           w->height == b->height && w->width == b->width && w->rows == b->height &&
           w->columns == b->width;
}

mix_status mix__image_view(mix_ctx *ctx, struct mix__image *image, const struct mix__view *view)
{
    const struct mix__window *w = &view->window;
    const int shrink = image->shrink ? image->shrink : 1;
    const struct span down = make_span(view->box.top, view->box.height, shrink);
    const struct span across = make_span(view->box.left, view->box.width, shrink);
    assert(down.first >= 0 && down.pixels > 0 && down.first + down.pixels <= image->height);
    assert(across.first >= 0 && across.pixels > 0 && across.first + across.pixels <= image->width);
    assert(w->rows > 0 && w->top >= 0 && w->top + w->rows <= w->height);
    assert(w->columns > 0 && w->left >= 0 && w->left + w->columns <= w->width);
    if (is_identity(image, view))
        return MIX_OK;
    uint8_t *pixels = mix__alloc(ctx, (size_t)w->rows * w->columns, image->channels);
    if (!pixels)
        return MIX_ENOMEM;
    const mix_status status = resize(ctx, pixels, image, &down, &across, w);
    if (status != MIX_OK) {
        mix__free(ctx, pixels);
        return status;
    }
    const int channels = image->channels;
    mix__image_release(ctx, image);
    *image = (struct mix__image){ pixels, w->rows, w->columns, channels, pixels, 1 };
    return MIX_OK;
}
