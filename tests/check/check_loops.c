/*
 * check_loops [--seed N] [--bench]
 *
 * Every table of loops that this CPU can run against the C table, and all against a naive
 * reference that sums in double. Loops over values must agree bit for bit between instruction
 * sets; depthwise convolutions too where all numbers are small integers, else to a tolerance.
 * Every operand ends at a guard page and begins behind a canary.
 */
#include "operands.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/ctx.h"
#include "engine/loops.h"

#define MAX(a, b) ((a) > (b) ? (a) : (b))

static struct {
    struct mix__loops loops;
    const char *name;
} isa[4];
static int n_isa;

static float *copy_of(const float *x, size_t n)
{
    float *y = take(n);
    memcpy(y, x, n * sizeof *y);
    return y;
}

static float *filled(size_t n, float low, float high)
{
    float *x = take(n);
    for (size_t i = 0; i < n; i++)
        x[i] = draw_float(low, high);
    return x;
}

/* Values with runs of what is special: zeros, the kinks of ReLU6, ties and bounds of quantizers. */
static float *values(size_t n)
{
    static const float special[] = { 0.0f, -0.0f, 6.0f,    0.125f, 0.375f, -0.375f,
                                     1e4f, -1e4f, -0.875f, 1.75f,  3.5f,   1e-20f };
    float *x = filled(n, -4.0f, 9.0f);
    for (size_t i = 0; i < n; i++)
        if (draw() % 4 == 0) {
            const float v = special[draw() % MIX_COUNT(special)];
            for (size_t end = i + draw() % 12; i < n && i <= end; i++)
                x[i] = v;
        }
    return x;
}

/* ---- comparison ------------------------------------------------------------------------ */

static void same(const char *what, const char *who, const float *got, const float *want, size_t n)
{
    compared += n;
    for (size_t i = 0; i < n; i++)
        if (memcmp(&got[i], &want[i], sizeof *got))
            fail(what, who, i, got[i], want[i]);
}

/* A sum and the size of what went into it, which bounds the error. */
struct sum {
    double value, size;
};

static void sum_add(struct sum *s, double x)
{
    s->value += x;
    s->size += fabs(x);
}

static void near_double(const char *what, const char *who, size_t at, double got, struct sum want)
{
    compared++;
    if (!(fabs(got - want.value) <= 4e-6 * want.size + 1e-30))
        fail(what, who, at, got, want.value);
}

static void near(const char *what, const char *who, const float *got, const struct sum *want,
                 size_t n)
{
    for (size_t i = 0; i < n; i++)
        near_double(what, who, i, got[i], want[i]);
}

/* ---- the naive reference --------------------------------------------------------------- */

/* Codes follow the rounding contract: a float quotient, rounded once. */
struct coded {
    double slope, value; /* of the step; dequantized */
    bool inside;
};

static struct coded code_of(float x, float step, const struct mix__bounds *b)
{
    const float v = (x + b->shift) / step;
    const float code = v < b->n ? b->n : v > b->p ? b->p : nearbyintf(v);
    const bool inside = v >= b->n && v <= b->p;
    return (struct coded){ inside ? (double)code - v : code, (double)step * code - b->shift,
                           inside };
}

static double weight_of(const struct mix__fake *f, int k)
{
    return f->n_branch > 1 ? f->weight[k] : 1.0;
}

static struct sum fake_naive(float x, const struct mix__fake *f)
{
    struct sum y = { 0 };
    if (!f->n_branch)
        sum_add(&y, x);
    for (int k = 0; k < f->n_branch; k++) {
        sum_add(&y, weight_of(f, k) * code_of(x, f->step[k], &f->bounds[k]).value);
        y.size += f->bounds[k].shift;
    }
    return y;
}

struct fake_naive_sums {
    struct sum step[MIX__BRANCH_MAX], weight[MIX__BRANCH_MAX];
};

static double fake_naive_back(float dy, float x, const struct mix__fake *f,
                              struct fake_naive_sums *sums)
{
    double dx = f->n_branch ? 0 : dy;
    for (int k = 0; k < f->n_branch; k++) {
        const struct coded q = code_of(x, f->step[k], &f->bounds[k]);
        const double w = weight_of(f, k);
        sum_add(&sums->step[k], dy * w * q.slope);
        sums->step[k].size += fabs(dy * w * q.value / f->step[k]); /* q - v cancels */
        if (f->n_branch > 1)
            sum_add(&sums->weight[k], dy * q.value);
        dx += q.inside ? dy * w : 0;
    }
    return dx;
}

static float act_naive(float u, enum mix__act act)
{
    const float hard = fminf(fmaxf(u + 3, 0), 6);
    switch (act) {
    case MIX__ACT_RELU:
        return fmaxf(u, 0);
    case MIX__ACT_RELU6:
        return fminf(fmaxf(u, 0), 6);
    case MIX__ACT_HARDSWISH:
        return u * hard / 6;
    case MIX__ACT_HARDSIGMOID:
        return hard / 6;
    default:
        return u;
    }
}

static double act_slope(double u, enum mix__act act)
{
    switch (act) {
    case MIX__ACT_RELU:
        return u > 0;
    case MIX__ACT_RELU6:
        return u > 0 && u < 6;
    case MIX__ACT_HARDSWISH:
        return u <= -3 ? 0 : u >= 3 ? 1 : (2 * u + 3) / 6;
    case MIX__ACT_HARDSIGMOID:
        return u > -3 && u < 3 ? 1.0 / 6 : 0;
    default:
        return 1;
    }
}

/* Adds g times the slope, which may itself be a difference of larger numbers. */
static void sum_add_slope(struct sum *sum, double g, double u, enum mix__act act)
{
    sum_add(sum, g * act_slope(u, act));
    sum->size += fabs(g);
}

static struct mix__fake draw_fake(int branches)
{
    static const float steps[] = { 0.25f, 0.5f, 0.0371f, 1.3f };
    struct mix__fake f = { .n_branch = branches };
    const mix_range range = (mix_range)draw_int(MIX_RANGE_SIGNED, MIX_RANGE_SHIFTED);
    const int first = branches == 1 ? draw_int(MIX_BITS_MIN, MIX_BITS_MAX) : MIX_BITS_MIN;
    for (int k = 0; k < branches; k++) {
        f.bounds[k] = mix__bounds_activation(first + k, range);
        f.step[k] = steps[draw() % MIX_COUNT(steps)];
        f.weight[k] = draw_float(0.01f, 1.0f);
    }
    return f;
}

static void check_fake_sums(const char *what, int t, const struct mix__fake *f,
                            const struct mix__fake_sums *got, const struct mix__fake_sums *first,
                            const struct fake_naive_sums *want)
{
    for (int k = 0; k < MIX__BRANCH_MAX; k++) {
        near_double(what, isa[t].name, (size_t)k, got->step[k], want->step[k]);
        near_double(what, isa[t].name, (size_t)k, got->weight[k], want->weight[k]);
    }
    compared++;
    if (memcmp(got, first, sizeof *got))
        fail(what, isa[t].name, (size_t)f->n_branch, got->step[0], first->step[0]);
}

