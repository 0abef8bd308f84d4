#include <assert.h>
#include <math.h>

#include "train/train.h"

/* log of the sum of exp(x): softmax(x)[c] = exp(x[c] - log_sum_exp(x)). */
static double log_sum_exp(const float *x, int classes)
{
    float max = x[0];
    for (int c = 1; c < classes; c++)
        max = x[c] > max ? x[c] : max;
    double sum = 0.0;
    for (int c = 0; c < classes; c++)
        sum += exp((double)x[c] - max);
    return max + log(sum);
}

/* Classes before the label when sorted by falling logit, ties by index; whatever is not a
 * number comes first, so that it is never a hit. */
static int rank_of(const float *logits, int label, int classes)
{
    int rank = 0;
    for (int c = 0; c < classes; c++) {
        const bool behind = logits[c] < logits[label] || (logits[c] == logits[label] && c > label);
        rank += c != label && !behind;
    }
    return rank;
}

/* One image: its loss, and dlogits = factor * (softmax(logits) - target). */
static double row_loss(const float *logits, const float *teacher, int label, int classes,
                       double factor, float *dlogits)
{
    const double lse = log_sum_exp(logits, classes);
    const double teacher_lse = teacher ? log_sum_exp(teacher, classes) : 0.0;
    double loss = teacher ? 0.0 : lse - logits[label];
    for (int c = 0; c < classes && (teacher || dlogits); c++) {
        const double target = teacher ? exp(teacher[c] - teacher_lse) : c == label;
        if (teacher)
            loss += target * (lse - logits[c]);
        if (dlogits)
            dlogits[c] = (float)(factor * (exp(logits[c] - lse) - target));
    }
    return loss;
}

struct mix__loss mix__loss_eval(const float *logits, const float *teacher, const int *labels, int n,
                                int classes, float scale, float *dlogits)
{
    struct mix__loss sum = { 0 };
    assert(n > 0 && classes > 0);
    for (int i = 0; i < n; i++) {
        const size_t row = (size_t)i * (size_t)classes;
        assert(labels[i] >= 0 && labels[i] < classes);
        sum.loss += row_loss(logits + row, teacher ? teacher + row : NULL, labels[i], classes,
                             (double)scale / n, dlogits ? dlogits + row : NULL);
        const int rank = rank_of(logits + row, labels[i], classes);
        sum.top1 += rank < 1;
        sum.top5 += rank < 5;
    }
    sum.loss /= n;
    return sum;
}
