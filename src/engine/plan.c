/*
 * engine/plan.c - see plan.h for what a plan decides.
 */
#include "engine/plan.h"

#include <assert.h>
#include <string.h>

#include "base/ctx.h"
#include "model/arena.h"

/* While planning: where each tensor's value and gradient live, and who reads it. */
struct maker {
    struct mix__plan *plan;
    const mix_graph *graph;
    int *value, *grad;        /* (tensor): buffer, -1: not yet or not needed  */
    int *fused;               /* (tensor): step of the fused batch norm that makes it, -1  */
    bool *skip;               /* (node): taken in by an earlier step */
    struct mix__step nowhere; /* what a builder writes to after a failure */
    mix_status status;
};

static int new_buffer(struct maker *m, const struct mix__tensor *t)
{
    struct mix__plan *p = m->plan;
    if (m->status == MIX_OK)
        m->status =
            mix__grow(p->ctx, &p->buffers, p->n_buffers, &p->cap_buffers, sizeof *p->buffers);
    if (m->status != MIX_OK)
        return 0;
    const bool small = t == m->graph->tensors || t->h * t->w == 1;
    p->buffers[p->n_buffers] = (struct mix__buffer){ .dtype = small ? MIX__DTYPE_F32 : p->dtype,
                                                     .count = (size_t)p->batch * t->h * t->w * t->c,
                                                     .first = -1 };
    return (int)p->n_buffers++;
}

static struct mix__step *new_step(struct maker *m, enum mix__step_kind kind,
                                  const struct mix__node *node, int in, int out)
{
    struct mix__plan *p = m->plan;
    if (m->status == MIX_OK)
        m->status = mix__grow(p->ctx, &p->steps, p->n_steps, &p->cap_steps, sizeof *p->steps);
    if (m->status != MIX_OK)
        return &m->nowhere;
    struct mix__step *s = &p->steps[p->n_steps++];
    *s = (struct mix__step){
        .kind = kind,
        .node = node,
        .layer = -1,
        .x = { m->value[in], -1 },
        .y = -1,
        .before = -1,
        .where = -1,
        .after = -1,
        .expand = -1,
        .dx = { -1, -1 },
        .dy = -1,
        .in = m->graph->tensors[in],
        .out = m->graph->tensors[out],
    };
    return s;
}

/* ---- forward: steps and value buffers ------------------------------------------------------- */

/* Tells the convolution in front of a batch norm, which alone reads it, of that; its layer, or -1. */
static int tell_conv(struct maker *m, const struct mix__node *bn)
{
    for (size_t i = 0; i + 1 < m->plan->n_steps; i++) {
        struct mix__step *s = &m->plan->steps[i];
        if (s->kind == MIX__STEP_CONV && s->node->out == bn->in[0]) {
            s->after = (int)m->plan->n_steps - 1;
            return s->layer;
        }
    }
    return -1;
}

/* Whether the step that alone reads a batch norm can do it: a layer, a max pool, or an addition to
 * what is there as it is. */
static bool can_fuse(const struct maker *m, const struct mix__node *reader, int tensor,
                     enum mix__act act)
{
    if (!reader || reader->op != MIX__OP_ADD)
        return reader && (reader->layer >= 0 || reader->op == MIX__OP_MAXPOOL);
    return act == MIX__ACT_NONE && m->fused[reader->in[reader->in[0] == tensor]] < 0;
}

static void plan_norm(struct maker *m, const struct mix__node *node)
{
    int out = node->out;
    enum mix__act act = MIX__ACT_NONE;
    const struct mix__node *next = mix__graph_single_reader(m->graph, out);
    if (next && mix__op_act(next->op) != MIX__ACT_NONE) {
        act = mix__op_act(next->op);
        m->skip[next - m->graph->nodes] = true;
        out = next->out;
        next = mix__graph_single_reader(m->graph, out);
    }
    if (!mix__graph_single_reader(m->graph, node->in[0])) {
        m->status = mix__fail(m->plan->ctx, MIX_EUNSUPPORTED,
                              "%s: the input of a batch norm may have no other reader", node->name);
        return;
    }
    struct mix__step *s = new_step(m, MIX__STEP_NORM, node, node->in[0], out);
    s->act = act;
    s->norm = m->plan->n_norms++;
    s->source = tell_conv(m, node);
    if (s->source < 0 && m->status == MIX_OK)
        m->status = mix__fail(m->plan->ctx, MIX_EUNSUPPORTED,
                              "%s: a batch norm that is not right behind a convolution or linear "
                              "layer",
                              node->name);
    s->fused = can_fuse(m, next, out, act);
    if (s->fused)
        m->fused[out] = (int)m->plan->n_steps - 1;
    s->y = !s->fused && m->plan->backward ? new_buffer(m, &m->graph->tensors[out]) : s->x[0];
    m->value[out] = s->y;
}

