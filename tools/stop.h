/*
 * stop.h - Ctrl-C and SIGTERM as a wish: the first one sets a flag, the second ends the process.
 */
#ifndef TOOLS_STOP_H
#define TOOLS_STOP_H

#include <stdbool.h>

void stop_catch(void); /* from now on */
bool stop_wanted(void);

#endif
