#include "images.h"

#include <math.h>

#include "data/batches.h"
#include "data/image.h"

enum { N = 23, N_VAL = 9, SIDE = 8, AREA = SIDE * SIDE };

/* Training image i is 10 + i everywhere, validation image i is 100 + y * 8 + x; labels i % 5. */
static mix_data *open_set(mix_ctx *ctx)
{
    uint8_t pixels[N * AREA], labels[N], file[N * AREA + 16];
    for (int i = 0; i < N; i++) {
        memset(pixels + i * AREA, 10 + i, AREA);
        labels[i] = i % 5;
    }
    size_t size = make_idx(file, 3, (uint32_t[]){ N, SIDE, SIDE }, pixels);
    write_bytes("train-images-idx3-ubyte", file, size);
    size = make_idx(file, 1, (uint32_t[]){ N }, labels);
    write_bytes("train-labels-idx1-ubyte", file, size);
    for (int i = 0; i < N_VAL * AREA; i++)
        pixels[i] = (uint8_t)(100 + i % AREA);
    size = make_idx(file, 3, (uint32_t[]){ N_VAL, SIDE, SIDE }, pixels);
    write_bytes("t10k-images-idx3-ubyte", file, size);
    size = make_idx(file, 1, (uint32_t[]){ N_VAL }, labels);
    write_bytes("t10k-labels-idx1-ubyte", file, size);
    mix_data_options options;
    mix_data_options_init(&options);
    mix_data *data;
    CHECK_OK(mix_data_open(&data, ctx, ".", &options));
    return data;
}

struct fixture {
    mix_ctx *ctx;
    mix_data *data;
    struct mix__batches_options options;
    struct mix__batches *batches;
};

static int set_up(void **state)
{
    static struct fixture f;
    enter_folder();
    f.ctx = plain_ctx();
    f.data = open_set(f.ctx);
    f.options = (struct mix__batches_options){ .split = MIX_TRAIN,
                                               .batch = 4,
                                               .train = true,
                                               .crop = MIX__CROP_PAD,
                                               .crop_padding = 2,
                                               .flip = true,
                                               .threads = 1,
                                               .seed = 7 };
    f.batches = NULL;
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    mix_data_free(f->data);
    mix_ctx_free(f->ctx);
    leave_folder();
    return 0;
}

static void start(struct fixture *f)
{
    CHECK_OK(mix__batches_new(&f->batches, f->data, &f->options));
}

/* The byte that was normalised: (v / 255 - 0.5) / 0.5. */
static int byte_of(float value)
{
    const float byte = (value * 0.5f + 0.5f) * 255;
    assert_true(fabsf(byte - rintf(byte)) < 1e-3f);
    return (int)rintf(byte);
}

/* A training image's number, from its middle, which no crop of padding 2 loses. */
static int id_of(const struct mix__batch *batch, int i)
{
    const int id = byte_of(batch->images[i * AREA + AREA / 2 + SIDE / 2]) - 10;
    assert_in_range(id, 0, N - 1);
    assert_int_equal(batch->labels[i], id % 5);
    return id;
}

/* n batches from where the loader is: their pixels and labels behind each other. */
static void collect(struct fixture *f, int n, float *images, int *labels)
{
    for (int i = 0; i < n; i++) {
        struct mix__batch batch;
        CHECK_OK(mix__batches_next(f->batches, &batch));
        assert_int_equal(batch.count, f->options.batch);
        memcpy(images + i * 4 * AREA, batch.images, sizeof(float[4 * AREA]));
        memcpy(labels + i * 4, batch.labels, sizeof(int[4]));
    }
}

enum { RUN = 40 }; /* batches: 8 epochs of 5 */

static void test_threads(void **state)
{
    struct fixture *f = *state;
    static const enum mix__crop crops[] = { MIX__CROP_NONE, MIX__CROP_PAD, MIX__CROP_RESIZED };
    static float one[RUN * 4 * AREA], more[RUN * 4 * AREA];
    static int labels_one[RUN * 4], labels_more[RUN * 4];
    for (size_t c = 0; c < MIX_COUNT(crops); c++) {
        f->options.crop = crops[c];
        f->options.threads = 1;
        start(f);
        assert_int_equal(mix__batches_per_epoch(f->batches), 5);
        collect(f, RUN, one, labels_one);
        mix__batches_free(f->batches);
        f->options.threads = 3;
        start(f);
        collect(f, RUN, more, labels_more);
        assert_memory_equal(one, more, sizeof one);
        assert_memory_equal(labels_one, labels_more, sizeof labels_one);
        assert_true(mix__batches_waited(f->batches) >= 0);
        mix__batches_free(f->batches);
    }
}

