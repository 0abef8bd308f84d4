/*
 * operands.h - what the check programs share: drawn numbers, operands that end at a guard page and
 * begin behind a canary, failures.
 */
#ifndef METAMIX_TESTS_OPERANDS_H
#define METAMIX_TESTS_OPERANDS_H

#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/ctx.h"

static uint64_t seed = 1, counter;
static size_t compared, failures;

static inline uint64_t draw(void)
{
    uint64_t z = seed + ++counter * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline int draw_int(int low, int high)
{
    return (int)(low + (int64_t)(draw() % (uint64_t)((int64_t)high - low + 1)));
}

static inline float draw_float(float low, float high)
{
    return low + (high - low) * (float)(draw() >> 40) / (float)(1 << 24);
}

/* ---- operands -------------------------------------------------------------------------- */

static struct operand {
    unsigned char *map;
    size_t before, bytes; /* canary; whole mapping with the guard page */
} taken[512];
static int n_taken;

enum { CANARY = 0xa5 };

static inline void *take_bytes(size_t size)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t body = (size + 64 + page - 1) / page * page;
    unsigned char *map =
        mmap(NULL, body + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || mprotect(map + body, page, PROT_NONE) ||
        n_taken == (int)MIX_COUNT(taken)) {
        fputs("no memory for operands\n", stderr);
        exit(2);
    }
    memset(map, CANARY, body - size);
    taken[n_taken++] = (struct operand){ map, body - size, body + page };
    return map + body - size;
}

static inline float *take(size_t n)
{
    return take_bytes(n * sizeof(float));
}

static inline void fail(const char *what, const char *who, size_t at, double got, double want)
{
    if (++failures <= 20)
        fprintf(stderr, "%s %s [%zu]: got %.9g, want %.9g (--seed %" PRIu64 ")\n", what, who, at,
                got, want, seed);
}

static inline void give_back(const char *what)
{
    while (n_taken) {
        const struct operand *o = &taken[--n_taken];
        for (size_t i = 0; i < o->before; i++)
            if (o->map[i] != CANARY) {
                fail(what, "wrote before an operand", o->before - i, o->map[i], CANARY);
                break;
            }
        munmap(o->map, o->bytes);
    }
}

/* [--seed N] [--bench]; gives whether to bench, and ends the program after anything else. */
static inline bool take_arguments(int argc, char **argv, const char *program)
{
    bool benching = false;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--bench")) {
            benching = true;
        } else if (!strcmp(argv[i], "--seed") && i + 1 < argc) {
            seed = strtoull(argv[++i], NULL, 10);
        } else {
            fprintf(stderr, "usage: %s [--seed N] [--bench]\n", program);
            exit(2);
        }
    }
    return benching;
}

#endif
