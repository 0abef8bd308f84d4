/*
 * test_read.c - images read without training: those of evaluation, bit for bit; files that are not
 * what they seem; options that cannot be.
 */
#include "images.h"

#include <math.h>

#include "data/batches.h"
#include "metamix/data.h"

enum { SIZE = 20, VALUES = SIZE * SIZE * 3 };

static const float mean[3] = { 0.1f, 0.2f, 0.3f }, deviation[3] = { 0.5f, 0.7f, 1.0f };

static mix_data_options wanted(int size, int channels)
{
    mix_data_options o;
    mix_data_options_init(&o);
    o.size = size;
    o.channels = channels;
    o.mean = mean;
    o.deviation = deviation;
    return o;
}

/* (h,w,c) bytes without a pattern. */
static void noise(uint8_t *pixels, int h, int w, int c)
{
    for (int i = 0; i < h * w * c; i++)
        pixels[i] = (uint8_t)((unsigned)i * 2654435761u >> 13);
}

/* RGB and CMYK JPEGs, PNGs with and without alpha, of other sizes and shapes than the network's. */
static void write_set(void)
{
    uint8_t pixels[90 * 60 * 4];
    noise(pixels, 90, 60, 4);
    for (int split = 0; split < MIX_SPLITS; split++) {
        assert_int_equal(mkdir(split ? "val" : "train", 0700), 0);
        assert_int_equal(chdir(split ? "val" : "train"), 0);
        assert_int_equal(mkdir("cat", 0700) + mkdir("dog", 0700), 0);
        write_jpeg("cat/1.jpg", pixels, 60, 90, 3);
        write_jpeg("cat/2.jpg", pixels, 31, 20, 4);
        write_png("cat/3.png", pixels, 20, 20, 3);
        write_png("dog/4.png", pixels, 5, 7, 1);
        write_png("dog/5.png", pixels, 25, 80, 4);
        assert_int_equal(chdir(".."), 0);
    }
}

static void test_as_evaluation(void **unused)
{
    enum { IMAGES = 5 };
    static float images[IMAGES * VALUES];
    const struct mix__batches_options all = { .split = MIX_VAL, .batch = IMAGES, .threads = 1 };
    struct mix__batches *batches;
    struct mix__batch batch;
    mix_data *data;
    int labels[IMAGES];
    (void)unused;
    enter_folder();
    write_set();
    mix_ctx *ctx = plain_ctx();
    for (int i = 0; i < 4; i++) { /* in memory or not, both rules of resizing */
        mix_data_options o = wanted(SIZE, i % 2 ? 3 : 0);
        if (!o.channels)
            o.mean = o.deviation = NULL;
        o.memory_limit = i < 2 ? o.memory_limit : 0;
        o.resize = i % 2 ? 0 : 24;
        CHECK_OK(mix_data_open(&data, ctx, ".", &o));
        CHECK_OK(mix__batches_new(&batches, data, &all));
        CHECK_OK(mix__batches_seek(batches, 0, 0));
        CHECK_OK(mix__batches_next(batches, &batch));
        CHECK_OK(mix_data_read(data, MIX_VAL, 0, IMAGES, images, labels));
        assert_memory_equal(images, batch.images, sizeof images);
        assert_memory_equal(labels, batch.labels, sizeof labels);
        memset(images, 0, sizeof images);
        CHECK_OK(mix_data_read(data, MIX_VAL, 3, 2, images, labels));
        assert_memory_equal(images, batch.images + 3 * VALUES, 2 * VALUES * sizeof *images);
        assert_true(labels[0] == 1 && labels[1] == 1 && images[2 * VALUES] == 0);
        CHECK_OK(mix_data_read(data, MIX_VAL, IMAGES, 0, images, labels));
        CHECK_FAILS(ctx, mix_data_read(data, MIX_VAL, 4, 2, images, labels), MIX_EINVAL,
                    "2 images from image 4 on; there are 5");
        CHECK_FAILS(ctx, mix_data_read(data, MIX_VAL, SIZE_MAX, 2, images, labels), MIX_EINVAL, "");
        CHECK_FAILS(ctx, mix_data_read(data, MIX_VAL, 0, -1, images, labels), MIX_EINVAL, "");
        CHECK_OK(mix_image_read(ctx, "val/dog/5.png", &o, images));
        assert_memory_equal(images, batch.images + 4 * VALUES, VALUES * sizeof *images);
        CHECK_OK(mix_image_read(ctx, "val/cat/2.jpg", &o, images));
        assert_memory_equal(images, batch.images + VALUES, VALUES * sizeof *images);
        mix__batches_free(batches);
        mix_data_free(data);
    }
    mix_ctx_free(ctx);
    leave_folder();
}

