/*
 * format/pickle_machine.h - the inside of pickle.h: what a pickle makes is kept in flat arrays that
 * never grow beyond a limit. Values name each other by index.
 */
#ifndef METAMIX_FORMAT_PICKLE_MACHINE_H
#define METAMIX_FORMAT_PICKLE_MACHINE_H

#include "format/pickle.h"

/* Of values, cells, stack and memo each; a ResNet-152 takes some 30,000. */
enum { MIX__PICKLE_VALUES_MAX = 1 << 20 };

struct mix__pickle_cell {
    uint32_t value, next; /* next 0: the last one; cell 0 is not used */
};

struct mix__pickle {
    mix_ctx *ctx;
    struct mix__pickle_source source; /* its path is the caller's while loading */
    size_t op, at;                    /* this opcode, next byte                 */
    struct mix__pickle_value *values;
    struct mix__pickle_cell *cells;
    uint32_t *stack, *memo; /* values */
    size_t n_values, n_cells, n_stack, n_memo;
    size_t cap_values, cap_cells, cap_stack, cap_memo;
};

/* "FILE: byte N: pickle: WHAT" */
mix_status mix__pickle_bad(const struct mix__pickle *p, const char *what) MIX_CHECKED;
/* mix__grow() up to the limit. */
mix_status mix__pickle_room(struct mix__pickle *p, void *array, size_t count, size_t *capacity,
                            size_t size) MIX_CHECKED;
/* The next n bytes. */
mix_status mix__pickle_take(struct mix__pickle *p, uint64_t n, const char **bytes) MIX_CHECKED;
/* Takes the n topmost values off the stack, which stay readable at *first until the next push. */
mix_status mix__pickle_pop(struct mix__pickle *p, size_t n, const uint32_t **first) MIX_CHECKED;
/* Runs one opcode, any but STOP. */
mix_status mix__pickle_step(struct mix__pickle *p, unsigned char code) MIX_CHECKED;

#endif
