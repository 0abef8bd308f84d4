/*
 * runtime/runtime.c - a runtime's life: read, plan, run operator by operator, one image at a time.
 */
#include <string.h>

#include "base/file.h"
#include "format/mix_file.h"
#include "runtime/runtime_inside.h"

/* ---- opening -------------------------------------------------------------------------------- */

static mix_status plan_steps(mix_runtime *rt, const char *path)
{
    const struct mix__net *net = rt->net;
    rt->steps = mix__zalloc(rt->ctx, net->n_ops, sizeof *rt->steps);
    if (!rt->steps)
        return MIX_ENOMEM;
    for (size_t i = 0; i < net->n_ops; i++) {
        struct mix__step_plan *s = &rt->steps[i];
        s->op = &net->ops[i];
        s->x = &net->tensors[s->op->in[0]];
        s->y = &net->tensors[s->op->out];
        s->finish = s->y->bits ? mix__finish_codes(s->op->act, s->y->bits, s->y->range, s->y->step)
                               : mix__finish_floats(s->op->act);
        if (s->op->kind == MIX__NET_CONV)
            MIX_TRY(mix__conv_plan(rt, s, path));
    }
    return MIX_OK;
}

/* Elements that a thread's scratch needs of each kind. */
struct needs {
    size_t sums, rows, values, taps;
};

static void need(size_t *most, size_t n)
{
    *most = n > *most ? n : *most;
}

static struct needs find_needs(const mix_runtime *rt)
{
    struct needs n = { .sums = MIX__TILE * MIX__TILE_K > MIX__TILE_SUMS
                                   ? (size_t)MIX__TILE * MIX__TILE_K
                                   : (size_t)MIX__TILE_SUMS };
    for (size_t i = 0; i < rt->net->n_ops; i++) {
        const struct mix__step_plan *s = &rt->steps[i];
        if (s->op->kind == MIX__NET_MAXPOOL || s->op->kind == MIX__NET_AVGPOOL)
            need(&n.values, (size_t)s->y->c);
        if (s->op->kind != MIX__NET_CONV)
            continue;
        if (s->conv.depthwise) {
            need(&n.sums, (size_t)s->y->c);
            need(&n.taps,
                 (size_t)((MIX__TILE - 1) * s->op->stride + s->op->kernel) * (size_t)s->op->kernel);
        } else if (!s->conv.direct) {
            need(&n.rows, MIX__TILE * s->conv.depth);
        }
    }
    return n;
}

static mix_status make_scratch(mix_runtime *rt)
{
    const size_t threads = (size_t)mix__team_size(rt->team);
    const struct needs n = find_needs(rt);
    if (!(rt->scratch = mix__zalloc(rt->ctx, threads, sizeof *rt->scratch)))
        return MIX_ENOMEM;
    for (size_t i = 0; i < threads; i++) {
        struct mix__scratch *s = &rt->scratch[i];
        s->sums = mix__alloc(rt->ctx, n.sums, sizeof *s->sums);
        s->rows = mix__zalloc(rt->ctx, n.rows, sizeof *s->rows);
        s->values = mix__alloc(rt->ctx, n.values, sizeof *s->values);
        s->taps = mix__alloc(rt->ctx, n.taps, sizeof *s->taps);
        if (!s->sums || !s->rows || !s->values || !s->taps)
            return MIX_ENOMEM;
    }
    rt->scratch_bytes = threads * (n.sums * sizeof(int32_t) + n.rows + n.values * sizeof(float) +
                                   n.taps * sizeof(void *));
    return MIX_OK;
}

/* What a depthwise layer reads outside of its picture. */
static mix_status make_zeros(mix_runtime *rt)
{
    for (size_t i = 0; i < rt->net->n_ops; i++)
        if (rt->steps[i].conv.depthwise)
            need(&rt->widest, (size_t)rt->steps[i].x->c);
    const size_t n = (size_t)1 << (MIX_BITS_MAX - 1); /* p of a signed tensor is below */
    if (!(rt->zeros = mix__alloc(rt->ctx, n, rt->widest)))
        return MIX_ENOMEM;
    for (size_t zero = 0; zero < n; zero++)
        memset(rt->zeros + zero * rt->widest, (int)zero, rt->widest);
    return MIX_OK;
}

