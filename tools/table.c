/* table.c - a table is its text, walked twice: once for the widths, once to print. */
#include "table.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS_MAX = 64, GAP = 2 };

static void out_of_memory(void)
{
    fprintf(stderr, "metamix: %s\n", mix_status_text(MIX_ENOMEM));
    exit(MIX_ENOMEM);
}

void table_begin(struct table *t, const char *align)
{
    *t = (struct table){ .align = align };
    t->stream = open_memstream(&t->text, &t->size);
    if (!t->stream)
        out_of_memory();
}

void table_row(struct table *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(t->stream, format, args);
    va_end(args);
    fputc('\n', t->stream);
}

/* UTF-8: bytes 10xxxxxx go on with a character and take no place. */
static int places(const char *text, size_t bytes)
{
    int n = 0;
    for (size_t i = 0; i < bytes; i++)
        n += (text[i] & 0xc0) != 0x80;
    return n;
}

/* Walks all cells; out NULL: only widens. Blanks at a line's end are not written. */
static void walk(const char *text, const char *align, int *width, FILE *out)
{
    const int columns = (int)strlen(align);
    for (const char *p = text; *p;) {
        int blank = 0;
        for (int c = 0;; c++) {
            const size_t bytes = strcspn(p, "\t\n");
            const int n = places(p, bytes);
            const int k = c < columns ? c : columns - 1;
            if (!out) {
                width[k] = n > width[k] ? n : width[k];
            } else if (bytes) {
                const int pad = width[k] > n ? width[k] - n : 0;
                const int before = align[k] == 'r' ? pad : 0;
                fprintf(out, "%*s%.*s", blank + before, "", (int)bytes, p);
                blank = pad - before + GAP;
            } else {
                blank += width[k] + GAP;
            }
            p += bytes;
            if (*p++ == '\n')
                break;
        }
        if (out)
            fputc('\n', out);
    }
}

void table_end(struct table *t, FILE *out)
{
    int width[COLUMNS_MAX] = { 0 };
    const int failed = ferror(t->stream);
    if (fclose(t->stream) != 0 || failed)
        out_of_memory();
    walk(t->text, t->align, width, NULL);
    walk(t->text, t->align, width, out);
    free(t->text);
}

cell cell_number(double value, int decimals)
{
    cell c = { "-" };
    if (isfinite(value))
        snprintf(c.text, sizeof c.text, "%.*f", decimals, value);
    return c;
}

cell cell_gbops(double gbops)
{
    return cell_number(gbops, gbops < 1 ? 6 : 3);
}

cell cell_time(double seconds)
{
    cell c = { "-" };
    if (!(seconds >= 0 && seconds < 1e9))
        return c;
    const long s = lround(seconds);
    if (seconds < 59.95)
        snprintf(c.text, sizeof c.text, "%.1f s", seconds);
    else if (s < 3600)
        snprintf(c.text, sizeof c.text, "%ld:%02ld", s / 60, s % 60);
    else
        snprintf(c.text, sizeof c.text, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    return c;
}

cell cell_bytes(double bytes)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    cell c = { "-" };
    int u = 0;
    if (!isfinite(bytes))
        return c;
    for (; bytes >= 1024 && u < 4; u++)
        bytes /= 1024;
    snprintf(c.text, sizeof c.text, u ? "%.1f %s" : "%.0f %s", bytes, units[u]);
    return c;
}
