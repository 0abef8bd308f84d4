/*
 * check_kernels [--seed N] [--bench]
 *
 * Every table of integer kernels that this CPU can run against the C table, bit for bit, and the C
 * table against sums in 64 bits and the contract of quant/quant.h. Every operand ends at a guard
 * page and begins behind a canary.
 */
#include "operands.h"

#include <math.h>
#include <time.h>

#include "kernels/kernels.h"

static struct {
    struct mix__kernels kernels;
    const char *name;
} isa[4];
static int n_isa;

/* ---- drawn operands ------------------------------------------------------------------------- */

/* Codes in [low, high]: uniform, or runs of the extremes, which is where sums overflow. */
static void draw_codes(void *to, size_t n, int low, int high)
{
    unsigned char *codes = to;
    const bool extreme = draw() % 2;
    for (size_t i = 0; i < n; i++)
        codes[i] = (unsigned char)(!extreme ? draw_int(low, high) : draw() % 64 ? high : low);
}

static int32_t *starts(size_t n)
{
    int32_t *s = take_bytes(n * sizeof *s);
    for (size_t i = 0; i < n; i++)
        s[i] = draw_int(-100000, 100000);
    return s;
}

static void same_sums(const char *what, const char *who, const int32_t *got, const int32_t *want,
                      size_t n)
{
    compared += n;
    for (size_t i = 0; i < n; i++)
        if (got[i] != want[i])
            fail(what, who, i, got[i], want[i]);
}

/* ---- products ------------------------------------------------------------------------------- */

static void naive_gemm(int32_t *acc, const uint8_t *x, const int8_t *codes, size_t k_used,
                       size_t depth_used, const struct mix__gemm *g)
{
    for (size_t r = 0; r < g->rows; r++)
        for (size_t k = 0; k < g->k; k++) {
            int64_t sum = g->start[k];
            for (size_t d = 0; k < k_used && d < depth_used; d++)
                sum += (int64_t)x[r * g->x_stride + d] * codes[k * depth_used + d];
            acc[r * g->k + k] = (int32_t)sum;
        }
}

static void check_gemm(size_t rows, size_t depth, size_t k, int x_max, int w_max)
{
    struct mix__gemm g = { .rows = rows,
                           .depth = mix__round_up(depth, MIX__QUAD),
                           .k = mix__round_up(k, MIX__PANEL),
                           .runs = mix__gemm_runs(x_max, w_max) };
    g.x_stride = g.depth + draw() % 3 * 5;
    g.start = starts(g.k);
    const size_t x_bytes = rows ? (rows - 1) * g.x_stride + g.depth : 0;
    uint8_t *x = take_bytes(x_bytes);
    int8_t *codes = take_bytes(k * depth), *w = take_bytes(mix__gemm_packed(k, depth));
    int32_t *want = take_bytes(rows * g.k * sizeof *want);
    draw_codes(x, x_bytes, 0, x_max);
    draw_codes(codes, k * depth, draw() % 2 ? -w_max : w_max - 1, w_max);
    mix__gemm_pack(w, codes, k, depth);
    naive_gemm(want, x, codes, k, depth, &g);
    for (int t = 0; t < n_isa; t++) {
        int32_t *acc = take_bytes(rows * g.k * sizeof *acc);
        isa[t].kernels.gemm(acc, x, w, &g);
        same_sums("gemm", isa[t].name, acc, want, rows * g.k);
    }
    give_back("gemm");
}

