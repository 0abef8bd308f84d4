/* cmd_compare.c - MetaMix against uniform networks of the same cost, from one float network. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "command_job.h"
#include "results_table.h"
#include "stop.h"

/* The float run, if --from is one, and two for each target. */
struct comparison {
    struct job job;
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

static mix_status train(struct comparison *c, const char *target, bool uniform)
{
    struct job *job = &c->job;
    const struct options *o = job->options;
    mix_settings settings = o->settings;
    mix_result result = { 0 };
    char name[64];
    int weight, activation;
    mix_bits_parse(target, &weight, &activation);
    settings.weight_bits = weight;
    snprintf(settings.target, sizeof settings.target, "W%dA%d", weight, activation);
    snprintf(name, sizeof name, "%s-W%dA%d", uniform ? "uniform" : "metamix", weight, activation);
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

static int check_targets(const struct options *o, char *const *targets, int n)
{
    enum { MOST = (MIX_REPORT_RUNS - 1) / 2 };
    int weight, activation;
    if (n > MOST)
        return job_fail(o, MIX_EINVAL, "%d targets; expected at most %d", n, MOST);
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
    int code = check_targets(options, targets, n);
    if (code)
        return code;
    mix_status status = job_open(&c.job, options);
    if (status != MIX_OK)
        return status;
    stop_catch();
    status = add_float(&c);
    for (int i = 0; i < 2 * n && status == MIX_OK; i++)
        status = train(&c, targets[i / 2], i % 2 == 0);
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
    .summary = "MetaMix against uniform networks of the same cost: one table, one page.",
    .args = "[TARGET...]",
    .groups =
        MIX_GROUP_NET | MIX_GROUP_DATA | MIX_GROUP_SELECT | MIX_GROUP_FINETUNE | MIX_GROUP_RUN,
    .takes = TAKES_RUN | TAKES_FROM | TAKES_CPU | TAKES_LAYERS,
    .needs = TAKES_RUN | TAKES_FROM | TAKES_DATA,
    .run = run,
    .more =
        "For each TARGET (default: --target), such as W4A3, the uniform network of these bits and "
        "MetaMix at its cost, with the same weight training from the same float network: the runs "
        "--out/uniform-W4A3 and --out/metamix-W4A3, and --out/report.html of all. Example: metamix "
        "compare W4A2 W4A3 W4A4 --from runs/float --data fashion --out runs/compared",
};
