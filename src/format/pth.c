/*
 * format/pth.c - what a PyTorch file's pickle means. A tensor is
 *
 *   torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...)
 *
 * and a storage the persistent id ('storage', torch.FloatStorage, key, device, elements). Offsets
 * and strides count elements; several tensors may look at one storage.
 */
#include "format/pth.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/pickle.h"
#include "format/zip.h"

#define ZIP_MAGIC "PK\3\4"

/* A pickle of protocol 2 with torch.serialization.MAGIC_NUMBER, 0x1950a86a20f9469cfc6c. */
static const char legacy_magic[] = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

enum { LEGACY_MAGIC_BYTES = 15, LEGACY_VERSION = 1001, NAME_LENGTH_MAX = 255 };

/* INERT ones occur beside the tensors, in what trainers save, and are passed over. */
enum { INERT, TENSOR, PARAMETER, STORAGE /* + element type */ };

static const struct mix__pickle_global globals[] = {
    { "torch._utils", "_rebuild_tensor", false, TENSOR },
    { "torch._utils", "_rebuild_tensor_v2", false, TENSOR },
    { "torch._utils", "_rebuild_parameter", false, PARAMETER },
    { "torch", "FloatStorage", false, STORAGE + MIX__ST_F32 },
    { "torch", "DoubleStorage", false, STORAGE + MIX__ST_F64 },
    { "torch", "HalfStorage", false, STORAGE + MIX__ST_F16 },
    { "torch", "BFloat16Storage", false, STORAGE + MIX__ST_BF16 },
    { "torch", "LongStorage", false, STORAGE + MIX__ST_I64 },
    { "torch", "IntStorage", false, STORAGE + MIX__ST_I32 },
    { "torch", "ShortStorage", false, STORAGE + MIX__ST_I16 },
    { "torch", "CharStorage", false, STORAGE + MIX__ST_I8 },
    { "torch", "ByteStorage", false, STORAGE + MIX__ST_U8 },
    { "torch", "BoolStorage", false, STORAGE + MIX__ST_BOOL },
    { "collections", "OrderedDict", true, INERT },
    { "collections", "defaultdict", true, INERT },
    { "collections", "Counter", true, INERT },
    { "__builtin__", "dict", true, INERT },
    { "builtins", "dict", true, INERT },
    { "argparse", "Namespace", false, INERT },
    { "torch", "Size", false, INERT },
    { "torch", "device", false, INERT },
    { "torch", "float32", false, INERT },
    { "torch", "float16", false, INERT },
    { "torch", "bfloat16", false, INERT },
    { "numpy", "dtype", false, INERT },
    { "numpy.core.multiarray", "scalar", false, INERT },
    { "numpy._core.multiarray", "scalar", false, INERT },
    { "_codecs", "encode", false, INERT },
    { 0 },
};

struct storage {
    const char *key;
    enum mix__st_dtype dtype;
    uint64_t n;       /* elements */
    size_t at;        /* the byte that tells of it */
    const char *data; /* NULL until found */
};

struct reader {
    mix_ctx *ctx;
    const char *path;
    char *bytes;
    size_t size;
    struct mix__pickle *pickle; /* that holds the tensors     */
    struct storage *storages;   /* sorted by key, no key twice */
    size_t n_storages, cap_storages;
    struct mix__tensor_view *views;
    size_t n_views, cap_views;
};

bool mix__pth_is(const char *bytes, size_t size)
{
    return (size >= 4 && memcmp(bytes, ZIP_MAGIC, 4) == 0) ||
           (size >= LEGACY_MAGIC_BYTES && memcmp(bytes, legacy_magic, LEGACY_MAGIC_BYTES) == 0);
}

static mix_status bad(const struct reader *r, size_t at, const char *what)
{
    return mix__fail(r->ctx, MIX_EFORMAT, "%s: byte %zu: %s", r->path, at, what);
}

static mix_status load_pickle(const struct reader *r, size_t begin, size_t end,
                              struct mix__pickle **out)
{
    const struct mix__pickle_source source = {
        .path = r->path, .bytes = r->bytes, .begin = begin, .end = end, .globals = globals
    };
    return mix__pickle_load(out, r->ctx, &source);
}

/* ---- storages ---- */

