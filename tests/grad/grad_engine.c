/*
 * tests/grad/grad_engine.c - every operator's gradient in the engine against central differences of
 * an independent evaluation of the same graph in double.
 *
 * The reference below walks the graph node by node, plain loops, no fusion. Quantizers appear where
 * a derivative exists: the gradient to alpha of one layer's mixture, whose quantized values do not
 * move.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "engine/plan.h"
#include "train/train.h"

/* Of 32 images some tiles have several. */
enum { SEED = 7, BATCH = 4, BATCH_MAX = 32, CLASSES = 5 };

struct reference {
    const mix_graph *graph;
    size_t batch;
    const double *value; /* the graph's trained parameters            */
    const float *image;
    const struct mix__state *state;
    bool fixed;      /* batch norm by the state's running statistics */
    int mixed_layer; /* whose input is a mixture; -1: none        */
    const double *alpha;
    double **tensor; /* (tensor): (n, h, w, c)                    */
};

static size_t elements(const struct reference *r, const struct mix__tensor *t)
{
    return r->batch * t->h * t->w * t->c;
}

static const double *param(const struct reference *r, int index)
{
    return r->value + r->graph->params[index].offset;
}

static void conv(const struct reference *r, const struct mix__node *node, double *y,
                 const double *x)
{
    const struct mix__tensor *a = &r->graph->tensors[node->in[0]];
    const struct mix__tensor *b = &r->graph->tensors[node->out];
    const int group_in = a->c / node->groups, group_out = b->c / node->groups, k = node->kernel;
    const double *w = param(r, node->weight);
    for (size_t i = 0; i < elements(r, b); i++) {
        const int o = (int)(i % b->c), q = (int)(i / b->c % b->w),
                  p = (int)(i / b->c / b->w % b->h);
        const size_t n = i / b->c / b->w / b->h;
        double sum = node->bias >= 0 ? param(r, node->bias)[o] : 0.0;
        for (int ci = 0; ci < group_in; ci++)
            for (int u = 0; u < k; u++)
                for (int v = 0; v < k; v++) {
                    const int h = p * node->stride - node->pad + u;
                    const int col = q * node->stride - node->pad + v;
                    if (h < 0 || h >= a->h || col < 0 || col >= a->w)
                        continue;
                    sum += w[((size_t)(o * group_in + ci) * k + u) * k + v] *
                           x[((n * a->h + h) * a->w + col) * a->c + o / group_out * group_in + ci];
                }
        y[i] = sum;
    }
}

static void batchnorm(const struct reference *r, const struct mix__node *node, double *y,
                      const double *x)
{
    const struct mix__tensor *t = &r->graph->tensors[node->out];
    const size_t rows = elements(r, t) / t->c;
    for (int c = 0; c < t->c; c++) {
        double mean = 0.0, var = 0.0;
        for (size_t i = 0; i < rows; i++)
            mean += x[i * t->c + c] / (double)rows;
        for (size_t i = 0; i < rows; i++)
            var += pow(x[i * t->c + c] - mean, 2.0) / (double)rows;
        if (r->fixed) {
            const struct mix__param *params = r->graph->params;
            mean = r->state->stats[params[node->mean].offset - r->graph->n_trained + (size_t)c];
            var = r->state->stats[params[node->var].offset - r->graph->n_trained + (size_t)c];
        }
        for (size_t i = 0; i < rows; i++)
            y[i * t->c + c] = param(r, node->gamma)[c] * (x[i * t->c + c] - mean) /
                                  sqrt(var + (double)node->eps) +
                              param(r, node->beta)[c];
    }
}

static void mixture(const struct reference *r, int layer, double *y, const double *x, size_t n)
{
    const struct mix__state *s = r->state;
    double sum = 0.0;
    for (int b = 0; b < s->n_candidates; b++)
        sum += exp(r->alpha[b]);
    for (size_t i = 0; i < n; i++) {
        y[i] = 0.0;
        for (int b = 0; b < s->n_candidates; b++) {
            const float step = s->value[s->act_step + (size_t)layer * s->n_candidates + b];
            const struct mix__bounds bounds =
                mix__bounds_activation(s->candidate[b], r->graph->layers[layer].info.range);
            const double v = fmin(fmax(x[i] / step, bounds.n), bounds.p);
            y[i] += exp(r->alpha[b]) / sum * step * nearbyint(v);
        }
    }
}

