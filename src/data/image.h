/*
 * data/image.h - one image: decoding, resizing, augmenting.
 *
 * Pixels are bytes (h,w,c), rows without gaps, c = 3 (RGB) or 1 (gray). From file to network:
 *
 *   source --decode at 1/shrink--> image --a view: box, resized, window--> (size,size,c)
 *          --normalise--> floats
 */
#ifndef METAMIX_DATA_IMAGE_H
#define METAMIX_DATA_IMAGE_H

#include "base/ctx.h"
#include "metamix/data.h"

enum {
    MIX__SIDE_MAX = 65500,    /* pixels: what a JPEG may have                       */
    MIX__DEFLATE_RATIO = 1032 /* the most bytes that one deflated byte can stand for */
};

/* An image file in memory. */
struct mix__source {
    const char *name; /* for error sentences */
    const uint8_t *bytes;
    size_t size;
};

struct mix__image {
    const uint8_t *pixels;
    int height, width, channels;
    uint8_t *owned; /* the pixels when this image has its own, else NULL            */
    int shrink;     /* decoded at 1/shrink of the file's size, rounded up; 0 is 1   */
};
void mix__image_release(mix_ctx *ctx, struct mix__image *image);

/* What the header says, or the errors of decoding as far as the header shows them. Any thread. */
MIX_CHECKED mix_status mix__source_size(mix_ctx *ctx, const struct mix__source *source, int *height,
                                        int *width);

/*
 * A JPEG or PNG file, told apart by the first bytes, as RGB. Gray is replicated, CMYK converted
 * without a color profile, alpha dropped, 16 bits cut to 8, orientation tags ignored. Damage that
 * the libraries would paint over (a file that ends early, bad Huffman codes) is an error.
 * shrink: 1, 2, 4 or 8; a PNG is decoded at full size whatever is asked for.
 * Errors: MIX_EFORMAT, MIX_ENOMEM. Any thread.
 */
MIX_CHECKED mix_status mix__image_decode(mix_ctx *ctx, const struct mix__source *source, int shrink,
                                         struct mix__image *image);

/* A JPEG (4:4:4, optimised) of an RGB image; *bytes is the caller's, for mix__free().
 * Error: MIX_ENOMEM. */
MIX_CHECKED mix_status mix__image_encode(mix_ctx *ctx, const struct mix__image *image, int quality,
                                         uint8_t **bytes, size_t *size);

/* RGB becomes gray, see mix_image_read(). The pixels are the image's own. */
void mix__image_gray(struct mix__image *image);

/* Pixels of the file at full size. */
struct mix__box {
    int top, left, height, width;
};

/* A box is resized to (height,width); (rows,columns) pixels from (top,left) on are kept. */
struct mix__window {
    int height, width, top, left, rows, columns;
};

struct mix__view {
    struct mix__box box;
    struct mix__window window;
};

/*
 * Evaluation: the whole image of height x width with its shorter side brought to resize, the longer
 * one in proportion, rounded down, and size x size from the center: torchvision's Resize and
 * CenterCrop. resize 0: by rule, see mix_data_options.
 */
struct mix__view mix__view_fit(int height, int width, int size, int resize);
/* The box brought to size x size. */
struct mix__view mix__view_crop(struct mix__box box, int size);
/* The whole image with its shorter side brought to size; as it is when that is no larger. */
struct mix__view mix__view_shorter(int height, int width, int size);

/* The largest shrink that leaves the box at least four times as large as the view wants it. Then
 * the decoder's averages instead of the whole triangle filter change the mean by less than 0.6 grey
 * levels even on white noise, and 0.4 on photos (tests/peers; with twice it would be 2.3 and 1.3).
 */
int mix__view_shrink(const struct mix__view *view);

/*
 * The image becomes its view. Antialiased bilinear: Pillow's triangle filter on the box alone, its
 * 22-bit coefficients and its rounding to bytes between the horizontal and the vertical pass.
 * Error: MIX_ENOMEM, and the image is as before.
 */
MIX_CHECKED mix_status mix__image_view(mix_ctx *ctx, struct mix__image *image,
                                       const struct mix__view *view);
/* Decodes the source, shrunk as far as the view allows, to its view; release it with
 * mix__image_release(). Any thread. */
MIX_CHECKED mix_status mix__source_view(mix_ctx *ctx, const struct mix__source *source,
                                        const struct mix__view *view, struct mix__image *image);

/* Where an image's random numbers begin: MIX__RANDOM_AUGMENT's stream, position in the epoch. */
struct mix__draws {
    uint64_t seed, stream, position;
};
bool mix__draw_flip(const struct mix__draws *draws);
/* Shift in [-padding, padding]. */
void mix__draw_shift(const struct mix__draws *draws, int padding, int *dy, int *dx);
/* Cutout (DeVries and Taylor, arXiv 1708.04552): the part inside size x size of a square of this
 * side, 1..size, around a pixel drawn uniformly. */
struct mix__box mix__draw_hole(const struct mix__draws *draws, int size, int side);
/* torchvision's RandomResizedCrop: area 0.08..1, aspect ratio 3/4..4/3, ten tries, then the
 * largest center box with an allowed ratio. */
struct mix__box mix__draw_box(const struct mix__draws *draws, int height, int width);

/* What auto means for images of so many channels. */
mix_normalize mix__normalize_auto(int channels);

/* The network sees (x - mean) / deviation for x in 0..1. how: not MIX_NORMALIZE_AUTO */
void mix__normalize_values(mix_normalize how, float mean[3], float deviation[3]);

/* Normalised value of each byte in each channel. */
struct mix__normaliser {
    mix_normalize how; /* auto: by mean and deviation of the options */
    float value[3][256];
};
/* As the options say for images of so many channels, which are options->channels unless that is 0;
 * what (a path) opens the sentence. MIX_EINVAL. */
MIX_CHECKED mix_status mix__normaliser_init(struct mix__normaliser *normaliser, mix_ctx *ctx,
                                            const char *what, const mix_data_options *options,
                                            int channels);

/* out (size,size,c): pixel (y,x) is the image's (y + dy, x + dx), 0 outside; then mirrored. */
void mix__image_normalise(float *out, const struct mix__image *image, int dy, int dx, bool flip,
                          const struct mix__normaliser *normaliser);
/* out (size,size,channels): 0 inside the hole. */
void mix__erase(float *out, int size, int channels, struct mix__box hole);

#endif
