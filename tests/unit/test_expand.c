/*
 * test_expand.c - expand layers that are never stored give what stored ones give: logits, gradients
 * and running statistics, where images are one tile, several tiles, or several of them one.
 */
#include "support.h"

#include "base/random.h"
#include "engine/engine_inside.h"
#include "metamix/zoo.h"
#include "train/train.h"

enum { BATCH_MOST = 32, CLASSES = 4, UPDATES = 20 };
static const int candidates[] = { 2, 4, 8 };

/* How far off twins may be. */
struct limits {
    double logits, gradients; /* by the batch's statistics */
    double statistics, steps, beta;
    double fixed, quantized; /* by fixed statistics */
};
/* By the batch's statistics a unit that rounding moves over an activation's edge is a difference in
 * all below it; in bfloat16, where such units are many, a random network's gradients are noise. What
 * they are is grad_engine's business. */
static const struct limits limits[] = {
    [MIX__DTYPE_F32] = { 0.2, 0.2, 1e-5, 1e-5, 1e-5, 1e-4, 1e-2 },
    [MIX__DTYPE_BF16] = { 0.3, INFINITY, 5e-3, 1e-3, 1e-2, 5e-3, 2e-2 },
};

/* One network and image batch, and an engine that stores nothing it need not, or everything. */
struct twin {
    mix_graph *graph;
    struct mix__state *state;
    struct mix__engine *engine;
};

static void begin(struct twin *t, mix_ctx *ctx, const mix_zoo_options *options, int batch,
                  enum mix__dtype dtype, bool stored)
{
    CHECK_OK(mix_zoo_new(&t->graph, ctx, options));
    CHECK_OK(mix__state_new(&t->state, t->graph, candidates, (int)MIX_COUNT(candidates), 1));
    /* Only searched layers are ever left out. */
    for (size_t l = 1; l + 1 < t->graph->n_layers; l++)
        t->graph->layers[l].info.searched = !stored;
    CHECK_OK(mix__engine_new(&t->engine, t->state, batch, true, dtype));
    for (size_t l = 1; l + 1 < t->graph->n_layers; l++)
        t->graph->layers[l].info.searched = true;
    const size_t values = (size_t)batch * options->size * options->size * 3;
    for (size_t i = 0; i < values; i++)
        mix__engine_input(t->engine)[i] = (float)mix__random_normal(3, 0, i);
}

static void end(struct twin *t)
{
    mix__engine_free(t->engine);
    mix__state_free(t->state);
    mix_graph_free(t->graph);
}

static int unstored(const struct mix__plan *p)
{
    int n = 0;
    for (size_t i = 0; i < p->n_steps; i++)
        n += p->steps[i].unstored;
    return n;
}

static void run(struct twin *t, const struct mix__pass *pass, unsigned what, float *logits)
{
    const int batch = mix__engine_batch(t->engine);
    int labels[BATCH_MOST];
    float dlogits[BATCH_MOST * CLASSES];
    const float *out;
    for (int i = 0; i < batch; i++)
        labels[i] = i % CLASSES;
    memset(t->state->grad, 0, t->state->n * sizeof *t->state->grad);
    memset(t->state->alpha_grad, 0, t->state->n_alpha * sizeof *t->state->alpha_grad);
    CHECK_OK(mix__engine_forward(t->engine, pass, &out));
    memcpy(logits, out, (size_t)batch * CLASSES * sizeof *logits);
    mix__loss_eval(logits, NULL, labels, batch, CLASSES, 1.0f, dlogits);
    CHECK_OK(mix__engine_backward(t->engine, dlogits, what));
}

static double length(const float *x, size_t n)
{
    double square = 0.0;
    for (size_t i = 0; i < n; i++)
        square += (double)x[i] * x[i];
    return sqrt(square);
}

/* |got - want| over |want|; floor: what |want| is taken to be at least, as some gradients are 0 but
 * for rounding. */