static void plan_conv(struct maker *m, const struct mix__node *node)
{
    struct mix__step *s = new_step(m, MIX__STEP_CONV, node, node->in[0], node->out);
    s->layer = node->layer;
    s->before = m->fused[node->in[0]];
    s->y = m->value[node->out] = new_buffer(m, &m->graph->tensors[node->out]);
}

/* Of an addition and the clip behind it, whose slope can be told from what comes out. */
static void plan_add(struct maker *m, const struct mix__node *node)
{
    int out = node->out;
    const struct mix__node *next = mix__graph_single_reader(m->graph, out);
    const enum mix__act act = next ? mix__op_act(next->op) : MIX__ACT_NONE;
    const bool clips = act == MIX__ACT_RELU || act == MIX__ACT_RELU6;
    const bool turned = m->fused[node->in[1]] >= 0;
    if (clips) {
        m->skip[next - m->graph->nodes] = true;
        out = next->out;
    }
    struct mix__step *s = new_step(m, MIX__STEP_ADD, node, node->in[turned], out);
    s->turned = turned;
    s->before = m->fused[node->in[turned]];
    s->act = clips ? act : MIX__ACT_NONE;
    s->x[1] = m->value[node->in[!turned]];
    s->y = m->value[out] = new_buffer(m, &m->graph->tensors[out]);
}

/* Which of its window a value is, is a byte. */
enum { POOL_MOST = 16 };

/* What a max pool keeps for its way back. */
static void plan_where(struct maker *m, struct mix__step *s)
{
    const struct mix__node *node = s->node;
    if (node->kernel > POOL_MOST)
        m->status = mix__fail(m->plan->ctx, MIX_EUNSUPPORTED,
                              "%s: a max pool of %dx%d cannot be trained; expected %dx%d or less",
                              node->name, node->kernel, node->kernel, POOL_MOST, POOL_MOST);
    s->where = new_buffer(m, &m->graph->tensors[node->out]);
    if (m->status == MIX_OK)
        m->plan->buffers[s->where].dtype = MIX__DTYPE_U8;
}

/* Of nodes that are a step each. */
static enum mix__step_kind kind_of(enum mix__op op)
{
    switch (op) {
    case MIX__OP_MUL:
        return MIX__STEP_GATE;
    case MIX__OP_MAXPOOL:
        return MIX__STEP_MAXPOOL;
    case MIX__OP_GLOBAL_AVGPOOL:
        return MIX__STEP_AVGPOOL;
    case MIX__OP_DROPOUT:
        return MIX__STEP_DROPOUT;
    default:
        assert(mix__op_act(op) != MIX__ACT_NONE);
        return MIX__STEP_ACT;
    }
}

static void plan_node(struct maker *m, const struct mix__node *node)
{
    const struct mix__tensor *x = &m->graph->tensors[node->in[0]];
    switch (node->op) {
    case MIX__OP_CONV2D:
    case MIX__OP_LINEAR:
        plan_conv(m, node);
        return;
    case MIX__OP_BATCHNORM:
        plan_norm(m, node);
        return;
    case MIX__OP_ADD:
        plan_add(m, node);
        return;
    case MIX__OP_FLATTEN:
        if (x->h != 1 || x->w != 1)
            m->status = mix__fail(m->plan->ctx, MIX_EUNSUPPORTED,
                                  "%s: flattening %dx%d pixels is not supported, only 1x1",
                                  node->name, x->h, x->w);
        m->value[node->out] = m->value[node->in[0]];
        return;
    default:
        break;
    }
    struct mix__step *s = new_step(m, kind_of(node->op), node, node->in[0], node->out);
    s->act = mix__op_act(node->op);
    s->before = m->fused[node->in[0]]; /* of a max pool; -1 else */
    if (node->n_in == 2)
        s->x[1] = m->value[node->in[1]];
    s->y = m->value[node->out] = new_buffer(m, &m->graph->tensors[node->out]);
    if (s->kind == MIX__STEP_MAXPOOL && m->plan->backward)
        plan_where(m, s);
}

