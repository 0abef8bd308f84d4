/*
 * table.h - aligned text tables, and how times, sizes and unknown numbers are written in them.
 *
 *   struct table t;
 *   table_begin(&t, "lrr");                        columns: l left, r right; two spaces between
 *   table_row(&t, "name\tMACs\tshare");            cells are separated by tabs
 *   table_row(&t, "%s\t%d\t%.1f%%", ...);
 *   table_end(&t, stdout);                         prints and frees
 *
 * An empty row is an empty line. Short of memory, the process ends with MIX_ENOMEM's code.
 */
#ifndef TOOLS_TABLE_H
#define TOOLS_TABLE_H

#include <stdio.h>

#include "metamix/metamix.h"

struct table {
    const char *align;
    FILE *stream; /* collects text */
    char *text;
    size_t size;
};

void table_begin(struct table *t, const char *align);
void table_row(struct table *t, const char *format, ...) MIX_PRINTF(2, 3);
void table_end(struct table *t, FILE *out);

/* A cell's text, so that several fit into one call: (cell){0}.text lives until the block ends. */
typedef struct cell {
    char text[24];
} cell;

cell cell_number(double value, int decimals); /* "-" when not finite        */
cell cell_gbops(double gbops);                /* three decimals; six below 1 */
cell cell_time(double seconds);               /* "12.3 s", "3:07", "1:02:33" */
cell cell_bytes(double bytes);                /* "512.0 MiB"                */

#endif
