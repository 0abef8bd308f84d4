/*
 * encode.c - RGB bytes to a JPEG file in memory (libjpeg-turbo).
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include "data/image.h"

struct jpeg_writer {
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    jmp_buf failed;
    unsigned char *bytes; /* malloc's */
    unsigned long size;
};

static void jpeg_fail(j_common_ptr jpeg)
{
    longjmp(((struct jpeg_writer *)jpeg)->failed, 1);
}

static mix_status write_jpeg(struct jpeg_writer *writer, mix_ctx *ctx,
                             const struct mix__image *image, int quality)
{
    struct jpeg_compress_struct *jpeg = &writer->jpeg;
    if (setjmp(writer->failed)) {
        char text[JMSG_LENGTH_MAX];
        writer->errors.format_message((j_common_ptr)jpeg, text);
        return mix__fail(ctx, MIX_ENOMEM, "an image of %d x %d pixels cannot be encoded: %s",
                         image->width, image->height, text);
    }
    jpeg_create_compress(jpeg);
    jpeg_mem_dest(jpeg, &writer->bytes, &writer->size);
    jpeg->image_height = image->height;
    jpeg->image_width = image->width;
    jpeg->input_components = 3;
    jpeg->in_color_space = JCS_RGB;
    jpeg_set_defaults(jpeg);
    jpeg_set_quality(jpeg, quality, TRUE);
    jpeg->optimize_coding = TRUE;
    jpeg->comp_info[0].h_samp_factor = jpeg->comp_info[0].v_samp_factor = 1; /* 4:4:4 */
    jpeg_start_compress(jpeg, TRUE);
    while (jpeg->next_scanline < jpeg->image_height) {
        const size_t at = (size_t)jpeg->next_scanline * image->width * 3;
        JSAMPROW row = (JSAMPROW)(uintptr_t)(image->pixels + at);
        jpeg_write_scanlines(jpeg, &row, 1);
    }
    jpeg_finish_compress(jpeg);
    return MIX_OK;
}

mix_status mix__image_encode(mix_ctx *ctx, const struct mix__image *image, int quality,
                             uint8_t **bytes, size_t *size)
{
    struct jpeg_writer writer = { .bytes = NULL };
    *bytes = NULL;
    writer.jpeg.err = jpeg_std_error(&writer.errors);
    writer.errors.error_exit = jpeg_fail;
    mix_status status = write_jpeg(&writer, ctx, image, quality);
    if (status == MIX_OK) {
        *size = writer.size;
        *bytes = mix__alloc(ctx, writer.size, 1);
        if (*bytes)
            memcpy(*bytes, writer.bytes, writer.size);
        else
            status = MIX_ENOMEM;
    }
    jpeg_destroy_compress(&writer.jpeg);
    free(writer.bytes);
    return status;
}
