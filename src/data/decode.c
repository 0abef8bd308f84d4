/*
 * decode.c - JPEG (libjpeg-turbo) and PNG (libspng) files to RGB bytes.
 */
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>
#include <spng.h>

#include "base/file.h"
#include "data/image.h"

enum { SIDE_MAX = 65500, PIXELS_MAX = 400000000 };
#define FILE_MAX      ((size_t)1 << 30)
#define DEFLATE_RATIO 1032 /* the most bytes that one deflated byte can stand for */

struct source {
    mix_ctx *ctx;
    const char *path;
    const uint8_t *bytes;
    size_t size;
};

void mix__image_release(mix_ctx *ctx, struct mix__image *image)
{
    mix__free(ctx, image->owned);
    *image = (struct mix__image){ 0 };
}

static mix_status make_pixels(const struct source *source, struct mix__image *image,
                              uint32_t height, uint32_t width)
{
    if (height == 0 || width == 0 || height > SIDE_MAX || width > SIDE_MAX ||
        (uint64_t)height * width > PIXELS_MAX)
        return mix__fail(source->ctx, MIX_EFORMAT,
                         "%s: expected at most %d pixels a side and %d megapixels, found %lu x %lu",
                         source->path, SIDE_MAX, PIXELS_MAX / 1000000, (unsigned long)width,
                         (unsigned long)height);
    image->owned = mix__alloc(source->ctx, (size_t)height * width, 3);
    if (!image->owned)
        return MIX_ENOMEM;
    image->pixels = image->owned;
    image->height = (int)height;
    image->width = (int)width;
    image->channels = 3;
    return MIX_OK;
}

struct jpeg_reader {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    jmp_buf failed;
};

static void jpeg_fail(j_common_ptr jpeg)
{
    longjmp(((struct jpeg_reader *)jpeg)->failed, 1);
}

/* Called for warnings (level -1) and traces. The library goes on after damaged data with made-up
 * pixels; such an image counts as bad. */
static void jpeg_message(j_common_ptr jpeg, int level)
{
    const int code = jpeg->err->msg_code;
    if (level < 0 &&
        (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER || code == JWRN_HUFF_BAD_CODE))
        jpeg_fail(jpeg);
}

/* One row of CMYK to RGB. Adobe's files store the inverse of the ink, others the ink. */
static void convert_cmyk(uint8_t *rgb, const uint8_t *cmyk, int width, bool inverted)
{
    const uint8_t flip = inverted ? 0 : 255;
    for (int x = 0; x < width; x++, cmyk += 4, rgb += 3) {
        const int white = cmyk[3] ^ flip;
        for (int c = 0; c < 3; c++)
            rgb[c] = (uint8_t)(((cmyk[c] ^ flip) * white + 127) / 255);
    }
}

static mix_status read_jpeg(struct jpeg_reader *reader, const struct source *source,
                            struct mix__image *image)
{
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;
    if (setjmp(reader->failed)) {
        char text[JMSG_LENGTH_MAX];
        reader->errors.format_message((j_common_ptr)jpeg, text);
        const size_t left = jpeg->src ? jpeg->src->bytes_in_buffer : 0;
        return mix__fail(source->ctx, MIX_EFORMAT, "%s: bad JPEG near byte %zu: %s", source->path,
                         left < source->size ? source->size - left : 0, text);
    }
    jpeg_create_decompress(jpeg);
    jpeg_mem_src(jpeg, source->bytes, source->size);
    jpeg_read_header(jpeg, TRUE);
    const bool cmyk = jpeg->jpeg_color_space == JCS_CMYK || jpeg->jpeg_color_space == JCS_YCCK;
    jpeg->out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    MIX_TRY(make_pixels(source, image, jpeg->image_height, jpeg->image_width));
    jpeg_start_decompress(jpeg);
    const size_t stride = 3 * (size_t)image->width;
    JSAMPARRAY inks = NULL;
    if (cmyk)
        inks = jpeg->mem->alloc_sarray((j_common_ptr)jpeg, JPOOL_IMAGE, 4 * jpeg->image_width, 1);
    while (jpeg->output_scanline < jpeg->output_height) {
        JSAMPROW row = image->owned + jpeg->output_scanline * stride;
        jpeg_read_scanlines(jpeg, cmyk ? inks : &row, 1);
        if (cmyk)
            convert_cmyk(row, inks[0], image->width, jpeg->saw_Adobe_marker);
    }
    jpeg_finish_decompress(jpeg);
    return MIX_OK;
}

