/* cmd_info.c - layers, MACs, bits, GBOPs and sizes. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "command_job.h"
#include "table.h"

static const char policy[] =
    "The first and the last layer are counted at 8/8; squeeze-and-excite layers are counted; "
    "residual adds, pooling and batch norm are not; the image's bits are the activation bits of "
    "the first layer.";

struct network {
    mix_graph *graph;
    mix_layer_bits *of_run; /* of a quantized one */
    mix_layer_bits *bits;   /* what is shown      */
    mix_graph_info info;
    const char *file; /* of weights that fit, NULL without */
    mix_weights_info weights;
    uint64_t weight_bytes; /* of convolution and linear weights, packed layer by layer */
    int searched;
    double gbops, float_gbops;
};

static mix_status build(mix_graph **graph, struct job *job)
{
    const struct options *o = job->options;
    if (mix_onnx_is_path(o->settings.arch)) {
        const mix_onnx_options file = { o->size, o->classes, (uint64_t)o->settings.seed };
        return mix_graph_from_onnx(graph, job->ctx, o->settings.arch, &file);
    }
    mix_zoo_options z;
    mix_zoo_options_init(&z);
    z.arch = o->settings.arch;
    z.width = o->settings.width;
    z.classes = o->classes ? o->classes : z.classes;
    z.size = o->size ? o->size : z.size;
    z.channels = o->channels ? o->channels : z.channels;
    mix_stem_parse(o->settings.stem, &z.stem); /* checked by check() */
    return mix_zoo_new(graph, job->ctx, &z);
}

static void count(struct network *n)
{
    mix_graph_info_get(n->graph, &n->info);
    for (int i = 0; i < n->info.layers; i++) {
        mix_layer_info layer;
        mix_graph_layer_get(n->graph, i, &layer);
        n->searched += layer.searched;
        n->weight_bytes += (layer.weights * (uint64_t)n->bits[i].weight + 7) / 8;
    }
    n->gbops = 1e-9 * (double)mix_bits_bops(n->graph, n->bits);
    n->float_gbops = 1e-9 * MIX_BITS_FLOAT * MIX_BITS_FLOAT * (double)n->info.macs;
}

static double rounded(double x, int decimals)
{
    const double unit = pow(10, decimals);
    return round(x * unit) / unit;
}

/* As cell_gbops() prints it. */
static double rounded_gbops(double x)
{
    return rounded(x, x < 1 ? 6 : 3);
}

static const char *range_name(mix_range range)
{
    static const char *const names[] = { [MIX_RANGE_SIGNED] = "signed",
                                         [MIX_RANGE_UNSIGNED] = "unsigned",
                                         [MIX_RANGE_SHIFTED] = "shifted" };
    return names[range];
}

static uint64_t layer_bops(const struct network *n, int index, const mix_layer_info *l)
{
    return l->macs * (uint64_t)(n->bits[index].weight * n->bits[index].activation);
}

static json_t *layer_json(const struct network *n, int index)
{
    mix_layer_info l;
    mix_graph_layer_get(n->graph, index, &l);
    return json_pack(
        "{s:s, s:s, s:[i,i,i], s:[i,i,i], s:i, s:i, s:i, s:I, s:I, s:i, s:i, s:I, s:s, s:b}",
        "name", l.name, "kind", l.kind, "input", l.in_channels, l.in_size, l.in_size, "output",
        l.out_channels, l.out_size, l.out_size, "kernel", l.kernel, "stride", l.stride, "groups",
        l.groups, "macs", (json_int_t)l.macs, "weights", (json_int_t)l.weights, "weight_bits",
        n->bits[index].weight, "activation_bits", n->bits[index].activation, "bops",
        (json_int_t)layer_bops(n, index, &l), "range", range_name(l.range), "searched", l.searched);
}

static json_t *weights_json(const struct network *n)
{
    if (!n->file)
        return json_null();
    return json_pack("{s:o, s:i, s:i, s:b}", "file", job_text(n->file), "taken", n->weights.taken,
                     "unused", n->weights.unused, "new_classifier", n->weights.new_classifier);
}

static json_t *network_json(const struct network *n, double width)
{
    const mix_graph_info *i = &n->info;
    json_t *layers = json_array();
    for (int l = 0; l < i->layers; l++) {
        if (json_array_append_new(layers, layer_json(n, l)) != 0) {
            json_decref(layers);
            return NULL;
        }
    }
    return json_pack("{s:s, s:o, s:i, s:i, s:i, s:s, s:i, s:i, s:I, s:I, s:f, s:f, s:f, s:I, s:s, "
                     "s:o, s:o}",
                     "network", i->name, "width", job_real(width), "size", i->size, "classes",
                     i->classes, "channels", i->channels, "stem",
                     i->small_stem ? "small" : "standard", "layers", i->layers, "searched_layers",
                     n->searched, "macs", (json_int_t)i->macs, "parameters",
                     (json_int_t)i->parameters, "gbops", rounded_gbops(n->gbops), "float_gbops",
                     rounded_gbops(n->float_gbops), "mean_activation_bits",
                     rounded(mix_bits_mean_activation(n->graph, n->bits), 3), "weight_bytes",
                     (json_int_t)n->weight_bytes, "policy", policy, "weights", weights_json(n),
                     "per_layer", layers);
}

