/*
 * golden_small_net.c - a small network against PyTorch in double: logits, every gradient, ten
 * losses and the statistics after them, in float, quantized and as a mixture. make_small_net.py
 * draws the network and lists what the file holds.
 */
#include "golden.h"

#include "train/train.h"

enum { BATCH = 8, SIZE = 16, CHANNELS = 3, CLASSES = 10, STEPS = 10 };
enum { CANDIDATES = 4, ONE = 1, WEIGHT_BITS = 4, MAX_RANGES = 64 };
static const int candidate[CANDIDATES] = { 2, 3, 4, 8 };

/* Relative to the largest value of a tensor. */
#define LOGITS_TOLERANCE 1e-4
#define GRAD_TOLERANCE   1e-3
#define GRAD_FLOOR       1e-4
#define LOSS_TOLERANCE   2e-5
#define STEP_TOLERANCE   1e-5

static struct net {
    mix_ctx *ctx;
    struct mix__st_file *file;
    mix_graph *graph;
    struct mix__state *state;
    struct mix__engine *engine;
} net;

static const float *expected(size_t n, const char *group, const char *name)
{
    size_t count;
    const float *values = golden(net.file, MIX__ST_F32, &count, "%s.%s", group, name);
    assert_int_equal(count, n);
    return values;
}

/* ---- the network ------------------------------------------------------------------------ */

static const char *join(char *buffer, const char *a, const char *b)
{
    snprintf(buffer, MIX__NAME_MAX, "%s%s", a, b);
    return buffer;
}

static int conv_bn(mix_graph *g, const char *conv, const char *norm, int x, int k, int kernel,
                   int stride, int groups)
{
    x = mix__graph_conv(
        g, conv, x, &(struct mix__conv_shape){ k, kernel, stride, kernel / 2, groups, false, 0 });
    return mix__graph_batchnorm(g, norm, x, 1e-5f, 0.1f);
}

static int conv_bn_relu6(mix_graph *g, const char *name, int x, int k, int kernel, int stride,
                         int groups)
{
    char conv[MIX__NAME_MAX], norm[MIX__NAME_MAX], act[MIX__NAME_MAX];
    x = conv_bn(g, join(conv, name, ".0"), join(norm, name, ".1"), x, k, kernel, stride, groups);
    return mix__graph_unary(g, MIX__OP_RELU6, join(act, name, ".2"), x);
}

static int block(mix_graph *g, const char *name, int x, int hidden, int k, int stride)
{
    char a[MIX__NAME_MAX], b[MIX__NAME_MAX];
    int y = conv_bn_relu6(g, join(a, name, ".conv.0"), x, hidden, 1, 1, 1);
    y = conv_bn_relu6(g, join(a, name, ".conv.1"), y, hidden, 3, stride, hidden);
    return conv_bn(g, join(a, name, ".conv.2"), join(b, name, ".conv.3"), y, k, 1, 1, 1);
}

static void build(mix_graph *g)
{
    int x = conv_bn_relu6(g, "features.0", 0, 8, 3, 2, 1);
    x = mix__graph_add(g, "features.1", x, block(g, "features.1", x, 24, 8, 1));
    x = block(g, "features.2", x, 24, 16, 2);
    x = conv_bn_relu6(g, "features.3", x, 32, 1, 1, 1);
    x = mix__graph_unary(g, MIX__OP_GLOBAL_AVGPOOL, "pool", x);
    x = mix__graph_unary(g, MIX__OP_FLATTEN, "flatten", x);
    x = mix__graph_linear(g, "classifier.1", x, CLASSES);
    CHECK_OK(mix__graph_finish(g, x));
}

static int setup(void **state)
{
    (void)state;
    net.ctx = plain_ctx();
    net.file = golden_open(net.ctx, "small_net.safetensors");
    CHECK_OK(mix__graph_new(&net.graph, net.ctx, "small_net", SIZE, CHANNELS));
    build(net.graph);
    for (size_t i = 0; i < net.graph->n_params; i++) {
        const struct mix__param *p = &net.graph->params[i];
        memcpy(net.graph->values + p->offset, expected(p->count, "value", p->name),
               p->count * sizeof(float));
    }
    CHECK_OK(mix__state_new(&net.state, net.graph, candidate, CANDIDATES, 1));
    CHECK_OK(mix__engine_new(&net.engine, net.state, BATCH, true, MIX__DTYPE_F32));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mix__engine_free(net.engine);
    mix__state_free(net.state);
    mix_graph_free(net.graph);
    mix__st_close(net.file);
    mix_ctx_free(net.ctx);
    return 0;
}

/* ---- a pass ----------------------------------------------------------------------------- */

static void load_images(int batch)
{
    size_t count;
    const unsigned char *u8 = golden(net.file, MIX__ST_U8, &count, "images");
    float *x = mix__engine_input(net.engine);
    assert_int_equal(count, STEPS * BATCH * CHANNELS * SIZE * SIZE);
    u8 += (size_t)batch * BATCH * CHANNELS * SIZE * SIZE;
    for (int n = 0; n < BATCH; n++)
        for (int c = 0; c < CHANNELS; c++)
            for (int i = 0; i < SIZE * SIZE; i++)
                x[(n * SIZE * SIZE + i) * CHANNELS + c] = (float)(*u8++ - 128) / 64.0f;
}

