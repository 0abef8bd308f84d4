/*
 * support.h - what several tests need: cmocka, an allocator that fails and counts, a folder to
 * write in.
 */
#ifndef METAMIX_TESTS_SUPPORT_H
#define METAMIX_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/ctx.h"

#define CHECK_OK(expr) assert_int_equal((expr), MIX_OK)

/* `expr` gives `status`, and the sentence holds `part`. */
#define CHECK_FAILS(ctx, expr, status, part)                                                       \
    do {                                                                                           \
        assert_int_equal((expr), (status));                                                        \
        if (!strstr(mix_ctx_error(ctx), (part)))                                                   \
            fail_msg("expected '%s' in '%s'", (part), mix_ctx_error(ctx));                         \
    } while (0)

/* Allocations succeed `left` times; live ones are counted. Blocks are aligned to 16 and never to
 * 32 bytes. */
struct fault {
    size_t left, live;
};

static inline void *fault_alloc(void *user, size_t bytes)
{
    struct fault *f = user;
    void *raw;
    if (!f->left || bytes > SIZE_MAX / 4 || posix_memalign(&raw, 32, bytes + 16) != 0)
        return NULL;
    f->left--;
    f->live++;
    return (char *)raw + 16;
}

static inline void fault_free(void *user, void *block)
{
    struct fault *f = user;
    f->live--;
    free((char *)block - 16);
}

/* A context whose own block does not count against left. One thread: the counters are plain. */
static inline mix_ctx *fault_ctx(struct fault *f, size_t left)
{
    mix_ctx *ctx;
    mix_ctx_options options;
    mix_ctx_options_init(&options);
    *f = (struct fault){ .left = 1 };
    options.allocator = (mix_allocator){ fault_alloc, fault_free, f };
    options.threads = 1;
    CHECK_OK(mix_ctx_new(&ctx, &options));
    *f = (struct fault){ .left = left };
    return ctx;
}

static inline void fault_ctx_free(struct fault *f, mix_ctx *ctx)
{
    assert_int_equal(f->live, 0);
    f->live = 1;
    mix_ctx_free(ctx);
    assert_int_equal(f->live, 0);
}

static inline mix_ctx *plain_ctx(void)
{
    mix_ctx *ctx;
    CHECK_OK(mix_ctx_new(&ctx, NULL));
    return ctx;
}

/* Goes into a new folder below the working folder; leave_folder() removes it with its content. */
static inline void enter_folder(void)
{
    char name[] = "scratch.XXXXXX";
    assert_non_null(mkdtemp(name));
    assert_int_equal(chdir(name), 0);
}

static inline void remove_tree(const char *path)
{
    DIR *dir = opendir(path);
    if (dir) {
        const struct dirent *d;
        assert_int_equal(chdir(path), 0);
        while ((d = readdir(dir))) {
            if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
                continue;
            if (unlink(d->d_name) != 0)
                remove_tree(d->d_name);
        }
        closedir(dir);
        assert_int_equal(chdir(".."), 0);
    }
    remove(path);
}

static inline void leave_folder(void)
{
    char path[4096];
    assert_non_null(getcwd(path, sizeof path));
    assert_int_equal(chdir(".."), 0);
    remove_tree(strrchr(path, '/') + 1);
}

/* From now on files can grow to so many bytes, as on a disk that is full then; -1: to any size. */
static inline void disk_holds(long bytes)
{
    struct rlimit limit;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes < 0 ? limit.rlim_max : (rlim_t)bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static inline void write_bytes(const char *path, const void *bytes, size_t size)
{
    unlink(path); /* a file that is cut to nothing first waits for the disk on some systems */
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

/* The file holds exactly these bytes. */
static inline void check_bytes(const char *path, const void *bytes, size_t size)
{
    char *found = malloc(size + 1);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_non_null(found);
    assert_int_equal(fread(found, 1, size + 1, f), size);
    assert_memory_equal(found, bytes, size);
    fclose(f);
    free(found);
}

#endif
