/*
 * From an ONNX file with folded batch norms to a quantized network: their statistics measured
 * without changing the function, training, checkpoints.
 */
#include "runs.h"

#include "train/evaluate.h"

#define MODEL MIX_TESTS_DIR "/onnx/gray.onnx" /* 1 channel, 6 classes */

static mix_ctx *ctx;
static char log_text[4096];

static void keep_log(void *user, mix_log_level level, const char *line)
{
    (void)user;
    (void)level;
    const size_t used = strlen(log_text);
    snprintf(log_text + used, sizeof log_text - used, "%s\n", line);
}

/* Logits of the engine's batch; the caller frees them. */
static float *forward(struct mix__engine *engine, bool batch_stats, size_t n)
{
    const struct mix__pass pass = { .batch_stats = batch_stats };
    const float *logits;
    float *copy = malloc(n * sizeof *copy);
    assert_non_null(copy);
    CHECK_OK(mix__engine_forward(engine, &pass, &logits));
    memcpy(copy, logits, n * sizeof *copy);
    return copy;
}

/* Largest |a - b| over the largest |a|. */
static double difference(const float *a, const float *b, size_t n)
{
    double worst = 0.0, scale = 0.0;
    for (size_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)a[i] - b[i]));
        scale = fmax(scale, fabs((double)a[i]));
    }
    return worst / scale;
}

static void recentred(void **unused)
{
    enum { CLASSES = 6, N = RUN_BATCH * CLASSES };
    const struct mix__batches_options options = {
        .split = MIX_TRAIN, .batch = RUN_BATCH, .train = true, .threads = 1
    };
    mix_onnx_options onnx;
    mix_data_options data_options;
    mix_data *data;
    mix_graph *graph;
    struct mix__state *state;
    struct mix__engine *engine;
    struct mix__batches *batches;
    struct mix__batch batch;
    (void)unused;
    mix_onnx_options_init(&onnx);
    mix_data_options_init(&data_options);
    CHECK_OK(mix_data_open(&data, ctx, "data", &data_options));
    CHECK_OK(mix_graph_from_onnx(&graph, ctx, MODEL, &onnx));
    CHECK_OK(mix__state_new(&state, graph, (int[]){ 8 }, 1, 0));
    CHECK_OK(mix__engine_new(&engine, state, RUN_BATCH, false, MIX__DTYPE_F32));
    CHECK_OK(mix__batches_new(&batches, data, &options));
    CHECK_OK(mix__batches_seek(batches, 0, 0));
    CHECK_OK(mix__batches_next(batches, &batch));
    mix__engine_feed(engine, &batch);
    float *before = forward(engine, false, N), *trained = forward(engine, true, N);
    assert_true(difference(before, trained, N) > 0.1); /* mean 0, variance 1 are not the batch's */
    free(trained);

    CHECK_OK(mix__batches_seek(batches, 0, 0));
    CHECK_OK(mix__recentre(engine, batches, 1)); /* over this very batch */
    CHECK_OK(mix__batches_seek(batches, 0, 0));
    CHECK_OK(mix__batches_next(batches, &batch));
    mix__engine_feed(engine, &batch);
    float *after = forward(engine, false, N);
    assert_true(difference(before, after, N) <= 1e-4);
    trained = forward(engine, true, N);
    assert_true(difference(before, trained, N) <= 1e-3);

    /* Over other batches the function is the same too. */
    CHECK_OK(mix__recentre(engine, batches, 3));
    mix__engine_feed(engine, &batch);
    free(after);
    CHECK_OK(mix__batches_seek(batches, 0, 0));
    CHECK_OK(mix__batches_next(batches, &batch));
    mix__engine_feed(engine, &batch);
    after = forward(engine, false, N);
    assert_true(difference(before, after, N) <= 1e-4);
    free(before);
    free(after);
    free(trained);
    mix__batches_free(batches);
    mix__engine_free(engine);
    mix__state_free(state);
    mix_graph_free(graph);
    mix_data_free(data);
}