static void near(const char *what, const float *got, const float *want, size_t n, double floor,
                 double most)
{
    const double size = fmax(length(want, n), floor);
    double off = 0.0;
    for (size_t i = 0; i < n; i++)
        off += pow((double)got[i] - want[i], 2.0);
    if (!(sqrt(off) <= most * size))
        fail_msg("%s: off by %g of its size, expected at most %g", what, sqrt(off) / size, most);
}

static void compare(struct twin t[2], const struct mix__pass *pass, unsigned what,
                    double most_logits, double most)
{
    const struct limits *limit = &limits[mix__engine_dtype(t[0].engine)];
    const size_t n_logits = (size_t)mix__engine_batch(t[0].engine) * CLASSES;
    float logits[2][BATCH_MOST * CLASSES];
    for (int i = 0; i < 2; i++)
        run(&t[i], pass, what, logits[i]);
    const double floor = 1e-4 * length(t[1].state->grad, t[1].state->n);
    assert_true(what == MIX__GRAD_ALPHA || floor > 0.0);
    near("logits", logits[0], logits[1], n_logits, 0.0, most_logits);
    near("running statistics", t[0].state->stats, t[1].state->stats, t[0].state->n_stats, 0.0,
         limit->statistics);
    if (what & MIX__GRAD_ALPHA)
        near("alpha", t[0].state->alpha_grad, t[1].state->alpha_grad, t[0].state->n_alpha, 0.0,
             most);
    for (size_t p = 0; what & MIX__GRAD_PARAMS && p < t[0].graph->n_params; p++) {
        const struct mix__param *param = &t[0].graph->params[p];
        if (param->offset < t[0].graph->n_trained)
            near(param->name, t[0].state->grad + param->offset, t[1].state->grad + param->offset,
                 param->count, floor, most);
    }
}

/* A constant added to what an expand layer reads is lost in the batch norm behind it, so beta of a
 * linear batch norm in front of it alone has no gradient. How many there are. */
static int check_beta(const struct twin *t)
{
    const struct mix__plan *p = &t->engine->plan;
    int n = 0;
    for (size_t i = 0; i < p->n_steps; i++) {
        if (!p->steps[i].unstored || p->steps[i].before < 0)
            continue;
        const struct mix__node *norm = p->steps[p->steps[i].before].node;
        const struct mix__param *beta = &t->graph->params[norm->beta];
        const struct mix__param *gamma = &t->graph->params[norm->gamma];
        const double sum = length(t->state->grad + beta->offset, beta->count);
        const double size = length(t->state->grad + gamma->offset, gamma->count);
        if (!(sum <= limits[p->dtype].beta * size))
            fail_msg("%s: gradient %g, of gamma %g; expected 0", beta->name, sum, size);
        n++;
    }
    return n;
}

static void set_modes(struct twin t[2], enum mix__quant_mode mode, int choice, int weight_bits)
{
    for (int i = 0; i < 2; i++)
        mix__engine_mode_all(t[i].engine, mode, choice, weight_bits);
}

static int check(const char *arch, double width, int size, int batch_size, int threads,
                 enum mix__dtype dtype)
{
    static const struct mix__pass batch = { .batch_stats = true, .update_stats = true };
    static const struct mix__pass fixed = { .fixed_stats = true };
    const struct limits *limit = &limits[dtype];
    struct twin t[2];
    mix_ctx *ctx;
    mix_ctx_options threaded;
    mix_zoo_options options;
    mix_ctx_options_init(&threaded);
    threaded.threads = threads;
    CHECK_OK(mix_ctx_new(&ctx, &threaded));
    mix_zoo_options_init(&options);
    options.arch = arch;
    options.width = width;
    options.size = size;
    options.classes = CLASSES;
    for (int i = 0; i < 2; i++)
        begin(&t[i], ctx, &options, batch_size, dtype, i == 1);
    assert_true(unstored(&t[0].engine->plan) > 1 && unstored(&t[1].engine->plan) == 0);
    assert_true(mix__engine_memory(t[0].engine).arena < mix__engine_memory(t[1].engine).arena);
    /* Without a backward pass everything is stored, for evaluation on codes. */
    struct mix__plan forward;
    CHECK_OK(mix__plan_make(&forward, t[0].graph, batch_size, false, dtype));
    assert_int_equal(unstored(&forward), 0);
    mix__plan_release(&forward);

