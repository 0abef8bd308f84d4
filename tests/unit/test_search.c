/*
 * The search's parts on a small graph: cost, selection, and what moves in which step.
 */
#include "support.h"

#include <math.h>

#include "base/random.h"
#include "job/job.h"

enum { BATCH = 4, SIZE = 8, CLASSES = 3 };
static const int candidates[] = { 2, 3, 4, 8 };

struct fixture {
    mix_ctx *ctx;
    mix_graph *graph;
    mix_settings settings;
    struct mix__trainer t;
};

static int norm_relu(mix_graph *g, const char *name, int x)
{
    char text[32];
    snprintf(text, sizeof text, "%s.bn", name);
    x = mix__graph_batchnorm(g, text, x, 1e-5f, 0.1f);
    snprintf(text, sizeof text, "%s.relu", name);
    return mix__graph_unary(g, MIX__OP_RELU6, text, x);
}

static mix_graph *small_graph(mix_ctx *ctx)
{
    mix_graph *g;
    CHECK_OK(mix__graph_new(&g, ctx, "small", SIZE, 1));
    int x = mix__graph_conv(g, "first", 0, &(struct mix__conv_shape){ 8, 3, 1, 1, 1, false, 0 });
    x = norm_relu(g, "first", x);
    x = mix__graph_conv(g, "deep", x, &(struct mix__conv_shape){ 8, 3, 1, 1, 8, false, 0 });
    x = norm_relu(g, "deep", x);
    x = mix__graph_conv(g, "point", x, &(struct mix__conv_shape){ 16, 1, 1, 0, 1, false, 0 });
    x = norm_relu(g, "point", x);
    x = mix__graph_unary(g, MIX__OP_GLOBAL_AVGPOOL, "pool", x);
    x = mix__graph_unary(g, MIX__OP_FLATTEN, "flatten", x);
    x = mix__graph_dropout(g, "drop", x, 0.5f);
    x = mix__graph_linear(g, "last", x, CLASSES);
    CHECK_OK(mix__graph_finish(g, x));
    mix__graph_init_values(g, 1);
    return g;
}

/* A trainer with one step's worth of parts, and a batch in the engine's input. */
static void fixture_init(struct fixture *f)
{
    struct mix__trainer *t = &f->t;
    memset(f, 0, sizeof *f);
    f->ctx = plain_ctx();
    f->graph = small_graph(f->ctx);
    mix_settings_init(&f->settings);
    t->ctx = f->ctx;
    t->settings = &f->settings;
    t->target = 1e-6;
    t->lr = 1e-2;
    CHECK_OK(mix__state_new(&t->state, f->graph, candidates, MIX_COUNT(candidates), 1));
    CHECK_OK(mix__engine_new(&t->engine, t->state, BATCH, true, MIX__DTYPE_F32));
    CHECK_OK(mix__engine_new(&t->judge, t->state, BATCH, false, MIX__DTYPE_F32));
    const struct mix__optimizer_options adam = {
        .kind = MIX__ADAM, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f
    };
    CHECK_OK(mix__optimizer_init(&t->optimizer, f->ctx, t->state->n, &adam));
    CHECK_OK(mix__optimizer_init(&t->alpha_optimizer, f->ctx, t->state->n_alpha, &adam));
    t->dlogits = mix__alloc(f->ctx, BATCH * CLASSES, sizeof *t->dlogits);
    t->bits = mix__alloc(f->ctx, f->graph->n_layers, sizeof *t->bits);
    assert_non_null(t->dlogits);
    assert_non_null(t->bits);
    mix_bits_uniform(f->graph, 4, 3, t->bits);
    for (int i = 0; i < BATCH * SIZE * SIZE; i++)
        mix__engine_input(t->engine)[i] = (float)mix__random_normal(3, 0, (uint64_t)i);
}

static void fixture_release(struct fixture *f)
{
    mix__trainer_release(&f->t);
    mix_graph_free(f->graph);
    mix_ctx_free(f->ctx);
}

/* ---- cost ---- */

static void expected_bits_gradient(void **state)
{
    (void)state;
    for (uint64_t trial = 0; trial < 50; trial++) {
        double alpha[4], gradient[4];
        const double h = 1e-5;
        for (uint64_t b = 0; b < 4; b++)
            alpha[b] = 2.0 * mix__random_normal(11, trial, b);
        mix__expected_bits(alpha, candidates, 4, gradient);
        for (int b = 0; b < 4; b++) {
            double up[4], down[4];
            memcpy(up, alpha, sizeof up);
            memcpy(down, alpha, sizeof down);
            up[b] += h;
            down[b] -= h;
            const double slope = (mix__expected_bits(up, candidates, 4, NULL) -
                                  mix__expected_bits(down, candidates, 4, NULL)) /
                                 (2.0 * h);
            assert_true(fabs(slope - gradient[b]) < 1e-8);
        }
    }
}