static mix_status make_arena(mix_runtime *rt)
{
    const size_t n = rt->net->n_tensors;
    MIX_TRY(mix__arena_plan(&rt->plan, rt->net));
    rt->arena = mix__alloc(rt->ctx, rt->plan.bytes, 1);
    rt->at = mix__alloc(rt->ctx, n, sizeof *rt->at);
    if (!rt->arena || !rt->at)
        return MIX_ENOMEM;
    for (size_t t = 0; t < n; t++)
        rt->at[t] = rt->arena + rt->plan.offset[t];
    return MIX_OK;
}

static mix_status set_up(mix_runtime *rt, const void *bytes, size_t size, const char *path)
{
    rt->file_bytes = size;
    MIX_TRY(mix__mix_decode(&rt->net, rt->ctx, bytes, size, path));
    mix__kernels_init(&rt->kernels, mix_ctx_cpu(rt->ctx));
    MIX_TRY(plan_steps(rt, path));
    MIX_TRY(make_arena(rt));
    MIX_TRY(make_zeros(rt));
    MIX_TRY(mix__team_new(&rt->team, rt->ctx, mix_ctx_threads(rt->ctx)));
    return make_scratch(rt);
}

static mix_status open_bytes(mix_runtime **out, mix_ctx *ctx, char *owned, const void *bytes,
                             size_t size, const char *path)
{
    mix_runtime *rt = mix__zalloc(ctx, 1, sizeof *rt);
    if (!rt) {
        mix__free(ctx, owned);
        return MIX_ENOMEM;
    }
    rt->ctx = ctx;
    rt->file = owned;
    const mix_status status = set_up(rt, bytes, size, path);
    if (status != MIX_OK) {
        mix_runtime_close(rt);
        return status;
    }
    *out = rt;
    return MIX_OK;
}

mix_status mix_runtime_open(mix_runtime **out, mix_ctx *ctx, const char *path)
{
    char *bytes;
    size_t size;
    *out = NULL;
    MIX_TRY(mix__file_read(ctx, path, SIZE_MAX - 1, &bytes, &size));
    return open_bytes(out, ctx, bytes, bytes, size, path);
}

mix_status mix_runtime_open_bytes(mix_runtime **out, mix_ctx *ctx, const void *bytes, size_t size)
{
    *out = NULL;
    if ((uintptr_t)bytes % MIX_ALIGN)
        return mix__fail(ctx, MIX_EINVAL, "a .mix file in memory must be aligned to %d bytes",
                         MIX_ALIGN);
    return open_bytes(out, ctx, NULL, bytes, size, "memory");
}

void mix_runtime_close(mix_runtime *rt)
{
    if (!rt)
        return;
    for (size_t i = 0; rt->steps && i < rt->net->n_ops; i++) {
        struct mix__conv_plan *p = &rt->steps[i].conv;
        mix__free(rt->ctx, p->weights);
        mix__free(rt->ctx, p->start);
        mix__border_release(&p->border);
        if (p->offset && p->offset != rt->net->ops[i].offset)
            mix__free(rt->ctx, (void *)p->offset);
    }
    for (int i = 0; rt->scratch && i < mix__team_size(rt->team); i++) {
        mix__free(rt->ctx, rt->scratch[i].sums);
        mix__free(rt->ctx, rt->scratch[i].rows);
        mix__free(rt->ctx, rt->scratch[i].values);
        mix__free(rt->ctx, rt->scratch[i].taps);
    }
    mix__team_free(rt->team);
    void *const blocks[] = { rt->scratch, rt->steps, rt->plan.offset, rt->arena,
                             rt->at,      rt->zeros, rt->file };
    mix__net_free(rt->net);
    for (size_t i = 0; i < MIX_COUNT(blocks); i++)
        mix__free(rt->ctx, blocks[i]);
    mix__free(rt->ctx, rt);
}

/* ---- running -------------------------------------------------------------------------------- */

struct job {
    const mix_runtime *rt;
    const struct mix__step_plan *step;
};

