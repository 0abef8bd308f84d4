/*
 * test_engine.c - the engine's promises beside its numbers: a step allocates nothing, buffers share
 * the arena without meeting, modes switch back and forth, threads change nothing, nor do products
 * of bytes or streaming stores, failures leave nothing.
 */
#include "support.h"

#include "base/random.h"
#include "engine/engine_inside.h"
#include "engine/plan.h"
#include "metamix/zoo.h"
#include "train/train.h"

enum { BATCH = 4, SIZE = 16, HALF_SIZE = 32, CLASSES = 5 };
static const int candidates[] = { 2, 3, 8 };

struct fixture {
    mix_graph *graph;
    struct mix__state *state;
    struct mix__engine *engine;
};

static mix_status build_sized(struct fixture *f, mix_ctx *ctx, const char *arch, double width,
                              int size)
{
    mix_zoo_options options;
    *f = (struct fixture){ NULL };
    mix_zoo_options_init(&options);
    options.arch = arch;
    options.width = width;
    options.size = size;
    options.classes = CLASSES;
    MIX_TRY(mix_zoo_new(&f->graph, ctx, &options));
    MIX_TRY(mix__state_new(&f->state, f->graph, candidates, (int)MIX_COUNT(candidates), 1));
    MIX_TRY(mix__engine_new(&f->engine, f->state, BATCH, true, MIX__DTYPE_F32));
    for (size_t i = 0; i < (size_t)BATCH * size * size * 3; i++)
        mix__engine_input(f->engine)[i] = (float)mix__random_normal(3, 0, i);
    return MIX_OK;
}

static mix_status build_arch(struct fixture *f, mix_ctx *ctx, const char *arch, double width)
{
    return build_sized(f, ctx, arch, width, SIZE);
}

static mix_status build(struct fixture *f, mix_ctx *ctx)
{
    return build_arch(f, ctx, "mobilenet_v2", 0.25);
}

static void release(struct fixture *f)
{
    mix__engine_free(f->engine);
    mix__state_free(f->state);
    mix_graph_free(f->graph);
}

/* Forward and backward; the logits' and the gradients' sum of squares, to compare passes. */
static double run(struct fixture *f, unsigned what)
{
    static const int labels[BATCH] = { 0, 1, 2, 3 };
    const struct mix__pass pass = { .batch_stats = true, .dropout = true, .seed = 1, .step = 7 };
    float dlogits[BATCH * CLASSES];
    const float *logits;
    double sum = 0.0;
    memset(f->state->grad, 0, f->state->n * sizeof *f->state->grad);
    CHECK_OK(mix__engine_forward(f->engine, &pass, &logits));
    for (int i = 0; i < BATCH * CLASSES; i++)
        sum += logits[i] * logits[i];
    mix__loss_eval(logits, NULL, labels, BATCH, CLASSES, 1.0f, dlogits);
    CHECK_OK(mix__engine_backward(f->engine, dlogits, what));
    for (size_t i = 0; i < f->state->n; i++)
        sum += f->state->grad[i] * f->state->grad[i];
    return sum;
}

static void test_step_allocates_nothing(void **unused)
{
    struct fault fault;
    struct fixture f;
    (void)unused;
    mix_ctx *ctx = fault_ctx(&fault, SIZE_MAX);
    CHECK_OK(build(&f, ctx));
    CHECK_OK(mix__engine_calibrate(f.engine));
    mix__engine_mode_all(f.engine, MIX__QUANT_ONE, 1, 4);
    mix__state_init_weight_steps(f.state, mix__engine_modes(f.engine));
    fault.left = 0;
    run(&f, MIX__GRAD_PARAMS);
    mix__engine_mode_all(f.engine, MIX__QUANT_MIXTURE, 0, 32);
    run(&f, MIX__GRAD_PARAMS | MIX__GRAD_ALPHA);
    release(&f);
    fault_ctx_free(&fault, ctx);
}

