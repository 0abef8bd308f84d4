/* command_job.c - a job from the options to its report. */
#include "command_job.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "profile_table.h"
#include "stop.h"
#include "table.h"

int job_fail(const struct options *options, int code, const char *format, ...)
{
    va_list args;
    const char *slash = strrchr(options->argv[0], '/');
    fprintf(stderr, "%s: ", slash ? slash + 1 : options->argv[0]);
    va_start(args, format);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return code;
}

static void on_log(void *user, mix_log_level level, const char *line)
{
    struct job *job = user;
    if (job->options->quiet && level == MIX_LOG_INFO)
        return;
    progress_clear(&job->progress);
    fprintf(stderr, "%s%s\n", level == MIX_LOG_WARNING ? "warning: " : "", line);
}

static void on_progress(void *user, const mix_progress *progress)
{
    struct job *job = user;
    progress_show(&job->progress, progress);
}

static bool on_stop(void *user)
{
    (void)user;
    return stop_wanted();
}

static void on_profile(void *user, const mix_profile *profile)
{
    struct job *job = user;
    progress_clear(&job->progress);
    profile_print(profile, job->options->json ? stderr : stdout);
}

static mix_observer observe(struct job *job)
{
    return (mix_observer){ .progress = on_progress,
                           .stop = on_stop,
                           .profile = job->options->profile ? on_profile : NULL,
                           .user = job };
}

mix_status job_open(struct job *job, const struct options *options)
{
    mix_ctx_options o;
    mix_ctx_options_init(&o);
    o.log = on_log;
    o.log_user = job;
    o.cpu_mask = options->cpu_mask;
    o.threads = options->threads;
    *job = (struct job){ .options = options };
    job->observer = observe(job);
    progress_begin(&job->progress, options->quiet);
    const mix_status status = mix_ctx_new(&job->ctx, &o);
    if (status != MIX_OK)
        job_fail(options, status, "%s", mix_status_text(status));
    return status;
}

/* The word as a shell reads it back. */
static void print_word(FILE *out, const char *word)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=+,./:@%";
    if (*word && !word[strspn(word, plain)]) {
        fputs(word, out);
        return;
    }
    fputc('\'', out);
    for (; *word; word++) {
        if (*word == '\'')
            fputs("'\\''", out);
        else
            fputc(*word, out);
    }
    fputc('\'', out);
}

static void say_how_to_go_on(const struct options *o)
{
    fprintf(stderr, "stopped and saved; the same command goes on:\n  %s", o->argv[0]);
    for (int i = 1; i < o->argc; i++) {
        fputc(' ', stderr);
        print_word(stderr, o->argv[i]);
    }
    fputc('\n', stderr);
}

int job_no_memory(const struct options *options)
{
    return job_fail(options, MIX_ENOMEM, "%s", mix_status_text(MIX_ENOMEM));
}

int job_tell(struct job *job, mix_status status)
{
    const char *sentence = mix_ctx_error(job->ctx);
    if (status == MIX_OK)
        return 0;
    progress_clear(&job->progress);
    return job_fail(job->options, status, "%s", *sentence ? sentence : mix_status_text(status));
}

int job_close(struct job *job, mix_status status)
{
    progress_clear(&job->progress);
    if (status == MIX_ESTOPPED && job->options->run)
        say_how_to_go_on(job->options);
    else
        job_tell(job, status);
    mix_ctx_free(job->ctx);
    return status;
}

