/*
 * format/json.c - jansson's errors as the library's.
 */
#include "format/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

enum { FILE_MAX = 16 << 20 };

mix_status mix__json_parse(mix_ctx *ctx, const char *what, size_t at, const char *text, size_t size,
                           json_t **out)
{
    json_error_t error;
    const char *where = what ? what : "", *colon = what ? ": " : "";
    *out = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    const size_t byte = at + (size_t)error.position;
    if (!*out && (!error.text[0] || json_error_code(&error) == json_error_out_of_memory))
        return mix__fail(ctx, MIX_ENOMEM, "%s%sout of memory for JSON", where, colon);
    if (!*out && error.line > 1)
        return mix__fail(ctx, MIX_EFORMAT, "%s%sbyte %zu, line %d: %s", where, colon, byte,
                         error.line, error.text);
    if (!*out)
        return mix__fail(ctx, MIX_EFORMAT, "%s%sbyte %zu: %s", where, colon, byte, error.text);
    if (json_is_object(*out))
        return MIX_OK;
    json_decref(*out);
    *out = NULL;
    return mix__fail(ctx, MIX_EFORMAT, "%s%sbyte %zu: expected one JSON object", where, colon, at);
}

mix_status mix__json_load(mix_ctx *ctx, const char *path, json_t **out)
{
    char *text;
    size_t size;
    *out = NULL;
    MIX_TRY(mix__file_read(ctx, path, FILE_MAX, &text, &size));
    const mix_status status = mix__json_parse(ctx, path, 0, text, size, out);
    mix__free(ctx, text);
    return status;
}

mix_status mix__json_save(mix_ctx *ctx, const char *path, json_t *json, int digits)
{
    char *text = json ? json_dumps(json, JSON_INDENT(2) | JSON_REAL_PRECISION(digits)) : NULL;
    json_decref(json);
    if (!text)
        return mix__fail(ctx, MIX_ENOMEM, "out of memory for %s", path);
    const size_t length = strlen(text);
    text[length] = '\n'; /* for the zero byte */
    const mix_status status = mix__file_save(ctx, path, text, length + 1);
    free(text);
    return status;
}

bool mix__json_append(json_t *list, json_t *row)
{
    if (json_array_append_new(list, row) == 0)
        return true;
    json_decref(list);
    return false;
}

json_t *mix__json_real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

double mix__json_real_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}
