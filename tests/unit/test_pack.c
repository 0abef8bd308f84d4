#include "images.h"

#include "base/file.h"
#include "data/batches.h"
#include "data/dataset.h"

/* Two classes; train: 3 small and 1 large image, val: 2. */
static void write_set(void)
{
    static const char *const names[] = { "set",         "set/train", "set/val",  "set/train/b",
                                         "set/train/a", "set/val/a", "set/val/b" };
    uint8_t pixels[24 * 36 * 3];
    for (size_t i = 0; i < MIX_COUNT(names); i++)
        assert_int_equal(mkdir(names[i], 0700), 0);
    write_plain("set/train/a/1.jpg", 8, 8, 10, 20, 30);
    write_plain("set/train/a/2.jpg", 9, 30, 40, 50, 60);
    for (int i = 0; i < 24 * 36; i++)
        memcpy(pixels + 3 * i, (uint8_t[]){ (uint8_t)(i / 36 * 5), (uint8_t)(i % 36 * 5), 99 }, 3);
    write_jpeg("set/train/a/3.jpg", pixels, 24, 36, 3);
    write_png("set/train/b/1.png", pixels, 8, 8, 3);
    write_plain("set/val/a/1.jpg", 8, 8, 50, 50, 50);
    write_plain("set/val/b/1.jpg", 40, 16, 60, 60, 60);
}

static mix_status pack(mix_ctx *ctx, const char *from, const char *to, mix_pack_info *info)
{
    mix_pack_options options;
    mix_pack_options_init(&options);
    options.size = 16;
    return mix_data_pack(ctx, from, to, &options, info);
}

static mix_status open_set(mix_data **data, mix_ctx *ctx, const char *path, int size)
{
    mix_data_options options;
    mix_data_options_init(&options);
    options.size = size;
    options.memory_limit = 0;
    return mix_data_open(data, ctx, path, &options);
}

/* Mean absolute difference of an image of two data sets. */
static double apart(mix_data *a, mix_data *b, mix_split split, size_t index)
{
    struct mix__image x, y;
    double sum = 0;
    CHECK_OK(mix__data_image(a, split, index, NULL, &x));
    CHECK_OK(mix__data_image(b, split, index, NULL, &y));
    assert_int_equal(x.height, y.height);
    assert_int_equal(x.width, y.width);
    const int n = x.height * x.width * 3;
    for (int i = 0; i < n; i++)
        sum += abs(x.pixels[i] - y.pixels[i]);
    mix__image_release(a->ctx, &x);
    mix__image_release(b->ctx, &y);
    return sum / n;
}

/* The pack's images are the folder's: small ones to the bit, resized ones nearly. */
static void test_same_images(void **state)
{
    (void)state;
    enter_folder();
    write_set();
    mix_ctx *ctx = plain_ctx();
    mix_pack_info info;
    CHECK_OK(pack(ctx, "set", "packed/here", &info));
    assert_int_equal(info.classes, 2);
    assert_int_equal(info.images[MIX_TRAIN], 4);
    assert_int_equal(info.resized[MIX_TRAIN], 1);
    assert_int_equal(info.images[MIX_VAL], 2);
    assert_int_equal(info.resized[MIX_VAL], 0);
    struct stat file;
    assert_int_equal(stat("packed/here/train.pack", &file), 0);
    assert_int_equal(file.st_size, info.bytes[MIX_TRAIN]);

    mix_data *folder, *packed;
    CHECK_OK(open_set(&folder, ctx, "set", 12));
    CHECK_OK(open_set(&packed, ctx, "packed/here", 12));
    assert_int_equal(packed->classes, 2);
    assert_int_equal(packed->channels, 3);
    assert_string_equal(mix_data_class_name(packed, 1), "b");
    for (int split = 0; split < MIX_SPLITS; split++) {
        assert_int_equal(packed->halves[split].count, folder->halves[split].count);
        for (size_t i = 0; i < folder->halves[split].count; i++) {
            const bool resized = split == MIX_TRAIN && i == 2;
            const double difference = apart(folder, packed, split, i);
            assert_int_equal(packed->halves[split].labels[i], folder->halves[split].labels[i]);
            assert_true(resized ? difference > 0 && difference < 2 : difference == 0);
        }
    }
    const struct mix__pack_record large = mix__pack_record(packed->halves[MIX_TRAIN].pack, 2);
    assert_int_equal(large.height, 16);
    assert_int_equal(large.width, 24);
    mix_data_free(folder);
    mix_data_free(packed);
    mix_ctx_free(ctx);
    leave_folder();
}

