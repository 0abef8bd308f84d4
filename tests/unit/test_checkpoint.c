/*
 * Checkpoints: a round trip, and files that are wrong in one place.
 */
#include "runs.h"

#include "in_folder.h"
#include "train/checkpoint.h"

static const int candidates[] = { 2, 4 };

/* Good and bad UTF-8: overlong, a surrogate, cut, a control character. */
static const char *class_name(const void *unused, int index)
{
    static const char *const names[RUN_CLASSES] = { "cat", "h\xc3\xbchner \xf0\x9f\x90\x94",
                                                    "\xc0\xaf \xed\xa0\x80 \xe2\x82", "a\tb\x7f" };
    (void)unused;
    return names[index];
}
static const char class_names[] = "cat\0h\xc3\xbchner \xf0\x9f\x90\x94\0?? ??? ??\0a?b?";

/* A state with a value of its own everywhere. */
static struct mix__state *make_state_in(mix_ctx *owner, mix_graph **graph, int channels)
{
    mix_zoo_options options;
    struct mix__state *s;
    mix_zoo_options_init(&options);
    options.channels = channels;
    options.width = 0.1;
    options.size = RUN_SIZE;
    options.classes = RUN_CLASSES;
    CHECK_OK(mix_zoo_new(graph, owner, &options));
    CHECK_OK(mix__graph_name_classes(*graph, class_name, NULL));
    CHECK_OK(mix__state_new(&s, *graph, candidates, 2, 1));
    for (size_t i = 0; i < s->n; i++)
        s->value[i] = 1.0f + 1e-6f * (float)i;
    for (size_t i = 0; i < s->n_stats; i++)
        s->stats[i] = 2.0f + 1e-6f * (float)i;
    s->act_steps_ready = s->weight_steps_ready = true;
    return s;
}

static struct mix__state *make_state(mix_graph **graph, int channels)
{
    return make_state_in(ctx, graph, channels);
}

static struct mix__optimizer make_optimizer(size_t n, float value)
{
    const struct mix__optimizer_options adam = {
        .kind = MIX__ADAM, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f
    };
    struct mix__optimizer o;
    CHECK_OK(mix__optimizer_init(&o, ctx, n, &adam));
    for (size_t i = 0; i < n; i++) {
        o.m[i] = -value;
        o.v[i] = value * (float)i;
    }
    o.steps = 17;
    return o;
}