/* ---- bfloat16 ---------------------------------------------------------------------------------
 */

/* The same values as bfloat16, in a block that ends at a guard page where n is even. */
static struct mix__values half_of(const float *x, size_t n)
{
    const struct mix__values v = { take((n + 1) / 2), MIX__DTYPE_BF16 };
    for (size_t i = 0; i < n; i++)
        mix__values_put(v, i, x[i]);
    return v;
}

static const float *widened(struct mix__values v, size_t n)
{
    float *x = take(n);
    for (size_t i = 0; i < n; i++)
        x[i] = mix__values_get(v, i);
    return x;
}

/* got is want, rounded where got is bfloat16. */
static void same_values(const char *what, int t, struct mix__values got, const float *want,
                        size_t n)
{
    const struct mix__values rounded =
        got.dtype == MIX__DTYPE_BF16 ? half_of(want, n) : mix__f32(want);
    same(what, isa[t].name, widened(got, n), widened(rounded, n), n);
}

/* Codes written as bytes, signed or not, are the codes. */
static void check_bytes(const struct mix__loops *l, int t, struct mix__values z, size_t rows,
                        size_t c, const struct mix__affine *affine, const struct mix__fake *fake)
{
    const size_t n = rows * c;
    struct mix__fake codes = *fake, *f = &codes;
    f->codes = true;
    float *want = filled(n, 7, 8), *widened_codes = take(n);
    const struct mix__values bytes = { take((n + 3) / 4),
                                       f->bounds[0].n < 0 ? MIX__DTYPE_S8 : MIX__DTYPE_U8 };
    for (int k = 0; k < 2; k++) {
        if (k == 0) {
            l->norm_forward(mix__f32(want), z, rows, c, affine, f);
            l->norm_forward(bytes, z, rows, c, affine, f);
        } else {
            l->fake_forward(mix__f32(want), z, n, f);
            l->fake_forward(bytes, z, n, f);
        }
        for (size_t i = 0; i < n; i++)
            widened_codes[i] = f->bounds[0].n < 0 ? (float)((const int8_t *)bytes.at)[i]
                                                  : (float)((const uint8_t *)bytes.at)[i];
        same("codes as bytes", isa[t].name, widened_codes, want, n);
    }
}

/* Loops on bfloat16 do what those on float32 do with the same values; steps are powers of two, so
 * that a reciprocal is exact. */
static void check_half(size_t rows, size_t c, int branches)
{
    const size_t n = rows * c;
    struct mix__fake f = draw_fake(branches);
    for (int k = 0; k < branches; k++)
        f.step[k] = ldexpf(1.0f, draw_int(-6, 1));
    const struct mix__values z = half_of(values(n), n), dy = half_of(filled(n, -1, 1), n);
    const float *z32 = widened(z, n), *dy32 = widened(dy, n);
    const float *scale = filled(c, 0.5f, 2), *offset = filled(c, -1, 1), *mean = filled(c, -1, 1);
    const float *rstd = filled(c, 0.5f, 2);
    const enum mix__act act = (enum mix__act)draw_int(MIX__ACT_NONE, MIX__ACTS - 1);
    const struct mix__affine affine = { scale, offset, act };
    for (int t = 0; t < n_isa; t++) {
        const struct mix__loops *l = &isa[t].loops;
        float *want = filled(n, 7, 8), *sums = filled(4 * c, 0, 0), *stats = filled(4 * c, 7, 8);
        struct mix__fake_sums want_sums = { 0 };
        l->norm_forward(mix__f32(want), mix__f32(z32), rows, c, &affine, &f);
        const struct mix__values y16 = half_of(want, n), y32 = mix__f32(filled(n, 7, 8));
        l->norm_forward(y16, z, rows, c, &affine, &f);
        l->norm_forward(y32, z, rows, c, &affine, &f);
        same_values("norm_forward bf16", t, y16, want, n);
        same_values("norm_forward bf16 to f32", t, y32, want, n);
        if (branches == 1) {
            check_bytes(l, t, z, rows, c, &affine, &f);
            check_bytes(l, t, mix__f32(z32), rows, c, &affine, &f);
        }

        const struct mix__norm_back back = { affine, mean, rstd, &f, sums, sums + c, &want_sums };
        l->norm_backward_sums(mix__f32(want), mix__f32(dy32), mix__f32(z32), rows, c, &back, false);
        for (int k = 0; k < 2; k++) {
            float *found = filled(2 * c, 0, 0);
            struct mix__fake_sums found_sums = { 0 };
            const struct mix__values du = half_of(want, n);
            const struct mix__norm_back half = { affine, mean,      rstd,       &f,
                                                 found,  found + c, &found_sums };
            l->norm_backward_sums(du, k ? dy : mix__f32(dy32), z, rows, c, &half, k);
            same_values("norm_backward_sums bf16 du", t, du, want, n);
            same("norm_backward_sums bf16", isa[t].name, found, sums, 2 * c);
            if (memcmp(&found_sums, &want_sums, sizeof found_sums))
                fail("norm_backward_sums bf16 step", isa[t].name, 0, found_sums.step[0],
                     want_sums.step[0]);
        }

        l->norm_backward_input(mix__f32(want), mix__f32(dy32), mix__f32(z32), rows, c, scale, mean,
                               offset);
        l->norm_backward_input(y16, dy, z, rows, c, scale, mean, offset);
        l->norm_backward_input(y32, dy, z, rows, c, scale, mean, offset);
        same_values("norm_backward_input bf16", t, y16, want, n);
        same_values("norm_backward_input bf16 to f32", t, y32, want, n);

        l->norm_stats(stats, stats + c, mix__f32(z32), mix__f32(z32), rows, c, false);
        const struct mix__values copy = half_of(want, n);
        l->norm_stats(stats + 2 * c, stats + 3 * c, copy, z, rows, c, true);
        same("norm_stats bf16", isa[t].name, stats + 2 * c, stats, 2 * c);
        same_values("norm_stats bf16 copy", t, copy, z32, n);
        const struct mix__values whole = mix__f32(filled(n, -1, 1));
        l->norm_stats(stats, stats + c, whole, whole, rows, c, false);
        l->norm_stats(stats + 2 * c, stats + 3 * c, copy, whole, rows, c, t % 2);
        same("norm_stats rounding", isa[t].name, stats + 2 * c, stats, 2 * c);
        same_values("norm_stats rounded copy", t, copy, whole.at, n);

        const int accumulate = draw_int(0, 1);
        memcpy(want, dy32, n * sizeof *want);
        const struct mix__values dx = half_of(want, n);
        l->fake_backward(mix__f32(want), mix__f32(z32), mix__f32(z32), n, accumulate, &f,
                         &want_sums);
        l->fake_backward(dx, z, z, n, accumulate, &f, &want_sums);
        same_values("fake_backward bf16", t, dx, want, n);
        l->gate_backward(mix__f32(want), sums, mix__f32(dy32), mix__f32(z32), scale, rows, c, 0);
        l->gate_backward(dx, sums, dy, z, scale, rows, c, 0);
        same_values("gate_backward bf16", t, dx, want, n);
        l->gate_forward(mix__f32(want), mix__f32(z32), scale, rows, c);
        l->gate_forward(dx, z, scale, rows, c);
        same_values("gate_forward bf16", t, dx, want, n);
        l->act_backward(mix__f32(want), mix__f32(dy32), mix__f32(z32), n, 0, act);
        l->act_backward(dx, dy, z, n, 0, act);
        same_values("act_backward bf16", t, dx, want, n);
        l->add(mix__f32(want), mix__f32(dy32), mix__f32(z32), n);
        l->add(dx, dy, z, n);
        same_values("add bf16", t, dx, want, n);
        l->add(y32, mix__f32(dy32), z, n);
        same_values("add f32 and bf16", t, y32, want, n);
        l->act_forward(mix__f32(want), mix__f32(z32), n, act);
        l->act_forward(dx, z, n, act);
        same_values("act_forward bf16", t, dx, want, n);
        l->act_forward(y32, z, n, act);
        same_values("act_forward bf16 to f32", t, y32, want, n);
        l->act_forward(dx, mix__f32(z32), n, act);
        same_values("act_forward f32 to bf16", t, dx, want, n);
        if (branches == 1) {
            l->fake_slope(mix__f32(want), mix__f32(z32), n, &f);
            l->fake_slope(dx, z, n, &f);
            same_values("fake_slope bf16", t, dx, want, n);
        }
        const double size = l->abs_sum(mix__f32(z32), n, f.bounds[0].shift);
        const double half_size = l->abs_sum(z, n, f.bounds[0].shift);
        compared++;
        if (half_size != size)
            fail("abs_sum bf16", isa[t].name, 0, half_size, size);
        const double product = l->dot(mix__f32(z32), mix__f32(dy32), n),
                     half_product = l->dot(z, dy, n);
        compared++;
        if (half_product != product || l->dot(z, mix__f32(dy32), n) != product)
            fail("dot bf16", isa[t].name, 0, half_product, product);

        double *rows_sum = calloc(3 * c, sizeof *rows_sum);
        for (size_t i = 0; i < n; i++)
            rows_sum[2 * c + i % c] += z32[i];
        l->row_sums(rows_sum, mix__f32(z32), rows, c);
        l->row_sums(rows_sum + c, z, rows, c);
        for (size_t i = 0; i < c; i++) {
            compared++;
            if (rows_sum[i] != rows_sum[c + i] ||
                !(fabs(rows_sum[i] - rows_sum[2 * c + i]) <= 1e-5 * 1e4 * (double)rows))
                fail("row_sums", isa[t].name, i, rows_sum[i], rows_sum[2 * c + i]);
        }
        free(rows_sum);
    }
    give_back("bf16");
}