json_t *job_real(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

json_t *job_text(const char *text)
{
    json_t *t = text ? json_string(text) : NULL;
    return t ? t : json_null();
}

int job_print_json(const struct options *options, json_t *object)
{
    /* 15 digits: a number that was rounded to 3 decimals prints as such. */
    if (!object)
        return job_no_memory(options);
    const int failed = json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    json_decref(object);
    if (failed)
        return job_fail(options, MIX_EIO, "%s", mix_status_text(MIX_EIO));
    putchar('\n');
    return 0;
}

char *job_path(const char *folder, const char *name)
{
    const size_t size = strlen(folder) + strlen(name) + 2;
    char *path = malloc(size);
    if (path)
        snprintf(path, size, "%s/%s", folder, name);
    return path;
}

json_t *job_load_result(const struct options *options, const char *run, int *code)
{
    json_error_t error;
    json_t *root = NULL;
    char *path = job_path(run, "result.json");
    if (!path) {
        *code = job_no_memory(options);
        return NULL;
    }
    FILE *file = fopen(path, "rb");
    if (!file) {
        *code = job_fail(options, MIX_EIO, "%s: %s%s", path, strerror(errno),
                         errno == ENOENT ? " (the run is not done, or this is no run)" : "");
    } else {
        root = json_loadf(file, JSON_REJECT_DUPLICATES, &error);
        fclose(file);
        if (!root)
            *code = job_fail(options, MIX_EFORMAT, "%s: line %d, byte %d: %s", path, error.line,
                             error.position, error.text);
        else if (!json_is_object(root))
            *code = job_fail(options, MIX_EFORMAT, "%s: expected one object", path);
    }
    free(path);
    if (root && !json_is_object(root)) {
        json_decref(root);
        root = NULL;
    }
    return root;
}

static void accuracy_row(struct table *t, const char *name, const mix_accuracy *a,
                         const char *gbops, const char *bits)
{
    const double known = a->images > 0 ? 1 : NAN;
    table_row(t, "%s\t%s\t%s\t%s\t%s\t%s", name, cell_number(known * a->top1, 2).text,
              cell_number(known * a->top5, 2).text, cell_number(known * a->loss, 4).text, gbops,
              bits);
}

static void print_accuracy(const mix_result *r, const mix_graph *graph)
{
    struct table t;
    mix_graph_info info;
    mix_graph_info_get(graph, &info);
    const cell float_gbops = cell_gbops(1e-9 * MIX_BITS_FLOAT * MIX_BITS_FLOAT * (double)info.macs);
    const cell gbops = r->bits ? cell_gbops(r->gbops) : float_gbops;
    const cell bits = r->bits ? cell_number(r->mean_activation_bits, 2) : (cell){ "32.00" };
    table_begin(&t, "lrrrrr");
    table_row(&t, "\ttop-1 %%\ttop-5 %%\tloss\tGBOPs\tmean act. bits");
    if (r->bits)
        accuracy_row(&t, "start in float", &r->float_accuracy, float_gbops.text, "32.00");
    accuracy_row(&t, "best epoch", &r->best, gbops.text, bits.text);
    accuracy_row(&t, "last epoch", &r->last, gbops.text, bits.text);
    table_end(&t, stdout);
}

/* A budget is met when it is not exceeded, but for the rounding of the sum. */
static void print_budget(const mix_result *r)
{
    const double over = r->gbops - r->target_gbops;
    if (!isfinite(r->target_gbops) || !isfinite(r->gbops))
        return;
    printf("budget: %s GBOPs, reached %s: %s by %s (%.1f%%)\n", cell_gbops(r->target_gbops).text,
           cell_gbops(r->gbops).text, over > 1e-9 * r->target_gbops ? "MISSED, over" : "met, under",
           cell_gbops(fabs(over)).text, 100 * fabs(over) / r->target_gbops);
}

static void print_time(const mix_result *r)
{
    struct table t;
    table_begin(&t, "lrr");
    table_row(&t, "phase\tepochs\ttime");
    for (int i = 0; i < r->n_phases; i++)
        table_row(&t, "%.15s\t%d\t%s", r->phases[i].phase, r->phases[i].epochs,
                  cell_time(r->phases[i].seconds).text);
    table_row(&t, "all\t\t%s", cell_time(r->seconds).text);
    table_end(&t, stdout);
    printf("memory: %s planned for the network, %s peak of the process\n",
           cell_bytes((double)r->plan_bytes).text, cell_bytes((double)r->peak_bytes).text);
    if (isfinite(r->data_wait))
        printf("waiting for images: %.1f%% of the training time\n", 100 * r->data_wait);
}

static void print_bits(const mix_graph *graph, const mix_layer_bits *bits)
{
    static const char bar[] = "################################";
    mix_graph_info info;
    struct table t;
    mix_graph_info_get(graph, &info);
    table_begin(&t, "llrrrl");
    table_row(&t, "layer\tkind\tMACs\tW\tA\t");
    for (int i = 0; i < info.layers; i++) {
        mix_layer_info layer;
        mix_graph_layer_get(graph, i, &layer);
        table_row(&t, "%s\t%s\t%" PRIu64 "\t%d\t%d\t%.*s%s", layer.name, layer.kind, layer.macs,
                  bits[i].weight, bits[i].activation, bits[i].activation, bar,
                  layer.searched ? "" : " fixed");
    }
    table_end(&t, stdout);
}

static mix_status print_report(struct job *job, const mix_result *r)
{
    mix_graph *graph;
    mix_layer_bits *bits;
    const mix_status status = mix_run_graph(job->ctx, job->options->run, &graph, &bits);
    if (status != MIX_OK)
        return status;
    mix_graph_info info;
    mix_graph_info_get(graph, &info);
    printf("%s: %s, %" PRIu64 " MACs, %d x %d x %d image, %d classes\n\n", job->options->run,
           info.name, info.macs, info.size, info.size, info.channels, info.classes);
    print_accuracy(r, graph);
    print_budget(r);
    putchar('\n');
    print_time(r);
    if (r->bits && r->n_layers == info.layers) {
        putchar('\n');
        print_bits(graph, r->bits);
    }
    mix_bits_free(job->ctx, bits);
    mix_graph_free(graph);
    return MIX_OK;
}

static int print_result_file(const struct options *options)
{
    int code;
    json_t *result = job_load_result(options, options->run, &code);
    return result ? job_print_json(options, result) : code;
}

mix_status job_write_page(struct job *job, const char *folder, const char *const *runs, int n)
{
    char *path = job_path(folder, "report.html");
    if (!path)
        return MIX_ENOMEM;
    const mix_status status = mix_report_write(job->ctx, runs, n, path);
    free(path);
    return status;
}

mix_status job_page(struct job *job, const char *run, mix_status status)
{
    progress_clear(&job->progress);
    if (status == MIX_OK && job_write_page(job, run, &run, 1) != MIX_OK)
        fprintf(stderr, "warning: %s\n", mix_ctx_error(job->ctx)); /* the run is done */
    else if (status == MIX_ESTOPPED)
        job_tell(job, job_write_page(job, run, &run, 1));
    return status;
}

int job_run(const struct options *options, job_work *work)
{
    struct job job;
    mix_result result = { 0 };
    mix_status status = job_open(&job, options);
    if (status != MIX_OK)
        return status;
    stop_catch();
    status = job_page(&job, options->run, work(&job, &result));
    if (status == MIX_OK && !options->json)
        status = print_report(&job, &result);
    mix_result_release(&result);
    const int code = job_close(&job, status);
    return code == 0 && options->json ? print_result_file(options) : code;
}
