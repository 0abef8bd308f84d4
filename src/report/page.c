/*
 * report/page.c - mix_report_write(): tables and plots of several runs as one HTML page.
 */
#include "metamix/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "format/json.h"
#include "metamix/graph.h"
#include "report/plot.h"
#include "report/run_files.h"

struct page {
    mix_ctx *ctx;
    FILE *out;
    struct mix__run_files *runs;
    int n;
};

static const char head[] =
    "<!DOCTYPE html>\n"
    "<html lang=\"en\"><head><meta charset=\"utf-8\"/><title>metamix</title><style>\n"
    ":root { color-scheme: light dark }\n"
    "body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 980px; "
    "padding: 0 1em }\n"
    "table { border-collapse: collapse; margin: 0 0 1.5em }\n"
    "th, td { padding: .25em .8em .25em 0; text-align: right; border-bottom: 1px solid #8884; "
    "font-variant-numeric: tabular-nums }\n"
    "th { font-weight: 600 } .left { text-align: left }\n"
    "figure { margin: 0 0 1.5em; overflow-x: auto } figcaption { font-size: 13px; font-weight: 600 "
    "}\n"
    ".plots { display: flex; flex-wrap: wrap; gap: 0 1.5em }\n"
    "svg { fill: currentColor; font-size: 11px }\n"
    "path { fill: none } .line { stroke-width: 2 }\n"
    ".faint { stroke-width: 1.2; stroke-dasharray: 4 3; opacity: .8 }\n"
    ".grid { stroke: currentColor; opacity: .15 } .weight { stroke: currentColor; "
    "stroke-width: 1.5 }\n"
    ".middle { text-anchor: middle } .end, .layer { text-anchor: end } .layer { font-size: 9px }\n"
    ".swatch { display: inline-block; width: .8em; height: .8em; margin-right: .5em }\n"
    "</style></head><body>\n<h1>metamix</h1>\n";

/* ---- tables --------------------------------------------------------------------------------- */

/* color: of a square in front of the text; below 0: none */
static void text_cell(struct page *p, int color, const char *text)
{
    fprintf(p->out, "<td class=\"left\">");
    if (color >= 0)
        fprintf(p->out, "<span class=\"swatch\" style=\"background:%s\"></span>",
                mix__plot_color(color));
    mix__plot_text(p->out, text);
    fprintf(p->out, "</td>");
}

/* format: of one double */
static void number_cell(struct page *p, const char *format, double value)
{
    char text[64];
    snprintf(text, sizeof text, format, value);
    fprintf(p->out, "<td>%s</td>", isfinite(value) ? text : "-");
}

static void time_cell(struct page *p, double seconds)
{
    if (!(seconds >= 0.0 && seconds < 1e12)) {
        fprintf(p->out, "<td>-</td>");
        return;
    }
    const long long s = llround(seconds);
    fprintf(p->out, "<td>%lld:%02lld:%02lld</td>", s / 3600, s / 60 % 60, s % 60);
}

/* On a page of one run the curves' colours tell the phases apart, else the runs. */
static int color_of(const struct page *p, int run, const char *phase)
{
    static const char *const phases[] = { "float",   "bit-meta", "bit-search", "stage a", "stage b",
                                          "stage c", "joint",    "greedy",     "random" };
    return p->n > 1 ? run : 1 + mix__text_index(phase, phases, MIX_COUNT(phases));
}

/* Else a selection. */
static bool is_epoch(const json_t *entry)
{
    return json_object_get(entry, "epoch") != NULL;
}

static double accuracy_of(const struct mix__run_files *r, const char *which)
{
    return mix__json_real_of(json_object_get(r->result, which), "top1");
}

/* Of a job that is not done: what its log says. */
static double last_accuracy(const struct mix__run_files *r)
{
    double last = NAN;
    size_t i;
    const json_t *entry;
    if (r->result)
        return accuracy_of(r, "last");
    json_array_foreach(r->log, i, entry)
    {
        const double value = mix__json_real_of(entry, "val_top1");
        last = isfinite(value) ? value : last;
    }
    return last;
}

