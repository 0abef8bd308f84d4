/*
 * golden_quantizer.c - every table of loops against PyTorch's autograd on the plain formula: ties,
 * bounds, all bit-widths and ranges, weights by channel, mixtures. make_quantizer.py says how.
 */
#include "golden.h"

#include "engine/loops.h"

enum { MAX_VALUES = 256 };

static mix_ctx *ctx;
static struct mix__st_file *file;

static struct mix__bounds bounds_of(const char *kind, int bits)
{
    if (strcmp(kind, "weight") == 0)
        return mix__bounds_weight(bits);
    return mix__bounds_activation(bits, strcmp(kind, "signed") == 0     ? MIX_RANGE_SIGNED
                                        : strcmp(kind, "unsigned") == 0 ? MIX_RANGE_UNSIGNED
                                                                        : MIX_RANGE_SHIFTED);
}

static double step_factor(size_t numel, const struct mix__bounds *b)
{
    return 1.0 / sqrt((double)numel * b->p);
}

/* What float arithmetic may do to a sum of dy * (q - v): v has |v| <= p or so, and 24 bits. */
static double sum_error(const float *dy, size_t n, const struct mix__bounds *b)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += fabs(dy[i]);
    return 1e-7 * b->p * sum;
}

/* One quantizer over n of the numel values that share their gradient's factor. Bit for bit but for
 * the step's gradient. */
static void check_one(const struct mix__loops *loops, const char *name, size_t at, size_t n,
                      size_t channel, const struct mix__bounds *bounds)
{
    size_t numel;
    const float *x = (const float *)golden(file, MIX__ST_F32, &numel, "%s.x", name) + at;
    const float *dy = (const float *)golden(file, MIX__ST_F32, NULL, "%s.dy", name) + at;
    const float *y = (const float *)golden(file, MIX__ST_F32, NULL, "%s.y", name) + at;
    const double *dx = (const double *)golden(file, MIX__ST_F64, NULL, "%s.dx", name) + at;
    const float *step = golden(file, MIX__ST_F32, NULL, "%s.step", name);
    const double *dstep = golden(file, MIX__ST_F64, NULL, "%s.dstep", name);
    const struct mix__fake fake = { .n_branch = 1,
                                    .bounds = { *bounds },
                                    .step = { step[channel] } };
    float out[MAX_VALUES], din[MAX_VALUES];
    struct mix__fake_sums sums = { 0 };
    assert_true(n <= MAX_VALUES);

    loops->fake_forward(mix__f32(out), mix__f32(x), n, &fake);
    loops->fake_backward(mix__f32(din), mix__f32(dy), mix__f32(x), n, 0, &fake, &sums);
    for (size_t i = 0; i < n; i++) {
        if (out[i] != y[i])
            fail_msg("%s: Q(%.9g) is %.9g, PyTorch has %.9g", name, x[i], out[i], y[i]);
        if (din[i] != dx[i])
            fail_msg("%s: dx at %.9g is %.9g, PyTorch has %.9g", name, x[i], din[i], dx[i]);
    }
    const double g = step_factor(numel, bounds), found = g * sums.step[0];
    if (!(fabs(found - dstep[channel]) <= g * sum_error(dy, n, bounds)))
        fail_msg("%s: dstep is %.12g, PyTorch has %.12g", name, found, dstep[channel]);
}

static void check_activations(const struct mix__loops *loops)
{
    static const char *const kinds[] = { "signed", "unsigned", "shifted" };
    static const char *const grids[] = { "dyadic", "odd" };
    for (int bits = MIX_BITS_MIN; bits <= MIX_BITS_MAX; bits++)
        for (size_t k = 0; k < MIX_COUNT(kinds); k++)
            for (size_t grid = 0; grid < MIX_COUNT(grids); grid++) {
                const struct mix__bounds bounds = bounds_of(kinds[k], bits);
                char name[64];
                size_t n;
                snprintf(name, sizeof name, "one.%s.%d.%s", kinds[k], bits, grids[grid]);
                golden(file, MIX__ST_F32, &n, "%s.x", name);
                check_one(loops, name, 0, n, 0, &bounds);
            }
}

static void check_weights(const struct mix__loops *loops)
{
    static const char *const grids[] = { "dyadic", "odd" };
    for (int bits = MIX_BITS_MIN; bits <= MIX_BITS_MAX; bits++)
        for (size_t grid = 0; grid < MIX_COUNT(grids); grid++) {
            const struct mix__bounds bounds = bounds_of("weight", bits);
            char name[64];
            size_t numel, channels;
            snprintf(name, sizeof name, "weight.%d.%s", bits, grids[grid]);
            golden(file, MIX__ST_F32, &numel, "%s.x", name);
            golden(file, MIX__ST_F32, &channels, "%s.step", name);
            for (size_t c = 0; c < channels; c++)
                check_one(loops, name, c * numel / channels, numel / channels, c, &bounds);
        }
}