/* Batches come from a pack; packing a pack copies it; threads do not matter. */
static void test_batches(void **state)
{
    (void)state;
    enter_folder();
    write_set();
    mix_ctx *ctx = plain_ctx(), *alone;
    mix_ctx_options one;
    mix_pack_info info;
    mix_ctx_options_init(&one);
    one.threads = 1;
    CHECK_OK(mix_ctx_new(&alone, &one));
    CHECK_OK(pack(ctx, "set", "a", &info));
    CHECK_OK(pack(alone, "a", "b", &info));
    assert_int_equal(info.resized[MIX_TRAIN], 0);
    char *bytes;
    size_t size;
    CHECK_OK(mix__file_read(ctx, "a/train.pack", 1 << 20, &bytes, &size));
    check_bytes("b/train.pack", bytes, size);
    mix__free(ctx, bytes);

    mix_data *data;
    CHECK_OK(open_set(&data, ctx, "b", 12));
    const struct mix__batches_options o = { .split = MIX_TRAIN,
                                            .batch = 4,
                                            .train = true,
                                            .crop = MIX__CROP_RESIZED,
                                            .threads = 2,
                                            .seed = 1 };
    struct mix__batches *batches;
    struct mix__batch batch;
    int seen[2] = { 0 };
    CHECK_OK(mix__batches_new(&batches, data, &o));
    CHECK_OK(mix__batches_next(batches, &batch));
    for (int i = 0; i < 4; i++)
        seen[batch.labels[i]]++;
    assert_int_equal(seen[0], 3);
    assert_int_equal(seen[1], 1);
    mix__batches_free(batches);
    mix_data_free(data);
    mix_ctx_free(alone);
    mix_ctx_free(ctx);
    leave_folder();
}

/* Size 0: the files as they are, for a set of squares. */
static void test_own_size(void **state)
{
    (void)state;
    enter_folder();
    write_set();
    mix_ctx *ctx = plain_ctx();
    mix_pack_info info;
    mix_pack_options options;
    mix_data *data;
    mix_pack_options_init(&options);
    options.size = 0;
    CHECK_OK(mix_data_pack(ctx, "set", "a", &options, &info));
    assert_int_equal(info.resized[MIX_TRAIN], 0);
    CHECK_FAILS(ctx, open_set(&data, ctx, "a", 0), MIX_ESHAPE,
                "image 0 is 8 x 8 pixels and image 1 of a/train.pack 30 x 9");
    assert_int_equal(unlink("set/train/a/2.jpg") | unlink("set/train/a/3.jpg"), 0);
    assert_int_equal(unlink("set/val/b/1.jpg"), 0);
    write_plain("set/val/b/1.jpg", 8, 8, 1, 2, 3);
    CHECK_OK(mix_data_pack(ctx, "set", "b", &options, &info));
    CHECK_OK(open_set(&data, ctx, "b", 0));
    assert_int_equal(data->size, 8);
    mix_data_free(data);
    mix_ctx_free(ctx);
    leave_folder();
}

/* At the call whose number is in front. */
static bool stop_at(void *user)
{
    int *calls = user;
    return ++calls[1] == calls[0];
}