static mix_status read_storage(const struct reader *r, const struct mix__pickle_value *persistent,
                               struct storage *s)
{
    const struct mix__pickle_value *part[6];
    const struct mix__pickle_value *id = mix__pickle_value(r->pickle, persistent->id);
    const size_t n = id->kind == MIX__PICKLE_TUPLE ? mix__pickle_unpack(r->pickle, id, part, 6) : 0;
    if (n < 5 || n > 6 || !mix__pickle_is(part[0], "storage") ||
        part[1]->kind != MIX__PICKLE_GLOBAL || part[1]->global->meaning < STORAGE ||
        part[2]->kind != MIX__PICKLE_TEXT || part[4]->kind != MIX__PICKLE_INT ||
        part[4]->integer < 0)
        return bad(r, persistent->at, "expected a storage: its type, key, device and size");
    if (n == 6 && part[5]->kind != MIX__PICKLE_OTHER)
        return mix__fail(r->ctx, MIX_EUNSUPPORTED,
                         "%s: byte %zu: a storage that is a part of another one; saved again by a "
                         "newer PyTorch it can be read",
                         r->path, persistent->at);
    *s = (struct storage){ .key = part[2]->text.bytes,
                           .dtype = (enum mix__st_dtype)(part[1]->global->meaning - STORAGE),
                           .n = (uint64_t)part[4]->integer,
                           .at = persistent->at };
    if (strlen(s->key) != part[2]->text.length || part[2]->text.length > NAME_LENGTH_MAX)
        return bad(r, part[2]->at, "a storage's key is too long, or no plain text");
    return MIX_OK;
}

static int compare_keys(const void *a, const void *b)
{
    const struct storage *x = a, *y = b;
    return strcmp(x->key, y->key);
}

static struct storage *find_storage(const struct reader *r, const char *key)
{
    const struct storage wanted = { .key = key };
    return bsearch(&wanted, r->storages, r->n_storages, sizeof wanted, compare_keys);
}

/* All that the pickle speaks of, once each. */
static mix_status collect_storages(struct reader *r)
{
    size_t n = 0;
    for (size_t i = 0; i < mix__pickle_count(r->pickle); i++) {
        const struct mix__pickle_value *v = mix__pickle_value(r->pickle, (uint32_t)i);
        if (v->kind != MIX__PICKLE_PERSISTENT)
            continue;
        MIX_TRY(mix__grow(r->ctx, &r->storages, n, &r->cap_storages, sizeof *r->storages));
        MIX_TRY(read_storage(r, v, &r->storages[n++]));
    }
    if (n > 0)
        qsort(r->storages, n, sizeof *r->storages, compare_keys);
    for (size_t i = 0; i < n; i++) {
        const struct storage *s = &r->storages[i];
        const struct storage *last = r->n_storages ? &r->storages[r->n_storages - 1] : NULL;
        if (!last || strcmp(last->key, s->key) != 0)
            r->storages[r->n_storages++] = *s;
        else if (last->dtype != s->dtype || last->n != s->n)
            return mix__fail(r->ctx, MIX_EFORMAT,
                             "%s: byte %zu: storage '%s' has another type or size than at byte %zu",
                             r->path, s->at, s->key, last->at);
    }
    return MIX_OK;
}

/* The storage lies in bytes[begin, end), which may go on behind it when it need not fill them. */
static mix_status place(const struct reader *r, struct storage *s, size_t begin, size_t end,
                        bool fills)
{
    const uint64_t size = mix__st_dtype_size(s->dtype), room = (end - begin) / size;
    if (s->n > room || (fills && s->n * size != end - begin))
        return mix__fail(r->ctx, MIX_EFORMAT,
                         "%s: byte %zu: storage '%s' of %" PRIu64 " elements of %" PRIu64
                         " bytes has %zu bytes",
                         r->path, begin, s->key, s->n, size, end - begin);
    s->data = r->bytes + begin;
    return MIX_OK;
}

/* ---- the ZIP archive ---- */

/* "<stem>/data.pkl"; the stem is whatever the file was called when it was written. */
static const struct mix__zip_entry *find_pickle(const struct mix__zip *z)
{
    static const char end[] = "/data.pkl";
    const size_t n = sizeof end - 1;
    for (size_t i = 0; i < z->n; i++) {
        const struct mix__zip_entry *e = &z->entries[i];
        if (e->length > n && e->length <= NAME_LENGTH_MAX &&
            memchr(e->name, '/', e->length) == e->name + e->length - n &&
            memcmp(e->name + e->length - n, end, n) == 0)
            return e;
    }
    return NULL;
}

