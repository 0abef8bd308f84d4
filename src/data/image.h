/*
 * data/image.h - one image: decoding, resizing, augmenting.
 *
 * Pixels are bytes (h,w,c), rows without gaps, c = 3 (RGB) or 1 (gray).
 */
#ifndef METAMIX_DATA_IMAGE_H
#define METAMIX_DATA_IMAGE_H

#include "base/ctx.h"

struct mix__image {
    const uint8_t *pixels;
    int height, width, channels;
    uint8_t *owned; /* the pixels when this image has its own, else NULL */
};
void mix__image_release(mix_ctx *ctx, struct mix__image *image);

/*
 * A JPEG or PNG file, told apart by the first bytes, as RGB. Gray is replicated, CMYK converted
 * without a color profile, alpha dropped, 16 bits cut to 8, orientation tags ignored. Damage that
 * the libraries would paint over (a file that ends early, bad Huffman codes) is an error.
 * Errors: MIX_EIO, MIX_EFORMAT, MIX_ENOMEM. Any thread.
 */
MIX_CHECKED mix_status mix__image_decode(mix_ctx *ctx, const char *path, struct mix__image *image);

struct mix__box {
    int top, left, height, width;
};

/*
 * dst (side,side,c) = a window of the box of src resized to (height,width); the window's first
 * pixel is (top,left) there. Antialiased bilinear: Pillow's triangle filter, its 22-bit
 * coefficients and its rounding to bytes between the horizontal and the vertical pass.
 * Error: MIX_ENOMEM.
 */
struct mix__window {
    int height, width, top, left, side;
};
MIX_CHECKED mix_status mix__image_resize(mix_ctx *ctx, uint8_t *dst, const struct mix__image *src,
                                         struct mix__box box, struct mix__window window);

/*
 * The evaluation geometry, in place: an image of size x size stays; else its shorter side becomes
 * round(size * 256 / 224) when size > 64 and size otherwise, then the center is cropped.
 */
MIX_CHECKED mix_status mix__image_fit(mix_ctx *ctx, struct mix__image *image, int size);

/* The box brought to size x size, in place. */
MIX_CHECKED mix_status mix__image_crop(mix_ctx *ctx, struct mix__image *image, struct mix__box box,
                                       int size);

/* Where an image's random numbers begin: MIX__RANDOM_AUGMENT's stream, position in the epoch. */
struct mix__draws {
    uint64_t seed, stream, position;
};
bool mix__draw_flip(const struct mix__draws *draws);
/* Shift in [-padding, padding]. */
void mix__draw_shift(const struct mix__draws *draws, int padding, int *dy, int *dx);
/* torchvision's RandomResizedCrop: area 0.08..1, aspect ratio 3/4..4/3, ten tries, then the
 * largest center box with an allowed ratio. */
struct mix__box mix__draw_box(const struct mix__draws *draws, int height, int width);

/* Normalised value of each byte in each channel. */
struct mix__normaliser {
    float value[3][256];
};
void mix__normaliser_init(struct mix__normaliser *normaliser, int channels);

/* out (size,size,c): pixel (y,x) is the image's (y + dy, x + dx), 0 outside; then mirrored. */
void mix__image_normalise(float *out, const struct mix__image *image, int dy, int dx, bool flip,
                          const struct mix__normaliser *normaliser);

#endif
