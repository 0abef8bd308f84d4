/* profile_table.h - where the time of training steps goes, as a table. */
#ifndef TOOLS_PROFILE_TABLE_H
#define TOOLS_PROFILE_TABLE_H

#include <stdio.h>

#include "metamix/metamix.h"

void profile_print(const mix_profile *profile, FILE *out);

#endif
