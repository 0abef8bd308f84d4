/*
 * test_report.c - the page of runs: what it shows, that it is well-formed whatever the runs' files
 * say, and what it refuses.
 */
#include "in_folder.h"

#include <math.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/random.h"
#include "metamix/metamix.h"
#include "report/plot.h"

static void write_text(const char *path, const char *text)
{
    write_bytes(path, text, strlen(text));
}

/* NULL: there is no such file. */
struct files {
    const char *config, *log, *bits, *result;
};

static void make_run(const char *name, struct files f)
{
    assert_int_equal(mkdir(name, 0700), 0);
    assert_int_equal(chdir(name), 0);
    write_text("config.json", f.config);
    if (f.log)
        write_text("log.jsonl", f.log);
    if (f.bits)
        write_text("bits.json", f.bits);
    if (f.result)
        write_text("result.json", f.result);
    assert_int_equal(chdir(".."), 0);
}

static char *read_page(const char *path)
{
    char *bytes;
    size_t size;
    CHECK_OK(mix__file_read(ctx, path, 1 << 24, &bytes, &size));
    assert_int_equal(strlen(bytes), size);
    return bytes;
}

static void has(const char *page, const char *part)
{
    if (!strstr(page, part))
        fail_msg("'%s' is not in the page", part);
}

static void lacks(const char *page, const char *part)
{
    if (strstr(page, part))
        fail_msg("'%s' is in the page", part);
}

/* Every element is closed, in order; < and > stand for nothing else. */
static void check_well_formed(const char *page)
{
    char open[64][16];
    int depth = 0;
    const char *at = strchr(page, '\n') + 1; /* behind the DOCTYPE */
    while ((at = strpbrk(at, "<>"))) {
        assert_int_equal(*at, '<');
        const char *end = strchr(at, '>');
        assert_non_null(end);
        assert_null(memchr(at + 1, '<', (size_t)(end - at - 1)));
        const bool closing = at[1] == '/';
        const char *name = at + 1 + closing;
        const size_t length = strcspn(name, " />");
        assert_in_range(length, 1, 15);
        if (closing) {
            assert_true(depth > 0);
            assert_int_equal(length, strlen(open[--depth]));
            assert_memory_equal(name, open[depth], length);
        } else if (end[-1] != '/') {
            assert_true(depth < 64);
            snprintf(open[depth++], sizeof open[0], "%.*s", (int)length, name);
        }
        at = end + 1;
    }
    assert_int_equal(depth, 0);
}

/* A page of these runs that is well-formed and has no number that is none. */
static char *report(const char *const *runs, int n)
{
    CHECK_OK(mix_report_write(ctx, runs, n, "page.html"));
    char *page = read_page("page.html");
    check_well_formed(page);
    lacks(page, "nan");
    lacks(page, "inf");
    return page;
}

static const char float_config[] =
    "{\"job\": \"train\", \"from\": null, \"settings\": {\"lr\": 0.1, \"arch\": \"a\"}}";
static const char float_log[] =
    "{\"phase\":\"float\",\"epoch\":0,\"loss\":2.0,\"top1\":40,\"val_top1\":50,\"seconds\":50}\n"
    "{\"phase\":\"float\",\"epoch\":1,\"loss\":1.0,\"top1\":70,\"val_top1\":60,\"seconds\":51}\n"
    "{\"phase\":\"float\",\"epoch\":2,\"lo"; /* being written */
static const char mixed_log[] =
    "{\"phase\":\"bit-meta\",\"epoch\":0,\"loss\":2.0,\"top1\":40.0,\"val_top1\":null}\n"
    "{\"phase\":\"select\",\"gbops\":1.0,\"val_top1\":33.0}\n"
    "{\"phase\":\"stage b\",\"epoch\":0,\"loss\":1.0,\"top1\":70.0,\"val_top1\":60.25}\n";
static const char mixed_bits[] =
    "{\"gbops\": 0.5, \"mean_activation_bits\": 3.5,\n"
    " \"layers\": [{\"name\": \"stem\", \"weight_bits\": 8, \"activation_bits\": 8},\n"
    "            {\"name\": \"expand\", \"weight_bits\": 4, \"activation_bits\": 3}]}";
static const char mixed_result[] =
    "{\"job\": \"quantize\", \"best\": {\"top1\": 61.5}, \"last\": {\"top1\": 60.25},\n"
    " \"gbops\": 0.5, \"target_gbops\": 0.625, \"mean_activation_bits\": 3.5, \"seconds\": 3723.4}";