static void test_given_normalisation(void **unused)
{
    uint8_t pixels[4 * 4 * 3];
    float image[4 * 4 * 3];
    (void)unused;
    enter_folder();
    noise(pixels, 4, 4, 3);
    write_png("a.png", pixels, 4, 4, 3);
    mix_ctx *ctx = plain_ctx();
    const mix_data_options color = wanted(4, 3), gray = wanted(4, 1);
    CHECK_OK(mix_image_read(ctx, "a.png", &color, image));
    for (int i = 0; i < 4 * 4 * 3; i++)
        assert_true(image[i] == (pixels[i] / 255.0f - mean[i % 3]) / deviation[i % 3]);
    CHECK_OK(mix_image_read(ctx, "a.png", &gray, image));
    for (int i = 0; i < 4 * 4; i++) {
        const uint8_t *p = pixels + 3 * i;
        const double luma = (0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2]) / 255.0;
        assert_true(fabs((luma - (double)mean[0]) / (double)deviation[0] - (double)image[i]) <
                    0.501 / 255.0 / (double)deviation[0]);
    }
    write_png("a.png", pixels, 4, 4, 1); /* gray stays as it is */
    CHECK_OK(mix_image_read(ctx, "a.png", &gray, image));
    for (int i = 0; i < 4 * 4; i++)
        assert_true(image[i] == (pixels[i] / 255.0f - mean[0]) / deviation[0]);
    mix_ctx_free(ctx);
    leave_folder();
}

static void test_bad_files(void **unused)
{
    static float image[VALUES];
    static const char *const files[] = { "a.jpg", "a.png" };
    uint8_t pixels[60 * 60 * 3];
    (void)unused;
    enter_folder();
    mix_ctx *ctx = plain_ctx();
    const mix_data_options o = wanted(SIZE, 3);
    noise(pixels, 60, 60, 3);
    for (int i = 0; i < 2; i++) {
        struct stat info;
        for (int cut = 0; cut < 12; cut++) {
            write_jpeg("a.jpg", pixels, 60, 60, 3);
            write_png("a.png", pixels, 60, 60, 3);
            assert_int_equal(stat(files[i], &info), 0);
            cut_file(files[i], (size_t)(20 + (info.st_size - 20) * cut / 11));
            CHECK_FAILS(ctx, mix_image_read(ctx, files[i], &o, image), MIX_EFORMAT, files[i]);
        }
    }
    CHECK_FAILS(ctx, mix_image_read(ctx, "none.jpg", &o, image), MIX_EIO, "none.jpg");
    CHECK_FAILS(ctx, mix_image_read(ctx, ".", &o, image), MIX_EIO, ".");
    write_bytes("text.jpg", "no image at all", 15);
    CHECK_FAILS(ctx, mix_image_read(ctx, "text.jpg", &o, image), MIX_EFORMAT,
                "text.jpg: expected a JPEG or PNG image, found bytes 6e 6f 20 69 at byte 0");
    mix_ctx_free(ctx);
    leave_folder();
}