/* ---- backward: gradient buffers ------------------------------------------------------------- */

/* Gradients are handed out from the last node to the first, so a tensor's place is known from its
 * readers before its producer asks. A flattened tensor shares its source's. */
static int grad_of(struct maker *m, int tensor)
{
    if (m->grad[tensor] < 0)
        m->grad[tensor] = new_buffer(m, &m->graph->tensors[tensor]);
    return m->grad[tensor];
}

static int output_tensor(const struct maker *m, const struct mix__step *s)
{
    if ((s->kind != MIX__STEP_NORM && s->kind != MIX__STEP_ADD) || s->act == MIX__ACT_NONE)
        return s->node->out;
    return m->graph->nodes[m->graph->tensors[s->node->out].reader].out;
}

/* Whether the addition's gradient stays as it is at its input x[1] until the convolution in front of
 * its batch norm has read it at x[0]: what else makes or reads x[1] is planned before that layer. */
static bool stays(const struct maker *m, const struct mix__step *add, int tensor)
{
    const struct mix__node *nodes = m->graph->nodes;
    const int conv = m->graph->layers[m->plan->steps[add->before].source].node;
    for (size_t i = (size_t)conv; i < m->graph->n_nodes; i++) {
        bool touches = nodes[i].out == tensor;
        for (int k = 0; k < nodes[i].n_in; k++)
            touches |= nodes[i].in[k] == tensor;
        if (touches && &nodes[i] != add->node)
            return false;
    }
    return true;
}

/* The gradient's place of an addition is that of x[0] if a batch norm is in front of it, or else of
 * an input that nothing else reads; of the other one too where it stays as it is. */
static void plan_add_gradients(struct maker *m, struct mix__step *s)
{
    const int first = s->node->in[s->turned], second = s->node->in[!s->turned];
    const bool free = m->grad[second] < 0;
    if (s->before >= 0)
        m->grad[first] = s->dy;
    if (free &&
        (s->before >= 0 ? stays(m, s, second) : mix__graph_single_reader(m->graph, second) != NULL))
        m->grad[second] = s->dy;
    s->dx[1] = grad_of(m, second);
    s->dx[0] = grad_of(m, first);
}

static void plan_gradients(struct maker *m, bool *written)
{
    struct mix__plan *p = m->plan;
    for (size_t i = p->n_steps; i-- > 0;) {
        struct mix__step *s = &p->steps[i];
        const int in = s->node->in[0];
        s->dy = grad_of(m, output_tensor(m, s));
        switch (s->kind) {
        case MIX__STEP_CONV:
            s->dx[0] = in == 0 ? -1 : grad_of(m, in);
            break;
        case MIX__STEP_NORM:
            s->dx[0] = m->grad[in] = s->dy;
            break;
        case MIX__STEP_ADD:
            plan_add_gradients(m, s);
            break;
        default:
            s->dx[0] = grad_of(m, in);
            if (s->kind == MIX__STEP_GATE)
                s->dx[1] = grad_of(m, s->node->in[1]);
        }
        for (int k = 0; k < 2 && m->status == MIX_OK; k++) {
            if (s->dx[k] < 0)
                continue;
            s->accumulate[k] = written[s->dx[k]] && s->dx[k] != s->dy;
            written[s->dx[k]] = true;
        }
    }
}

/* A flattened tensor has its source's gradient: settled before the walk, from the output side. */
static void share_flattened(struct maker *m)
{
    for (size_t i = m->graph->n_nodes; i-- > 0;) {
        const struct mix__node *node = &m->graph->nodes[i];
        if (node->op == MIX__OP_FLATTEN)
            m->grad[node->in[0]] = grad_of(m, node->out);
    }
}

/* ---- lifetimes and the arena ---------------------------------------------------------------- */

static void use(struct mix__plan *p, int buffer, int time)
{
    if (buffer < 0)
        return;
    struct mix__buffer *b = &p->buffers[buffer];
    if (b->first < 0 || time < b->first)
        b->first = time;
    if (time > b->last)
        b->last = time;
}