static void test_seek(void **state)
{
    struct fixture *f = *state;
    static float whole[RUN * 4 * AREA], part[RUN * 4 * AREA];
    static int labels_whole[RUN * 4], labels_part[RUN * 4];
    start(f);
    collect(f, RUN, whole, labels_whole);
    mix__batches_free(f->batches);
    f->options.threads = 2;
    start(f);
    static const int places[] = { 13, 0, 1, 34, 14, 5, 5 };
    for (size_t i = 0; i < MIX_COUNT(places); i++) {
        const int at = places[i], n = 1 + (int)i;
        CHECK_OK(mix__batches_seek(f->batches, at / 5, at % 5));
        if (i == 3)
            CHECK_OK(mix__batches_seek(f->batches, at / 5, at % 5));
        collect(f, n, part, labels_part);
        assert_memory_equal(part, whole + at * 4 * AREA, n * sizeof(float[4 * AREA]));
        assert_memory_equal(labels_part, labels_whole + at * 4, n * sizeof(int[4]));
    }
    CHECK_FAILS(f->ctx, mix__batches_seek(f->batches, 0, 5), MIX_EINVAL, "expected 0..4");
    CHECK_FAILS(f->ctx, mix__batches_seek(f->batches, -1, 0), MIX_EINVAL, "epoch -1");
    mix__batches_free(f->batches);
}

/* Batches of one: every image exactly once in every epoch, in an order of its own. */
static void test_epochs(void **state)
{
    struct fixture *f = *state;
    int order[3][N];
    f->options.batch = 1;
    f->options.threads = 3;
    start(f);
    assert_int_equal(mix__batches_per_epoch(f->batches), N);
    for (int epoch = 0; epoch < 3; epoch++) {
        int seen[N] = { 0 };
        for (int i = 0; i < N; i++) {
            struct mix__batch batch;
            CHECK_OK(mix__batches_next(f->batches, &batch));
            order[epoch][i] = id_of(&batch, 0);
            seen[order[epoch][i]]++;
        }
        for (int i = 0; i < N; i++)
            assert_int_equal(seen[i], 1);
    }
    mix__batches_free(f->batches);
    assert_memory_not_equal(order[0], order[1], sizeof order[0]);
    assert_memory_not_equal(order[1], order[2], sizeof order[0]);
}

/* Evaluation: file order, nothing drawn, the last batch short, then from the start again. */
static void test_evaluation(void **state)
{
    struct fixture *f = *state;
    f->options.train = false;
    start(f);
    assert_int_equal(mix__batches_per_epoch(f->batches), 6);
    for (int i = 0; i < 18; i++) {
        struct mix__batch batch;
        CHECK_OK(mix__batches_next(f->batches, &batch));
        assert_int_equal(batch.count, i % 6 == 5 ? 3 : 4);
        for (int j = 0; j < batch.count; j++) {
            assert_int_equal(id_of(&batch, j), i % 6 * 4 + j);
            for (int p = 0; p < AREA; p++)
                assert_true(batch.images[j * AREA + p] == batch.images[j * AREA]);
        }
    }
    mix__batches_free(f->batches);
}

