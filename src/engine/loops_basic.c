/*
 * Loops of additions, activations of their own, gates and pools; loops_vec.h has what they compute
 * with.
 */
#include "engine/loops_strip.h"
#include "engine/loops_vec.h"

MIX__TEMPLATE void add_vec(size_t i, int lanes, struct mix__values y, struct mix__values a,
                           struct mix__values b)
{
    vec_store(y, i, vec_load(a, i, lanes) + vec_load(b, i, lanes), lanes);
}

MIX__TEMPLATE void add_as(struct mix__values y, struct mix__values a, struct mix__values b,
                          size_t n)
{
    for (size_t i = 0; i < n; i += WIDE) {
        const size_t m = MIN(WIDE, n - i);
        ahead(a, i, m, false);
        ahead(b, i, m, false);
        EACH_VEC(m, add_vec, mix__values_from(y, i), mix__values_from(a, i),
                 mix__values_from(b, i));
    }
}

static void add(struct mix__values y, struct mix__values a, struct mix__values b, size_t n)
{
    if (y.dtype == MIX__DTYPE_F32 && a.dtype == MIX__DTYPE_F32 && b.dtype == MIX__DTYPE_F32)
        add_as(F32(y), F32(a), F32(b), n);
    else if (y.dtype == MIX__DTYPE_BF16 && a.dtype == MIX__DTYPE_BF16 && b.dtype == MIX__DTYPE_BF16)
        add_as(BF16(y), BF16(a), BF16(b), n);
    else
        add_as(y, a, b, n);
}

MIX__TEMPLATE void act_vec(size_t i, int lanes, enum mix__act act, struct mix__values y,
                           struct mix__values x)
{
    vec_store(y, i, vec_activate(vec_load(x, i, lanes), act), lanes);
}

/* SPECIALISE's branches are not looked at. */
MIX__TEMPLATE void act_forward_as(enum mix__act act, int branches, struct mix__values y,
                                  struct mix__values x, size_t n)
{
    (void)branches;
    EACH_VEC(n, act_vec, act, y, x);
}

static void act_forward(struct mix__values y, struct mix__values x, size_t n, enum mix__act act)
{
    if (x.dtype == MIX__DTYPE_F32 && y.dtype == MIX__DTYPE_BF16)
        SPECIALISE(act_forward_as, act, 0, BF16(y), F32(x), n)
    else if (x.dtype == MIX__DTYPE_BF16 && y.dtype == MIX__DTYPE_F32)
        SPECIALISE(act_forward_as, act, 0, F32(y), BF16(x), n)
    else
        SPECIALISE(act_forward_as, act, 0, y, x, n)
}

MIX__TEMPLATE void act_back_vec(size_t i, int lanes, enum mix__act act, int accumulate,
                                struct mix__values dx, struct mix__values dy, struct mix__values x)
{
    const vec g = vec_activate_back(vec_load(dy, i, lanes), vec_load(x, i, lanes), act);
    vec_store(dx, i, accumulate ? vec_load(dx, i, lanes) + g : g, lanes);
}

MIX__TEMPLATE void act_backward_as(enum mix__act act, int accumulate, struct mix__values dx,
                                   struct mix__values dy, struct mix__values x, size_t n)
{
    EACH_VEC(n, act_back_vec, act, accumulate, dx, dy, x);
}

static void act_backward(struct mix__values dx, struct mix__values dy, struct mix__values x,
                         size_t n, int accumulate, enum mix__act act){
    SPECIALISE(act_backward_as, act, accumulate ? 1 : 0, dx, dy, x, n)
}

MIX__TEMPLATE void gate_vec(size_t i, int lanes, struct mix__values y, struct mix__values x,
                            const float *gate)
{
    vec_store(y, i, vec_load(x, i, lanes) * vec_get(gate + i, lanes), lanes);
}

static void gate_forward(struct mix__values y, struct mix__values x, const float *gate, size_t rows,
                         size_t c)
{
    for (size_t r = 0; r < rows; r++)
        EACH_VEC(c, gate_vec, mix__values_from(y, r * c), mix__values_from(x, r * c), gate);
}