static void write_summary(struct page *p)
{
    fputs("<table><tr><th class=\"left\">run</th><th class=\"left\">what</th>"
          "<th>top-1 % (last)</th><th>top-1 % (best)</th><th>GBOPs</th><th>budget</th>"
          "<th>mean act. bits</th><th>time</th></tr>\n",
          p->out);
    for (int i = 0; i < p->n; i++) {
        const struct mix__run_files *r = &p->runs[i];
        fprintf(p->out, "<tr>");
        text_cell(p, p->n > 1 ? i : -1, r->path);
        fprintf(p->out, "<td class=\"left\">");
        mix__plot_text(p->out, mix__text_of(r->config, "job"));
        fprintf(p->out, "%s</td>", r->result ? "" : ", not done");
        number_cell(p, "%.2f", last_accuracy(r));
        number_cell(p, "%.2f", accuracy_of(r, "best"));
        number_cell(p, "%.6g", mix__json_real_of(r->result ? r->result : r->bits, "gbops"));
        number_cell(p, "%.6g", mix__json_real_of(r->result, "target_gbops"));
        number_cell(p, "%.2f",
                    mix__json_real_of(r->result ? r->result : r->bits, "mean_activation_bits"));
        time_cell(p, mix__json_real_of(r->result, "seconds"));
        fprintf(p->out, "</tr>\n");
    }
    fprintf(p->out, "</table>\n");
}

static void phase_row(struct page *p, const char *phase, int epochs, double seconds)
{
    fprintf(p->out, "<tr>");
    text_cell(p, p->n == 1 ? color_of(p, 0, phase) : -1, phase);
    number_cell(p, "%.0f", epochs);
    time_cell(p, seconds);
    fprintf(p->out, "</tr>\n");
}

/* Of the log, since a run that is not done has them too. */
static void write_phases(struct page *p, const json_t *log)
{
    const char *phase = NULL;
    const json_t *entry;
    int epochs = 0;
    double seconds = 0.0;
    size_t i;
    fprintf(p->out, "<table><tr><th class=\"left\">phase</th><th>epochs</th><th>time</th></tr>\n");
    json_array_foreach(log, i, entry)
    {
        const char *name = mix__text_of(entry, "phase");
        if (!is_epoch(entry))
            continue;
        if (phase && strcmp(phase, name) != 0) {
            phase_row(p, phase, epochs, seconds);
            epochs = 0;
            seconds = 0.0;
        }
        phase = name;
        epochs++;
        seconds += mix__json_real_of(entry, "seconds");
    }
    if (phase)
        phase_row(p, phase, epochs, seconds);
    fprintf(p->out, "</table>\n");
}

static void setting_row(struct page *p, const char *name, const json_t *value)
{
    char *text =
        json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
    fprintf(p->out, "<tr>");
    text_cell(p, -1, name);
    text_cell(p, -1, text ? text : json_is_string(value) ? json_string_value(value) : "-");
    fprintf(p->out, "</tr>\n");
    free(text);
}

static void write_settings(struct page *p, json_t *config)
{
    static const char *const top[] = { "job", "from", "bits" };
    const char *name;
    json_t *value;
    fprintf(p->out, "<details><summary>Settings</summary><table>\n");
    for (size_t i = 0; i < MIX_COUNT(top); i++)
        if ((value = json_object_get(config, top[i])) && !json_is_null(value))
            setting_row(p, top[i], value);
    json_object_foreach(json_object_get(config, "settings"), name, value)
        setting_row(p, name, value);
    fprintf(p->out, "</table></details>\n");
}

/* ---- plots ---------------------------------------------------------------------------------- */

/* Curves of one figure of the log: points, and series that are runs of them. */
struct curves {
    struct mix__plot_point *points;
    struct mix__plot_series *series;
    size_t n_points, n_series;
};

/* The figure over the run's epochs, whatever their phase, counted from 1, where they have it; a
 * colour, a series. */
