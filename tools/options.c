/* options.c - argp options made from mix_settings_list(). */
#include "options.h"

#include <argp.h>
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ONE(type, field, value, groups, help) +1
enum { N_SETTINGS = 0 MIX_SETTINGS_MAP(ONE), N_GROUPS = 7 };
#undef ONE

/* Keys above the characters have no short form. A setting's key is even; the next one is --no-x. */
enum {
    KEY_RUN = 0x200,
    KEY_RECIPE,
    KEY_FROM,
    KEY_BITS,
    KEY_WEIGHT_BITS,
    KEY_ACT_BITS,
    KEY_CLASSES,
    KEY_SIZE,
    KEY_CHANNELS,
    KEY_FLOAT,
    KEY_INTEGER,
    KEY_THREADS,
    KEY_CPU_MASK,
    KEY_LAYERS,
    KEY_JSON,
    KEY_QUIET,
    KEY_DATA,
    KEY_OUT,
    KEY_FORMAT,
    KEY_ONNX_TYPES,
    KEY_AGAINST,
    KEY_IMAGES,
    KEY_RESIZE,
    KEY_SECONDS,
    KEY_RUNS,
    KEY_PACK_SIZE,
    KEY_QUALITY,
    KEY_SKIP_BAD,
    KEY_PROFILE,
    KEY_WITH,
    KEY_SETTING = 0x1000
};

static const struct {
    unsigned takes; /* 0: every command */
    struct argp_option option;
} tool_options[] = {
    { TAKES_RUN,
      { "out", KEY_RUN, "DIR", 0, "the run's folder; named again, the run goes on", 0 } },
    { TAKES_RUN, { "run", 0, NULL, OPTION_ALIAS, NULL, 0 } },
    { TAKES_RUN,
      { "recipe", KEY_RECIPE, "FILE", 0,
        "settings from a JSON file: one of recipes/, or a run's config.json; options given here "
        "come before it",
        0 } },
    { TAKES_RUN,
      { "profile", KEY_PROFILE, NULL, 0,
        "after every phase, also one that is stopped: where the time of its steps went, layer by "
        "layer, against bare convolutions",
        0 } },
    { TAKES_FROM,
      { "from", KEY_FROM, "PATH", 0, "run folder, or a checkpoint of metamix, to start from", 0 } },
    { TAKES_BITS,
      { "bits", KEY_BITS, "FILE|WxAy", 0, "bit assignment: a bits.json, or W4A3 for a uniform one",
        0 } },
    { TAKES_SHAPE,
      { "weight-bits", KEY_WEIGHT_BITS, "N", 0,
        "bit-width of searched layers' weights, 2..8; 32: float (default: the run's, else 4)",
        0 } },
    { TAKES_SHAPE,
      { "act-bits", KEY_ACT_BITS, "N", 0,
        "bit-width of their input activations, 2..8; 32: float (default: the run's, else 4)", 0 } },
    { TAKES_SHAPE, { "bits", KEY_BITS, "WxAy", 0, "both, such as W4A3", 0 } },
    { TAKES_SHAPE,
      { "classes", KEY_CLASSES, "N", 0, "classes (default: an ONNX file's, else 1000)", 0 } },
    { TAKES_SHAPE,
      { "size", KEY_SIZE, "N", 0,
        "image height = width, pixels (default: an ONNX file's, else 224)", 0 } },
    { TAKES_SHAPE, { "channels", KEY_CHANNELS, "N", 0, "image channels (default: 3)", 0 } },
    { TAKES_PACK, { "data", KEY_DATA, "DIR", 0, "folder of train/ and val/ to pack", 0 } },
    { TAKES_PACK, { "out", KEY_OUT, "DIR", 0, "folder for train.pack and val.pack", 0 } },
    { TAKES_PACK,
      { "size", KEY_PACK_SIZE, "N", 0,
        "shorter side, pixels; smaller images, and all with 0, are kept as files (default: 256)",
        0 } },
    { TAKES_PACK,
      { "quality", KEY_QUALITY, "N", 0, "JPEG quality of resized images, 1..100 (default: 95)",
        0 } },
    { TAKES_PACK,
      { "skip-bad-images", KEY_SKIP_BAD, NULL, 0, "leave out files that cannot be decoded", 0 } },
    { TAKES_EXPORT,
      { "format", KEY_FORMAT, "NAME", 0,
        "what to write: mix, onnx, qonnx, c (default: as --out ends, .onnx or .c, else mix)", 0 } },
    { TAKES_EXPORT,
      { "onnx-types", KEY_ONNX_TYPES, "NAME", 0,
        "format onnx: native (weights of up to 4 bits in 4-bit types: small), int8 (8-bit types: "
        "fast) (default: native)",
        0 } },
    { TAKES_EXPORT, { "out", KEY_OUT, "FILE", 0, "the file to write", 0 } },
    { TAKES_REPORT, { "out", KEY_OUT, "FILE", 0, "the page to write (default: report.html)", 0 } },
    { TAKES_WITH,
      { "with", KEY_WITH, "LIST", 0,
        "what MetaMix is compared with, such as uniform,joint,greedy,random: the uniform network, "
        "or other ways to find bits (those of quantize --search) (default: uniform)",
        0 } },
    { TAKES_AGAINST,
      { "against", KEY_AGAINST, "PATH", 0, "run, checkpoint or .safetensors file to compare with",
        0 } },
    { TAKES_AGAINST,
      { "images", KEY_IMAGES, "N", 0, "how many images at most (default: 100)", 0 } },
    { TAKES_FLOAT, { "float", KEY_FLOAT, NULL, 0, "leave all quantizers off", 0 } },
    { TAKES_FLOAT,
      { "integer", KEY_INTEGER, NULL, 0, "with the integer runtime, as a .mix file always is",
        0 } },
    { TAKES_RESIZE,
      { "resize", KEY_RESIZE, "N", 0,
        "the shorter side before the center is cropped, pixels; 0: as in evaluation (default: 0)",
        0 } },
    { TAKES_BENCH,
      { "seconds", KEY_SECONDS, "X", 0, "how long each row is measured (default: 1)", 0 } },
    { TAKES_BENCH,
      { "runs", KEY_RUNS, "N", 0, "how often instead of how long each row is measured", 0 } },
    { TAKES_BENCH, { "layers", KEY_LAYERS, NULL, 0, "also the time of every operator", 0 } },
    { TAKES_CPU, { "threads", KEY_THREADS, "N", 0, "1..256; 0: one per core (default: 0)", 0 } },
    { TAKES_CPU,
      { "cpu-mask", KEY_CPU_MASK, "NAME", 0,
        "widest instructions: c, avx2, avx512, all (default: all)", 0 } },
    { TAKES_LAYERS, { "layers", KEY_LAYERS, NULL, 0, "also the bits layer by layer", 0 } },
    { 0, { "json", KEY_JSON, NULL, 0, "print one JSON object instead of text", 0 } },
    { 0, { "quiet", KEY_QUIET, NULL, 0, "no progress, warnings and errors only", 0 } },
};