MIX__TEMPLATE void gate_back_vec(size_t i, int lanes, struct mix__values dx, float *dgate,
                                 struct mix__values dy, struct mix__values x, const float *gate,
                                 int accumulate)
{
    const vec slope = vec_load(dy, i, lanes), g = slope * vec_get(gate + i, lanes);
    vec_put(dgate + i, vec_get(dgate + i, lanes) + slope * vec_load(x, i, lanes), lanes);
    vec_store(dx, i, accumulate ? vec_load(dx, i, lanes) + g : g, lanes);
}

static void gate_backward(struct mix__values dx, float *dgate, struct mix__values dy,
                          struct mix__values x, const float *gate, size_t rows, size_t c,
                          int accumulate)
{
    for (size_t r = 0; r < rows; r++)
        EACH_VEC(c, gate_back_vec, mix__values_from(dx, r * c), dgate, mix__values_from(dy, r * c),
                 mix__values_from(x, r * c), gate, accumulate);
}

static size_t window_tap(const struct mix__pool_window *w, int t)
{
    return w->first + (size_t)(t / w->cols) * w->row + (size_t)(t % w->cols) * w->pixel;
}

/* The largest value of the window and, in *where, the first tap that has it. */
MIX__TEMPLATE vec largest(struct mix__values x, const struct mix__pool_window *w, size_t i,
                          int lanes, vec *where)
{
    vec best = vec_all(-INFINITY);
    *where = (vec){ 0 };
    for (int t = 0; t < w->rows * w->cols; t++) {
        const vec v = vec_load(x, window_tap(w, t) + i, lanes);
        const vec_mask stays = vec_less(v, best) | vec_equal(v, best);
        best = vec_choose(stays, best, v);
        *where = vec_choose(stays, *where, vec_all((float)t));
    }
    return best;
}

MIX__TEMPLATE void pool_vec(size_t i, int lanes, struct mix__values y, struct mix__values x,
                            const struct mix__pool_window *w)
{
    vec where;
    vec_store(y, i, largest(x, w, i, lanes, &where), lanes);
}

MIX__TEMPLATE void pool_back_vec(size_t i, int lanes, struct mix__values dx, struct mix__values dy,
                                 struct mix__values x, const struct mix__pool_window *w)
{
    const vec g = vec_load(dy, i, lanes);
    vec where;
    (void)largest(x, w, i, lanes, &where);
    for (int t = 0; t < w->rows * w->cols; t++) {
        const size_t at = window_tap(w, t) + i;
        const vec mine = vec_keep(vec_equal(where, vec_all((float)t)), g);
        vec_store(dx, at, vec_load(dx, at, lanes) + mine, lanes);
    }
}

static void maxpool(struct mix__values y, struct mix__values x, const struct mix__pool_window *w,
                    size_t c)
{
    if (x.dtype == MIX__DTYPE_F32)
        EACH_VEC(c, pool_vec, y, F32(x), w);
    else
        EACH_VEC(c, pool_vec, y, BF16(x), w);
}

static void maxpool_backward(struct mix__values dx, struct mix__values dy, struct mix__values x,
                             const struct mix__pool_window *w, size_t c)
{
    if (dx.dtype == MIX__DTYPE_BF16 && dy.dtype == MIX__DTYPE_BF16 && x.dtype == MIX__DTYPE_BF16)
        EACH_VEC(c, pool_back_vec, BF16(dx), BF16(dy), BF16(x), w);
    else
        EACH_VEC(c, pool_back_vec, dx, dy, x, w);
}

void MIX__LOOPS_NAME(mix__loops_fill_basic)(struct mix__loops *loops)
{
    loops->add = add;
    loops->act_forward = act_forward;
    loops->act_backward = act_backward;
    loops->maxpool = maxpool;
    loops->maxpool_backward = maxpool_backward;
    loops->gate_forward = gate_forward;
    loops->gate_backward = gate_backward;
}
