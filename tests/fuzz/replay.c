/*
 * replay.c - a reader over its corpus, whole and damaged: replay TARGET DAMAGES FILE|FOLDER...
 *
 * Each file is read as it is, cut at many places, and with so many random damages. It passes when
 * nothing crashes; under sanitizers that says a lot.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/random.h"
#include "targets.h"

static const struct target *target;
static int damages;
static uint64_t counter;

static uint64_t draw(uint64_t n)
{
    return (uint64_t)(mix__random_uniform(1, 0, counter++) * (double)n);
}

/* A flipped bit, or a number that is small, huge or on an edge. */
static void damage(uint8_t *bytes, size_t size)
{
    static const uint32_t numbers[] = { 0,          1,          0x7f,       0x80,       0xff,
                                        0x7fff,     0xffff,     0x10000,    0x7fffffff, 0x80000000,
                                        0xfffffffe, 0xffffffff, 0x7fc00000, 0x40000000 };
    const size_t at = draw(size);
    if (draw(2) == 0 || size - at < 4) {
        bytes[at] ^= (uint8_t)(1u << draw(8));
        return;
    }
    memcpy(bytes + at, &numbers[draw(sizeof numbers / sizeof numbers[0])], 4);
}

static void read_all_ways(const uint8_t *bytes, size_t size)
{
    uint8_t *copy = malloc(size + 1);
    if (!copy)
        abort();
    target->read(bytes, size);
    for (int i = 0; i < damages && size > 0; i++) {
        memcpy(copy, bytes, size);
        const size_t left = i % 4 == 3 ? draw(size) : size;
        for (uint64_t n = draw(3); n < 3 && left > 0; n++)
            damage(copy, left);
        target->read(copy, left);
    }
    free(copy);
}

static void replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0) {
        perror(path);
        exit(2);
    }
    const long size = ftell(f);
    uint8_t *bytes = malloc((size_t)size + 1);
    rewind(f);
    if (!bytes || fread(bytes, 1, (size_t)size, f) != (size_t)size)
        exit(2);
    fclose(f);
    read_all_ways(bytes, (size_t)size);
    free(bytes);
}

static int replay(const char *path)
{
    struct stat what;
    int n = 0;
    if (stat(path, &what) != 0) {
        perror(path);
        exit(2);
    }
    if (!S_ISDIR(what.st_mode)) {
        replay_file(path);
        return 1;
    }
    struct dirent **names;
    const int count = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char name[4096];
        snprintf(name, sizeof name, "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.' && stat(name, &what) == 0 && S_ISREG(what.st_mode)) {
            replay_file(name);
            n++;
        }
        free(names[i]);
    }
    free(names);
    return n;
}

int main(int argc, char **argv)
{
    for (int i = 0; argc > 3 && i < n_targets; i++)
        if (strcmp(argv[1], targets[i].name) == 0)
            target = &targets[i];
    if (!target) {
        fprintf(stderr, "usage: replay TARGET DAMAGES FILE|FOLDER... (absolute)\n");
        return 2;
    }
    damages = atoi(argv[2]);
    targets_begin();
    int n = 0;
    for (int i = 3; i < argc; i++)
        n += replay(argv[i]);
    targets_end();
    printf("%s: %d files, each whole and with %d damages\n", target->name, n, damages);
    return n > 0 ? 0 : 2;
}
