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

enum { LANES = 64 };

/* n <= LANES values from number at on. */
static void get_few(float *to, struct mix__values x, size_t at, int n)
{
    if (x.dtype == MIX__DTYPE_F32)
        memcpy(to, (const float *)x.at + at, (size_t)n * sizeof *to);
    else
        for (int i = 0; i < n; i++)
            to[i] = mix__bf16_widen(((const uint16_t *)x.at)[at + (size_t)i]);
}

/* best (n) = the largest values of the window, and where they are; channels from first on. */
static void largest(float *best, size_t *where, struct mix__values x, const struct mix__step *s,
                    struct window w, int first, int n)
{
    float value[LANES];
    for (int i = 0; i < n; i++)
        best[i] = -INFINITY;
    for (int h = w.top; h < w.bottom; h++)
        for (int q = w.left; q < w.right; q++) {
            const size_t at = ((size_t)h * s->in.w + q) * s->in.c + first;
            get_few(value, x, at, n);
            for (int i = 0; i < n; i++) {
                const bool start = h == w.top && q == w.left;
                where[i] = start || value[i] > best[i] ? at + (size_t)i : where[i];
                best[i] = value[i] <= best[i] ? best[i] : value[i]; /* not a number stays so */
            }
        }
}

/* Of one image: y, or (dy given) dx += dy at the first of equal values, as in PyTorch. */
static void maxpool_image(const struct mix__step *s, struct mix__values x, struct mix__values y,
                          const struct mix__values *dx)
{
    const int c = s->in.c, pixels = s->out.h * s->out.w;
    float best[LANES];
    size_t where[LANES];
    for (int p = 0; p < pixels; p++)
        for (int first = 0, n; first < c; first += n) {
            n = c - first < LANES ? c - first : LANES;
            largest(best, where, x, s, window_at(s, p / s->out.w, p % s->out.w), first, n);
            for (int i = 0; i < n; i++) {
                const size_t at = (size_t)p * c + first + i;
                if (!dx)
                    mix__values_put(y, at, best[i]);
                else
                    mix__values_put(*dx, where[i],
                                    mix__values_get(*dx, where[i]) + mix__values_get(y, at));
            }
        }
}

static size_t image_size(const struct mix__tensor *t)
{
    return (size_t)t->h * t->w * t->c;
}

void mix__maxpool_forward(const struct mix__engine *e, const struct mix__step *s)
{
    const struct mix__values x = mix__engine_at(e, s->x[0]), y = mix__engine_at(e, s->y);
#pragma omp parallel for schedule(static)
    for (int n = 0; n < e->plan.batch; n++)
        maxpool_image(s, mix__values_from(x, n * image_size(&s->in)),
                      mix__values_from(y, n * image_size(&s->out)), NULL);
}

void mix__maxpool_backward(const struct mix__engine *e, const struct mix__step *s)
{
    const struct mix__values x = mix__engine_at(e, s->x[0]), dy = mix__engine_at(e, s->dy);
    const struct mix__values dx = mix__engine_at(e, s->dx[0]);
    const size_t image = image_size(&s->in);
#pragma omp parallel for schedule(static)
    for (int n = 0; n < e->plan.batch; n++) {
        const struct mix__values to = mix__values_from(dx, n * image);
        if (!s->accumulate[0])
            memset(to.at, 0, image * mix__dtype_size(to.dtype));
        maxpool_image(s, mix__values_from(x, n * image),
                      mix__values_from(dy, n * image_size(&s->out)), &to);
    }
}

void mix__avgpool_forward(const struct mix__engine *e, const struct mix__step *s)
{
    const struct mix__values x = mix__engine_at(e, s->x[0]);
    float *y = mix__engine_floats(e, s->y);
    const size_t c = (size_t)s->in.c, pixels = (size_t)s->in.h * s->in.w;
#pragma omp parallel for schedule(static)
    for (int n = 0; n < e->plan.batch; n++) {
        float *out = y + (size_t)n * c;
        memset(out, 0, c * sizeof *out);
        for (size_t i = 0; i < pixels; i++)
            e->loops.add(mix__f32(out), mix__f32(out),
                         mix__values_from(x, ((size_t)n * pixels + i) * c), c);
        for (size_t i = 0; i < c; i++)
            out[i] /= (float)pixels;
    }
}

void mix__avgpool_backward(const struct mix__engine *e, const struct mix__step *s)
{
    const float *dy = mix__engine_floats(e, s->dy);
    const struct mix__values dx = mix__engine_at(e, s->dx[0]);
    const size_t c = (size_t)s->in.c, pixels = (size_t)s->in.h * s->in.w;
#pragma omp parallel for schedule(static)
    for (int n = 0; n < e->plan.batch; n++)
        for (size_t i = 0; i < pixels; i++)
            for (size_t j = 0; j < c; j++) {
                const size_t at = ((size_t)n * pixels + i) * c + j;
                const float g = dy[(size_t)n * c + j] / (float)pixels;
                mix__values_put(dx, at, s->accumulate[0] ? mix__values_get(dx, at) + g : g);
            }
}