static void maxpool(const struct reference *r, const struct mix__node *node, double *y,
                    const double *x)
{
    const struct mix__tensor *a = &r->graph->tensors[node->in[0]];
    const struct mix__tensor *b = &r->graph->tensors[node->out];
    for (size_t i = 0; i < elements(r, b); i++) {
        const int q = (int)(i / b->c % b->w), p = (int)(i / b->c / b->w % b->h);
        const size_t n = i / b->c / b->w / b->h;
        y[i] = -INFINITY;
        for (int tap = 0; tap < node->kernel * node->kernel; tap++) {
            const int h = p * node->stride - node->pad + tap / node->kernel;
            const int col = q * node->stride - node->pad + tap % node->kernel;
            if (h >= 0 && h < a->h && col >= 0 && col < a->w)
                y[i] = fmax(y[i], x[((n * a->h + h) * a->w + col) * a->c + i % b->c]);
        }
    }
}

static void evaluate_node(const struct reference *r, const struct mix__node *node)
{
    const struct mix__tensor *t = &r->graph->tensors[node->out];
    const double *x = r->tensor[node->in[0]];
    double *y = r->tensor[node->out], *mixed = NULL;
    switch (node->op) {
    case MIX__OP_CONV2D:
    case MIX__OP_LINEAR:
        if (node->layer == r->mixed_layer) {
            const size_t n = elements(r, &r->graph->tensors[node->in[0]]);
            mixed = malloc(n * sizeof *mixed);
            mixture(r, node->layer, mixed, x, n);
            x = mixed;
        }
        conv(r, node, y, x);
        free(mixed);
        break;
    case MIX__OP_BATCHNORM:
        batchnorm(r, node, y, x);
        break;
    case MIX__OP_MAXPOOL:
        maxpool(r, node, y, x);
        break;
    case MIX__OP_GLOBAL_AVGPOOL: {
        const struct mix__tensor *a = &r->graph->tensors[node->in[0]];
        const size_t pixels = (size_t)a->h * a->w;
        memset(y, 0, elements(r, t) * sizeof *y);
        for (size_t i = 0; i < elements(r, a); i++)
            y[i / a->c / pixels * a->c + i % a->c] += x[i] / (double)pixels;
        break;
    }
    default:
        for (size_t i = 0; i < elements(r, t); i++)
            switch (node->op) {
            case MIX__OP_RELU:
                y[i] = fmax(x[i], 0.0);
                break;
            case MIX__OP_RELU6:
                y[i] = fmin(fmax(x[i], 0.0), 6.0);
                break;
            case MIX__OP_HARDSIGMOID:
                y[i] = fmin(fmax(x[i] + 3.0, 0.0), 6.0) / 6.0;
                break;
            case MIX__OP_HARDSWISH:
                y[i] = x[i] * fmin(fmax(x[i] + 3.0, 0.0), 6.0) / 6.0;
                break;
            case MIX__OP_ADD:
                y[i] = x[i] + r->tensor[node->in[1]][i];
                break;
            case MIX__OP_MUL:
                y[i] = x[i] *
                       r->tensor[node->in[1]][i / t->c / ((size_t)t->h * t->w) * t->c + i % t->c];
                break;
            default: /* flatten of 1x1, dropout switched off */
                y[i] = x[i];
            }
    }
}

static double reference_loss(const struct reference *r, const int *labels)
{
    const double *logits = r->tensor[r->graph->output];
    double loss = 0.0;
    for (size_t i = 0; i < elements(r, &r->graph->tensors[0]); i++)
        r->tensor[0][i] = r->image[i];
    for (size_t i = 0; i < r->graph->n_nodes; i++)
        evaluate_node(r, &r->graph->nodes[i]);
    for (size_t n = 0; n < r->batch; n++) {
        double sum = 0.0;
        for (int c = 0; c < CLASSES; c++)
            sum += exp(logits[n * CLASSES + c]);
        loss += (log(sum) - logits[n * CLASSES + labels[n]]) / (double)r->batch;
    }
    return loss;
}

/* ---- the networks under test ------------------------------------------------------------------
 */

static int conv_bn(mix_graph *g, const char *name, int x, struct mix__conv_shape shape, int act)
{
    char bn[32], relu[32];
    snprintf(bn, sizeof bn, "%s.bn", name);
    snprintf(relu, sizeof relu, "%s.act", name);
    x = mix__graph_conv(g, name, x, &shape);
    x = mix__graph_batchnorm(g, bn, x, 1e-5f, 0.1f);
    return act < 0 ? x : mix__graph_unary(g, (enum mix__op)act, relu, x);
}