static void round_trip(void **state)
{
    mix_graph *graph, *read_graph;
    struct mix__state *s = make_state(&graph, 3), *read_state;
    struct mix__optimizer o = make_optimizer(s->n, 0.5f), a = make_optimizer(s->n_alpha, 0.25f);
    struct mix__optimizer ro = make_optimizer(s->n, 0.0f), ra = make_optimizer(s->n_alpha, 0.0f);
    struct mix__average average, read_average;
    const struct mix__point point = { .phase = 1,
                                      .epoch = 2,
                                      .step = 3,
                                      .log_lines = 4,
                                      .images = 5,
                                      .top1 = 6,
                                      .loss = 1.0 / 3.0,
                                      .start = { 50.0, 75.0, 0.1, 20 },
                                      .seconds = { 0.1, 0.2 },
                                      .waited = 0.3 };
    struct mix__point read_point;
    struct mix__checkpoint *c;
    mix_layer_bits bits[64], *read_bits;
    const int *candidate;
    (void)state;
    mix_bits_uniform(graph, 4, 4, bits);
    CHECK_OK(mix__average_init(&average, s, 0.5));
    CHECK_OK(mix__average_init(&read_average, s, 0.5));
    mix__average_add(&average, s, 0);
    average.value[1] = 0.75f;
    CHECK_OK(mix__checkpoint_save(
        s, "all.safetensors",
        &(struct mix__checkpoint_content){ "stage a", bits, &point, &o, &a, &average, 160 }));
    CHECK_OK(mix__checkpoint_open(&c, ctx, "all.safetensors"));
    CHECK_OK(mix__checkpoint_graph(c, &read_graph));
    assert_int_equal(read_graph->class_names_bytes, sizeof class_names);
    assert_memory_equal(read_graph->class_names, class_names, sizeof class_names);
    assert_int_equal(mix__checkpoint_candidates(c, &candidate), 2);
    assert_memory_equal(candidate, candidates, sizeof candidates);
    assert_memory_equal(read_graph->values, s->value, graph->n_trained * sizeof *s->value);
    CHECK_OK(mix__state_new(&read_state, read_graph, candidate, 2, 2));
    CHECK_OK(mix__checkpoint_state(c, read_state));
    assert_memory_equal(read_state->value, s->value, s->n * sizeof *s->value);
    assert_memory_equal(read_state->stats, s->stats, s->n_stats * sizeof *s->stats);
    assert_memory_equal(read_state->alpha, s->alpha, s->n_alpha * sizeof *s->alpha);
    assert_true(read_state->act_steps_ready && read_state->weight_steps_ready);
    CHECK_OK(mix__checkpoint_bits(c, read_graph, &read_bits));
    assert_memory_equal(read_bits, bits, graph->n_layers * sizeof *bits);
    assert_int_equal(mix__checkpoint_images(c), 160);
    CHECK_OK(mix__checkpoint_run(c, &read_point, &ro, &ra, &read_average));
    assert_memory_equal(read_average.value, average.value, s->n * sizeof *s->value);
    assert_memory_equal(read_average.stats, s->stats, s->n_stats * sizeof *s->stats);
    assert_memory_equal(&read_point, &point, sizeof point);
    assert_memory_equal(ro.m, o.m, o.n * sizeof *o.m);
    assert_memory_equal(ro.v, o.v, o.n * sizeof *o.v);
    assert_memory_equal(ra.v, a.v, a.n * sizeof *a.v);
    assert_int_equal(ro.steps, 17);
    mix__checkpoint_close(c);
    mix__free(ctx, read_bits);
    mix__optimizer_release(&o);
    mix__optimizer_release(&a);
    mix__optimizer_release(&ro);
    mix__optimizer_release(&ra);
    mix__average_release(&average);
    mix__average_release(&read_average);
    mix__state_free(read_state);
    mix__state_free(s);
    mix_graph_free(read_graph);
    mix_graph_free(graph);
}

static mix_status open_whole_in(mix_ctx *owner, const char *path)
{
    mix_graph *graph;
    struct mix__state *s;
    struct mix__checkpoint *c;
    const int *candidate;
    MIX_TRY(mix__checkpoint_open(&c, owner, path));
    mix_status status = mix__checkpoint_graph(c, &graph);
    if (status == MIX_OK) {
        const int n = mix__checkpoint_candidates(c, &candidate);
        status = mix__state_new(&s, graph, candidate, n, 1);
        if (status == MIX_OK) {
            status = mix__checkpoint_state(c, s);
            mix__state_free(s);
        }
        mix_graph_free(graph);
    }
    mix__checkpoint_close(c);
    return status;
}

static mix_status open_whole(const char *path)
{
    return open_whole_in(ctx, path);
}

/* Writes the state with one value changed, and expects that tensor's name. */
static void refused_value(struct mix__state *s, float *value, float bad, const char *name)
{
    const float kept = *value;
    *value = bad;
    CHECK_OK(mix__checkpoint_save(s, "bad.safetensors",
                                  &(struct mix__checkpoint_content){ .phase = "float" }));
    *value = kept;
    CHECK_FAILS(ctx, open_whole("bad.safetensors"), MIX_EFORMAT, name);
}

static void bad_values(void **state)
{
    mix_graph *graph;
    struct mix__state *s = make_state(&graph, 3);
    (void)state;
    refused_value(s, &s->value[graph->params[0].offset], NAN, graph->params[0].name);
    refused_value(s, &s->value[5], INFINITY, graph->params[0].name);
    refused_value(s, &s->stats[0], NAN, "running_");
    refused_value(s, &s->value[s->act_step], 0.0f, "metamix.act_steps");
    refused_value(s, &s->value[s->n - 1], -1.0f, "metamix.weight_step.");
    mix__state_free(s);
    mix_graph_free(graph);
}

