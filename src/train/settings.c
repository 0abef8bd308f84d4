/*
 * train/settings.c - the list of settings.h as structure defaults, table and text.
 */
#include "metamix/settings.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ctx.h"
#include "base/number.h"

/* A default as text: what mix_settings_get() would give, but for a number as it was written. */
#define TEXT_OF_INT(value)  #value
#define TEXT_OF_REAL(value) #value
#define TEXT_OF_FLAG(value) ((value) ? "on" : "off")
#define TEXT_OF_TEXT(value) value

static const mix_setting list[] = {
#define X(type, field, value, groups, help)                                                        \
    { #field, MIX_##type, offsetof(mix_settings, field), groups, help, TEXT_OF_##type(value) },
    MIX_SETTINGS_MAP(X)
#undef X
};

void mix_settings_init(mix_settings *settings)
{
    *settings = (mix_settings){
#define X(type, field, value, groups, help) .field = value,
        MIX_SETTINGS_MAP(X)
#undef X
    };
}

const mix_setting *mix_settings_list(size_t *count)
{
    *count = MIX_COUNT(list);
    return list;
}

static bool same_name(const char *field, const char *name)
{
    for (; *field && (*name == *field || (*name == '-' && *field == '_')); field++)
        name++;
    return *field == *name;
}

static bool parse_flag(const char *text, bool *out)
{
    static const char *const words[] = { "off", "on", "false", "true", "no", "yes", "0", "1" };
    for (size_t i = 0; i < MIX_COUNT(words); i++) {
        if (strcmp(text, words[i]) == 0) {
            *out = i & 1;
            return true;
        }
    }
    return false;
}

static mix_status set(char *field, const mix_setting *s, mix_ctx *ctx, const char *value)
{
    switch (s->type) {
    case MIX_INT:
        return mix__number_whole(value, (int *)field)
                   ? MIX_OK
                   : mix__fail(ctx, MIX_EINVAL,
                               "%s: expected a whole number within +-%d, got '%.80s'", s->name,
                               INT_MAX, value);
    case MIX_REAL:
        return mix__number_real(value, (double *)field)
                   ? MIX_OK
                   : mix__fail(ctx, MIX_EINVAL, "%s: expected a finite decimal number, got '%.80s'",
                               s->name, value);
    case MIX_FLAG:
        return parse_flag(value, (bool *)field)
                   ? MIX_OK
                   : mix__fail(ctx, MIX_EINVAL, "%s: expected on or off, got '%.80s'", s->name,
                               value);
    case MIX_TEXT:
        break;
    }
    const size_t length = strlen(value);
    if (length >= MIX_TEXT_MAX)
        return mix__fail(ctx, MIX_EINVAL, "%s: expected at most %d bytes of text, got %zu", s->name,
                         MIX_TEXT_MAX - 1, length);
    memmove(field, value, length + 1);
    return MIX_OK;
}

mix_status mix_settings_set(mix_settings *settings, mix_ctx *ctx, const char *name,
                            const char *value)
{
    if (!name || !value)
        return mix__fail(ctx, MIX_EINVAL, "a setting needs a name and a value");
    for (size_t i = 0; i < MIX_COUNT(list); i++) {
        if (same_name(list[i].name, name))
            return set((char *)settings + list[i].offset, &list[i], ctx, value);
    }
    return mix__fail(ctx, MIX_EINVAL, "no setting has the name '%.80s'", name);
}

/* The fewest digits, from 15 up, that read back as the same number. */
static void print_real(char *buffer, size_t size, double value)
{
    char text[32];
    const locale_t before = mix__number_point();
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    mix__number_back(before);
    snprintf(buffer, size, "%s", text);
}

void mix_settings_get(const mix_settings *settings, const mix_setting *setting, char *buffer,
                      size_t size)
{
    const char *field = (const char *)settings + setting->offset;
    switch (setting->type) {
    case MIX_INT:
        snprintf(buffer, size, "%d", *(const int *)field);
        break;
    case MIX_REAL:
        print_real(buffer, size, *(const double *)field);
        break;
    case MIX_FLAG:
        snprintf(buffer, size, "%s", *(const bool *)field ? "on" : "off");
        break;
    case MIX_TEXT:
        snprintf(buffer, size, "%s", field);
        break;
    }
}