static void add_curve(const struct page *p, struct curves *c, int run, const char *key, bool faint)
{
    const json_t *entry;
    size_t i, epoch = 0;
    int last = -1;
    json_array_foreach(p->runs[run].log, i, entry)
    {
        const char *phase = mix__text_of(entry, "phase");
        const int color = color_of(p, run, phase);
        struct mix__plot_point *point = &c->points[c->n_points];
        if (!is_epoch(entry))
            continue;
        *point = (struct mix__plot_point){ (double)++epoch, mix__json_real_of(entry, key), phase };
        if (!isfinite(point->y)) /* no evaluation after this epoch */
            continue;
        if (color != last)
            c->series[c->n_series++] = (struct mix__plot_series){
                .name = p->runs[run].path, .color = color, .faint = faint, .points = point
            };
        c->series[c->n_series - 1].n++;
        c->n_points++;
        last = color;
    }
}

/* Validation as a line, training as a faint one. */
static mix_status write_curves(struct page *p, const char *title, const char *label,
                               const char *const keys[2])
{
    size_t most = 1;
    for (int run = 0; run < p->n; run++)
        most += 2 * json_array_size(p->runs[run].log);
    struct curves c = { mix__alloc(p->ctx, most, sizeof *c.points),
                        mix__alloc(p->ctx, most, sizeof *c.series), 0, 0 };
    const mix_status status = c.points && c.series ? MIX_OK : MIX_ENOMEM;
    for (int run = 0; run < p->n && status == MIX_OK; run++)
        for (int k = 0; k < 2; k++)
            add_curve(p, &c, run, keys[k], k == 1);
    if (status == MIX_OK)
        mix__plot_draw(p->out,
                       &(struct mix__plot){
                           title, { "epoch", false }, { label, false }, c.series, c.n_series });
    mix__free(p->ctx, c.points);
    mix__free(p->ctx, c.series);
    return status;
}

static void write_trade(struct page *p)
{
    struct mix__plot_point points[MIX_REPORT_RUNS];
    struct mix__plot_series series[MIX_REPORT_RUNS];
    size_t n = 0;
    for (int run = 0; run < p->n; run++) {
        const struct mix__run_files *r = &p->runs[run];
        points[n] = (struct mix__plot_point){ mix__json_real_of(r->result, "gbops"),
                                              accuracy_of(r, "best"), "" };
        if (!isfinite(points[n].x) || !isfinite(points[n].y))
            continue;
        series[n] = (struct mix__plot_series){
            .name = r->path, .color = run, .named = true, .points = &points[n], .n = 1
        };
        n++;
    }
    if (n > 1)
        mix__plot_draw(p->out, &(struct mix__plot){ "Accuracy (best epoch) against bit operations",
                                                    { "GBOPs for one image", true },
                                                    { "top-1, %", false },
                                                    series,
                                                    n });
}

static mix_status write_plots(struct page *p)
{
    static const char *const accuracy[] = { "val_top1", "top1" }, *const loss[] = { "val_loss",
                                                                                    "loss" };
    fprintf(p->out, "<div class=\"plots\">\n");
    MIX_TRY(write_curves(p, "Accuracy: validation, and training as a dashed line", "top-1, %",
                         accuracy));
    MIX_TRY(write_curves(p, "Loss: validation, and training as a dashed line", "loss", loss));
    write_trade(p);
    fprintf(p->out, "</div>\n");
    return MIX_OK;
}

/* ---- bits ----------------------------------------------------------------------------------- */

/* Layers of all runs in the order in which they first appear: {"name": number}. */
static json_t *number_layers(const struct page *p)
{
    json_t *all = json_object();
    for (int run = 0; run < p->n; run++) {
        size_t i;
        const json_t *layer;
        json_array_foreach(json_object_get(p->runs[run].bits, "layers"), i, layer)
        {
            const char *name = mix__text_of(layer, "name");
            if (!json_object_get(all, name))
                json_object_set_new(all, name, json_integer((json_int_t)json_object_size(all)));
        }
    }
    return all;
}