/* ---- loops over values ----------------------------------------------------------------- */

static void check_flat(size_t n, int branches)
{
    const struct mix__fake f = draw_fake(branches);
    const float *x = values(n), *dy = filled(n, -1, 1), *old = filled(n, -1, 1);
    const int accumulate = draw_int(0, 1);
    const enum mix__act act = (enum mix__act)draw_int(MIX__ACT_NONE, MIX__ACTS - 1);
    struct sum *y = calloc(6 * n + 1, sizeof *y), *dx = y + n, *ax = y + 2 * n, *ad = y + 3 * n;
    struct sum *plus = y + 4 * n, *slope = y + 5 * n, total = { 0 }, product = { 0 };
    struct fake_naive_sums sums = { 0 };
    struct mix__fake_sums first_sums = { 0 };
    float *first[6] = { 0 };
    double first_abs = 0, first_dot = 0;
    for (size_t i = 0; i < n; i++) {
        const double before = accumulate ? old[i] : 0;
        y[i] = fake_naive(x[i], &f);
        sum_add(&dx[i], before);
        sum_add(&dx[i], fake_naive_back(dy[i], x[i], &f, &sums));
        sum_add(&ax[i], act_naive(x[i], act));
        sum_add(&ad[i], before);
        sum_add_slope(&ad[i], dy[i], x[i], act);
        sum_add(&plus[i], x[i]);
        sum_add(&plus[i], dy[i]);
        sum_add(&total, fabsf(x[i] + f.bounds[0].shift));
        sum_add(&product, (double)x[i] * dy[i]);
        if (f.n_branch > 0) {
            const struct coded q = code_of(x[i], f.step[0], &f.bounds[0]);
            sum_add(&slope[i], q.slope);
            slope[i].size += fabs(q.value / f.step[0]);
        }
    }
    for (int t = 0; t < n_isa; t++) {
        const struct mix__loops *l = &isa[t].loops;
        struct mix__fake_sums got = { 0 };
        float *out[6] = { copy_of(x, n), copy_of(accumulate ? old : dy, n),
                          copy_of(x, n), copy_of(accumulate ? old : dy, n),
                          copy_of(x, n), filled(n, 0, 0) };
        l->fake_forward(mix__f32(out[0]), mix__f32(out[0]), n, &f);
        l->fake_backward(mix__f32(out[1]), mix__f32(accumulate ? dy : out[1]), mix__f32(x), n,
                         accumulate, &f, &got);
        l->act_forward(mix__f32(out[2]), mix__f32(out[2]), n, act);
        l->act_backward(mix__f32(out[3]), mix__f32(accumulate ? dy : out[3]), mix__f32(x), n,
                        accumulate, act);
        l->add(mix__f32(out[4]), mix__f32(out[4]), mix__f32(dy), n);
        if (f.n_branch > 0)
            l->fake_slope(mix__f32(out[5]), mix__f32(x), n, &f);
        const double abs = l->abs_sum(mix__f32(x), n, f.bounds[0].shift);
        const double dot = l->dot(mix__f32(x), mix__f32(dy), n);
        if (t == 0) {
            memcpy(first, out, sizeof out);
            first_sums = got;
            first_abs = abs;
            first_dot = dot;
        }
        static const char *const names[] = { "fake_forward", "fake_backward", "act_forward",
                                             "act_backward", "add",           "fake_slope" };
        const struct sum *want[] = { y, dx, ax, ad, plus, slope };
        for (int k = 0; k < 6; k++) {
            near(names[k], isa[t].name, out[k], want[k], n);
            same(names[k], isa[t].name, out[k], first[k], n);
        }
        check_fake_sums("fake_backward sums", t, &f, &got, &first_sums, &sums);
        near_double("abs_sum", isa[t].name, 0, abs, total);
        if (abs != first_abs)
            fail("abs_sum", isa[t].name, 0, abs, first_abs);
        near_double("dot", isa[t].name, 0, dot, product);
        if (dot != first_dot)
            fail("dot", isa[t].name, 0, dot, first_dot);
    }
    free(y);
    give_back("flat");
}

