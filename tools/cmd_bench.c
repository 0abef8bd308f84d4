/* cmd_bench.c - latency and throughput of the integer runtime, and where the time goes. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "commands.h"
#include "model.h"
#include "table.h"

static const int batches[] = { 1, 8, 32 };
enum {
    N_BATCHES = sizeof batches / sizeof batches[0],
    WARM_UP = 2,      /* runs before the clock counts                    */
    RUNS_MIN = 3,     /* of a row, however long they take                */
    LAYER_RUNS = 200, /* at most, and no more than batch 1 has been run */
};

/* Seconds of one thing, run after run. */
struct times {
    double *seconds;
    size_t n, room;
};

struct step {
    const char *name, *kind; /* the runtime's */
    int in_bits, weight_bits;
    uint64_t macs;
    struct times times;
};

struct bench {
    struct job job;
    struct model model;
    float *images, *logits; /* of the largest batch */
    struct times rows[N_BATCHES];
    struct step *operators;
    size_t n_operators, room;
    size_t at; /* the next operator of this run */
    double last;
    bool no_memory;
};

static bool add_time(struct times *t, double seconds)
{
    if (t->n == t->room) {
        const size_t room = t->room ? 2 * t->room : 64;
        double *more = realloc(t->seconds, room * sizeof *more);
        if (!more)
            return false;
        t->seconds = more;
        t->room = room;
    }
    t->seconds[t->n++] = seconds;
    return true;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of sorted times, by the nearest rank; 0 < share <= 1. */
static double quantile(const struct times *t, double share)
{
    return t->n ? t->seconds[(size_t)ceil(share * (double)t->n) - 1] : NAN;
}

static void sort(struct times *t)
{
    if (t->n)
        qsort(t->seconds, t->n, sizeof *t->seconds, ascending);
}

/* ---- measuring ---- */

static bool is_done(const struct options *o, const struct times *t, double began)
{
    if (o->runs)
        return t->n >= (size_t)o->runs;
    return t->n >= RUNS_MIN && clock_seconds() - began >= o->seconds;
}

static void measure_row(struct bench *b, int row)
{
    struct times *t = &b->rows[row];
    for (int i = 0; i < WARM_UP; i++)
        mix_runtime_run(b->model.rt, b->images, batches[row], b->logits);
    const double began = clock_seconds();
    while (!b->no_memory && !is_done(b->job.options, t, began)) {
        const double start = clock_seconds();
        mix_runtime_run(b->model.rt, b->images, batches[row], b->logits);
        b->no_memory = !add_time(t, clock_seconds() - start);
    }
    sort(t);
}

static struct step *next_operator(struct bench *b, const mix_runtime_value *value)
{
    if (b->at == b->room) {
        const size_t room = b->room ? 2 * b->room : 64;
        struct step *more = realloc(b->operators, room * sizeof *more);
        if (!more)
            return NULL;
        b->operators = more;
        b->room = room;
    }
    struct step *op = &b->operators[b->at++];
    if (b->at > b->n_operators) {
        b->n_operators = b->at;
        *op = (struct step){ .name = value->name,
                             .kind = value->kind,
                             .in_bits = value->in_bits,
                             .weight_bits = value->weight_bits,
                             .macs = value->macs };
    }
    return op;
}

static void on_value(void *user, const mix_runtime_value *value)
{
    struct bench *b = user;
    const double seconds = clock_seconds() - b->last;
    struct step *op = b->no_memory ? NULL : next_operator(b, value);
    b->no_memory = !op || !add_time(&op->times, seconds);
    b->last = clock_seconds();
}

static void measure_operators(struct bench *b)
{
    const size_t runs = b->rows[0].n < LAYER_RUNS ? b->rows[0].n : LAYER_RUNS;
    mix_runtime_watch(b->model.rt, on_value, b);
    for (size_t i = 0; i < runs && !b->no_memory; i++) {
        b->at = 0;
        b->last = clock_seconds();
        mix_runtime_run(b->model.rt, b->images, 1, b->logits);
    }
    mix_runtime_watch(b->model.rt, NULL, NULL);
    for (size_t i = 0; i < b->n_operators; i++)
        sort(&b->operators[i].times);
}

static double all_operators(const struct bench *b)
{
    double sum = 0;
    for (size_t i = 0; i < b->n_operators; i++)
        sum += quantile(&b->operators[i].times, 0.5);
    return sum;
}

/* ---- telling ---- */

static double per_second(const struct bench *b, int row)
{
    return batches[row] / quantile(&b->rows[row], 0.5);
}

static void print_rows(const struct bench *b)
{
    struct table t;
    table_begin(&t, "rrrrr");
    table_row(&t, "batch\truns\tmedian ms\tp95 ms\timages/s");
    for (int i = 0; i < N_BATCHES; i++)
        table_row(&t, "%d\t%zu\t%s\t%s\t%s", batches[i], b->rows[i].n,
                  cell_number(1e3 * quantile(&b->rows[i], 0.5), 3).text,
                  cell_number(1e3 * quantile(&b->rows[i], 0.95), 3).text,
                  cell_number(per_second(b, i), 1).text);
    table_end(&t, stdout);
}

static void print_memory(const mix_runtime_info *i)
{
    struct table t;
    table_begin(&t, "lr");
    table_row(&t, "arena of the tensors\t%s", cell_bytes((double)i->arena_bytes).text);
    table_row(&t, "  its floor, the most alive at once\t%s",
              cell_bytes((double)i->live_bytes).text);
    table_row(&t, "weights as the kernels read them\t%s", cell_bytes((double)i->weight_bytes).text);
    table_row(&t, "scratch of all threads\t%s", cell_bytes((double)i->scratch_bytes).text);
    table_row(&t, "file\t%s", cell_bytes((double)i->file_bytes).text);
    table_end(&t, stdout);
}

static void print_operators(const struct bench *b)
{
    struct table t;
    const double all = all_operators(b);
    table_begin(&t, "llrrrrrr");
    table_row(&t, "operator\tkind\tW\tA\tMACs\tmedian us\tshare %%\tGMAC/s");
    for (size_t i = 0; i < b->n_operators; i++) {
        const struct step *op = &b->operators[i];
        const double seconds = quantile(&op->times, 0.5);
        const cell us = cell_number(1e6 * seconds, 1), share = cell_number(100 * seconds / all, 1);
        if (op->macs)
            table_row(&t, "%s\t%s\t%d\t%d\t%" PRIu64 "\t%s\t%s\t%s", op->name, op->kind,
                      op->weight_bits, op->in_bits, op->macs, us.text, share.text,
                      cell_number(1e-9 * (double)op->macs / seconds, 2).text);
        else
            table_row(&t, "%s\t%s\t\t\t\t%s\t%s", op->name, op->kind, us.text, share.text);
    }
    table_row(&t, "all\t\t\t\t\t%s", cell_number(1e6 * all, 1).text);
    table_end(&t, stdout);
}

static void print(const struct bench *b)
{
    const mix_runtime_info *i = &b->model.info;
    printf("%s: %s, %d x %d x %d image, %d classes, %d threads\n\n", b->job.options->args[0],
           i->name, i->width, i->height, i->channels, i->classes, mix_ctx_threads(b->job.ctx));
    print_rows(b);
    putchar('\n');
    print_memory(i);
    if (!b->job.options->layers)
        return;
    putchar('\n');
    print_operators(b);
}

static json_t *rows_json(const struct bench *b)
{
    json_t *rows = json_array();
    for (int i = 0; i < N_BATCHES; i++)
        json_array_append_new(rows, json_pack("{s:i, s:I, s:o, s:o, s:o}", "batch", batches[i],
                                              "runs", (json_int_t)b->rows[i].n, "median_ms",
                                              job_real(1e3 * quantile(&b->rows[i], 0.5)), "p95_ms",
                                              job_real(1e3 * quantile(&b->rows[i], 0.95)),
                                              "images_per_second", job_real(per_second(b, i))));
    return rows;
}

static json_t *operators_json(const struct bench *b)
{
    const double all = all_operators(b);
    json_t *list = json_array();
    for (size_t i = 0; i < b->n_operators; i++) {
        const struct step *op = &b->operators[i];
        const double seconds = quantile(&op->times, 0.5);
        json_array_append_new(list,
                              json_pack("{s:o, s:s, s:i, s:i, s:I, s:o, s:o, s:o}", "name",
                                        job_text(op->name), "kind", op->kind, "weight_bits",
                                        op->weight_bits, "activation_bits", op->in_bits, "macs",
                                        (json_int_t)op->macs, "median_us", job_real(1e6 * seconds),
                                        "share", job_real(seconds / all), "macs_per_second",
                                        job_real(op->macs ? (double)op->macs / seconds : NAN)));
    }
    return list;
}

static int print_json(const struct bench *b)
{
    const mix_runtime_info *i = &b->model.info;
    json_t *memory = json_pack(
        "{s:I, s:I, s:I, s:I, s:I}", "arena_bytes", (json_int_t)i->arena_bytes, "live_bytes",
        (json_int_t)i->live_bytes, "weight_bytes", (json_int_t)i->weight_bytes, "scratch_bytes",
        (json_int_t)i->scratch_bytes, "file_bytes", (json_int_t)i->file_bytes);
    json_t *operators = b->job.options->layers ? operators_json(b) : NULL;
    return job_print_json(b->job.options,
                          json_pack("{s:s, s:o, s:o, s:i, s:o, s:o, s:o*}", "job", "bench", "model",
                                    job_text(b->job.options->args[0]), "network", job_text(i->name),
                                    "threads", mix_ctx_threads(b->job.ctx), "batches", rows_json(b),
                                    "memory", memory, "operators", operators));
}

/* ---- the command ---- */

/* Numbers of an image's size, -2..2: what they are does not matter for the time. */
static int make_images(struct bench *b)
{
    const mix_runtime_info *net = &b->model.info;
    const size_t most = (size_t)batches[N_BATCHES - 1];
    const size_t n = most * (size_t)net->height * (size_t)net->width * (size_t)net->channels;
    const int code = model_room(&b->model, b->job.options, most, &b->images, &b->logits);
    if (code)
        return code;
    uint32_t x = 1;
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        b->images[i] = (float)(x >> 8) * 0x1p-22f - 2.0f;
    }
    return 0;
}

