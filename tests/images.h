/*
 * images.h - writes small image files for the tests of data sets.
 */
#ifndef METAMIX_TESTS_IMAGES_H
#define METAMIX_TESTS_IMAGES_H

#include "support.h"

#include <sys/stat.h>

#include <jpeglib.h>
#include <spng.h>
#include <zlib.h>

/* An IDX file in memory: (sizes[0], ...) bytes of data behind the header; returns its size. */
static inline size_t make_idx(uint8_t *file, int rank, const uint32_t *sizes, const uint8_t *data)
{
    size_t n = 4, total = 1;
    memcpy(file, (uint8_t[]){ 0, 0, 8, (uint8_t)rank }, 4);
    for (int i = 0; i < rank; i++) {
        for (int b = 24; b >= 0; b -= 8)
            file[n++] = (uint8_t)(sizes[i] >> b);
        total *= sizes[i];
    }
    memcpy(file + n, data, total);
    return n + total;
}

static inline void write_gzip(const char *path, const void *bytes, size_t size)
{
    gzFile f = gzopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(gzwrite(f, bytes, (unsigned)size), size);
    assert_int_equal(gzclose(f), Z_OK);
}

/* pixels (h,w,c): c = 1 gray, 3 RGB, 4 CMYK (libjpeg marks it as Adobe's); stored: as in the file,
 * JCS_UNKNOWN: libjpeg's choice. */
static inline void write_jpeg_as(const char *path, const uint8_t *pixels, int h, int w, int c,
                                 J_COLOR_SPACE stored)
{
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_stdio_dest(&jpeg, f);
    jpeg.image_height = h;
    jpeg.image_width = w;
    jpeg.input_components = c;
    jpeg.in_color_space = c == 1 ? JCS_GRAYSCALE : c == 3 ? JCS_RGB : JCS_CMYK;
    jpeg_set_defaults(&jpeg);
    if (stored != JCS_UNKNOWN)
        jpeg_set_colorspace(&jpeg, stored);
    jpeg_set_quality(&jpeg, 100, TRUE);
    jpeg_start_compress(&jpeg, TRUE);
    while (jpeg.next_scanline < jpeg.image_height) {
        JSAMPROW row = (JSAMPROW)(uintptr_t)(pixels + (size_t)jpeg.next_scanline * w * c);
        jpeg_write_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    assert_int_equal(fclose(f), 0);
}

static inline void write_jpeg(const char *path, const uint8_t *pixels, int h, int w, int c)
{
    write_jpeg_as(path, pixels, h, w, c, JCS_UNKNOWN);
}

/* pixels (h,w,c) bytes: c = 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA; a color profile of so many
 * zero bytes, 0: none. */
static inline void write_png_with(const char *path, const uint8_t *pixels, int h, int w, int c,
                                  size_t profile)
{
    static const uint8_t types[] = { 0, 0, 4, 2, 6 };
    struct spng_ihdr header = { .height = h, .width = w, .bit_depth = 8, .color_type = types[c] };
    spng_ctx *png = spng_ctx_new(SPNG_CTX_ENCODER);
    FILE *f = fopen(path, "wb");
    assert_non_null(png);
    assert_non_null(f);
    assert_int_equal(spng_set_png_file(png, f), 0);
    assert_int_equal(spng_set_ihdr(png, &header), 0);
    struct spng_iccp iccp = { "zeros", profile, profile ? calloc(profile, 1) : NULL };
    if (profile)
        assert_int_equal(spng_set_iccp(png, &iccp), 0);
    assert_int_equal(
        spng_encode_image(png, pixels, (size_t)h * w * c, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE), 0);
    spng_ctx_free(png);
    free(iccp.profile);
    assert_int_equal(fclose(f), 0);
}

static inline void write_png(const char *path, const uint8_t *pixels, int h, int w, int c)
{
    write_png_with(path, pixels, h, w, c, 0);
}

/* A JPEG of one color. */
static inline void write_plain(const char *path, int h, int w, int r, int g, int b)
{
    uint8_t *pixels = malloc((size_t)h * w * 3);
    assert_non_null(pixels);
    for (int i = 0; i < h * w; i++)
        memcpy(pixels + 3 * i, (uint8_t[]){ (uint8_t)r, (uint8_t)g, (uint8_t)b }, 3);
    write_jpeg(path, pixels, h, w, 3);
    free(pixels);
}

/* Writes a file again without its last bytes. */
static inline void cut_file(const char *path, size_t bytes)
{
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(truncate(path, info.st_size - (off_t)bytes), 0);
}

#endif