enum { N_TOOL = sizeof tool_options / sizeof tool_options[0] };

static const char *const group_titles[N_GROUPS] = {
    "Network:",       "Images:",          "Float training:", "Bits:",
    "Bit selection:", "Weight training:", "Any training:"
};

struct input {
    struct options *options;
    const struct command *command;
    mix_ctx *ctx; /* for the sentences of mix_settings_set() */
    const char *recipe;
    bool given[N_SETTINGS];  /* on the command line */
    const char *net_setting; /* a given option that only describes a new network */
    bool format;             /* --format is given */
    size_t n, used;
    struct argp_option option[2 * N_SETTINGS + N_TOOL + N_GROUPS + 1]; /* titles, the end */
    char text[N_SETTINGS * 512];
};

static const char *keep(struct input *in, const char *format, ...) MIX_PRINTF(2, 3);
static const char *keep(struct input *in, const char *format, ...)
{
    char *at = in->text + in->used;
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(at, sizeof in->text - in->used, format, args);
    va_end(args);
    assert(n >= 0 && in->used + n < sizeof in->text);
    in->used += n + 1;
    return at;
}

static void add(struct input *in, struct argp_option option)
{
    assert(in->n + 1 < sizeof in->option / sizeof in->option[0]); /* the last stays zero */
    in->option[in->n++] = option;
}

static const char *option_name(struct input *in, const char *prefix, const char *field)
{
    char *name = (char *)keep(in, "%s%s", prefix, field);
    for (char *c = name; *c; c++)
        *c = *c == '_' ? '-' : *c;
    return name;
}