static double loss_of(const float *logits, int batch, float *dlogits)
{
    const int64_t *all = golden(net.file, MIX__ST_I64, NULL, "labels");
    int labels[BATCH];
    for (int n = 0; n < BATCH; n++)
        labels[n] = (int)all[batch * BATCH + n];
    return mix__loss_eval(logits, NULL, labels, BATCH, CLASSES, 1.0f, dlogits).loss;
}

static void check_logits(const struct mix__pass *pass, const char *group, const char *name)
{
    const float *logits;
    load_images(0);
    CHECK_OK(mix__engine_forward(net.engine, pass, &logits));
    check_close(name, logits, expected(BATCH * CLASSES, group, name), BATCH * CLASSES,
                LOGITS_TOLERANCE, 0.0);
}

/* Forward and backward over a batch, into cleared gradients. */
static double run_batch(int batch, bool update_stats, unsigned what)
{
    const struct mix__pass pass = { .batch_stats = true, .update_stats = update_stats };
    float dlogits[BATCH * CLASSES];
    const float *logits;
    memset(net.state->grad, 0, net.state->n * sizeof(float));
    memset(net.state->alpha_grad, 0, net.state->n_alpha * sizeof(float));
    load_images(batch);
    CHECK_OK(mix__engine_forward(net.engine, &pass, &logits));
    const double loss = loss_of(logits, batch, dlogits);
    CHECK_OK(mix__engine_backward(net.engine, dlogits, what));
    return loss;
}

static void check_param_grads(const char *group)
{
    for (size_t i = 0; i < net.graph->n_params; i++) {
        const struct mix__param *p = &net.graph->params[i];
        char name[MIX__NAME_MAX + 8];
        if (p->kind == MIX__PARAM_MEAN || p->kind == MIX__PARAM_VAR)
            continue;
        snprintf(name, sizeof name, "grad.%s", p->name);
        check_close(name, net.state->grad + p->offset, expected(p->count, group, name), p->count,
                    GRAD_TOLERANCE, GRAD_FLOOR);
    }
}

/* A (layers, candidates) array, of which a fixed layer has the first column only. */
static void check_rows(const float *found, const char *group, const char *name, double tolerance,
                       double floor)
{
    const float *rows = expected(net.state->n_alpha, group, name);
    for (size_t l = 0; l < net.graph->n_layers; l++) {
        char what[MIX__NAME_MAX + 40];
        const size_t n = net.graph->layers[l].info.searched ? CANDIDATES : 1;
        snprintf(what, sizeof what, "%s of %s", name, net.graph->layers[l].info.name);
        check_close(what, found + l * CANDIDATES, rows + l * CANDIDATES, n, tolerance, floor);
    }
}

/* ---- ten steps -------------------------------------------------------------------------- */

static size_t list_ranges(struct mix__range *ranges, float weight_decay)
{
    size_t n = 0;
    assert_true(net.graph->n_params + 1 <= MAX_RANGES);
    for (size_t i = 0; i < net.graph->n_params; i++) {
        const struct mix__param *p = &net.graph->params[i];
        if (p->kind == MIX__PARAM_MEAN || p->kind == MIX__PARAM_VAR)
            continue;
        const float decay = p->kind == MIX__PARAM_WEIGHT ? weight_decay : 0.0f;
        ranges[n++] = (struct mix__range){
            .offset = p->offset, .count = p->count, .weight_decay = decay, .floor = -INFINITY
        };
    }
    ranges[n++] = (struct mix__range){ .offset = net.state->act_step,
                                       .count = net.state->n - net.state->act_step,
                                       .floor = MIX__STEP_MIN };
    return n;
}

/* Runs ten steps from the state as it is, and puts the state back. */
static void check_ten_losses(const char *group, enum mix__optimizer_kind kind, float lr,
                             float weight_decay)
{
    const struct mix__optimizer_options options = {
        .kind = kind, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .momentum = 0.9f
    };
    struct mix__state *s = net.state;
    struct mix__optimizer optimizer;
    struct mix__range ranges[MAX_RANGES];
    const size_t n_ranges = list_ranges(ranges, weight_decay);
    float *value = mix__alloc(net.ctx, s->n, sizeof *value);
    float *stats = mix__alloc(net.ctx, s->n_stats, sizeof *stats);
    float losses[STEPS];
    assert_true(value && stats);
    memcpy(value, s->value, s->n * sizeof *value);
    memcpy(stats, s->stats, s->n_stats * sizeof *stats);

    CHECK_OK(mix__optimizer_init(&optimizer, net.ctx, s->n, &options));
    for (int step = 0; step < STEPS; step++) {
        losses[step] = (float)run_batch(step, true, MIX__GRAD_PARAMS);
        mix__optimizer_step(&optimizer, s->value, s->grad, lr, ranges, n_ranges);
        s->version++;
    }
    mix__optimizer_release(&optimizer);
    check_close("losses", losses, expected(STEPS, group, "losses"), STEPS, LOSS_TOLERANCE, 0.0);
    for (size_t i = 0; i < net.graph->n_params; i++) {
        const struct mix__param *p = &net.graph->params[i];
        char name[MIX__NAME_MAX + 8];
        if (p->kind != MIX__PARAM_MEAN && p->kind != MIX__PARAM_VAR)
            continue;
        snprintf(name, sizeof name, "after.%s", p->name);
        check_close(name, s->stats + p->offset - net.graph->n_trained,
                    expected(p->count, group, name), p->count, LOGITS_TOLERANCE, 0.0);
    }

    memcpy(s->value, value, s->n * sizeof *value);
    memcpy(s->stats, stats, s->n_stats * sizeof *stats);
    s->version++;
    mix__free(net.ctx, value);
    mix__free(net.ctx, stats);
}