/* The whole cost's gradient: layers weighed by MACs and weight bits, fixed layers left out. */
static void cost_gradient(void **state)
{
    struct fixture f;
    (void)state;
    fixture_init(&f);
    struct mix__state *s = f.t.state;
    const double scale = 1e6; /* the graph is small: some 1e-5 GBOPs */
    const float h = 1.0f / 256.0f;
    for (size_t i = 0; i < s->n_alpha; i++)
        s->alpha[i] = rintf(256.0f * (float)mix__random_normal(5, 0, i)) / 256.0f;
    memset(s->alpha_grad, 0, s->n_alpha * sizeof *s->alpha_grad);
    mix__search_gbops_gradient(s, 4, scale);
    double largest = 0.0;
    for (size_t i = 0; i < s->n_alpha; i++) {
        const float kept = s->alpha[i];
        s->alpha[i] = kept + h;
        const double up = mix__search_gbops_soft(s, 4);
        s->alpha[i] = kept - h;
        const double slope = scale * (up - mix__search_gbops_soft(s, 4)) / (2.0 * (double)h);
        s->alpha[i] = kept;
        assert_true(fabs(slope - s->alpha_grad[i]) < 1e-3 * (1.0 + fabs(slope)));
        largest = fmax(largest, fabs(slope));
    }
    assert_true(largest > 1.0);
    fixture_release(&f);
}

/* The cost of picked bits is that of the assignment. */
static void hard_cost(void **state)
{
    struct fixture f;
    (void)state;
    fixture_init(&f);
    struct mix__state *s = f.t.state;
    for (size_t l = 0; l < f.graph->n_layers; l++)
        s->alpha[4 * l + 1] = 1.0f; /* 3 bits, and a lure in fixed layers */
    mix_layer_bits bits[8];
    mix_bits_uniform(f.graph, 4, 3, bits);
    const double expected = 1e-9 * (double)mix_bits_bops(f.graph, bits);
    assert_true(mix__search_gbops(s, 4) == expected);
    for (size_t i = 0; i < s->n_alpha; i++)
        s->alpha[i] *= 1000.0f; /* softmax is then as good as one-hot */
    assert_true(fabs(mix__search_gbops_soft(s, 4) - expected) < 1e-12 * expected);
    fixture_release(&f);
}

/* Alphas start nearly equal, and not quite. */
static void alphas_start_small(void **state)
{
    struct fixture f;
    double squares = 0.0;
    (void)state;
    fixture_init(&f);
    const struct mix__state *s = f.t.state;
    for (size_t i = 0; i < s->n_alpha; i++)
        squares += (double)s->alpha[i] * s->alpha[i] / (double)s->n_alpha;
    assert_true(squares > 0.25e-6 && squares < 4e-6);
    fixture_release(&f);
}

/* All of them, in ascending order. */
static void candidates_are_parsed(void **state)
{
    static const char *const bad[] = { "", "1,2", "2,9", "2,2", "2,", ",2", "2;4", "two" };
    int found[MIX__BRANCH_MAX], n;
    (void)state;
    mix_ctx *ctx = plain_ctx();
    CHECK_OK(mix__candidates_parse(ctx, "8,2,4,3", found, &n));
    assert_int_equal(n, 4);
    assert_memory_equal(found, candidates, sizeof candidates);
    CHECK_OK(mix__candidates_parse(ctx, "8", found, &n));
    assert_true(n == 1 && found[0] == 8);
    for (size_t i = 0; i < MIX_COUNT(bad); i++)
        CHECK_FAILS(ctx, mix__candidates_parse(ctx, bad[i], found, &n), MIX_EINVAL, "candidates");
    mix_ctx_free(ctx);
}

/* ---- selection ---- */

static double uniform_gbops(const mix_graph *g, int activation)
{
    mix_layer_bits bits[8];
    mix_bits_uniform(g, 4, activation, bits);
    return 1e-9 * (double)mix_bits_bops(g, bits);
}

static void selection_meets_budget(void **state)
{
    struct fixture f;
    (void)state;
    fixture_init(&f);
    struct mix__state *s = f.t.state;
    for (uint64_t trial = 0; trial < 100; trial++) {
        struct mix__selection out;
        mix_layer_bits bits[8];
        for (size_t i = 0; i < s->n_alpha; i++)
            s->alpha[i] = (float)mix__random_normal(trial, 9, i);
        const double low = uniform_gbops(f.graph, 2), high = uniform_gbops(f.graph, 8);
        const double target = low + (high - low) * mix__random_uniform(trial, 10, 0);
        CHECK_OK(mix__select_bits(s, 4, target, bits, &out));
        assert_true(out.met && out.gbops <= target);
        assert_true(out.gbops == 1e-9 * (double)mix_bits_bops(f.graph, bits));
        if (out.raw_gbops > target)
            assert_true(out.lowered > 0);
        assert_int_equal(bits[0].activation, 8);
        assert_int_equal(bits[0].weight, 8);
        /* no searched layer could take the next higher candidate and stay under */
        for (size_t l = 1; l + 1 < f.graph->n_layers; l++)
            for (size_t c = 0; c + 1 < MIX_COUNT(candidates); c++)
                if (bits[l].activation == candidates[c]) {
                    mix_layer_bits more[8];
                    memcpy(more, bits, sizeof more);
                    more[l].activation = candidates[c + 1];
                    assert_true(1e-9 * (double)mix_bits_bops(f.graph, more) > target);
                }
    }
    fixture_release(&f);
}

