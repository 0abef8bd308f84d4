/*
 * train/run_folder.c - config.json and log.jsonl; result.json is in run_result.c.
 */
#include "train/run_folder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Settings that change no number of a run. */
static bool may_differ(const char *name)
{
    return strcmp(name, "loader_threads") == 0 || strcmp(name, "checkpoint_minutes") == 0;
}

static json_t *setting_json(const mix_settings *settings, const mix_setting *s)
{
    const void *field = (const char *)settings + s->offset;
    switch (s->type) {
    case MIX_INT:
        return json_integer(*(const int *)field);
    case MIX_REAL:
        return json_real(*(const double *)field);
    case MIX_FLAG:
        return json_boolean(*(const bool *)field);
    case MIX_TEXT:
        break;
    }
    return json_string(field);
}

static json_t *text_or_null(const char *text)
{
    return text ? json_string(text) : json_null();
}

static json_t *config_json(const struct mix__run_config *config)
{
    size_t count;
    const mix_setting *list = mix_settings_list(&count);
    json_t *settings = json_object();
    for (size_t i = 0; i < count; i++)
        if ((list[i].groups & config->groups) &&
            json_object_set_new(settings, list[i].name, setting_json(config->settings, &list[i])) !=
                0) {
            json_decref(settings);
            return NULL;
        }
    return json_pack("{s:s, s:o, s:o, s:o}", "job", config->job, "from", text_or_null(config->from),
                     "bits", text_or_null(config->bits), "settings", settings);
}

static mix_status differs(struct mix__run_folder *f, const char *name, const json_t *old,
                          const json_t *now)
{
    char *a = old ? json_dumps(old, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15)) : NULL;
    char *b = now ? json_dumps(now, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15)) : NULL;
    const mix_status status =
        mix__fail(f->ctx, MIX_EMISMATCH,
                  "%s: this run was made with %s %s; now it is %s. Use another folder, or the same "
                  "settings",
                  f->config, name, a ? a : "unset", b ? b : "unset");
    free(a);
    free(b);
    return status;
}

/* What the run had, in a new reference; one older than the setting had what is the default now. */
static json_t *setting_of_run(const json_t *settings, const char *name)
{
    json_t *value = json_object_get(settings, name);
    size_t count;
    const mix_setting *list = mix_settings_list(&count);
    mix_settings defaults;
    mix_settings_init(&defaults);
    for (size_t i = 0; i < count && !value; i++)
        if (strcmp(list[i].name, name) == 0)
            return setting_json(&defaults, &list[i]);
    return json_incref(value);
}

/* Also two ways to write the path of one file or folder. */
static bool same(const json_t *a, const json_t *b)
{
    struct stat of_a, of_b;
    if (json_equal(a, b))
        return true;
    return json_is_string(a) && json_is_string(b) && stat(json_string_value(a), &of_a) == 0 &&
           stat(json_string_value(b), &of_b) == 0 && of_a.st_dev == of_b.st_dev &&
           of_a.st_ino == of_b.st_ino;
}

static mix_status compare_config(struct mix__run_folder *f, const json_t *old, const json_t *now)
{
    static const char *const top[] = { "job", "from", "bits" };
    for (size_t i = 0; i < MIX_COUNT(top); i++)
        if (!same(json_object_get(old, top[i]), json_object_get(now, top[i])))
            return differs(f, top[i], json_object_get(old, top[i]), json_object_get(now, top[i]));
    const json_t *was = json_object_get(old, "settings");
    const char *name;
    json_t *value;
    json_object_foreach(json_object_get(now, "settings"), name, value)
    {
        json_t *before = setting_of_run(was, name);
        mix_status status = MIX_OK;
        if (!may_differ(name) && !same(before, value))
            status = differs(f, name, before, value);
        json_decref(before);
        MIX_TRY(status);
    }
    return MIX_OK;
}

