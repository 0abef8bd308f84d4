/*
 * base/number.c - see number.h.
 */
#include "base/number.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* strtol and strtod skip white space and strtod knows nan, inf and hexadecimal: none is wanted. */
static bool looks_decimal(const char *text)
{
    return *text && !text[strspn(text, "0123456789+-.eE")];
}

bool mix__number_whole(const char *text, int *value)
{
    char *end;
    errno = 0;
    const long v = strtol(text, &end, 10);
    if (!looks_decimal(text) || end == text || *end || errno || v < INT_MIN || v > INT_MAX)
        return false;
    *value = (int)v;
    return true;
}

bool mix__number_real(const char *text, double *value)
{
    char *end;
    const locale_t before = mix__number_point();
    const double v = strtod(text, &end);
    mix__number_back(before);
    if (!looks_decimal(text) || end == text || *end || !isfinite(v))
        return false;
    *value = v;
    return true;
}

locale_t mix__number_point(void)
{
    const locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return c ? uselocale(c) : (locale_t)0;
}

void mix__number_back(locale_t before)
{
    if (before)
        freelocale(uselocale(before));
}