/* At the exact cost of the argmax nothing changes; below the lowest the miss is told. */
static void selection_edges(void **state)
{
    struct fixture f;
    (void)state;
    fixture_init(&f);
    struct mix__state *s = f.t.state;
    struct mix__selection out;
    mix_layer_bits bits[8];
    for (size_t l = 0; l < f.graph->n_layers; l++)
        s->alpha[4 * l + 2] = 1.0f;
    CHECK_OK(mix__select_bits(s, 4, uniform_gbops(f.graph, 4), bits, &out));
    assert_true(out.met && out.lowered == 0 && out.raised == 0 && out.gbops == out.raw_gbops);
    const double lowest = uniform_gbops(f.graph, 2);
    CHECK_OK(mix__select_bits(s, 4, 0.5 * lowest, bits, &out));
    assert_true(!out.met && out.gbops == lowest);
    /* the smallest margin for each GBOP gives way first: here the one of "point" */
    s->alpha[4 * 1 + 2] = 1000.0f;
    CHECK_OK(mix__select_bits(s, 4, uniform_gbops(f.graph, 4) - 1e-9, bits, &out));
    assert_int_equal(bits[1].activation, 4);
    assert_true(bits[2].activation < 4);
    /* not the smallest margin: "deep" would give up less, but saves half of what "point" does */
    s->alpha[4 * 1 + 2] = 0.8f;
    CHECK_OK(mix__select_bits(s, 4, uniform_gbops(f.graph, 4) - 1e-9, bits, &out));
    assert_int_equal(bits[1].activation, 4);
    assert_true(bits[2].activation < 4);
    fixture_release(&f);
}

/* ---- what moves ---- */

static const int labels[BATCH] = { 0, 1, 2, 0 };
static const struct mix__phase phase = { .name = "test", .steps = 10, .weight_decay = 5e-6 };

struct copy {
    float *value, *stats, *alpha;
};

static float *copy_floats(const float *from, size_t n)
{
    float *to = malloc(n * sizeof *to);
    assert_non_null(to);
    return memcpy(to, from, n * sizeof *to);
}

static struct copy copy_state(const struct mix__state *s)
{
    return (struct copy){ copy_floats(s->value, s->n), copy_floats(s->stats, s->n_stats),
                          copy_floats(s->alpha, s->n_alpha) };
}

static void copy_free(struct copy *c)
{
    free(c->value);
    free(c->stats);
    free(c->alpha);
}

static bool same(const float *a, const float *b, size_t n)
{
    return memcmp(a, b, n * sizeof *a) == 0;
}

static void meta_moves_all_but_alpha(void **state)
{
    struct fixture f;
    struct mix__loss loss;
    (void)state;
    fixture_init(&f);
    struct mix__trainer *t = &f.t;
    struct mix__state *s = t->state;
    CHECK_OK(mix__engine_calibrate(t->engine));
    struct copy before = copy_state(s);
    CHECK_OK(mix__meta_enter(t, &phase, true));
    CHECK_OK(mix__meta_step(t, &phase, labels, &loss));
    assert_true(same(s->alpha, before.alpha, s->n_alpha));
    assert_false(same(s->value, before.value, f.graph->n_trained));
    assert_false(same(s->stats, before.stats, s->n_stats));
    for (size_t l = 1; l + 1 < f.graph->n_layers; l++)
        for (size_t b = 0; b < 4; b++)
            assert_true(s->value[s->act_step + 4 * l + b] != before.value[s->act_step + 4 * l + b]);
    assert_true(
        same(s->value + s->weight_steps, before.value + s->weight_steps, s->n - s->weight_steps));
    copy_free(&before);
    fixture_release(&f);
}

/* A bit-search step is a bit-meta step that moves alpha besides, and nothing else. */
static void search_moves_alpha_only(void **state)
{
    struct fixture meta, search;
    struct mix__loss loss;
    (void)state;
    fixture_init(&meta);
    fixture_init(&search);
    for (int i = 0; i < 2; i++) {
        CHECK_OK(mix__meta_enter(&meta.t, &phase, i == 0));
        CHECK_OK(mix__meta_step(&meta.t, &phase, labels, &loss));
        CHECK_OK(mix__search_enter(&search.t, &phase, i == 0));
        CHECK_OK(mix__search_step(&search.t, &phase, labels, &loss));
    }
    const struct mix__state *a = meta.t.state, *b = search.t.state;
    assert_true(same(a->value, b->value, a->n));
    assert_true(same(a->stats, b->stats, a->n_stats));
    for (size_t l = 0; l < meta.graph->n_layers; l++) {
        const bool searched = meta.graph->layers[l].info.searched;
        assert_int_equal(!same(a->alpha + 4 * l, b->alpha + 4 * l, 4), searched);
    }
    fixture_release(&meta);
    fixture_release(&search);
}

