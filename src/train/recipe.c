/*
 * train/recipe.c - settings from a JSON file.
 */
#include <stdlib.h>

#include "format/json.h"
#include "metamix/settings.h"

static mix_status set_value(mix_settings *settings, mix_ctx *ctx, const char *name,
                            const json_t *value)
{
    if (json_is_boolean(value))
        return mix_settings_set(settings, ctx, name, json_is_true(value) ? "on" : "off");
    if (json_is_string(value))
        return mix_settings_set(settings, ctx, name, json_string_value(value));
    if (!json_is_number(value))
        return mix__fail(ctx, MIX_EFORMAT, "%s: expected a number, a text, true or false", name);
    char *text = json_dumps(value, JSON_ENCODE_ANY);
    if (!text)
        return MIX_ENOMEM;
    const mix_status status = mix_settings_set(settings, ctx, name, text);
    free(text);
    return status;
}

static mix_status set_all(mix_settings *settings, mix_ctx *ctx, const char *path,
                          const json_t *recipe)
{
    const char *name;
    json_t *value, *list = json_object_get(recipe, "settings");
    if (!json_is_object(list))
        return mix__fail(ctx, MIX_EFORMAT, "%s: expected an object 'settings'", path);
    json_object_foreach(list, name, value)
    {
        if (set_value(settings, ctx, name, value) == MIX_OK)
            continue;
        return mix__fail(ctx, MIX_EFORMAT, "%s: %s", path, mix_ctx_error(ctx));
    }
    return MIX_OK;
}

mix_status mix_settings_load(mix_settings *settings, mix_ctx *ctx, const char *path)
{
    json_t *recipe;
    mix_settings loaded = *settings;
    MIX_TRY(mix__json_load(ctx, path, &recipe));
    const mix_status status = set_all(&loaded, ctx, path, recipe);
    json_decref(recipe);
    if (status == MIX_OK)
        *settings = loaded;
    return status;
}
