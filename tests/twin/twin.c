/*
 * twin.c - the engine's fake-quantized evaluation and the integer runtime have the same codes and
 * the same logits, bit for bit: every network of the zoo, every bit-width.
 */
#include "net_fixture.h"

#include "engine/engine.h"
#include "format/mix_file.h"
#include "metamix/runtime.h"

enum { CLASSES = SMALL_CLASSES, BATCH = 4, PIXELS = SMALL_PIXELS };

struct twin {
    struct mix__state *state;
    struct mix__engine *engine, *judge; /* that trains; that evaluates, on codes */
    struct mix__net *net;
    char *bytes;
    mix_runtime *rt;
    uint8_t **codes; /* (layer) of the engine, (batch, elements), stored as the runtime stores */
    size_t compared;
    int image;
};

/* ---- the engine's side ---------------------------------------------------------------------- */

static void keep_codes(void *user, const struct mix__layer_input *input)
{
    struct twin *w = user;
    const int l = input->layer;
    const int *candidate;
    mix__state_layer_candidates(w->state, l, &candidate);
    const struct mix__bounds b =
        mix__bounds_activation(candidate[0], w->state->graph->layers[l].info.range);
    assert_true(input->step == w->state->value[w->state->act_step + l]);
    assert_true(input->shift == b.shift);
    w->codes[l] = malloc(input->count);
    for (size_t i = 0; i < input->count; i++)
        w->codes[l][i] = (uint8_t)(input->number[i] - b.n);
}

/* Random weights, batch norms that fit them, first steps from the batch. */
static void engine_run(struct twin *w, int bits, const float *images, float *logits)
{
    const struct mix__pass train = { .batch_stats = true, .update_stats = true };
    const struct mix__pass eval = { .batch_stats = false };
    const float *found;
    for (int i = 0; i < 30; i++) {
        memcpy(mix__engine_input(w->engine), images, BATCH * PIXELS * sizeof *images);
        CHECK_OK(mix__engine_forward(w->engine, &train, &found));
    }
    memcpy(mix__engine_input(w->engine), images, BATCH * PIXELS * sizeof *images);
    CHECK_OK(mix__engine_calibrate(w->engine));
    mix__engine_mode_all(w->judge, MIX__QUANT_ONE, 0, bits);
    mix__state_init_weight_steps(w->state, mix__engine_modes(w->judge));
    memcpy(mix__engine_input(w->judge), images, BATCH * PIXELS * sizeof *images);
    CHECK_OK(mix__engine_watch(w->judge, keep_codes, w));
    CHECK_OK(mix__engine_forward(w->judge, &eval, &found));
    memcpy(logits, found, BATCH * CLASSES * sizeof *logits);
}

/* ---- the runtime's side --------------------------------------------------------------------- */

static int layer_of(const mix_graph *g, const char *name)
{
    for (size_t l = 0; l < g->n_layers; l++)
        if (strcmp(g->layers[l].info.name, name) == 0)
            return (int)l;
    fail_msg("no layer %s", name);
    return -1;
}

static void compare(void *user, const mix_runtime_value *v)
{
    struct twin *w = user;
    if (!v->reader)
        return;
    const size_t n = (size_t)(v->height * v->width * v->channels), first = (size_t)w->image * n;
    const int layer = layer_of(w->state->graph, v->reader);
    const uint8_t *codes = v->data;
    for (size_t i = 0; i < n; i++)
        if (codes[i] != w->codes[layer][first + i])
            fail_msg("%s: code %d at %zu, the engine has %d", v->name, codes[i], i,
                     w->codes[layer][first + i]);
    w->compared += n;
}

static void lower(struct twin *w, const mix_layer_bits *bits)
{
    static const float mean[3] = { 0, 0, 0 }, deviation[3] = { 1, 1, 1 };
    const struct mix__state *s = w->state;
    size_t size;
    const struct mix__net_source source = {
        s->graph, s->value, s->stats, bits, s->value + s->act_step, s->value + s->weight_steps
    };
    CHECK_OK(mix__net_lower(&w->net, &source, mean, deviation));
    CHECK_OK(mix__mix_encode(w->net, &w->bytes, &size));
    CHECK_OK(mix_runtime_open_bytes(&w->rt, s->ctx, w->bytes, size));
}

static void runtime_run(struct twin *w, const float *images, const float *logits)
{
    mix_runtime_watch(w->rt, compare, w);
    for (w->image = 0; w->image < BATCH; w->image++) {
        float found[CLASSES];
        mix_runtime_run(w->rt, images + w->image * PIXELS, 1, found);
        assert_memory_equal(found, logits + w->image * CLASSES, sizeof found);
    }
}

/* ---- both ----------------------------------------------------------------------------------- */

static void check(mix_ctx *ctx, const char *arch, int bits, size_t *compared)
{
    struct twin w = { 0 };
    struct net_fixture f;
    float logits[BATCH * CLASSES];
    float *images = malloc(BATCH * PIXELS * sizeof *images);
    for (size_t i = 0; i < BATCH * PIXELS; i++)
        images[i] = (float)mix__random_normal(3, (uint64_t)bits, i);
    fixture_make_small(&f, ctx, arch, bits);
    const size_t layers = f.graph->n_layers;
    w.codes = calloc(layers, sizeof *w.codes);
    CHECK_OK(mix__state_new(&w.state, f.graph, &bits, 1, 1));
    CHECK_OK(mix__engine_new(&w.engine, w.state, BATCH, true, MIX__DTYPE_F32));
    CHECK_OK(mix__engine_new(&w.judge, w.state, BATCH, false, MIX__DTYPE_F32));
    engine_run(&w, bits, images, logits);
    lower(&w, f.bits);
    runtime_run(&w, images, logits);
    *compared += w.compared;
    for (size_t l = 0; l < layers; l++)
        free(w.codes[l]);
    free(w.codes);
    free(images);
    mix_runtime_close(w.rt);
    mix__free(ctx, w.bytes);
    mix__net_free(w.net);
    mix__engine_free(w.engine);
    mix__engine_free(w.judge);
    mix__state_free(w.state);
    fixture_release(&f);
}

static void check_widths(mix_ctx *ctx, const char *arch, size_t at_least)
{
    size_t compared = 0;
    for (int bits = MIX_BITS_MIN; bits <= MIX_BITS_MAX; bits++)
        check(ctx, arch, bits, &compared);
    printf("%-20s %zu codes\n", arch, compared);
    assert_true(compared > at_least);
}

static void test_networks(void **unused)
{
    (void)unused;
    mix_ctx *ctx = plain_ctx();
    for (const char *const *arch = mix_zoo_names(); *arch; arch++)
        check_widths(ctx, *arch, 100000);
    check_widths(ctx, "odd", 40000);
    mix_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_networks) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