/* Far over the budget every searched layer's lowest candidate gains on its highest, far under it
 * the other way round. Adam's first step is the learning rate, whatever the gradient: the given one,
 * or a share of the travel of 0.5, at least 1e-4. */
static void search_follows_the_budget(void **state)
{
    (void)state;
    for (int k = 0; k < 3; k++) {
        struct fixture f;
        struct mix__loss loss;
        struct mix__phase phase_of = phase;
        const bool under = k == 1;
        fixture_init(&f);
        struct mix__state *s = f.t.state;
        phase_of.steps = k == 2 ? 100000 : phase.steps;
        const float step = under ? 0.01f : k == 2 ? 1e-4f : 0.5f / (float)phase.steps;
        f.settings.lambda = 1e9;
        f.settings.alpha_lr = under ? 0.01 : 0.0;
        f.t.target = under ? 1e9 : f.t.target;
        struct copy before = copy_state(s);
        CHECK_OK(mix__search_enter(&f.t, &phase_of, true));
        CHECK_OK(mix__search_step(&f.t, &phase_of, labels, &loss));
        for (size_t l = 1; l + 1 < f.graph->n_layers; l++) {
            const float low = s->alpha[4 * l] - before.alpha[4 * l];
            const float high = s->alpha[4 * l + 3] - before.alpha[4 * l + 3];
            assert_true(fabsf(low - (under ? -step : step)) < 1e-5f);
            assert_true(fabsf(high + (under ? -step : step)) < 1e-5f);
        }
        copy_free(&before);
        fixture_release(&f);
    }
}

/* The budget is compared with the bits that would be picked, not with expected ones: 3 bits everywhere
 * are under that of 4, though the mean of nearly equal candidates is above. */
static void search_counts_picked_bits(void **state)
{
    struct fixture f;
    struct mix__loss loss;
    (void)state;
    fixture_init(&f);
    struct mix__state *s = f.t.state;
    f.settings.lambda = 1e9;
    f.settings.alpha_lr = 0.01;
    f.t.target = uniform_gbops(f.graph, 4);
    for (size_t i = 0; i < s->n_alpha; i++)
        s->alpha[i] = i % 4 == 1 ? 0.1f : 0.0f;
    assert_true(mix__search_gbops(s, 4) < f.t.target);
    assert_true(mix__search_gbops_soft(s, 4) > f.t.target);
    CHECK_OK(mix__search_enter(&f.t, &phase, true));
    CHECK_OK(mix__search_step(&f.t, &phase, labels, &loss));
    for (size_t l = 1; l + 1 < f.graph->n_layers; l++)
        assert_true(s->alpha[4 * l] < 0.0f && s->alpha[4 * l + 3] > 0.0f);
    fixture_release(&f);
}

/* Stage a, b or c. */
static const struct mix__phase *stage_of(struct mix__trainer *t, int index)
{
    t->n_phases = 0;
    mix__phases_finetune(t);
    return &t->phases[index];
}

/* Stages begin with a fresh optimizer, and a resumed one goes on with its own. */
static void stages_reset_the_optimizer(void **state)
{
    (void)state;
    for (int stage = 0; stage < 2; stage++)
        for (int fresh = 0; fresh < 2; fresh++) {
            struct fixture f;
            fixture_init(&f);
            struct mix__trainer *t = &f.t;
            t->optimizer.steps = 5;
            t->optimizer.m[1] = t->optimizer.v[1] = 0.5f;
            CHECK_OK(stage_of(t, stage)->enter(t, &phase, fresh));
            assert_int_equal(t->optimizer.steps, fresh ? 0 : 5);
            assert_true(t->optimizer.m[1] == (fresh ? 0.0f : 0.5f));
            assert_true(t->optimizer.v[1] == (fresh ? 0.0f : 0.5f));
            fixture_release(&f);
        }
}