/* Entry "<stem>/<folder><name>"; NULL: none. */
static const struct mix__zip_entry *find_entry(const struct mix__zip *z,
                                               const struct mix__zip_entry *pickle,
                                               const char *folder, const char *name)
{
    char path[2 * NAME_LENGTH_MAX + 32];
    const int stem = (int)(pickle->length - (sizeof "data.pkl" - 1));
    snprintf(path, sizeof path, "%.*s%s%s", stem, pickle->name, folder, name);
    return mix__zip_find(z, path);
}

/* Files from before 2.1 do not say; all machines of PyTorch's were little-endian but for a few. */
static mix_status check_byte_order(const struct reader *r, const struct mix__zip *z,
                                   const struct mix__zip_entry *pickle)
{
    size_t begin, end;
    const struct mix__zip_entry *e = find_entry(z, pickle, "", "byteorder");
    if (!e)
        return MIX_OK;
    MIX_TRY(mix__zip_locate(z, e, &begin, &end));
    if (end - begin == 6 && memcmp(r->bytes + begin, "little", 6) == 0)
        return MIX_OK;
    return mix__fail(r->ctx, MIX_EUNSUPPORTED,
                     "%s: byte %zu: the file's byte order is not 'little'", r->path, begin);
}

static mix_status read_archive(struct reader *r, const struct mix__zip *z)
{
    size_t begin, end;
    const struct mix__zip_entry *pickle = find_pickle(z);
    if (!pickle)
        return mix__fail(r->ctx, MIX_EFORMAT,
                         "%s: a ZIP archive without '<name>/data.pkl'; not one of torch.save",
                         r->path);
    MIX_TRY(check_byte_order(r, z, pickle));
    MIX_TRY(mix__zip_locate(z, pickle, &begin, &end));
    MIX_TRY(load_pickle(r, begin, end, &r->pickle));
    MIX_TRY(collect_storages(r));
    for (size_t i = 0; i < r->n_storages; i++) {
        struct storage *s = &r->storages[i];
        const struct mix__zip_entry *e = find_entry(z, pickle, "data/", s->key);
        if (!e)
            return mix__fail(r->ctx, MIX_EFORMAT,
                             "%s: byte %zu: the archive has no entry 'data/%s' for this storage",
                             r->path, s->at, s->key);
        MIX_TRY(mix__zip_locate(z, e, &begin, &end));
        MIX_TRY(place(r, s, begin, end, true));
    }
    return MIX_OK;
}

static mix_status read_zip(struct reader *r)
{
    struct mix__zip zip;
    MIX_TRY(mix__zip_open(&zip, r->ctx, r->path, r->bytes, r->size));
    const mix_status status = read_archive(r, &zip);
    mix__zip_close(&zip);
    return status;
}

/* ---- the legacy file ---- */

static bool is_int(const struct mix__pickle_value *v, int64_t expected)
{
    return v && v->kind == MIX__PICKLE_INT && v->integer == expected;
}

/* The pickles of the version and of the system; *at moves behind them. */
static mix_status check_system(const struct reader *r, size_t *at)
{
    struct mix__pickle *pickle;
    for (int i = 0; i < 2; i++) {
        const size_t begin = *at;
        MIX_TRY(load_pickle(r, begin, r->size, &pickle));
        const struct mix__pickle_value *v = mix__pickle_root(pickle);
        if (i > 0)
            v = v->kind == MIX__PICKLE_DICT ? mix__pickle_get(pickle, v, "little_endian") : NULL;
        const bool good = is_int(v, i ? 1 : LEGACY_VERSION);
        *at = mix__pickle_end(pickle);
        mix__pickle_free(pickle);
        if (!good)
            return mix__fail(r->ctx, MIX_EUNSUPPORTED, "%s: byte %zu: expected %s", r->path, begin,
                             i ? "a system with little_endian = True" : "protocol version 1001");
    }
    return MIX_OK;
}

