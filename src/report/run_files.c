/*
 * report/run_files.c - config.json, log.jsonl, bits.json and result.json of a run folder.
 */
#include "report/run_files.h"

#include <string.h>

#include "base/file.h"
#include "format/json.h"
#include "train/run_folder.h"

static mix_status parse_log(mix_ctx *ctx, const char *path, const char *text, json_t *log)
{
    const char *end;
    for (int line = 1; (end = strchr(text, '\n')); line++, text = end + 1) {
        json_t *entry;
        if (mix__json_parse(ctx, NULL, 0, text, (size_t)(end - text), &entry) != MIX_OK)
            return mix__fail(ctx, MIX_EFORMAT, "%s: line %d: %s", path, line, mix_ctx_error(ctx));
        if (json_array_append_new(log, entry) != 0)
            return mix__fail(ctx, MIX_ENOMEM, "out of memory for %s", path);
    }
    return MIX_OK;
}

static mix_status read_log(mix_ctx *ctx, const char *path, json_t **out)
{
    char *text;
    size_t size;
    if (!(*out = json_array()))
        return mix__fail(ctx, MIX_ENOMEM, "out of memory for %s", path);
    if (!mix__path_exists(path)) /* before the first epoch */
        return MIX_OK;
    MIX_TRY(mix__file_read(ctx, path, MIX__LOG_LIMIT, &text, &size));
    const mix_status status = parse_log(ctx, path, text, *out);
    mix__free(ctx, text);
    return status;
}

static mix_status read_object_if_there(mix_ctx *ctx, const char *path, json_t **out)
{
    return mix__path_exists(path) ? mix__json_load(ctx, path, out) : MIX_OK;
}

mix_status mix__run_files_read(struct mix__run_files *r, mix_ctx *ctx, const char *path)
{
    const struct {
        const char *name;
        mix_status (*read)(mix_ctx *ctx, const char *path, json_t **out);
        json_t **out;
    } files[] = {
        { "config.json", mix__json_load, &r->config },
        { "log.jsonl", read_log, &r->log },
        { "bits.json", read_object_if_there, &r->bits },
        { "result.json", read_object_if_there, &r->result },
    };
    mix_status status = MIX_OK;
    *r = (struct mix__run_files){ .path = path };
    for (size_t i = 0; i < MIX_COUNT(files) && status == MIX_OK; i++) {
        char *file = mix__path_join(ctx, path, files[i].name);
        status = file ? files[i].read(ctx, file, files[i].out) : MIX_ENOMEM;
        mix__free(ctx, file);
    }
    if (status != MIX_OK)
        mix__run_files_release(r);
    return status;
}

void mix__run_files_release(struct mix__run_files *r)
{
    json_decref(r->config);
    json_decref(r->log);
    json_decref(r->bits);
    json_decref(r->result);
    *r = (struct mix__run_files){ NULL };
}

const char *mix__text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "-";
}