/* Texts of the header changed in place, by others of the same length. */
static void bad_headers(void **state)
{
    static const struct {
        const char *from, *to, *part;
    } cases[] = {
        { "metamix-checkpoint", "metamax-checkpoint", "format" },
        { "\"version\":\"2\"", "\"version\":\"1\"", "version" },
        { "\\\"op\\\":\\\"relu6", "\\\"op\\\":\\\"relu9", "operator 'relu9'" },
        { "\\\"groups\\\":1", "\\\"groups\\\":0", "'groups' is missing or out of range" },
        { "\\\"groups\\\":1", "\\\"groups\\\":2", "2 groups does not fit" },
        { "\\\"out_features\\\":4", "\\\"out_features\\\":5", "names of 5 classes" },
        { "\\\"kernel\\\":3", "\\\"kernel\\\":5", "'features.0.0.weight'" },
        { "\\\"classes\\\":[\\\"cat\\\",", "\\\"classes\\\":[      3,", "names of 4 classes" },
        { "\\\"classes\\\":[\\\"cat\\\",", "\\\"classes\\\":[        ", "names of 4 classes" },
        { "\\\"classes\\\":[", "\\\"klasses\\\":[", "" }, /* not known: older files */
        { "\\\"size\\\":16", "\\\"size\\\":-6", "'size'" },
        { "\\\"in\\\":[0]", "\\\"in\\\":[9]", "'in'" },
        { "\\\"nodes\\\":[", "\\\"nodes\\\":{", "graph" },
        { "{\\\"version\\\":1", "{\\\"version\\\":3", "'version'" },
        { "features.0.1\\\"", "features.0.0\\\"", "two parameters" },
        { "\"candidates\":\"2,4\"", "\"candidates\":\"4,2\"", "candidates" },
        { "\"candidates\":\"2,4\"", "\"candidates\":\"2,,\"", "candidates" },
        { "features.0.0.weight", "features.0.0.wright", "no tensor 'features.0.0.weight'" },
        { "metamix.act_steps", "metamix.act_stepz", "" }, /* not calibrated: allowed */
    };
    mix_graph *graph;
    struct mix__state *s = make_state(&graph, 3);
    (void)state;
    CHECK_OK(mix__checkpoint_save(s, "good.safetensors",
                                  &(struct mix__checkpoint_content){ .phase = "float" }));
    CHECK_OK(open_whole("good.safetensors"));
    char *bytes;
    size_t size;
    CHECK_OK(mix__file_read(ctx, "good.safetensors", SIZE_MAX, &bytes, &size));
    for (size_t i = 0; i < MIX_COUNT(cases); i++) {
        const size_t n = strlen(cases[i].from);
        char *at = NULL;
        for (size_t p = 8; p + n <= size && !at; p++)
            if (memcmp(bytes + p, cases[i].from, n) == 0)
                at = bytes + p;
        assert_non_null(at);
        memcpy(at, cases[i].to, n);
        write_bytes("bad.safetensors", bytes, size);
        memcpy(at, cases[i].from, n);
        if (cases[i].part[0])
            CHECK_FAILS(ctx, open_whole("bad.safetensors"), MIX_EFORMAT, cases[i].part);
        else
            CHECK_OK(open_whole("bad.safetensors"));
    }
    for (size_t cut = 0; cut < size; cut += size / 13 + 1) {
        write_bytes("bad.safetensors", bytes, cut);
        CHECK_FAILS(ctx, open_whole("bad.safetensors"), MIX_EFORMAT, "bad.safetensors");
    }
    mix__free(ctx, bytes);
    mix__state_free(s);
    mix_graph_free(graph);
}