static int bits_of(const json_t *layer, const char *key)
{
    const double bits = mix__json_real_of(layer, key);
    return bits >= 1.0 && bits <= MIX_BITS_FLOAT ? (int)bits : 0;
}

static void take_bits(const json_t *list, const json_t *numbers, int *weight, int *activation)
{
    size_t i;
    const json_t *layer;
    json_array_foreach(list, i, layer)
    {
        const json_int_t l =
            json_integer_value(json_object_get(numbers, mix__text_of(layer, "name")));
        weight[l] = bits_of(layer, "weight_bits");
        activation[l] = bits_of(layer, "activation_bits");
    }
}

/* bits: (runs, 2, layers), zeros */
static void draw_bits(struct page *p, json_t *numbers, const char **names, int *bits)
{
    struct mix__plot_bits rows[MIX_REPORT_RUNS];
    const size_t n_layers = json_object_size(numbers);
    size_t n = 0;
    const char *name;
    json_t *number;
    json_object_foreach(numbers, name, number) names[json_integer_value(number)] = name;
    for (int run = 0; run < p->n; run++) {
        const json_t *list = json_object_get(p->runs[run].bits, "layers");
        int *weight = bits + 2 * (size_t)run * n_layers, *activation = weight + n_layers;
        if (!json_array_size(list))
            continue;
        take_bits(list, numbers, weight, activation);
        rows[n++] = (struct mix__plot_bits){ p->runs[run].path, run, weight, activation };
    }
    mix__plot_draw_bits(p->out, names, n_layers, rows, n);
}

static mix_status write_bits(struct page *p)
{
    json_t *numbers = number_layers(p);
    const size_t n = json_object_size(numbers);
    if (n == 0) {
        json_decref(numbers);
        return MIX_OK;
    }
    const char **names = mix__alloc(p->ctx, n, sizeof *names);
    int *bits = mix__zalloc(p->ctx, 2 * (size_t)p->n * n, sizeof *bits);
    if (names && bits)
        draw_bits(p, numbers, names, bits);
    const mix_status status = names && bits ? MIX_OK : MIX_ENOMEM;
    mix__free(p->ctx, names);
    mix__free(p->ctx, bits);
    json_decref(numbers);
    return status;
}

/* ---- the page ------------------------------------------------------------------------------- */

static mix_status write_page(void *page, FILE *out)
{
    struct page *p = page;
    p->out = out;
    fputs(head, p->out);
    write_summary(p);
    if (p->n == 1)
        write_phases(p, p->runs[0].log);
    MIX_TRY(write_plots(p));
    MIX_TRY(write_bits(p));
    for (int i = 0; i < p->n; i++) {
        if (p->n > 1) {
            fprintf(p->out, "<h2>");
            mix__plot_text(p->out, p->runs[i].path);
            fprintf(p->out, "</h2>\n");
            write_phases(p, p->runs[i].log);
        }
        write_settings(p, p->runs[i].config);
    }
    fprintf(p->out, "</body></html>\n");
    return MIX_OK;
}

mix_status mix_report_write(mix_ctx *ctx, const char *const *runs, int n, const char *path)
{
    struct mix__run_files files[MIX_REPORT_RUNS];
    struct page page = { .ctx = ctx, .runs = files };
    mix_status status = MIX_OK;
    if (n < 1 || n > MIX_REPORT_RUNS)
        return mix__fail(ctx, MIX_EINVAL, "a report is of 1 to %d runs, not %d", MIX_REPORT_RUNS,
                         n);
    while (page.n < n && status == MIX_OK) {
        status = mix__run_files_read(&files[page.n], ctx, runs[page.n]);
        page.n += status == MIX_OK;
    }
    if (status == MIX_OK)
        status = mix__file_print(ctx, path, write_page, &page);
    while (page.n > 0)
        mix__run_files_release(&files[--page.n]);
    return status;
}