static void check_depthwise(size_t kernel, size_t c, int x_max, int w_max)
{
    enum { PLACES = 4, STRIDE = 4 };
    const size_t n_taps = kernel * kernel;
    const struct mix__depthwise d = { .kernel = kernel,
                                      .stride = 1 + draw() % STRIDE,
                                      .places = draw() % (PLACES + 1),
                                      .c = c,
                                      .runs = mix__depthwise_runs(x_max, w_max),
                                      .start = starts(c) };
    const size_t pixels = ((PLACES - 1) * STRIDE + kernel) * kernel, sums = d.places * c;
    const uint8_t *taps[((PLACES - 1) * STRIDE + 7) * 7];
    int8_t *w = take_bytes(n_taps * c);
    int32_t *want = take_bytes(sums * sizeof *want);
    uint8_t *x = take_bytes(pixels * c);
    draw_codes(x, pixels * c, 0, x_max);
    draw_codes(w, n_taps * c, draw() % 2 ? -w_max : w_max - 1, w_max);
    for (size_t t = 0; t < pixels; t++)
        taps[t] = x + (pixels - 1 - t) * c;
    for (size_t i = 0; i < sums; i++) {
        const uint8_t *const *column = taps + i / c * d.stride * kernel;
        int64_t sum = d.start[i % c];
        for (size_t t = 0; t < n_taps; t++)
            sum += (int64_t)column[t % kernel * kernel + t / kernel][i % c] * w[i % c * n_taps + t];
        want[i] = (int32_t)sum;
    }
    for (int t = 0; t < n_isa; t++) {
        int32_t *acc = take_bytes(sums * sizeof *acc);
        int8_t *packed = take_bytes(isa[t].kernels.depthwise_packed(kernel, c));
        isa[t].kernels.depthwise_pack(packed, w, kernel, c);
        isa[t].kernels.depthwise(acc, taps, packed, &d);
        same_sums("depthwise", isa[t].name, acc, want, sums);
    }
    give_back("depthwise");
}

static void check_products(void)
{
    static const size_t depths[] = { 1, 4, 16, 27, 31, 36, 40, 144, 577 };
    static const size_t channels[] = { 1, 15, 16, 17, 40, 64 };
    for (int wb = 2; wb <= 8; wb++)
        for (int xb = 2; xb <= 8; xb++) {
            const int w_max = (1 << (wb - 1)) - 1;
            /* unsigned codes, or signed ones stored with p added */
            const int x_max = draw() % 2 ? (1 << xb) - 1 : (1 << xb) - 2;
            for (size_t rows = 0; rows <= 13; rows++)
                check_gemm(rows, depths[draw() % MIX_COUNT(depths)],
                           channels[draw() % MIX_COUNT(channels)], x_max, w_max);
            check_gemm(5, 577, 17, x_max, w_max);
            check_gemm(7, 36, 40, x_max, w_max);
            for (size_t c = 1; c <= 70; c += draw() % 2 ? 1 : 15)
                for (size_t side = 1; side <= 7; side += 2)
                    check_depthwise(side, c, x_max, w_max);
        }
}

/* ---- floats --------------------------------------------------------------------------------- */

/* By the contract's own functions. */
static float activated(float u, enum mix__act act)
{
    switch (act) {
    case MIX__ACT_RELU:
        return fmaxf(u, 0.0f);
    case MIX__ACT_RELU6:
        return fminf(fmaxf(u, 0.0f), 6.0f);
    case MIX__ACT_HARDSWISH:
        return u * fminf(fmaxf(u + 3.0f, 0.0f), 6.0f) / 6.0f;
    case MIX__ACT_HARDSIGMOID:
        return fminf(fmaxf(u + 3.0f, 0.0f), 6.0f) / 6.0f;
    default:
        return u;
    }
}

static void check_value(const char *what, const char *who, const void *y, size_t i, float value,
                        const struct mix__finish *f)
{
    const float v = activated(value, f->act);
    compared++;
    if (!f->codes) {
        const float got = ((const float *)y)[i];
        if (got != v)
            fail(what, who, i, got, v);
        return;
    }
    const float code =
        rintf(fminf(fmaxf((v + f->bounds.shift) / f->step, f->bounds.n), f->bounds.p));
    const int got = ((const uint8_t *)y)[i];
    if (got != (int)(code + f->zero))
        fail(what, who, i, got, code + f->zero);
}

static struct mix__finish drawn_finish(void)
{
    const enum mix__act act = (enum mix__act)(draw() % MIX__ACTS);
    if (draw() % 3 == 0)
        return mix__finish_floats(act);
    return mix__finish_codes(act, draw_int(2, 8), (mix_range)draw_int(0, 2),
                             draw() % 2 ? 0.0625f : draw_float(0.01f, 0.5f));
}

/* Values that hit codes, ties and bounds often. */
static float *floats(size_t n)
{
    float *x = take(n);
    for (size_t i = 0; i < n; i++)
        x[i] = draw() % 2 ? (float)draw_int(-160, 160) / 32.0f : draw_float(-8.0f, 8.0f);
    return x;
}