/* Numbers of an image have nothing to do with each other, nor with those of the next image. */
static void test_draws(void **state)
{
    enum { TRIES = 2000 };
    int shifts = 0, holes = 0, next = 0, places = 0;
    double ratio = 0, area = 0;
    (void)state;
    for (uint64_t i = 0; i < TRIES; i++) {
        const struct mix__draws draws = { 3, 5, i }, behind = { 3, 5, i + 1 };
        int dy, dx, dy_behind, dx_behind;
        mix__draw_shift(&draws, 2, &dy, &dx);
        mix__draw_shift(&behind, 2, &dy_behind, &dx_behind);
        shifts += dy == dx;
        next += dx == dy_behind;
        const struct mix__box hole = mix__draw_hole(&draws, 8, 1);
        holes += hole.top == hole.left;
        const struct mix__box box = mix__draw_box(&draws, 500, 500);
        ratio += log((double)box.width / box.height) / TRIES;
        area += (double)box.width * box.height / 250000 / TRIES;
        places +=
            fabs((double)box.top / (501 - box.height) - (double)box.left / (501 - box.width)) < 0.1;
    }
    /* Five standard deviations for a fifth, an eighth, and 0.19: two of 0..1 less than 0.1 apart. */
    assert_in_range(shifts, TRIES / 5 - 90, TRIES / 5 + 90);
    assert_in_range(next, TRIES / 5 - 90, TRIES / 5 + 90);
    assert_in_range(holes, TRIES / 8 - 75, TRIES / 8 + 75);
    assert_in_range(places, 380 - 90, 380 + 90);
    /* As likely twice as wide as half as wide: the ratio's logarithm is uniform. */
    assert_true(fabs(ratio) < 0.0186);
    assert_true(area > 0.46 && area < 0.56); /* uniform, large narrow boxes left out */
}

/* Where the output shows pixel (0,0) of the ramp: the shift, and whether it is mirrored. */
static void find_pose(const float *image, int padding, int *dy, int *dx, bool *flip)
{
    for (int pose = 0; pose < 2 * (2 * padding + 1) * (2 * padding + 1); pose++) {
        *flip = pose % 2;
        *dy = pose / 2 / (2 * padding + 1) - padding;
        *dx = pose / 2 % (2 * padding + 1) - padding;
        bool same = true;
        for (int y = 0; y < SIDE && same; y++)
            for (int x = 0; x < SIDE && same; x++) {
                const int sy = y + *dy, sx = (*flip ? SIDE - 1 - x : x) + *dx;
                const bool outside = sy < 0 || sx < 0 || sy >= SIDE || sx >= SIDE;
                const float value = image[y * SIDE + x];
                const float byte = outside ? 127.5f : 100 + sy * SIDE + sx;
                same = fabsf((value * 0.5f + 0.5f) * 255 - byte) < 1e-3f;
            }
        if (same)
            return;
    }
    fail_msg("not a shifted or mirrored ramp");
}

static void test_augment(void **state)
{
    struct fixture *f = *state;
    int flips = 0, total = 0, shifts[2][5] = { { 0 } };
    f->options.split = MIX_VAL; /* the ramp */
    f->options.batch = N_VAL;
    start(f);
    for (int i = 0; i < 60; i++) {
        struct mix__batch batch;
        CHECK_OK(mix__batches_next(f->batches, &batch));
        for (int j = 0; j < N_VAL; j++, total++) {
            int dy, dx;
            bool flip;
            find_pose(batch.images + j * AREA, 2, &dy, &dx, &flip);
            flips += flip;
            shifts[0][dy + 2]++;
            shifts[1][dx + 2]++;
        }
    }
    mix__batches_free(f->batches);
    /* 540 draws: five standard deviations are 58 for a half and 46 for a fifth. */
    assert_in_range(flips, total / 2 - 58, total / 2 + 58);
    for (int i = 0; i < 10; i++)
        assert_in_range(shifts[i / 5][i % 5], total / 5 - 46, total / 5 + 46);
    f->options.flip = false;
    f->options.crop = MIX__CROP_NONE;
    start(f);
    struct mix__batch batch;
    CHECK_OK(mix__batches_next(f->batches, &batch));
    for (int i = 0; i < N_VAL * AREA; i++)
        assert_int_equal(byte_of(batch.images[i]), 100 + i % AREA);
    mix__batches_free(f->batches);
}

