#include "support.h"

#include <math.h>

#include "base/random.h"
#include "metamix/run.h"
#include "train/train.h"

enum { N = 6, CLASSES = 11 };

struct sample {
    float logits[N * CLASSES], teacher[N * CLASSES];
    int labels[N];
};

static struct sample sample(uint64_t seed)
{
    struct sample s;
    for (uint64_t i = 0; i < N * CLASSES; i++) {
        s.logits[i] = (float)(2.0 * mix__random_normal(seed, 1, i));
        s.teacher[i] = (float)(2.0 * mix__random_normal(seed, 2, i));
    }
    for (uint64_t i = 0; i < N; i++)
        s.labels[i] = (int)(mix__random_u64(seed, 3, i) % CLASSES);
    return s;
}

static void softmax(double *p, const double *x)
{
    double sum = 0.0;
    for (int c = 0; c < CLASSES; c++)
        sum += p[c] = exp(x[c]);
    for (int c = 0; c < CLASSES; c++)
        p[c] /= sum;
}

/* The formula as it is written down, of logits in double. */
static double mean_loss(const double *logits, const struct sample *s, bool soft)
{
    double loss = 0.0;
    for (int i = 0; i < N; i++) {
        double x[CLASSES], p[CLASSES], target[CLASSES];
        for (int c = 0; c < CLASSES; c++)
            x[c] = s->teacher[i * CLASSES + c];
        softmax(target, x);
        softmax(p, logits + i * CLASSES);
        for (int c = 0; c < CLASSES; c++)
            loss -= (soft ? target[c] : c == s->labels[i]) * log(p[c]);
    }
    return loss / N;
}

static void check_sample(const struct sample *s, bool soft, float scale)
{
    const double h = 1e-5;
    double x[N * CLASSES];
    float dlogits[N * CLASSES];
    for (int i = 0; i < N * CLASSES; i++)
        x[i] = s->logits[i];
    const float *teacher = soft ? s->teacher : NULL;
    const struct mix__loss l =
        mix__loss_eval(s->logits, teacher, s->labels, N, CLASSES, scale, dlogits);
    assert_true(fabs(l.loss - mean_loss(x, s, soft)) < 1e-12);
    for (int i = 0; i < N * CLASSES; i++) {
        const double at = x[i];
        x[i] = at + h;
        const double above = mean_loss(x, s, soft);
        x[i] = at - h;
        const double below = mean_loss(x, s, soft);
        x[i] = at;
        const double expected = scale * (above - below) / (2.0 * h);
        if (!(fabs(dlogits[i] - expected) < 1e-7 * scale))
            fail_msg("logit %d: expected %.9g, found %.9g", i, expected, dlogits[i]);
    }
    const struct mix__loss again =
        mix__loss_eval(s->logits, teacher, s->labels, N, CLASSES, scale, NULL);
    assert_memory_equal(&again, &l, sizeof l);
}

static void test_formulas(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        const struct sample s = sample(seed);
        check_sample(&s, false, 1.0f);
        check_sample(&s, false, 0.25f);
        check_sample(&s, true, 1.0f);
        check_sample(&s, true, 3.0f);
    }
}

/* A student equal to its teacher has no gradient, and the teacher's entropy as its loss. */
static void test_own_teacher(void **state)
{
    (void)state;
    struct sample s = sample(5);
    float dlogits[N * CLASSES];
    memcpy(s.teacher, s.logits, sizeof s.logits);
    const struct mix__loss l =
        mix__loss_eval(s.logits, s.teacher, s.labels, N, CLASSES, 1.0f, dlogits);
    assert_true(l.loss > 0.0 && l.loss < log(CLASSES));
    for (int i = 0; i < N * CLASSES; i++)
        assert_true(dlogits[i] == 0.0f);
}

static void test_known(void **state)
{
    (void)state;
    const float even[4] = { 7.0f, 7.0f, 7.0f, 7.0f };
    const float extreme[4] = { -3e38f, 3e38f, 0.0f, 0.0f };
    float dlogits[4];
    struct mix__loss l = mix__loss_eval(even, NULL, (int[]){ 2 }, 1, 4, 1.0f, dlogits);
    assert_true(fabs(l.loss - log(4.0)) < 1e-15);
    for (int c = 0; c < 4; c++)
        assert_true(dlogits[c] == (c == 2 ? -0.75f : 0.25f));
    l = mix__loss_eval(extreme, NULL, (int[]){ 1 }, 1, 4, 1.0f, dlogits);
    assert_true(l.loss == 0.0);
    l = mix__loss_eval(extreme, NULL, (int[]){ 0 }, 1, 4, 1.0f, dlogits);
    assert_true(l.loss > 5.9e38 && isfinite(l.loss));
    assert_true(dlogits[0] == -1.0f && dlogits[1] == 1.0f && dlogits[2] == 0.0f);
}

static void check_rank(const float *logits, int classes, int label, int top1, int top5)
{
    const struct mix__loss l = mix__loss_eval(logits, NULL, &label, 1, classes, 1.0f, NULL);
    assert_int_equal(l.top1, top1);
    assert_int_equal(l.top5, top5);
}

static void test_ranks(void **state)
{
    (void)state;
    const float logits[7] = { 6.0f, 1.0f, 7.0f, 3.0f, 2.0f, 5.0f, 4.0f };
    check_rank(logits, 7, 2, 1, 1);
    check_rank(logits, 7, 0, 0, 1);
    check_rank(logits, 7, 3, 0, 1);
    check_rank(logits, 7, 4, 0, 0);
    check_rank(logits, 7, 1, 0, 0);
    const float ties[7] = { 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f }; /* the first one wins */
    check_rank(ties, 7, 0, 1, 1);
    check_rank(ties, 7, 4, 0, 1);
    check_rank(ties, 7, 5, 0, 0);
    const float broken[7] = { NAN, NAN, NAN, NAN, NAN, NAN, NAN };
    check_rank(broken, 7, 0, 0, 0);
    check_rank(logits, 1, 0, 1, 1);
}

static void test_not_finite(void **state)
{
    (void)state;
    const float logits[4] = { 1.0f, NAN, 0.0f, 2.0f };
    assert_true(isnan(mix__loss_eval(logits, NULL, (int[]){ 0 }, 1, 4, 1.0f, NULL).loss));
    assert_true(isnan(mix__loss_eval(logits, logits, (int[]){ 0 }, 1, 4, 1.0f, NULL).loss));
}

/* Images taken in parts give what all of them give at once. */
static void test_accuracy(void **state)
{
    (void)state;
    const struct sample s = sample(9);
    const struct mix__loss all = mix__loss_eval(s.logits, NULL, s.labels, N, CLASSES, 1.0f, NULL);
    mix_accuracy a = { 0 };
    mix_accuracy_add(&a, s.logits, s.labels, 0, CLASSES);
    for (int i = 0, n = 1; i < N; i += n++) /* 1 + 2 + 3 */
        mix_accuracy_add(&a, s.logits + i * CLASSES, s.labels + i, n, CLASSES);
    assert_int_equal(a.images, N);
    assert_true(fabs(a.loss - all.loss) < 1e-12);
    assert_true(a.top1 == 100.0 * all.top1 / N && a.top5 == 100.0 * all.top5 / N);
    assert_in_range(all.top5, 1, N - 1); /* something was told apart */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formulas),   cmocka_unit_test(test_own_teacher),
        cmocka_unit_test(test_known),      cmocka_unit_test(test_ranks),
        cmocka_unit_test(test_not_finite), cmocka_unit_test(test_accuracy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