static void check_sums(size_t rows, size_t n)
{
    const struct mix__finish f = drawn_finish();
    struct mix__sums s = { .rows = rows, .n = n, .acc_stride = n + draw() % 3, .y_stride = n };
    int32_t *acc = take_bytes(rows * s.acc_stride * sizeof *acc);
    for (size_t i = 0; i < rows * s.acc_stride; i++)
        acc[i] = draw() % 8 ? draw_int(-3000, 3000) : draw_int(-2000000000, 2000000000);
    float *scale = take(n), *offset = floats(n);
    for (size_t i = 0; i < n; i++)
        scale[i] = draw() % 2 ? 0.0078125f : draw_float(-0.01f, 0.01f);
    s.acc = acc;
    s.scale = scale;
    s.offset = offset;
    for (int t = 0; t < n_isa; t++) {
        void *y = take_bytes(rows * n * (f.codes ? 1 : sizeof(float)));
        isa[t].kernels.sums(y, &s, &f);
        for (size_t r = 0; r < rows; r++)
            for (size_t i = 0; i < n; i++) {
                const float product = scale[i] * (float)acc[r * s.acc_stride + i];
                check_value("sums", isa[t].name, y, r * n + i, product + offset[i], &f);
            }
    }
    give_back("sums");
}

/* Every value on the edge between two codes, or the float next to it. */
static void check_edges(enum mix__act act, int bits, mix_range range, float step)
{
    enum { N = 70, ROWS = 9 };
    const struct mix__finish f = mix__finish_codes(act, bits, range, step);
    const struct mix__sums s = { .acc = take_bytes(ROWS * N * sizeof(int32_t)),
                                 .rows = ROWS,
                                 .n = N,
                                 .acc_stride = N,
                                 .y_stride = N,
                                 .scale = take(N),
                                 .offset = take(N) };
    for (size_t i = 0; i < ROWS * N; i++)
        ((int32_t *)s.acc)[i] = (int32_t)i / 2 - 160;
    for (size_t i = 0; i < N; i++) {
        ((float *)s.scale)[i] = step;
        ((float *)s.offset)[i] = nextafterf(0.5f * step, (float)draw_int(-1, 1));
    }
    for (int t = 0; t < n_isa; t++) {
        uint8_t *y = take_bytes(ROWS * N);
        isa[t].kernels.sums(y, &s, &f);
        for (size_t i = 0; i < ROWS * N; i++) {
            const float product = s.scale[i % N] * (float)s.acc[i];
            check_value("edges", isa[t].name, y, i, product + s.offset[i % N], &f);
        }
    }
    give_back("edges");
}

static void check_elementwise(size_t rows, size_t c)
{
    const struct mix__finish f = drawn_finish();
    const size_t n = rows * c;
    const float *a = floats(n), *b = floats(n), *g = floats(c);
    for (int t = 0; t < n_isa; t++) {
        const struct mix__kernels *k = &isa[t].kernels;
        void *y = take_bytes(n * (f.codes ? 1 : sizeof(float)));
        k->values(y, a, n, &f);
        for (size_t i = 0; i < n; i++)
            check_value("values", isa[t].name, y, i, a[i], &f);
        k->add(y, a, b, n, &f);
        for (size_t i = 0; i < n; i++)
            check_value("add", isa[t].name, y, i, a[i] + b[i], &f);
        k->gate(y, a, g, rows, c, &f);
        for (size_t i = 0; i < n; i++)
            check_value("gate", isa[t].name, y, i, a[i] * g[i % c], &f);
        const struct mix__finish plain = mix__finish_floats(MIX__ACT_NONE);
        float *z = take(n);
        memcpy(z, a, n * sizeof *z);
        k->largest(z, b, n);
        for (size_t i = 0; i < n; i++)
            check_value("largest", isa[t].name, z, i, fmaxf(a[i], b[i]), &plain);
        memcpy(z, a, n * sizeof *z);
        k->accumulate(z, b, n);
        for (size_t i = 0; i < n; i++)
            check_value("accumulate", isa[t].name, z, i, a[i] + b[i], &plain);
    }
    give_back("elementwise");
}

