/* main.c - which subcommand, and the exit code. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "table.h"

static const struct command *const commands[] = {
    &command_train, &command_quantize, &command_select,  &command_finetune,    &command_compare,
    &command_eval,  &command_info,     &command_export,  &command_verify,      &command_predict,
    &command_bench, &command_report,   &command_results, &command_instability, &command_pack,
};

enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void print_help(FILE *out)
{
    struct table t;
    fputs("Usage: metamix COMMAND [OPTION...]\n"
          "Mixed-precision quantization of image-classification networks.\n\n"
          "Commands (metamix COMMAND --help shows the options):\n",
          out);
    table_begin(&t, "lll");
    for (int i = 0; i < N_COMMANDS; i++)
        table_row(&t, "\t%s\t%s", commands[i]->name, commands[i]->summary);
    table_end(&t, out);
    fputs("\nExit codes:\n", out);
    table_begin(&t, "lrl");
#define X(name, code, text) table_row(&t, "\t%d\t%s", code, text);
    MIX_STATUS_MAP(X)
#undef X
    table_end(&t, out);
}

static const struct command *find(const char *name)
{
    for (int i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    }
    return NULL;
}

static int dispatch(const struct command *command, int argc, char **argv)
{
    struct options options;
    const size_t size = strlen(argv[0]) + strlen(command->name) + 2;
    char *name = malloc(size);
    if (!name) {
        fprintf(stderr, "metamix: %s\n", mix_status_text(MIX_ENOMEM));
        return MIX_ENOMEM;
    }
    snprintf(name, size, "%s %s", argv[0], command->name);
    argv[1] = name;
    options_parse(&options, command, argc - 1, argv + 1);
    const int code = command->run(&options);
    free(name);
    return code;
}

static bool is_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "-?") == 0;
}

static int run(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return MIX_EINVAL;
    }
    const bool help = strcmp(argv[1], "help") == 0;
    if ((help && argc == 2) || is_help(argv[1])) {
        print_help(stdout);
        return 0;
    }
    if (help || (argc == 3 && strcmp(argv[2], "-h") == 0)) /* metamix COMMAND --help */
        return run(3, (char *[]){ argv[0], argv[help ? 2 : 1], "--help", NULL });
    if (strcmp(argv[1], "--version") == 0) {
        puts("metamix " METAMIX_VERSION);
        return 0;
    }
    const struct command *command = find(argv[1]);
    if (!command) {
        fprintf(stderr, "metamix: no command '%.80s'; metamix --help lists them\n", argv[1]);
        return MIX_EINVAL;
    }
    return dispatch(command, argc, argv);
}

int main(int argc, char **argv)
{
    const int code = run(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        perror("metamix: standard output");
        return code ? code : MIX_EIO;
    }
    return code;
}