static void check_stats(size_t rows, size_t c)
{
    const float *z = filled(rows * c, -3, 5);
    float *first[2] = { 0 };
    for (int t = 0; t < n_isa; t++) {
        float *out[2] = { filled(c, 7, 8), filled(c, 7, 8) };
        isa[t].loops.norm_stats(out[0], out[1], mix__f32(z), mix__f32(z), rows, c, false);
        if (t == 0)
            memcpy(first, out, sizeof out);
        for (size_t j = 0; j < c; j++) {
            struct sum m = { 0 }, m2 = { 0 };
            for (size_t r = 0; r < rows; r++)
                sum_add(&m, z[r * c + j]);
            const double mean = rows ? m.value / (double)rows : 0;
            for (size_t r = 0; r < rows; r++)
                sum_add(&m2, (z[r * c + j] - mean) * (z[r * c + j] - mean));
            m2.size += m.size; /* the mean is rounded to float */
            near_double("norm_stats mean", isa[t].name, j, out[0][j],
                        (struct sum){ mean, m.size / (double)MAX(rows, 1) });
            near_double("norm_stats m2", isa[t].name, j, out[1][j], m2);
        }
        same("norm_stats mean", isa[t].name, out[0], first[0], c);
        same("norm_stats m2", isa[t].name, out[1], first[1], c);
        float *copy = filled(rows * c, 7, 8);
        isa[t].loops.norm_stats(out[0], out[1], mix__f32(copy), mix__f32(z), rows, c, true);
        same("norm_stats copy", isa[t].name, copy, z, rows * c);
        same("norm_stats copying mean", isa[t].name, out[0], first[0], c);
        same("norm_stats copying m2", isa[t].name, out[1], first[1], c);
    }
    give_back("norm_stats");
}

static void check_norm(size_t rows, size_t c, enum mix__act act, int branches)
{
    const size_t n = rows * c;
    const struct mix__fake f = draw_fake(branches);
    const float *z = values(n), *dy = filled(n, -1, 1);
    float *scale = filled(c, 0.2f, 2), *offset = filled(c, -1, 1);
    const float *mean = filled(c, -1, 3), *rstd = filled(c, 0.2f, 2);
    const float *k2 = filled(c, -1, 1), *k3 = filled(c, -1, 1);
    for (size_t j = 0; j < c; j += 3) { /* special values stay special here */
        scale[j] = 1;
        offset[j] = 0;
    }
    const struct mix__affine affine = { scale, offset, act };
    struct sum *y = calloc(3 * n + 2 * c + 1, sizeof *y), *du = y + n, *dz = du + n;
    struct sum *db = dz + n, *dg = db + c;
    struct fake_naive_sums sums = { 0 };
    for (size_t i = 0; i < n; i++) {
        const size_t j = i % c;
        const float u = scale[j] * z[i] + offset[j], a = act_naive(u, act);
        y[i] = fake_naive(a, &f);
        const double g = fake_naive_back(dy[i], a, &f, &sums);
        sum_add_slope(&du[i], g, u, act);
        sum_add_slope(&db[j], g, u, act);
        sum_add_slope(&dg[j], g * ((double)z[i] - mean[j]) * rstd[j], u, act);
        sum_add(&dz[i], (double)scale[j] * dy[i]);
        sum_add(&dz[i], (double)k2[j] * z[i]);
        sum_add(&dz[i], k3[j]);
    }
    float *first[5] = { 0 };
    struct mix__fake_sums first_sums = { 0 };
    for (int t = 0; t < n_isa; t++) {
        const struct mix__loops *l = &isa[t].loops;
        struct mix__fake_sums got = { 0 };
        float *out[5] = { copy_of(z, n), copy_of(dy, n), copy_of(dy, n), take(c), take(c) };
        memset(out[3], 0, c * sizeof(float));
        memset(out[4], 0, c * sizeof(float));
        l->norm_forward(mix__f32(out[0]), mix__f32(out[0]), rows, c, &affine, &f);
        struct mix__norm_back back = {
            affine, mean, rstd, &f, out[3], out[4], branches ? &got : NULL
        };
        l->norm_backward_sums(mix__f32(out[1]), mix__f32(out[1]), mix__f32(z), rows, c, &back,
                              false);
        l->norm_backward_input(mix__f32(out[2]), mix__f32(out[2]), mix__f32(z), rows, c, scale, k2,
                               k3);
        if (t == 0) {
            memcpy(first, out, sizeof out);
            first_sums = got;
        }
        static const char *const names[] = { "norm_forward", "norm_backward_sums du",
                                             "norm_backward_input", "norm_backward_sums dbeta",
                                             "norm_backward_sums dgamma" };
        const struct sum *want[] = { y, du, dz, db, dg };
        for (int k = 0; k < 5; k++) {
            near(names[k], isa[t].name, out[k], want[k], k < 3 ? n : c);
            same(names[k], isa[t].name, out[k], first[k], k < 3 ? n : c);
        }
        check_fake_sums("norm_backward_sums sums", t, &f, &got, &first_sums, &sums);
        float *streamed = filled(n, 7, 8), *spare = filled(2 * c, 0, 0);
        back.dbeta = spare;
        back.dgamma = spare + c;
        l->norm_backward_sums(mix__f32(streamed), mix__f32(dy), mix__f32(z), rows, c, &back, true);
        same("norm_backward_sums du, streamed", isa[t].name, streamed, out[1], n);
    }
    free(y);
    give_back("norm");
}

/* ---- channel gate ---------------------------------------------------------------------- */

static void check_gate(size_t rows, size_t c)
{
    const size_t n = rows * c;
    const float *x = filled(n, -1, 1), *dy = filled(n, -1, 1), *old = filled(n, -1, 1);
    const float *gate = filled(c, 0, 1), *old_gate = filled(c, -1, 1);
    const int accumulate = draw_int(0, 1);
    struct sum *y = calloc(2 * n + c + 1, sizeof *y), *dx = y + n, *dgate = y + 2 * n;
    for (size_t j = 0; j < c; j++)
        sum_add(&dgate[j], old_gate[j]);
    for (size_t i = 0; i < n; i++) {
        sum_add(&y[i], (double)x[i] * gate[i % c]);
        sum_add(&dx[i], accumulate ? old[i] : 0);
        sum_add(&dx[i], (double)dy[i] * gate[i % c]);
        sum_add(&dgate[i % c], (double)dy[i] * x[i]);
    }
    float *first[3] = { 0 };
    for (int t = 0; t < n_isa; t++) {
        const struct mix__loops *l = &isa[t].loops;
        float *out[3] = { copy_of(x, n), copy_of(old, n), copy_of(old_gate, c) };
        l->gate_forward(mix__f32(out[0]), mix__f32(out[0]), gate, rows, c);
        l->gate_backward(mix__f32(out[1]), out[2], mix__f32(dy), mix__f32(x), gate, rows, c,
                         accumulate);
        if (t == 0)
            memcpy(first, out, sizeof out);
        static const char *const names[] = { "gate_forward", "gate_backward dx",
                                             "gate_backward dgate" };
        const struct sum *want[] = { y, dx, dgate };
        for (int k = 0; k < 3; k++) {
            near(names[k], isa[t].name, out[k], want[k], k < 2 ? n : c);
            same(names[k], isa[t].name, out[k], first[k], k < 2 ? n : c);
        }
    }
    free(y);
    give_back("gate");
}