    compare(t, &batch, MIX__GRAD_PARAMS, limit->logits, limit->gradients);
    const int linear = check_beta(&t[0]);
    set_modes(t, MIX__QUANT_ONE, 1, 4);
    for (int i = 0; i < 2; i++) {
        CHECK_OK(mix__engine_calibrate(t[i].engine));
        mix__state_init_weight_steps(t[i].state, mix__engine_modes(t[i].engine));
    }
    const size_t steps = t[0].state->weight_steps - t[0].state->act_step;
    near("steps", t[0].state->value + t[0].state->act_step,
         t[1].state->value + t[1].state->act_step, steps, 0.0, limit->steps);
    /* From here on by the same statistics, once the running ones have come near the batch's. */
    for (int i = 0; i < UPDATES; i++) {
        const float *logits;
        CHECK_OK(mix__engine_forward(t[1].engine, &batch, &logits));
    }
    memcpy(t[0].state->value, t[1].state->value, t[1].state->n * sizeof *t[1].state->value);
    memcpy(t[0].state->stats, t[1].state->stats, t[1].state->n_stats * sizeof *t[1].state->stats);
    for (int i = 0; i < 2; i++)
        t[i].state->version++;
    set_modes(t, MIX__QUANT_OFF, 0, 32);
    compare(t, &fixed, MIX__GRAD_PARAMS, limit->fixed, limit->fixed);
    /* A code that rounds the other way may be one of few. */
    set_modes(t, MIX__QUANT_ONE, 1, 4);
    compare(t, &fixed, MIX__GRAD_PARAMS, limit->quantized, limit->quantized);
    set_modes(t, MIX__QUANT_MIXTURE, 0, 32);
    compare(t, &fixed, MIX__GRAD_PARAMS | MIX__GRAD_ALPHA, limit->quantized, limit->quantized);
    compare(t, &fixed, MIX__GRAD_ALPHA, limit->quantized, limit->quantized);
    for (int i = 0; i < 2; i++)
        end(&t[i]);
    mix_ctx_free(ctx);
    return linear;
}

static void test_several_images_a_tile(void **unused)
{
    (void)unused;
    assert_true(check("mobilenet_v2", 0.35, 32, 32, 1, MIX__DTYPE_F32) > 0);
}

/* Of unequal rows, and some of them one after the other in one part. */
static void test_several_tiles_an_image(void **unused)
{
    (void)unused;
    assert_true(check("mobilenet_v2", 1.0, 62, 6, 3, MIX__DTYPE_F32) > 0);
}

/* Depthwise layers of 5 x 5 and of stride 2, hard swish, gates. */
static void test_v3(void **unused)
{
    (void)unused;
    check("mobilenet_v3_large", 1.0, 120, 4, 2, MIX__DTYPE_F32);
}

static void test_bfloat16(void **unused)
{
    (void)unused;
    mix_ctx *ctx;
    CHECK_OK(mix_ctx_new(&ctx, NULL));
    const bool able = mix_ctx_cpu(ctx) & MIX_CPU_BF16_PRODUCTS;
    mix_ctx_free(ctx);
    if (!able)
        skip(); /* all is stored where products are float32 */
    assert_true(check("mobilenet_v2", 0.35, 32, 32, 1, MIX__DTYPE_BF16) > 0);
    assert_true(check("mobilenet_v2", 1.0, 62, 6, 3, MIX__DTYPE_BF16) > 0);
    check("mobilenet_v3_large", 1.0, 120, 4, 2, MIX__DTYPE_BF16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_several_images_a_tile),
        cmocka_unit_test(test_several_tiles_an_image),
        cmocka_unit_test(test_v3),
        cmocka_unit_test(test_bfloat16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
