/*
 * A safetensors file is read whole; its header stays as jansson's tree, which lends the
 * names and the metadata. Nothing in the file is believed: the tensors, sorted by place, must
 * tile the data from its first byte to its last.
 */
#include "format/safetensors.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/json.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "tensors are used as they lie in the file");

#define METADATA "__metadata__"

enum { LENGTH_BYTES = 8, HEADER_MAX = 100000000 };

static const struct dtype {
    const char *name;
    enum mix__st_dtype dtype;
    unsigned bits; /* of one element */
} dtypes[] = {
    /* by dtype, then the OTHER ones */
    { "F32", MIX__ST_F32, 32 },      { "F64", MIX__ST_F64, 64 },
    { "I64", MIX__ST_I64, 64 },      { "U64", MIX__ST_U64, 64 },
    { "I32", MIX__ST_I32, 32 },      { "U8", MIX__ST_U8, 8 },
    { "F16", MIX__ST_F16, 16 },      { "BF16", MIX__ST_BF16, 16 },
    { "I16", MIX__ST_I16, 16 },      { "I8", MIX__ST_I8, 8 },
    { "BOOL", MIX__ST_BOOL, 8 },     { "U16", MIX__ST_OTHER, 16 },
    { "U32", MIX__ST_OTHER, 32 },    { "C64", MIX__ST_OTHER, 64 },
    { "F8_E4M3", MIX__ST_OTHER, 8 }, { "F8_E5M2", MIX__ST_OTHER, 8 },
    { "F8_E8M0", MIX__ST_OTHER, 8 }, { "F6_E2M3", MIX__ST_OTHER, 6 },
    { "F6_E3M2", MIX__ST_OTHER, 6 }, { "F4", MIX__ST_OTHER, 4 },
};

struct entry {
    struct mix__st_tensor tensor;
    size_t begin, end; /* in the data */
    void *copy;        /* of data that lies unaligned in the file, else NULL */
};

struct mix__st_file {
    mix_ctx *ctx;
    const char *path; /* the caller's, while the file is being opened */
    char *bytes;
    size_t size, data; /* of the file; where the data begin */
    json_t *header;
    struct entry *entries; /* by place in the file */
    size_t n;
};

static const struct dtype *find_dtype(const char *name)
{
    for (size_t i = 0; i < MIX_COUNT(dtypes); i++) {
        if (strcmp(dtypes[i].name, name) == 0)
            return &dtypes[i];
    }
    return NULL;
}

const char *mix__st_dtype_name(enum mix__st_dtype dtype)
{
    return dtype == MIX__ST_OTHER ? "another type" : dtypes[dtype].name;
}

size_t mix__st_dtype_size(enum mix__st_dtype dtype)
{
    return dtype == MIX__ST_OTHER ? 1 : dtypes[dtype].bits / 8;
}

void mix__st_shape_text(char *text, size_t size, int rank, const int64_t *dims)
{
    size_t used = (size_t)snprintf(text, size, "(");
    for (int i = 0; i < rank && used < size; i++)
        used +=
            (size_t)snprintf(text + used, size - used, i ? ",%lld" : "%lld", (long long)dims[i]);
    if (used < size)
        snprintf(text + used, size - used, ")");
}

mix_status mix__st_check_values(mix_ctx *ctx, const char *path, const char *name,
                                const float *values, size_t n, float lowest)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(values[i]) || values[i] < lowest)
            return mix__fail(ctx, MIX_EFORMAT,
                             "%s: tensor '%s' holds %g at index %zu; expected finite values%s",
                             path, name, (double)values[i], i,
                             lowest == 0.0f  ? " of at least 0"
                             : lowest > 0.0f ? " above 0"
                                             : "");
    return MIX_OK;
}

/* Bytes of a tensor; false when they overflow or do not fill the last one. */
static bool tensor_bytes(const struct mix__st_tensor *t, unsigned bits, size_t *bytes)
{
    size_t n = bits;
    for (int i = 0; i < t->rank; i++) {
        if (t->dims[i] < 0 || __builtin_mul_overflow(n, (uint64_t)t->dims[i], &n))
            return false;
    }
    *bytes = n / 8;
    return n % 8 == 0;
}

