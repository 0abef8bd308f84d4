/*
 * integer.h - accuracy in the integer runtime.
 */
#ifndef TOOLS_INTEGER_H
#define TOOLS_INTEGER_H

#include "command_job.h"

/* Of the network options.from on the validation images of options.settings.data, with progress.
 * Gives the exit code, and tells why. */
int integer_eval(struct job *job, mix_accuracy *accuracy);

#endif