static void check_floats(void)
{
    static const float steps[] = { 1.0f, 0.0625f, 0.3f, 0.0237f };
    for (int act = 0; act < MIX__ACTS; act++)
        for (int bits = 2; bits <= 8; bits++)
            for (size_t i = 0; i < 3 * MIX_COUNT(steps); i++)
                check_edges((enum mix__act)act, bits, (mix_range)(i % 3), steps[i / 3]);
    for (int i = 0; i < 300; i++) {
        check_sums(draw() % 4, 1 + draw() % 67);
        check_elementwise(draw() % 4, 1 + draw() % 67);
    }
}

/* What is not a number or beyond all bounds becomes a code all the same. */
static void check_not_finite(void)
{
    const struct mix__finish f = mix__finish_codes(MIX__ACT_NONE, 4, MIX_RANGE_SIGNED, 0.5f);
    static const float x[] = { NAN, INFINITY, -INFINITY, 3e38f };
    static const int want[] = { 0, 14, 0, 14 };
    for (int t = 0; t < n_isa; t++) {
        uint8_t y[4];
        isa[t].kernels.values(y, x, 4, &f);
        for (size_t i = 0; i < 4; i++, compared++)
            if (y[i] != want[i])
                fail("not finite", isa[t].name, i, y[i], want[i]);
    }
}

/* ---- speed ---------------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void bench_gemm(size_t rows, size_t depth, size_t k)
{
    static const int bits[][2] = { { 8, 8 }, { 4, 8 }, { 4, 4 } };
    printf("gemm %4zu x %4zu x %4zu, Gmac/s:", rows, depth, k);
    for (int t = 0; t < n_isa; t++)
        for (size_t b = 0; b < MIX_COUNT(bits); b++) {
            const int w_max = (1 << (bits[b][0] - 1)) - 1, x_max = (1 << bits[b][1]) - 1;
            const struct mix__gemm g = { rows,     depth, k, depth, mix__gemm_runs(x_max, w_max),
                                         starts(k) };
            uint8_t *x = take_bytes(rows * depth);
            int8_t *w = take_bytes(depth * k);
            int32_t *acc = take_bytes(rows * k * sizeof *acc);
            draw_codes(x, rows * depth, 0, x_max);
            draw_codes(w, depth * k, -w_max, w_max);
            double best = 1e9;
            for (int i = 0; i < 5; i++) {
                const double began = now();
                const int repeat = t ? 20 : 1;
                for (int j = 0; j < repeat; j++)
                    isa[t].kernels.gemm(acc, x, w, &g);
                best = fmin(best, (now() - began) / repeat);
            }
            printf("  %s w%da%d %.1f", isa[t].name, bits[b][0], bits[b][1],
                   1e-9 * (double)(rows * depth * k) / best);
            give_back("bench");
        }
    putchar('\n');
}

static void find_tables(void)
{
    static const struct {
        const char *name;
        unsigned flags;
    } levels[] = { { "c", 0 },
                   { "avx2", MIX_CPU_AVX2 },
                   { "avx512", MIX_CPU_AVX2 | MIX_CPU_AVX512 },
                   { "vnni", MIX_CPU_AVX2 | MIX_CPU_AVX512 | MIX_CPU_VNNI } };
    mix_ctx *ctx;
    if (mix_ctx_new(&ctx, NULL) != MIX_OK)
        exit(2);
    const unsigned cpu = mix_ctx_cpu(ctx);
    mix_ctx_free(ctx);
    for (size_t i = 0; i < MIX_COUNT(levels); i++)
        if ((levels[i].flags & cpu) == levels[i].flags) {
            isa[n_isa].name = levels[i].name;
            mix__kernels_init(&isa[n_isa++].kernels, levels[i].flags);
        }
}

int main(int argc, char **argv)
{
    const bool benching = take_arguments(argc, argv, "check_kernels");
    find_tables();
    if (benching) {
        bench_gemm(196, 96, 24);
        bench_gemm(196, 384, 64);
        bench_gemm(49, 960, 160);
        return 0;
    }
    check_products();
    check_floats();
    check_not_finite();
    printf("check_kernels: tables");
    for (int t = 0; t < n_isa; t++)
        printf(" %s", isa[t].name);
    printf(", seed %" PRIu64 ", %zu values compared, %zu wrong\n", seed, compared, failures);
    return failures || !compared;
}
