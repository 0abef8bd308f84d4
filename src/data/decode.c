/*
 * decode.c - JPEG (libjpeg-turbo) and PNG (libspng) files to RGB bytes.
 */
#include <assert.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>
#include <spng.h>

#include "data/image.h"

enum { PIXELS_MAX = 400000000 };
/* Of a progressive JPEG: each takes the time of the whole picture, at next to no bytes. */
enum { SCANS_MAX = 100 };
/* Of a PNG's chunks besides pixels, such as color profiles, which are unpacked: one, all. */
enum { CHUNK_BYTES_MAX = 64 << 20, CHUNKS_BYTES_MAX = 128 << 20 };

/* What to do with a source: decode it at 1/shrink of its size, or with shrink 0 find its size. */
struct job {
    mix_ctx *ctx;
    const char *name;
    const uint8_t *bytes;
    size_t size;
    int shrink;
};

void mix__image_release(mix_ctx *ctx, struct mix__image *image)
{
    mix__free(ctx, image->owned);
    *image = (struct mix__image){ 0 };
}

static mix_status check_size(const struct job *job, uint32_t height, uint32_t width)
{
    if (height == 0 || width == 0 || height > MIX__SIDE_MAX || width > MIX__SIDE_MAX ||
        (uint64_t)height * width > PIXELS_MAX)
        return mix__fail(job->ctx, MIX_EFORMAT,
                         "%s: expected at most %d pixels a side and %d megapixels, found %lu x %lu",
                         job->name, MIX__SIDE_MAX, PIXELS_MAX / 1000000, (unsigned long)width,
                         (unsigned long)height);
    return MIX_OK;
}

/* Without the pixels when only the size is wanted. */
static mix_status make_image(const struct job *job, struct mix__image *image, uint32_t height,
                             uint32_t width)
{
    *image = (struct mix__image){
        .height = (int)height, .width = (int)width, .channels = 3, .shrink = job->shrink
    };
    if (job->shrink == 0)
        return MIX_OK;
    image->owned = mix__alloc(job->ctx, (size_t)height * width, 3);
    image->pixels = image->owned;
    return image->owned ? MIX_OK : MIX_ENOMEM;
}

struct jpeg_reader {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf failed;
};

static void jpeg_fail(j_common_ptr jpeg)
{
    longjmp(((struct jpeg_reader *)jpeg)->failed, 1);
}