/* ---- depthwise convolution ------------------------------------------------------------- */

static float *codes(size_t n, bool whole)
{
    float *x = filled(n, -1, 1);
    for (size_t i = 0; whole && i < n; i++)
        x[i] = (float)draw_int(-7, 7);
    return x;
}

/* Rows outside [begin, end) must be left as they were: UNTOUCHED. */
static const float UNTOUCHED = 777.0f;

static void near_rows(const char *what, int t, const float *got, const struct sum *want, size_t n,
                      size_t begin, size_t end, bool exact)
{
    for (size_t i = 0; i < n; i++) {
        struct sum w = want[i];
        if (i < begin || i >= end)
            w = (struct sum){ UNTOUCHED, 0 };
        else if (exact)
            w.size = 0;
        near_double(what, isa[t].name, i, got[i], w);
    }
}

/* Rows [y0, y1) of the output, known already. */
struct band {
    int y0, y1;
    const float *y;
};

static struct mix__dw_input as_it_is(const float *x)
{
    return (struct mix__dw_input){ .z = mix__f32(x) };
}

/* Those rows again from nothing but the input rows that they read. */
static void check_band(const struct mix__dw_shape *s, const struct mix__loops *l, const float *x,
                       const float *w, const struct band *b)
{
    struct mix__dw_shape part = *s;
    const size_t x_row = (size_t)(s->w * s->c), y_row = (size_t)(s->ow * s->c);
    const int x1 = (b->y1 - 1) * s->stride - s->pad + s->kernel;
    part.x_row = b->y0 * s->stride - s->pad;
    part.x_row = part.x_row < 0 ? 0 : part.x_row > s->h ? s->h : part.x_row;
    part.y_row = b->y0;
    const int rows = (x1 < s->h ? x1 : s->h) - part.x_row;
    const struct mix__dw_input in =
        as_it_is(copy_of(x + (size_t)part.x_row * x_row, rows > 0 ? (size_t)rows * x_row : 0));
    const size_t n = (size_t)(b->y1 - b->y0) * y_row;
    float *y = filled(n, UNTOUCHED, UNTOUCHED);
    l->dw_forward(mix__f32(y), &in, w, &part, b->y0, b->y1);
    same("dw_forward of a band", "", y, b->y + (size_t)b->y0 * y_row, n);
}

/* The same rows in bfloat16. */
static void check_narrowed(int t, const struct mix__dw_shape *s, const float *x, const float *w,
                           const struct band *b)
{
    struct mix__dw_shape part = *s;
    const size_t n = (size_t)((b->y1 - b->y0) * s->ow * s->c);
    const struct mix__values y = half_of(filled(n, UNTOUCHED, UNTOUCHED), n);
    const struct mix__dw_input in = as_it_is(x);
    part.y_row = b->y0;
    isa[t].loops.dw_forward(y, &in, w, &part, b->y0, b->y1);
    same_values("dw_forward bf16", t, y, b->y + (size_t)(b->y0 * s->ow * s->c), n);
}

static void check_depthwise(const struct mix__dw_shape *s, bool whole)
{
    const size_t c = (size_t)s->c, nx = (size_t)(s->h * s->w) * c;
    const size_t ny = (size_t)(s->oh * s->ow) * c, nw = (size_t)(s->kernel * s->kernel) * c;
    const int o0 = draw_int(0, s->oh), o1 = draw_int(o0, s->oh);
    const int h0 = o0 * s->stride < s->h ? o0 * s->stride : s->h, h1 = draw_int(h0, s->h);
    const float *x = codes(nx, whole), *w = codes(nw, whole), *dy = codes(ny, whole);
    const float *dw0 = codes(nw, whole);
    const struct mix__dw_input in = as_it_is(x);
    const struct mix__dw_gradient dz = { .du = mix__f32(dy) };
    struct sum *y = calloc(ny + nx + nw, sizeof *y), *dx = y + ny, *dw = dx + nx;
    for (size_t i = 0; i < nw; i++)
        sum_add(&dw[i], dw0[i]);
    for (int i = 0; i < s->oh; i++)
        for (int j = 0; j < s->ow; j++)
            for (int t = 0; t < s->kernel * s->kernel; t++) {
                const int a = i * s->stride - s->pad + t / s->kernel;
                const int b = j * s->stride - s->pad + t % s->kernel;
                if (a < 0 || a >= s->h || b < 0 || b >= s->w)
                    continue;
                for (size_t k = 0; k < c; k++) {
                    const size_t from = (size_t)(a * s->w + b) * c + k;
                    const size_t to = (size_t)(i * s->ow + j) * c + k, tap = (size_t)t * c + k;
                    sum_add(&y[to], (double)x[from] * w[tap]);
                    sum_add(&dx[from], (double)dy[to] * w[tap]);
                    if (i >= o0 && i < o1)
                        sum_add(&dw[tap], (double)dy[to] * x[from]);
                }
            }
    const size_t y_row = (size_t)s->ow * c, x_row = (size_t)s->w * c;
    for (int t = 0; t < n_isa; t++) {
        const struct mix__loops *l = &isa[t].loops;
        float *out = filled(ny, UNTOUCHED, UNTOUCHED), *back = filled(nx, UNTOUCHED, UNTOUCHED);
        float *taps = copy_of(dw0, nw);
        l->dw_forward(mix__f32(out), &in, w, s, o0, o1);
        const struct mix__dw_back to = {
            taps, mix__f32(back + (size_t)h0 * x_row), NULL, false, o0, o1, h0, h1
        };
        l->dw_backward(&to, &in, &dz, w, s);
        check_band(s, l, x, w, &(struct band){ o0, o1, out });
        check_narrowed(t, s, x, w, &(struct band){ o0, o1, out });
        near_rows("dw_forward", t, out, y, ny, (size_t)o0 * y_row, (size_t)o1 * y_row, whole);
        near_rows("dw_backward dx", t, back, dx, nx, (size_t)h0 * x_row, (size_t)h1 * x_row, whole);
        near_rows("dw_backward dw", t, taps, dw, nw, 0, nw, whole);
    }
    free(y);
    give_back("depthwise");
}

/* Off by no more than rounding of sums like those of `size`. */
static void close_to(const char *what, int t, const float *got, const float *want, size_t n,
                     double size, double most)
{
    for (size_t i = 0; i < n; i++) {
        compared++;
        if (!(fabs((double)got[i] - want[i]) <= most * (size + fabs(want[i]))))
            fail(what, isa[t].name, i, got[i], want[i]);
    }
}

/* With batch norm, activation and quantizer on both sides: what the loops for those give, one after
 * the other. */
