/*
 * libfuzzer.c - one reader for libFuzzer (scripts/fuzz.sh); MIX_FUZZ_TARGET is its name in quotes.
 */
#include <stdlib.h>
#include <string.h>

#include "targets.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const struct target *target;
    if (!target) {
        targets_begin();
        atexit(targets_end);
        for (int i = 0; i < n_targets; i++)
            if (strcmp(MIX_FUZZ_TARGET, targets[i].name) == 0)
                target = &targets[i];
    }
    target->read(bytes, size);
    return 0;
}
