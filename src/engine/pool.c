/*
 * engine/pool.c - max pool with the batch norm and activation before it, and global average pool.
 */
#include <string.h>

#include "engine/engine_inside.h"

static struct mix__pool_shape shape_of(const struct mix__step *s)
{
    return (struct mix__pool_shape){ s->in.h,  s->in.w,         s->in.c,         s->out.h,
                                     s->out.w, s->node->kernel, s->node->stride, s->node->pad };
}

/* Which of its window each value is; NULL: nobody asks. */
static uint8_t *where_at(const struct mix__engine *e, const struct mix__step *s, size_t pixel)
{
    return s->where < 0 ? NULL : mix__buffer_at(e, s->where, pixel, s->out.c).at;
}

void mix__maxpool_forward(const struct mix__engine *e, const struct mix__step *s)
{
    const struct mix__pool_shape shape = shape_of(s);
    const struct mix__affine affine =
        s->before >= 0 ? mix__norm_affine(e, &e->plan.steps[s->before]) : (struct mix__affine){ 0 };
#pragma omp parallel for schedule(static)
    for (int row = 0; row < e->plan.batch * shape.oh; row++) {
        const size_t out = (size_t)row * shape.ow, image = (size_t)(row / shape.oh);
        e->loops.maxpool(mix__buffer_at(e, s->y, out, shape.c), where_at(e, s, out),
                         mix__buffer_at(e, s->x[0], image * shape.h * shape.w, shape.c), &affine,
                         &shape, row % shape.oh);
    }
}

/* The gradient of these rows, of all images', and what it is behind the batch norm. */
static void maxpool_backward_part(struct mix__engine *e, const struct mix__step *s, int part)
{
    const struct mix__pool_shape shape = shape_of(s);
    const size_t rows = (size_t)e->plan.batch * shape.h, to = mix__part_row(rows, part + 1);
    for (size_t row = mix__part_row(rows, part); row < to; row++) {
        const size_t in = row * shape.w, image = row / shape.h;
        const size_t out = image * shape.oh * shape.ow;
        const struct mix__values dx = mix__buffer_at(e, s->dx[0], in, shape.c);
        e->loops.maxpool_backward(dx, mix__buffer_at(e, s->dy, out, shape.c), where_at(e, s, out),
                                  s->accumulate[0], &shape, (int)(row % shape.h));
        if (s->before >= 0)
            mix__norm_back_add(e, &e->plan.steps[s->before], &mix__not_quantized, part,
                               &(struct mix__norm_piece){ dx, dx,
                                                          mix__buffer_at(e, s->x[0], in, shape.c),
                                                          (size_t)shape.w, false });
    }
}

void mix__maxpool_backward(struct mix__engine *e, const struct mix__step *s, unsigned what)
{
    const struct mix__step *norm = s->before >= 0 ? &e->plan.steps[s->before] : NULL;
#pragma omp parallel for schedule(static)
    for (int part = 0; part < MIX__PARTS; part++) {
        if (norm)
            mix__norm_back_begin(e, s, part);
        maxpool_backward_part(e, s, part);
    }
    if (norm)
        mix__norm_back_settle(e, norm, MIX__PARTS, what);
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
                mix__convert(e, to, mix__f32(share), c);
        }
    }
}