static void check_fused(const struct mix__dw_shape *s, int branches, bool half, bool stream)
{
    const size_t c = (size_t)s->c, rows = (size_t)(s->h * s->w), nx = rows * c;
    const size_t out_rows = (size_t)(s->oh * s->ow), ny = out_rows * c;
    const size_t nw = (size_t)(s->kernel * s->kernel) * c;
    const struct mix__fake f = draw_fake(branches);
    const float *w = filled(nw, -1, 1), *k = filled(5 * c, 0.2f, 2);
    const struct mix__affine affine = { k, k + c, (enum mix__act)draw_int(0, MIX__ACTS - 1) };
    const float *z32 = values(nx), *du32 = filled(ny, -1, 1), *after32 = filled(ny, -1, 1);
    const struct mix__values z = half ? half_of(z32, nx) : mix__f32(z32);
    const struct mix__values du = half ? half_of(du32, ny) : mix__f32(du32);
    const struct mix__values after = half ? half_of(after32, ny) : mix__f32(after32);
    const struct mix__dw_input in = { z, affine, &f };
    const struct mix__dw_gradient dz = { du, after, k + 2 * c, k + 3 * c, k + 4 * c };
    for (int t = 0; t < n_isa; t++) {
        const struct mix__loops *l = &isa[t].loops;
        float *x = filled(nx, 7, 8), *y = filled(ny, 7, 8), *want_y = filled(ny, 7, 8);
        float *gradient = filled(ny, 7, 8), *want_dx = filled(nx, 7, 8);
        float *sums = filled(2 * c + nw, 0, 0), *want = filled(2 * c + nw, 0, 0);
        struct mix__fake_sums found = { 0 }, want_found = { 0 };
        l->norm_forward(mix__f32(x), z, rows, c, &affine, &f);
        const struct mix__dw_input made = as_it_is(x);
        l->dw_forward(mix__f32(want_y), &made, w, s, 0, s->oh);
        l->dw_forward(mix__f32(y), &in, w, s, 0, s->oh);
        same("dw_forward, fused", isa[t].name, y, want_y, ny);

        l->norm_backward_input(mix__f32(gradient), du, after, out_rows, c, k + 2 * c, k + 3 * c,
                               k + 4 * c);
        const struct mix__dw_gradient made_dz = { .du = mix__f32(gradient) };
        const struct mix__dw_back plain = {
            want + 2 * c, mix__f32(want_dx), NULL, false, 0, s->oh, 0, s->h
        };
        l->dw_backward(&plain, &made, &made_dz, w, s);
        struct mix__values want_du = half ? half_of(want_dx, nx) : mix__f32(copy_of(want_dx, nx));
        const struct mix__norm_back want_back = {
            affine, k, k + c, &f, want, want + c, &want_found
        };
        l->norm_backward_sums(want_du, mix__f32(want_dx), z, rows, c, &want_back, false);

        const struct mix__values to = half ? half_of(x, nx) : mix__f32(copy_of(x, nx));
        const struct mix__norm_back back = { affine, k, k + c, &f, sums, sums + c, &found };
        const struct mix__dw_back fused = { sums + 2 * c, to, &back, stream, 0, s->oh, 0, s->h };
        l->dw_backward(&fused, &in, &dz, w, s);
        const double taps = s->kernel * s->kernel, places = (double)(rows + out_rows);
        close_to("dw_backward du, fused", t, widened(to, nx), widened(want_du, nx), nx,
                 half ? 1e-2 * taps : 10 * taps, half ? 8e-3 : 1e-6);
        close_to("dw_backward dbeta, fused", t, sums, want, c, taps * places, 1e-6);
        close_to("dw_backward dgamma, fused", t, sums + c, want + c, c, 1e4 * taps * places, 1e-6);
        close_to("dw_backward dw, fused", t, sums + 2 * c, want + 2 * c, nw, 1e4 * places, 1e-6);
        for (int b = 0; b < branches; b++) {
            const float got[] = { (float)found.step[b], (float)found.weight[b] };
            const float wanted[] = { (float)want_found.step[b], (float)want_found.weight[b] };
            close_to("dw_backward step, fused", t, got, wanted, 2, 1e3 * taps * places, 1e-6);
        }
    }
    give_back("fused depthwise");
}

static void check_depthwise_random(void)
{
    static const int kernels[] = { 3, 5 }, strides[] = { 1, 2 };
    static const int branches[] = { 0, 1, 3 };
    static const int sizes[] = { 1, 2, 3, 4, 5, 7, 8, 16, 17, 28, 32, 33, 67 };
    static const int channels[] = { 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 33, 64 };
    struct mix__dw_shape s = { .kernel = kernels[draw() % MIX_COUNT(kernels)],
                               .stride = strides[draw() % MIX_COUNT(strides)],
                               .h = sizes[draw() % MIX_COUNT(sizes)],
                               .w = sizes[draw() % MIX_COUNT(sizes)],
                               .c = channels[draw() % MIX_COUNT(channels)] };
    s.pad = draw() % 3 ? s.kernel / 2 : draw_int(0, s.kernel - 1);
    if (s.h + 2 * s.pad < s.kernel || s.w + 2 * s.pad < s.kernel)
        return;
    s.oh = (s.h + 2 * s.pad - s.kernel) / s.stride + 1;
    s.ow = (s.w + 2 * s.pad - s.kernel) / s.stride + 1;
    check_depthwise(&s, draw() & 1);
    check_fused(&s, branches[draw() % MIX_COUNT(branches)], draw() & 1, draw() & 1);
}

/* ---- max pool --------------------------------------------------------------------------- */

/* Where the first of the largest act(affine(z)) of a window is, from act(affine(z)) itself. */
static size_t largest_naive(const struct mix__pool_shape *s, const float *x, int row, int col,
                            int channel, uint8_t *where)
{
    size_t best = SIZE_MAX;
    for (int tap = 0; tap < s->kernel * s->kernel; tap++) {
        const int h = row * s->stride - s->pad + tap / s->kernel;
        const int w = col * s->stride - s->pad + tap % s->kernel;
        const size_t at = (size_t)((h * s->w + w) * s->c + channel);
        if (h < 0 || h >= s->h || w < 0 || w >= s->w || (best != SIZE_MAX && !(x[at] > x[best])))
            continue;
        best = at;
        *where = (uint8_t)tap;
    }
    return best;
}

/* All rows, forward and, with where, back. */
static void run_pool(int t, const struct mix__pool_shape *s, struct mix__values y, uint8_t *where,
                     struct mix__values dx, struct mix__values dy, struct mix__values z,
                     const struct mix__affine *affine, int accumulate)
{
    for (int row = 0; row < s->oh; row++) {
        const size_t at = (size_t)(row * s->ow * s->c);
        isa[t].loops.maxpool(mix__values_from(y, at), where ? where + at : NULL, z, affine, s, row);
    }
    for (int row = 0; where && row < s->h; row++)
        isa[t].loops.maxpool_backward(mix__values_from(dx, (size_t)(row * s->w * s->c)), dy, where,
                                      accumulate, s, row);
}

