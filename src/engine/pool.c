/*
 * engine/pool.c - max pool and global average pool, one image to a thread at a time.
 */
#include <math.h>
#include <string.h>

#include "engine/inside.h"

/* The part of a max pool's window that lies inside the picture, for one place of the output. */
struct window {
    int top, left, bottom, right;
};

static struct window window_at(const struct mix__step *s, int row, int col)
{
    const struct mix__node *node = s->node;
    const int top = row * node->stride - node->pad, left = col * node->stride - node->pad;
    const int bottom = top + node->kernel, right = left + node->kernel;
    return (struct window){ top > 0 ? top : 0, left > 0 ? left : 0,
                            bottom < s->in.h ? bottom : s->in.h,
                            right < s->in.w ? right : s->in.w };
}

static void largest(float *y, const float *x, const struct mix__step *s, struct window w)
{
    const int c = s->in.c;
    for (int i = 0; i < c; i++)
        y[i] = -INFINITY;
    for (int h = w.top; h < w.bottom; h++)
        for (int q = w.left; q < w.right; q++) {
            const float *at = x + ((size_t)h * s->in.w + q) * c;
            for (int i = 0; i < c; i++)
                y[i] = at[i] <= y[i] ? y[i] : at[i]; /* not a number stays so */
        }
}

void mix__maxpool_forward(const struct mix__engine *e, const struct mix__step *s)
{
    const float *x = mix__engine_at(e, s->x[0]);
    float *y = mix__engine_at(e, s->y);
    const size_t c = (size_t)s->in.c, image = (size_t)s->in.h * s->in.w * c;
    const size_t pixels = (size_t)s->out.h * s->out.w;
#pragma omp parallel for schedule(static)
    for (int n = 0; n < e->plan.batch; n++)
        for (size_t p = 0; p < pixels; p++)
            largest(y + (n * pixels + p) * c, x + n * image, s,
                    window_at(s, (int)p / s->out.w, (int)p % s->out.w));
}

/* The gradient goes to the first of equal values, as in PyTorch. */
static void give_to_largest(float *dx, const float *dy, const float *x, const struct mix__step *s,
                            struct window w)
{
    const size_t c = (size_t)s->in.c;
    for (size_t i = 0; i < c; i++) {
        size_t best = ((size_t)w.top * s->in.w + w.left) * c + i;
        for (int h = w.top; h < w.bottom; h++)
            for (int q = w.left; q < w.right; q++) {
                const size_t at = ((size_t)h * s->in.w + q) * c + i;
                best = x[at] > x[best] ? at : best;
            }
        dx[best] += dy[i];
    }
}

void mix__maxpool_backward(const struct mix__engine *e, const struct mix__step *s)
{
    const float *x = mix__engine_at(e, s->x[0]), *dy = mix__engine_at(e, s->dy);
    float *dx = mix__engine_at(e, s->dx[0]);
    const size_t c = (size_t)s->in.c, image = (size_t)s->in.h * s->in.w * c;
    const size_t pixels = (size_t)s->out.h * s->out.w;
#pragma omp parallel for schedule(static)
    for (int n = 0; n < e->plan.batch; n++) {
        if (!s->accumulate[0])
            memset(dx + n * image, 0, image * sizeof *dx);
        for (size_t p = 0; p < pixels; p++)
            give_to_largest(dx + n * image, dy + (n * pixels + p) * c, x + n * image, s,
                            window_at(s, (int)p / s->out.w, (int)p % s->out.w));
    }
}

void mix__avgpool_forward(const struct mix__engine *e, const struct mix__step *s)
{
    const float *x = mix__engine_at(e, s->x[0]);
    float *y = mix__engine_at(e, s->y);
    const size_t c = (size_t)s->in.c, pixels = (size_t)s->in.h * s->in.w;
#pragma omp parallel for schedule(static)
    for (int n = 0; n < e->plan.batch; n++) {
        float *out = y + (size_t)n * c;
        memset(out, 0, c * sizeof *out);
        for (size_t i = 0; i < pixels; i++)
            e->loops.add(out, out, x + ((size_t)n * pixels + i) * c, c);
        for (size_t i = 0; i < c; i++)
            out[i] /= (float)pixels;
    }
}

void mix__avgpool_backward(const struct mix__engine *e, const struct mix__step *s)
{
    const float *dy = mix__engine_at(e, s->dy);
    float *dx = mix__engine_at(e, s->dx[0]);
    const size_t c = (size_t)s->in.c, pixels = (size_t)s->in.h * s->in.w;
#pragma omp parallel for schedule(static)
    for (int n = 0; n < e->plan.batch; n++) {
        for (size_t i = 0; i < pixels; i++) {
            float *to = dx + ((size_t)n * pixels + i) * c;
            for (size_t j = 0; j < c; j++) {
                const float g = dy[(size_t)n * c + j] / (float)pixels;
                to[j] = s->accumulate[0] ? to[j] + g : g;
            }
        }
    }
}