static void test_refusals(void **state)
{
    (void)state;
    enter_folder();
    write_set();
    mix_ctx *ctx = plain_ctx();
    mix_pack_info info;
    mix_data *data;
    mix_pack_options options;
    mix_pack_options_init(&options);
    options.size = -1;
    CHECK_FAILS(ctx, mix_data_pack(ctx, "set", "a", &options, &info), MIX_EINVAL, "0..4096");
    options.size = 16;
    options.quality = 101;
    CHECK_FAILS(ctx, mix_data_pack(ctx, "set", "a", &options, &info), MIX_EINVAL, "1..100");
    CHECK_FAILS(ctx, pack(ctx, "nowhere", "a", &info), MIX_EIO, "nowhere");
    assert_false(mix__path_exists("a"));

    int calls[] = { 1, 0 };
    options.quality = 95;
    options.stop = stop_at;
    options.user = calls;
    CHECK_FAILS(ctx, mix_data_pack(ctx, "set", "a", &options, &info), MIX_ESTOPPED,
                "stopped while packing; nothing was kept");
    assert_int_equal(calls[1], 1);
    assert_false(mix__path_exists("a/train.pack"));
    assert_false(mix__path_exists("a/train.pack.part"));
    calls[0] = 3; /* in the second half */
    CHECK_FAILS(ctx, mix_data_pack(ctx, "set", "a", &options, &info), MIX_ESTOPPED,
                "train.pack was kept");
    assert_true(mix__path_exists("a/train.pack") && !mix__path_exists("a/val.pack.part"));

    write_bytes("set/train/a/0.jpg", "no image", 8);
    CHECK_FAILS(ctx, pack(ctx, "set", "a", &info), MIX_EFORMAT, "set/train/a/0.jpg");
    options.stop = NULL;
    options.skip_bad_images = true;
    CHECK_OK(mix_data_pack(ctx, "set", "a", &options, &info));
    assert_int_equal(info.skipped[MIX_TRAIN], 1);
    assert_int_equal(info.images[MIX_TRAIN], 4);
    CHECK_FAILS(ctx, pack(ctx, "set", "a", &info), MIX_EINVAL, "a packed data set is there");
    assert_int_equal(unlink("a/val.pack"), 0);
    CHECK_FAILS(ctx, open_set(&data, ctx, "a", 12), MIX_EIO, "the packing was not finished");
    mix_ctx_free(ctx);
    leave_folder();
}

/* Nothing stays behind. */
static void test_full_disk(void **state)
{
    (void)state;
    enter_folder();
    write_set();
    mix_ctx *ctx = plain_ctx();
    mix_pack_info info;
    disk_holds(1000);
    const mix_status status = pack(ctx, "set", "a", &info);
    disk_holds(-1);
    CHECK_FAILS(ctx, status, MIX_EIO, "a/train.pack.part: cannot write");
    assert_false(mix__path_exists("a/train.pack"));
    assert_false(mix__path_exists("a/train.pack.part"));
    mix_ctx_free(ctx);
    leave_folder();
}

/* ---- hostile files ---- */

struct bytes {
    uint8_t b[8192];
    size_t n;
};

/* Checksums of the index are made right again, so that what is behind them is tested. */
static void seal(struct bytes *f, uint64_t index)
{
    if (index > f->n - MIX__PACK_FOOTER)
        return;
    const uint32_t crc = (uint32_t)crc32(0, f->b + index, (uInt)(f->n - 12 - index));
    for (int i = 0; i < 4; i++)
        f->b[f->n - 12 + (size_t)i] = (uint8_t)(crc >> 8 * i);
}

static void check_bad(const struct bytes *f, mix_status status, const char *part)
{
    mix_ctx *ctx = plain_ctx();
    struct mix__pack *p;
    write_bytes("bad.pack", f->b, f->n);
    CHECK_FAILS(ctx, mix__pack_open(&p, ctx, "bad.pack"), status, part);
    assert_null(p);
    assert_non_null(strstr(mix_ctx_error(ctx), "bad.pack"));
    mix_ctx_free(ctx);
}

static void set_number(struct bytes *f, size_t at, uint64_t value, int n)
{
    for (int i = 0; i < n; i++)
        f->b[at + (size_t)i] = (uint8_t)(value >> 8 * i);
}

static void load(struct bytes *f, const char *path)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    f->n = fread(f->b, 1, sizeof f->b, file);
    assert_in_range(f->n, 100, sizeof f->b - 1);
    fclose(file);
}