static void jpeg_progress(j_common_ptr jpeg)
{
    if (((struct jpeg_decompress_struct *)jpeg)->input_scan_number > SCANS_MAX)
        jpeg_fail(jpeg);
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

/*
 * One row of CMYK to RGB. Whatever the markers say, the inverse of the ink is taken to be stored,
 * as Adobe's files do and Pillow assumes: stored values are the light that each ink lets through.
 */
static void convert_cmyk(uint8_t *rgb, const uint8_t *cmyk, int width)
{
    for (int x = 0; x < width; x++, cmyk += 4, rgb += 3) {
        for (int c = 0; c < 3; c++) {
            const int ink = (255 - cmyk[c]) * cmyk[3] + 128;
            const int light = cmyk[3] - ((ink + (ink >> 8)) >> 8); /* ink / 255, rounded */
            rgb[c] = (uint8_t)(light < 0 ? 0 : light);
        }
    }
}

static mix_status read_jpeg(struct jpeg_reader *reader, const struct job *job,
                            struct mix__image *image)
{
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;
    if (setjmp(reader->failed)) {
        if (jpeg->input_scan_number > SCANS_MAX)
            return mix__fail(job->ctx, MIX_EFORMAT,
                             "%s: bad JPEG: expected at most %d scans, found more", job->name,
                             SCANS_MAX);
        char text[JMSG_LENGTH_MAX];
        reader->errors.format_message((j_common_ptr)jpeg, text);
        const size_t left = jpeg->src ? jpeg->src->bytes_in_buffer : 0;
        return mix__fail(job->ctx, MIX_EFORMAT, "%s: bad JPEG near byte %zu: %s", job->name,
                         left < job->size ? job->size - left : 0, text);
    }
    jpeg_create_decompress(jpeg);
    jpeg->progress = &reader->progress;
    jpeg_mem_src(jpeg, job->bytes, job->size);
    jpeg_read_header(jpeg, TRUE);
    const bool cmyk = jpeg->jpeg_color_space == JCS_CMYK || jpeg->jpeg_color_space == JCS_YCCK;
    jpeg->out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    jpeg->scale_num = 1;
    jpeg->scale_denom = job->shrink ? job->shrink : 1;
    jpeg_calc_output_dimensions(jpeg);
    MIX_TRY(check_size(job, jpeg->image_height, jpeg->image_width));
    MIX_TRY(make_image(job, image, jpeg->output_height, jpeg->output_width));
    if (job->shrink == 0)
        return MIX_OK;
    jpeg_start_decompress(jpeg);
    const size_t stride = 3 * (size_t)image->width;
    JSAMPARRAY inks = NULL;
    if (cmyk)
        inks = jpeg->mem->alloc_sarray((j_common_ptr)jpeg, JPOOL_IMAGE, 4 * jpeg->output_width, 1);
    while (jpeg->output_scanline < jpeg->output_height) {
        JSAMPROW row = image->owned + jpeg->output_scanline * stride;
        jpeg_read_scanlines(jpeg, cmyk ? inks : &row, 1);
        if (cmyk)
            convert_cmyk(row, inks[0], image->width);
    }
    jpeg_finish_decompress(jpeg);
    return MIX_OK;
}

static mix_status decode_jpeg(const struct job *job, struct mix__image *image)
{
    struct jpeg_reader reader = { .progress.progress_monitor = jpeg_progress };
    reader.jpeg.err = jpeg_std_error(&reader.errors);
    reader.errors.error_exit = jpeg_fail;
    reader.errors.emit_message = jpeg_message;
    const mix_status status = read_jpeg(&reader, job, image);
    jpeg_destroy_decompress(&reader.jpeg);
    return status;
}

static mix_status png_failed(const struct job *job, int error)
{
    return mix__fail(job->ctx, MIX_EFORMAT, "%s: bad PNG: %s", job->name, spng_strerror(error));
}

static mix_status read_png(spng_ctx *png, const struct job *job, struct mix__image *image)
{
    struct spng_ihdr header;
    int error = spng_set_chunk_limits(png, CHUNK_BYTES_MAX, CHUNKS_BYTES_MAX);
    if (error || (error = spng_set_png_buffer(png, job->bytes, job->size)) ||
        (error = spng_get_ihdr(png, &header)))
        return png_failed(job, error);
    static const uint8_t samples[7] = { 1, 0, 3, 1, 2, 0, 4 }; /* of a pixel, by color type */
    const uint64_t bits = (uint64_t)samples[header.color_type] * header.bit_depth;
    if (bits * header.width * header.height / 8 / MIX__DEFLATE_RATIO > job->size)
        return mix__fail(job->ctx, MIX_EFORMAT,
                         "%s: its header promises %lu x %lu pixels, which a file of %zu bytes "
                         "cannot hold",
                         job->name, (unsigned long)header.width, (unsigned long)header.height,
                         job->size);
    MIX_TRY(check_size(job, header.height, header.width));
    MIX_TRY(make_image(job, image, header.height, header.width));
    if (job->shrink == 0)
        return MIX_OK;
    image->shrink = 1;
    error = spng_decode_image(png, image->owned, 3 * (size_t)header.height * header.width,
                              SPNG_FMT_RGB8, 0);
    return error ? png_failed(job, error) : MIX_OK;
}

static mix_status decode_png(const struct job *job, struct mix__image *image)
{
    spng_ctx *png = spng_ctx_new(0);
    if (!png)
        return mix__fail(job->ctx, MIX_ENOMEM, "%s: no memory for a PNG decoder", job->name);
    const mix_status status = read_png(png, job, image);
    spng_ctx_free(png);
    return status;
}

static mix_status decode(const struct job *job, struct mix__image *image)
{
    static const uint8_t jpeg[3] = { 0xff, 0xd8, 0xff };
    static const uint8_t png[8] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' };
    if (job->size >= sizeof jpeg && memcmp(job->bytes, jpeg, sizeof jpeg) == 0)
        return decode_jpeg(job, image);
    if (job->size >= sizeof png && memcmp(job->bytes, png, sizeof png) == 0)
        return decode_png(job, image);
    if (job->size < sizeof png)
        return mix__fail(job->ctx, MIX_EFORMAT,
                         "%s: expected a JPEG or PNG image, found a file of %zu bytes", job->name,
                         job->size);
    return mix__fail(job->ctx, MIX_EFORMAT,
                     "%s: expected a JPEG or PNG image, found bytes %02x %02x %02x %02x at byte 0",
                     job->name, job->bytes[0], job->bytes[1], job->bytes[2], job->bytes[3]);
}

static mix_status run(mix_ctx *ctx, const struct mix__source *source, int shrink,
                      struct mix__image *image)
{
    const struct job job = { ctx, source->name, source->bytes, source->size, shrink };
    *image = (struct mix__image){ 0 };
    const mix_status status = decode(&job, image);
    if (status != MIX_OK)
        mix__image_release(ctx, image);
    return status;
}

mix_status mix__source_size(mix_ctx *ctx, const struct mix__source *source, int *height, int *width)
{
    struct mix__image image;
    MIX_TRY(run(ctx, source, 0, &image));
    *height = image.height;
    *width = image.width;
    return MIX_OK;
}

mix_status mix__image_decode(mix_ctx *ctx, const struct mix__source *source, int shrink,
                             struct mix__image *image)
{
    assert(shrink == 1 || shrink == 2 || shrink == 4 || shrink == 8);
    return run(ctx, source, shrink, image);
}