static int head(mix_graph *g, int x)
{
    x = mix__graph_unary(g, MIX__OP_GLOBAL_AVGPOOL, "pool", x);
    x = mix__graph_unary(g, MIX__OP_FLATTEN, "flatten", x);
    x = mix__graph_dropout(g, "dropout", x, 0.2f);
    return mix__graph_linear(g, "fc", x, CLASSES);
}

/* MobileNet's pieces: stem, inverted residual with its addition, stride 2, linear bottleneck. */
static int inverted(mix_graph *g)
{
    int x =
        conv_bn(g, "stem", 0, (struct mix__conv_shape){ 8, 3, 2, 1, 1, false, 0 }, MIX__OP_RELU6);
    int y = conv_bn(g, "expand", x, (struct mix__conv_shape){ 24, 1, 1, 0, 1, false, 0 },
                    MIX__OP_RELU6);
    y = conv_bn(g, "depthwise", y, (struct mix__conv_shape){ 24, 3, 1, 1, 24, false, 0 },
                MIX__OP_RELU6);
    y = conv_bn(g, "project", y, (struct mix__conv_shape){ 8, 1, 1, 0, 1, false, 0 }, -1);
    x = mix__graph_add(g, "add", x, y);
    x = conv_bn(g, "depthwise2", x, (struct mix__conv_shape){ 8, 5, 2, 2, 8, false, 0 },
                MIX__OP_RELU);
    return head(g, x);
}

/* ResNet's: dense 3x3, ReLU behind an addition, a strided 1x1 shortcut, channels that are no
 * multiple of 8, a bias, grouped convolution. */
static int residual(mix_graph *g)
{
    int x =
        conv_bn(g, "stem", 0, (struct mix__conv_shape){ 6, 3, 1, 1, 1, false, 0 }, MIX__OP_RELU);
    int y =
        conv_bn(g, "conv1", x, (struct mix__conv_shape){ 10, 3, 2, 1, 2, false, 0 }, MIX__OP_RELU);
    y = conv_bn(g, "conv2", y, (struct mix__conv_shape){ 10, 3, 1, 1, 1, false, 0 }, -1);
    x = conv_bn(g, "shortcut", x, (struct mix__conv_shape){ 10, 1, 2, 0, 1, false, 0 }, -1);
    x = mix__graph_unary(g, MIX__OP_RELU, "relu", mix__graph_add(g, "add", y, x));
    x = mix__graph_conv(g, "biased", x, &(struct mix__conv_shape){ 7, 1, 1, 0, 1, true, 0 });
    return head(g, x);
}

/* MobileNet v3's: hard swish, a gate from the same tensor, uneven padding as TensorFlow's "same"
 * has it (dense and depthwise), a max pool, two linear layers. */
static int gated(mix_graph *g)
{
    int x = conv_bn(g, "stem", 0, (struct mix__conv_shape){ 8, 3, 2, 0, 1, false, 1 },
                    MIX__OP_HARDSWISH);
    x = conv_bn(g, "depthwise", x, (struct mix__conv_shape){ 8, 3, 2, 0, 8, false, 2 },
                MIX__OP_HARDSWISH);
    int gate = mix__graph_unary(g, MIX__OP_GLOBAL_AVGPOOL, "squeeze", x);
    gate = mix__graph_conv(g, "fc1", gate, &(struct mix__conv_shape){ 6, 1, 1, 0, 1, true, 0 });
    gate = mix__graph_unary(g, MIX__OP_RELU, "relu", gate);
    gate = mix__graph_conv(g, "fc2", gate, &(struct mix__conv_shape){ 8, 1, 1, 0, 1, true, 0 });
    gate = mix__graph_unary(g, MIX__OP_HARDSIGMOID, "sigmoid", gate);
    x = mix__graph_mul(g, "gate", x, gate);
    x = mix__graph_maxpool(g, "maxpool", x, 3, 2, 1);
    x = mix__graph_unary(g, MIX__OP_FLATTEN, "flat",
                         mix__graph_unary(g, MIX__OP_GLOBAL_AVGPOOL, "top", x));
    x = mix__graph_unary(g, MIX__OP_HARDSWISH, "swish", mix__graph_linear(g, "fc", x, 9));
    return mix__graph_linear(g, "last", x, CLASSES);
}

/* Down to one pixel, up again and down: tensors of one pixel stay float32. */
static int one_pixel(mix_graph *g)
{
    int x =
        conv_bn(g, "stem", 0, (struct mix__conv_shape){ 8, 3, 2, 1, 1, false, 0 }, MIX__OP_RELU);
    x = conv_bn(g, "down", x, (struct mix__conv_shape){ 16, 5, 1, 0, 1, false, 0 }, MIX__OP_RELU);
    x = conv_bn(g, "up", x, (struct mix__conv_shape){ 16, 3, 1, 2, 1, false, 0 }, MIX__OP_RELU6);
    x = conv_bn(g, "depthwise", x, (struct mix__conv_shape){ 16, 3, 1, 0, 16, false, 0 },
                MIX__OP_RELU6);
    return head(g, x);
}