static void test_modes_switch(void **unused)
{
    struct fixture f;
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    CHECK_OK(build(&f, ctx));
    const double off = run(&f, MIX__GRAD_PARAMS);
    CHECK_OK(mix__engine_calibrate(f.engine));
    assert_true(run(&f, MIX__GRAD_PARAMS) == off); /* calibration moved nothing else */

    double sums[3];
    for (int b = 0; b < 3; b++) {
        mix__engine_mode_all(f.engine, MIX__QUANT_ONE, b, 32);
        sums[b] = run(&f, MIX__GRAD_PARAMS);
        assert_true(sums[b] != off && (b == 0 || sums[b] != sums[b - 1]));
    }
    /* A mixture that is all one branch is that branch. */
    mix__engine_mode_all(f.engine, MIX__QUANT_MIXTURE, 0, 32);
    for (size_t i = 0; i < f.state->n_alpha; i++)
        f.state->alpha[i] = i % 3 == 1 ? 200.0f : 0.0f;
    assert_true(fabs(run(&f, MIX__GRAD_PARAMS) - sums[1]) <= 1e-5 * sums[1]);
    mix__engine_mode_all(f.engine, MIX__QUANT_OFF, 0, 32);
    assert_true(run(&f, MIX__GRAD_PARAMS) == off);
    release(&f);
    mix_ctx_free(ctx);
}

/* Gradients and running statistics after a batch's branches, which are told of each other. */
static void run_branches(struct fixture *f)
{
    static const int labels[BATCH] = { 0, 1, 2, 3 };
    enum { BRANCHES = (int)MIX_COUNT(candidates) };
    float dlogits[BATCH * CLASSES];
    const float *logits;
    memset(f->state->grad, 0, f->state->n * sizeof *f->state->grad);
    for (int b = 0; b < BRANCHES; b++) {
        const struct mix__pass pass = {
            .batch_stats = true, .update_stats = true, .branch = b, .branches = BRANCHES
        };
        mix__engine_mode_all(f->engine, MIX__QUANT_ONE, b, 32);
        CHECK_OK(mix__engine_forward(f->engine, &pass, &logits));
        mix__loss_eval(logits, NULL, labels, BATCH, CLASSES, 1.0f / BRANCHES, dlogits);
        CHECK_OK(mix__engine_backward(f->engine, dlogits, MIX__GRAD_PARAMS));
    }
}

static void near_arrays(const char *what, const float *got, const float *want, size_t n)
{
    double size = 0.0;
    for (size_t i = 0; i < n; i++)
        size = fmax(size, fabs(want[i]));
    for (size_t i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) <= 2e-4 * fabs(want[i]) + 2e-6 * size))
            fail_msg("%s %zu: %g, expected %g", what, i, got[i], want[i]);
}

/* Branches that share the stem give what branches of their own give: a stem that one fused batch
 * norm ends, one whose end a shortcut reads too, and one with a pool. */
static void test_stem_is_shared(void **unused)
{
    static const struct {
        const char *arch;
        double width;
    } nets[] = { { "mobilenet_v2", 1.0 }, { "mobilenet_v2", 0.25 }, { "resnet18", 0.25 } };
    (void)unused;
    for (size_t a = 0; a < MIX_COUNT(nets); a++) {
        struct fixture own, shared;
        mix_ctx *ctx = plain_ctx();
        CHECK_OK(build_arch(&own, ctx, nets[a].arch, nets[a].width));
        CHECK_OK(build_arch(&shared, ctx, nets[a].arch, nets[a].width));
        CHECK_OK(mix__engine_calibrate(own.engine));
        CHECK_OK(mix__engine_calibrate(shared.engine));
        const size_t before = mix__engine_memory(shared.engine).scratch;
        CHECK_OK(mix__engine_share_stem(shared.engine));
        assert_true(mix__engine_memory(shared.engine).scratch > before);
        for (int step = 0; step < 2; step++) {
            run_branches(&own);
            run_branches(&shared);
            near_arrays(nets[a].arch, shared.state->grad, own.state->grad, own.state->n);
            near_arrays("stats", shared.state->stats, own.state->stats, own.state->n_stats);
        }
        release(&own);
        release(&shared);
        mix_ctx_free(ctx);
    }
}