static void add_setting(struct input *in, const mix_setting *s, int index)
{
    static const char *const values[] = {
        [MIX_INT] = "N", [MIX_REAL] = "X", [MIX_FLAG] = NULL, [MIX_TEXT] = "TEXT"
    };
    const int key = KEY_SETTING + 2 * index;
    add(in, (struct argp_option){
                .name = option_name(in, "", s->name),
                .key = key,
                .arg = values[s->type],
                .doc = *s->value ? keep(in, "%s (default: %s)", s->help, s->value) : s->help,
            });
    if (s->type == MIX_FLAG)
        add(in, (struct argp_option){ .name = option_name(in, "no-", s->name),
                                      .key = key + 1,
                                      .flags = OPTION_ALIAS });
}

/* A setting of several groups is shown in the first of them that the command takes. */
static void add_group(struct input *in, int group)
{
    size_t count;
    bool titled = false;
    const mix_setting *list = mix_settings_list(&count);
    for (size_t i = 0; i < count; i++) {
        const unsigned taken = list[i].groups & in->command->groups;
        if ((taken & -taken) != 1u << group)
            continue;
        if (!titled)
            add(in, (struct argp_option){ .doc = group_titles[group], .group = group + 1 });
        titled = true;
        add_setting(in, &list[i], (int)i);
    }
}

static void add_all(struct input *in)
{
    for (size_t i = 0; i < N_TOOL; i++) {
        if (!tool_options[i].takes || (tool_options[i].takes & in->command->takes))
            add(in, tool_options[i].option);
    }
    for (int group = 0; group < N_GROUPS; group++)
        add_group(in, group);
}

static int parse_int(struct argp_state *state, const char *name, const char *text, int min, int max)
{
    char *end;
    errno = 0;
    const long v = strtol(text, &end, 10);
    if (end == text || *end || errno || v < min || v > max)
        argp_error(state, "--%s: expected a whole number from %d to %d, got '%.80s'", name, min,
                   max, text);
    return (int)v;
}

static int parse_bits(struct argp_state *state, const char *name, const char *text)
{
    const int bits = parse_int(state, name, text, INT_MIN, INT_MAX);
    if (bits != MIX_BITS_FLOAT && (bits < MIX_BITS_MIN || bits > MIX_BITS_MAX))
        argp_error(state, "--%s: expected %d..%d or %d, got %d", name, MIX_BITS_MIN, MIX_BITS_MAX,
                   MIX_BITS_FLOAT, bits);
    return bits;
}

static double parse_real(struct argp_state *state, const char *name, const char *text, double min,
                         double max)
{
    char *end;
    const double v = strtod(text, &end);
    if (end == text || *end || !(v >= min && v <= max))
        argp_error(state, "--%s: expected a number from %g to %g, got '%.80s'", name, min, max,
                   text);
    return v;
}

static unsigned parse_cpu(struct argp_state *state, const char *text)
{
    static const struct {
        const char *name;
        unsigned mask;
    } names[] = { { "c", 0 },
                  { "avx2", MIX_CPU_AVX2 },
                  { "avx512", MIX_CPU_AVX2 | MIX_CPU_AVX512 | MIX_CPU_VNNI },
                  { "all", MIX_CPU_ALL } };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(text, names[i].name) == 0)
            return names[i].mask;
    }
    argp_error(state, "--cpu-mask: expected c, avx2, avx512 or all, got '%.80s'", text);
    return 0;
}

static void parse_setting(struct argp_state *state, int index, bool negated, const char *value)
{
    struct input *in = state->input;
    size_t count;
    const mix_setting *s = &mix_settings_list(&count)[index];
    const char *text = value ? value : negated ? "off" : "on";
    if (mix_settings_set(&in->options->settings, in->ctx, s->name, text) != MIX_OK)
        argp_error(state, "%s", mix_ctx_error(in->ctx));
    in->given[index] = true;
    if (s->groups == MIX_GROUP_NET)
        in->net_setting = s->name;
}

