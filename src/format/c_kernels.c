/*
 * format/c_kernels.c - the functions of exported C, by the kind of operator that needs them. Not
 * part of the library: c_write.c has this text in it and copies the sections that a network uses.
 */

/* ==== values ==== */
enum { ACT_NONE, ACT_RELU, ACT_RELU6, ACT_HARDSWISH, ACT_HARDSIGMOID };

/* What becomes of a value: its activation and, with codes, round((value + shift) / step) in n..p.
 */
struct finish {
    uint8_t act, codes;
    float step, shift, n, p;
};

/* A float that has been rounded: no product is contracted with the sum behind it. */
static float rounded(float x)
{
    volatile float y = x;
    return y;
}

static float clip(float v, float n, float p)
{
    v = v < n ? n : v;
    return v > p ? p : v;
}

static float activated(float u, int act)
{
    switch (act) {
    case ACT_RELU:
        return u < 0.0f ? 0.0f : u;
    case ACT_RELU6:
        return clip(u, 0.0f, 6.0f);
    case ACT_HARDSWISH:
        return rounded(u * clip(u + 3.0f, 0.0f, 6.0f)) / 6.0f;
    case ACT_HARDSIGMOID:
        return clip(u + 3.0f, 0.0f, 6.0f) / 6.0f;
    default:
        return u;
    }
}

/* Element i of y: a float, or a code as a byte, less the lowest code. */
static void put(void *y, uint32_t i, float value, const struct finish *f)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: what is added to it is rounded to a whole */
    const float u = rounded(activated(rounded(value), f->act));
    if (!f->codes) {
        ((float *)y)[i] = u;
        return;
    }
    float v = (u + f->shift) / f->step;
    v = v > f->n ? v : f->n;
    v = v < f->p ? v : f->p;
    ((uint8_t *)y)[i] = (uint8_t)((int)(rounded(v + magic) - magic) - (int)f->n);
}

/* ==== conv ==== */
struct conv {
    const uint8_t *weights; /* codes, (k, kernel, kernel, c / groups), packed, low bits first */
    const float *scale, *offset; /* (k); (classes, k)                                      */
    const uint16_t *row, *col;   /* class of an output row, column; NULL: one class        */
    uint16_t cols;               /* classes of columns                                     */
    uint16_t h, w, c, oh, ow, k, groups;
    uint8_t kernel, stride, pad, bits, zero; /* zero: the byte of code 0 */
};

static int8_t weight(const uint8_t *packed, uint32_t i, unsigned bits)
{
    const uint32_t at = i * bits, shift = at % 8;
    const int sign = 1 << (bits - 1);
    unsigned v = packed[at / 8] >> shift;
    if (shift + bits > 8)
        v |= (unsigned)packed[at / 8 + 1] << (8 - shift);
    return (int8_t)((int)((v & ((1u << bits) - 1)) ^ (unsigned)sign) - sign);
}

/* The exact sum of code * weight code over the taps inside the picture; x: of the group. */
static int32_t sum_at(const struct conv *l, const uint8_t *x, const int8_t *w, int top, int left)
{
    const int depth = l->c / l->groups;
    int32_t sum = 0;
    for (int r = 0; r < l->kernel; r++) {
        if (top + r < 0 || top + r >= l->h)
            continue;
        for (int s = 0; s < l->kernel; s++) {
            if (left + s < 0 || left + s >= l->w)
                continue;
            const uint8_t *from = x + ((uint32_t)(top + r) * l->w + (uint32_t)(left + s)) * l->c;
            const int8_t *by = w + (r * l->kernel + s) * depth;
            for (int i = 0; i < depth; i++)
                sum += (from[i] - l->zero) * by[i];
        }
    }
    return sum;
}

/* w: room for one output channel's weights */
static void conv(const struct conv *l, const struct finish *f, const uint8_t *x, int8_t *w, void *y)
{
    const uint32_t depth = l->c / l->groups, taps = (uint32_t)l->kernel * l->kernel * depth;
    for (uint32_t k = 0; k < l->k; k++) {
        const uint8_t *group = x + k / (l->k / l->groups) * depth;
        for (uint32_t i = 0; i < taps; i++)
            w[i] = weight(l->weights, k * taps + i, l->bits);
        for (int i = 0; i < l->oh; i++)
            for (int j = 0; j < l->ow; j++) {
                const uint32_t class = l->row ? (uint32_t)l->row[i] * l->cols + l->col[j] : 0;
                const int32_t sum =
                    sum_at(l, group, w, i * l->stride - l->pad, j * l->stride - l->pad);
                put(y, ((uint32_t)i * l->ow + (uint32_t)j) * l->k + k,
                    rounded(l->scale[k] * (float)sum) + l->offset[class * l->k + k], f);
            }
    }
}

/* ==== identity ==== */
static void identity(const struct finish *f, const float *x, uint32_t n, void *y)
{
    for (uint32_t i = 0; i < n; i++)
        put(y, i, x[i], f);
}

/* ==== add ==== */
static void add(const struct finish *f, const float *a, const float *b, uint32_t n, void *y)
{
    for (uint32_t i = 0; i < n; i++)
        put(y, i, a[i] + b[i], f);
}

/* ==== mul ==== */
/* x (pixels, c) times a gate (c) */
static void mul(const struct finish *f, const float *x, const float *gate, uint32_t pixels,
                uint32_t c, void *y)
{
    for (uint32_t i = 0; i < pixels * c; i++)
        put(y, i, x[i] * gate[i % c], f);
}

/* ==== avgpool ==== */
static void avgpool(const struct finish *f, const float *x, uint32_t pixels, uint32_t c, void *y)
{
    for (uint32_t k = 0; k < c; k++) {
        float sum = 0.0f;
        for (uint32_t i = 0; i < pixels; i++)
            sum += x[i * c + k];
        put(y, k, sum / (float)pixels, f);
    }
}

/* ==== maxpool ==== */
struct maxpool {
    uint16_t h, w, c, oh, ow;
    uint8_t kernel, stride, pad;
};

static void maxpool(const struct maxpool *l, const struct finish *f, const float *x, void *y)
{
    for (int i = 0; i < l->oh * l->ow * l->c; i++) {
        const int k = i % l->c, place = i / l->c;
        const int top = place / l->ow * l->stride - l->pad;
        const int left = place % l->ow * l->stride - l->pad;
        float most = -INFINITY;
        for (int r = top; r < top + l->kernel; r++)
            for (int s = left; s < left + l->kernel; s++)
                if (r >= 0 && r < l->h && s >= 0 && s < l->w) {
                    const float v = x[(r * l->w + s) * l->c + k];
                    most = v <= most ? most : v;
                }
        put(y, (uint32_t)i, most, f);
    }
}

/* ==== end ==== */
