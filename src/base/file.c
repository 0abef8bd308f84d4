#define _XOPEN_SOURCE 700 /* realpath() */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/number.h"

static mix_status fail_errno(mix_ctx *ctx, const char *what, const char *path)
{
    return mix__fail(ctx, MIX_EIO, "%s: cannot %s: %s", path, what, strerror(errno));
}

static mix_status fail_kind(mix_ctx *ctx, const char *path, const struct stat *st)
{
    return mix__fail(ctx, MIX_EIO, "%s: expected a regular file, found a %s", path,
                     S_ISDIR(st->st_mode) ? "folder" : "device or pipe");
}

/* Reads size bytes and makes sure that the file ends there. */
static mix_status read_exactly(mix_ctx *ctx, int fd, const char *path, char *bytes, size_t size)
{
    size_t done = 0;
    ssize_t n;
    /* One byte more than expected is asked for: it must not come. */
    while ((n = read(fd, bytes + done, size + 1 - done)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(ctx, "read", path);
        done += (size_t)n;
        if (done > size)
            return mix__fail(ctx, MIX_EIO, "%s: grew beyond its %zu bytes while being read", path,
                             size);
    }
    if (done != size)
        return mix__fail(ctx, MIX_EIO, "%s: ended at byte %zu of %zu while being read", path, done,
                         size);
    bytes[size] = '\0';
    return MIX_OK;
}

static mix_status read_open(mix_ctx *ctx, int fd, const char *path, size_t limit, char **bytes,
                            size_t *size)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return fail_errno(ctx, "read", path);
    if (!S_ISREG(st.st_mode))
        return fail_kind(ctx, path, &st);
    if ((uintmax_t)st.st_size > limit || (uintmax_t)st.st_size >= SIZE_MAX)
        return mix__fail(ctx, MIX_EIO, "%s: %jd bytes, at most %zu are read", path,
                         (intmax_t)st.st_size, limit);
    const size_t n = (size_t)st.st_size;
    char *block = mix__alloc(ctx, n + 1, 1);
    if (!block)
        return MIX_ENOMEM;
    const mix_status status = read_exactly(ctx, fd, path, block, n);
    if (status != MIX_OK) {
        mix__free(ctx, block);
        return status;
    }
    *bytes = block;
    *size = n;
    return MIX_OK;
}

mix_status mix__file_read(mix_ctx *ctx, const char *path, size_t limit, char **bytes, size_t *size)
{
    *bytes = NULL;
    *size = 0;
    /* Not blocking: a pipe in the file's place must not hang the open. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return fail_errno(ctx, "open", path);
    const mix_status status = read_open(ctx, fd, path, limit, bytes, size);
    close(fd);
    return status;
}

static char *concat(mix_ctx *ctx, const char *a, const char *b, const char *c)
{
    const size_t na = strlen(a), nb = strlen(b), nc = strlen(c);
    char *text = mix__alloc(ctx, na + nb + nc + 1, 1);
    if (!text)
        return NULL;
    memcpy(text, a, na);
    memcpy(text + na, b, nb);
    memcpy(text + na + nb, c, nc + 1);
    return text;
}

static void release(struct mix__file_writer *w)
{
    mix__free(w->ctx, w->path);
    mix__free(w->ctx, w->part);
    *w = (struct mix__file_writer){ .ctx = w->ctx };
}

/* The file that path leads to, by links too, is replaced; what is no regular file stays. */
static mix_status take_path(struct mix__file_writer *w, const char *path)
{
    struct stat st;
    char *target =
        lstat(path, &st) == 0 && S_ISLNK(st.st_mode) ? realpath(path, NULL) : NULL; /* libc's */
    w->path = mix__strdup(w->ctx, target ? target : path);
    free(target);
    if (!w->path || !(w->part = concat(w->ctx, w->path, ".part", "")))
        return MIX_ENOMEM;
    if (stat(w->path, &st) == 0 && !S_ISREG(st.st_mode))
        return fail_kind(w->ctx, w->path, &st);
    return MIX_OK;
}

/* Whether the open file, which is locked, is still the one of that name. */
static bool is_named(int fd, const char *path)
{
    struct stat opened, named;
    return fstat(fd, &opened) == 0 && lstat(path, &named) == 0 && opened.st_ino == named.st_ino &&
           opened.st_dev == named.st_dev;
}

static mix_status lock_part(struct mix__file_writer *w, int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return fail_errno(w->ctx, "create", w->part);
    if (!S_ISREG(st.st_mode))
        return fail_kind(w->ctx, w->part, &st);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) /* else: no locks there */
        return mix__fail(w->ctx, MIX_EIO, "%s: another process is writing it", w->path);
    return MIX_OK;
}