static void test_two_runs(void **unused)
{
    (void)unused;
    const char *runs[] = { "float", "a<b>&\"c'" };
    make_run(runs[0], (struct files){ float_config, float_log, NULL, NULL });
    make_run(runs[1],
             (struct files){ "{\"job\": \"quantize\"}", mixed_log, mixed_bits, mixed_result });
    char *page = report(runs, 2);
    has(page, "<td class=\"left\">train, not done</td><td>60.00</td><td>-</td>");
    has(page, "<td>60.25</td><td>61.50</td><td>0.5</td><td>0.625</td><td>3.50</td>"
              "<td>1:02:03</td>");
    has(page, "<title>float, float: epoch 2, top-1, % 60</title>");
    has(page, "<title>a&lt;b&gt;&amp;&quot;c&#39;, stage b: epoch 2, top-1, % 60.25</title>");
    lacks(page, "% 33"); /* a selection is no epoch */
    has(page, "<title>expand: activations 3 bits, weights 4</title>");
    has(page, "y=\"84\" width=\"13\" height=\"30\""); /* ten pixels a bit, from 114 up */
    has(page, "<path class=\"weight\" d=\"M71 74h15\"/>");
    has(page, "<td class=\"left\">lr</td><td class=\"left\">0.1</td>");
    has(page, "<td class=\"left\">float</td><td>2</td><td>0:01:41</td>");
    lacks(page, "Accuracy (best epoch)"); /* one point is no comparison */
    mix__free(ctx, page);
    make_run("going", (struct files){ "{\"job\": \"quantize\"}", mixed_log, mixed_bits, NULL });
    runs[0] = "going";
    page = report(runs, 1);
    has(page, "quantize, not done</td><td>60.25</td><td>-</td><td>0.5</td><td>-</td><td>3.50</td>");
    has(page, "<title>expand: activations 3 bits, weights 4</title>");
    mix__free(ctx, page);
}

/* Accuracy against cost: the best epoch of each run, costs in a logarithmic place. */
static void test_trade(void **unused)
{
    (void)unused;
    const char *runs[] = { "float", "middle", "mixed" };
    static const char *const results[] = {
        "{\"best\": {\"top1\": 90}, \"last\": {\"top1\": 88}, \"gbops\": 100}",
        "{\"best\": {\"top1\": 80}, \"last\": {\"top1\": 78}, \"gbops\": 10}",
        "{\"best\": {\"top1\": 70}, \"last\": {\"top1\": 68}, \"gbops\": 1}",
    };
    for (int i = 0; i < 3; i++)
        make_run(runs[i], (struct files){ float_config, float_log, NULL, results[i] });
    char *page = report(runs, 3), circle[64];
    const char *trade = strstr(page, "Accuracy (best epoch) against");
    assert_non_null(trade);
    has(trade, "<title>float: GBOPs for one image 100, top-1, % 90</title>");
    has(trade, "<title>mixed: GBOPs for one image 1, top-1, % 70</title>");
    /* ten is in the middle of 1 and 100, as 80 is of 70 and 90 */
    snprintf(circle, sizeof circle, "<circle cx=\"%.1f\" cy=\"%.1f\"", 56 + 390 / 2.0,
             256 - 230 / 2.0);
    has(trade, circle);
    mix__free(ctx, page);
}

/* Points lie where the axes say: the first and the last value 4% of the range from the ends. */
static void test_places(void **unused)
{
    (void)unused;
    const char *run = "float";
    make_run(run, (struct files){ float_config, float_log, NULL, NULL });
    char *page = report(&run, 1);
    const double left = 56 + 390 * 0.04 / 1.08, right = 56 + 390 * 1.04 / 1.08;
    const double low = 256 - 230 * (20 + 0.04 * 30) / (30 * 1.08); /* of 40 .. 70, 60 */
    char circle[64];
    snprintf(circle, sizeof circle, "<circle cx=\"%.1f\" cy=\"%.1f\"", right, low);
    has(page, circle);
    snprintf(circle, sizeof circle, "d=\"M56 26M%.1f ", left);
    has(page, circle);
    mix__free(ctx, page);
}

