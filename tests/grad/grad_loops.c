/*
 * Gradients of the engine's loops against finite differences, in double, of naive forward
 * passes. The quantizer's gradient is a convention (doc/method.md section 2), so it is compared with
 * the formulas, away from the places where a code changes.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/ctx.h"
#include "base/random.h"
#include "engine/loops.h"

enum { SEED = 7, ROWS = 37, C = 19, N = ROWS * C };

static struct mix__loops loops;

static int setup(void **state)
{
    (void)state;
    mix_ctx *ctx;
    if (mix_ctx_new(&ctx, NULL) != MIX_OK)
        return -1;
    mix__loops_init(&loops, mix_ctx_cpu(ctx));
    mix_ctx_free(ctx);
    return 0;
}

static void fill(float *x, size_t n, int stream, double low, double high)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(low + (high - low) * mix__random_uniform(SEED, (uint64_t)stream, i));
}

static void assert_near(double got, double want, double scale)
{
    if (!(fabs(got - want) <= 2e-5 * (scale + fabs(want))))
        fail_msg("got %.9g, want %.9g", got, want);
}

/* d loss / d x[i] by central differences; the argument goes through a double copy. */
typedef double loss_fn(const double *x, const void *arg);

static double difference(loss_fn *loss, double *x, size_t i, const void *arg)
{
    const double h = 1e-5, at = x[i];
    x[i] = at + h;
    const double above = loss(x, arg);
    x[i] = at - h;
    const double below = loss(x, arg);
    x[i] = at;
    return (above - below) / (2 * h);
}

static double act_double(double u, enum mix__act act)
{
    const double hard = fmin(fmax(u + 3, 0), 6) / 6;
    if (act == MIX__ACT_HARDSWISH || act == MIX__ACT_HARDSIGMOID)
        return act == MIX__ACT_HARDSWISH ? u * hard : hard;
    u = act != MIX__ACT_NONE ? fmax(u, 0) : u;
    return act == MIX__ACT_RELU6 ? fmin(u, 6) : u;
}

/* Whether the slope jumps next to u. */
static bool at_kink(double u, enum mix__act act)
{
    const bool hard = act == MIX__ACT_HARDSWISH || act == MIX__ACT_HARDSIGMOID;
    const double low = hard ? -3 : 0, high = hard ? 3 : 6;
    return act != MIX__ACT_NONE && (fabs(u - low) < 1e-4 || fabs(u - high) < 1e-4);
}

/* ---- activation ---- */

struct act_arg {
    enum mix__act act;
    const float *dy;
};

static double act_loss(const double *x, const void *arg)
{
    const struct act_arg *a = arg;
    double sum = 0;
    for (size_t i = 0; i < N; i++)
        sum += a->dy[i] * act_double(x[i], a->act);
    return sum;
}

static void activation(void **state)
{
    (void)state;
    float x[N], dy[N], dx[N];
    double xd[N];
    fill(x, N, 1, -5, 10);
    fill(dy, N, 2, -1, 1);
    for (size_t i = 0; i < N; i++)
        xd[i] = x[i];
    for (enum mix__act act = MIX__ACT_NONE; act < MIX__ACTS; act++) {
        const struct act_arg arg = { act, dy };
        loops.act_backward(mix__f32(dx), mix__f32(dy), mix__f32(x), N, 0, act);
        for (size_t i = 0; i < N; i++)
            if (!at_kink(xd[i], act))
                assert_near(dx[i], difference(act_loss, xd, i, &arg), 1e-3);
    }
}

/* ---- batch norm by the batch's statistics, then an activation ---- */

enum { Z = 0, GAMMA = N, BETA = N + C, ALL = N + 2 * C };
static const double EPSILON = 1e-5;

static double norm_loss(const double *x, const void *arg)
{
    const struct act_arg *a = arg;
    double sum = 0;
    for (size_t j = 0; j < C; j++) {
        double mean = 0, var = 0;
        for (size_t r = 0; r < ROWS; r++)
            mean += x[r * C + j] / ROWS;
        for (size_t r = 0; r < ROWS; r++)
            var += (x[r * C + j] - mean) * (x[r * C + j] - mean) / ROWS;
        for (size_t r = 0; r < ROWS; r++) {
            const double hat = (x[r * C + j] - mean) / sqrt(var + EPSILON);
            sum += a->dy[r * C + j] * act_double(x[GAMMA + j] * hat + x[BETA + j], a->act);
        }
    }
    return sum;
}