/* Biases in front of batch norms, as ONNX files may have them: dense, strided, depthwise. */
static int biased(mix_graph *g)
{
    int x = conv_bn(g, "stem", 0, (struct mix__conv_shape){ 4, 3, 2, 1, 1, true, 0 }, MIX__OP_RELU);
    x = conv_bn(g, "dense", x, (struct mix__conv_shape){ 5, 3, 1, 1, 1, true, 0 }, MIX__OP_RELU);
    x = conv_bn(g, "depthwise", x, (struct mix__conv_shape){ 5, 3, 1, 1, 5, true, 0 },
                MIX__OP_RELU);
    x = conv_bn(g, "strided", x, (struct mix__conv_shape){ 6, 1, 2, 0, 1, true, 0 }, MIX__OP_RELU);
    return head(g, x);
}

/* Depthwise layers that our loops do not take, and such as have no batch norm on one side or both. */
static int depthwise(mix_graph *g)
{
    int x =
        conv_bn(g, "image", 0, (struct mix__conv_shape){ 3, 3, 1, 1, 3, false, 0 }, MIX__OP_RELU);
    x = conv_bn(g, "wide", x, (struct mix__conv_shape){ 6, 1, 1, 0, 1, false, 0 }, MIX__OP_RELU6);
    x = mix__graph_conv(g, "before", x, &(struct mix__conv_shape){ 6, 3, 1, 1, 6, false, 0 });
    x = mix__graph_unary(g, MIX__OP_RELU, "relu", x);
    x = mix__graph_conv(g, "bare", x, &(struct mix__conv_shape){ 6, 5, 1, 2, 6, false, 0 });
    x = mix__graph_unary(g, MIX__OP_RELU, "relu2", x);
    x = conv_bn(g, "behind", x, (struct mix__conv_shape){ 6, 3, 2, 1, 6, false, 0 }, MIX__OP_RELU);
    x = conv_bn(g, "seven", x, (struct mix__conv_shape){ 6, 7, 1, 3, 6, false, 0 }, MIX__OP_RELU);
    x = conv_bn(g, "three", x, (struct mix__conv_shape){ 6, 3, 3, 1, 6, false, 0 }, MIX__OP_RELU);
    return head(g, x);
}

/* ResNet's beginning. */
static int stem_pool(mix_graph *g)
{
    int x =
        conv_bn(g, "stem", 0, (struct mix__conv_shape){ 8, 3, 1, 1, 1, false, 0 }, MIX__OP_RELU);
    x = mix__graph_maxpool(g, "pool", x, 3, 2, 1);
    x = conv_bn(g, "conv", x, (struct mix__conv_shape){ 8, 3, 1, 1, 1, false, 0 }, MIX__OP_RELU);
    return head(g, x);
}

/* Max pools behind a batch norm, with an activation and without, one of a tensor that has another
 * reader, and one of a pool. */
static int pooled(mix_graph *g)
{
    const struct mix__conv_shape same = { 6, 3, 1, 1, 1, false, 0 };
    int x =
        conv_bn(g, "stem", 0, (struct mix__conv_shape){ 6, 3, 1, 1, 1, false, 0 }, MIX__OP_RELU);
    x = mix__graph_maxpool(g, "pool", x, 3, 2, 1);
    x = mix__graph_maxpool(g, "swished", conv_bn(g, "conv", x, same, MIX__OP_HARDSWISH), 2, 1, 0);
    x = mix__graph_maxpool(g, "bare", conv_bn(g, "conv2", x, same, -1), 3, 1, 1);
    x = conv_bn(g, "conv3", x, same, MIX__OP_RELU6);
    x = mix__graph_add(g, "add", mix__graph_maxpool(g, "both", x, 3, 1, 1), x);
    x = mix__graph_maxpool(g, "twice", mix__graph_maxpool(g, "once", x, 2, 1, 1), 2, 2, 0);
    return head(g, x);
}

/* Additions whose gradient may be in one place for both sides, and such whose other side is read by
 * the same layer, by a later one, or is made later; with clips behind them, with an activation that
 * is not told from what comes out, and of no batch norm at all. */