static void stages_keep_other_steps(void **state)
{
    (void)state;
    for (int stage = 0; stage < 2; stage++) {
        struct fixture f;
        struct mix__loss loss;
        fixture_init(&f);
        struct mix__trainer *t = &f.t;
        struct mix__state *s = t->state;
        CHECK_OK(mix__engine_calibrate(t->engine));
        CHECK_OK(stage_of(t, stage)->enter(t, &phase, true));
        struct copy before = copy_state(s);
        for (int i = 0; i < 3; i++)
            CHECK_OK(stage_of(t, stage)->step(t, &phase, labels, &loss));
        assert_true(same(s->alpha, before.alpha, s->n_alpha));
        for (size_t l = 1; l + 1 < f.graph->n_layers; l++)
            for (size_t b = 0; b < 4; b++) {
                const size_t at = s->act_step + 4 * l + b;
                assert_int_equal(s->value[at] != before.value[at], candidates[b] == 3);
            }
        const bool weight_steps_moved = !same(
            s->value + s->weight_steps, before.value + s->weight_steps, s->n - s->weight_steps);
        assert_int_equal(weight_steps_moved, stage);
        assert_int_equal(s->weight_steps_ready, stage);
        copy_free(&before);
        fixture_release(&f);
    }
}

/* Only weights decay, in weight training by its own settings. */
static void decay_follows_the_optimizer(void **state)
{
    static const char *const optimizer[] = { "adam", "adamw" };
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct fixture f;
        fixture_init(&f);
        struct mix__trainer *t = &f.t;
        strcpy(f.settings.finetune_optimizer, optimizer[k]);
        f.settings.finetune_weight_decay = 0.25;
        mix__phases_select(t);
        mix__phases_finetune(t);
        for (int i = 0; i < t->n_phases; i++) {
            const bool training = strncmp(t->phases[i].name, "stage", 5) == 0;
            int decaying = 0;
            CHECK_OK(t->phases[i].enter(t, &t->phases[i], true));
            for (size_t r = 0; r < t->n_ranges; r++) {
                const struct mix__range *range = &t->ranges[r];
                assert_true(range->weight_decay == 0.0f ||
                            range->weight_decay == (training ? 0.25f : 5e-6f));
                assert_int_equal(range->decoupled, range->weight_decay > 0.0f && training && k);
                decaying += range->weight_decay > 0.0f;
            }
            assert_int_equal(decaying, (int)f.graph->n_layers);
        }
        fixture_release(&f);
    }
}

/* Step sizes of weights move by a rate of their own, and step sizes alone have a floor. */
static void weight_steps_have_their_rate(void **state)
{
    struct fixture f;
    (void)state;
    fixture_init(&f);
    struct mix__trainer *t = &f.t;
    f.settings.weight_step_rate = 3.0;
    mix__phases_select(t);
    mix__phases_finetune(t);
    for (int i = 0; i < t->n_phases; i++) {
        size_t steps = 0, weight_steps = 0;
        CHECK_OK(t->phases[i].enter(t, &t->phases[i], true));
        for (size_t r = 0; r < t->n_ranges; r++) {
            const bool is_step = t->ranges[r].offset >= t->state->act_step;
            const bool of_weights = t->ranges[r].offset >= t->state->weight_steps;
            assert_true(t->ranges[r].rate == (of_weights ? 3.0f : 0.0f));
            assert_true(t->ranges[r].floor == (is_step ? MIX__STEP_MIN : -INFINITY));
            steps += is_step && !of_weights;
            weight_steps += of_weights;
        }
        assert_true(steps >= f.graph->n_layers);
        assert_int_equal(weight_steps, strcmp(t->phases[i].name, "stage b") >= 0);
    }
    fixture_release(&f);
}

/* By default that rate is stage c's alone. */
static void stage_c_steps_by_size(void **state)
{
    struct fixture f;
    (void)state;
    fixture_init(&f);
    for (int stage = 1; stage < 3; stage++) {
        const struct mix__phase *p = stage_of(&f.t, stage);
        CHECK_OK(p->enter(&f.t, p, true));
        for (size_t r = 0; r < f.t.n_ranges; r++) {
            const bool of_weights = f.t.ranges[r].offset >= f.t.state->weight_steps;
            assert_true(f.t.ranges[r].rate == (of_weights && stage == 2 ? 4.0f : 0.0f));
        }
    }
    fixture_release(&f);
}

/* With one branch kept the others' steps have no gradient. */
static void last_branch_only(void **state)
{
    struct fixture f;
    struct mix__loss loss;
    (void)state;
    fixture_init(&f);
    struct mix__state *s = f.t.state;
    strcpy(f.settings.meta_branches, "last");
    CHECK_OK(mix__meta_enter(&f.t, &phase, true));
    CHECK_OK(mix__meta_step(&f.t, &phase, labels, &loss));
    for (size_t b = 0; b < 4; b++)
        assert_int_equal(s->grad[s->act_step + 4 + b] != 0.0f, b == 3);
    fixture_release(&f);
}

/* Training drops values, others in every step. */
static void steps_drop_values(void **state)
{
    struct fixture f;
    struct mix__loss first, again, next;
    (void)state;
    fixture_init(&f);
    struct mix__trainer *t = &f.t;
    CHECK_OK(mix__trainer_forward(t, false, 0, 1, labels, 1.0f, &first));
    CHECK_OK(mix__trainer_forward(t, false, 0, 1, labels, 1.0f, &again));
    t->counter = 1;
    CHECK_OK(mix__trainer_forward(t, false, 0, 1, labels, 1.0f, &next));
    assert_true(first.loss == again.loss && first.loss != next.loss);
    fixture_release(&f);
}