/* The part file for this writer alone; what a killed one has left there is overwritten. */
static mix_status open_part(struct mix__file_writer *w)
{
    for (;;) {
        const int fd =
            open(w->part, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
        if (fd < 0)
            return fail_errno(w->ctx, "create", w->part);
        mix_status status = lock_part(w, fd);
        if (status == MIX_OK && is_named(fd, w->part)) {
            if (ftruncate(fd, 0) == 0 && (w->file = fdopen(fd, "wb")))
                return MIX_OK;
            status = fail_errno(w->ctx, "create", w->part);
        }
        close(fd);
        if (status != MIX_OK)
            return status;
    } /* another writer has committed it in between */
}

mix_status mix__file_begin(struct mix__file_writer *w, mix_ctx *ctx, const char *path)
{
    *w = (struct mix__file_writer){ .ctx = ctx };
    mix_status status = take_path(w, path);
    if (status == MIX_OK)
        status = open_part(w);
    if (status != MIX_OK)
        release(w);
    return status;
}

mix_status mix__file_write(struct mix__file_writer *w, const void *bytes, size_t size)
{
    if (size && fwrite(bytes, 1, size, w->file) != size)
        return fail_errno(w->ctx, "write", w->part);
    return MIX_OK;
}

/* Makes the new name last. A folder that may be written but not read, or that has no sync, is
 * left to the system. */
static mix_status sync_folder(mix_ctx *ctx, char *path)
{
    char *slash = strrchr(path, '/');
    const char *folder = !slash ? "." : slash == path ? "/" : path;
    if (slash)
        *slash = '\0';
    const int fd = open(*folder ? folder : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return MIX_OK;
    mix_status status = MIX_OK;
    if (fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP)
        status = fail_errno(ctx, "sync the folder", *folder ? folder : "/");
    close(fd);
    return status;
}

static mix_status commit(struct mix__file_writer *w)
{
    if (ferror(w->file) || fflush(w->file) != 0 || fsync(fileno(w->file)) != 0)
        return fail_errno(w->ctx, "write", w->part);
    if (rename(w->part, w->path) != 0) /* before the lock goes with the open file */
        return fail_errno(w->ctx, "replace", w->path);
    mix__free(w->ctx, w->part);
    w->part = NULL;
    return sync_folder(w->ctx, w->path);
}

mix_status mix__file_commit(struct mix__file_writer *w)
{
    const mix_status status = commit(w);
    mix__file_abandon(w); /* removes the part file, if it is still there */
    return status;
}

void mix__file_abandon(struct mix__file_writer *w)
{
    if (w->file && w->part)
        unlink(w->part);
    if (w->file)
        fclose(w->file);
    release(w);
}

static mix_status end(struct mix__file_writer *w, mix_status status)
{
    if (status == MIX_OK)
        return mix__file_commit(w);
    mix__file_abandon(w);
    return status;
}

mix_status mix__file_print(mix_ctx *ctx, const char *path,
                           mix_status (*print)(void *user, FILE *out), void *user)
{
    struct mix__file_writer w;
    MIX_TRY(mix__file_begin(&w, ctx, path));
    const locale_t before = mix__number_point();
    const mix_status status = print(user, w.file);
    mix__number_back(before);
    return end(&w, status);
}

mix_status mix__file_save(mix_ctx *ctx, const char *path, const void *bytes, size_t size)
{
    struct mix__file_writer w;
    MIX_TRY(mix__file_begin(&w, ctx, path));
    return end(&w, mix__file_write(&w, bytes, size));
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static mix_status make_one(mix_ctx *ctx, const char *path)
{
    if (mkdir(path, 0777) == 0)
        return MIX_OK;
    const int error = errno;
    if (is_folder(path))
        return MIX_OK;
    errno = error;
    return fail_errno(ctx, "make the folder", path);
}

static mix_status make_all(mix_ctx *ctx, char *path)
{
    for (char *p = path + 1; *p; p++) {
        if (*p != '/' || p[-1] == '/')
            continue;
        *p = '\0';
        MIX_TRY(make_one(ctx, path));
        *p = '/';
    }
    return make_one(ctx, path);
}

mix_status mix__make_folder(mix_ctx *ctx, const char *path)
{
    if (!*path)
        return mix__fail(ctx, MIX_EINVAL, "expected a folder's path, found an empty one");
    char *copy = mix__strdup(ctx, path);
    if (!copy)
        return MIX_ENOMEM;
    const mix_status status = make_all(ctx, copy);
    mix__free(ctx, copy);
    return status;
}

bool mix__path_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

bool mix__path_ends(const char *path, const char *ending)
{
    const size_t n = strlen(path), tail = strlen(ending);
    return n > tail && strcmp(path + n - tail, ending) == 0;
}

char *mix__path_join(mix_ctx *ctx, const char *folder, const char *name)
{
    const size_t n = strlen(folder);
    return concat(ctx, folder, n && folder[n - 1] != '/' ? "/" : "", name);
}