static void test_hostile(void **state)
{
    (void)state;
    enter_folder();
    write_set();
    mix_ctx *ctx = plain_ctx();
    mix_pack_info info;
    struct bytes good, f;
    CHECK_OK(pack(ctx, "set", "a", &info));
    load(&good, "a/train.pack");
    const size_t end = good.n - MIX__PACK_FOOTER, names = 4; /* "a", "b" */
    const size_t index = end - names - 4 * MIX__PACK_RECORD;

    for (size_t n = 0; n < good.n; n += n < 64 || n + 64 > good.n ? 1 : 37) {
        f = good;
        f.n = n;
        check_bad(&f, MIX_EFORMAT, n < 40 ? "expected a pack" : "not whole");
    }
    f = good;
    f.b[0] = 'M';
    check_bad(&f, MIX_EFORMAT, "expected 'mixpack1' at byte 0");
    for (size_t at = index; at < good.n - 8; at++) { /* any byte of the index */
        f = good;
        f.b[at] ^= 0x40;
        check_bad(&f, MIX_EFORMAT, "");
    }

    static const uint64_t offsets[] = { 0, 7, 1u << 30, UINT64_MAX, UINT64_MAX - 31 };
    for (size_t i = 0; i < MIX_COUNT(offsets); i++) {
        f = good;
        set_number(&f, end, offsets[i], 8);
        seal(&f, offsets[i]);
        check_bad(&f, MIX_EFORMAT, "cannot hold");
        f = good;
        set_number(&f, index + MIX__PACK_RECORD, offsets[i], 8);
        seal(&f, index);
        check_bad(&f, MIX_EFORMAT, "record 1 at byte");
    }
    const struct {
        size_t at;
        uint32_t value;
        const char *part;
    } cases[] = {
        { end + 8, 0, "promises 0 images" },
        { end + 8, UINT32_MAX, "cannot hold" },
        { end + 8, 3, "cannot hold" },
        { end + 12, 3, "the names of 3 classes" },
        { end + 12, 0, "the names of 0 classes" },
        { end + 16, 5, "cannot hold" },
        { index + 8, 0, "record 0" },
        { index + 8, UINT32_MAX, "record 0" },
        { index + 12, 2, "class 2" },
        { index + 16, 0, "x 0 pixels" },
        { index + 20, 65501, "65501 x 8 pixels" },
        { end - 4, 0x00626161, "the names of 2 classes" }, /* "aab\0" */
        { end - 4, 0x62006100, "the names of 2 classes" }, /* "\0a\0b" */
        { end - 4, 0x00000061, "the names of 2 classes" }, /* "a", "", "" */
    };
    for (size_t i = 0; i < MIX_COUNT(cases); i++) {
        f = good;
        set_number(&f, cases[i].at, cases[i].value, 4);
        seal(&f, index);
        check_bad(&f, MIX_EFORMAT, cases[i].part);
    }

    /* A damaged image is found when it is used, by its number. */
    mix_data *data;
    struct mix__image image;
    f = good;
    f.b[50] ^= 1;
    write_bytes("a/train.pack", f.b, f.n);
    CHECK_OK(open_set(&data, ctx, "a", 8));
    CHECK_FAILS(ctx, mix__data_image(data, MIX_TRAIN, 0, NULL, &image), MIX_EFORMAT,
                "a/train.pack: image 0");
    CHECK_OK(mix__data_image(data, MIX_TRAIN, 1, NULL, &image));
    mix__image_release(ctx, &image);
    mix_data_free(data);

    /* The halves must have the same classes. */
    f = good;
    f.b[end - 2] = 'c';
    seal(&f, index);
    write_bytes("a/train.pack", f.b, f.n);
    CHECK_FAILS(ctx, open_set(&data, ctx, "a", 8), MIX_EFORMAT, "different classes");
    assert_int_equal(unlink("a/train.pack") | mkdir("a/train.pack", 0700), 0);
    CHECK_FAILS(ctx, open_set(&data, ctx, "a", 8), MIX_EIO, "expected a file");
    mix_ctx_free(ctx);
    leave_folder();
}

/* Every n-th allocation fails: no leak, no file left. */
static void test_no_memory(void **state)
{
    (void)state;
    enter_folder();
    write_set();
    mix_status status = MIX_ENOMEM;
    for (size_t left = 0; status == MIX_ENOMEM; left++) {
        struct fault fault;
        mix_ctx *ctx = fault_ctx(&fault, left);
        mix_pack_info info;
        mix_data *data = NULL;
        status = pack(ctx, "set", "a", &info);
        if (status == MIX_OK) {
            status = open_set(&data, ctx, "a", 12);
            assert_int_equal(unlink("a/val.pack"), 0);
        }
        assert_true(status == MIX_OK || status == MIX_ENOMEM);
        assert_int_equal(status == MIX_OK, data != NULL);
        mix_data_free(data);
        fault_ctx_free(&fault, ctx);
    }
    assert_int_equal(status, MIX_OK);
    leave_folder();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_images), cmocka_unit_test(test_batches),
        cmocka_unit_test(test_own_size),    cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_full_disk),   cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