/* A step's gradient is no longer than the settings allow. */
static void steps_are_clipped(void **state)
{
    struct fixture f;
    struct mix__loss loss;
    (void)state;
    fixture_init(&f);
    struct mix__trainer *t = &f.t;
    f.settings.clip_norm = 1e-3;
    CHECK_OK(mix__trainer_ranges(t, MIX__TRAIN_PARAMS, &phase));
    CHECK_OK(mix__trainer_step(t, &phase, labels, &loss));
    const double norm = mix__clip_gradients(t->state->grad, t->ranges, t->n_ranges, 0.0);
    assert_true(fabs(norm / 1e-3 - 1.0) < 1e-5);
    fixture_release(&f);
}

/* The gradient of a bit-meta step is the mean of the branches' own; so are loss and hits. */
static void meta_is_a_mean(void **state)
{
    struct fixture meta, alone;
    struct mix__loss loss, one, sum = { 0 };
    const int n = (int)MIX_COUNT(candidates);
    (void)state;
    fixture_init(&meta);
    fixture_init(&alone);
    struct mix__state *a = meta.t.state, *b = alone.t.state;
    meta.settings.clip_norm = 0.0;
    CHECK_OK(mix__meta_enter(&meta.t, &phase, true));
    CHECK_OK(mix__meta_step(&meta.t, &phase, labels, &loss));
    CHECK_OK(mix__engine_calibrate(alone.t.engine));
    memset(b->grad, 0, b->n * sizeof *b->grad);
    for (int branch = 0; branch < n; branch++) {
        mix__engine_mode_all(alone.t.engine, MIX__QUANT_ONE, branch, 32);
        CHECK_OK(mix__trainer_forward(&alone.t, false, 0, 1, labels, 1.0f, &one));
        CHECK_OK(mix__engine_backward(alone.t.engine, alone.t.dlogits, MIX__GRAD_PARAMS));
        sum.loss += one.loss;
        sum.top1 += one.top1;
        sum.top5 += one.top5;
    }
    assert_true(fabs(loss.loss - sum.loss / n) < 1e-6);
    assert_int_equal(loss.top1, sum.top1 / n);
    assert_int_equal(loss.top5, sum.top5 / n);
    double apart = 0.0, whole = 0.0;
    for (size_t i = 0; i < a->n; i++) {
        apart += pow(a->grad[i] - b->grad[i] / n, 2.0);
        whole += pow(b->grad[i] / n, 2.0);
    }
    assert_true(whole > 0.0 && apart < 1e-6 * whole);
    fixture_release(&meta);
    fixture_release(&alone);
}

/* By default the cost weighs as much as published, for the same share of the budget. */
static void cost_has_its_weight(void **state)
{
    struct fixture f[2];
    struct mix__loss loss;
    (void)state;
    for (int k = 0; k < 2; k++) {
        fixture_init(&f[k]);
        f[k].settings.lambda = k ? 4.0 * 3.31 / f[k].t.target : 0.0;
        CHECK_OK(mix__search_enter(&f[k].t, &phase, true));
        CHECK_OK(mix__search_step(&f[k].t, &phase, labels, &loss));
    }
    const struct mix__state *a = f[0].t.state, *b = f[1].t.state;
    assert_true(same(a->alpha_grad, b->alpha_grad, a->n_alpha));
    fixture_release(&f[0]);
    fixture_release(&f[1]);
}

/* A decay that outweighs every gradient brings each alpha nearer to 0. */
static void alphas_decay(void **state)
{
    struct fixture f;
    struct mix__loss loss;
    (void)state;
    fixture_init(&f);
    struct mix__state *s = f.t.state;
    f.settings.alpha_weight_decay = 1e9;
    for (size_t i = 0; i < s->n_alpha; i++)
        s->alpha[i] = i % 2 ? 1.0f : -1.0f;
    CHECK_OK(mix__search_enter(&f.t, &phase, true));
    CHECK_OK(mix__search_step(&f.t, &phase, labels, &loss));
    for (size_t i = 4; i < s->n_alpha - 4; i++)
        assert_true(fabsf(s->alpha[i]) < 1.0f);
    fixture_release(&f);
}

/* ---- other searches ---- */