static void find_spans(struct mix__plan *p)
{
    const int end = 2 * (int)p->n_steps;
    for (int i = 0; i < (int)p->n_steps; i++) {
        const struct mix__step *s = &p->steps[i];
        const int back = end - 1 - i;
        if (s->kind == MIX__STEP_NORM && s->fused)
            continue; /* the steps on both sides use its buffers */
        use(p, s->x[0], i);
        use(p, s->x[1], i);
        use(p, s->y, i);
        use(p, s->where, i);
        if (!p->backward)
            continue;
        use(p, s->dy, back);
        use(p, s->dx[0], back);
        use(p, s->dx[1], back);
        if (s->kind == MIX__STEP_CONV && s->after >= 0)
            use(p, s->y, back); /* the batch norm's backward pass is done here */
        use(p, s->where, back);
        if (s->kind == MIX__STEP_ADD)
            use(p, s->act != MIX__ACT_NONE ? s->y : -1, back);
        if (s->kind == MIX__STEP_ADD || s->kind == MIX__STEP_MAXPOOL) {
            use(p, s->before >= 0 ? s->x[0] : -1, back);
            continue;
        }
        if (s->kind == MIX__STEP_AVGPOOL || s->kind == MIX__STEP_DROPOUT)
            continue;
        use(p, s->x[0], back);
        use(p, s->x[1], back);
    }
    use(p, p->input, 0); /* the same batch may be run again */
    use(p, p->input, end);
    use(p, p->output, end);
}

static size_t bytes_of(const struct mix__buffer *b)
{
    return mix__aligned(b->count * mix__dtype_size(b->dtype));
}

static mix_status lay_out(struct mix__plan *p)
{
    struct mix__arena arena = { NULL };
    struct mix__lifetime *things = mix__alloc(p->ctx, p->n_buffers, sizeof *things);
    if (!things)
        return MIX_ENOMEM;
    for (size_t i = 0; i < p->n_buffers; i++) {
        const struct mix__buffer *b = &p->buffers[i];
        things[i] = (struct mix__lifetime){ bytes_of(b), b->first, b->last };
    }
    const mix_status status = mix__arena_place(&arena, p->ctx, things, p->n_buffers);
    for (size_t i = 0; status == MIX_OK && i < p->n_buffers; i++)
        p->buffers[i].offset = arena.offset[i];
    p->arena = arena.bytes;
    p->values_live = arena.live;
    mix__free(p->ctx, arena.offset);
    mix__free(p->ctx, things);
    return status;
}

/* Written by one of the first n steps. */
static bool made_before(const struct mix__plan *p, size_t n, int buffer)
{
    for (size_t i = 0; i < n; i++)
        if (p->steps[i].y == buffer || p->steps[i].x[0] == buffer)
            return true;
    return false;
}

static size_t find_stem(const struct mix__plan *p, const mix_graph *g)
{
    size_t stem = 0;
    while (stem < p->n_steps && (p->steps[stem].kind != MIX__STEP_CONV ||
                                 !g->layers[p->steps[stem].layer].info.searched))
        stem++;
    if (!p->backward || stem == p->n_steps || p->steps[stem].dx[0] < 0)
        return 0;
    for (size_t i = stem; i < p->n_steps; i++)
        for (int k = 0; k < 2; k++) {
            const int x = p->steps[i].x[k];
            if (x >= 0 && x != p->steps[stem].x[0] && made_before(p, stem, x))
                return 0;
        }
    return stem;
}

/* ---- expand layers that are not stored ------------------------------------------------------ */

/* An unstored layer costs products of its own, c for each value that is not stored, and some with
 * matrices (k, c): it pays where it widens from few channels, for many pixels, and where products
 * are cheap: not where values of half the size cost products of float32. */
enum { WIDENS_LEAST = 2, NARROW_MOST = 24, PIXELS_LEAST = 4 };

static bool is_of_kind(const struct mix__plan *p, const struct mix__step *s,
                       enum mix__conv_kind kind)
{
    if (s->kind != MIX__STEP_CONV)
        return false;
    const struct mix__conv_dims dims = mix__step_dims(p, s);
    return mix__conv_kind(&dims) == kind;
}

