#include "images.h"

#include "base/file.h"
#include "data/dataset.h"

/* The two halves of a small IDX set in the working folder: n images of 3 x 3, label i % 4. */
struct idx_files {
    uint8_t images[512], labels[64];
    size_t images_size, labels_size;
};

static struct idx_files make_files(uint32_t n)
{
    struct idx_files f;
    uint8_t bytes[256], labels[32];
    for (uint32_t i = 0; i < 9 * n; i++)
        bytes[i] = (uint8_t)(7 * i);
    for (uint32_t i = 0; i < n; i++)
        labels[i] = i % 4;
    f.images_size = make_idx(f.images, 3, (uint32_t[]){ n, 3, 3 }, bytes);
    f.labels_size = make_idx(f.labels, 1, &n, labels);
    return f;
}

static void write_idx_set(void)
{
    const struct idx_files train = make_files(10), val = make_files(5);
    write_bytes("train-images-idx3-ubyte", train.images, train.images_size);
    write_bytes("train-labels-idx1-ubyte", train.labels, train.labels_size);
    write_gzip("t10k-images-idx3-ubyte.gz", val.images, val.images_size);
    write_gzip("t10k-labels-idx1-ubyte.gz", val.labels, val.labels_size);
}

static mix_status open_here(mix_data **data, mix_ctx *ctx, int size)
{
    mix_data_options options;
    mix_data_options_init(&options);
    options.size = size;
    return mix_data_open(data, ctx, ".", &options);
}

static void test_idx(void **state)
{
    (void)state;
    enter_folder();
    write_idx_set();
    mix_ctx *ctx = plain_ctx();
    mix_data *data;
    CHECK_OK(open_here(&data, ctx, 0));
    mix_data_info info;
    mix_data_info_get(data, &info);
    assert_int_equal(info.classes, 4);
    assert_int_equal(info.channels, 1);
    assert_int_equal(info.size, 3);
    assert_int_equal(info.images[MIX_TRAIN], 10);
    assert_int_equal(info.images[MIX_VAL], 5);
    assert_string_equal(mix_data_class_name(data, 3), "3");
    for (int split = 0; split < MIX_SPLITS; split++) {
        struct mix__image image;
        CHECK_OK(mix__data_image(data, split, 4, NULL, &image));
        for (int i = 0; i < 9; i++)
            assert_int_equal(image.pixels[i], (uint8_t)(7 * (4 * 9 + i)));
        assert_int_equal(data->halves[split].labels[3], 3);
        mix__image_release(ctx, &image);
    }
    mix_data_free(data);
    CHECK_OK(open_here(&data, ctx, 5));
    struct mix__image image;
    CHECK_OK(mix__data_image(data, MIX_VAL, 0, NULL, &image));
    assert_int_equal(image.height, 5);
    assert_int_equal(image.width, 5);
    mix__image_release(ctx, &image);
    mix_data_free(data);
    mix_ctx_free(ctx);
    leave_folder();
}

/* Remembers the largest block that was asked for. */
static void *watch_alloc(void *user, size_t bytes)
{
    size_t *largest = user;
    if (bytes > *largest)
        *largest = bytes;
    return malloc(bytes);
}

static void watch_free(void *user, void *block)
{
    (void)user;
    free(block);
}

/* Opens the set in the working folder, which is bad; then makes it good again. */
static void check_bad_idx(mix_status status, const char *part)
{
    size_t largest = 0;
    mix_ctx *ctx;
    mix_ctx_options options;
    mix_ctx_options_init(&options);
    options.allocator = (mix_allocator){ watch_alloc, watch_free, &largest };
    CHECK_OK(mix_ctx_new(&ctx, &options));
    mix_data *data;
    CHECK_FAILS(ctx, open_here(&data, ctx, 0), status, part);
    assert_null(data);
    assert_in_range(largest, 1, 1 << 20);
    mix_ctx_free(ctx);
    write_idx_set();
}