static size_t end_of(const struct mix__buffer *b)
{
    return b->offset + b->count * mix__dtype_size(b->dtype);
}

static void check_arena(const struct mix__plan *p)
{
    for (size_t i = 0; i < p->n_buffers; i++) {
        const struct mix__buffer *a = &p->buffers[i];
        assert_true(end_of(a) <= p->arena);
        for (size_t j = 0; j < i; j++) {
            const struct mix__buffer *b = &p->buffers[j];
            const bool together = a->first <= b->last && b->first <= a->last;
            assert_true(!together || end_of(a) <= b->offset || end_of(b) <= a->offset);
        }
    }
    assert_true(p->arena >= p->values_live && (double)p->arena <= 1.1 * (double)p->values_live);
}

/* No two buffers that are in use at one time overlap, and the arena is near the floor. */
static void test_arena(void **unused)
{
    static const char *const archs[] = { "mobilenet_v2", "resnet18" };
    mix_zoo_options options;
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    for (int i = 0; i < 4; i++) {
        mix_graph *g;
        struct mix__plan p;
        mix_zoo_options_init(&options);
        options.arch = archs[i / 2];
        CHECK_OK(mix_zoo_new(&g, ctx, &options));
        CHECK_OK(mix__plan_make(&p, g, 2, i % 2, i % 2 ? MIX__DTYPE_BF16 : MIX__DTYPE_F32));
        check_arena(&p);
        mix__plan_release(&p);
        mix_graph_free(g);
    }
    mix_ctx_free(ctx);
}

/* Sums are taken in fixed parts: the forward pass does not know how many threads there are. */
static void test_threads(void **unused)
{
    double sums[2];
    (void)unused;
    for (int i = 0; i < 2; i++) {
        struct fixture f;
        mix_ctx *ctx;
        mix_ctx_options options;
        mix_ctx_options_init(&options);
        options.threads = i ? 3 : 1;
        CHECK_OK(mix_ctx_new(&ctx, &options));
        CHECK_OK(build(&f, ctx));
        CHECK_OK(mix__engine_calibrate(f.engine));
        mix__engine_mode_all(f.engine, MIX__QUANT_ONE, 1, 32);
        run(&f, MIX__GRAD_ALPHA); /* no weight gradients: those are oneDNN's */
        const float *logits;
        const struct mix__pass pass = { .batch_stats = true };
        CHECK_OK(mix__engine_forward(f.engine, &pass, &logits));
        sums[i] = 0.0;
        for (int k = 0; k < BATCH * CLASSES; k++)
            sums[i] += logits[k];
        release(&f);
        mix_ctx_free(ctx);
    }
    assert_true(sums[0] == sums[1]);
}

static mix_ctx *masked_ctx(unsigned cpu_mask)
{
    mix_ctx *ctx;
    mix_ctx_options options;
    mix_ctx_options_init(&options);
    options.cpu_mask = cpu_mask;
    CHECK_OK(mix_ctx_new(&ctx, &options));
    return ctx;
}

/* Of images so large that no layer's tensors are single pixels, which are float32. */
static void build_half(struct fixture *f, mix_ctx *ctx, const char *arch)
{
    CHECK_OK(build_sized(f, ctx, arch, 0.5, HALF_SIZE));
    struct mix__engine *half;
    CHECK_OK(mix__engine_new(&half, f->state, BATCH, true, MIX__DTYPE_BF16));
    memcpy(mix__engine_input(half), mix__engine_input(f->engine),
           (size_t)BATCH * HALF_SIZE * HALF_SIZE * 3 * sizeof(float));
    CHECK_OK(mix__engine_calibrate(half));
    mix__engine_free(f->engine);
    f->engine = half;
}