static void run_part(void *arg, int part, int parts)
{
    const struct job *job = arg;
    if (job->step->op->kind == MIX__NET_CONV)
        mix__conv_run(job->rt, job->step, part, parts);
    else
        mix__basic_run(job->rt, job->step, part, parts);
}

static const char *reader_of(const struct mix__net *net, int tensor)
{
    for (size_t i = 0; i < net->n_ops; i++)
        if (net->ops[i].in[0] == tensor)
            return net->ops[i].name;
    return NULL;
}

static void show(const mix_runtime *rt, const struct mix__net_op *op)
{
    const struct mix__net_tensor *x = &rt->net->tensors[op->in[0]];
    const struct mix__net_tensor *y = &rt->net->tensors[op->out];
    const mix_runtime_value value = { .name = op->name,
                                      .kind = mix__net_kind_name(op->kind),
                                      .reader = y->bits ? reader_of(rt->net, op->out) : NULL,
                                      .height = y->h,
                                      .width = y->w,
                                      .channels = y->c,
                                      .bits = y->bits,
                                      .range = y->range,
                                      .step = y->step,
                                      .in_bits = x->bits,
                                      .weight_bits = op->weight_bits,
                                      .macs = op->kind == MIX__NET_CONV ? mix__net_macs(rt->net, op)
                                                                        : 0,
                                      .data = rt->at[op->out] };
    rt->watch(rt->watch_user, &value);
}

static void run_image(mix_runtime *rt, const float *image, float *logits)
{
    rt->at[0] = (void *)image;
    rt->at[rt->net->output] = logits;
    for (size_t i = 0; i < rt->net->n_ops; i++) {
        struct job job = { rt, &rt->steps[i] };
        mix__team_run(rt->team, run_part, &job);
        if (rt->watch)
            show(rt, rt->steps[i].op);
    }
}

void mix_runtime_run(mix_runtime *rt, const float *images, int n, float *logits)
{
    const size_t image = mix__net_elements(&rt->net->tensors[0]);
    const size_t classes = (size_t)rt->net->tensors[rt->net->output].c;
    for (int i = 0; i < n; i++)
        run_image(rt, images + (size_t)i * image, logits + (size_t)i * classes);
}

/* ---- watching ------------------------------------------------------------------------------- */

void mix_runtime_watch(mix_runtime *rt, void (*watch)(void *user, const mix_runtime_value *value),
                       void *user)
{
    rt->watch = watch;
    rt->watch_user = user;
}

void mix_runtime_decode(const mix_runtime_value *value, float *out)
{
    const size_t n = (size_t)value->height * (size_t)value->width * (size_t)value->channels;
    if (value->bits == 0) {
        memcpy(out, value->data, n * sizeof *out);
        return;
    }
    const struct mix__bounds b = mix__bounds_activation(value->bits, value->range);
    const uint8_t *stored = value->data;
    for (size_t i = 0; i < n; i++)
        out[i] = mix__dequantize(stored[i] + b.n, value->step, &b);
}

/* ---- what it is ----------------------------------------------------------------------------- */

void mix_runtime_info_get(const mix_runtime *rt, mix_runtime_info *info)
{
    const struct mix__net *net = rt->net;
    *info = (mix_runtime_info){ .name = net->name,
                                .classes = net->tensors[net->output].c,
                                .height = net->tensors[0].h,
                                .width = net->tensors[0].w,
                                .channels = net->tensors[0].c,
                                .mean = net->mean,
                                .deviation = net->deviation,
                                .file_bytes = rt->file_bytes,
                                .arena_bytes = rt->plan.bytes,
                                .live_bytes = rt->plan.live,
                                .weight_bytes = rt->weight_bytes,
                                .scratch_bytes = rt->scratch_bytes };
    for (size_t i = 0; i < net->n_ops; i++)
        info->layers += net->ops[i].kind == MIX__NET_CONV;
}

const char *mix_runtime_class_name(const mix_runtime *rt, int index)
{
    const char *name = rt->net->class_names;
    for (; name && index > 0; index--)
        name += strlen(name) + 1;
    return name;
}
