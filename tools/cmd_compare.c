/* cmd_compare.c - MetaMix against uniform networks of the same cost and other ways to find bits, from
 * one float network. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "command_job.h"
#include "results_table.h"
#include "stop.h"

static const char *const kinds[] = { "uniform", "unfixed", "joint", "greedy", "random", "metamix" };
enum { N_KINDS = sizeof kinds / sizeof kinds[0], METAMIX = N_KINDS - 1 };

/* The float run, if --from is one, and for each target those of kinds, in this order. */
struct comparison {
    struct job job;
    int kind[N_KINDS], n_kinds; /* MetaMix is the last one */
    char *runs[MIX_REPORT_RUNS];
    int n;
};

static const char *const *names_of(const struct comparison *c)
{
    return (const char *const *)c->runs;
}

static mix_status add_run(struct comparison *c, char *name)
{
    if (!name)
        return MIX_ENOMEM;
    c->runs[c->n++] = name;
    return MIX_OK;
}

static mix_status add_float(struct comparison *c)
{
    const char *from = c->job.options->from;
    char *path = from ? job_path(from, "result.json") : NULL;
    const bool is_run = path && access(path, F_OK) == 0;
    free(path);
    return is_run ? add_run(c, strdup(from)) : MIX_OK;
}

static mix_status train(struct comparison *c, const char *target, const char *kind)
{
    struct job *job = &c->job;
    const struct options *o = job->options;
    const bool uniform = strcmp(kind, "uniform") == 0;
    mix_settings settings = o->settings;
    mix_result result = { 0 };
    char name[64];
    int weight, activation;
    mix_bits_parse(target, &weight, &activation);
    settings.weight_bits = weight;
    snprintf(settings.target, sizeof settings.target, "W%dA%d", weight, activation);
    if (!uniform)
        snprintf(settings.search, sizeof settings.search, "%s", kind);
    snprintf(name, sizeof name, "%s-W%dA%d", kind, weight, activation);
    const mix_status status = add_run(c, job_path(o->run, name));
    if (status != MIX_OK)
        return status;
    const char *run = c->runs[c->n - 1];
    if (!o->quiet)
        fprintf(stderr, "%s\n", run);
    const mix_status trained =
        uniform ? mix_finetune(job->ctx, run, o->from, settings.target, &settings, &job->observer,
                               &result)
                : mix_quantize(job->ctx, run, o->from, &settings, &job->observer, &result);
    mix_result_release(&result);
    return job_page(job, run, trained);
}

static int index_of_kind(const char *name, size_t length)
{
    for (int i = 0; i < METAMIX; i++)
        if (strlen(kinds[i]) == length && strncmp(kinds[i], name, length) == 0)
            return i;
    return -1;
}

/* --with's words, and MetaMix. */
static int choose_kinds(struct comparison *c, const struct options *o)
{
    bool taken[N_KINDS] = { false };
    for (const char *at = o->with, *end; at; at = *end ? end + 1 : NULL) {
        end = at + strcspn(at, ",");
        const int kind = index_of_kind(at, (size_t)(end - at));
        if (kind < 0 || taken[kind])
            return job_fail(o, MIX_EINVAL,
                            "--with is '%.80s'; expected some of uniform, unfixed, joint, greedy, "
                            "random, each once",
                            o->with);
        taken[kind] = true;
        c->kind[c->n_kinds++] = kind;
    }
    c->kind[c->n_kinds++] = METAMIX;
    return 0;
}

static int check_targets(const struct comparison *c, const struct options *o, char *const *targets,
                         int n)
{
    const int most = (MIX_REPORT_RUNS - 1) / c->n_kinds;
    int weight, activation;
    if (n > most)
        return job_fail(o, MIX_EINVAL, "%d targets; expected at most %d", n, most);
    for (int i = 0; i < n; i++)
        if (!mix_bits_parse(targets[i], &weight, &activation))
            return job_fail(o, MIX_EINVAL,
                            "target '%.64s'; expected a uniform network such as W4A3, whose cost "
                            "is the budget",
                            targets[i]);
    return 0;
}

static int run(const struct options *options)
{
    char target[MIX_TEXT_MAX], *from_settings[] = { target };
    char *const *targets = options->n_args ? options->args : from_settings;
    const int n = options->n_args ? options->n_args : 1;
    struct comparison c = { .n = 0 };
    snprintf(target, sizeof target, "%s", options->settings.target);
    int code = choose_kinds(&c, options);
    if (!code)
        code = check_targets(&c, options, targets, n);
    if (code)
        return code;
    mix_status status = job_open(&c.job, options);
    if (status != MIX_OK)
        return status;
    stop_catch();
    status = add_float(&c);
    for (int i = 0; i < c.n_kinds * n && status == MIX_OK; i++)
        status = train(&c, targets[i / c.n_kinds], kinds[c.kind[i % c.n_kinds]]);
    if (status == MIX_OK)
        status = job_write_page(&c.job, options->run, names_of(&c), c.n);
    code = job_close(&c.job, status);
    if (!code)
        code = results_print(options, names_of(&c), c.n);
    for (int i = 0; i < c.n; i++)
        free(c.runs[i]);
    return code;
}

const struct command command_compare = {
    .name = "compare",
    .summary = "MetaMix against uniform networks and other searches at the same cost: one table, "
               "one page.",
    .args = "[TARGET...]",
    .groups =
        MIX_GROUP_NET | MIX_GROUP_DATA | MIX_GROUP_SELECT | MIX_GROUP_FINETUNE | MIX_GROUP_RUN,
    .takes = TAKES_RUN | TAKES_FROM | TAKES_CPU | TAKES_LAYERS | TAKES_WITH,
    .needs = TAKES_RUN | TAKES_FROM | TAKES_DATA,
    .run = run,
    .more =
        "For each TARGET (default: --target), such as W4A3, the uniform network of these bits, or "
        "what --with names, and MetaMix at its cost, with the same weight training from the same "
        "float network: the runs --out/uniform-W4A3 and --out/metamix-W4A3, and --out/report.html "
        "of all. Example: metamix compare W4A2 W4A3 W4A4 --from runs/float --data fashion --out "
        "runs/compared",
};