/* Half of the images are mirrored with every crop: the ramp then falls from left to right. */
static void test_flips(void **state)
{
    struct fixture *f = *state;
    static const enum mix__crop crops[] = { MIX__CROP_NONE, MIX__CROP_RESIZED };
    f->options.split = MIX_VAL; /* the ramp */
    f->options.batch = N_VAL;
    for (size_t c = 0; c < MIX_COUNT(crops); c++) {
        int flips = 0, total = 0;
        f->options.crop = crops[c];
        start(f);
        for (int i = 0; i < 60; i++) {
            struct mix__batch batch;
            CHECK_OK(mix__batches_next(f->batches, &batch));
            for (int j = 0; j < N_VAL; j++, total++) {
                const float *row = batch.images + j * AREA + SIDE / 2 * SIDE;
                assert_true(row[0] != row[SIDE - 1]);
                flips += row[SIDE - 1] < row[0];
            }
        }
        mix__batches_free(f->batches);
        assert_in_range(flips, total / 2 - 58, total / 2 + 58);
    }
}

/* Random crops are of the file, not of what memory keeps for evaluation: of an image that is dark
 * but for its border, which evaluation cuts off, some see the border. */
static void test_crops_of_files(void **state)
{
    enum { LARGE = 300, SMALL = 224, BORDER = 10 };
    static const char *const names[] = { "train", "val", "train/a", "val/a" };
    static uint8_t pixels[LARGE * LARGE * 3];
    (void)state;
    enter_folder();
    for (int i = 0; i < LARGE * LARGE; i++) {
        const int y = i / LARGE, x = i % LARGE;
        const bool inside = y >= BORDER && y < LARGE - BORDER && x >= BORDER && x < LARGE - BORDER;
        memset(pixels + 3 * i, inside ? 0 : 255, 3);
    }
    for (size_t i = 0; i < MIX_COUNT(names); i++)
        assert_int_equal(mkdir(names[i], 0700), 0);
    write_png("train/a/1.png", pixels, LARGE, LARGE, 3);
    write_png("val/a/1.png", pixels, LARGE, LARGE, 3);
    mix_ctx *ctx = plain_ctx();
    mix_data *data;
    mix_data_options options;
    mix_data_options_init(&options);
    options.size = SMALL;
    CHECK_OK(mix_data_open(&data, ctx, ".", &options));
    const struct mix__batches_options o = {
        .split = MIX_TRAIN, .batch = 1, .train = true, .crop = MIX__CROP_RESIZED, .threads = 1
    };
    struct mix__batches *batches;
    int bright = 0;
    CHECK_OK(mix__batches_new(&batches, data, &o));
    for (int i = 0; i < 20; i++) {
        struct mix__batch batch;
        float most = -10.0f;
        CHECK_OK(mix__batches_next(batches, &batch));
        for (int k = 0; k < SMALL * SMALL * 3; k++)
            most = fmaxf(most, batch.images[k]);
        bright += most > 2.0f;
    }
    assert_true(bright > 0);
    mix__batches_free(batches);
    mix_data_free(data);
    mix_ctx_free(ctx);
    leave_folder();
}

/* The blanked part of the ramp, which has no other zero, is a square around a pixel, cut off at the
 * borders: rows and columns from top, left up to bottom, right. */
static void check_hole(const float *image, int side, int *centres)
{
    int top = SIDE, left = SIDE, bottom = 0, right = 0, area = 0;
    for (int i = 0; i < AREA; i++) {
        if (image[i] != 0.0f) {
            assert_int_equal(byte_of(image[i]), 100 + i);
            continue;
        }
        area++;
        top = i / SIDE < top ? i / SIDE : top;
        left = i % SIDE < left ? i % SIDE : left;
        bottom = i / SIDE + 1 > bottom ? i / SIDE + 1 : bottom;
        right = i % SIDE + 1 > right ? i % SIDE + 1 : right;
    }
    assert_int_equal(area, (bottom - top) * (right - left));
    assert_true(bottom - top == side || top == 0 || bottom == SIDE);
    assert_true(right - left == side || left == 0 || right == SIDE);
    assert_true(bottom - top >= side / 2 && bottom - top <= side);
    centres[top > 0 ? top + side / 2 : bottom - (side - side / 2)]++;
}