static mix_status check_config(struct mix__run_folder *f, const struct mix__run_config *config)
{
    json_t *now = config_json(config), *old;
    if (!now)
        return mix__fail(f->ctx, MIX_EINVAL, "a setting or path is not UTF-8 text");
    const char *made = mix__path_exists(f->last)     ? f->last
                       : mix__path_exists(f->result) ? f->result
                                                     : NULL;
    if (!made) /* nothing was trained yet that the settings could belie */
        return mix__json_save(f->ctx, f->config, now, 17);
    if (!mix__path_exists(f->config)) {
        json_decref(now);
        return mix__fail(f->ctx, MIX_EMISMATCH,
                         "%s is missing though %s is there: the settings of this run are unknown",
                         f->config, made);
    }
    mix_status status = mix__json_load(f->ctx, f->config, &old);
    if (status == MIX_OK) {
        status = compare_config(f, old, now);
        json_decref(old);
    }
    json_decref(now);
    return status;
}

/* Two processes in one folder would each undo what the other wrote. The lock ends with the process,
 * however that ends; a file system without locks does without. */
static mix_status lock_folder(struct mix__run_folder *f)
{
    if (!(f->lock = opendir(f->path)))
        return mix__fail(f->ctx, MIX_EIO, "%s: cannot be opened: %s", f->path, strerror(errno));
    if (flock(dirfd(f->lock), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return mix__fail(f->ctx, MIX_EIO,
                         "%s: another process is at work in this run's folder. Wait for it, stop "
                         "it, or use another folder",
                         f->path);
    return MIX_OK;
}

mix_status mix__run_folder_open(struct mix__run_folder *f, mix_ctx *ctx, const char *path,
                                const struct mix__run_config *config)
{
    *f = (struct mix__run_folder){ .ctx = ctx };
    const struct {
        char **to;
        const char *name;
    } files[] = {
        { &f->config, "config.json" },    { &f->log, "log.jsonl" },
        { &f->last, "last.safetensors" }, { &f->best, "best.safetensors" },
        { &f->bits, "bits.json" },        { &f->result, "result.json" },
    };
    mix_status status = mix__make_folder(ctx, path);
    if (status != MIX_OK)
        return status;
    if (!(f->path = mix__strdup(ctx, path)))
        goto no_memory;
    for (size_t i = 0; i < MIX_COUNT(files); i++)
        if (!(*files[i].to = mix__path_join(ctx, path, files[i].name)))
            goto no_memory;
    if ((status = lock_folder(f)) != MIX_OK || (status = check_config(f, config)) != MIX_OK)
        mix__run_folder_release(f);
    return status;
no_memory:
    mix__run_folder_release(f);
    return MIX_ENOMEM;
}

void mix__run_folder_release(struct mix__run_folder *f)
{
    char *const paths[] = { f->path, f->config, f->log, f->last, f->best, f->bits, f->result };
    for (size_t i = 0; i < MIX_COUNT(paths); i++)
        mix__free(f->ctx, paths[i]);
    if (f->lock)
        closedir(f->lock);
    *f = (struct mix__run_folder){ .ctx = f->ctx };
}

/* ---- log.jsonl ---- */

mix_status mix__run_log_cut(struct mix__run_folder *f, int64_t lines)
{
    char *bytes;
    size_t size, keep = 0;
    if (!mix__path_exists(f->log))
        return MIX_OK;
    MIX_TRY(mix__file_read(f->ctx, f->log, MIX__LOG_LIMIT, &bytes, &size));
    for (; lines > 0 && keep < size; lines--) {
        const char *end = memchr(bytes + keep, '\n', size - keep);
        keep = end ? (size_t)(end - bytes) + 1 : size;
    }
    mix__free(f->ctx, bytes);
    if (keep < size && truncate(f->log, (off_t)keep) != 0)
        return mix__fail(f->ctx, MIX_EIO, "%s: cannot be cut to %zu bytes: %s", f->log, keep,
                         strerror(errno));
    return MIX_OK;
}

mix_status mix__run_log_append(struct mix__run_folder *f, json_t *line)
{
    char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
    json_decref(line);
    if (!text)
        return mix__fail(f->ctx, MIX_ENOMEM, "out of memory for a line of %s", f->log);
    FILE *file = fopen(f->log, "ab");
    bool good = file != NULL;
    if (good) {
        good = fprintf(file, "%s\n", text) > 0 && fflush(file) == 0 && fsync(fileno(file)) == 0;
        good &= fclose(file) == 0;
    }
    free(text);
    return good ? MIX_OK
                : mix__fail(f->ctx, MIX_EIO, "%s: cannot be written: %s", f->log, strerror(errno));
}
