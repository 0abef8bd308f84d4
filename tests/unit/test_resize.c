#include "support.h"

#include <math.h>

#include "data/image.h"

static struct mix__image make_image(int h, int w, int c)
{
    static uint8_t pixels[64 * 64 * 3];
    for (int i = 0; i < h * w * c; i++)
        pixels[i] = (uint8_t)((uint32_t)i * 2654435761u >> 24);
    return (struct mix__image){ pixels, h, w, c, NULL, 1 };
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
    struct mix__image image = make_image(40, 50, channels);
    const uint8_t *pixels = image.pixels;
    const struct mix__view view = { box, win };
    CHECK_OK(mix__image_view(ctx, &image, &view));
    assert_int_equal(image.height, win.rows);
    assert_int_equal(image.width, win.columns);
    for (int y = 0; y < win.rows; y++)
        for (int x = 0; x < win.columns; x++)
            for (int c = 0; c < channels; c++) {
                double sum = 0;
                for (int i = 0; i < box.height; i++)
                    for (int j = 0; j < box.width; j++)
                        sum += triangle(box.height, win.height, win.top + y, i) *
                               triangle(box.width, win.width, win.left + x, j) *
                               pixels[((box.top + i) * 50 + box.left + j) * channels + c];
                /* Two roundings to bytes: at most half each. */
                const int got = image.pixels[(y * win.columns + x) * channels + c];
                if (fabs(got - sum) > 1.01)
                    fail_msg("(%d,%d,%d): %d, expected %f", y, x, c, got, sum);
            }
    mix__image_release(ctx, &image);
    mix_ctx_free(ctx);
}

static void test_against_double(void **state)
{
    (void)state;
    const struct mix__box all = { 0, 0, 40, 50 }, part = { 3, 7, 20, 9 }, dot = { 39, 49, 1, 1 };
    check_against_double(all, (struct mix__window){ 16, 16, 0, 0, 16, 16 }, 3);
    check_against_double(all, (struct mix__window){ 16, 20, 0, 2, 16, 16 }, 1);
    check_against_double(part, (struct mix__window){ 31, 31, 5, 0, 11, 26 }, 3);
    check_against_double(part, (struct mix__window){ 5, 5, 0, 0, 5, 5 }, 3);
    check_against_double(dot, (struct mix__window){ 7, 7, 0, 0, 7, 7 }, 3);
}

/* A box brought to its own size is itself. */
static void test_identity(void **state)
{
    (void)state;
    mix_ctx *ctx = plain_ctx();
    struct mix__image image = make_image(40, 50, 3);
    const uint8_t *source = image.pixels;
    const struct mix__view view = mix__view_crop((struct mix__box){ 4, 9, 30, 30 }, 30);
    CHECK_OK(mix__image_view(ctx, &image, &view));
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
                struct mix__image image = { flat, sides[i], sides[j], 1, NULL, 1 };
                const int size = sides[k];
                const struct mix__view view = mix__view_fit(sides[i], sides[j], size, 0);
                CHECK_OK(mix__image_view(ctx, &image, &view));
                assert_int_equal(image.height, size);
                assert_int_equal(image.width, size);
                for (int p = 0; p < size * size; p++)
                    assert_int_equal(image.pixels[p], 201);
                mix__image_release(ctx, &image);
            }
    mix_ctx_free(ctx);
}

static void check_fit(int height, int width, int size, int resize, struct mix__window expected)
{
    const struct mix__view v = mix__view_fit(height, width, size, resize);
    assert_memory_equal(&v.window, &expected, sizeof expected);
    assert_int_equal(v.box.height, height);
    assert_int_equal(v.box.width, width);
}