static int additions(mix_graph *g)
{
    const struct mix__conv_shape same = { 6, 3, 1, 1, 1, false, 0 };
    int x =
        conv_bn(g, "stem", 0, (struct mix__conv_shape){ 6, 3, 2, 1, 1, false, 0 }, MIX__OP_RELU);
    int y = conv_bn(g, "both", conv_bn(g, "first", x, same, MIX__OP_RELU), same, -1);
    x = mix__graph_unary(g, MIX__OP_RELU6, "clip", mix__graph_add(g, "add", x, y));
    x = mix__graph_add(g, "short", conv_bn(g, "same", x, same, -1), x);
    y = conv_bn(g, "before", x, same, -1);
    int z = conv_bn(g, "between", x, same, MIX__OP_RELU);
    x = mix__graph_unary(g, MIX__OP_RELU, "relu", mix__graph_add(g, "add2", y, x));
    x = mix__graph_add(g, "bare", x, z);
    y = conv_bn(g, "early", x, same, -1);
    z = conv_bn(g, "late", x, same, MIX__OP_RELU);
    x = mix__graph_unary(g, MIX__OP_HARDSWISH, "swish", mix__graph_add(g, "add3", y, z));
    return head(g, x);
}

struct fixture {
    mix_ctx *ctx;
    mix_graph *graph;
    struct mix__state *state;
    struct mix__engine *engine;
    int labels[BATCH_MAX];
    double *value, alpha[MIX__BRANCH_MAX];
    struct reference reference;
};

static void begin(struct fixture *f, int (*build)(mix_graph *), unsigned cpu, uint64_t seed,
                  int batch)
{
    static const int candidates[] = { 2, 3, 4, 8 };
    mix_ctx_options options;
    mix_ctx_options_init(&options);
    options.cpu_mask = cpu;
    assert_int_equal(mix_ctx_new(&f->ctx, &options), MIX_OK);
    assert_int_equal(mix__graph_new(&f->graph, f->ctx, "test", 10, 3), MIX_OK);
    assert_int_equal(mix__graph_finish(f->graph, build(f->graph)), MIX_OK);
    for (size_t i = 0; i < f->graph->n_values; i++)
        f->graph->values[i] = (float)(0.3 * mix__random_normal(seed, 1, i));
    assert_int_equal(mix__state_new(&f->state, f->graph, candidates, 4, 1), MIX_OK);
    assert_int_equal(mix__engine_new(&f->engine, f->state, batch, true, MIX__DTYPE_F32), MIX_OK);
    f->value = malloc(f->graph->n_trained * sizeof *f->value);
    for (size_t i = 0; i < f->graph->n_trained; i++)
        f->value[i] = f->state->value[i];
    f->reference = (struct reference){ .graph = f->graph,
                                       .batch = (size_t)batch,
                                       .value = f->value,
                                       .state = f->state,
                                       .image = mix__engine_input(f->engine),
                                       .mixed_layer = -1,
                                       .alpha = f->alpha };
    for (size_t i = 0; i < elements(&f->reference, &f->graph->tensors[0]); i++)
        mix__engine_input(f->engine)[i] = (float)mix__random_normal(seed, 2, i);
    for (int i = 0; i < batch; i++)
        f->labels[i] = i % CLASSES;
    f->reference.tensor = malloc(f->graph->n_tensors * sizeof *f->reference.tensor);
    for (size_t t = 0; t < f->graph->n_tensors; t++)
        f->reference.tensor[t] =
            malloc(elements(&f->reference, &f->graph->tensors[t]) * sizeof(double));
}

static void end(struct fixture *f)
{
    for (size_t t = 0; t < f->graph->n_tensors; t++)
        free(f->reference.tensor[t]);
    free(f->reference.tensor);
    free(f->value);
    mix__engine_free(f->engine);
    mix__state_free(f->state);
    mix_graph_free(f->graph);
    mix_ctx_free(f->ctx);
}

/* From now on by running statistics, made up here. */
static void fix_statistics(struct fixture *f)
{
    const mix_graph *g = f->graph;
    f->reference.fixed = true;
    for (size_t p = 0; p < g->n_params; p++) {
        const struct mix__param *param = &g->params[p];
        for (size_t i = 0; i < param->count && param->offset >= g->n_trained; i++) {
            const double x = mix__random_uniform(7, 3, param->offset + i);
            f->state->stats[param->offset - g->n_trained + i] =
                (float)(param->kind == MIX__PARAM_VAR ? 0.5 + x : x - 0.5);
        }
    }
}

static struct mix__pass pass_of(const struct fixture *f)
{
    return (struct mix__pass){ .batch_stats = !f->reference.fixed,
                               .update_stats = !f->reference.fixed,
                               .fixed_stats = f->reference.fixed };
}

