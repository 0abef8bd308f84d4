#include "targets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/ctx.h"
#include "data/image.h"
#include "data/pack.h"
#include "format/bits_json.h"
#include "format/mix_layout.h"
#include "metamix/metamix.h"
#include "train/checkpoint.h"

/* A block larger than this would be a size that a file has made up: limits of the formats allow
 * 512 MiB. One above MOST is refused, as by a small machine. */
#define MADE_UP ((size_t)2 << 30)
#define MOST    ((size_t)128 << 20)

static mix_ctx *ctx;
static char folder[] = "fuzz-XXXXXX";

static void *limited_alloc(void *user, size_t bytes)
{
    void *block;
    (void)user;
    if (bytes > MADE_UP)
        abort();
    return bytes <= MOST && posix_memalign(&block, MIX_ALIGN, bytes ? bytes : 1) == 0 ? block
                                                                                      : NULL;
}

static void limited_free(void *user, void *block)
{
    (void)user;
    free(block);
}

void targets_begin(void)
{
    mix_ctx_options options;
    mix_ctx_options_init(&options);
    options.allocator = (mix_allocator){ limited_alloc, limited_free, NULL };
    options.threads = 1;
    if (mix_ctx_new(&ctx, &options) != MIX_OK || !mkdtemp(folder) || chdir(folder) != 0)
        abort();
}

void targets_end(void)
{
    static const char *const names[] = { "file.onnx",
                                         "file.safetensors",
                                         "file",
                                         "config.json",
                                         "log.jsonl",
                                         "bits.json",
                                         "result.json",
                                         "report.html",
                                         "train.pack",
                                         "val.pack",
                                         "train-images-idx3-ubyte",
                                         "train-labels-idx1-ubyte",
                                         "t10k-images-idx3-ubyte",
                                         "t10k-labels-idx1-ubyte" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unlink(names[i]);
    mix_ctx_free(ctx);
    if (chdir("..") != 0 || rmdir(folder) != 0)
        abort();
}

static void write_file(const char *path, const void *bytes, size_t size)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, size, f) != size || fclose(f) != 0)
        abort();
}

/* ---- networks ------------------------------------------------------------------------------- */

static mix_graph *small_graph(void)
{
    mix_zoo_options options;
    mix_graph *graph;
    mix_zoo_options_init(&options);
    options.arch = "mobilenet_v3_small";
    options.width = 0.1;
    options.size = 32;
    options.classes = 4;
    if (mix_zoo_new(&graph, ctx, &options) != MIX_OK)
        abort();
    return graph;
}

/* The checksum is made right: what lies behind it is to be seen. */
static void read_mix(const uint8_t *bytes, size_t size)
{
    mix_runtime *rt;
    mix_runtime_info info;
    void *copy = mix__alloc(ctx, size + 1, 1);
    if (!copy)
        return;
    memcpy(copy, bytes, size);
    if (size >= sizeof(struct mix__mix_header)) {
        const uint64_t sum = mix__mix_checksum(copy, size);
        memcpy((char *)copy + offsetof(struct mix__mix_header, checksum), &sum, sizeof sum);
    }
    if (mix_runtime_open_bytes(&rt, ctx, copy, size) == MIX_OK) {
        mix_runtime_info_get(rt, &info);
        const size_t pixels = (size_t)info.height * info.width * info.channels;
        if (pixels <= 1 << 14 && info.arena_bytes <= 1 << 20) {
            float *image = calloc(pixels, sizeof *image);
            float *logits = calloc((size_t)info.classes, sizeof *logits);
            if (!image || !logits)
                abort();
            mix_runtime_run(rt, image, 1, logits);
            free(image);
            free(logits);
        }
        mix_runtime_close(rt);
    }
    mix__free(ctx, copy);
}

static void read_onnx(const uint8_t *bytes, size_t size)
{
    mix_graph *graph;
    write_file("file.onnx", bytes, size);
    if (mix_graph_from_onnx(&graph, ctx, "file.onnx", NULL) == MIX_OK)
        mix_graph_free(graph);
}

/* .safetensors and .pth, ZIP and legacy: told apart by their first bytes. */
static void read_weights(const uint8_t *bytes, size_t size)
{
    mix_weights_info info;
    mix_graph *graph = small_graph();
    write_file("file", bytes, size);
    if (mix_weights_load(graph, "file", &info) != MIX_OK && !mix_ctx_error(ctx)[0])
        abort();
    mix_graph_free(graph);
}

/* What a run goes on from: state, position, optimizers. */
static void go_on(const struct mix__checkpoint *c, struct mix__state *s)
{
    static const struct mix__optimizer_options sgd = { .kind = MIX__SGD };
    struct mix__optimizer weights, alpha;
    struct mix__average average;
    struct mix__point point;
    if (mix__optimizer_init(&weights, ctx, s->n, &sgd) != MIX_OK)
        return;
    if (mix__optimizer_init(&alpha, ctx, s->n_alpha, &sgd) == MIX_OK) {
        if (mix__average_init(&average, s, 0.0) == MIX_OK &&
            mix__checkpoint_run(c, &point, &weights, &alpha, &average) != MIX_OK &&
            !mix_ctx_error(ctx)[0])
            abort();
        mix__average_release(&average);
        mix__optimizer_release(&alpha);
    }
    mix__optimizer_release(&weights);
}