/* u = gamma * (z - mean) * rstd + beta; dz = gamma * rstd * (du - dbeta / N - zhat * dgamma / N).
 */
static void check_norm(enum mix__act act)
{
    const struct mix__fake off = { 0 };
    float x[ALL], dy[N], du[N], dz[N], mean[C], m2[C], rstd[C], scale[C], offset[C];
    float dbeta[C] = { 0 }, dgamma[C] = { 0 }, k1[C], k2[C], k3[C];
    double xd[ALL];
    fill(x + Z, N, 3, -2, 3);
    fill(x + GAMMA, C, 4, 0.5, 4);
    fill(x + BETA, C, 5, 0, 4);
    fill(dy, N, 6, -1, 1);
    for (size_t i = 0; i < ALL; i++)
        xd[i] = x[i];
    for (size_t i = 0; i < N; i++)
        du[i] = dy[i];
    loops.norm_stats(mean, m2, mix__f32(x), mix__f32(x), ROWS, C, false);
    for (size_t j = 0; j < C; j++) {
        rstd[j] = (float)(1 / sqrt(m2[j] / ROWS + EPSILON));
        scale[j] = x[GAMMA + j] * rstd[j];
        offset[j] = x[BETA + j] - mean[j] * scale[j];
    }
    const struct mix__affine affine = { scale, offset, act };
    const struct mix__norm_back back = { affine, mean, rstd, &off, dbeta, dgamma, NULL };
    loops.norm_backward_sums(mix__f32(du), mix__f32(du), mix__f32(x), ROWS, C, &back, false);
    for (size_t j = 0; j < C; j++) {
        k1[j] = scale[j];
        k2[j] = -scale[j] * rstd[j] * dgamma[j] / ROWS;
        k3[j] = -scale[j] * dbeta[j] / ROWS - k2[j] * mean[j];
    }
    loops.norm_backward_input(mix__f32(dz), mix__f32(du), mix__f32(x), ROWS, C, k1, k2, k3);

    const struct act_arg arg = { act, dy };
    for (size_t i = 0; i < N; i++) {
        const double u = (double)scale[i % C] * x[i] + offset[i % C];
        assert_false(at_kink(u, act));
        assert_near(dz[i], difference(norm_loss, xd, i, &arg), 1);
    }
    for (size_t j = 0; j < C; j++) {
        assert_near(dgamma[j], difference(norm_loss, xd, GAMMA + j, &arg), 1);
        assert_near(dbeta[j], difference(norm_loss, xd, BETA + j, &arg), 1);
    }
}

static void batch_norm(void **state)
{
    (void)state;
    for (enum mix__act act = MIX__ACT_NONE; act < MIX__ACTS; act++)
        check_norm(act);
}

/* ---- depthwise convolution ---- */

enum { SIDE = 7, TAPS = 25 * C, PIXELS = SIDE * SIDE * C };

struct dw_arg {
    const struct mix__dw_shape *s;
    const float *dy;
};

/* x is the image followed by the weights. */
static double dw_loss(const double *x, const void *arg)
{
    const struct dw_arg *a = arg;
    const struct mix__dw_shape *s = a->s;
    double sum = 0;
    for (int i = 0; i < s->oh * s->ow; i++)
        for (int t = 0; t < s->kernel * s->kernel; t++) {
            const int row = i / s->ow * s->stride - s->pad + t / s->kernel;
            const int col = i % s->ow * s->stride - s->pad + t % s->kernel;
            if (row < 0 || row >= s->h || col < 0 || col >= s->w)
                continue;
            for (int k = 0; k < C; k++)
                sum += a->dy[i * C + k] * x[(row * s->w + col) * C + k] * x[PIXELS + t * C + k];
        }
    return sum;
}