/* ---- the tests -------------------------------------------------------------------------- */

static void test_float(void **state)
{
    (void)state;
    mix__engine_mode_all(net.engine, MIX__QUANT_OFF, 0, 32);
    check_logits(&(struct mix__pass){ .batch_stats = false }, "float", "logits_eval");
    check_logits(&(struct mix__pass){ .batch_stats = true }, "float", "logits_train");
    run_batch(0, false, MIX__GRAD_PARAMS);
    check_param_grads("float");
    check_ten_losses("float", MIX__SGD, 0.05f, 5e-4f);
}

/* Our first steps, then PyTorch's own, so that what follows starts from the same numbers. */
static void test_first_steps(void **state)
{
    (void)state;
    struct mix__state *s = net.state;
    load_images(0);
    CHECK_OK(mix__engine_calibrate(net.engine));
    check_rows(s->value + s->act_step, "steps", "activation", STEP_TOLERANCE, 0.0);
    memcpy(s->value + s->act_step, expected(s->n_alpha, "steps", "activation"),
           s->n_alpha * sizeof(float));

    mix__engine_mode_all(net.engine, MIX__QUANT_ONE, ONE, WEIGHT_BITS);
    mix__state_init_weight_steps(s, mix__engine_modes(net.engine));
    for (size_t l = 0; l < net.graph->n_layers; l++) {
        const mix_layer_info *layer = &net.graph->layers[l].info;
        const size_t n = (size_t)layer->out_channels;
        const float *steps = expected(n, "steps.weight", layer->name);
        check_close(layer->name, s->value + s->weight_step[l], steps, n, STEP_TOLERANCE, 0.0);
        memcpy(s->value + s->weight_step[l], steps, n * sizeof(float));
    }
    s->version++;
}

static void test_quantized(void **state)
{
    (void)state;
    struct mix__state *s = net.state;
    mix__engine_mode_all(net.engine, MIX__QUANT_ONE, ONE, WEIGHT_BITS);
    check_logits(&(struct mix__pass){ .batch_stats = false }, "quant", "logits_eval");
    check_logits(&(struct mix__pass){ .batch_stats = true }, "quant", "logits_train");
    run_batch(0, false, MIX__GRAD_PARAMS);
    check_param_grads("quant");
    check_rows(s->grad + s->act_step, "quant", "grad.activation", GRAD_TOLERANCE, GRAD_FLOOR);
    for (size_t l = 0; l < net.graph->n_layers; l++) {
        const mix_layer_info *layer = &net.graph->layers[l].info;
        check_close(layer->name, s->grad + s->weight_step[l],
                    expected((size_t)layer->out_channels, "quant.grad.weight_step", layer->name),
                    (size_t)layer->out_channels, GRAD_TOLERANCE, GRAD_FLOOR);
    }
    check_ten_losses("quant", MIX__ADAM, 1e-3f, 0.0f);
}

static void test_mixture(void **state)
{
    (void)state;
    struct mix__state *s = net.state;
    size_t count;
    const float *alpha = golden(net.file, MIX__ST_F32, &count, "alpha");
    assert_int_equal(count, s->n_alpha);
    memcpy(s->alpha, alpha, count * sizeof *alpha);
    mix__engine_mode_all(net.engine, MIX__QUANT_MIXTURE, 0, 32);
    check_logits(&(struct mix__pass){ .batch_stats = true }, "mixture", "logits_train");
    run_batch(0, false, MIX__GRAD_PARAMS | MIX__GRAD_ALPHA);
    check_param_grads("mixture");
    check_rows(s->alpha_grad, "mixture", "grad_alpha", GRAD_TOLERANCE, GRAD_FLOOR);
    check_rows(s->grad + s->act_step, "mixture", "grad.activation", GRAD_TOLERANCE, GRAD_FLOOR);
}

int main(void)
{
    /* In this order: the quantized ones need the first steps. */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_float),
        cmocka_unit_test(test_first_steps),
        cmocka_unit_test(test_quantized),
        cmocka_unit_test(test_mixture),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