/* As many epochs, and which step. */
static void searches_have_phases(void **state)
{
    struct fixture f;
    (void)state;
    fixture_init(&f);
    struct mix__trainer *t = &f.t;
    f.settings.meta_warmup_epochs = 0.5;
    f.settings.search_epochs = 2.0;
    mix__phases_select(t);
    assert_true(t->n_phases == 2 && t->phases[0].step == mix__meta_step);
    assert_true(t->phases[0].share == 0.5 && !t->phases[0].leave);
    assert_true(t->phases[1].step == mix__search_step && t->phases[1].share == 2.0);
    strcpy(f.settings.search, "unfixed");
    t->n_phases = 0;
    mix__phases_select(t);
    assert_true(t->n_phases == 2 && t->phases[0].step == mix__meta_step);
    assert_true(t->phases[1].step == mix__unfixed_step && t->phases[1].share == 2.0);
    strcpy(f.settings.search, "joint");
    t->n_phases = 0;
    mix__phases_select(t);
    assert_true(t->n_phases == 1 && t->phases[0].step == mix__joint_step);
    assert_true(t->phases[0].share == 2.5 && t->phases[0].leave == mix__search_leave);
    assert_true(t->phases[0].lr == f.settings.meta_lr && t->phases[0].constant);
    fixture_release(&f);
}

/* Weights, steps, statistics and alphas move in one step of the mixture. */
static void joint_moves_everything(void **state)
{
    struct fixture f;
    struct mix__loss loss;
    (void)state;
    fixture_init(&f);
    struct mix__state *s = f.t.state;
    CHECK_OK(mix__engine_calibrate(f.t.engine));
    struct copy before = copy_state(s);
    CHECK_OK(mix__search_enter(&f.t, &phase, true));
    CHECK_OK(mix__joint_step(&f.t, &phase, labels, &loss));
    assert_true(f.t.optimizer.steps == 1 && f.t.alpha_optimizer.steps == 1);
    assert_false(same(s->value, before.value, f.graph->n_trained));
    assert_false(same(s->stats, before.stats, s->n_stats));
    for (size_t i = 4; i < s->n_alpha - 4; i++) {
        assert_true(s->alpha[i] != before.alpha[i]);
        assert_true(s->value[s->act_step + i] != before.value[s->act_step + i]);
    }
    copy_free(&before);
    fixture_release(&f);
}

/* By the mixture's gradient, whatever the step before left. */
static void joint_clears_gradients(void **state)
{
    struct fixture f[2];
    struct mix__loss loss;
    (void)state;
    for (int k = 0; k < 2; k++) {
        fixture_init(&f[k]);
        for (size_t i = 0; i < f[k].t.state->n; i++)
            f[k].t.state->grad[i] = (float)k;
        CHECK_OK(mix__search_enter(&f[k].t, &phase, true));
        CHECK_OK(mix__joint_step(&f[k].t, &phase, labels, &loss));
    }
    assert_true(same(f[0].t.state->value, f[1].t.state->value, f[0].t.state->n));
    fixture_release(&f[0]);
    fixture_release(&f[1]);
}

/* A bit-search step whose weights move on, by the mixture's gradient; alpha moves the same way. */
static void unfixed_moves_weights_twice(void **state)
{
    struct fixture fixed, unfixed;
    struct mix__loss loss;
    (void)state;
    fixture_init(&fixed);
    fixture_init(&unfixed);
    CHECK_OK(mix__search_enter(&fixed.t, &phase, true));
    CHECK_OK(mix__search_step(&fixed.t, &phase, labels, &loss));
    CHECK_OK(mix__search_enter(&unfixed.t, &phase, true));
    CHECK_OK(mix__unfixed_step(&unfixed.t, &phase, labels, &loss));
    const struct mix__state *a = fixed.t.state, *b = unfixed.t.state;
    assert_true(same(a->alpha, b->alpha, a->n_alpha));
    assert_false(same(a->value, b->value, fixed.graph->n_trained));
    assert_false(same(a->stats, b->stats, a->n_stats));
    assert_true(fixed.t.optimizer.steps == 1 && unfixed.t.optimizer.steps == 2);
    fixture_release(&fixed);
    fixture_release(&unfixed);
}

/* Alphas are what the loss rises by, one layer and candidate at a time, over all batches; the
 * network stays as it is. */
static void greedy_measures_the_loss(void **state)
{
    struct fixture f;
    struct mix__loss loss, base, lowered;
    (void)state;
    fixture_init(&f);
    struct mix__trainer *t = &f.t;
    struct mix__state *s = t->state;
    CHECK_OK(mix__engine_calibrate(t->engine));
    struct copy before = copy_state(s);
    CHECK_OK(mix__greedy_enter(t, &phase, true));
    for (int i = 0; i < 2; i++)
        CHECK_OK(mix__greedy_step(t, &phase, labels, &loss));
    CHECK_OK(mix__greedy_enter(t, &phase, false)); /* a resumed one goes on */
    assert_true(same(s->value, before.value, s->n));
    assert_true(same(s->stats, before.stats, s->n_stats));
    mix__engine_mode_all(t->engine, MIX__QUANT_ONE, 3, 32);
    CHECK_OK(mix__trainer_forward(t, false, 0, 1, labels, 1.0f, &base));
    assert_true(loss.loss == base.loss);
    bool moves = false;
    for (size_t l = 0; l < f.graph->n_layers; l++)
        for (int b = 0; b < 4; b++) {
            double expected = 0.0;
            if (f.graph->layers[l].info.searched) {
                mix__engine_mode_all(t->engine, MIX__QUANT_ONE, 3, 32);
                mix__engine_modes(t->engine)[l].choice = b;
                CHECK_OK(mix__trainer_forward(t, false, 0, 1, labels, 1.0f, &lowered));
                expected = -2.0 * (lowered.loss - base.loss);
            }
            assert_true(fabs(s->alpha[4 * l + (size_t)b] - expected) < 1e-6);
            moves |= fabs(expected) > 1e-4;
        }
    assert_true(moves);
    copy_free(&before);
    fixture_release(&f);
}

