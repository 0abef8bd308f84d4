/*
 * targets.h - every reader of files, as a function from bytes.
 */
#ifndef METAMIX_TESTS_FUZZ_TARGETS_H
#define METAMIX_TESTS_FUZZ_TARGETS_H

#include <stddef.h>
#include <stdint.h>

struct target {
    const char *name;
    void (*read)(const uint8_t *bytes, size_t size);
};

extern const struct target targets[];
extern const int n_targets;

/* Readers of paths find their bytes in a folder of their own, in the present one. */
void targets_begin(void);
void targets_end(void);

#endif