static bool is_expand(const struct mix__plan *p, const mix_graph *g, const struct mix__step *s)
{
    return is_of_kind(p, s, MIX__CONV_POINTWISE) && s->after >= 0 && s->node->bias < 0 &&
           s->node->in[0] != 0 && s->in.c <= NARROW_MOST && s->out.c >= WIDENS_LEAST * s->in.c &&
           (size_t)p->batch * s->in.h * s->in.w >= (size_t)PIXELS_LEAST * s->out.c &&
           g->layers[s->layer].info.searched;
}

static void find_unstored(struct mix__plan *p, const mix_graph *g)
{
    const bool products = mix_ctx_cpu(p->ctx) & MIX_CPU_BF16_PRODUCTS;
    if (!p->backward || (p->dtype == MIX__DTYPE_BF16 && !products))
        return;
    for (size_t i = 0; i < p->n_steps; i++) {
        struct mix__step *s = &p->steps[i];
        if (!is_of_kind(p, s, MIX__CONV_DEPTHWISE) || s->before < 0)
            continue;
        for (size_t j = p->stem; j < i; j++) {
            struct mix__step *from = &p->steps[j];
            if (from->after != s->before || !is_expand(p, g, from))
                continue;
            s->expand = (int)j;
            from->unstored = true;
            p->buffers[from->y].count = 0;
            p->buffers[from->dy].count = p->buffers[from->x[0]].count;
        }
    }
}

/* ---- all together --------------------------------------------------------------------------- */

static void make(struct maker *m)
{
    const mix_graph *g = m->graph;
    struct mix__plan *p = m->plan;
    for (size_t t = 0; t < g->n_tensors; t++)
        m->value[t] = m->grad[t] = m->fused[t] = -1;
    p->input = m->value[0] = new_buffer(m, &g->tensors[0]);
    for (size_t i = 0; i < g->n_nodes && m->status == MIX_OK; i++)
        if (!m->skip[i])
            plan_node(m, &g->nodes[i]);
    p->output = m->value[g->output];
    p->output_grad = -1;
    if (!p->backward || m->status != MIX_OK)
        return;
    p->output_grad = grad_of(m, g->output);
    share_flattened(m);
    bool *written = mix__zalloc(p->ctx, 2 * g->n_tensors + p->n_buffers + p->n_steps, 1);
    if (!written) {
        m->status = MIX_ENOMEM;
        return;
    }
    plan_gradients(m, written);
    mix__free(p->ctx, written);
}

mix_status mix__plan_make(struct mix__plan *plan, const mix_graph *graph, int batch, bool backward,
                          enum mix__dtype dtype)
{
    mix_ctx *ctx = graph->ctx;
    *plan = (struct mix__plan){ .ctx = ctx, .batch = batch, .backward = backward, .dtype = dtype };
    struct maker m = {
        .plan = plan,
        .graph = graph,
        .value = mix__alloc(ctx, graph->n_tensors, sizeof(int)),
        .grad = mix__alloc(ctx, graph->n_tensors, sizeof(int)),
        .fused = mix__alloc(ctx, graph->n_tensors, sizeof(int)),
        .skip = mix__zalloc(ctx, graph->n_nodes, sizeof(bool)),
    };
    if (m.value && m.grad && m.fused && m.skip)
        make(&m);
    else
        m.status = MIX_ENOMEM;
    mix__free(ctx, m.value);
    mix__free(ctx, m.grad);
    mix__free(ctx, m.fused);
    mix__free(ctx, m.skip);
    if (m.status == MIX_OK) {
        plan->stem = find_stem(plan, graph);
        find_unstored(plan, graph);
        find_spans(plan);
        m.status = lay_out(plan);
    }
    if (m.status != MIX_OK)
        mix__plan_release(plan);
    return m.status;
}

void mix__plan_release(struct mix__plan *plan)
{
    mix__free(plan->ctx, plan->steps);
    mix__free(plan->ctx, plan->buffers);
    plan->steps = NULL;
    plan->buffers = NULL;
}

struct mix__conv_dims mix__step_dims(const struct mix__plan *plan, const struct mix__step *step)
{
    const struct mix__node *node = step->node;
    return (struct mix__conv_dims){
        .n = plan->batch,
        .h = step->in.h,
        .w = step->in.w,
        .c = step->in.c,
        .oh = step->out.h,
        .ow = step->out.w,
        .k = step->out.c,
        .kernel = node->kernel,
        .stride = node->stride,
        .pad = node->pad,
        .pad_end = node->pad_end,
        .groups = node->groups,
        .bias = node->bias >= 0,
    };
}