static mix_status load_header(struct mix__st_file *f)
{
    uint64_t length;
    if (f->size < LENGTH_BYTES)
        return mix__fail(f->ctx, MIX_EFORMAT,
                         "%s: byte 0: expected the header's length in 8 bytes, found %zu bytes",
                         f->path, f->size);
    memcpy(&length, f->bytes, sizeof length);
    if (length > HEADER_MAX || length > f->size - LENGTH_BYTES)
        return mix__fail(f->ctx, MIX_EFORMAT,
                         "%s: byte 0: a header of %" PRIu64 " bytes; the file has %zu more and at "
                         "most %d are read",
                         f->path, length, f->size - LENGTH_BYTES, HEADER_MAX);
    f->data = LENGTH_BYTES + (size_t)length;
    return mix__json_parse(f->ctx, f->path, LENGTH_BYTES, f->bytes + LENGTH_BYTES, (size_t)length,
                           &f->header);
}

static mix_status check_metadata(struct mix__st_file *f, json_t *metadata)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return mix__fail(f->ctx, MIX_EFORMAT, "%s: byte %d: header: " METADATA " is no object",
                         f->path, LENGTH_BYTES);
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value))
            return mix__fail(f->ctx, MIX_EFORMAT,
                             "%s: byte %d: header: " METADATA ": '%s' is no string", f->path,
                             LENGTH_BYTES, key);
    }
    return MIX_OK;
}

static mix_status read_shape(struct mix__st_file *f, struct mix__st_tensor *t, const json_t *shape)
{
    const size_t rank = json_array_size(shape);
    if (!json_is_array(shape))
        return mix__fail(f->ctx, MIX_EFORMAT, "%s: byte %d: header: '%s': shape is no array",
                         f->path, LENGTH_BYTES, t->name);
    if (rank > MIX__ST_RANK_MAX)
        return mix__fail(f->ctx, MIX_EUNSUPPORTED,
                         "%s: byte %d: header: '%s': %zu dimensions, at most %d are read", f->path,
                         LENGTH_BYTES, t->name, rank, MIX__ST_RANK_MAX);
    t->rank = (int)rank;
    for (size_t i = 0; i < rank; i++) {
        const json_t *dim = json_array_get(shape, i);
        t->dims[i] = json_integer_value(dim);
        if (!json_is_integer(dim) || t->dims[i] < 0)
            return mix__fail(f->ctx, MIX_EFORMAT,
                             "%s: byte %d: header: '%s': dimension %zu is no whole number >= 0",
                             f->path, LENGTH_BYTES, t->name, i);
    }
    return MIX_OK;
}

static mix_status read_entry(struct mix__st_file *f, struct entry *e, const char *name, json_t *j)
{
    const char *dtype_name;
    json_t *shape;
    json_int_t begin, end;
    json_error_t error;
    struct mix__st_tensor *t = &e->tensor;
    t->name = name;
    if (json_unpack_ex(j, &error, 0, "{s:s, s:o, s:[I,I!]}", "dtype", &dtype_name, "shape", &shape,
                       "data_offsets", &begin, &end) != 0)
        return mix__fail(f->ctx, MIX_EFORMAT, "%s: byte %d: header: '%s': %s", f->path,
                         LENGTH_BYTES, name, error.text);
    const struct dtype *dtype = find_dtype(dtype_name);
    if (!dtype)
        return mix__fail(f->ctx, MIX_EFORMAT, "%s: byte %d: header: '%s': unknown dtype '%s'",
                         f->path, LENGTH_BYTES, name, dtype_name);
    t->dtype = dtype->dtype;
    MIX_TRY(read_shape(f, t, shape));
    if (!tensor_bytes(t, dtype->bits, &t->bytes))
        return mix__fail(f->ctx, MIX_EFORMAT,
                         "%s: byte %d: header: '%s': its shape makes no whole number of bytes "
                         "below 2^61",
                         f->path, LENGTH_BYTES, name);
    const size_t room = f->size - f->data;
    if (begin < 0 || end < begin || (uint64_t)end > room)
        return mix__fail(f->ctx, MIX_EFORMAT,
                         "%s: byte %zu: '%s': data_offsets %" JSON_INTEGER_FORMAT
                         "..%" JSON_INTEGER_FORMAT " are not inside the %zu bytes of data",
                         f->path, f->data, name, begin, end, room);
    e->begin = (size_t)begin;
    e->end = (size_t)end;
    if (e->end - e->begin != t->bytes)
        return mix__fail(f->ctx, MIX_EFORMAT,
                         "%s: byte %zu: '%s': dtype and shape make %zu bytes, data_offsets %zu",
                         f->path, f->data + e->begin, name, t->bytes, e->end - e->begin);
    return MIX_OK;
}

static mix_status read_entries(struct mix__st_file *f)
{
    const char *key;
    json_t *value;
    if (!(f->entries = mix__zalloc(f->ctx, json_object_size(f->header), sizeof *f->entries)))
        return MIX_ENOMEM;
    json_object_foreach(f->header, key, value)
    {
        if (strcmp(key, METADATA) == 0)
            MIX_TRY(check_metadata(f, value));
        else
            MIX_TRY(read_entry(f, &f->entries[f->n++], key, value));
    }
    return MIX_OK;
}