static void run(struct fixture *f, unsigned what)
{
    float dlogits[BATCH_MAX * CLASSES];
    const float *logits;
    const struct mix__pass pass = pass_of(f);
    assert_int_equal(mix__engine_forward(f->engine, &pass, &logits), MIX_OK);
    const struct mix__loss loss =
        mix__loss_eval(logits, NULL, f->labels, (int)f->reference.batch, CLASSES, 1.0f, dlogits);
    const double expected = reference_loss(&f->reference, f->labels);
    assert_true(fabs(loss.loss - expected) < 1e-5 * expected);
    assert_int_equal(mix__engine_backward(f->engine, dlogits, what), MIX_OK);
}

/* Central difference of the reference loss in *x. A kink of ReLU inside the interval would show as
 * a difference between two widths: such a value is not compared. */
static bool slope(struct fixture *f, double *x, double *result)
{
    double d[2];
    const double at = *x;
    for (int i = 0; i < 2; i++) {
        const double h = i ? 1e-5 : 2e-5;
        *x = at + h;
        const double up = reference_loss(&f->reference, f->labels);
        *x = at - h;
        d[i] = (up - reference_loss(&f->reference, f->labels)) / (2.0 * h);
    }
    *x = at;
    *result = d[1];
    return fabs(d[0] - d[1]) < 1e-6 + 1e-4 * fabs(d[1]);
}

static void check_params(int (*build)(mix_graph *), unsigned cpu, int batch, bool fixed)
{
    struct fixture f;
    begin(&f, build, cpu, SEED, batch);
    if (fixed)
        fix_statistics(&f);
    run(&f, MIX__GRAD_PARAMS);
    for (size_t p = 0; p < f.graph->n_params; p++) {
        const struct mix__param *param = &f.graph->params[p];
        int compared = 0;
        double largest = 0.0;
        for (size_t i = 0; i < param->count && param->offset < f.graph->n_trained; i++)
            largest = fmax(largest, fabs(f.state->grad[param->offset + i]));
        for (size_t i = 0; i < param->count && param->offset < f.graph->n_trained; i += 3) {
            double expected;
            if (!slope(&f, &f.value[param->offset + i], &expected))
                continue;
            const double got = f.state->grad[param->offset + i];
            if (fabs(got - expected) > 1e-6 + 1e-4 * largest)
                fail_msg("%s[%zu]: gradient %.8g, expected %.8g", param->name, i, got, expected);
            compared++;
        }
        assert_true(compared > 0 || param->offset >= f.graph->n_trained);
    }
    end(&f);
}

static void test_inverted(void **state)
{
    struct fixture f;
    struct mix__plan plan = { 0 };
    int unstored = 0;
    (void)state;
    begin(&f, inverted, MIX_CPU_ALL, SEED, BATCH);
    plan.ctx = f.ctx;
    assert_int_equal(mix__plan_make(&plan, f.graph, BATCH, true, MIX__DTYPE_F32), MIX_OK);
    for (size_t i = 0; i < plan.n_steps; i++)
        unstored += plan.steps[i].unstored;
    assert_int_equal(unstored, 1); /* else what follows would not be of it */
    mix__plan_release(&plan);
    end(&f);
    check_params(inverted, MIX_CPU_ALL, BATCH, false);
    check_params(inverted, 0, BATCH, false);
}

static void test_residual(void **state)
{
    (void)state;
    check_params(residual, MIX_CPU_ALL, BATCH, false);
}

static void test_additions(void **state)
{
    (void)state;
    for (int fixed = 0; fixed <= 1; fixed++) {
        check_params(additions, MIX_CPU_ALL, BATCH, fixed);
        check_params(additions, 0, BATCH, fixed);
    }
}

static void test_pooled(void **state)
{
    (void)state;
    for (int fixed = 0; fixed <= 1; fixed++) {
        check_params(pooled, MIX_CPU_ALL, BATCH, fixed);
        check_params(pooled, 0, BATCH, fixed);
    }
}

static void test_gated(void **state)
{
    (void)state;
    check_params(gated, MIX_CPU_ALL, BATCH, false);
    check_params(gated, 0, BATCH, false);
}

static void test_depthwise(void **state)
{
    (void)state;
    check_params(depthwise, MIX_CPU_ALL, BATCH, false);
    check_params(depthwise, 0, BATCH, true);
}

static void test_fixed_statistics(void **state)
{
    (void)state;
    check_params(inverted, MIX_CPU_ALL, BATCH, true);
    check_params(residual, MIX_CPU_ALL, BATCH, true);
    check_params(gated, MIX_CPU_ALL, BATCH, true);
}

