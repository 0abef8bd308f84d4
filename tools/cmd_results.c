/* cmd_results.c - several runs' results. */
#include "commands.h"
#include "results_table.h"

static int run(const struct options *options)
{
    return results_print(options, (const char *const *)options->args, options->n_args);
}

const struct command command_results = {
    .name = "results",
    .summary = "One table of the results of several runs.",
    .args = "RUN...",
    .takes = TAKES_LAYERS,
    .run = run,
};