/* Without fast products of bfloat16 they are of float32, between stored tensors of bfloat16. */
static void test_products(void **unused)
{
    static const unsigned masks[] = { MIX_CPU_ALL, MIX_CPU_ALL & ~(unsigned)MIX_CPU_BF16_PRODUCTS };
    (void)unused;
    for (size_t m = 0; m < MIX_COUNT(masks); m++) {
        struct fixture f;
        mix_ctx *ctx = masked_ctx(masks[m]);
        build_half(&f, ctx, "mobilenet_v2");
        const struct mix__plan *p = &f.engine->plan;
        int products = 0, halves = 0, unstored = 0;
        for (size_t i = 0; i < p->n_steps; i++) {
            const struct mix__step *s = &p->steps[i];
            if (s->kind != MIX__STEP_CONV)
                continue;
            products += mix__conv_types(f.engine->convs[s->layer]).operand == MIX__DTYPE_BF16;
            halves += p->buffers[s->y].dtype == MIX__DTYPE_BF16;
            unstored += s->unstored;
        }
        assert_true(halves > 30);
        if (mix_ctx_cpu(ctx) & MIX_CPU_BF16_PRODUCTS)
            assert_true(products > 10 && unstored > 0);
        else
            assert_true(products == 0 && unstored == 0);
        assert_true(isfinite(run(&f, MIX__GRAD_PARAMS)));
        release(&f);
        mix_ctx_free(ctx);
    }
}

/* auto is bfloat16, but where plain C would have to round to it. */
static void test_precision(void **unused)
{
    (void)unused;
    mix_ctx *all = plain_ctx(), *plain_c = masked_ctx(0);
    const bool able = mix_ctx_cpu(all) & MIX_CPU_AVX2;
    assert_int_equal(mix__training_dtype(all, "auto"), able ? MIX__DTYPE_BF16 : MIX__DTYPE_F32);
    assert_int_equal(mix__training_dtype(plain_c, "auto"), MIX__DTYPE_F32);
    assert_int_equal(mix__training_dtype(plain_c, "bf16"), MIX__DTYPE_BF16);
    assert_int_equal(mix__training_dtype(all, "f32"), MIX__DTYPE_F32);
    mix_ctx_free(all);
    mix_ctx_free(plain_c);
}

/* Codes multiplied as bytes give the sums that codes in bfloat16 give, and a weight that is not a
 * number does not get lost in them. */
static void test_bytes(void **unused)
{
    static const char *const archs[] = { "mobilenet_v2", "mobilenet_v3_small", "resnet18" };
    (void)unused;
    mix_ctx *with = plain_ctx(), *without = masked_ctx(MIX_CPU_ALL & ~(unsigned)MIX_CPU_VNNI);
    const unsigned needed = MIX_CPU_VNNI | MIX_CPU_BF16_PRODUCTS;
    const bool able = (mix_ctx_cpu(with) & needed) == needed;
    for (size_t a = 0; able && a < MIX_COUNT(archs); a++) {
        struct fixture bytes, half;
        build_half(&bytes, with, archs[a]);
        build_half(&half, without, archs[a]);
        assert_true(mix__engine_memory(bytes.engine).weights >
                    mix__engine_memory(half.engine).weights);
        for (int i = 0; i < 4; i++) { /* 3 and 8 bits, with 8 and 4 bits of weights */
            struct fixture *const both[] = { &bytes, &half };
            double sum[2];
            for (int k = 0; k < 2; k++) {
                struct mix__layer_mode *modes = mix__engine_modes(both[k]->engine);
                mix__engine_mode_all(both[k]->engine, MIX__QUANT_ONE, 1 + i / 2, i % 2 ? 4 : 8);
                mix__state_init_weight_steps(both[k]->state, modes);
                sum[k] = run(both[k], MIX__GRAD_PARAMS);
            }
            assert_true(sum[0] == sum[1]);
            assert_memory_equal(bytes.state->grad, half.state->grad,
                                half.state->n * sizeof *half.state->grad);
        }
        const mix_graph *g = bytes.graph;
        const struct mix__node *node = &g->nodes[g->layers[g->n_layers / 2].node];
        bytes.state->value[g->params[node->weight].offset] = NAN;
        bytes.state->version++;
        assert_true(isnan(run(&bytes, MIX__GRAD_PARAMS)));
        release(&bytes);
        release(&half);
    }
    mix_ctx_free(with);
    mix_ctx_free(without);
    if (!able)
        skip();
}