static void test_biased(void **state)
{
    (void)state;
    for (int fixed = 0; fixed <= 1; fixed++) {
        check_params(biased, MIX_CPU_ALL, BATCH, fixed);
        check_params(biased, MIX_CPU_ALL, BATCH_MAX, fixed);
    }
}

/* Gradients add up: two backward passes give twice one. */
static void test_accumulates(void **state)
{
    struct fixture f;
    (void)state;
    begin(&f, inverted, MIX_CPU_ALL, SEED, BATCH);
    run(&f, MIX__GRAD_PARAMS);
    float *once = malloc(f.state->n * sizeof *once);
    memcpy(once, f.state->grad, f.state->n * sizeof *once);
    run(&f, MIX__GRAD_PARAMS);
    for (size_t i = 0; i < f.graph->n_trained; i++)
        assert_true(fabsf(f.state->grad[i] - 2.0f * once[i]) <= 1e-6f * fabsf(once[i]));
    free(once);
    end(&f);
}

/* The mixture's gradient to alpha, for a quantizer fused behind a batch norm and for one of its
 * own. */
static void check_alpha(const char *name)
{
    struct fixture f;
    begin(&f, inverted, MIX_CPU_ALL, SEED, BATCH);
    assert_int_equal(mix__engine_calibrate(f.engine), MIX_OK);
    int layer = 0;
    while (strcmp(f.graph->layers[layer].info.name, name) != 0)
        layer++;
    mix__engine_modes(f.engine)[layer].mode = MIX__QUANT_MIXTURE;
    f.reference.mixed_layer = layer;
    for (int b = 0; b < 4; b++)
        f.alpha[b] = f.state->alpha[layer * 4 + b] = (float)(0.5 * b - 0.7);
    run(&f, MIX__GRAD_ALPHA);
    for (int b = 0; b < 4; b++) {
        double expected;
        assert_true(slope(&f, &f.alpha[b], &expected));
        const double got = f.state->alpha_grad[layer * 4 + b];
        if (fabs(got - expected) > 1e-6 + 1e-3 * fabs(expected))
            fail_msg("%s alpha[%d]: gradient %.8g, expected %.8g", name, b, got, expected);
    }
    for (size_t i = 0; i < f.state->n; i++)
        assert_true(f.state->grad[i] == 0.0f);
    end(&f);
}

static void test_alpha(void **state)
{
    (void)state;
    check_alpha("project");
    check_alpha("depthwise2");
}

/* ---- bfloat16 ---------------------------------------------------------------------------------
 */

/* What gradients and running statistics may be apart at most. */
#define HALF_APART  0.15
#define STATS_APART 0.001

/* Size of a - b against that of a. */
static double apart(const float *a, const float *b, size_t n)
{
    double size = 0.0, difference = 0.0;
    for (size_t i = 0; i < n; i++) {
        size += (double)a[i] * a[i];
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    }
    return sqrt(difference / size);
}

static void gradients(const struct fixture *f, struct mix__engine *engine, float *grad)
{
    const struct mix__pass pass = pass_of(f);
    float dlogits[BATCH_MAX * CLASSES];
    const float *logits;
    memset(f->state->grad, 0, f->state->n * sizeof *grad);
    assert_int_equal(mix__engine_forward(engine, &pass, &logits), MIX_OK);
    mix__loss_eval(logits, NULL, f->labels, (int)f->reference.batch, CLASSES, 1.0f, dlogits);
    assert_int_equal(mix__engine_backward(engine, dlogits, MIX__GRAD_PARAMS), MIX_OK);
    memcpy(grad, f->state->grad, f->state->n * sizeof *grad);
}

/* Ways to quantize. */
static const struct half_mode {
    enum mix__quant_mode mode;
    int weight_bits;
} half_modes[] = { { MIX__QUANT_OFF, 32 },
                   { MIX__QUANT_ONE, 32 },
                   { MIX__QUANT_ONE, 8 },
                   { MIX__QUANT_MIXTURE, 32 } };
enum { HALF_MODES = sizeof half_modes / sizeof *half_modes, HALF_SEEDS = 5 };

/* All gradients, and that of the step of the image's quantizer. */
struct half_apart {
    double all, image_step;
};

/* How far gradients from bfloat16 in memory and in products are from those from float32, in every
 * mode; fails where running statistics are. */
