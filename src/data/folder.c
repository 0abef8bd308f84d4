/*
 * folder.c - images in train/<class>/ and val/<class>/.
 *
 * Names are in byte order, so class indices and the order of the images do not depend on the
 * locale or the file system.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/file.h"
#include "data/dataset.h"

static const char *const half_names[MIX_SPLITS] = { "train", "val" };

struct list {
    char **items;
    size_t count, capacity;
    size_t left_out; /* of images: entries that are neither hidden nor wanted */
    char *example;   /* one of them, the first in order; NULL      */
};

static void list_release(mix_ctx *ctx, struct list *list)
{
    for (size_t i = 0; i < list->count; i++)
        mix__free(ctx, list->items[i]);
    mix__free(ctx, list->items);
    mix__free(ctx, list->example);
    *list = (struct list){ 0 };
}

static bool is_image_name(const char *name)
{
    static const char *const endings[] = { ".jpg", ".jpeg", ".png" };
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < MIX_COUNT(endings); i++)
        if (strcasecmp(dot, endings[i]) == 0)
            return true;
    return false;
}

/* A name that cannot be looked at counts as a file: reading it will say why. */
static bool is_wanted(DIR *folder, const char *name, bool folders)
{
    if (name[0] == '.' || (!folders && !is_image_name(name)))
        return false;
    struct stat info;
    const bool is_folder = fstatat(dirfd(folder), name, &info, 0) == 0 && S_ISDIR(info.st_mode);
    return is_folder == folders;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static mix_status leave_out(mix_ctx *ctx, struct list *list, const char *name)
{
    if (name[0] == '.')
        return MIX_OK;
    list->left_out++;
    if (list->example && strcmp(list->example, name) < 0)
        return MIX_OK;
    mix__free(ctx, list->example);
    list->example = mix__strdup(ctx, name);
    return list->example ? MIX_OK : MIX_ENOMEM;
}

static mix_status read_entries(mix_ctx *ctx, DIR *folder, const char *path, bool folders,
                               struct list *list)
{
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (!entry && errno)
            return mix__fail(ctx, MIX_EIO, "%s: %s", path, strerror(errno));
        if (!entry)
            return MIX_OK;
        if (!is_wanted(folder, entry->d_name, folders)) {
            if (!folders)
                MIX_TRY(leave_out(ctx, list, entry->d_name));
            continue;
        }
        if (strlen(path) + strlen(entry->d_name) + 2 > MIX__PATH_MAX)
            return mix__fail(ctx, MIX_EIO, "%s/%s: the path is longer than %d bytes", path,
                             entry->d_name, MIX__PATH_MAX - 1);
        MIX_TRY(mix__grow(ctx, &list->items, list->count, &list->capacity, sizeof *list->items));
        char *name = mix__strdup(ctx, entry->d_name);
        if (!name)
            return MIX_ENOMEM;
        list->items[list->count++] = name;
    }
}

/* The folders, or the image files, of a folder; sorted, hidden names left out. */
static mix_status list_folder(mix_ctx *ctx, const char *path, bool folders, struct list *list)
{
    DIR *folder = opendir(path);
    if (!folder)
        return mix__fail(ctx, MIX_EIO, "%s: %s", path, strerror(errno));
    const mix_status status = read_entries(ctx, folder, path, folders, list);
    closedir(folder);
    if (status != MIX_OK)
        return status;
    if (list->count == 0)
        return mix__fail(ctx, MIX_EFORMAT, "%s: expected %s, found none", path,
                         folders ? "a folder for every class" : "JPEG or PNG images");
    qsort(list->items, list->count, sizeof *list->items, by_bytes);
    return MIX_OK;
}

bool mix__folder_present(const char *path)
{
    char name[MIX__PATH_MAX];
    for (int split = 0; split < MIX_SPLITS; split++) {
        const int n = snprintf(name, sizeof name, "%s/%s", path, half_names[split]);
        if (n > 0 && n < MIX__PATH_MAX && mix__path_exists(name))
            return true;
    }
    return false;
}

void mix__folder_path(const mix_data *data, mix_split split, size_t index, char path[MIX__PATH_MAX])
{
    const struct mix__half *half = &data->halves[split];
    snprintf(path, MIX__PATH_MAX, "%s/%s/%s/%s", data->path, half_names[split],
             data->class_names[half->labels[index]], half->names[index]);
}

static mix_status compare_classes(const mix_data *data, const struct list *train,
                                  const struct list *val)
{
    size_t i = 0;
    while (i < train->count && i < val->count && strcmp(train->items[i], val->items[i]) == 0)
        i++;
    if (i == train->count && i == val->count)
        return MIX_OK;
    const bool missing =
        i == val->count || (i < train->count && strcmp(train->items[i], val->items[i]) < 0);
    return mix__fail(data->ctx, MIX_EFORMAT,
                     "%s: train/ and val/ must have the same classes, \"%s\" is in %s/ only",
                     data->path, missing ? train->items[i] : val->items[i],
                     missing ? "train" : "val");
}