static void to_quantized(void **unused)
{
    mix_settings s;
    mix_result result;
    mix_accuracy as_trained, as_float;
    mix_graph *graph;
    mix_graph_info info;
    mix_layer_bits *bits;
    (void)unused;
    tiny_settings(&s);
    s.width = 1.0;
    s.bn_batches = 0;
    snprintf(s.arch, sizeof s.arch, "%s", MODEL);
    CHECK_OK(mix_train(ctx, "float", &s, NULL, &result));
    mix_result_release(&result);
    assert_non_null(strstr(log_text, "classifier.1 has 6 classes; a fresh one for 4"));
    assert_non_null(strstr(log_text, "statistics of its batch norms measured over 6 batches"));
    CHECK_OK(mix_run_graph(ctx, "float", &graph, &bits));
    mix_graph_info_get(graph, &info);
    assert_string_equal(info.name, "gray");
    assert_int_equal(info.classes, RUN_CLASSES);
    assert_int_equal(info.layers, 8);
    assert_false(info.recentre);
    assert_null(bits);
    mix_graph_free(graph);

    strcpy(s.arch, "mobilenet_v2");
    CHECK_OK(mix_quantize(ctx, "mixed", "float", &s, NULL, &result));
    assert_int_equal(result.n_layers, 8);
    mix_result_release(&result);
    CHECK_OK(mix_eval(ctx, "mixed", &s, NULL, false, &as_trained));
    CHECK_OK(mix_eval(ctx, "mixed", &s, NULL, true, &as_float));
    assert_int_equal(as_trained.images, RUN_VAL);
    assert_true(as_trained.loss != as_float.loss);
}

/* Straight from the file, whose classes have to be the data's when it is judged or teaches. */
static void without_training(void **unused)
{
    mix_settings s;
    mix_result result;
    mix_accuracy a;
    mix_graph *graph;
    mix_layer_bits *bits;
    (void)unused;
    tiny_settings(&s);
    s.width = 1.0;
    snprintf(s.arch, sizeof s.arch, "%s", MODEL);
    CHECK_OK(mix_finetune(ctx, "straight", NULL, "W4A4", &s, NULL, &result));
    mix_result_release(&result);
    CHECK_OK(mix_run_graph(ctx, "straight", &graph, &bits));
    assert_false(graph->recentre);
    mix_bits_free(ctx, bits);
    mix_graph_free(graph);
    CHECK_FAILS(ctx, mix_eval(ctx, NULL, &s, NULL, false, &a), MIX_ESHAPE,
                "has no classifier for the 4 classes");
    strcpy(s.teacher, "self");
    CHECK_FAILS(ctx, mix_finetune(ctx, "taught", NULL, "W4A4", &s, NULL, &result), MIX_EINVAL,
                "has no classifier");
    strcpy(s.teacher, "none");
    CHECK_FAILS(ctx, mix_eval(ctx, "straight", &s, NULL, false, &a), MIX_EINVAL, "both a run");
}

static void refused(void **unused)
{
    mix_settings s;
    mix_result result;
    (void)unused;
    tiny_settings(&s);
    snprintf(s.arch, sizeof s.arch, "%s", MODEL);
    CHECK_FAILS(ctx, mix_train(ctx, "width", &s, NULL, &result), MIX_EINVAL,
                "width, stem and weights");
    s.width = 1.0;
    snprintf(s.arch, sizeof s.arch, "%s", MIX_TESTS_DIR "/onnx/torch_bn.onnx");
    CHECK_FAILS(ctx, mix_train(ctx, "channels", &s, NULL, &result), MIX_ESHAPE,
                "images of 1 channel");
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(recentred), cmocka_unit_test(to_quantized),
                                        cmocka_unit_test(without_training),
                                        cmocka_unit_test(refused) };
    mix_ctx_options options;
    mix_ctx_options_init(&options);
    options.threads = 1;
    options.log = keep_log;
    CHECK_OK(mix_ctx_new(&ctx, &options));
    enter_folder();
    write_tiny_data("data");
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    leave_folder();
    mix_ctx_free(ctx);
    return failed;
}