static float as_stored(struct mix__values z, float value)
{
    return z.dtype == MIX__DTYPE_BF16 ? mix__bf16_widen(mix__bf16_round(value)) : value;
}

/* Whether the layer's result is what its codes and its weights' codes give. */
static bool multiplied(struct mix__engine *e, const struct mix__step *s)
{
    const struct mix__node *node = s->node;
    const int c = s->in.c, k = s->out.c, taps = node->kernel * node->kernel;
    const size_t pixels = mix__rows(e, &s->in), outputs = mix__rows(e, &s->out);
    const struct mix__values z = mix__engine_at(e, s->y);
    float *x = calloc(pixels * (size_t)c, sizeof *x),
          *work = calloc((size_t)(taps * c * k), sizeof *work);
    mix__make_input(e, s, mix__f32(x), mix__engine_at(e, s->x[0]), pixels);
    const float *w = mix__quantized_weights(e, s->layer, work);
    bool same = true;
    for (size_t p = 0; p < outputs && same; p++) {
        const int column = (int)p % s->out.w, row = (int)p / s->out.w % s->out.h;
        const size_t image = p / (size_t)(s->out.w * s->out.h);
        for (int o = 0; o < k; o++) {
            int64_t sum = 0;
            for (int t = 0; t < taps; t++) {
                const int r = row * node->stride - node->pad + t / node->kernel;
                const int q = column * node->stride - node->pad + t % node->kernel;
                if (r < 0 || r >= s->in.h || q < 0 || q >= s->in.w)
                    continue;
                const float *at = x + (((size_t)(image * s->in.h + r)) * s->in.w + q) * c;
                for (int i = 0; i < c; i++)
                    sum += (int64_t)at[i] * (int64_t)w[(o * c + i) * taps + t];
            }
            same &= mix__values_get(z, p * k + o) == as_stored(z, (float)sum);
        }
    }
    free(x);
    free(work);
    return same;
}

/* Every layer that multiplies bytes, of a network of this precision: how many those are. */
static int layers_of_bytes(mix_ctx *ctx, const char *arch, bool half, int weight_bits, float shrink)
{
    const struct mix__pass pass = { .batch_stats = true };
    const float *logits;
    struct fixture f;
    int layers = 0;
    if (half)
        build_half(&f, ctx, arch);
    else
        CHECK_OK(build_arch(&f, ctx, arch, 0.5));
    CHECK_OK(mix__engine_calibrate(f.engine));
    mix__engine_mode_all(f.engine, MIX__QUANT_ONE, 2, weight_bits);
    mix__state_init_weight_steps(f.state, mix__engine_modes(f.engine));
    for (size_t k = f.state->act_step; k < f.state->n; k++)
        f.state->value[k] *= shrink;
    f.state->version++;
    CHECK_OK(mix__engine_forward(f.engine, &pass, &logits));
    for (size_t k = 0; k < f.engine->plan.n_steps; k++) {
        const struct mix__step *s = &f.engine->plan.steps[k];
        if (s->kind != MIX__STEP_CONV || !f.engine->units[s->layer].bytes)
            continue;
        layers++;
        assert_true(multiplied(f.engine, s));
    }
    release(&f);
    return layers;
}