/* An epoch that was not evaluated has no point; the line goes on to the next that was. */
static void test_gap(void **unused)
{
    (void)unused;
    const char *run = "float";
    make_run(run, (struct files){ float_config,
                                  "{\"epoch\":0,\"val_top1\":50}\n"
                                  "{\"epoch\":1,\"val_top1\":null}\n"
                                  "{\"epoch\":2,\"val_top1\":60}\n",
                                  NULL, NULL });
    char *page = report(&run, 1);
    const char *line = strstr(page, "class=\"line\"");
    assert_non_null(line);
    const char *joined = memchr(line, 'L', (size_t)(strchr(line, '>') - line));
    assert_non_null(joined);
    assert_null(memchr(joined + 1, 'L', (size_t)(strchr(line, '>') - joined - 1)));
    has(page, "epoch 3, top-1, % 60<");
    lacks(page, "epoch 2,");
    mix__free(ctx, page);
}

static void test_odd_files(void **unused)
{
    (void)unused;
    static const char *const logs[] = {
        NULL,
        "",
        "{}\n{\"epoch\":{}}\n{\"epoch\":1,\"phase\":3,\"loss\":[],\"val_top1\":\"x\"}\n",
        "{\"epoch\":0,\"val_top1\":1e308,\"top1\":-1e308,\"loss\":1e-300}\n"
        "{\"epoch\":0,\"val_top1\":3e15,\"top1\":-1e14,\"loss\":-0.0}\n",
        "{\"epoch\":0,\"phase\":\"<script>\",\"val_top1\":50}\n"
        "{\"epoch\":0,\"phase\":\"\\u0001\\n\",\"val_top1\":50}\n",
    };
    static const char *const bits[] = {
        "{}",
        "{\"gbops\": \"x\", \"layers\": [1, {\"name\": \"only\"}, null]}",
        "{\"layers\": [{\"name\": \"a name that is much longer than it has room for\", "
        "\"weight_bits\": -7, \"activation_bits\": 1e9}, {\"name\": "
        "\"\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u0"
        "0e4\\u00e4\", "
        "\"activation_bits\": 32}]}",
    };
    static const char *const results[] = {
        "{\"best\": [], \"last\": 1, \"gbops\": \"x\"}",
        "{\"best\": {\"top1\": 50}, \"gbops\": -1, \"seconds\": 1e300}",
        "{\"best\": {\"top1\": 1e308}, \"gbops\": 1, \"seconds\": -1}",
    };
    const char *runs[MIX_COUNT(logs) * MIX_COUNT(bits) * MIX_COUNT(results)];
    char names[MIX_COUNT(runs)][8];
    for (size_t i = 0; i < MIX_COUNT(runs); i++) {
        snprintf(names[i], sizeof names[i], "r%zu", i);
        runs[i] = names[i];
        make_run(names[i], (struct files){ i % 2 ? "{\"settings\": []}" : float_config,
                                           logs[i % MIX_COUNT(logs)],
                                           bits[i / MIX_COUNT(logs) % MIX_COUNT(bits)],
                                           results[i / MIX_COUNT(logs) / MIX_COUNT(bits)] });
        mix__free(ctx, report(&runs[i], 1));
    }
    char *page = report(runs, (int)MIX_COUNT(runs));
    lacks(page, "<script");
    lacks(page, "GBOPs for one image -1");
    mix__free(ctx, page);
}

static void test_refused(void **unused)
{
    (void)unused;
    const char *runs[] = { "good", "list", "torn", "text" };
    make_run("good", (struct files){ float_config, float_log, mixed_bits, mixed_result });
    make_run("list", (struct files){ float_config, "{}\n[]\n", NULL, NULL });
    make_run("torn", (struct files){ float_config, "{}\n{}\n{\"epoch\":\n", NULL, NULL });
    make_run("text", (struct files){ float_config, NULL, NULL, "\"text\"" });
    CHECK_FAILS(ctx, mix_report_write(ctx, runs, 0, "p"), MIX_EINVAL, "1 to 64 runs, not 0");
    CHECK_FAILS(ctx, mix_report_write(ctx, runs, 65, "p"), MIX_EINVAL, "not 65");
    CHECK_FAILS(ctx, mix_report_write(ctx, runs, 2, "p"), MIX_EFORMAT,
                "log.jsonl: line 2: byte 0: expected one JSON object");
    CHECK_FAILS(ctx, mix_report_write(ctx, runs + 2, 1, "p"), MIX_EFORMAT, "log.jsonl: line 3");
    CHECK_FAILS(ctx, mix_report_write(ctx, runs + 3, 1, "p"), MIX_EFORMAT, "result.json: ");
    runs[1] = "missing";
    CHECK_FAILS(ctx, mix_report_write(ctx, runs, 2, "p"), MIX_EIO, "missing/config.json");
    CHECK_FAILS(ctx, mix_report_write(ctx, runs, 1, "none/p"), MIX_EIO, "none/p");
    assert_int_not_equal(access("p", F_OK), 0);
}

