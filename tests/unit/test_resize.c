#include "support.h"

#include <math.h>

#include "data/image.h"

static struct mix__image make_image(int h, int w, int c)
{
    static uint8_t pixels[64 * 64 * 3];
    for (int i = 0; i < h * w * c; i++)
        pixels[i] = (uint8_t)((uint32_t)i * 2654435761u >> 24);
    return (struct mix__image){ pixels, h, w, c, NULL };
}

/* Mean of row (or column) `at` of n inputs under the triangle, in double. */
static double triangle(int in, int out, int at, int j)
{
    const double scale = (double)in / out, half = fmax(scale, 1), center = (at + 0.5) * scale;
    double total = 0;
    for (int i = 0; i < in; i++)
        total += fmax(0, 1 - fabs(i + 0.5 - center) / half);
    return fmax(0, 1 - fabs(j + 0.5 - center) / half) / total;
}

static void check_against_double(struct mix__box box, struct mix__window win, int channels)
{
    mix_ctx *ctx = plain_ctx();
    const struct mix__image image = make_image(40, 50, channels);
    uint8_t out[64 * 64 * 3];
    CHECK_OK(mix__image_resize(ctx, out, &image, box, win));
    for (int y = 0; y < win.side; y++)
        for (int x = 0; x < win.side; x++)
            for (int c = 0; c < channels; c++) {
                double sum = 0;
                for (int i = 0; i < box.height; i++)
                    for (int j = 0; j < box.width; j++)
                        sum += triangle(box.height, win.height, win.top + y, i) *
                               triangle(box.width, win.width, win.left + x, j) *
                               image.pixels[((box.top + i) * 50 + box.left + j) * channels + c];
                /* Two roundings to bytes: at most half each. */
                const int got = out[(y * win.side + x) * channels + c];
                if (fabs(got - sum) > 1.01)
                    fail_msg("(%d,%d,%d): %d, expected %f", y, x, c, got, sum);
            }
    mix_ctx_free(ctx);
}

static void test_against_double(void **state)
{
    (void)state;
    const struct mix__box all = { 0, 0, 40, 50 }, part = { 3, 7, 20, 9 }, dot = { 39, 49, 1, 1 };
    check_against_double(all, (struct mix__window){ 16, 16, 0, 0, 16 }, 3);
    check_against_double(all, (struct mix__window){ 16, 20, 0, 2, 16 }, 1);
    check_against_double(part, (struct mix__window){ 31, 31, 5, 0, 11 }, 3);
    check_against_double(part, (struct mix__window){ 5, 5, 0, 0, 5 }, 3);
    check_against_double(dot, (struct mix__window){ 7, 7, 0, 0, 7 }, 3);
}

/* A box brought to its own size is itself. */
static void test_identity(void **state)
{
    (void)state;
    mix_ctx *ctx = plain_ctx();
    struct mix__image image = make_image(40, 50, 3);
    const uint8_t *source = image.pixels;
    CHECK_OK(mix__image_crop(ctx, &image, (struct mix__box){ 4, 9, 30, 30 }, 30));
    assert_non_null(image.owned);
    for (int y = 0; y < 30; y++)
        assert_memory_equal(image.pixels + y * 30 * 3, source + ((y + 4) * 50 + 9) * 3, 30 * 3);
    mix__image_release(ctx, &image);
    mix_ctx_free(ctx);
}

/* Flat images stay flat to the last bit, whatever the sizes: the geometry never leaves the image.
 */
static void test_fit(void **state)
{
    (void)state;
    static uint8_t flat[300 * 300];
    static const int sides[] = { 1, 2, 27, 28, 64, 65, 97, 300 };
    mix_ctx *ctx = plain_ctx();
    memset(flat, 201, sizeof flat);
    for (size_t i = 0; i < MIX_COUNT(sides); i++)
        for (size_t j = 0; j < MIX_COUNT(sides); j++)
            for (size_t k = 0; k < MIX_COUNT(sides); k++) {
                struct mix__image image = { flat, sides[i], sides[j], 1, NULL };
                const int size = sides[k];
                CHECK_OK(mix__image_fit(ctx, &image, size));
                assert_int_equal(image.height, size);
                assert_int_equal(image.width, size);
                for (int p = 0; p < size * size; p++)
                    assert_int_equal(image.pixels[p], 201);
                mix__image_release(ctx, &image);
            }
    mix_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_double),
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
