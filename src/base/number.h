/*
 * base/number.h - numbers as text: decimal, with a point, in whatever language the program speaks.
 */
#ifndef METAMIX_BASE_NUMBER_H
#define METAMIX_BASE_NUMBER_H

#include <locale.h>
#include <stdbool.h>

/* The whole text is a whole number, or a finite one: no white space, no hexadecimal. */
bool mix__number_whole(const char *text, int *value);
bool mix__number_real(const char *text, double *value);

/* Between the two, in this thread, what the C library prints and reads has a point. */
locale_t mix__number_point(void);
void mix__number_back(locale_t before);

#endif
