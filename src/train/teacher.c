/*
 * train/teacher.c - a batch as the teacher sees it: at its image size and in its normalisation.
 */
#include "base/clock.h"
#include "data/image.h"
#include "train/trainer.h"

/* Between which two of n places output i of m lies, and how far on: pixel centers of both grids
 * cover the same length, as in PyTorch's interpolate(mode="bilinear", align_corners=False). */
struct between {
    int low, high;
    float part;
};

static struct between between(int i, int m, int n)
{
    const double at = ((double)i + 0.5) * n / m - 0.5;
    const int low = at > 0.0 ? (int)at : 0;
    return (struct between){ low, low < n - 1 ? low + 1 : low, (float)(at > 0.0 ? at - low : 0.0) };
}

/* One image of (from, from, c) to (to, to, c): scale * bilinear + offset. */
static void enlarge(float *out, int to, const float *in, int from, int c, const float *scale,
                    const float *offset)
{
    for (int y = 0; y < to; y++) {
        const struct between v = between(y, to, from);
        const float *top = in + (size_t)v.low * from * c, *bottom = in + (size_t)v.high * from * c;
        for (int x = 0; x < to; x++) {
            const struct between h = between(x, to, from);
            for (int k = 0; k < c; k++) {
                const float a = top[h.low * c + k], b = top[h.high * c + k];
                const float p = bottom[h.low * c + k], q = bottom[h.high * c + k];
                const float upper = a + h.part * (b - a), lower = p + h.part * (q - p);
                *out++ = scale[k] * (upper + v.part * (lower - upper)) + offset[k];
            }
        }
    }
}

/* (x dev + mean - to_mean) / to_dev as scale * x + offset. */
static void renormalise(mix_normalize from, mix_normalize to, float scale[3], float offset[3])
{
    float mean[3], deviation[3], to_mean[3], to_deviation[3];
    for (int k = 0; k < 3; k++) {
        scale[k] = 1.0f;
        offset[k] = 0.0f;
    }
    if (from == to)
        return;
    mix__normalize_values(from, mean, deviation);
    mix__normalize_values(to, to_mean, to_deviation);
    for (int k = 0; k < 3; k++) {
        scale[k] = deviation[k] / to_deviation[k];
        offset[k] = (mean[k] - to_mean[k]) / to_deviation[k];
    }
}

void mix__teacher_feed(struct mix__engine *teacher, const mix_graph *from,
                       const struct mix__batch *batch)
{
    const mix_graph *to = mix__engine_state(teacher)->graph;
    const struct mix__tensor *image = &from->tensors[0], *wanted = &to->tensors[0];
    const size_t in = (size_t)image->h * image->w * image->c;
    const size_t out = (size_t)wanted->h * wanted->w * wanted->c;
    float scale[3], offset[3];
    if (image->h == wanted->h && from->normalize == to->normalize) {
        mix__engine_feed(teacher, batch);
        return;
    }
    renormalise(from->normalize, to->normalize, scale, offset);
    float *input = mix__engine_input(teacher);
#pragma omp parallel for schedule(static)
    for (int n = 0; n < batch->count; n++)
        enlarge(input + (size_t)n * out, wanted->h, batch->images + (size_t)n * in, image->h,
                image->c, scale, offset);
}

mix_status mix__trainer_teach(struct mix__trainer *t, const struct mix__batch *batch)
{
    const struct mix__pass pass = { .batch_stats = false };
    if (!t->teacher)
        return MIX_OK;
    const double began = mix__clock();
    mix__teacher_feed(t->teacher, t->state->graph, batch);
    MIX_TRY(mix__engine_forward(t->teacher, &pass, &t->teacher_logits));
    if (t->profiler)
        t->profiler->teacher += mix__clock() - began;
    return MIX_OK;
}
