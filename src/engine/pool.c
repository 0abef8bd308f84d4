/*
 * engine/pool.c - max pool and global average pool, one image to a thread at a time.
 */
#include <string.h>

#include "engine/engine_inside.h"

/* The part of a max pool's window that lies inside the picture, for one place of the output. */
static struct mix__pool_window window_at(const struct mix__step *s, int row, int col)
{
    const struct mix__node *node = s->node;
    const int top = row * node->stride - node->pad, left = col * node->stride - node->pad;
    const int h = top > 0 ? top : 0, w = left > 0 ? left : 0;
    const int bottom = top + node->kernel, right = left + node->kernel;
    const size_t pixel = (size_t)s->in.c, width = pixel * s->in.w;
    return (struct mix__pool_window){ .first = (size_t)h * width + (size_t)w * pixel,
                                      .pixel = pixel,
                                      .row = width,
                                      .rows = (bottom < s->in.h ? bottom : s->in.h) - h,
                                      .cols = (right < s->in.w ? right : s->in.w) - w };
}

/* Of one image: y, or (dx given) dx += y at the first of equal values, as in PyTorch. */
static void maxpool_image(const struct mix__engine *e, const struct mix__step *s,
                          struct mix__values x, struct mix__values y, const struct mix__values *dx)
{
    const size_t c = (size_t)s->in.c;
    const int pixels = s->out.h * s->out.w;
    for (int p = 0; p < pixels; p++) {
        const struct mix__pool_window w = window_at(s, p / s->out.w, p % s->out.w);
        const struct mix__values at = mix__values_from(y, (size_t)p * c);
        if (dx)
            e->loops.maxpool_backward(*dx, at, x, &w, c);
        else
            e->loops.maxpool(at, x, &w, c);
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
        maxpool_image(e, s, mix__values_from(x, n * image_size(&s->in)),
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
        maxpool_image(e, s, mix__values_from(x, n * image),
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

/* dy becomes what each pixel gets of it. */
void mix__avgpool_backward(const struct mix__engine *e, const struct mix__step *s)
{
    float *dy = mix__engine_floats(e, s->dy);
    const struct mix__values dx = mix__engine_at(e, s->dx[0]);
    const size_t c = (size_t)s->in.c, pixels = (size_t)s->in.h * s->in.w;
#pragma omp parallel for schedule(static)
    for (int n = 0; n < e->plan.batch; n++) {
        float *share = dy + (size_t)n * c;
        for (size_t j = 0; j < c; j++)
            share[j] /= (float)pixels;
        for (size_t i = 0; i < pixels; i++) {
            const struct mix__values to = mix__values_from(dx, ((size_t)n * pixels + i) * c);
            if (s->accumulate[0])
                e->loops.add(to, to, mix__f32(share), c);
            else
                e->loops.act_forward(to, mix__f32(share), c, MIX__ACT_NONE);
        }
    }
}