static void test_cutout(void **state)
{
    struct fixture *f = *state;
    int centres[SIDE] = { 0 }, total = 0;
    f->options.split = MIX_VAL; /* the ramp */
    f->options.batch = N_VAL;
    f->options.flip = false;
    f->options.crop = MIX__CROP_NONE;
    f->options.cutout = 4;
    start(f);
    for (int i = 0; i < 90; i++) {
        struct mix__batch batch;
        CHECK_OK(mix__batches_next(f->batches, &batch));
        for (int j = 0; j < N_VAL; j++, total++)
            check_hole(batch.images + j * AREA, 4, centres);
    }
    mix__batches_free(f->batches);
    /* 810 draws: five standard deviations are 47 for an eighth. */
    for (int i = 0; i < SIDE; i++)
        assert_in_range(centres[i], total / SIDE - 47, total / SIDE + 47);

    f->options.train = false;
    start(f);
    struct mix__batch batch;
    CHECK_OK(mix__batches_next(f->batches, &batch));
    for (int i = 0; i < AREA; i++)
        assert_true(batch.images[i] != 0.0f);
    mix__batches_free(f->batches);
}

/* The box lies in the image; its area and ratio are in range, give or take the rounding. */
static void test_boxes(void **state)
{
    (void)state;
    double least = 1, most = 0;
    for (uint64_t i = 0; i < 2000; i++) {
        const struct mix__box box = mix__draw_box(&(struct mix__draws){ 3, 5, i }, 300, 400);
        const double area = box.height * box.width / 120000.0;
        const double ratio = (double)box.width / box.height;
        assert_true(box.top >= 0 && box.top + box.height <= 300);
        assert_true(box.left >= 0 && box.left + box.width <= 400);
        assert_true(area > 0.075 && area <= 1);
        assert_true(ratio > 0.74 && ratio < 1.35);
        least = area < least ? area : least;
        most = area > most ? area : most;
    }
    assert_true(least < 0.1 && most > 0.9);
    /* No box fits such images: the fallback is the center with an allowed ratio. */
    struct mix__box box = mix__draw_box(&(struct mix__draws){ 3, 5, 0 }, 6, 3000);
    assert_int_equal(box.height, 6);
    assert_int_equal(box.width, 8);
    assert_int_equal(box.left, 1496);
    box = mix__draw_box(&(struct mix__draws){ 3, 5, 0 }, 3000, 1);
    assert_int_equal(box.width, 1);
    assert_in_range(box.height, 1, 2);
}

static void test_limit(void **state)
{
    struct fixture *f = *state;
    int chosen[2][7] = { { 0 } };
    f->options.limit = 7;
    f->options.batch = 7;
    start(f);
    for (int epoch = 0; epoch < 2; epoch++) {
        struct mix__batch batch;
        CHECK_OK(mix__batches_next(f->batches, &batch));
        uint32_t seen = 0;
        for (int i = 0; i < 7; i++)
            seen |= 1u << (chosen[epoch][i] = id_of(&batch, i));
        assert_int_equal(__builtin_popcount(seen), 7);
        assert_int_not_equal(seen, 0x7f); /* not simply the first */
    }
    mix__batches_free(f->batches);
    uint32_t both[2] = { 0 };
    for (int i = 0; i < 14; i++)
        both[i / 7] |= 1u << chosen[i / 7][i % 7];
    assert_int_equal(both[0], both[1]);
    /* Without shuffling the same images come in file order. */
    f->options.train = false;
    start(f);
    struct mix__batch batch;
    CHECK_OK(mix__batches_next(f->batches, &batch));
    for (int i = 0; i < 7; i++) {
        assert_true(both[0] >> id_of(&batch, i) & 1);
        assert_true(i == 0 || id_of(&batch, i) > id_of(&batch, i - 1));
    }
    mix__batches_free(f->batches);
}