static mix_status list_classes(mix_data *data)
{
    mix_ctx *ctx = data->ctx;
    struct list lists[MIX_SPLITS] = { { 0 } };
    mix_status status = MIX_OK;
    for (int split = 0; split < MIX_SPLITS && status == MIX_OK; split++) {
        char *path = mix__path_join(ctx, data->path, half_names[split]);
        status = path ? list_folder(ctx, path, true, &lists[split]) : MIX_ENOMEM;
        mix__free(ctx, path);
    }
    if (status == MIX_OK)
        status = compare_classes(data, &lists[MIX_TRAIN], &lists[MIX_VAL]);
    if (status == MIX_OK) {
        data->class_names = lists[MIX_TRAIN].items;
        data->classes = (int)lists[MIX_TRAIN].count;
        lists[MIX_TRAIN] = (struct list){ 0 };
    }
    list_release(ctx, &lists[MIX_TRAIN]);
    list_release(ctx, &lists[MIX_VAL]);
    return status;
}

/* Moves the list's names to the end of the half. */
static mix_status add_images(mix_ctx *ctx, struct mix__half *half, size_t *names_capacity,
                             size_t *labels_capacity, struct list *list, int label)
{
    for (size_t i = 0; i < list->count; i++) {
        MIX_TRY(mix__grow(ctx, &half->names, half->count, names_capacity, sizeof *half->names));
        MIX_TRY(mix__grow(ctx, &half->labels, half->count, labels_capacity, sizeof *half->labels));
        half->names[half->count] = list->items[i];
        half->labels[half->count++] = label;
        list->items[i] = NULL;
    }
    return MIX_OK;
}

static mix_status list_images(mix_data *data, mix_split split)
{
    mix_ctx *ctx = data->ctx;
    struct mix__half *half = &data->halves[split];
    size_t names_capacity = 0, labels_capacity = 0;
    for (int label = 0; label < data->classes; label++) {
        char path[MIX__PATH_MAX];
        const int n = snprintf(path, sizeof path, "%s/%s/%s", data->path, half_names[split],
                               data->class_names[label]);
        if (n >= MIX__PATH_MAX)
            return mix__fail(ctx, MIX_EIO, "%s: the path of class \"%s\" is too long", data->path,
                             data->class_names[label]);
        struct list list = { 0 };
        mix_status status = list_folder(ctx, path, false, &list);
        if (list.left_out)
            mix__log(ctx, MIX_LOG_WARNING,
                     "%s: left out %zu that are no files called .jpg, .jpeg or .png, \"%s\" first",
                     path, list.left_out, list.example);
        if (status == MIX_OK)
            status = add_images(ctx, half, &names_capacity, &labels_capacity, &list, label);
        list_release(ctx, &list);
        MIX_TRY(status);
    }
    return MIX_OK;
}

/* Whose size all others must have when none is given. */
struct reference {
    mix_split split;
    size_t index;
    int height, width;
};

static mix_status check_size(const mix_data *data, const char *path, int height, int width,
                             const struct reference *first)
{
    if (data->options.size || (height == first->height && width == first->width))
        return MIX_OK;
    char other[MIX__PATH_MAX];
    mix__folder_path(data, first->split, first->index, other);
    return mix__fail(data->ctx, MIX_ESHAPE,
                     "%s is %d x %d pixels and %s is %d x %d: images of different sizes need an "
                     "image size to bring them to",
                     other, first->width, first->height, path, width, height);
}

/* Decodes an image and keeps it, at the evaluation geometry, when the half keeps its pixels. */
static mix_status take_image(mix_data *data, mix_split split, size_t index,
                             const struct reference *first, bool *resized)
{
    const struct mix__half *half = &data->halves[split];
    const size_t bytes = (size_t)data->size * data->size * data->channels;
    struct mix__file file;
    struct mix__image image;
    int height, width;
    mix_status status = mix__data_file(data, split, index, &file);
    if (status == MIX_OK)
        status = mix__source_size(data->ctx, &file.source, &height, &width);
    if (status == MIX_OK) {
        const struct mix__view view =
            mix__view_fit(height, width, data->size, data->options.resize);
        *resized = height != data->size || width != data->size || data->options.resize;
        status = mix__image_decode(data->ctx, &file.source, mix__view_shrink(&view), &image);
        if (status == MIX_OK)
            status = check_size(data, file.name, height, width, first);
        if (status == MIX_OK && half->pixels &&
            (status = mix__image_view(data->ctx, &image, &view)) == MIX_OK)
            memcpy(half->pixels + index * bytes, image.pixels, bytes);
        mix__image_release(data->ctx, &image);
    }
    mix__file_release(data->ctx, &file);
    return status;
}

/* Closes the gaps that bad images left: statuses (count). */
static void drop_bad(mix_data *data, struct mix__half *half, const uint8_t *statuses)
{
    const size_t bytes = (size_t)data->size * data->size * data->channels, count = half->count;
    half->count = 0;
    for (size_t i = 0; i < count; i++) {
        char *name = half->names[i];
        half->names[i] = NULL;
        if (statuses[i] != MIX_OK) {
            mix__free(data->ctx, name);
            half->skipped++;
            continue;
        }
        half->names[half->count] = name;
        half->labels[half->count] = half->labels[i];
        if (half->pixels && half->count != i)
            memcpy(half->pixels + half->count * bytes, half->pixels + i * bytes, bytes);
        half->count++;
    }
}