/* What the command line does not say is the recipe's. */
static void take_recipe(struct argp_state *state)
{
    struct input *in = state->input;
    char text[MIX_TEXT_MAX];
    size_t count;
    const mix_setting *list = mix_settings_list(&count);
    mix_settings settings;
    mix_settings_init(&settings);
    mix_status status = mix_settings_load(&settings, in->ctx, in->recipe);
    for (size_t i = 0; i < count && status == MIX_OK; i++) {
        if (!in->given[i])
            continue;
        mix_settings_get(&in->options->settings, &list[i], text, sizeof text);
        status = mix_settings_set(&settings, in->ctx, list[i].name, text);
    }
    if (status != MIX_OK)
        argp_failure(state, status, 0, "%s", mix_ctx_error(in->ctx));
    in->options->settings = settings;
}

static bool names_weights(const char *arch)
{
    const char *ending = strrchr(arch, '.');
    return ending && (strcmp(ending, ".pth") == 0 || strcmp(ending, ".pt") == 0 ||
                      strcmp(ending, ".safetensors") == 0);
}

/* A run brings its network; without one, weights need a network to go into. */
static void check_start(struct argp_state *state)
{
    const struct input *in = state->input;
    const struct options *o = in->options;
    if (o->from && in->net_setting)
        argp_error(state, "--%s does not go with --from, which brings its own network",
                   in->net_setting);
    if (o->from && (o->classes || o->size || o->channels))
        argp_error(state, "--%s does not go with --from, which brings its own network",
                   o->classes ? "classes"
                   : o->size  ? "size"
                              : "channels");
    if (names_weights(o->settings.arch))
        argp_error(state,
                   "--arch is '%.80s'; expected the name of a network or a FILE.onnx (a "
                   "checkpoint goes to --weights)",
                   o->settings.arch);
    if ((in->command->needs & TAKES_FROM) && !o->from && !o->settings.weights[0] &&
        !mix_onnx_is_path(o->settings.arch))
        argp_error(state, "--from is missing: the run folder or .safetensors file to start from; "
                          "or --weights or --arch, a file of another tool");
}

static void format_of_name(const char *out, mix_export_format *format)
{
    const char *ending = strrchr(out, '.');
    if (ending && (strcmp(ending, ".onnx") == 0 || strcmp(ending, ".c") == 0))
        (void)mix_export_format_parse(ending + 1, format);
}

