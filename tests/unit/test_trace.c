/*
 * test_trace.c - traces: of a run against its .mix file in the runtime, of files, and bad files.
 */
#include "runs.h"

#include "in_folder.h"
#include "metamix/trace.h"

enum { IMAGES = 3, PIXELS = RUN_SIZE * RUN_SIZE };

static mix_settings settings;

static int make_run(void **unused)
{
    mix_result result;
    (void)unused;
    enter_folder();
    ctx = run_ctx();
    write_tiny_data("data");
    train_tiny(ctx, "float");
    tiny_settings(&settings);
    CHECK_OK(mix_finetune(ctx, "run", "float", "W4A4", &settings, NULL, &result));
    mix_result_release(&result);
    return 0;
}

struct twin {
    const mix_trace *trace;
    int layers;
    size_t compared, different;
};

static void compare(void *user, const mix_runtime_value *value)
{
    struct twin *twin = user;
    size_t count, n = (size_t)(value->height * value->width * value->channels);
    if (!value->reader)
        return;
    const float *want = mix_trace_layer(twin->trace, value->reader, &count);
    float *found = malloc(n * sizeof *found);
    assert_non_null(want);
    assert_int_equal(count, n);
    mix_runtime_decode(value, found);
    for (size_t i = 0; i < n; i++)
        twin->different += fabsf(found[i] - want[i]) > 1e-4f * value->step;
    free(found);
    twin->compared += n;
    twin->layers++;
}

static void run_is_its_mix_file(void **unused)
{
    mix_trace *trace;
    mix_trace_image image;
    mix_runtime *rt;
    mix_runtime_info info;
    void *bytes;
    size_t size, count;
    int images = 0;
    float logits[RUN_CLASSES];
    (void)unused;
    CHECK_OK(mix_export_bytes(ctx, "run", &bytes, &size));
    CHECK_OK(mix_runtime_open_bytes(&rt, ctx, bytes, size));
    CHECK_OK(mix_trace_open(&trace, ctx, "run", &settings));
    mix_runtime_info_get(rt, &info);
    assert_null(mix_trace_layer(trace, "features.0.0", &count)); /* there is no image yet */
    struct twin twin = { .trace = trace };
    mix_runtime_watch(rt, compare, &twin);
    for (CHECK_OK(mix_trace_next(trace, &image)); image.pixels; images++) {
        assert_true(image.height == RUN_SIZE && image.width == RUN_SIZE && image.channels == 1);
        assert_int_equal(image.classes, RUN_CLASSES);
        mix_runtime_run(rt, image.pixels, 1, logits);
        for (int c = 0; c < RUN_CLASSES; c++)
            assert_true(fabsf(logits[c] - image.logits[c]) < 1e-3f);
        CHECK_OK(mix_trace_next(trace, &image));
    }
    assert_int_equal(images, RUN_VAL);
    assert_int_equal(twin.layers, RUN_VAL * info.layers);
    assert_true(twin.compared > 0 && twin.different * 10000 < twin.compared);
    assert_null(mix_trace_layer(trace, "none", &count));
    mix_trace_free(trace);
    mix_runtime_close(rt);
    mix_export_free(ctx, bytes);
    CHECK_FAILS(ctx, mix_trace_open(&trace, ctx, "float", &settings), MIX_EINVAL,
                "float has no quantized weights");
    assert_null(trace);
}

/* One tensor of a file; dims end with 0. */
static struct mix__st_tensor tensor(const char *name, const float *data, const int64_t *dims)
{
    struct mix__st_tensor t = { .name = name, .dtype = MIX__ST_F32, .data = data };
    t.bytes = sizeof(float);
    for (; dims[t.rank]; t.rank++) {
        t.dims[t.rank] = dims[t.rank];
        t.bytes *= (size_t)dims[t.rank];
    }
    return t;
}

static void save(const struct mix__st_tensor *tensors, size_t n)
{
    CHECK_OK(mix__st_save(ctx, "trace.safetensors", tensors, n, (const char *const[]){ NULL }));
}

static void files(void **unused)
{
    static float pixels[IMAGES * PIXELS], logits[IMAGES * RUN_CLASSES], layer[IMAGES * 6];
    struct mix__st_tensor t[3] = {
        tensor("image", pixels, (int64_t[]){ IMAGES, RUN_SIZE, RUN_SIZE, 1, 0 }),
        tensor("logits", logits, (int64_t[]){ IMAGES, RUN_CLASSES, 0 }),
        tensor("a.layer", layer, (int64_t[]){ IMAGES, 1, 2, 3, 0 }),
    };
    mix_trace *trace;
    mix_trace_image image;
    size_t count;
    (void)unused;
    for (int i = 0; i < IMAGES; i++) {
        pixels[i * PIXELS] = (float)i;
        logits[i * RUN_CLASSES] = (float)(10 + i);
        layer[i * 6] = (float)(20 + i);
    }
    save(t, 3);
    CHECK_OK(mix_trace_open(&trace, ctx, "trace.safetensors", &settings));
    for (int i = 0; i < IMAGES; i++) {
        CHECK_OK(mix_trace_next(trace, &image));
        assert_true(image.pixels[0] == i && image.logits[0] == 10 + i);
        const float *values = mix_trace_layer(trace, "a.layer", &count);
        assert_true(count == 6 && values[0] == 20 + i);
        assert_null(mix_trace_layer(trace, "another", &count));
        assert_null(
            mix_trace_layer(trace, "logits", &count)); /* the network's, not what a layer reads */
    }
    CHECK_OK(mix_trace_next(trace, &image));
    assert_null(image.pixels);
    mix_trace_free(trace);

    save(t, 1);
    CHECK_FAILS(ctx, mix_trace_open(&trace, ctx, "trace.safetensors", &settings), MIX_EFORMAT,
                "no tensor \"logits\"");
    t[2] = tensor("a.layer", layer, (int64_t[]){ IMAGES - 1, 1, 2, 3, 0 });
    save(t, 3);
    CHECK_FAILS(ctx, mix_trace_open(&trace, ctx, "trace.safetensors", &settings), MIX_EFORMAT,
                "a.layer is F32 (2,1,2,3)");
    t[0].dtype = MIX__ST_I32;
    save(t, 2);
    CHECK_FAILS(ctx, mix_trace_open(&trace, ctx, "trace.safetensors", &settings), MIX_EFORMAT,
                "image is I32");
    t[0] = tensor("image", pixels, (int64_t[]){ IMAGES, PIXELS, 0 });
    save(t, 2);
    CHECK_FAILS(ctx, mix_trace_open(&trace, ctx, "trace.safetensors", &settings), MIX_EFORMAT,
                "expected F32 of 4 dimensions");
    CHECK_FAILS(ctx, mix_trace_open(&trace, ctx, "nowhere", &settings), MIX_EIO, "nowhere");
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(run_is_its_mix_file),
                                        cmocka_unit_test(files) };
    return cmocka_run_group_tests(tests, make_run, tear_down);
}