/* The first image (in file order) that failed gives the sentence, whatever the threads' order. */
static mix_status judge(mix_data *data, mix_split split, const struct reference *first,
                        const uint8_t *statuses)
{
    struct mix__half *half = &data->halves[split];
    size_t bad = SIZE_MAX;
    for (size_t i = 0; i < half->count; i++) {
        if (statuses[i] == MIX_OK)
            continue;
        char path[MIX__PATH_MAX];
        if (!data->options.skip_bad_images || statuses[i] != MIX_EFORMAT) {
            bool resized;
            MIX_TRY(take_image(data, split, i, first, &resized));
            mix__folder_path(data, split, i, path);
            return mix__image_changed(data->ctx, (mix_status)statuses[i], path);
        }
        if (bad == SIZE_MAX)
            bad = i;
    }
    if (bad == SIZE_MAX)
        return MIX_OK;
    char path[MIX__PATH_MAX];
    mix__folder_path(data, split, bad, path);
    const size_t count = half->count;
    drop_bad(data, half, statuses);
    mix__log(data->ctx, MIX_LOG_WARNING,
             "%s/%s: left out %zu of %zu images that cannot be decoded, the first is %s",
             data->path, half_names[split], half->skipped, count, path);
    if (half->count == 0)
        return mix__fail(data->ctx, MIX_EFORMAT, "%s/%s: none of %zu images can be decoded",
                         data->path, half_names[split], count);
    return MIX_OK;
}

static mix_status take_half(mix_data *data, mix_split split, const struct reference *first)
{
    mix_ctx *ctx = data->ctx;
    struct mix__half *half = &data->halves[split];
    uint8_t *statuses = mix__alloc(ctx, half->count, 1);
    if (!statuses)
        return MIX_ENOMEM;
    bool any_resized = false;
#pragma omp parallel for schedule(dynamic, 8) num_threads(mix_ctx_threads(ctx))                    \
    reduction(||                                                                                   \
              : any_resized)
    for (size_t i = 0; i < half->count; i++) {
        bool resized = false;
        statuses[i] = (uint8_t)take_image(data, split, i, first, &resized);
        any_resized = any_resized || resized;
    }
    half->original = !any_resized;
    const mix_status status = judge(data, split, first, statuses);
    mix__free(ctx, statuses);
    return status;
}

static mix_status image_size(const mix_data *data, mix_split split, size_t index, int *height,
                             int *width)
{
    struct mix__file file;
    struct mix__image image;
    mix_status status = mix__data_file(data, split, index, &file);
    if (status == MIX_OK &&
        (status = mix__image_decode(data->ctx, &file.source, 1, &image)) == MIX_OK) {
        *height = image.height;
        *width = image.width;
        mix__image_release(data->ctx, &image);
    }
    mix__file_release(data->ctx, &file);
    return status;
}

/* The first training image that can be decoded gives its size to the data set when the options do
 * not. */
static mix_status find_reference(mix_data *data, struct reference *first)
{
    *first = (struct reference){ .split = MIX_TRAIN };
    for (;; first->index++) {
        const mix_status status =
            image_size(data, first->split, first->index, &first->height, &first->width);
        if (status == MIX_OK)
            break;
        if (status != MIX_EFORMAT || !data->options.skip_bad_images ||
            first->index + 1 == data->halves[MIX_TRAIN].count)
            return status;
    }
    if (data->options.size == 0 && first->height != first->width) {
        char path[MIX__PATH_MAX];
        mix__folder_path(data, first->split, first->index, path);
        return mix__fail(data->ctx, MIX_ESHAPE,
                         "%s is %d x %d pixels: images that are not square need an image size to "
                         "bring them to",
                         path, first->width, first->height);
    }
    data->size = data->options.size ? data->options.size : first->height;
    return MIX_OK;
}

static mix_status make_store(mix_data *data)
{
    const uint64_t each = (uint64_t)data->size * data->size * data->channels;
    const uint64_t images = data->halves[MIX_TRAIN].count + data->halves[MIX_VAL].count;
    if (images > data->options.memory_limit / each)
        return MIX_OK;
    for (int split = 0; split < MIX_SPLITS; split++) {
        struct mix__half *half = &data->halves[split];
        half->pixels = mix__alloc(data->ctx, half->count, each);
        if (!half->pixels)
            return MIX_ENOMEM;
        half->height = half->width = data->size;
    }
    return MIX_OK;
}

mix_status mix__folder_open(mix_data *data)
{
    data->channels = 3;
    MIX_TRY(list_classes(data));
    for (int split = 0; split < MIX_SPLITS; split++)
        MIX_TRY(list_images(data, split));
    if (data->unchecked)
        return MIX_OK;
    struct reference first;
    MIX_TRY(find_reference(data, &first));
    MIX_TRY(make_store(data));
    for (int split = 0; split < MIX_SPLITS; split++)
        MIX_TRY(take_half(data, split, &first));
    return MIX_OK;
}
