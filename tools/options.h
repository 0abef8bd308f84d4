/*
 * options.h - the command line of a subcommand: the library's settings and a few of the tool's.
 */
#ifndef TOOLS_OPTIONS_H
#define TOOLS_OPTIONS_H

#include <stdbool.h>

#include "metamix/metamix.h"

/* The tool's own options, as a command takes them; --json and --quiet come with every command. */
enum {
    TAKES_RUN = 1u << 0,      /* --out, --recipe, --profile             */
    TAKES_FROM = 1u << 1,     /* --from                                 */
    TAKES_BITS = 1u << 2,     /* --bits                                 */
    TAKES_SHAPE = 1u << 3,    /* --weight-bits, --act-bits, --bits, --classes, --size, --channels */
    TAKES_FLOAT = 1u << 4,    /* --float, --integer                     */
    TAKES_CPU = 1u << 5,      /* --threads, --cpu-mask                  */
    TAKES_LAYERS = 1u << 6,   /* --layers                              */
    TAKES_DATA = 1u << 7,     /* only for command.needs: --data         */
    TAKES_PACK = 1u << 8,     /* --data, --out, --size, --quality, --skip-bad-images */
    TAKES_EXPORT = 1u << 9,   /* --format, --onnx-types, --out           */
    TAKES_AGAINST = 1u << 10, /* --against, --images                     */
    TAKES_RESIZE = 1u << 11,  /* --resize                               */
    TAKES_BENCH = 1u << 12,   /* --seconds, --runs, --layers             */
    TAKES_REPORT = 1u << 13,  /* --out                                  */
    TAKES_WITH = 1u << 14     /* --with                                 */
};

struct options {
    mix_settings settings;
    const char *run, *from, *bits; /* NULL: not given  */
    int weight_bits, act_bits;     /* of info; 0: not given */
    int classes, size, channels;   /* of info; 0: not given */
    const char *out;               /* of pack, export, report; NULL: not given */
    const char *against;           /* of verify                */
    const char *with;              /* of compare, with default */
    int images;                    /* of verify, with default  */
    mix_export_options export;
    int pack_size, quality; /* of pack, with defaults   */
    double seconds;         /* of bench, with default   */
    int runs;               /* of bench; 0: not given   */
    int threads;
    unsigned cpu_mask;
    bool as_float, integer, layers, profile, json, quiet;
    int n_args; /* the arguments that are no options: folders      */
    char **args;
    int argc; /* the whole line, argv[0] being "metamix SUBCOMMAND" */
    char **argv;
};

struct command {
    const char *name, *summary;
    const char *args;      /* the arguments' names in the help, without "..." one, with "[" perhaps
                            * none; NULL: none */
    unsigned groups;       /* MIX_GROUP_: settings that it takes */
    unsigned takes, needs; /* TAKES_                             */
    int (*run)(const struct options *options); /* gives the exit code */
    const char *more;                          /* a paragraph below the options, or NULL */
};

/* Ends the process after --help, and with MIX_EINVAL's code after a mistake. */
void options_parse(struct options *options, const struct command *command, int argc, char **argv);

#endif