/* Operands are as large as they can be with small steps. */
static void check_exact(mix_ctx *ctx, const char *arch, bool half)
{
    static const struct {
        int weight_bits;
        float shrink;
    } cases[] = { { 4, 1.0f }, { 7, 0.01f }, { 8, 0.01f } };
    const unsigned cpu = mix_ctx_cpu(ctx);
    const bool able = cpu & MIX_CPU_AVX2 && (!half || !(cpu & MIX_CPU_BF16_PRODUCTS));
    for (size_t i = 0; i < MIX_COUNT(cases); i++) {
        const int bits = cases[i].weight_bits;
        const int layers = layers_of_bytes(ctx, arch, half, bits, cases[i].shrink);
        assert_true(cpu & MIX_CPU_VNNI || (able && bits < 8) ? layers > 10 : layers == 0);
    }
}

/* So it is with products of float32 too, between tensors of float32 and of bfloat16. */
static void test_bytes_exact(void **unused)
{
    static const char *const archs[] = { "mobilenet_v2", "resnet18" };
    static const unsigned without[] = { 0, MIX_CPU_BF16_PRODUCTS, MIX_CPU_VNNI };
    (void)unused;
    mix_ctx *all = plain_ctx();
    for (size_t m = 0; m < MIX_COUNT(without); m++) {
        mix_ctx *ctx = masked_ctx(MIX_CPU_ALL & ~without[m]);
        const bool seen = m > 0 && mix_ctx_cpu(ctx) == mix_ctx_cpu(all);
        for (size_t a = 0; !seen && a < MIX_COUNT(archs); a++) {
            check_exact(ctx, archs[a], false);
            check_exact(ctx, archs[a], true);
        }
        mix_ctx_free(ctx);
    }
    mix_ctx_free(all);
}

/* Tensors written by streaming stores, all of them or none, are the same. */
static void test_streams(void **unused)
{
    static const char *const archs[] = { "mobilenet_v2", "mobilenet_v3_small", "resnet18" };
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    for (size_t i = 0; i < 2 * MIX_COUNT(archs); i++) {
        struct fixture f;
        if (i % 2)
            build_half(&f, ctx, archs[i / 2]);
        else
            CHECK_OK(build_arch(&f, ctx, archs[i / 2], 0.5));
        CHECK_OK(mix__engine_calibrate(f.engine));
        for (int quantized = 0; quantized < 2; quantized++) {
            if (quantized)
                mix__engine_mode_all(f.engine, MIX__QUANT_ONE, 1, 32);
            f.engine->stream_from = SIZE_MAX;
            const double sum = run(&f, MIX__GRAD_PARAMS);
            f.engine->stream_from = 0;
            assert_true(run(&f, MIX__GRAD_PARAMS) == sum);
        }
        release(&f);
    }
    mix_ctx_free(ctx);
}

/* Every n-th allocation fails once, on the way to a whole engine. */
static void test_no_memory(void **unused)
{
    mix_status status = MIX_ENOMEM;
    (void)unused;
    for (size_t left = 0; status == MIX_ENOMEM; left += left < 40 ? 1 : 17) {
        struct fault fault;
        struct fixture f;
        mix_ctx *ctx = fault_ctx(&fault, left);
        status = build(&f, ctx);
        release(&f);
        fault_ctx_free(&fault, ctx);
    }
    CHECK_OK(status);
}

/* A max pool of more places than a byte can tell is for inference alone. */
static void test_large_pool(void **unused)
{
    struct mix__plan plan;
    mix_graph *g;
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    CHECK_OK(mix__graph_new(&g, ctx, "test", 17, 3));
    const int x = mix__graph_maxpool(g, "pool", 0, 17, 1, 0);
    const int flat = mix__graph_unary(g, MIX__OP_FLATTEN, "flat", x);
    CHECK_OK(mix__graph_finish(g, mix__graph_linear(g, "fc", flat, CLASSES)));
    CHECK_OK(mix__plan_make(&plan, g, 1, false, MIX__DTYPE_F32));
    mix__plan_release(&plan);
    CHECK_FAILS(ctx, mix__plan_make(&plan, g, 1, true, MIX__DTYPE_F32), MIX_EUNSUPPORTED,
                "a max pool of 17x17 cannot be trained; expected 16x16 or less");
    mix__plan_release(&plan);
    mix_graph_free(g);
    mix_ctx_free(ctx);
}