/* One channel: auto and symmetric are the same, unit is byte / 255, imagenet has three. */
static void test_normalisations(void **state)
{
    struct fixture *f = *state;
    mix_data_options options;
    mix_data *data;
    mix_normalize how;
    mix_data_options_init(&options);
    options.normalize = MIX_NORMALIZE_IMAGENET;
    CHECK_FAILS(f->ctx, mix_data_open(&data, f->ctx, ".", &options), MIX_EINVAL, "three channels");
    f->options.train = false;
    for (how = MIX_NORMALIZE_AUTO; how <= MIX_NORMALIZE_UNIT; how++) {
        mix_normalize parsed = MIX_NORMALIZE_AUTO;
        assert_true(mix_normalize_parse(mix_normalize_name(how), &parsed));
        assert_int_equal(parsed, how);
        if (how == MIX_NORMALIZE_IMAGENET)
            continue;
        struct mix__batch batch;
        mix_data_info info;
        options.normalize = how;
        CHECK_OK(mix_data_open(&data, f->ctx, ".", &options));
        mix_data_info_get(data, &info);
        assert_int_equal(info.normalize, how ? how : MIX_NORMALIZE_SYMMETRIC);
        CHECK_OK(mix__batches_new(&f->batches, data, &f->options));
        CHECK_OK(mix__batches_next(f->batches, &batch));
        const float byte = 10; /* of the first image */
        const float expected = how == MIX_NORMALIZE_UNIT ? byte / 255 : byte / 127.5f - 1;
        assert_true(fabsf(batch.images[0] - expected) < 1e-6f);
        mix__batches_free(f->batches);
        mix_data_free(data);
    }
    assert_false(mix_normalize_parse("Unit", &how));
}

static void test_options(void **state)
{
    struct fixture *f = *state;
    f->options.batch = N + 1;
    CHECK_FAILS(f->ctx, mix__batches_new(&f->batches, f->data, &f->options), MIX_EINVAL,
                "larger than the 23 training images");
    assert_null(f->batches);
    f->options.batch = 0;
    CHECK_FAILS(f->ctx, mix__batches_new(&f->batches, f->data, &f->options), MIX_EINVAL,
                "batch of 0");
    f->options.batch = 1;
    f->options.threads = 65;
    CHECK_FAILS(f->ctx, mix__batches_new(&f->batches, f->data, &f->options), MIX_EINVAL, "1..64");
    f->options.threads = 1;
    f->options.crop_padding = SIDE + 1;
    CHECK_FAILS(f->ctx, mix__batches_new(&f->batches, f->data, &f->options), MIX_EINVAL, "0..8");
    f->options.crop_padding = 0;
    f->options.cutout = SIDE + 1;
    CHECK_FAILS(f->ctx, mix__batches_new(&f->batches, f->data, &f->options), MIX_EINVAL,
                "cutout 9, expected 0..8");
    mix__batches_free(NULL);
}

/* A file that goes away after the open: the batch fails with its name, the loader lives on. */
static void test_lost_file(void **state)
{
    (void)state;
    enter_folder();
    static const char *const names[] = { "train", "val", "train/a", "val/a" };
    for (size_t i = 0; i < MIX_COUNT(names); i++)
        assert_int_equal(mkdir(names[i], 0700), 0);
    write_plain("train/a/1.jpg", 8, 8, 10, 20, 30);
    write_plain("val/a/1.jpg", 8, 8, 10, 20, 30);
    write_plain("val/a/2.jpg", 8, 8, 10, 20, 30);
    mix_ctx *ctx = plain_ctx();
    mix_data *data;
    mix_data_options options;
    mix_data_options_init(&options);
    options.memory_limit = 0;
    CHECK_OK(mix_data_open(&data, ctx, ".", &options));
    assert_int_equal(unlink("val/a/2.jpg"), 0);
    const struct mix__batches_options o = { .split = MIX_VAL, .batch = 1, .threads = 1 };
    struct mix__batches *batches;
    CHECK_OK(mix__batches_new(&batches, data, &o));
    struct mix__batch batch;
    CHECK_OK(mix__batches_next(batches, &batch));
    assert_true(fabsf(batch.images[2] - (30 / 255.0f - 0.406f) / 0.225f) < 0.05f);
    CHECK_FAILS(ctx, mix__batches_next(batches, &batch), MIX_EIO, "val/a/2.jpg");
    CHECK_OK(mix__batches_next(batches, &batch));
    mix__batches_free(batches);
    mix_data_free(data);
    mix_ctx_free(ctx);
    leave_folder();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_threads, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_seek, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_epochs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_evaluation, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_augment, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_flips, set_up, tear_down),
        cmocka_unit_test(test_crops_of_files),
        cmocka_unit_test_setup_teardown(test_cutout, set_up, tear_down),
        cmocka_unit_test(test_draws),
        cmocka_unit_test(test_boxes),
        cmocka_unit_test_setup_teardown(test_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_normalisations, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_options, set_up, tear_down),
        cmocka_unit_test(test_lost_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