static void check_pool(const struct mix__pool_shape *s, bool affine, enum mix__act act)
{
    const size_t c = (size_t)s->c, n = (size_t)s->h * s->w * c, m = (size_t)s->oh * s->ow * c;
    const struct mix__values half = half_of(values(n), n), dy16 = half_of(filled(m, -1, 1), m);
    const float *z = widened(half, n), *dy = widened(dy16, m), *old = filled(n, -1, 1);
    const float *scale = filled(c, -2, 2), *offset = filled(c, -1, 1);
    const struct mix__affine map = { affine ? scale : NULL, offset, act };
    const int accumulate = draw() & 1;
    float *x = copy_of(z, n), *y = take(m), *dx = take(n);
    uint8_t *where = calloc(2 * m + 1, 1), *got_where = where + m;
    for (size_t i = 0; i < n && affine; i++)
        x[i] = act_naive(scale[i % c] * z[i] + offset[i % c], act);
    memset(dx, 0, n * sizeof *dx);
    for (size_t i = 0; i < m; i++) {
        const int pixel = (int)(i / c);
        const size_t best =
            largest_naive(s, x, pixel / s->ow, pixel % s->ow, (int)(i % c), &where[i]);
        y[i] = x[best];
        dx[best] += dy[i];
    }
    for (size_t i = 0; i < n && accumulate; i++)
        dx[i] += old[i];
    for (int t = 0; t < n_isa; t++) {
        float *got = filled(m, 7, 8), *got_dx = copy_of(old, n);
        run_pool(t, s, mix__f32(got), got_where, mix__f32(got_dx), mix__f32(dy), mix__f32(z), &map,
                 accumulate);
        same("maxpool", isa[t].name, got, y, m);
        for (size_t i = 0; i < m; i++)
            if (got_where[i] != where[i])
                fail("maxpool, where", isa[t].name, i, got_where[i], where[i]);
        same("maxpool_backward", isa[t].name, got_dx, dx, n);
        const struct mix__values y16 = half_of(got, m), dx16 = half_of(old, n);
        float *sum = copy_of(widened(dx16, n), n);
        run_pool(t, s, y16, got_where, dx16, dy16, half, &map, accumulate);
        same_values("maxpool bf16", t, y16, y, m);
        run_pool(t, s, mix__f32(got), got_where, mix__f32(sum), mix__f32(dy), mix__f32(z), &map,
                 accumulate);
        same_values("maxpool_backward bf16", t, dx16, sum, n);
        run_pool(t, s, mix__f32(got), NULL, dx16, dy16, mix__f32(z), &map, accumulate);
        same("maxpool without where", isa[t].name, got, y, m);
    }
    free(where);
    give_back("pool");
}

static void check_pool_random(int channels)
{
    struct mix__pool_shape s = {
        .h = draw_int(1, 9), .w = draw_int(1, 9), .c = channels, .kernel = draw_int(1, 4)
    };
    s.pad = draw_int(0, s.kernel / 2);
    s.stride = draw_int(1, 3);
    if (s.h + 2 * s.pad < s.kernel || s.w + 2 * s.pad < s.kernel)
        return;
    s.oh = (s.h + 2 * s.pad - s.kernel) / s.stride + 1;
    s.ow = (s.w + 2 * s.pad - s.kernel) / s.stride + 1;
    check_pool(&s, draw() & 1, (enum mix__act)draw_int(0, MIX__ACT_HARDSIGMOID));
}

static void check_all(void)
{
    static const size_t sizes[] = { 0, 1, 2, 7, 8, 31, 255, 256, 257, 509, 513, 1009, 65539 };
    static const size_t rows[] = { 0, 1, 2, 9, 10, 11, 32, 257, 2600 };
    static const size_t widths[] = { 1, 3, 8, 16, 24, 31, 96, 144, 255, 256, 257, 320, 960, 1280 };
    static const int branches[] = { 0, 1, 2, 4, MIX__BRANCH_MAX };
    enum { ELEMENTS_MAX = 70000, DEPTHWISE_CASES = 1500, POOL_CASES = 20 };
    for (size_t b = 0; b < MIX_COUNT(branches); b++)
        for (size_t i = 0; i < MIX_COUNT(sizes); i++)
            check_flat(sizes[i], branches[b]);
    for (size_t i = 0; i < MIX_COUNT(rows); i++)
        for (size_t j = 0; j < MIX_COUNT(widths); j++) {
            if (rows[i] * widths[j] > ELEMENTS_MAX)
                continue;
            check_stats(rows[i], widths[j]);
            check_gate(rows[i], widths[j]);
            check_half(rows[i], widths[j], branches[(i + j) % 5]);
            for (enum mix__act act = MIX__ACT_NONE; act < MIX__ACTS; act++)
                check_norm(rows[i], widths[j], act, branches[(i + j + act) % 5]);
        }
    for (size_t j = 0; j < MIX_COUNT(widths); j++)
        for (int i = 0; i < POOL_CASES; i++)
            check_pool_random((int)widths[j]);
    for (int i = 0; i < DEPTHWISE_CASES; i++)
        check_depthwise_random();
}

/* ---- bench ----------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Best of several runs, in seconds. */
#define BEST(seconds, statement)                                                                   \
    do {                                                                                           \
        double spent_ = 0;                                                                         \
        (seconds) = DBL_MAX;                                                                       \
        for (int run_ = 0; run_ < 3 || (spent_ < 0.05 && run_ < 100); run_++) {                    \
            const double start_ = now();                                                           \
            statement;                                                                             \
            const double took_ = now() - start_;                                                   \
            spent_ += took_;                                                                       \
            (seconds) = took_ < (seconds) ? took_ : (seconds);                                     \
        }                                                                                          \
    } while (0)

enum { BATCH = 128 };

/* bytes: what must be read and written once. */
static void print_depthwise(const char *what, const char *name, const struct mix__dw_shape *s,
                            double seconds)
{
    const double x = (double)s->h * s->w * s->c * BATCH, y = (double)s->oh * s->ow * s->c * BATCH;
    const double flop = 2 * y * s->kernel * s->kernel;
    printf("%-20s %-7s %2dx%-2d c %3d k %d s %d %8.3f ms %7.2f GFLOP/s %6.2f GB/s\n", what, name,
           s->h, s->w, s->c, s->kernel, s->stride, 1e3 * seconds, 1e-9 * flop / seconds,
           4e-9 * (x + y) / seconds);
}

static void bench_depthwise(const struct mix__dw_shape *s)
{
    const size_t nx = (size_t)(s->h * s->w * s->c), ny = (size_t)(s->oh * s->ow * s->c);
    const size_t nw = (size_t)(s->kernel * s->kernel * s->c);
    float *x = filled(nx * BATCH, -1, 1), *y = filled(ny * BATCH, -1, 1), *w = filled(nw, -1, 1);
    for (int t = 0; t < n_isa; t++) {
        const struct mix__loops *l = &isa[t].loops;
        double seconds;
        struct mix__dw_back to = { w, mix__f32(x), NULL, false, 0, s->oh, 0, s->h };
        struct mix__dw_input in = as_it_is(x);
        struct mix__dw_gradient dz = { .du = mix__f32(y) };
        BEST(
            seconds, for (size_t i = 0; i < BATCH; i++) {
                in.z = mix__f32(x + i * nx);
                l->dw_forward(mix__f32(y + i * ny), &in, w, s, 0, s->oh);
            });
        print_depthwise("dw_forward", isa[t].name, s, seconds);
        BEST(
            seconds, for (size_t i = 0; i < BATCH; i++) {
                to.du = in.z = mix__f32(x + i * nx);
                dz.du = mix__f32(y + i * ny);
                l->dw_backward(&to, &in, &dz, w, s);
            });
        print_depthwise("dw_backward", isa[t].name, s, seconds);
    }
    give_back("bench");
}