static void test_bad_idx(void **state)
{
    (void)state;
    enter_folder();
    write_idx_set();
    struct idx_files f = make_files(10);
    static const char images[] = "train-images-idx3-ubyte", labels[] = "train-labels-idx1-ubyte";
    static const char zipped[] = "t10k-images-idx3-ubyte.gz";

    f.images[2] = 9;
    write_bytes(images, f.images, f.images_size);
    check_bad_idx(MIX_EFORMAT, "expected 00 00 08 03 at byte 0, found 00 00 09 03");

    f = make_files(10);
    f.images[4] = 0xff; /* 4 billion images */
    write_bytes(images, f.images, f.images_size);
    check_bad_idx(MIX_EFORMAT, "the file has 106");
    write_gzip(zipped, f.images, f.images_size);
    check_bad_idx(MIX_EFORMAT, "can hold at most");

    f = make_files(10);
    f.images[9] = 0xff; /* height 16711683 */
    write_bytes(images, f.images, f.images_size);
    check_bad_idx(MIX_EFORMAT, "height 16711683 at byte 8");

    f = make_files(10);
    f.images[7] = 0;
    write_bytes(images, f.images, f.images_size);
    check_bad_idx(MIX_EFORMAT, "count 0 at byte 4");

    f = make_files(10);
    write_bytes(images, f.images, 11);
    check_bad_idx(MIX_EFORMAT, "the data end at byte 11");
    write_bytes(images, f.images, f.images_size - 1);
    check_bad_idx(MIX_EFORMAT, "promises 106 bytes, the file has 105");
    write_bytes(images, f.images, f.images_size + 1);
    check_bad_idx(MIX_EFORMAT, "the file has 107");
    write_gzip(zipped, f.images, f.images_size + 1);
    check_bad_idx(MIX_EFORMAT, "found more");
    write_gzip(zipped, f.images, f.images_size - 1);
    check_bad_idx(MIX_EFORMAT, "the data end at byte 105");
    cut_file(zipped, 30);
    check_bad_idx(MIX_EFORMAT, zipped);
    cut_file(zipped, 4); /* in the checksum and length */
    check_bad_idx(MIX_EFORMAT, zipped);

    f = make_files(9);
    write_bytes(labels, f.labels, f.labels_size);
    check_bad_idx(MIX_EFORMAT, "9 labels");
    f = make_files(5);
    f.labels[8 + 2] = 4;
    write_gzip("t10k-labels-idx1-ubyte.gz", f.labels, f.labels_size);
    check_bad_idx(MIX_EFORMAT, "label 4 at byte 10");

    assert_int_equal(unlink(labels), 0);
    check_bad_idx(MIX_EIO, "train-labels-idx1-ubyte");
    assert_int_equal(unlink(labels), 0);
    assert_int_equal(mkdir(labels, 0700), 0);
    mix_ctx *ctx = plain_ctx();
    mix_data *data;
    CHECK_FAILS(ctx, open_here(&data, ctx, 0), MIX_EIO, "expected a file");
    mix_ctx_free(ctx);
    leave_folder();
}

static void make_folders(void)
{
    static const char *const names[] = { "train", "val", "train/b", "train/a", "val/a", "val/b" };
    for (size_t i = 0; i < MIX_COUNT(names); i++)
        assert_int_equal(mkdir(names[i], 0700), 0);
}

static void write_folder_set(void)
{
    make_folders();
    write_plain("train/a/2.jpg", 8, 8, 200, 0, 0);
    write_plain("train/a/1.jpg", 8, 8, 0, 200, 0);
    write_plain("train/b/3.JPEG", 8, 8, 0, 0, 200);
    write_plain("val/a/1.jpg", 8, 8, 50, 50, 50);
    write_plain("val/b/1.jpg", 8, 8, 60, 60, 60);
}