static void check_mixture(const struct mix__loops *loops, const char *kind, const int *candidate,
                          int m)
{
    char name[64];
    size_t n;
    snprintf(name, sizeof name, "mixture.%s.%d", kind, m);
    const float *x = golden(file, MIX__ST_F32, &n, "%s.x", name);
    const float *dy = golden(file, MIX__ST_F32, NULL, "%s.dy", name);
    const float *y = golden(file, MIX__ST_F32, NULL, "%s.y", name);
    const double *dx = golden(file, MIX__ST_F64, NULL, "%s.dx", name);
    const float *step = golden(file, MIX__ST_F32, NULL, "%s.step", name);
    const float *alpha = golden(file, MIX__ST_F32, NULL, "%s.alpha", name);
    const double *dstep = golden(file, MIX__ST_F64, NULL, "%s.dstep", name);
    const double *dalpha = golden(file, MIX__ST_F64, NULL, "%s.dalpha", name);
    struct mix__fake fake = { .n_branch = m };
    struct mix__fake_sums sums = { 0 };
    float out[MAX_VALUES], din[MAX_VALUES];
    double total = 0.0, mean = 0.0;
    assert_true(n <= MAX_VALUES);
    for (int b = 0; b < m; b++)
        total += exp(alpha[b]);
    for (int b = 0; b < m; b++) {
        fake.bounds[b] = bounds_of(kind, candidate[b]);
        fake.step[b] = step[b];
        fake.weight[b] = (float)(exp(alpha[b]) / total);
    }

    loops->fake_forward(mix__f32(out), mix__f32(x), n, &fake);
    loops->fake_backward(mix__f32(din), mix__f32(dy), mix__f32(x), n, 0, &fake, &sums);
    check_close(name, out, y, n, 1e-6, 0.0);
    for (size_t i = 0; i < n; i++)
        if (!(fabs(din[i] - dx[i]) <= 1e-6 * fabs(dy[i])))
            fail_msg("%s: dx at %.9g is %.9g, PyTorch has %.9g", name, x[i], din[i], dx[i]);
    for (int b = 0; b < m; b++) {
        const double g = step_factor(n, &fake.bounds[b]), found = g * sums.step[b];
        if (!(fabs(found - dstep[b]) <= 2 * g * sum_error(dy, n, &fake.bounds[b])))
            fail_msg("%s: dstep of %d bits is %.12g, PyTorch has %.12g", name, candidate[b], found,
                     dstep[b]);
        mean += fake.weight[b] * sums.weight[b];
    }
    /* Through the softmax: p_b (dp_b - sum_j p_j dp_j). */
    for (int b = 0; b < m; b++) {
        const double found = fake.weight[b] * (sums.weight[b] - mean);
        if (!(fabs(found - dalpha[b]) <= 1e-5 * fmax(1.0, fabs(dalpha[b]))))
            fail_msg("%s: dalpha of %d bits is %.12g, PyTorch has %.12g", name, candidate[b], found,
                     dalpha[b]);
    }
}

static void check_mixtures(const struct mix__loops *loops)
{
    static const char *const kinds[] = { "signed", "unsigned", "shifted" };
    static const int four[] = { 2, 3, 4, 8 }, all[] = { 2, 3, 4, 5, 6, 7, 8 };
    for (size_t k = 0; k < MIX_COUNT(kinds); k++) {
        check_mixture(loops, kinds[k], four, MIX_COUNT(four));
        check_mixture(loops, kinds[k], all, MIX_COUNT(all));
    }
}

static void check_table(unsigned flags)
{
    struct mix__loops loops;
    if ((mix_ctx_cpu(ctx) & flags) != flags) {
        print_message("skipped: not this CPU's\n");
        return;
    }
    mix__loops_init(&loops, flags);
    check_activations(&loops);
    check_weights(&loops);
    check_mixtures(&loops);
}

static void test_c(void **state)
{
    (void)state;
    check_table(0);
}

static void test_avx2(void **state)
{
    (void)state;
    check_table(MIX_CPU_AVX2);
}

static void test_avx512(void **state)
{
    (void)state;
    check_table(MIX_CPU_AVX2 | MIX_CPU_AVX512);
}

static int setup(void **state)
{
    (void)state;
    ctx = plain_ctx();
    file = golden_open(ctx, "quantizer.safetensors");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mix__st_close(file);
    mix_ctx_free(ctx);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_c),
        cmocka_unit_test(test_avx2),
        cmocka_unit_test(test_avx512),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
