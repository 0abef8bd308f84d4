/*
 * test_tiles.c - tiles own every row once, and see all rows that a convolution needs for theirs.
 */
#include "support.h"

#include "base/random.h"
#include "engine/tiles.h"

static int drawn(uint64_t stream, uint64_t index, int low, int high)
{
    const double u = mix__random_uniform(11, stream, index);
    return low + (int)(u * (double)(high - low + 1));
}

/* Whether output row `out` reads input row `in`. */
static bool meet(const struct mix__tile_shape *s, int in, int out)
{
    const int tap = in + s->pad - out * s->stride;
    return tap >= 0 && tap < s->kernel;
}

static void check(const struct mix__tiling *t, const struct mix__tile_shape *s)
{
    int *own = calloc((size_t)s->n * (size_t)(s->h + s->oh), sizeof *own);
    int *own_y = own + s->n * s->h;
    assert_true(t->parts >= 1 && t->parts <= MIX__PARTS && t->parts <= t->count);
    for (int i = 0; i < t->count; i++) {
        const struct mix__tile a = mix__tile_at(t, s, i);
        for (int n = a.image; n < a.image + a.images; n++) {
            for (int r = a.dx0; r < a.dx1; r++)
                own[n * s->h + r]++;
            for (int r = a.y0; r < a.y1; r++)
                own_y[n * s->oh + r]++;
        }
        assert_true(0 <= a.x0 && a.x1 <= s->h && 0 <= a.dy0 && a.dy1 <= s->oh);
        assert_true(a.dy0 <= a.y0 && a.y1 <= a.dy1);
        assert_true(a.x0 <= a.dx0 && a.dx0 == (a.y0 * s->stride < s->h ? a.y0 * s->stride : s->h));
        for (int in = 0; in < s->h; in++)
            for (int out = 0; out < s->oh; out++) {
                if (!meet(s, in, out))
                    continue;
                assert_true(out < a.y0 || out >= a.y1 || (a.x0 <= in && in < a.x1));
                assert_true(in < a.dx0 || in >= a.dx1 || (a.dy0 <= out && out < a.dy1));
            }
    }
    for (int i = 0; i < s->n * (s->h + s->oh); i++)
        assert_int_equal(own[i], 1);
    free(own);
    assert_int_equal(mix__part_first(t, 0), 0);
    assert_int_equal(mix__part_first(t, t->parts), t->count);
}

static void test_bands(void **unused)
{
    (void)unused;
    int banded = 0, grown = 0;
    for (uint64_t i = 0; i < 300; i++) {
        struct mix__tile_shape s = { .n = drawn(1, i, 1, 9),
                                     .h = drawn(2, i, 1, 60),
                                     .c = drawn(3, i, 1, 1300),
                                     .kernel = drawn(4, i, 1, 5),
                                     .stride = drawn(5, i, 1, 3) };
        s.w = s.h;
        s.k = s.c;
        s.pad = drawn(6, i, 0, s.kernel / 2);
        if (s.h + 2 * s.pad < s.kernel)
            continue;
        s.oh = s.ow = (s.h + 2 * s.pad - s.kernel) / s.stride + 1;
        struct mix__tiling t;
        mix__tiling_bands(&t, &s);
        banded += t.bands > 1;
        check(&t, &s);
        mix__tiling_images(&t, &s);
        assert_int_equal(t.bands, 1);
        check(&t, &s);
        const int before = t.images, least = drawn(10, i, 1, 9);
        mix__tiling_grow(&t, &s, least);
        grown += t.images > before;
        assert_true(t.images == before || t.count >= least);
        check(&t, &s);
    }
    assert_true(banded > 50 && grown > 20);
}

/* Primitives are made for one number of rows: every band has as many. */
static void test_pixels(void **unused)
{
    (void)unused;
    for (uint64_t i = 0; i < 200; i++) {
        struct mix__tile_shape s = { .n = 1,
                                     .h = drawn(7, i, 1, 700),
                                     .w = 1,
                                     .c = drawn(8, i, 1, 100000),
                                     .ow = 1,
                                     .k = drawn(9, i, 1, 1300),
                                     .kernel = 1,
                                     .stride = 1 };
        struct mix__tiling t;
        s.oh = s.h;
        mix__tiling_pixels(&t, &s, i % 2);
        assert_int_equal(s.h % t.bands, 0);
        for (int k = 0; k < t.count; k++) {
            const struct mix__tile a = mix__tile_at(&t, &s, k);
            assert_int_equal(a.y1 - a.y0, s.h / t.bands);
            assert_true(a.x0 == a.y0 && a.x1 == a.y1 && a.dy0 == a.y0 && a.dy1 == a.y1);
        }
        check(&t, &s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bands),
        cmocka_unit_test(test_pixels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