/* Positions and times that no run has. */
static void bad_points(void **state)
{
    static const struct mix__point points[] = { { .phase = INT64_MAX },
                                                { .images = INT64_MAX },
                                                { .seconds = { NAN } },
                                                { .seconds = { 1.0, -1.0 } },
                                                { .waited = INFINITY } };
    mix_graph *graph;
    struct mix__state *s = make_state(&graph, 3);
    struct mix__optimizer o = make_optimizer(s->n, 0.5f), a = make_optimizer(s->n_alpha, 0.25f);
    struct mix__average average;
    (void)state;
    CHECK_OK(mix__average_init(&average, s, 0.0));
    for (size_t i = 0; i <= MIX_COUNT(points); i++) {
        const bool good = i == MIX_COUNT(points);
        const struct mix__point *point = good ? &(struct mix__point){ .phase = 1 } : &points[i];
        struct mix__point read;
        struct mix__checkpoint *c;
        CHECK_OK(mix__checkpoint_save(
            s, "point.safetensors",
            &(struct mix__checkpoint_content){ "float", NULL, point, &o, &a, &average, 0 }));
        CHECK_OK(mix__checkpoint_open(&c, ctx, "point.safetensors"));
        if (good)
            CHECK_OK(mix__checkpoint_run(c, &read, &o, &a, &average));
        else
            CHECK_FAILS(ctx, mix__checkpoint_run(c, &read, &o, &a, &average), MIX_EFORMAT,
                        "point.safetensors");
        mix__checkpoint_close(c);
    }
    mix__average_release(&average);
    mix__optimizer_release(&o);
    mix__optimizer_release(&a);
    mix__state_free(s);
    mix_graph_free(graph);
}

/* What a file that does not say was normalised with: it depends on the channels. */
static void check_normalisation(const char *path, mix_normalize expected)
{
    struct mix__checkpoint *c;
    mix_graph *graph;
    CHECK_OK(mix__checkpoint_open(&c, ctx, path));
    CHECK_OK(mix__checkpoint_graph(c, &graph));
    assert_int_equal(graph->normalize, expected);
    mix_graph_free(graph);
    mix__checkpoint_close(c);
}

/* Exports copy the means and deviations of three channels. */
static void many_channels(void **state)
{
    (void)state;
    for (int channels = 1; channels <= 4; channels++) {
        mix_graph *graph;
        struct mix__state *s = make_state(&graph, channels);
        CHECK_OK(mix__checkpoint_save(s, "channels.safetensors",
                                      &(struct mix__checkpoint_content){ .phase = "float" }));
        if (channels <= 3)
            check_normalisation("channels.safetensors",
                                channels == 3 ? MIX_NORMALIZE_IMAGENET : MIX_NORMALIZE_SYMMETRIC);
        else
            CHECK_FAILS(ctx, open_whole("channels.safetensors"), MIX_EFORMAT,
                        "images of 4 channels; expected 1 to 3");
        mix__state_free(s);
        mix_graph_free(graph);
    }
}

/* Saving leaves the old file or the new one, reading gives all or nothing, and neither loses a
 * block. */
static void no_memory(void **unused)
{
    struct fault fault;
    mix_graph *graph;
    mix_layer_bits bits[64];
    mix_status status = MIX_ENOMEM;
    (void)unused;
    mix_ctx *small = fault_ctx(&fault, SIZE_MAX);
    struct mix__state *s = make_state_in(small, &graph, 3);
    mix_bits_uniform(graph, 4, 4, bits);
    const struct mix__checkpoint_content content = { .phase = "stage b", .bits = bits };
    unlink("small.safetensors");
    for (size_t left = 0; status == MIX_ENOMEM; left++) {
        fault.left = left;
        status = mix__checkpoint_save(s, "small.safetensors", &content);
        assert_int_equal(status == MIX_OK, access("small.safetensors", F_OK) == 0);
    }
    CHECK_OK(status);
    fault.left = SIZE_MAX;
    mix__state_free(s);
    mix_graph_free(graph);
    fault_ctx_free(&fault, small);
    status = MIX_ENOMEM;
    for (size_t left = 0; status == MIX_ENOMEM; left += left < 60 ? 1 : 17) {
        small = fault_ctx(&fault, left);
        status = open_whole_in(small, "small.safetensors");
        fault_ctx_free(&fault, small);
    }
    CHECK_OK(status);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),  cmocka_unit_test(bad_values),
        cmocka_unit_test(bad_headers), cmocka_unit_test(many_channels),
        cmocka_unit_test(bad_points),  cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