/* The first bad image in the set's order is named, whatever the threads do. */
static void test_bad_set(void **unused)
{
    static float images[5 * VALUES];
    mix_data *data;
    int labels[5];
    mix_ctx *ctx;
    mix_ctx_options options;
    mix_data_options o = wanted(SIZE, 3);
    (void)unused;
    enter_folder();
    write_set();
    mix_ctx_options_init(&options);
    options.threads = 4;
    CHECK_OK(mix_ctx_new(&ctx, &options));
    o.memory_limit = 0;
    CHECK_OK(mix_data_open(&data, ctx, ".", &o));
    for (int i = 0; i < 10; i++) {
        write_bytes("val/dog/5.png", "x", 1);
        write_bytes("val/cat/2.jpg", "xy", 2);
        CHECK_FAILS(ctx, mix_data_read(data, MIX_VAL, 0, 5, images, labels), MIX_EFORMAT,
                    "val/cat/2.jpg");
        CHECK_FAILS(ctx, mix_data_read(data, MIX_VAL, 2, 3, images, labels), MIX_EFORMAT,
                    "val/dog/5.png");
        CHECK_OK(mix_data_read(data, MIX_VAL, 2, 2, images, labels));
    }
    mix_data_free(data);
    mix_ctx_free(ctx);
    leave_folder();
}

static void refused(mix_ctx *ctx, const mix_data_options *o, mix_status status, const char *part)
{
    float image[VALUES];
    mix_data *data;
    CHECK_FAILS(ctx, mix_image_read(ctx, "val/cat/3.png", o, image), MIX_EINVAL, part);
    CHECK_FAILS(ctx, mix_data_open(&data, ctx, ".", o), status, part);
    assert_null(data);
}

static void test_options(void **unused)
{
    static const float zero[3] = { 1, 1, 0 }, infinite[3] = { 1, INFINITY, 1 };
    float image[VALUES];
    mix_data_options o;
    mix_data *data;
    (void)unused;
    enter_folder();
    write_set();
    mix_ctx *ctx = plain_ctx();
    refused(ctx, (o = wanted(SIZE, 2), &o), MIX_EINVAL, "images of 2 channels");
    refused(ctx, (o = wanted(-1, 3), &o), MIX_EINVAL, "image size -1");
    refused(ctx, (o = wanted(SIZE, 0), &o), MIX_EINVAL, "number of channels");
    refused(ctx, (o = wanted(SIZE, 3), o.deviation = NULL, &o), MIX_EINVAL, "together");
    refused(ctx, (o = wanted(SIZE, 3), o.mean = NULL, &o), MIX_EINVAL, "together");
    refused(ctx, (o = wanted(SIZE, 3), o.deviation = zero, &o), MIX_EINVAL, "above 0");
    refused(ctx, (o = wanted(SIZE, 3), o.mean = infinite, &o), MIX_EINVAL, "finite");
    refused(ctx, (o = wanted(SIZE, 3), o.normalize = MIX_NORMALIZE_UNIT, &o), MIX_EINVAL,
            "no other normalisation");
    o = wanted(0, 3);
    CHECK_FAILS(ctx, mix_image_read(ctx, "val/cat/3.png", &o, image), MIX_EINVAL, "a size");
    o = wanted(SIZE, 1);
    CHECK_FAILS(ctx, mix_data_open(&data, ctx, ".", &o), MIX_ESHAPE,
                "the images have 3 channels, expected 1");
    mix_ctx_free(ctx);
    leave_folder();
}

static void test_no_memory(void **unused)
{
    static float image[VALUES];
    const mix_data_options o = wanted(SIZE, 1);
    mix_status status = MIX_ENOMEM;
    size_t left = 0;
    (void)unused;
    enter_folder();
    write_set();
    for (; status == MIX_ENOMEM; left++) {
        struct fault fault;
        mix_ctx *ctx = fault_ctx(&fault, left);
        status = mix_image_read(ctx, "val/cat/1.jpg", &o, image);
        fault_ctx_free(&fault, ctx);
    }
    CHECK_OK(status);
    assert_true(left > 3);
    leave_folder();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_evaluation), cmocka_unit_test(test_given_normalisation),
        cmocka_unit_test(test_bad_files),     cmocka_unit_test(test_bad_set),
        cmocka_unit_test(test_options),       cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
