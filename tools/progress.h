/*
 * progress.h - tells on standard error how a long job is doing.
 *
 * On a terminal: one line that is redrawn at most ten times a second and fits the width, and a
 * line that stays for every epoch. Otherwise: plain lines, one for an epoch and one at most every
 * 30 seconds inside it.
 */
#ifndef TOOLS_PROGRESS_H
#define TOOLS_PROGRESS_H

#include <stdbool.h>

#include "metamix/metamix.h"

struct progress {
    bool quiet, terminal;
    bool drawn;  /* an unfinished line stands on the terminal       */
    double last; /* when something was last written, seconds        */
};

void progress_begin(struct progress *p, bool quiet);
void progress_show(struct progress *p, const mix_progress *now);
/* Takes the bar away so that other text can be written. */
void progress_clear(struct progress *p);

/* The terminal's line in at most width characters; text holds size bytes, size > width. */
void progress_line(char *text, size_t size, int width, const mix_progress *now);

/* Of a clock that only goes forward. */
double clock_seconds(void);

#endif