static void test_refuses(void **unused)
{
    struct fixture f;
    const float *logits;
    struct mix__engine *engine;
    float dlogits[BATCH * CLASSES] = { 0 };
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    CHECK_OK(build(&f, ctx));
    CHECK_FAILS(ctx, mix__engine_new(&engine, f.state, 0, true, MIX__DTYPE_F32), MIX_EINVAL,
                "expected 1 to");
    assert_null(engine);
    CHECK_OK(mix__engine_forward(f.engine, &(struct mix__pass){ .batch_stats = false }, &logits));
    CHECK_FAILS(ctx, mix__engine_backward(f.engine, dlogits, MIX__GRAD_PARAMS), MIX_EINVAL,
                "forward pass in training");
    release(&f);
    mix_ctx_free(ctx);
}

/* Dropout leaves the mean as it is, and two nodes drop independently: else what passes both would
 * have twice the mean. */
static void test_dropout_mean(void **state)
{
    enum { SIDE = 8, CHANNELS = 16, DRAWS = 600 };
    mix_ctx *ctx = plain_ctx();
    mix_graph *g;
    struct fixture f = { NULL };
    double plain[BATCH * CLASSES], apart = 0.0, whole = 0.0, mean[BATCH * CLASSES] = { 0.0 };
    const float *logits;
    (void)state;
    CHECK_OK(mix__graph_new(&g, ctx, "drops", SIDE, 1));
    int x =
        mix__graph_conv(g, "first", 0, &(struct mix__conv_shape){ CHANNELS, 3, 1, 1, 1, false, 0 });
    x = mix__graph_unary(g, MIX__OP_RELU6, "relu", x);
    x = mix__graph_unary(g, MIX__OP_GLOBAL_AVGPOOL, "pool", x);
    x = mix__graph_unary(g, MIX__OP_FLATTEN, "flatten", x);
    x = mix__graph_dropout(g, "drop", x, 0.5f);
    x = mix__graph_dropout(g, "again", x, 0.25f);
    x = mix__graph_linear(g, "last", x, CLASSES);
    CHECK_OK(mix__graph_finish(g, x));
    mix__graph_init_values(g, 1);
    f.graph = g;
    CHECK_OK(mix__state_new(&f.state, g, candidates, (int)MIX_COUNT(candidates), 1));
    CHECK_OK(mix__engine_new(&f.engine, f.state, BATCH, true, MIX__DTYPE_F32));
    for (size_t i = 0; i < (size_t)BATCH * SIDE * SIDE; i++)
        mix__engine_input(f.engine)[i] = (float)mix__random_normal(3, 0, i);
    for (int i = -1; i < DRAWS; i++) {
        const struct mix__pass pass = {
            .batch_stats = true, .dropout = i >= 0, .seed = 5, .step = (uint64_t)(i + 1)
        };
        CHECK_OK(mix__engine_forward(f.engine, &pass, &logits));
        for (int k = 0; k < BATCH * CLASSES; k++)
            if (i < 0)
                plain[k] = logits[k];
            else
                mean[k] += (double)logits[k] / DRAWS;
    }
    for (int k = 0; k < BATCH * CLASSES; k++) {
        apart += (mean[k] - plain[k]) * (mean[k] - plain[k]);
        whole += plain[k] * plain[k];
    }
    if (!(apart < 0.03 * whole))
        fail_msg("the mean is %g of the value apart", sqrt(apart / whole));
    release(&f);
    mix_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_step_allocates_nothing),
        cmocka_unit_test(test_dropout_mean),
        cmocka_unit_test(test_modes_switch),
        cmocka_unit_test(test_stem_is_shared),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_precision),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_bytes_exact),
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_large_pool),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
