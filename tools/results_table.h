/*
 * results_table.h - several runs' results side by side.
 */
#ifndef TOOLS_RESULTS_TABLE_H
#define TOOLS_RESULTS_TABLE_H

#include "options.h"

/* A table, with --layers also of the bits layer by layer, or with --json one object. Gives the exit
 * code. */
int results_print(const struct options *options, const char *const *runs, int n);

#endif
