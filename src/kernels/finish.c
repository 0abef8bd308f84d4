/*
 * kernels/finish.c - everything that computes in float: from sums or values to activated values or
 * codes. Compiled once for each instruction set; nothing is contracted and no sum crosses a
 * vector, so all copies give the same bits.
 */
#include "kernels/kernels_isa.h"

#define SIMD _Pragma("omp simd")

/* Not a number becomes n: the conversion to an integer must be defined. */
MIX__KERNEL_TEMPLATE uint8_t code_of(float u, const struct mix__finish *f)
{
    float v = (u + f->bounds.shift) / f->step;
    v = v > f->bounds.n ? v : f->bounds.n;
    v = v < f->bounds.p ? v : f->bounds.p;
    return (uint8_t)(int)(mix__round(v) + f->zero);
}

/* y[i] = what finish makes of VALUE, an expression in i; act and codes are constants. */
#define FINISH_LOOP(act, codes, y, n, f, VALUE)                                                    \
    do {                                                                                           \
        if (codes) {                                                                               \
            uint8_t *restrict out_ = (y);                                                          \
            SIMD for (size_t i = 0; i < (n); i++) out_[i] = code_of(mix__activate(VALUE, act), f); \
        } else {                                                                                   \
            float *restrict out_ = (y);                                                            \
            SIMD for (size_t i = 0; i < (n); i++) out_[i] = mix__activate(VALUE, act);             \
        }                                                                                          \
    } while (0)

/* Calls function(act, codes, ...) with constants. */
#define CASE(act, function, f, ...)                                                                \
    case act:                                                                                      \
        if ((f)->codes)                                                                            \
            function(act, true, f, __VA_ARGS__);                                                   \
        else                                                                                       \
            function(act, false, f, __VA_ARGS__);                                                  \
        break;
#define SPECIALISE(function, f, ...)                                                               \
    switch ((f)->act) {                                                                            \
        CASE(MIX__ACT_NONE, function, f, __VA_ARGS__)                                              \
        CASE(MIX__ACT_RELU, function, f, __VA_ARGS__)                                              \
        CASE(MIX__ACT_RELU6, function, f, __VA_ARGS__)                                             \
        CASE(MIX__ACT_HARDSWISH, function, f, __VA_ARGS__)                                         \
        CASE(MIX__ACT_HARDSIGMOID, function, f, __VA_ARGS__)                                       \
    default:                                                                                       \
        break;                                                                                     \
    }

/* Row r of y, elements of f's type. */
MIX__KERNEL_TEMPLATE void *row_of(void *y, size_t at, bool codes)
{
    return codes ? (void *)((uint8_t *)y + at) : (void *)((float *)y + at);
}

MIX__KERNEL_TEMPLATE void sums_as(enum mix__act act, bool codes, const struct mix__finish *f,
                                  void *y, const struct mix__sums *s)
{
    const struct mix__finish finish = *f;
    for (size_t r = 0; r < s->rows; r++) {
        const int32_t *restrict acc = s->acc + r * s->acc_stride;
        const float *restrict scale = s->scale, *restrict offset = s->offset;
        FINISH_LOOP(act, codes, row_of(y, r * s->y_stride, codes), s->n, &finish,
                    scale[i] * (float)acc[i] + offset[i]);
    }
}

static void sums(void *y, const struct mix__sums *s,
                 const struct mix__finish *f){ SPECIALISE(sums_as, f, y, s) }

MIX__KERNEL_TEMPLATE void values_as(enum mix__act act, bool codes, const struct mix__finish *f,
                                    void *y, const float *restrict x, size_t n)
{
    const struct mix__finish finish = *f;
    FINISH_LOOP(act, codes, y, n, &finish, x[i]);
}

static void values(void *y, const float *x, size_t n,
                   const struct mix__finish *f){ SPECIALISE(values_as, f, y, x, n) }

MIX__KERNEL_TEMPLATE
    void add_as(enum mix__act act, bool codes, const struct mix__finish *f, void *y,
                const float *restrict a, const float *restrict b, size_t n)
{
    const struct mix__finish finish = *f;
    FINISH_LOOP(act, codes, y, n, &finish, a[i] + b[i]);
}

static void add(void *y, const float *a, const float *b, size_t n,
                const struct mix__finish *f){ SPECIALISE(add_as, f, y, a, b, n) }

MIX__KERNEL_TEMPLATE
    void gate_as(enum mix__act act, bool codes, const struct mix__finish *f, void *y,
                 const float *x, const float *restrict g, size_t rows, size_t c)
{
    const struct mix__finish finish = *f;
    for (size_t r = 0; r < rows; r++) {
        const float *restrict from = x + r * c;
        FINISH_LOOP(act, codes, row_of(y, r * c, codes), c, &finish, from[i] * g[i]);
    }
}

static void gate(void *y, const float *x, const float *g, size_t rows, size_t c,
                 const struct mix__finish *f)
{
    SPECIALISE(gate_as, f, y, x, g, rows, c)
}

static void largest(float *restrict y, const float *restrict x, size_t n)
{
    SIMD for (size_t i = 0; i < n; i++) y[i] = x[i] <= y[i] ? y[i] : x[i];
}

static void accumulate(float *restrict y, const float *restrict x, size_t n)
{
    SIMD for (size_t i = 0; i < n; i++) y[i] += x[i];
}

void MIX__KERNELS_NAME(mix__kernels_fill)(struct mix__kernels *k)
{
    k->sums = sums;
    k->values = values;
    k->add = add;
    k->gate = gate;
    k->largest = largest;
    k->accumulate = accumulate;
}