static void print_layers(const struct network *n)
{
    struct table t;
    table_begin(&t, "llrrrrrrrrrl");
    table_row(&t, "layer\tkind\tin\tout\tkernel\tstride\tsize\tMACs\tW\tA\tMBOPs\trange");
    for (int i = 0; i < n->info.layers; i++) {
        mix_layer_info l;
        mix_graph_layer_get(n->graph, i, &l);
        table_row(&t, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%" PRIu64 "\t%d\t%d\t%.3f\t%s%s", l.name, l.kind,
                  l.in_channels, l.out_channels, l.kernel, l.stride, l.out_size, l.macs,
                  n->bits[i].weight, n->bits[i].activation, 1e-6 * (double)layer_bops(n, i, &l),
                  range_name(l.range), l.searched ? "" : ", fixed");
    }
    table_end(&t, stdout);
}

static void print_totals(const struct network *n)
{
    const mix_graph_info *i = &n->info;
    struct table t;
    printf("\n%s, %d x %d x %d image, %d classes, %s stem (first convolution with stride %d)\n",
           i->name, i->size, i->size, i->channels, i->classes, i->small_stem ? "small" : "standard",
           i->small_stem ? 1 : 2);
    table_begin(&t, "lr");
    table_row(&t, "layers\t%d", i->layers);
    table_row(&t, "searched layers\t%d", n->searched);
    table_row(&t, "MACs\t%" PRIu64, i->macs);
    table_row(&t, "parameters\t%" PRIu64, i->parameters);
    table_row(&t, "GBOPs\t%s", cell_gbops(n->gbops).text);
    table_row(&t, "GBOPs in float (32 x 32)\t%s", cell_gbops(n->float_gbops).text);
    table_row(&t, "mean activation bits\t%.3f", mix_bits_mean_activation(n->graph, n->bits));
    table_row(&t, "bytes of weights\t%" PRIu64, n->weight_bytes);
    table_end(&t, stdout);
    printf("%s\n", policy);
    if (n->file)
        printf("%s fits: %d tensors taken%s, %d unused\n", n->file, n->weights.taken,
               n->weights.new_classifier ? ", the classifier left random" : "", n->weights.unused);
    if (n->weights.new_classifier && n->weights.classes)
        printf("its classifier is of %d classes: --classes %d\n", n->weights.classes,
               n->weights.classes);
}

static int show(struct job *job, struct network *n)
{
    const struct options *o = job->options;
    count(n);
    if (o->json)
        return job_print_json(o, network_json(n, o->from ? NAN : o->settings.width));
    print_layers(n);
    print_totals(n);
    return 0;
}

/* The graph of the run or of the zoo; the bits of the run unless the options name others. */
static mix_status load(struct job *job, struct network *n)
{
    const struct options *o = job->options;
    if (o->from)
        return mix_run_graph(job->ctx, o->from, &n->graph, &n->of_run);
    const mix_status status = build(&n->graph, job);
    if (status != MIX_OK || !o->settings.weights[0])
        return status;
    n->file = o->settings.weights;
    return mix_weights_load(n->graph, n->file, &n->weights);
}

/* What the options name, else the run's; of a float run 32, of no run 4. */
static mix_status choose_bits(struct network *n, const struct options *o, int weight,
                              int activation)
{
    mix_graph_info_get(n->graph, &n->info);
    n->bits = calloc((size_t)n->info.layers, sizeof *n->bits);
    if (!n->bits)
        return MIX_ENOMEM;
    mix_bits_uniform(n->graph, weight ? weight : 4, activation ? activation : 4, n->bits);
    for (int l = 0; l < n->info.layers && o->from; l++) {
        const mix_layer_bits own =
            n->of_run ? n->of_run[l] : (mix_layer_bits){ MIX_BITS_FLOAT, MIX_BITS_FLOAT };
        n->bits[l].weight = weight ? n->bits[l].weight : own.weight;
        n->bits[l].activation = activation ? n->bits[l].activation : own.activation;
    }
    return MIX_OK;
}

static int check(const struct options *o, int *weight, int *activation)
{
    mix_stem stem;
    *weight = o->weight_bits;
    *activation = o->act_bits;
    if (o->bits && !mix_bits_parse(o->bits, weight, activation))
        return job_fail(o, MIX_EINVAL,
                        "--bits: expected W4A3 or the like, each 2..8 or 32, got '%.80s' (a run's "
                        "bits are shown by --from RUN)",
                        o->bits);
    if (!mix_stem_parse(o->settings.stem, &stem))
        return job_fail(o, MIX_EINVAL, "--stem: expected standard, small or auto, got '%.80s'",
                        o->settings.stem);
    if (mix_onnx_is_path(o->settings.arch) && (o->channels || o->settings.width != 1.0 ||
                                               stem != MIX_STEM_AUTO || o->settings.weights[0]))
        return job_fail(o, MIX_EINVAL,
                        "--channels, --width, --stem and --weights are for named networks; %.200s "
                        "brings its own",
                        o->settings.arch);
    return 0;
}

static int run(const struct options *options)
{
    struct job job;
    struct network n = { 0 };
    int weight, activation, code = check(options, &weight, &activation);
    if (code)
        return code;
    mix_status status = job_open(&job, options);
    if (status != MIX_OK)
        return status;
    if ((status = load(&job, &n)) == MIX_OK &&
        (status = choose_bits(&n, options, weight, activation)) == MIX_OK)
        code = show(&job, &n);
    free(n.bits);
    mix_bits_free(job.ctx, n.of_run);
    mix_graph_free(n.graph);
    status = job_close(&job, status);
    return status ? (int)status : code;
}

const struct command command_info = {
    .name = "info",
    .summary = "Layers, MACs, bits, GBOPs and sizes of a network.",
    .groups = MIX_GROUP_NET,
    .takes = TAKES_FROM | TAKES_SHAPE,
    .run = run,
    .more = "With --from the network and the bits of a run or checkpoint are shown, with --weights "
            "whether the file fits the network that --arch and the like describe. Example: "
            "metamix info --weight-bits 4 --act-bits 3 --json",
};