/* Their data follow one after another, each behind its number of elements. */
static mix_status place_in_order(const struct reader *r, const struct mix__pickle *keys)
{
    const struct mix__pickle_value *list = mix__pickle_root(keys), *key;
    size_t at = mix__pickle_end(keys);
    if (list->kind != MIX__PICKLE_LIST)
        return bad(r, list->at, "expected the list of storages");
    for (uint32_t cell = list->items.first; (key = mix__pickle_next(keys, &cell));) {
        struct storage *s = key->kind == MIX__PICKLE_TEXT ? find_storage(r, key->text.bytes) : NULL;
        uint64_t n;
        if (!s)
            return bad(r, key->at, "a storage that no tensor is made of");
        if (r->size - at < sizeof n)
            return bad(r, at, "the file ends before all storages were read");
        memcpy(&n, r->bytes + at, sizeof n);
        if (n != s->n)
            return mix__fail(r->ctx, MIX_EFORMAT,
                             "%s: byte %zu: storage '%s' has %" PRIu64
                             " elements; expected %" PRIu64,
                             r->path, at, s->key, n, s->n);
        at += sizeof n;
        MIX_TRY(place(r, s, at, r->size, false));
        at += n * mix__st_dtype_size(s->dtype);
    }
    return MIX_OK;
}

static mix_status read_legacy(struct reader *r)
{
    struct mix__pickle *keys;
    size_t at = LEGACY_MAGIC_BYTES;
    MIX_TRY(check_system(r, &at));
    MIX_TRY(load_pickle(r, at, r->size, &r->pickle));
    MIX_TRY(collect_storages(r));
    MIX_TRY(load_pickle(r, mix__pickle_end(r->pickle), r->size, &keys));
    const mix_status status = place_in_order(r, keys);
    mix__pickle_free(keys);
    return status;
}

/* ---- tensors ---- */

static bool is_call(const struct reader *r, const struct mix__pickle_value *v, int meaning)
{
    return v->kind == MIX__PICKLE_CALL &&
           mix__pickle_value(r->pickle, v->call.global)->global->meaning == meaning;
}

/* Whole numbers of at least 0. */
static bool read_ints(const struct reader *r, const struct mix__pickle_value *tuple, int64_t *out,
                      size_t max, size_t *n)
{
    const struct mix__pickle_value *item[MIX__ST_RANK_MAX];
    const bool listed = tuple->kind == MIX__PICKLE_TUPLE || tuple->kind == MIX__PICKLE_LIST;
    *n = listed ? mix__pickle_unpack(r->pickle, tuple, item, max) : 0;
    if (!listed || *n > max)
        return false;
    for (size_t i = 0; i < *n; i++) {
        if (item[i]->kind != MIX__PICKLE_INT || item[i]->integer < 0)
            return false;
        out[i] = item[i]->integer;
    }
    return true;
}

/* Counts the elements and finds the last one of a storage that is touched; false: overflow. */
static bool measure(struct mix__tensor_view *v, uint64_t offset, uint64_t *last)
{
    uint64_t reach;
    v->count = 1;
    *last = offset;
    for (int i = 0; i < v->rank; i++) {
        const uint64_t dim = (uint64_t)v->dims[i];
        if (dim <= 1)
            v->strides[i] = 0; /* never taken */
        if (__builtin_mul_overflow(v->count, dim, &v->count) ||
            __builtin_mul_overflow(dim ? dim - 1 : 0, (uint64_t)v->strides[i], &reach) ||
            __builtin_add_overflow(*last, reach, last))
            return false;
    }
    return true;
}

/* call: _rebuild_tensor_v2(storage, offset, size, stride, ...). */
static mix_status read_tensor(const struct reader *r, const struct mix__pickle_value *call,
                              struct mix__tensor_view *v)
{
    const struct mix__pickle_value *part[4];
    struct storage id;
    size_t n, n_strides;
    uint64_t last;
    n = mix__pickle_unpack(r->pickle, mix__pickle_value(r->pickle, call->call.argument), part, 4);
    if (n < 4 || part[0]->kind != MIX__PICKLE_PERSISTENT || part[1]->kind != MIX__PICKLE_INT ||
        part[1]->integer < 0 || !read_ints(r, part[2], v->dims, MIX__ST_RANK_MAX, &n) ||
        !read_ints(r, part[3], v->strides, MIX__ST_RANK_MAX, &n_strides) || n != n_strides)
        return mix__fail(r->ctx, MIX_EFORMAT,
                         "%s: byte %zu: '%s': expected a tensor's storage, offset, size and stride "
                         "in at most %d dimensions",
                         r->path, call->at, v->name, MIX__ST_RANK_MAX);
    MIX_TRY(read_storage(r, part[0], &id));
    const struct storage *s = find_storage(r, id.key);
    const uint64_t offset = (uint64_t)part[1]->integer;
    if (!s || !s->data)
        return mix__fail(r->ctx, MIX_EFORMAT, "%s: byte %zu: '%s': storage '%s' is not in the file",
                         r->path, call->at, v->name, id.key);
    v->rank = (int)n;
    v->dtype = s->dtype;
    if (!measure(v, offset, &last) || (v->count > 0 && last >= s->n) || offset > s->n)
        return mix__fail(r->ctx, MIX_EFORMAT,
                         "%s: byte %zu: '%s': size, stride and offset reach beyond the %" PRIu64
                         " elements of storage '%s'",
                         r->path, call->at, v->name, s->n, s->key);
    v->data = (const unsigned char *)s->data + offset * mix__st_dtype_size(s->dtype);
    return MIX_OK;
}