static void compare_half(int (*build)(mix_graph *), bool fixed, uint64_t seed,
                         struct half_apart *result)
{
    struct fixture f;
    struct mix__engine *half;
    begin(&f, build, MIX_CPU_ALL, seed, BATCH);
    const size_t n = f.state->n, n_stats = f.state->n_stats;
    float *grad[2] = { malloc(n * sizeof(float)), malloc(n * sizeof(float)) };
    float *stats[2] = { malloc(n_stats * sizeof(float)), malloc(n_stats * sizeof(float)) };
    assert_int_equal(mix__engine_new(&half, f.state, BATCH, true, MIX__DTYPE_BF16), MIX_OK);
    memcpy(mix__engine_input(half), mix__engine_input(f.engine),
           elements(&f.reference, &f.graph->tensors[0]) * sizeof(float));
    assert_int_equal(mix__engine_calibrate(f.engine), MIX_OK);
    for (size_t m = 0; m < HALF_MODES; m++) {
        for (int i = 0; i < 2; i++) {
            struct mix__engine *engine = i ? half : f.engine;
            mix__engine_mode_all(engine, half_modes[m].mode, 3, half_modes[m].weight_bits);
            if (i == 0)
                mix__state_init_weight_steps(f.state, mix__engine_modes(engine));
            for (size_t k = 0; k < n_stats; k++)
                f.state->stats[k] = 1.0f;
            if (fixed)
                fix_statistics(&f);
            gradients(&f, engine, grad[i]);
            memcpy(stats[i], f.state->stats, n_stats * sizeof(float));
        }
        const size_t image_step = f.state->act_step;
        result[m] = (struct half_apart){ apart(grad[0], grad[1], n), 0.0 };
        if (half_modes[m].mode != MIX__QUANT_OFF)
            result[m].image_step = apart(grad[0] + image_step, grad[1] + image_step, 1);
        const double s = apart(stats[0], stats[1], n_stats);
        if (s > STATS_APART)
            fail_msg("mode %zu, seed %d: statistics %.5f apart", m, (int)seed, s);
    }
    for (int i = 0; i < 2; i++) {
        free(grad[i]);
        free(stats[i]);
    }
    mix__engine_free(half);
    end(&f);
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* rank: of the seeds by size, the one that the bound is for. */
static void check_seeds(const char *what, size_t mode, double *of_seeds, int rank)
{
    qsort(of_seeds, HALF_SEEDS, sizeof *of_seeds, by_size);
    if (!(of_seeds[rank] <= HALF_APART))
        fail_msg("mode %zu: %s %.4f apart", mode, what, of_seeds[rank]);
}

/* A few hundredths apart, where a wrong factor would be far: for all seeds by fixed statistics. By
 * the batch's own for most of them: a code that rounds the other way moves the statistics of so
 * small a batch, and one network in five by more. */
static void check_half(int (*build)(mix_graph *), bool fixed)
{
    enum { MIDDLE = HALF_SEEDS / 2, LARGEST = HALF_SEEDS - 1 };
    struct half_apart found[HALF_SEEDS][HALF_MODES];
    for (int seed = 0; seed < HALF_SEEDS; seed++)
        compare_half(build, fixed, (uint64_t)(SEED + seed), found[seed]);
    for (size_t m = 0; m < HALF_MODES; m++) {
        double all[HALF_SEEDS], image_step[HALF_SEEDS];
        for (int seed = 0; seed < HALF_SEEDS; seed++) {
            all[seed] = found[seed][m].all;
            image_step[seed] = found[seed][m].image_step;
        }
        check_seeds("gradients", m, all, fixed ? LARGEST : MIDDLE);
        /* In some networks it is a small rest of large terms, or nothing. */
        if (fixed && build != gated && build != depthwise)
            check_seeds("image's step", m, image_step, MIDDLE);
    }
}

static void test_half(void **state)
{
    (void)state;
    check_half(inverted, false);
    check_half(inverted, true);
    check_half(residual, false);
    check_half(residual, true);
    check_half(depthwise, true); /* by the batch's, codes of its bare layers go apart */
    check_half(gated, false);
    check_half(gated, true);
    check_half(additions, true);
    check_half(stem_pool, true); /* of more pools, too many choose another value */
    check_half(one_pixel, true); /* statistics of four values are too few to compare */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inverted),    cmocka_unit_test(test_residual),
        cmocka_unit_test(test_additions),   cmocka_unit_test(test_pooled),
        cmocka_unit_test(test_gated),       cmocka_unit_test(test_fixed_statistics),
        cmocka_unit_test(test_depthwise),   cmocka_unit_test(test_biased),
        cmocka_unit_test(test_accumulates), cmocka_unit_test(test_alpha),
        cmocka_unit_test(test_half),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