static mix_status decode_jpeg(const struct source *source, struct mix__image *image)
{
    struct jpeg_reader reader = { 0 };
    reader.jpeg.err = jpeg_std_error(&reader.errors);
    reader.errors.error_exit = jpeg_fail;
    reader.errors.emit_message = jpeg_message;
    const mix_status status = read_jpeg(&reader, source, image);
    jpeg_destroy_decompress(&reader.jpeg);
    return status;
}

static mix_status png_failed(const struct source *source, int error)
{
    return mix__fail(source->ctx, MIX_EFORMAT, "%s: bad PNG: %s", source->path,
                     spng_strerror(error));
}

static mix_status read_png(spng_ctx *png, const struct source *source, struct mix__image *image)
{
    struct spng_ihdr header;
    int error = spng_set_png_buffer(png, source->bytes, source->size);
    if (error || (error = spng_get_ihdr(png, &header)))
        return png_failed(source, error);
    static const uint8_t samples[7] = { 1, 0, 3, 1, 2, 0, 4 }; /* of a pixel, by color type */
    const uint64_t bits = (uint64_t)samples[header.color_type] * header.bit_depth;
    if (bits * header.width * header.height / 8 / DEFLATE_RATIO > source->size)
        return mix__fail(source->ctx, MIX_EFORMAT,
                         "%s: its header promises %lu x %lu pixels, which a file of %zu bytes "
                         "cannot hold",
                         source->path, (unsigned long)header.width, (unsigned long)header.height,
                         source->size);
    MIX_TRY(make_pixels(source, image, header.height, header.width));
    error = spng_decode_image(png, image->owned, 3 * (size_t)header.height * header.width,
                              SPNG_FMT_RGB8, 0);
    return error ? png_failed(source, error) : MIX_OK;
}

static mix_status decode_png(const struct source *source, struct mix__image *image)
{
    spng_ctx *png = spng_ctx_new(0);
    if (!png)
        return mix__fail(source->ctx, MIX_ENOMEM, "%s: no memory for a PNG decoder", source->path);
    const mix_status status = read_png(png, source, image);
    spng_ctx_free(png);
    return status;
}

static mix_status decode(const struct source *source, struct mix__image *image)
{
    static const uint8_t jpeg[3] = { 0xff, 0xd8, 0xff };
    static const uint8_t png[8] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' };
    if (source->size >= sizeof jpeg && memcmp(source->bytes, jpeg, sizeof jpeg) == 0)
        return decode_jpeg(source, image);
    if (source->size >= sizeof png && memcmp(source->bytes, png, sizeof png) == 0)
        return decode_png(source, image);
    if (source->size < sizeof png)
        return mix__fail(source->ctx, MIX_EFORMAT,
                         "%s: expected a JPEG or PNG image, found a file of %zu bytes",
                         source->path, source->size);
    return mix__fail(source->ctx, MIX_EFORMAT,
                     "%s: expected a JPEG or PNG image, found bytes %02x %02x %02x %02x at byte 0",
                     source->path, source->bytes[0], source->bytes[1], source->bytes[2],
                     source->bytes[3]);
}

mix_status mix__image_decode(mix_ctx *ctx, const char *path, struct mix__image *image)
{
    *image = (struct mix__image){ 0 };
    char *bytes;
    size_t size;
    MIX_TRY(mix__file_read(ctx, path, FILE_MAX, &bytes, &size));
    const struct source source = { ctx, path, (const uint8_t *)bytes, size };
    const mix_status status = decode(&source, image);
    if (status != MIX_OK)
        mix__image_release(ctx, image);
    mix__free(ctx, bytes);
    return status;
}
