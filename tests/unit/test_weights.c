/*
 * Parameters from another tool's file: taken by name, a classifier of other classes left alone,
 * wrong files refused.
 */
#include "runs.h"

#include "model/graph.h"
#include "metamix/weights.h"

#define FILE_NAME "weights.safetensors"

static mix_ctx *ctx;
static char log_text[4096];

static void keep_log(void *user, mix_log_level level, const char *line)
{
    (void)user;
    const size_t used = strlen(log_text);
    snprintf(log_text + used, sizeof log_text - used, "%c %s\n",
             level == MIX_LOG_WARNING ? 'W' : 'I', line);
}

static mix_graph *make_graph(int classes, int seed)
{
    mix_graph *graph;
    mix_zoo_options options;
    mix_zoo_options_init(&options);
    options.width = 0.1;
    options.size = RUN_SIZE;
    options.classes = classes;
    options.seed = (uint64_t)seed;
    CHECK_OK(mix_zoo_new(&graph, ctx, &options));
    return graph;
}

static struct mix__st_tensor tensor_of(const mix_graph *g, size_t param)
{
    const struct mix__param *p = &g->params[param];
    struct mix__st_tensor t = { .name = p->name,
                                .dtype = MIX__ST_F32,
                                .rank = p->rank,
                                .data = g->values + p->offset,
                                .bytes = p->count * sizeof(float) };
    for (int d = 0; d < p->rank; d++)
        t.dims[d] = p->dims[d];
    return t;
}

static const int64_t counter;

/* The graph's parameters, but for the one named `without`, and what else torchvision writes. */
static void write_weights(const mix_graph *g, const char *without, const char *renamed)
{
    struct mix__st_tensor *tensors = calloc(g->n_params + 1, sizeof *tensors);
    size_t n = 0;
    assert_non_null(tensors);
    for (size_t i = 0; i < g->n_params; i++) {
        const struct mix__param *p = &g->params[i];
        if (without && strcmp(p->name, without) == 0 && !renamed)
            continue;
        tensors[n] = tensor_of(g, i);
        if (without && strcmp(p->name, without) == 0)
            tensors[n].name = renamed;
        n++;
    }
    tensors[n++] = (struct mix__st_tensor){ .name = "features.0.1.num_batches_tracked",
                                            .dtype = MIX__ST_I64,
                                            .data = &counter,
                                            .bytes = sizeof counter };
    CHECK_OK(mix__st_save(ctx, FILE_NAME, tensors, n, NULL));
    free(tensors);
}

static void taken(void **state)
{
    mix_graph *from = make_graph(RUN_CLASSES, 1), *to = make_graph(RUN_CLASSES, 2);
    (void)state;
    write_weights(from, NULL, NULL);
    assert_memory_not_equal(to->values, from->values, from->n_values * sizeof(float));
    log_text[0] = '\0';
    CHECK_OK(mix_weights_load(to, FILE_NAME, NULL));
    assert_memory_equal(to->values, from->values, from->n_values * sizeof(float));
    assert_string_equal(log_text, "");
    mix_graph_free(from);
    mix_graph_free(to);
}

static void other_classes(void **state)
{
    mix_graph *from = make_graph(RUN_CLASSES, 1), *to = make_graph(7, 2);
    mix_graph *fresh = make_graph(7, 2);
    (void)state;
    write_weights(from, NULL, NULL);
    log_text[0] = '\0';
    CHECK_OK(mix_weights_load(to, FILE_NAME, NULL));
    for (size_t i = 0; i < to->n_params; i++) {
        const struct mix__param *p = &to->params[i];
        const mix_graph *same = strncmp(p->name, "classifier", 10) == 0 ? fresh : from;
        assert_memory_equal(to->values + p->offset, same->values + same->params[i].offset,
                            p->count * sizeof(float));
    }
    assert_string_equal(log_text, "I " FILE_NAME ": no classifier for 7 classes; classifier.1 "
                                  "starts from random; the file's is for 4\n");
    mix_graph_free(from);
    mix_graph_free(to);
    mix_graph_free(fresh);
}

/* Of several kinds: names are listed up to a limit, those of our own checkpoints are not. */
static void told(void **state)
{
    enum { N = 40 };
    mix_graph *g = make_graph(RUN_CLASSES, 1);
    struct mix__st_tensor *tensors = calloc(g->n_params + N, sizeof *tensors);
    char names[N][16];
    mix_weights_info info;
    size_t n = 0;
    (void)state;
    assert_non_null(tensors);
    for (; n < g->n_params; n++)
        tensors[n] = tensor_of(g, n);
    for (int i = 0; i < N; i++, n++) {
        snprintf(names[i], sizeof names[i], i < 30 ? "other%d" : "metamix.x%d", i);
        tensors[n] = (struct mix__st_tensor){
            .name = names[i], .rank = 1, .dims = { 1 }, .data = g->values, .bytes = 4
        };
    }
    CHECK_OK(mix__st_save(ctx, FILE_NAME, tensors, n, NULL));
    log_text[0] = '\0';
    CHECK_OK(mix_weights_load(g, FILE_NAME, &info));
    assert_int_equal(info.taken, g->n_params);
    assert_int_equal(info.unused, N);
    assert_false(info.new_classifier);
    assert_non_null(strstr(log_text, "I " FILE_NAME ": a checkpoint of metamix; its 10 tensors"));
    assert_non_null(strstr(log_text, "W " FILE_NAME ": 30 tensors are not used by mobilenet_v2: "
                                     "other0, other1, "));
    assert_non_null(strstr(log_text, ", other19 and 10 more\n"));

    /* Missing: all but the classifier and the first two. */
    CHECK_OK(mix__st_save(ctx, FILE_NAME, tensors, 2, NULL));
    CHECK_FAILS(ctx, mix_weights_load(g, FILE_NAME, &info), MIX_EFORMAT,
                ": 258 of the 262 tensors of mobilenet_v2 are missing: features.0.1.bias, "
                "features.0.1.running_mean, ");
    const char *end = strstr(mix_ctx_error(ctx), " and 238 more");
    assert_non_null(end);
    assert_string_equal(end, " and 238 more");
    free(tensors);
    mix_graph_free(g);
}