/* Every pixel of the image is this color, give or take JPEG's rounding. */
static void check_color(mix_data *data, mix_split split, size_t index, int r, int g, int b)
{
    struct mix__image image;
    const int color[3] = { r, g, b };
    CHECK_OK(mix__data_image(data, split, index, NULL, &image));
    assert_int_equal(image.channels, 3);
    for (int i = 0; i < image.height * image.width * 3; i++)
        if (abs(image.pixels[i] - color[i % 3]) > 3)
            fail_msg("image %zu: byte %d is %d, expected %d", index, i, image.pixels[i],
                     color[i % 3]);
    mix__image_release(data->ctx, &image);
}

static void test_folder(void **state)
{
    (void)state;
    enter_folder();
    write_folder_set();
    write_bytes("train/a/.hidden.jpg", "x", 1);
    write_bytes("train/a/notes.txt", "x", 1);
    write_bytes("train/labels.csv", "x", 1);
    assert_int_equal(symlink("../a/1.jpg", "train/b/4.jpg"), 0);
    uint8_t pixels[8 * 8 * 4];
    for (int i = 0; i < 8 * 8; i++)
        memcpy(pixels + 4 * i, (uint8_t[]){ 9, 99, 199, (uint8_t)i }, 4);
    write_png("train/b/5.JPEG", pixels, 8, 8, 4);
    for (int i = 0; i < 8 * 8; i++)
        memcpy(pixels + 2 * i, (uint8_t[]){ 77, (uint8_t)i }, 2);
    write_png("train/b/6.png", pixels, 8, 8, 2);
    memset(pixels, 123, sizeof pixels);
    write_jpeg("train/b/7.jpg", pixels, 8, 8, 1);

    mix_ctx *ctx = plain_ctx();
    for (int kept = 0; kept < 2; kept++) {
        mix_data *data;
        mix_data_options options;
        mix_data_options_init(&options);
        if (!kept)
            options.memory_limit = 0;
        CHECK_OK(mix_data_open(&data, ctx, ".", &options));
        assert_int_equal(data->halves[MIX_TRAIN].pixels != NULL, kept);
        mix_data_info info;
        mix_data_info_get(data, &info);
        assert_int_equal(info.classes, 2);
        assert_int_equal(info.size, 8);
        assert_int_equal(info.images[MIX_TRAIN], 7);
        assert_int_equal(info.images[MIX_VAL], 2);
        assert_string_equal(mix_data_class_name(data, 0), "a");
        assert_int_equal(data->halves[MIX_TRAIN].labels[1], 0);
        assert_int_equal(data->halves[MIX_TRAIN].labels[2], 1);
        check_color(data, MIX_TRAIN, 0, 0, 200, 0);
        check_color(data, MIX_TRAIN, 1, 200, 0, 0);
        check_color(data, MIX_TRAIN, 2, 0, 0, 200);
        check_color(data, MIX_TRAIN, 3, 0, 200, 0);
        check_color(data, MIX_TRAIN, 4, 9, 99, 199);
        check_color(data, MIX_TRAIN, 5, 77, 77, 77);
        check_color(data, MIX_TRAIN, 6, 123, 123, 123);
        check_color(data, MIX_VAL, 1, 60, 60, 60);
        mix_data_free(data);
    }
    mix_ctx_free(ctx);
    leave_folder();
}

static void test_sizes(void **state)
{
    (void)state;
    enter_folder();
    write_folder_set();
    write_plain("train/b/9.jpg", 12, 10, 60, 70, 80);
    mix_ctx *ctx = plain_ctx();
    mix_data *data;
    CHECK_FAILS(ctx, open_here(&data, ctx, 0), MIX_ESHAPE,
                "train/a/1.jpg is 8 x 8 pixels and ./train/b/9.jpg is 10 x 12");
    CHECK_OK(open_here(&data, ctx, 8));
    check_color(data, MIX_TRAIN, 3, 60, 70, 80);
    struct mix__file file;
    int height, width;
    CHECK_OK(mix__data_file(data, MIX_TRAIN, 3, &file));
    CHECK_OK(mix__source_size(ctx, &file.source, &height, &width));
    assert_int_equal(height, 12);
    assert_int_equal(width, 10);
    mix__file_release(ctx, &file);
    mix_data_free(data);
    write_plain("train/a/0.jpg", 8, 9, 1, 2, 3);
    CHECK_FAILS(ctx, open_here(&data, ctx, 0), MIX_ESHAPE, "not square");
    CHECK_FAILS(ctx, open_here(&data, ctx, -1), MIX_EINVAL, "0..4096");
    mix_data_options options;
    mix_data_options_init(&options);
    options.size = 8;
    options.resize = 7;
    CHECK_FAILS(ctx, mix_data_open(&data, ctx, ".", &options), MIX_EINVAL, "8..4096");
    options.size = 0;
    options.resize = 10;
    CHECK_FAILS(ctx, mix_data_open(&data, ctx, ".", &options), MIX_EINVAL, "an image size");
    mix_ctx_free(ctx);
    leave_folder();
}

