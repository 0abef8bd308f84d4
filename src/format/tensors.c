/*
 * format/tensors.c - one view of every kind of file, and its values as floats.
 */
#include "format/tensors.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "format/pth.h"
#include "tensor/values.h"

struct mix__tensors {
    mix_ctx *ctx;
    struct mix__st_file *st; /* holds the bytes when there is one */
    char *bytes;
    struct mix__tensor_view *views;
    const struct mix__tensor_view **sorted; /* by name */
    size_t n;
};

static void view_of(struct mix__tensor_view *v, const struct mix__st_tensor *t)
{
    *v = (struct mix__tensor_view){
        .name = t->name, .dtype = t->dtype, .rank = t->rank, .count = 1, .data = t->data
    };
    for (int i = t->rank - 1; i >= 0; i--) {
        v->dims[i] = t->dims[i];
        v->strides[i] = (int64_t)v->count;
        v->count *= (size_t)t->dims[i];
    }
}

static mix_status read_safetensors(struct mix__tensors *f, const char *path, size_t size)
{
    char *bytes = f->bytes;
    f->bytes = NULL;
    MIX_TRY(mix__st_parse(&f->st, f->ctx, path, bytes, size));
    f->n = mix__st_count(f->st);
    if (!(f->views = mix__alloc(f->ctx, f->n, sizeof *f->views)))
        return MIX_ENOMEM;
    for (size_t i = 0; i < f->n; i++)
        view_of(&f->views[i], mix__st_at(f->st, i));
    return MIX_OK;
}

static void strip_prefixes(struct mix__tensor_view *v)
{
    static const char *const prefixes[] = { "module.", "_orig_mod." };
    for (size_t i = 0; i < MIX_COUNT(prefixes);) {
        const size_t n = strlen(prefixes[i]);
        const bool there = strncmp(v->name, prefixes[i], n) == 0;
        v->name += there ? n : 0;
        i = there ? 0 : i + 1;
    }
}

static int compare_names(const void *a, const void *b)
{
    const struct mix__tensor_view *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static mix_status sort(struct mix__tensors *f, const char *path)
{
    if (!(f->sorted = mix__alloc(f->ctx, f->n, sizeof *f->sorted)))
        return MIX_ENOMEM;
    for (size_t i = 0; i < f->n; i++) {
        strip_prefixes(&f->views[i]);
        f->sorted[i] = &f->views[i];
    }
    qsort(f->sorted, f->n, sizeof *f->sorted, compare_names);
    for (size_t i = 1; i < f->n; i++)
        if (strcmp(f->sorted[i - 1]->name, f->sorted[i]->name) == 0)
            return mix__fail(f->ctx, MIX_EFORMAT, "%s: two tensors are called '%.200s'", path,
                             f->sorted[i]->name);
    return MIX_OK;
}

static mix_status read_file(struct mix__tensors *f, const char *path)
{
    size_t size;
    MIX_TRY(mix__file_read(f->ctx, path, SIZE_MAX, &f->bytes, &size));
    if (mix__pth_is(f->bytes, size))
        MIX_TRY(mix__pth_read(&f->views, &f->n, f->ctx, path, f->bytes, size));
    else if (size > 8 && f->bytes[8] == '{')
        MIX_TRY(read_safetensors(f, path, size));
    else
        return mix__fail(f->ctx, MIX_EFORMAT,
                         "%s: byte 0: neither a .safetensors file nor one of torch.save (a ZIP "
                         "archive, or a pickle that begins with PyTorch's magic number)",
                         path);
    return sort(f, path);
}

mix_status mix__tensors_open(struct mix__tensors **out, mix_ctx *ctx, const char *path)
{
    *out = NULL;
    struct mix__tensors *f = mix__zalloc(ctx, 1, sizeof *f);
    if (!f)
        return MIX_ENOMEM;
    f->ctx = ctx;
    const mix_status status = read_file(f, path);
    if (status != MIX_OK)
        mix__tensors_close(f);
    else
        *out = f;
    return status;
}

void mix__tensors_close(struct mix__tensors *f)
{
    if (!f)
        return;
    mix__free(f->ctx, f->sorted);
    mix__free(f->ctx, f->views);
    mix__st_close(f->st);
    mix__free(f->ctx, f->bytes);
    mix__free(f->ctx, f);
}

size_t mix__tensors_count(const struct mix__tensors *file)
{
    return file->n;
}

const struct mix__tensor_view *mix__tensors_at(const struct mix__tensors *file, size_t index)
{
    assert(index < file->n);
    return &file->views[index];
}

const struct mix__tensor_view *mix__tensors_find(const struct mix__tensors *file, const char *name)
{
    const struct mix__tensor_view key = { .name = name }, *k = &key;
    const struct mix__tensor_view *const *found =
        bsearch(&k, file->sorted, file->n, sizeof k, compare_names);
    return found ? *found : NULL;
}

/* ---- values ---- */

static float element(const unsigned char *at, enum mix__st_dtype dtype)
{
    float f32;
    double f64;
    uint16_t u16;
    switch (dtype) {
    case MIX__ST_F64:
        memcpy(&f64, at, sizeof f64);
        return (float)f64;
    case MIX__ST_F16:
        memcpy(&u16, at, sizeof u16);
        return mix__f16_widen(u16);
    case MIX__ST_BF16:
        memcpy(&u16, at, sizeof u16);
        return mix__bf16_widen(u16);
    default:
        memcpy(&f32, at, sizeof f32);
        return f32;
    }
}

bool mix__tensor_floats(const struct mix__tensor_view *t, float *to)
{
    int64_t index[MIX__ST_RANK_MAX] = { 0 };
    int64_t at = 0; /* elements from the first */
    const int64_t size = (int64_t)mix__st_dtype_size(t->dtype);
    if (t->dtype != MIX__ST_F32 && t->dtype != MIX__ST_F64 && t->dtype != MIX__ST_F16 &&
        t->dtype != MIX__ST_BF16)
        return false;
    for (size_t i = 0; i < t->count; i++) {
        *to++ = element(t->data + size * at, t->dtype);
        /* The next index; one that comes to its end goes back to 0 and moves the one before it. */
        for (int d = t->rank - 1; d >= 0; d--) {
            at += t->strides[d];
            if (++index[d] < t->dims[d])
                break;
            at -= t->strides[d] * t->dims[d];
            index[d] = 0;
        }
    }
    return true;
}