/* The numbers are torchvision's: Resize(256 or 232) and CenterCrop(224). */
static void test_rule(void **state)
{
    (void)state;
    check_fit(375, 500, 224, 0, (struct mix__window){ 256, 341, 16, 58, 224, 224 });
    check_fit(500, 333, 224, 0, (struct mix__window){ 384, 256, 80, 16, 224, 224 });
    check_fit(375, 500, 224, 232, (struct mix__window){ 232, 309, 4, 42, 224, 224 });
    check_fit(1, 1000, 224, 0, (struct mix__window){ 256, 256000, 16, 127888, 224, 224 });
    check_fit(224, 224, 224, 0, (struct mix__window){ 224, 224, 0, 0, 224, 224 });
    check_fit(224, 224, 224, 256, (struct mix__window){ 256, 256, 16, 16, 224, 224 });
    check_fit(100, 50, 64, 0, (struct mix__window){ 128, 64, 32, 0, 64, 64 });
    check_fit(100, 100, 65, 0, (struct mix__window){ 74, 74, 4, 4, 65, 65 });
    /* halves go to the even neighbour, as Python's round() has it */
    check_fit(10, 10, 3, 4, (struct mix__window){ 4, 4, 0, 0, 3, 3 });
    check_fit(10, 10, 3, 6, (struct mix__window){ 6, 6, 2, 2, 3, 3 });
}

static void test_shrink_rule(void **state)
{
    (void)state;
    static const struct {
        int height, width, shrink;
    } cases[] = { { 79, 500, 1 },  { 80, 80, 2 },   { 159, 160, 2 },  { 160, 160, 4 },
                  { 320, 319, 4 }, { 320, 320, 8 }, { 9999, 9999, 8 } };
    for (size_t i = 0; i < MIX_COUNT(cases); i++) {
        const struct mix__box box = { 3, 5, cases[i].height, cases[i].width };
        const struct mix__view view = mix__view_crop(box, 10);
        assert_int_equal(mix__view_shrink(&view), cases[i].shrink);
    }
}

/*
 * A ramp of 2 for each pixel, 4 x 4 of which became one of their mean: away from its ends a box
 * gives the same from either, also where it begins and ends inside a decoded pixel (8 apart).
 */
static void check_ramp(mix_ctx *ctx, bool down, int shift)
{
    uint8_t full[120 * 120], small[30 * 30];
    for (int i = 0; i < 120 * 120; i++)
        full[i] = (uint8_t)(2 * (down ? i / 120 : i % 120));
    for (int i = 0; i < 30 * 30; i++)
        small[i] = (uint8_t)(8 * (down ? i / 30 : i % 30) + 3);
    struct mix__image a = { full, 120, 120, 1, NULL, 1 }, b = { small, 30, 30, 1, NULL, 4 };
    const struct mix__view view = mix__view_crop((struct mix__box){ shift, shift, 97, 97 }, 8);
    CHECK_OK(mix__image_view(ctx, &a, &view));
    CHECK_OK(mix__image_view(ctx, &b, &view));
    for (int i = 2; i < 6; i++) {
        const int at = down ? 8 * i + 4 : 8 * 4 + i;
        if (abs(a.pixels[at] - b.pixels[at]) > 1)
            fail_msg("from %d, output %d: %d and %d", shift, i, a.pixels[at], b.pixels[at]);
    }
    mix__image_release(ctx, &a);
    mix__image_release(ctx, &b);
}

static void test_shrunk_box(void **state)
{
    (void)state;
    mix_ctx *ctx = plain_ctx();
    for (int shift = 0; shift < 24; shift++) {
        check_ramp(ctx, false, shift);
        check_ramp(ctx, true, shift);
    }
    mix_ctx_free(ctx);
}

static void test_shorter(void **state)
{
    (void)state;
    struct mix__view v = mix__view_shorter(300, 401, 256);
    assert_int_equal(v.window.rows, 256);
    assert_int_equal(v.window.columns, 342);
    v = mix__view_shorter(200, 401, 256);
    assert_int_equal(v.window.rows, 200);
    assert_int_equal(v.window.columns, 401);
    v = mix__view_shorter(401, 1, 256);
    assert_int_equal(v.window.rows, 401);
    assert_int_equal(v.window.columns, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_double),
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_fit),
        cmocka_unit_test(test_rule),
        cmocka_unit_test(test_shrink_rule),
        cmocka_unit_test(test_shrunk_box),
        cmocka_unit_test(test_shorter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