static void half_precision(void **state)
{
    static const uint16_t halfs[] = { 0x3e00, 0xc000 }; /* 1.5, -2 */
    mix_graph *to = make_graph(2, 2);
    struct mix__st_tensor *tensors = calloc(to->n_params, sizeof *tensors);
    (void)state;
    assert_non_null(tensors);
    for (size_t n = 0; n < to->n_params; n++)
        tensors[n] = tensor_of(to, n);
    struct mix__st_tensor *bias = &tensors[to->n_params - 1];
    while (strcmp(bias->name, "classifier.1.bias") != 0)
        bias--;
    *bias = (struct mix__st_tensor){ bias->name, MIX__ST_F16, 1, { 2 }, halfs, sizeof halfs };
    CHECK_OK(mix__st_save(ctx, FILE_NAME, tensors, to->n_params, NULL));
    CHECK_OK(mix_weights_load(to, FILE_NAME, NULL));
    const float *values = to->values + to->params[bias - tensors].offset;
    assert_true(values[0] == 1.5f && values[1] == -2.0f);

    bias->dtype = MIX__ST_I16;
    CHECK_OK(mix__st_save(ctx, FILE_NAME, tensors, to->n_params, NULL));
    CHECK_FAILS(ctx, mix_weights_load(to, FILE_NAME, NULL), MIX_EFORMAT,
                "tensor 'classifier.1.bias' has type I16; expected F32, F16, BF16 or F64");
    free(tensors);
    mix_graph_free(to);
}

static void refused(void **state)
{
    static const char *const kernel = "features.1.conv.1.weight";
    mix_graph *from = make_graph(RUN_CLASSES, 1), *to = make_graph(RUN_CLASSES, 2);
    (void)state;
    write_weights(from, kernel, NULL);
    CHECK_FAILS(ctx, mix_weights_load(to, FILE_NAME, NULL), MIX_EFORMAT,
                "1 of the 262 tensors of mobilenet_v2 are missing: features.1.conv.1.weight");

    write_weights(from, "classifier.1.bias", "fc.bias");
    log_text[0] = '\0';
    CHECK_OK(mix_weights_load(to, FILE_NAME, NULL)); /* half a classifier is none */
    assert_non_null(
        strstr(log_text, "W " FILE_NAME ": 1 tensors are not used by mobilenet_v2: fc.bias\n"));
    assert_non_null(strstr(log_text, "no classifier for 4 classes"));

    size_t var = 0;
    while (from->params[var].kind != MIX__PARAM_VAR)
        var++;
    from->values[from->params[var].offset] = -1.0f;
    write_weights(from, NULL, NULL);
    CHECK_FAILS(ctx, mix_weights_load(to, FILE_NAME, NULL), MIX_EFORMAT, from->params[var].name);
    from->values[from->params[var].offset] = 1.0f;
    from->values[from->params[0].offset] = NAN;
    write_weights(from, NULL, NULL);
    CHECK_FAILS(ctx, mix_weights_load(to, FILE_NAME, NULL), MIX_EFORMAT, from->params[0].name);

    mix_graph *wide;
    mix_zoo_options options;
    mix_zoo_options_init(&options);
    options.size = RUN_SIZE;
    options.classes = RUN_CLASSES;
    CHECK_OK(mix_zoo_new(&wide, ctx, &options));
    from->values[from->params[0].offset] = 0.0f;
    write_weights(from, NULL, NULL);
    CHECK_FAILS(ctx, mix_weights_load(wide, FILE_NAME, NULL), MIX_EFORMAT, "has shape (");
    CHECK_FAILS(ctx, mix_weights_load(to, "none.safetensors", NULL), MIX_EIO, "none.safetensors");
    mix_graph_free(wide);
    mix_graph_free(from);
    mix_graph_free(to);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(taken), cmocka_unit_test(other_classes),
                                        cmocka_unit_test(told), cmocka_unit_test(half_precision),
                                        cmocka_unit_test(refused) };
    mix_ctx_options options;
    mix_ctx_options_init(&options);
    options.log = keep_log;
    CHECK_OK(mix_ctx_new(&ctx, &options));
    enter_folder();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    leave_folder();
    mix_ctx_free(ctx);
    return failed;
}
