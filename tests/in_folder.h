/*
 * in_folder.h - for tests that read and write files: the program's context, and a folder of its own
 * around each test, or around all of them.
 */
#ifndef METAMIX_TESTS_IN_FOLDER_H
#define METAMIX_TESTS_IN_FOLDER_H

#include "support.h"

static mix_ctx *ctx;

static inline int set_up(void **state)
{
    (void)state;
    ctx = plain_ctx();
    enter_folder();
    return 0;
}

/* Also behind a set-up of another kind that has made ctx and entered a folder. */
static inline int tear_down(void **state)
{
    (void)state;
    leave_folder();
    mix_ctx_free(ctx);
    return 0;
}

#endif