static void test_cmyk(void **state)
{
    (void)state;
    enter_folder();
    write_folder_set();
    uint8_t pixels[8 * 8 * 4];
    for (int i = 0; i < 8 * 8; i++)
        memcpy(pixels + 4 * i, (uint8_t[]){ 255, 128, 0, 128 }, 4);
    write_jpeg("train/b/8.jpg", pixels, 8, 8, 4);
    /* The same file without Adobe's mark: its segment (tag 0xee) becomes a comment. */
    char *bytes;
    size_t size;
    mix_ctx *ctx = plain_ctx();
    CHECK_OK(mix__file_read(ctx, "train/b/8.jpg", 1 << 20, &bytes, &size));
    assert_int_equal((uint8_t)bytes[3], 0xee);
    bytes[3] = (char)0xfe;
    write_bytes("train/b/9.jpg", bytes, size);
    mix__free(ctx, bytes);
    write_jpeg_as("train/b/99.jpg", pixels, 8, 8, 4, JCS_YCCK);
    mix_data *data;
    CHECK_OK(open_here(&data, ctx, 0));
    check_color(data, MIX_TRAIN, 3, 128, 64, 0);
    check_color(data, MIX_TRAIN, 4, 128, 64, 0); /* as Pillow does */
    check_color(data, MIX_TRAIN, 5, 128, 64, 0);
    mix_data_free(data);
    mix_ctx_free(ctx);
    leave_folder();
}

static void keep_line(void *user, mix_log_level level, const char *line)
{
    assert_int_equal(level, MIX_LOG_WARNING);
    assert_int_equal(*(char *)user, 0); /* once */
    snprintf(user, 1024, "%s", line);
}

/* The set with one more file: named in the error, left out on request. */
static void check_bad_file(const char *path, const char *part)
{
    char line[1024] = "";
    mix_ctx *ctx;
    mix_ctx_options ctx_options;
    mix_ctx_options_init(&ctx_options);
    ctx_options.log = keep_line;
    ctx_options.log_user = line;
    CHECK_OK(mix_ctx_new(&ctx, &ctx_options));
    mix_data *data;
    CHECK_FAILS(ctx, open_here(&data, ctx, 0), MIX_EFORMAT, part);
    assert_non_null(strstr(mix_ctx_error(ctx), path));
    mix_data_options options;
    mix_data_options_init(&options);
    options.skip_bad_images = true;
    CHECK_OK(mix_data_open(&data, ctx, ".", &options));
    mix_data_info info;
    mix_data_info_get(data, &info);
    assert_int_equal(info.skipped[MIX_TRAIN], 1);
    assert_int_equal(info.images[MIX_TRAIN], 3);
    check_color(data, MIX_TRAIN, 0, 0, 200, 0);
    check_color(data, MIX_TRAIN, 1, 200, 0, 0);
    check_color(data, MIX_TRAIN, 2, 0, 0, 200);
    assert_int_equal(data->halves[MIX_TRAIN].labels[2], 1);
    assert_non_null(strstr(line, path));
    mix_data_free(data);
    mix_ctx_free(ctx);
    assert_int_equal(unlink(path), 0);
}