static void check_depthwise(int kernel, int stride, int pad)
{
    const int out = (SIDE + 2 * pad - kernel) / stride + 1;
    const struct mix__dw_shape s = { SIDE, SIDE, C, out, out, kernel, stride, pad, 0, 0 };
    float x[PIXELS + TAPS], dy[2 * PIXELS], dx[PIXELS], dw[TAPS] = { 0 };
    double xd[PIXELS + TAPS];
    fill(x, PIXELS + TAPS, 8, -1, 1);
    fill(dy, (size_t)(out * out * C), 9, -1, 1);
    for (size_t i = 0; i < PIXELS + TAPS; i++)
        xd[i] = x[i];
    const struct mix__dw_back to = { dw, mix__f32(dx), NULL, false, 0, out, 0, SIDE };
    loops.dw_backward(&to, &(struct mix__dw_input){ .z = mix__f32(x) },
                      &(struct mix__dw_gradient){ .du = mix__f32(dy) }, x + PIXELS, &s);
    const struct dw_arg arg = { &s, dy };
    /* Every channel of some places, at strides that share no factor with C. */
    for (size_t i = 0; i < PIXELS; i += 11)
        assert_near(dx[i], difference(dw_loss, xd, i, &arg), 1);
    for (size_t i = 0; i < (size_t)(kernel * kernel * C); i += 5)
        assert_near(dw[i], difference(dw_loss, xd, PIXELS + i, &arg), 1);
}

static void depthwise(void **state)
{
    (void)state;
    check_depthwise(3, 1, 1);
    check_depthwise(3, 2, 1);
    check_depthwise(5, 1, 2);
    check_depthwise(5, 2, 2);
    check_depthwise(3, 2, 0);
}

/* ---- quantizer ---- */

static void check_quantizer(int branches, mix_range range)
{
    float x[N], dy[N], dx[N];
    struct mix__fake fake = { .n_branch = branches };
    struct mix__fake_sums sums = { 0 };
    double step[MIX__BRANCH_MAX] = { 0 }, weight[MIX__BRANCH_MAX] = { 0 };
    fill(x, N, 10, range == MIX_RANGE_UNSIGNED ? 0 : -3, 9);
    fill(dy, N, 11, -1, 1);
    for (int k = 0; k < branches; k++) {
        fake.bounds[k] = mix__bounds_activation(2 + k, range);
        fake.step[k] = 0.37f / (float)(k + 1);
        fake.weight[k] = branches > 1 ? 0.1f * (float)(k + 1) : 99.0f;
    }
    loops.fake_backward(mix__f32(dx), mix__f32(dy), mix__f32(x), N, 0, &fake, &sums);
    for (size_t i = 0; i < N; i++) {
        double slope = 0;
        bool near_boundary = false;
        for (int k = 0; k < branches; k++) {
            const double n = fake.bounds[k].n, p = fake.bounds[k].p, s = fake.step[k];
            const double v = ((double)x[i] + fake.bounds[k].shift) / s;
            const double q = nearbyint(fmin(fmax(v, n), p));
            const double w = branches > 1 ? fake.weight[k] : 1;
            near_boundary |=
                fabs(v - floor(v) - 0.5) < 1e-4 || fabs(v - n) < 1e-4 || fabs(v - p) < 1e-4;
            slope += v >= n && v <= p ? w : 0;
            step[k] += dy[i] * w * (v < n ? n : v > p ? p : q - v);
            weight[k] += dy[i] * (s * q - fake.bounds[k].shift);
        }
        if (!near_boundary)
            assert_near(dx[i], dy[i] * slope, 1);
    }
    for (int k = 0; k < branches; k++) {
        assert_near(sums.step[k], step[k], N);
        assert_near(sums.weight[k], branches > 1 ? weight[k] : 0, N);
    }
}

static void quantizer(void **state)
{
    (void)state;
    for (mix_range range = MIX_RANGE_SIGNED; range <= MIX_RANGE_SHIFTED; range++) {
        check_quantizer(1, range);
        check_quantizer(4, range);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activation),
        cmocka_unit_test(batch_norm),
        cmocka_unit_test(depthwise),
        cmocka_unit_test(quantizer),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