static void read_run_state(void)
{
    struct mix__checkpoint *c;
    struct mix__state *s;
    mix_graph *graph;
    const int *candidate;
    if (mix__checkpoint_open(&c, ctx, "file.safetensors") != MIX_OK)
        return;
    const int n = mix__checkpoint_candidates(c, &candidate);
    if (mix__checkpoint_graph(c, &graph) == MIX_OK) {
        if (mix__state_new(&s, graph, candidate, n, 1) == MIX_OK) {
            if (mix__checkpoint_state(c, s) == MIX_OK)
                go_on(c, s);
            mix__state_free(s);
        }
        mix_graph_free(graph);
    }
    mix__checkpoint_close(c);
}

static void read_checkpoint(const uint8_t *bytes, size_t size)
{
    mix_graph *graph;
    mix_layer_bits *bits;
    write_file("file.safetensors", bytes, size);
    read_run_state();
    if (mix_run_graph(ctx, "file.safetensors", &graph, &bits) != MIX_OK)
        return;
    mix_bits_free(ctx, bits);
    mix_graph_free(graph);
    void *mix;
    if (mix_export_bytes(ctx, "file.safetensors", &mix, &size) == MIX_OK)
        mix_export_free(ctx, mix);
}

static void read_bits(const uint8_t *bytes, size_t size)
{
    mix_graph *graph = small_graph();
    mix_graph_info info;
    mix_graph_info_get(graph, &info);
    mix_layer_bits *bits = calloc((size_t)info.layers, sizeof *bits);
    write_file("file", bytes, size);
    if (mix__bits_json_load(graph, "file", bits) != MIX_OK && !mix_ctx_error(ctx)[0])
        abort();
    free(bits);
    mix_graph_free(graph);
}

static void read_settings(const uint8_t *bytes, size_t size)
{
    mix_settings settings;
    mix_settings_init(&settings);
    write_file("file", bytes, size);
    if (mix_settings_load(&settings, ctx, "file") != MIX_OK && !mix_ctx_error(ctx)[0])
        abort();
}

/* The bytes are bits and a result when they begin as these do, else a log. */
static void read_run(const uint8_t *bytes, size_t size)
{
    const char *run = ".";
    const bool indented = size > 1 && bytes[1] == '\n';
    write_file("config.json", "{}", 2);
    write_file("log.jsonl", bytes, indented ? 0 : size);
    write_file("bits.json", indented ? (const void *)bytes : "{}", indented ? size : 2);
    write_file("result.json", indented ? (const void *)bytes : "{}", indented ? size : 2);
    if (mix_report_write(ctx, &run, 1, "report.html") != MIX_OK && !mix_ctx_error(ctx)[0])
        abort();
}

/* ---- images --------------------------------------------------------------------------------- */

static void read_image(const uint8_t *bytes, size_t size)
{
    const struct mix__source source = { "file", bytes, size };
    struct mix__image image;
    int height, width;
    if (mix__source_size(ctx, &source, &height, &width) != MIX_OK ||
        (int64_t)height * width > 1 << 20)
        return;
    if (mix__image_decode(ctx, &source, 1, &image) == MIX_OK)
        mix__image_release(ctx, &image);
}

static void open_data(void)
{
    mix_data_options options;
    mix_data *data;
    mix_data_options_init(&options);
    if (mix_data_open(&data, ctx, ".", &options) == MIX_OK)
        mix_data_free(data);
}

/* Two images of 2 x 2 in the other half. */
static void read_idx(const uint8_t *bytes, size_t size)
{
    static const uint8_t images[] = { 0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2,
                                      0, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8 };
    static const uint8_t labels[] = { 0, 0, 8, 1, 0, 0, 0, 2, 0, 1 };
    const bool as_labels = size > 3 && bytes[3] == 1;
    unlink("train.pack");
    unlink("val.pack");
    write_file("t10k-images-idx3-ubyte", images, sizeof images);
    write_file("t10k-labels-idx1-ubyte", labels, sizeof labels);
    write_file("train-images-idx3-ubyte", as_labels ? images : bytes,
               as_labels ? sizeof images : size);
    write_file("train-labels-idx1-ubyte", as_labels ? bytes : labels,
               as_labels ? size : sizeof labels);
    open_data();
}

/* The footer's CRC-32 is made right. */
static void read_pack(const uint8_t *bytes, size_t size)
{
    uint8_t *copy = malloc(size + 1);
    if (!copy)
        abort();
    memcpy(copy, bytes, size);
    if (size >= MIX__PACK_FOOTER) {
        uint64_t index;
        uint8_t *footer = copy + size - MIX__PACK_FOOTER;
        memcpy(&index, footer, sizeof index);
        if (index <= size - MIX__PACK_FOOTER) {
            const uint32_t crc =
                (uint32_t)crc32(0, copy + index, (uInt)(size - index - MIX__PACK_FOOTER + 20));
            memcpy(footer + 20, &crc, sizeof crc);
        }
    }
    unlink("train-images-idx3-ubyte");
    write_file("train.pack", copy, size);
    write_file("val.pack", copy, size);
    free(copy);
    open_data();
}

const struct target targets[] = {
    { "mix", read_mix },         { "onnx", read_onnx },
    { "weights", read_weights }, { "checkpoint", read_checkpoint },
    { "bits", read_bits },       { "settings", read_settings },
    { "image", read_image },     { "idx", read_idx },
    { "pack", read_pack },       { "run", read_run },
};
const int n_targets = sizeof targets / sizeof targets[0];