static void print_values(const char *what, const char *name, size_t rows, size_t c, int streams,
                         double seconds)
{
    const double n = (double)rows * (double)c;
    printf("%-22s %-7s %6zu x %-4zu %8.3f ms %6.2f ns for 8 %6.2f GB/s\n", what, name, rows, c,
           1e3 * seconds, 8e9 * seconds / n, 4e-9 * n * streams / seconds);
}

/* In pieces of 16384 values, as the engine cuts tensors. */
#define PIECES(call)                                                                               \
    for (size_t at = 0, part = MAX(16384 / c, 1); at < rows; at += part) {                         \
        const size_t r = rows - at < part ? rows - at : part, i = at * c;                          \
        call;                                                                                      \
    }

static void bench_norm(size_t rows, size_t c)
{
    const size_t n = rows * c;
    float *z = filled(n, -2, 7), *y = filled(n, -1, 1), *a = filled(c, 1, 1), *b = filled(c, 0, 0);
    float *db = filled(c, 0, 0), *dg = filled(c, 0, 0);
    const struct mix__affine affine = { a, b, MIX__ACT_RELU6 };
    static const int branches[] = { 0, 1, 4 };
    for (int t = 0; t < n_isa; t++) {
        const struct mix__loops *l = &isa[t].loops;
        const char *name = isa[t].name;
        struct mix__fake_sums sums = { 0 };
        double seconds;
        BEST(seconds, PIECES(l->norm_stats(db, dg, mix__f32(z + i), mix__f32(z + i), r, c, false)));
        print_values("norm_stats", name, rows, c, 1, seconds);
        for (size_t k = 0; k < MIX_COUNT(branches); k++) {
            const struct mix__fake f = draw_fake(branches[k]);
            char what[32];
            snprintf(what, sizeof what, "norm_forward %d", branches[k]);
            BEST(seconds,
                 PIECES(l->norm_forward(mix__f32(y + i), mix__f32(z + i), r, c, &affine, &f)));
            print_values(what, name, rows, c, 2, seconds);
            snprintf(what, sizeof what, "norm_backward_sums %d", branches[k]);
            const struct mix__norm_back back = { affine, b, a, &f, db, dg, &sums };
            BEST(seconds, PIECES(l->norm_backward_sums(mix__f32(y + i), mix__f32(y + i),
                                                       mix__f32(z + i), r, c, &back, false)));
            print_values(what, name, rows, c, 3, seconds);
            snprintf(what, sizeof what, "fake_forward %d", branches[k]);
            BEST(seconds, PIECES(l->fake_forward(mix__f32(y + i), mix__f32(z + i), r * c, &f)));
            print_values(what, name, rows, c, 2, seconds);
            snprintf(what, sizeof what, "fake_backward %d", branches[k]);
            BEST(seconds, PIECES(l->fake_backward(mix__f32(y + i), mix__f32(y + i), mix__f32(z + i),
                                                  r * c, 0, &f, &sums)));
            print_values(what, name, rows, c, 3, seconds);
        }
        BEST(seconds, PIECES(l->norm_backward_input(mix__f32(y + i), mix__f32(y + i),
                                                    mix__f32(z + i), r, c, b, b, b)));
        print_values("norm_backward_input", name, rows, c, 3, seconds);
        BEST(seconds, PIECES(l->add(mix__f32(y + i), mix__f32(y + i), mix__f32(z + i), r * c)));
        print_values("add", name, rows, c, 3, seconds);
        BEST(seconds,
             PIECES(l->act_forward(mix__f32(y + i), mix__f32(z + i), r * c, MIX__ACT_RELU6)));
        print_values("act_forward", name, rows, c, 2, seconds);
        BEST(seconds, PIECES(l->act_backward(mix__f32(y + i), mix__f32(y + i), mix__f32(z + i),
                                             r * c, 0, MIX__ACT_RELU6)));
        print_values("act_backward", name, rows, c, 3, seconds);
        double all = 0;
        BEST(seconds, PIECES(all += l->abs_sum(mix__f32(z + i), r * c, 0)));
        print_values(all > 0 ? "abs_sum" : "abs_sum of zeros", name, rows, c, 1, seconds);
    }
    give_back("bench");
}

/* MobileNet v2 on 32 x 32 pixels, one thread. */
static void bench(void)
{
    static const int shapes[][3] = { { 32, 32, 1 }, { 32, 96, 2 }, { 16, 144, 1 }, { 16, 144, 2 },
                                     { 8, 192, 1 }, { 8, 192, 2 }, { 4, 384, 1 },  { 4, 576, 1 },
                                     { 4, 576, 2 }, { 2, 960, 1 } };
    for (size_t i = 0; i < MIX_COUNT(shapes); i++)
        for (int kernel = 3; kernel <= (i == 2 || i == 5 ? 5 : 3); kernel += 2) {
            const int h = shapes[i][0], stride = shapes[i][2], out = (h - 1) / stride + 1;
            bench_depthwise(&(struct mix__dw_shape){ h, h, shapes[i][1], out, out, kernel, stride,
                                                     kernel / 2, 0, 0 });
        }
    bench_norm(BATCH * 32 * 32, 96);
    bench_norm(BATCH * 16 * 16, 24);
    bench_norm(BATCH * 4 * 4, 384);
    bench_norm(BATCH * 2 * 2, 960);
}

static void find_tables(void)
{
    mix_ctx *ctx;
    if (mix_ctx_new(&ctx, NULL) != MIX_OK)
        exit(2);
    const unsigned cpu = mix_ctx_cpu(ctx);
    mix_ctx_free(ctx);
    static const struct {
        const char *name;
        unsigned flags;
    } levels[] = { { "c", 0 },
                   { "avx2", MIX_CPU_AVX2 },
                   { "avx512", MIX_CPU_AVX2 | MIX_CPU_AVX512 },
                   { "avx512-bf16", MIX_CPU_AVX2 | MIX_CPU_AVX512 | MIX_CPU_BF16 } };
    for (size_t i = 0; i < MIX_COUNT(levels); i++)
        if ((levels[i].flags & cpu) == levels[i].flags) {
            isa[n_isa].name = levels[i].name;
            mix__loops_init(&isa[n_isa++].loops, levels[i].flags);
        }
}

int main(int argc, char **argv)
{
    const bool benching = take_arguments(argc, argv, "check_loops");
    find_tables();
    if (benching) {
        bench();
        return 0;
    }
    check_all();
    printf("check_loops: tables");
    for (int t = 0; t < n_isa; t++)
        printf(" %s", isa[t].name);
    printf(", seed %" PRIu64 ", %zu values compared, %zu wrong\n", seed, compared, failures);
    return failures || !compared;
}