/* By place; an empty tensor comes before the one that begins where it lies. */
static int compare_places(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static mix_status check_tiling(struct mix__st_file *f)
{
    size_t end = 0;
    qsort(f->entries, f->n, sizeof *f->entries, compare_places);
    for (size_t i = 0; i < f->n; i++) {
        const struct entry *e = &f->entries[i];
        if (e->begin != end)
            return mix__fail(f->ctx, MIX_EFORMAT,
                             "%s: byte %zu: '%s' begins here, expected at byte %zu: %s", f->path,
                             f->data + e->begin, e->tensor.name, f->data + end,
                             e->begin < end ? "tensors overlap" : "there is a hole");
        end = e->end;
    }
    if (end != f->size - f->data)
        return mix__fail(f->ctx, MIX_EFORMAT, "%s: byte %zu: %zu bytes here belong to no tensor",
                         f->path, f->data + end, f->size - f->data - end);
    return MIX_OK;
}

/* Other writers need not align; whoever reads floats may count on it. */
static mix_status place_data(struct mix__st_file *f)
{
    for (size_t i = 0; i < f->n; i++) {
        struct entry *e = &f->entries[i];
        const size_t at = f->data + e->begin; /* bytes is MIX_ALIGN-aligned */
        e->tensor.data = f->bytes + at;
        if (at % mix__st_dtype_size(e->tensor.dtype) == 0)
            continue;
        if (!(e->copy = mix__alloc(f->ctx, e->tensor.bytes, 1)))
            return MIX_ENOMEM;
        e->tensor.data = memcpy(e->copy, f->bytes + at, e->tensor.bytes);
    }
    return MIX_OK;
}

static mix_status check(struct mix__st_file *f)
{
    MIX_TRY(load_header(f));
    MIX_TRY(read_entries(f));
    MIX_TRY(check_tiling(f));
    return place_data(f);
}

mix_status mix__st_parse(struct mix__st_file **out, mix_ctx *ctx, const char *path, char *bytes,
                         size_t size)
{
    *out = NULL;
    struct mix__st_file *f = mix__zalloc(ctx, 1, sizeof *f);
    if (!f) {
        mix__free(ctx, bytes);
        return MIX_ENOMEM;
    }
    *f = (struct mix__st_file){ .ctx = ctx, .path = path, .bytes = bytes, .size = size };
    const mix_status status = check(f);
    if (status != MIX_OK) {
        mix__st_close(f);
        return status;
    }
    f->path = NULL;
    *out = f;
    return MIX_OK;
}

mix_status mix__st_open(struct mix__st_file **out, mix_ctx *ctx, const char *path)
{
    char *bytes;
    size_t size;
    *out = NULL;
    MIX_TRY(mix__file_read(ctx, path, SIZE_MAX, &bytes, &size));
    return mix__st_parse(out, ctx, path, bytes, size);
}

void mix__st_close(struct mix__st_file *file)
{
    if (!file)
        return;
    for (size_t i = 0; i < file->n; i++)
        mix__free(file->ctx, file->entries[i].copy);
    mix__free(file->ctx, file->entries);
    json_decref(file->header);
    mix__free(file->ctx, file->bytes);
    mix__free(file->ctx, file);
}

size_t mix__st_count(const struct mix__st_file *file)
{
    return file->n;
}

const struct mix__st_tensor *mix__st_at(const struct mix__st_file *file, size_t index)
{
    assert(index < file->n);
    return &file->entries[index].tensor;
}

const struct mix__st_tensor *mix__st_find(const struct mix__st_file *file, const char *name)
{
    for (size_t i = 0; i < file->n; i++) {
        if (strcmp(file->entries[i].tensor.name, name) == 0)
            return &file->entries[i].tensor;
    }
    return NULL;
}

const char *mix__st_metadata(const struct mix__st_file *file, const char *key)
{
    return json_string_value(json_object_get(json_object_get(file->header, METADATA), key));
}

static json_t *describe(const struct mix__st_tensor *t, size_t begin)
{
    json_t *shape = json_array();
    for (int i = 0; i < t->rank; i++) {
        if (json_array_append_new(shape, json_integer(t->dims[i])) != 0) {
            json_decref(shape);
            return NULL;
        }
    }
    return json_pack("{s:s, s:o, s:[I,I]}", "dtype", dtypes[t->dtype].name, "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)(begin + t->bytes));
}

static mix_status add_tensor(json_t *header, mix_ctx *ctx, const struct mix__st_tensor *t,
                             size_t begin)
{
    size_t bytes;
    if (t->dtype >= MIX__ST_OTHER || t->rank < 0 || t->rank > MIX__ST_RANK_MAX ||
        !tensor_bytes(t, dtypes[t->dtype].bits, &bytes) || bytes != t->bytes)
        return mix__fail(ctx, MIX_EINVAL,
                         "tensor '%s': its dtype and shape do not make the given %zu bytes",
                         t->name, t->bytes);
    if (strcmp(t->name, METADATA) == 0 || json_object_get(header, t->name))
        return mix__fail(ctx, MIX_EINVAL, "tensor '%s': the name is taken", t->name);
    if (json_object_set_new(header, t->name, describe(t, begin)) != 0)
        return mix__fail(ctx, MIX_EINVAL, "tensor '%s': the name is not UTF-8, or out of memory",
                         t->name);
    return MIX_OK;
}

static mix_status add_metadata(json_t *header, mix_ctx *ctx, const char *const *metadata)
{
    json_t *object = json_object();
    if (json_object_set_new(header, METADATA, object) != 0)
        return mix__fail(ctx, MIX_ENOMEM, "out of memory for the header");
    for (; metadata[0]; metadata += 2) {
        if (json_object_set_new(object, metadata[0], json_string(metadata[1])) != 0)
            return mix__fail(ctx, MIX_EINVAL, "metadata '%s': not UTF-8, or out of memory",
                             metadata[0]);
    }
    return MIX_OK;
}

/*
 * Tensors lie by element size, widest first, then as given: behind a header of a multiple of
 * 8 bytes each one is aligned without holes.
 */
struct layout {
    mix_ctx *ctx;
    json_t *header;
    struct mix__file_writer *writer;
    size_t end;
};

static mix_status lay_out(struct layout *l, const struct mix__st_tensor *tensors, size_t n,
                          mix_status (*visit)(struct layout *, const struct mix__st_tensor *))
{
    for (size_t size = 8; size; size /= 2) {
        for (size_t i = 0; i < n; i++) {
            if (mix__st_dtype_size(tensors[i].dtype) == size)
                MIX_TRY(visit(l, &tensors[i]));
        }
    }
    return MIX_OK;
}

static mix_status visit_header(struct layout *l, const struct mix__st_tensor *t)
{
    MIX_TRY(add_tensor(l->header, l->ctx, t, l->end));
    l->end += t->bytes;
    return MIX_OK;
}

static mix_status visit_data(struct layout *l, const struct mix__st_tensor *t)
{
    return mix__file_write(l->writer, t->data, t->bytes);
}

/* Dumped into memory of the context's; 0 bytes from jansson: it has no memory. */
static mix_status dump_header(const struct layout *l, char **text, size_t *length)
{
    const size_t n = json_dumpb(l->header, NULL, 0, JSON_COMPACT);
    *length = (n + 7) / 8 * 8;
    if (!n)
        return mix__fail(l->ctx, MIX_ENOMEM, "out of memory for the header");
    if (!(*text = mix__alloc(l->ctx, *length, 1)))
        return MIX_ENOMEM;
    memset(*text, ' ', *length);
    if (json_dumpb(l->header, *text, n, JSON_COMPACT) != n)
        return mix__fail(l->ctx, MIX_ENOMEM, "out of memory for the header");
    return MIX_OK;
}

static mix_status write_header(struct mix__file_writer *w, const char *text, uint64_t length)
{
    MIX_TRY(mix__file_write(w, &length, sizeof length));
    return mix__file_write(w, text, length);
}

mix_status mix__st_save(mix_ctx *ctx, const char *path, const struct mix__st_tensor *tensors,
                        size_t n, const char *const *metadata)
{
    struct mix__file_writer writer = { .ctx = ctx };
    struct layout l = { .ctx = ctx, .header = json_object(), .writer = &writer };
    char *text = NULL;
    size_t length;
    mix_status status;
    if (metadata && (status = add_metadata(l.header, ctx, metadata)) != MIX_OK)
        goto done;
    if ((status = lay_out(&l, tensors, n, visit_header)) != MIX_OK)
        goto done;
    if ((status = dump_header(&l, &text, &length)) != MIX_OK)
        goto done;
    if ((status = mix__file_begin(&writer, ctx, path)) != MIX_OK)
        goto done;
    if ((status = write_header(&writer, text, length)) != MIX_OK)
        goto done;
    if ((status = lay_out(&l, tensors, n, visit_data)) != MIX_OK)
        goto done;
    status = mix__file_commit(&writer);
done:
    mix__file_abandon(&writer);
    mix__free(ctx, text);
    json_decref(l.header);
    return status;
}
