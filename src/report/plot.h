/*
 * report/plot.h - plots as SVG elements of an HTML page.
 *
 * Text and grid have the page's own colour, for light and dark ones; every point and bar has its
 * values as a tooltip. Colours are numbers, taken in turn. A short write is left to ferror().
 */
#ifndef METAMIX_REPORT_PLOT_H
#define METAMIX_REPORT_PLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

const char *mix__plot_color(int number);

/* Text as HTML and XML take it: & < > " ' as entities, ? for control characters. */
void mix__plot_text(FILE *out, const char *text);

/* Where an axis is marked: multiples of 1, 2 or 5 times a power of ten; where a logarithmic axis
 * covers more than one, the powers and, up to three of them, 2 and 5 times these. from < to, and
 * above 0 when logarithmic. */
enum { MIX__PLOT_TICKS = 16 };
int mix__plot_ticks(double from, double to, bool logarithmic, double ticks[MIX__PLOT_TICKS]);

struct mix__plot_axis {
    const char *label;
    bool logarithmic;
};

struct mix__plot_point {
    double x, y;
    const char *note; /* for the tooltip */
};

/* Points in a line; one that is not finite, or that a logarithmic axis has no place for, is a gap.
 */
struct mix__plot_series {
    const char *name;
    int color;
    bool faint; /* a thin line without points     */
    bool named; /* the name stands beside a point */
    const struct mix__plot_point *points;
    size_t n;
};

struct mix__plot {
    const char *title;
    struct mix__plot_axis x, y;
    const struct mix__plot_series *series;
    size_t n;
};

/* The axes cover all points. */
void mix__plot_draw(FILE *out, const struct mix__plot *plot);

/* One network's bits: (layers), 0 where it has no such layer. */
struct mix__plot_bits {
    const char *name;
    int color;
    const int *weight, *activation;
};

/* A row of bars for each network, a bar for each layer: as high as the input activation's bits,
 * with a line across at the weights'. */
void mix__plot_draw_bits(FILE *out, const char *const *layers, size_t n_layers,
                         const struct mix__plot_bits *rows, size_t n_rows);

#endif