/* Each step down has a price of its own in [0, 1) for a million bit operations, which the seed
 * gives; alphas of layers that are not searched stay equal. */
static void random_prices_ignore_size(void **state)
{
    struct fixture f;
    struct mix__loss loss;
    double sum = 0.0;
    const int trials = 100;
    (void)state;
    fixture_init(&f);
    struct mix__state *s = f.t.state;
    CHECK_OK(mix__engine_calibrate(f.t.engine));
    struct copy before = copy_state(s);
    for (int trial = 0; trial < trials; trial++) {
        f.settings.seed = trial;
        CHECK_OK(mix__random_enter(&f.t, &phase, true));
        for (size_t l = 1; l + 1 < f.graph->n_layers; l++)
            for (size_t b = 0; b < 3; b++) {
                const double saved = 1e-6 * (double)f.graph->layers[l].info.macs *
                                     (candidates[b + 1] - candidates[b]);
                const double price =
                    ((double)s->alpha[4 * l + b + 1] - s->alpha[4 * l + b]) / saved;
                assert_true(price > -1e-4 && price < 1.0001);
                sum += price / (3 * trials * (double)(f.graph->n_layers - 2));
            }
    }
    assert_true(sum > 0.45 && sum < 0.55);
    float *last = copy_floats(s->alpha, s->n_alpha);
    CHECK_OK(mix__random_step(&f.t, &phase, labels, &loss));
    CHECK_OK(mix__random_enter(&f.t, &phase, false));
    CHECK_OK(mix__random_enter(&f.t, &phase, true));
    assert_true(same(last, s->alpha, s->n_alpha));
    f.settings.seed = 0;
    CHECK_OK(mix__random_enter(&f.t, &phase, true));
    assert_false(same(last, s->alpha, s->n_alpha));
    assert_true(same(s->value, before.value, s->n));
    assert_true(same(s->stats, before.stats, s->n_stats));
    free(last);
    copy_free(&before);
    fixture_release(&f);
}

static void numeric_failure_is_told(void **state)
{
    struct fixture f;
    struct mix__loss loss;
    (void)state;
    fixture_init(&f);
    f.t.state->value[f.graph->n_trained - 1] = NAN; /* last bias */
    f.t.state->version++;
    CHECK_OK(mix__trainer_ranges(&f.t, MIX__TRAIN_PARAMS, &phase));
    CHECK_FAILS(f.ctx, mix__trainer_step(&f.t, &phase, labels, &loss), MIX_ENUMERIC, "loss");
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expected_bits_gradient),
        cmocka_unit_test(cost_gradient),
        cmocka_unit_test(hard_cost),
        cmocka_unit_test(alphas_start_small),
        cmocka_unit_test(candidates_are_parsed),
        cmocka_unit_test(selection_meets_budget),
        cmocka_unit_test(selection_edges),
        cmocka_unit_test(meta_moves_all_but_alpha),
        cmocka_unit_test(search_moves_alpha_only),
        cmocka_unit_test(search_follows_the_budget),
        cmocka_unit_test(search_counts_picked_bits),
        cmocka_unit_test(stages_reset_the_optimizer),
        cmocka_unit_test(stages_keep_other_steps),
        cmocka_unit_test(decay_follows_the_optimizer),
        cmocka_unit_test(weight_steps_have_their_rate),
        cmocka_unit_test(stage_c_steps_by_size),
        cmocka_unit_test(last_branch_only),
        cmocka_unit_test(steps_drop_values),
        cmocka_unit_test(steps_are_clipped),
        cmocka_unit_test(meta_is_a_mean),
        cmocka_unit_test(cost_has_its_weight),
        cmocka_unit_test(alphas_decay),
        cmocka_unit_test(searches_have_phases),
        cmocka_unit_test(joint_moves_everything),
        cmocka_unit_test(joint_clears_gradients),
        cmocka_unit_test(unfixed_moves_weights_twice),
        cmocka_unit_test(greedy_measures_the_loss),
        cmocka_unit_test(random_prices_ignore_size),
        cmocka_unit_test(numeric_failure_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
