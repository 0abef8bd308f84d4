/* results_table.c - several runs' results side by side. */
#include "results_table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command_job.h"
#include "table.h"

/* NAN where the path leads to no number. */
static double number(const json_t *object, const char *outer, const char *inner)
{
    const json_t *v = json_object_get(object, outer);
    if (inner)
        v = json_object_get(v, inner);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static const char *text(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "-";
}

/* The name without the folders before it, as far as that is a name. */
static const char *short_name(const char *run)
{
    const char *slash = strrchr(run, '/');
    return slash && slash[1] ? slash + 1 : run;
}

static void print_summary(const char *const *runs, int n, json_t *const *results)
{
    struct table t;
    table_begin(&t, "llrrrrr");
    table_row(&t, "\t\ttop-1 %%\ttop-1 %%\t\tmean\t");
    table_row(&t, "run\twhat\tlast\tbest\tGBOPs\tact. bits\ttime");
    for (int i = 0; i < n; i++) {
        const json_t *r = results[i];
        table_row(&t, "%s\t%s\t%s\t%s\t%s\t%s\t%s", runs[i], text(r, "job"),
                  cell_number(number(r, "last", "top1"), 2).text,
                  cell_number(number(r, "best", "top1"), 2).text,
                  cell_gbops(number(r, "gbops", NULL)).text,
                  cell_number(number(r, "mean_activation_bits", NULL), 2).text,
                  cell_time(number(r, "seconds", NULL)).text);
    }
    table_end(&t, stdout);
}

/* {"layer": ["4/3", null, ...one for each run]} in the order in which layers first appear. */
static json_t *layers_of(json_t *const *results, int n)
{
    json_t *all = json_object();
    for (int i = 0; i < n; i++) {
        size_t index;
        json_t *layer;
        json_array_foreach(json_object_get(results[i], "bits"), index, layer)
        {
            const char *name = text(layer, "name");
            json_t *row = json_object_get(all, name);
            if (!row) {
                json_object_set_new(all, name, json_array());
                row = json_object_get(all, name);
            }
            while (json_array_size(row) < (size_t)i)
                json_array_append_new(row, json_null());
            if (json_array_size(row) == (size_t)i)
                json_array_append_new(
                    row, json_sprintf("%s/%s", cell_number(number(layer, "weight", NULL), 0).text,
                                      cell_number(number(layer, "activation", NULL), 0).text));
        }
    }
    return all;
}

static void print_layers(const char *const *runs, int n, json_t *const *results)
{
    struct table t;
    json_t *all = layers_of(results, n), *row;
    const char *name;
    table_begin(&t, "lr");
    fputs("layer", t.stream);
    for (int i = 0; i < n; i++)
        fprintf(t.stream, "\t%s", short_name(runs[i]));
    table_row(&t, "%s", "");
    json_object_foreach(all, name, row)
    {
        fputs(name, t.stream);
        for (int i = 0; i < n; i++) {
            const char *bits = json_string_value(json_array_get(row, i));
            fprintf(t.stream, "\t%s", bits ? bits : "-");
        }
        table_row(&t, "%s", "");
    }
    puts("\nbits of weights / input activations");
    table_end(&t, stdout);
    json_decref(all);
}

static int print_json(const struct options *o, const char *const *runs, int n,
                      json_t *const *results)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++) {
        json_object_set_new(results[i], "run", json_string(runs[i]));
        json_array_append(list, results[i]);
    }
    return job_print_json(o, json_pack("{s:o}", "runs", list));
}

/* Those of the runs that have ended go into `ended`; gives their number. */
static int find_ended(const char *const *runs, int n, const char **ended)
{
    int count = 0;
    for (int i = 0; i < n; i++) {
        char *path = job_path(runs[i], "result.json");
        if (!path || access(path, F_OK) == 0) /* out of memory is told later */
            ended[count++] = runs[i];
        else
            fprintf(stderr, "warning: %s: left out, there is no result.json in it\n", runs[i]);
        free(path);
    }
    return count;
}

int results_print(const struct options *options, const char *const *all, int n_all)
{
    int code = 0;
    json_t **results = calloc((size_t)n_all, sizeof *results);
    const char **runs = calloc((size_t)n_all, sizeof *runs);
    const int n = results && runs ? find_ended(all, n_all, runs) : 0;
    if (!results || !runs)
        code = job_no_memory(options);
    else if (n == 0)
        code = job_fail(options, MIX_EIO, "none of the runs has ended: expected a result.json");
    for (int i = 0; i < n && !code; i++)
        results[i] = job_load_result(options, runs[i], &code);
    if (!code && options->json) {
        code = print_json(options, runs, n, results);
    } else if (!code) {
        print_summary(runs, n, results);
        if (options->layers)
            print_layers(runs, n, results);
    }
    for (int i = 0; i < n; i++)
        json_decref(results[i]);
    free(results);
    free(runs);
    return code;
}