/* A gray progressive JPEG of one block of pixels, whose other coefficients, none, are said
 * so many times. */
static void write_scans(const char *path, int times)
{
    static const uint8_t start[] = { 0xff, 0xd8, 0xff, 0xdb, 0, 67, 0 };
    static const uint8_t frame[] = { 0xff, 0xc2, 0, 11, 8, 0, 8, 0, 8, 1, 1, 0x11, 0 };
    static const uint8_t first[] = { 0xff, 0xda, 0, 8, 1, 1, 0, 0, 0, 0, 0x7f };
    static const uint8_t more[] = { 0xff, 0xda, 0, 8, 1, 1, 0, 1, 63, 0, 0x7f };
    static uint8_t bytes[16384];
    size_t n = 0;
#define PUT(part) (memcpy(bytes + n, part, sizeof(part)), n += sizeof(part))
    PUT(start);
    memset(bytes + n, 1, 64); /* the quantization table */
    n += 64;
    PUT(frame);
    for (uint8_t class = 0; class < 2;
         class ++) { /* of each table: code 0 of one bit is symbol 0 */
        const uint8_t table[] = {
            0xff, 0xc4, 0, 20, (uint8_t)(class << 4), 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0,    0,    0, 0
        };
        PUT(table);
    }
    PUT(first);
    for (int i = 0; i < times; i++)
        PUT(more);
    PUT(((const uint8_t[]){ 0xff, 0xd9 }));
#undef PUT
    write_bytes(path, bytes, n);
}

static void test_bad_files(void **state)
{
    (void)state;
    enter_folder();
    write_folder_set();
    write_bytes("train/a/0.jpg", "", 0);
    check_bad_file("train/a/0.jpg", "found a file of 0 bytes");
    write_bytes("train/a/15.jpg", "GIF89a, not a JPEG", 18);
    check_bad_file("train/a/15.jpg", "found bytes 47 49 46 38");

    uint8_t noise[64 * 64 * 3];
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (uint8_t)(((uint32_t)i * 2654435761u ^ (uint32_t)(i * i)) >> 13);
    static const size_t cuts[] = { 2, 500, 5000 };
    for (size_t i = 0; i < MIX_COUNT(cuts); i++) {
        write_jpeg("train/a/15.jpg", noise, 64, 64, 3);
        cut_file("train/a/15.jpg", cuts[i]);
        check_bad_file("train/a/15.jpg", "bad JPEG near byte");
        write_png("train/a/15.png", noise, 64, 64, 3);
        cut_file("train/a/15.png", cuts[i] + 20);
        check_bad_file("train/a/15.png", "bad PNG");
    }
    write_scans("train/a/15.jpg", 1000);
    check_bad_file("train/a/15.jpg", "at most 100 scans");
    /* 60000 x 6000 pixels, 1 GB, in a file of some 100 bytes. */
    write_png("train/a/15.png", noise, 1, 1, 3);
    char *bytes;
    size_t size;
    mix_ctx *ctx = plain_ctx();
    CHECK_OK(mix__file_read(ctx, "train/a/15.png", 1 << 20, &bytes, &size));
    memcpy(bytes + 16, (uint8_t[]){ 0, 0, 0xea, 0x60, 0, 0, 0x17, 0x70 }, 8);
    const uint32_t crc = (uint32_t)crc32(0, (uint8_t *)bytes + 12, 17);
    for (int i = 0; i < 4; i++)
        bytes[29 + i] = (char)(crc >> (24 - 8 * i));
    write_bytes("train/a/15.png", bytes, size);
    mix__free(ctx, bytes);
    mix_ctx_free(ctx);
    check_bad_file("train/a/15.png", "promises 60000 x 6000 pixels");
    write_png_with("train/a/15.png", noise, 1, 1, 3, 65 << 20); /* some 60 KB that unpack to more */
    check_bad_file("train/a/15.png", "bad PNG");
    leave_folder();
}