static int measure(struct bench *b)
{
    const struct options *o = b->job.options;
    int code = model_open(&b->model, &b->job, o->args[0]);
    if (!code)
        code = make_images(b);
    if (code)
        return code;
    for (int i = 0; i < N_BATCHES; i++)
        measure_row(b, i);
    if (o->layers)
        measure_operators(b);
    if (b->no_memory)
        return job_no_memory(o);
    if (o->json)
        return print_json(b);
    print(b);
    return 0;
}

static void release(struct bench *b)
{
    for (int i = 0; i < N_BATCHES; i++)
        free(b->rows[i].seconds);
    for (size_t i = 0; i < b->n_operators; i++)
        free(b->operators[i].times.seconds);
    free(b->operators);
    free(b->images);
    free(b->logits);
    model_close(&b->model, &b->job);
}

static int run(const struct options *o)
{
    struct bench b = { 0 };
    const mix_status status = job_open(&b.job, o);
    if (status != MIX_OK)
        return status;
    const int code = measure(&b);
    release(&b);
    job_close(&b.job, MIX_OK);
    return code;
}

const struct command command_bench = {
    .name = "bench",
    .summary = "Latency, throughput and memory of the integer runtime.",
    .args = "MODEL.mix",
    .takes = TAKES_BENCH | TAKES_CPU,
    .run = run,
    .more =
        "Images of a batch are run one after another. Quantiles are by nearest rank. The "
        "operators are timed in runs of their own, with a look at the clock behind each; W and A "
        "are the bits of a layer's weights and input. A run with quantized weights may stand for "
        "the .mix file.",
};
