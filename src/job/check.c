/*
 * job/check.c - ranges of the settings that a run starts with.
 */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "job/job.h"

/* Numbers: lowest <= value <= highest; above: lowest itself is not allowed. */
struct number_rule {
    const char *name;
    double lowest, highest;
    bool above;
};

static const struct number_rule number_rules[] = {
    { "width", 0, 4, true },
    { "image_size", 0, MIX_SIZE_MAX, false },
    { "resize", 0, MIX_SIZE_MAX, false },
    { "batch", 1, MIX_BATCH_MAX, false },
    { "crop_padding", 0, 256, false },
    { "cutout", 0, MIX_SIZE_MAX, false },
    { "loader_threads", 1, 64, false },
    { "train_limit", 0, INT_MAX, false },
    { "epochs", 1, 100000, false },
    { "lr", 0, 1e6, true },
    { "warmup_epochs", 0, 100000, false },
    { "weight_decay", 0, 1e6, false },
    { "meta_warmup_epochs", 0, 100000, false },
    { "search_epochs", 0, 100000, true },
    { "meta_lr", 0, 1e6, true },
    { "meta_weight_decay", 0, 1e6, false },
    { "alpha_lr", 0, 1e6, false },
    { "alpha_weight_decay", 0, 1e6, false },
    { "lambda", 0, 1e9, false },
    { "stage_a_epochs", 0, 100000, false },
    { "stage_b_epochs", 0, 100000, false },
    { "stage_c_epochs", 0, 100000, false },
    { "stage_c_lr", 0, 1e6, true },
    { "finetune_lr", 0, 1e6, true },
    { "finetune_weight_decay", 0, 1e6, false },
    { "weight_step_rate", 0, 1e3, false },
    { "clip_norm", 0, 1e30, false },
    { "ema_decay", 0, 0.999999, false },
    { "val_interval", 1, 100000, false },
    { "bn_batches", 0, 1000000, false },
    { "checkpoint_minutes", 0, 1e6, false },
    { "seed", 0, INT_MAX, false },
};

struct word_rule {
    const char *name;
    const char *words[5];
};

static const struct word_rule word_rules[] = {
    { "stem", { "auto", "standard", "small" } },
    { "crop", { "pad", "resized", "none" } },
    { "optimizer", { "sgd", "adam" } },
    { "finetune_optimizer", { "adam", "adamw" } },
    { "search", { "metamix", "unfixed", "joint", "greedy", "random" } },
    { "meta_branches", { "all", "last" } },
    { "precision", { "auto", "f32", "bf16" } },
    { "normalize", { "auto", "imagenet", "symmetric", "unit" } },
};

static mix_status check_number(mix_ctx *ctx, const mix_setting *s, const struct number_rule *rule,
                               double value)
{
    const bool high_enough = rule->above ? value > rule->lowest : value >= rule->lowest;
    if (high_enough && value <= rule->highest)
        return MIX_OK;
    return mix__fail(ctx, MIX_EINVAL, "%s is %g; expected %s %g, at most %g", s->name, value,
                     rule->above ? "more than" : "at least", rule->lowest, rule->highest);
}

static mix_status check_word(mix_ctx *ctx, const struct word_rule *rule, const char *value)
{
    char expected[64] = "";
    for (size_t i = 0; i < MIX_COUNT(rule->words) && rule->words[i]; i++) {
        const size_t used = strlen(expected);
        if (strcmp(rule->words[i], value) == 0)
            return MIX_OK;
        snprintf(expected + used, sizeof expected - used, "%s%s", i ? ", " : "", rule->words[i]);
    }
    return mix__fail(ctx, MIX_EINVAL, "%s is '%.64s'; expected one of %s", rule->name, value,
                     expected);
}

static mix_status check_setting(mix_ctx *ctx, const mix_settings *settings, const mix_setting *s)
{
    const void *field = (const char *)settings + s->offset;
    const bool text = s->type == MIX_TEXT;
    for (size_t i = 0; i < MIX_COUNT(number_rules) && !text; i++)
        if (strcmp(number_rules[i].name, s->name) == 0)
            return check_number(ctx, s, &number_rules[i],
                                s->type == MIX_INT ? *(const int *)field : *(const double *)field);
    for (size_t i = 0; i < MIX_COUNT(word_rules) && text; i++)
        if (strcmp(word_rules[i].name, s->name) == 0)
            return check_word(ctx, &word_rules[i], field);
    return MIX_OK;
}

mix_status mix__settings_check(mix_ctx *ctx, const mix_settings *settings, unsigned groups)
{
    size_t count;
    const mix_setting *list = mix_settings_list(&count);
    for (size_t i = 0; i < count; i++)
        if (list[i].groups & groups)
            MIX_TRY(check_setting(ctx, settings, &list[i]));
    const int bits = settings->weight_bits;
    if ((groups & MIX_GROUP_BITS) && !mix__bits_valid(bits))
        return mix__fail(ctx, MIX_EINVAL, "weight_bits is %d; expected %d to %d, or 32 for float",
                         bits, MIX_BITS_MIN, MIX_BITS_MAX);
    if ((groups & MIX_GROUP_DATA) && settings->data[0] == '\0')
        return mix__fail(ctx, MIX_EINVAL, "data is not set; expected the folder of a data set");
    return MIX_OK;
}

mix_status mix__candidates_parse(mix_ctx *ctx, const char *text, int *candidate, int *n)
{
    bool wanted[MIX_BITS_MAX + 1] = { false };
    const char *at = text;
    *n = 0;
    for (;;) {
        char *end;
        const long bits = strtol(at, &end, 10);
        if (end == at || (*end != ',' && *end != '\0') || bits < MIX_BITS_MIN ||
            bits > MIX_BITS_MAX || wanted[bits])
            return mix__fail(ctx, MIX_EINVAL,
                             "candidates is '%.64s'; expected different bit-widths from %d to %d "
                             "such as 2,3,4,8",
                             text, MIX_BITS_MIN, MIX_BITS_MAX);
        wanted[bits] = true;
        if (*end == '\0')
            break;
        at = end + 1;
    }
    for (int bits = MIX_BITS_MIN; bits <= MIX_BITS_MAX; bits++)
        if (wanted[bits])
            candidate[(*n)++] = bits;
    return MIX_OK;
}

mix_status mix_budget_parse(mix_ctx *ctx, const mix_graph *graph, const char *text, double *gbops)
{
    int weight, activation;
    if (mix_bits_parse(text, &weight, &activation)) {
        *gbops = mix__uniform_gbops(graph, weight, activation);
        return MIX_OK;
    }
    double value;
    if (!mix__number_real(text, &value) || value <= 0.0)
        return mix__fail(ctx, MIX_EINVAL,
                         "target is '%.64s'; expected GBOPs such as 5.4, or a uniform network such "
                         "as W4A3 with bit-widths from %d to %d",
                         text, MIX_BITS_MIN, MIX_BITS_MAX);
    *gbops = value;
    return MIX_OK;
}