static void test_no_memory(void **unused)
{
    (void)unused;
    const char *runs[] = { "one", "two" };
    struct fault fault;
    mix_status status = MIX_ENOMEM;
    size_t left = 0;
    make_run("one", (struct files){ float_config, float_log, mixed_bits, mixed_result });
    make_run("two", (struct files){ float_config, mixed_log, mixed_bits, mixed_result });
    for (; status == MIX_ENOMEM; left++) {
        mix_ctx *small = fault_ctx(&fault, left);
        status = mix_report_write(small, runs, 2, "p");
        assert_int_equal(access("p", F_OK), status == MIX_OK ? 0 : -1);
        fault_ctx_free(&fault, small);
    }
    CHECK_OK(status);
    assert_true(left > 10);
}

/* ---- axes ----------------------------------------------------------------------------------- */

static void check_ticks(double from, double to, bool logarithmic, int fewest)
{
    double ticks[MIX__PLOT_TICKS];
    const int n = mix__plot_ticks(from, to, logarithmic, ticks);
    if (n < fewest || n > MIX__PLOT_TICKS)
        fail_msg("%g to %g: %d ticks", from, to, n);
    const double step = n > 1 ? ticks[1] - ticks[0] : 0.0;
    for (int i = 0; i < n; i++) {
        assert_true(ticks[i] >= from && ticks[i] <= to);
        assert_true(i == 0 || ticks[i] > ticks[i - 1]);
        const double number = logarithmic && to >= 10.0 * from ? ticks[i] : step;
        if (number == 0.0)
            continue;
        const double mantissa = number / pow(10.0, floor(log10(number) + 1e-6));
        if (fabs(mantissa - 1) > 1e-6 && fabs(mantissa - 2) > 1e-6 && fabs(mantissa - 5) > 1e-6)
            fail_msg("%g to %g: %g at tick %d", from, to, number, i);
    }
}

static void test_ticks(void **unused)
{
    (void)unused;
    for (uint64_t i = 0; i < 1000; i++) {
        const double scale = pow(10.0, 12.0 * mix__random_uniform(1, 0, i) - 6.0);
        const double from = scale * (mix__random_uniform(1, 1, i) - 0.5);
        const double range = scale * (0.01 + mix__random_uniform(1, 2, i));
        check_ticks(from, from + range, false, 4);
        check_ticks(scale, scale * (1.1 + 1e6 * pow(mix__random_uniform(1, 3, i), 4.0)), true, 3);
    }
    check_ticks(1e-15, 1e15, true, 2);
    check_ticks(-1e15, 1e15, false, 4);
}

/* Where the name stands, in pixels. */
static double row_of(const char *plot, const char *name)
{
    char end[32];
    snprintf(end, sizeof end, ">%s</text>", name);
    const char *at = strstr(plot, end);
    assert_non_null(at);
    while (strncmp(at, "y=\"", 3) != 0)
        at--;
    return strtod(at + 3, NULL);
}

/* Names of points in one place stand below each other, others where their points are. */
static void names_are_apart(void **unused)
{
    const struct mix__plot_point points[] = {
        { 1, 80, "" }, { 1, 80, "" }, { 1, 80.1, "" }, { 9, 80, "" }, { 5, 10, "" }
    };
    static const char *const names[] = { "first", "second", "above", "beside", "low" };
    struct mix__plot_series series[MIX_COUNT(points)];
    char *text;
    size_t size;
    (void)unused;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    for (size_t i = 0; i < MIX_COUNT(points); i++)
        series[i] = (struct mix__plot_series){
            .name = names[i], .named = true, .points = &points[i], .n = 1
        };
    mix__plot_draw(
        out, &(struct mix__plot){ "", { "x", false }, { "y", false }, series, MIX_COUNT(series) });
    fclose(out);
    const double above = row_of(text, "above"), beside = row_of(text, "beside");
    const double first = row_of(text, "first"), second = row_of(text, "second");
    assert_true(above < beside && beside < above + 1.0);
    assert_true(fmin(first, second) > above + 10.0 && fmax(first, second) < above + 30.0);
    assert_true(fabs(first - second) > 10.0);
    assert_true(row_of(text, "low") > above + 100.0);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_two_runs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_trade, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_places, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_gap, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_odd_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_memory, set_up, tear_down),
        cmocka_unit_test(test_ticks),
        cmocka_unit_test(names_are_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