/* A file's name for a tensor is shown to people and compared with ours. */
static mix_status check_name(const struct reader *r, const struct mix__pickle_value *key)
{
    if (key->kind != MIX__PICKLE_TEXT)
        return bad(r, key->at, "expected a tensor's name");
    if (key->text.length > NAME_LENGTH_MAX)
        return bad(r, key->at, "a tensor's name is longer than 255 bytes");
    for (size_t i = 0; i < key->text.length; i++)
        if ((unsigned char)key->text.bytes[i] < ' ' || key->text.bytes[i] == 127)
            return bad(r, key->at, "a tensor's name holds control characters");
    return MIX_OK;
}

static mix_status add_view(struct reader *r, const struct mix__pickle_value *key,
                           const struct mix__pickle_value *value)
{
    const struct mix__pickle_value *inner;
    MIX_TRY(check_name(r, key));
    MIX_TRY(mix__grow(r->ctx, &r->views, r->n_views, &r->cap_views, sizeof *r->views));
    struct mix__tensor_view *v = &r->views[r->n_views++];
    *v = (struct mix__tensor_view){ .name = key->text.bytes, .dtype = MIX__ST_OTHER };
    if (is_call(r, value, PARAMETER) &&
        mix__pickle_unpack(r->pickle, mix__pickle_value(r->pickle, value->call.argument), &inner,
                           1) > 0)
        value = inner;
    return is_call(r, value, TENSOR) ? read_tensor(r, value, v) : MIX_OK;
}

/* The dict that trainers put into another one, beside optimizer and epoch. */
static const struct mix__pickle_value *unwrap(const struct reader *r,
                                              const struct mix__pickle_value *dict)
{
    static const char *const keys[] = { "state_dict", "model", "model_state_dict" };
    for (size_t i = 0; i < MIX_COUNT(keys); i++) {
        const struct mix__pickle_value *inner = mix__pickle_get(r->pickle, dict, keys[i]);
        if (!inner || inner->kind != MIX__PICKLE_DICT)
            continue;
        mix__log(r->ctx, MIX_LOG_INFO, "%s: '%s' is read, %" PRIu32 " keys beside it are not",
                 r->path, keys[i], dict->items.n / 2 - 1);
        return inner;
    }
    return dict;
}

static mix_status read_views(struct reader *r)
{
    static const char expected[] =
        "no tensors by name; expected what torch.save(model.state_dict(), ...) writes";
    const struct mix__pickle_value *dict = mix__pickle_root(r->pickle), *key;
    bool any = false;
    if (dict->kind != MIX__PICKLE_DICT)
        return bad(r, dict->at, expected);
    dict = unwrap(r, dict);
    for (uint32_t cell = dict->items.first; (key = mix__pickle_next(r->pickle, &cell));)
        MIX_TRY(add_view(r, key, mix__pickle_next(r->pickle, &cell)));
    for (size_t i = 0; i < r->n_views; i++)
        any = any || r->views[i].data;
    return any ? MIX_OK : bad(r, dict->at, expected);
}

mix_status mix__pth_read(struct mix__tensor_view **views, size_t *n, mix_ctx *ctx, const char *path,
                         char *bytes, size_t size)
{
    struct reader r = { .ctx = ctx, .path = path, .bytes = bytes, .size = size };
    mix_status status = memcmp(bytes, ZIP_MAGIC, 4) == 0 ? read_zip(&r) : read_legacy(&r);
    if (status == MIX_OK)
        status = read_views(&r);
    mix__pickle_free(r.pickle);
    mix__free(ctx, r.storages);
    if (status != MIX_OK)
        mix__free(ctx, r.views);
    *views = status == MIX_OK ? r.views : NULL;
    *n = status == MIX_OK ? r.n_views : 0;
    return status;
}