static void test_missing(void **state)
{
    (void)state;
    enter_folder();
    mix_ctx *ctx = plain_ctx();
    mix_data *data;
    mix_data_options options;
    mix_data_options_init(&options);
    CHECK_FAILS(ctx, mix_data_open(&data, ctx, "nowhere", &options), MIX_EIO, "nowhere");
    CHECK_FAILS(ctx, open_here(&data, ctx, 0), MIX_EIO, "found none of them");
    assert_int_equal(mkdir("train", 0700), 0);
    CHECK_FAILS(ctx, open_here(&data, ctx, 0), MIX_EFORMAT, "./train: expected a folder");
    assert_int_equal(mkdir("train/a", 0700), 0);
    CHECK_FAILS(ctx, open_here(&data, ctx, 0), MIX_EIO, "./val: ");
    assert_int_equal(mkdir("val", 0700), 0);
    assert_int_equal(mkdir("val/b", 0700), 0);
    CHECK_FAILS(ctx, open_here(&data, ctx, 0), MIX_EFORMAT, "\"a\" is in train/ only");
    assert_int_equal(mkdir("train/b", 0700), 0);
    assert_int_equal(mkdir("val/a", 0700), 0);
    CHECK_FAILS(ctx, open_here(&data, ctx, 0), MIX_EFORMAT, "./train/a: expected JPEG or PNG");
    assert_int_equal(mkdir("val/c", 0700), 0);
    CHECK_FAILS(ctx, open_here(&data, ctx, 0), MIX_EFORMAT, "\"c\" is in val/ only");
    assert_int_equal(rmdir("val/c"), 0);
    assert_int_equal(mkdir("train/z", 0700), 0); /* behind all of the other half's */
    CHECK_FAILS(ctx, open_here(&data, ctx, 0), MIX_EFORMAT, "\"z\" is in train/ only");
    assert_int_equal(rmdir("train/z"), 0);
    write_bytes("train/a/1.jpg", "junk and junk", 13);
    write_bytes("train/b/1.jpg", "junk and junk", 13);
    write_plain("val/a/1.jpg", 8, 8, 1, 2, 3);
    write_plain("val/b/1.jpg", 8, 8, 1, 2, 3);
    options.skip_bad_images = true;
    CHECK_FAILS(ctx, mix_data_open(&data, ctx, ".", &options), MIX_EFORMAT, "train/b/1.jpg");
    options.size = 8;
    CHECK_FAILS(ctx, mix_data_open(&data, ctx, ".", &options), MIX_EFORMAT, "train");
    /* A link to nothing is an error even when bad images are left out. */
    assert_int_equal(symlink("nothing", "train/a/0.jpg"), 0);
    CHECK_FAILS(ctx, mix_data_open(&data, ctx, ".", &options), MIX_EIO, "train/a/0.jpg");
    mix_data_free(NULL);
    mix_ctx_free(ctx);
    leave_folder();
}

/* Every allocation fails once; nothing leaks. */
static void check_faults(int size)
{
    mix_status status;
    size_t left = 0;
    do {
        struct fault f = { .left = 1 };
        mix_ctx *ctx;
        mix_ctx_options options;
        mix_ctx_options_init(&options);
        options.allocator = (mix_allocator){ fault_alloc, fault_free, &f };
        options.threads = 1;
        CHECK_OK(mix_ctx_new(&ctx, &options));
        f = (struct fault){ .left = left++ };
        mix_data *data;
        status = open_here(&data, ctx, size);
        assert_int_equal(status == MIX_OK, data != NULL);
        mix_data_free(data);
        fault_ctx_free(&f, ctx);
    } while (status == MIX_ENOMEM);
    assert_int_equal(status, MIX_OK);
    assert_in_range(left, 5, 1000);
}

static void test_faults(void **state)
{
    (void)state;
    enter_folder();
    write_idx_set();
    check_faults(0);
    leave_folder();
    enter_folder();
    write_folder_set();
    check_faults(6);
    leave_folder();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idx),     cmocka_unit_test(test_bad_idx),
        cmocka_unit_test(test_folder),  cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_cmyk),    cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_missing), cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