static void check_needs(struct argp_state *state)
{
    const struct input *in = state->input;
    const struct options *o = in->options;
    const unsigned needs = in->command->needs;
    check_start(state);
    if (o->bits && (o->weight_bits || o->act_bits))
        argp_error(state, "--%s does not go with --bits, which has both",
                   o->weight_bits ? "weight-bits" : "act-bits");
    if ((needs & TAKES_DATA) && !o->settings.data[0])
        argp_error(state, "--data is missing: the folder of the data set");
    if ((needs & TAKES_RUN) && !o->run)
        argp_error(state, "--out is missing: the folder for this run");
    if ((needs & TAKES_AGAINST) && !o->against)
        argp_error(state, "--against is missing: the run or file to compare with");
    if ((needs & TAKES_EXPORT) && !o->out)
        argp_error(state, "--out is missing: the file to write");
    if ((needs & TAKES_PACK) && !o->out)
        argp_error(state, "--out is missing: the folder for the packed data set");
    if (in->command->args && o->n_args == 0 && in->command->args[0] != '[')
        argp_error(state, "%s is missing", in->command->args);
    if (in->command->args && o->n_args > 1 && !strstr(in->command->args, "..."))
        argp_error(state, "unexpected argument '%.80s'", o->args[1]);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct input *in = state->input;
    struct options *o = in->options;
    switch (key) {
    case KEY_RUN:
        o->run = arg;
        break;
    case KEY_RECIPE:
        in->recipe = arg;
        break;
    case KEY_FROM:
        o->from = arg;
        break;
    case KEY_BITS:
        o->bits = arg;
        break;
    case KEY_WEIGHT_BITS:
        o->weight_bits = parse_bits(state, "weight-bits", arg);
        break;
    case KEY_ACT_BITS:
        o->act_bits = parse_bits(state, "act-bits", arg);
        break;
    case KEY_CLASSES:
        o->classes = parse_int(state, "classes", arg, 1, INT_MAX);
        break;
    case KEY_SIZE:
        o->size = parse_int(state, "size", arg, 1, INT_MAX);
        break;
    case KEY_CHANNELS:
        o->channels = parse_int(state, "channels", arg, 1, INT_MAX);
        break;
    case KEY_FLOAT:
        o->as_float = true;
        break;
    case KEY_INTEGER:
        o->integer = true;
        break;
    case KEY_RESIZE:
        o->settings.resize = parse_int(state, "resize", arg, 0, MIX_SIZE_MAX);
        break;
    case KEY_SECONDS:
        o->seconds = parse_real(state, "seconds", arg, 0, 3600);
        break;
    case KEY_RUNS:
        o->runs = parse_int(state, "runs", arg, 1, 1000000);
        break;
    case KEY_THREADS:
        o->threads = parse_int(state, "threads", arg, 0, 256);
        break;
    case KEY_CPU_MASK:
        o->cpu_mask = parse_cpu(state, arg);
        break;
    case KEY_DATA:
        if (mix_settings_set(&o->settings, in->ctx, "data", arg) != MIX_OK)
            argp_error(state, "%s", mix_ctx_error(in->ctx));
        break;
    case KEY_OUT:
        o->out = arg;
        break;
    case KEY_FORMAT:
        in->format = true;
        if (!mix_export_format_parse(arg, &o->export.format))
            argp_error(state, "--format: expected mix, onnx, qonnx or c, got '%.80s'", arg);
        break;
    case KEY_ONNX_TYPES:
        if (!mix_onnx_types_parse(arg, &o->export.onnx_types))
            argp_error(state, "--onnx-types: expected native or int8, got '%.80s'", arg);
        break;
    case KEY_AGAINST:
        o->against = arg;
        break;
    case KEY_WITH:
        o->with = arg;
        break;
    case KEY_IMAGES:
        o->images = parse_int(state, "images", arg, 1, INT_MAX);
        break;
    case KEY_PACK_SIZE:
        o->pack_size = parse_int(state, "size", arg, 0, MIX_SIZE_MAX);
        break;
    case KEY_QUALITY:
        o->quality = parse_int(state, "quality", arg, 1, 100);
        break;
    case KEY_SKIP_BAD:
        o->settings.skip_bad_images = true;
        break;
    case KEY_LAYERS:
        o->layers = true;
        break;
    case KEY_PROFILE:
        o->profile = true;
        break;
    case KEY_JSON:
        o->json = true;
        break;
    case KEY_QUIET:
        o->quiet = true;
        break;
    case ARGP_KEY_ARGS:
        if (!in->command->args)
            argp_error(state, "unexpected argument '%.80s'", state->argv[state->next]);
        o->args = state->argv + state->next;
        o->n_args = state->argc - state->next;
        break;
    case ARGP_KEY_END:
        if (in->recipe)
            take_recipe(state);
        if (o->out && !in->format)
            format_of_name(o->out, &o->export.format);
        check_needs(state);
        break;
    default:
        if (key < KEY_SETTING || key >= KEY_SETTING + 2 * N_SETTINGS)
            return ARGP_ERR_UNKNOWN;
        parse_setting(state, (key - KEY_SETTING) / 2, key & 1, arg);
    }
    return 0;
}

void options_parse(struct options *options, const struct command *command, int argc, char **argv)
{
    struct input in = { .options = options, .command = command };
    char doc[1024];
    snprintf(doc, sizeof doc, "%s\v%s\n", command->summary, command->more ? command->more : "");
    *options = (struct options){ .cpu_mask = MIX_CPU_ALL,
                                 .argc = argc,
                                 .argv = argv,
                                 .pack_size = 256,
                                 .quality = 95,
                                 .images = 100,
                                 .with = "uniform",
                                 .seconds = 1 };
    mix_settings_init(&options->settings);
    argp_err_exit_status = MIX_EINVAL;
    const mix_status status = mix_ctx_new(&in.ctx, NULL);
    if (status != MIX_OK) {
        fprintf(stderr, "metamix: %s\n", mix_status_text(status));
        exit(status);
    }
    add_all(&in);
    const struct argp argp = { in.option, parse, command->args, doc, NULL, NULL, NULL };
    const error_t error = argp_parse(&argp, argc, argv, 0, NULL, &in);
    mix_ctx_free(in.ctx);
    if (error) {
        fprintf(stderr, "metamix: %s\n", strerror(error));
        exit(MIX_ENOMEM);
    }
}
