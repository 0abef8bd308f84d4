/*
 * report/plot.c - plots as SVG elements of an HTML page.
 */
#include "report/plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "metamix/report.h"

/* Lengths are in pixels of an unscaled page. */
enum { WIDTH = 460, HEIGHT = 300, LEFT = 56, RIGHT = 14, TOP = 26, BOTTOM = 44 };
/* A line of text, a character of a name, generously; between a point and its name. */
enum { LINE = 13, CHARACTER = 6, GAP = 9 };

/* Values beyond are no figures of a run, and their squares and differences may overflow. */
#define VALUE_MOST 1e15

/* Okabe and Ito's colours, told apart also by the colour-blind; the last is legible on both
 * backgrounds where theirs is black. */
const char *mix__plot_color(int number)
{
    static const char *const colors[] = { "#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                          "#e69f00", "#56b4e9", "#f0e442", "#888888" };
    return colors[number % (int)(sizeof colors / sizeof colors[0])];
}

void mix__plot_text(FILE *out, const char *text)
{
    for (; *text; text++) {
        const unsigned char c = (unsigned char)*text;
        const char *entity = c == '&'    ? "&amp;"
                             : c == '<'  ? "&lt;"
                             : c == '>'  ? "&gt;"
                             : c == '"'  ? "&quot;"
                             : c == '\'' ? "&#39;"
                                         : NULL;
        if (entity)
            fputs(entity, out);
        else
            fputc(c < 0x20 || c == 0x7f ? '?' : c, out);
    }
}

/* ---- axes ----------------------------------------------------------------------------------- */

struct range {
    double from, to;
    bool logarithmic;
};

static bool has_place(const struct range *r, double v)
{
    return fabs(v) <= VALUE_MOST && (!r->logarithmic || v >= 1 / VALUE_MOST);
}

static bool drawn(const struct range *x, const struct range *y, const struct mix__plot_point *p)
{
    return has_place(x, p->x) && has_place(y, p->y);
}

static void widen(struct range *r, double v)
{
    r->from = fmin(r->from, v);
    r->to = fmax(r->to, v);
}

/* Some air on both sides; a range for no value and for one. */
static void settle(struct range *r)
{
    if (r->from > r->to)
        r->from = r->to = 1.0;
    if (r->logarithmic) {
        const double air = r->from < r->to ? pow(r->to / r->from, 0.06) : 2.0;
        r->from /= air;
        r->to *= air;
    } else {
        const double air = r->from < r->to ? 0.04 * (r->to - r->from) : 0.5 + 0.01 * fabs(r->to);
        r->from -= air;
        r->to += air;
    }
}

static double share(const struct range *r, double v)
{
    return r->logarithmic ? log(v / r->from) / log(r->to / r->from)
                          : (v - r->from) / (r->to - r->from);
}

static int log_ticks(double from, double to, double *ticks)
{
    static const double between[] = { 1.0, 2.0, 5.0 };
    const int first = (int)floor(log10(from)), last = (int)ceil(log10(to));
    const int each = last - first > 3 ? 1 : 3, stride = 1 + (last - first) / MIX__PLOT_TICKS;
    int n = 0;
    for (int decade = first; decade <= last; decade += stride)
        for (int i = 0; i < each; i++) {
            const double v = between[i] * pow(10.0, decade);
            if (v >= from && v <= to && n < MIX__PLOT_TICKS)
                ticks[n++] = v;
        }
    return n;
}

int mix__plot_ticks(double from, double to, bool logarithmic, double ticks[MIX__PLOT_TICKS])
{
    if (logarithmic && to >= 10.0 * from)
        return log_ticks(from, to, ticks);
    const double most = (to - from) / 4.0, power = pow(10.0, floor(log10(most)));
    const double step = power * (most >= 5.0 * power ? 5.0 : most >= 2.0 * power ? 2.0 : 1.0);
    int n = 0;
    for (double i = ceil(from / step); i * step <= to && n < MIX__PLOT_TICKS; i++)
        ticks[n++] = i * step + 0.0; /* no -0 */
    return n;
}

/* ---- lines and points ----------------------------------------------------------------------- */

struct frame {
    struct range x, y;
};

static double across(const struct frame *f, double x)
{
    return LEFT + share(&f->x, x) * (WIDTH - LEFT - RIGHT);
}

static double down(const struct frame *f, double y)
{
    return HEIGHT - BOTTOM - share(&f->y, y) * (HEIGHT - TOP - BOTTOM);
}

static struct frame fit(const struct mix__plot *plot)
{
    struct frame f = { { INFINITY, -INFINITY, plot->x.logarithmic },
                       { INFINITY, -INFINITY, plot->y.logarithmic } };
    for (size_t s = 0; s < plot->n; s++)
        for (size_t i = 0; i < plot->series[s].n; i++) {
            const struct mix__plot_point *p = &plot->series[s].points[i];
            if (!drawn(&f.x, &f.y, p))
                continue;
            widen(&f.x, p->x);
            widen(&f.y, p->y);
        }
    settle(&f.x);
    settle(&f.y);
    return f;
}

static void draw_axes(FILE *out, const struct mix__plot *plot, const struct frame *f)
{
    double ticks[MIX__PLOT_TICKS];
    int n = mix__plot_ticks(f->x.from, f->x.to, f->x.logarithmic, ticks);
    for (int i = 0; i < n; i++) {
        const double x = across(f, ticks[i]);
        fprintf(out, "<path class=\"grid\" d=\"M%.1f %dV%d\"/>", x, TOP, HEIGHT - BOTTOM);
        fprintf(out, "<text class=\"middle\" x=\"%.1f\" y=\"%d\">%.6g</text>\n", x,
                HEIGHT - BOTTOM + 16, ticks[i]);
    }
    n = mix__plot_ticks(f->y.from, f->y.to, f->y.logarithmic, ticks);
    for (int i = 0; i < n; i++) {
        const double y = down(f, ticks[i]);
        fprintf(out, "<path class=\"grid\" d=\"M%d %.1fH%d\"/>", LEFT, y, WIDTH - RIGHT);
        fprintf(out, "<text class=\"end\" x=\"%d\" y=\"%.1f\">%.6g</text>\n", LEFT - 6, y + 4,
                ticks[i]);
    }
    fprintf(out, "<text class=\"middle\" x=\"%d\" y=\"%d\">", (LEFT + WIDTH - RIGHT) / 2,
            HEIGHT - 8);
    mix__plot_text(out, plot->x.label);
    fprintf(out, "</text><text x=\"4\" y=\"14\">");
    mix__plot_text(out, plot->y.label);
    fprintf(out, "</text>\n");
}

static void draw_line(FILE *out, const struct frame *f, const struct mix__plot_series *s)
{
    bool joined = false;
    fprintf(out, "<path class=\"%s\" stroke=\"%s\" d=\"M%d %d", s->faint ? "faint" : "line",
            mix__plot_color(s->color), LEFT, TOP);
    for (size_t i = 0; i < s->n; i++) {
        const struct mix__plot_point *p = &s->points[i];
        const bool here = drawn(&f->x, &f->y, p);
        const bool alone = !joined && (i + 1 == s->n || !drawn(&f->x, &f->y, p + 1));
        if (here && alone) /* a short dash */
            fprintf(out, "M%.1f %.1fh6", across(f, p->x) - 3, down(f, p->y));
        else if (here)
            fprintf(out, "%c%.1f %.1f", joined ? 'L' : 'M', across(f, p->x), down(f, p->y));
        joined = here;
    }
    fprintf(out, "\"/>\n");
}

static void draw_points(FILE *out, const struct mix__plot *plot, const struct frame *f,
                        const struct mix__plot_series *s)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct mix__plot_point *p = &s->points[i];
        if (!drawn(&f->x, &f->y, p))
            continue;
        const double x = across(f, p->x), y = down(f, p->y);
        fprintf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%s\" fill=\"%s\"><title>", x, y,
                s->named ? "5" : "2.2", mix__plot_color(s->color));
        mix__plot_text(out, s->name);
        fprintf(out, "%s", *p->note ? ", " : "");
        mix__plot_text(out, p->note);
        fprintf(out, ": ");
        mix__plot_text(out, plot->x.label);
        fprintf(out, " %.6g, ", p->x);
        mix__plot_text(out, plot->y.label);
        fprintf(out, " %.6g</title></circle>\n", p->y);
    }
}

/* A name beside its point, on the side that has more room. */
struct label {
    double x, y; /* of the point; y: then of the text's row */
    double from, to;
    const char *name;
};

static int by_height(const void *a, const void *b)
{
    const struct label *const *p = a, *const *q = b;
    return ((*p)->y > (*q)->y) - ((*p)->y < (*q)->y);
}

static bool covers(const struct label *a, const struct label *b)
{
    return a->from < b->to && b->from < a->to && fabs(a->y - b->y) < LINE - 0.5;
}

/* The highest point's first; below those that are in its way. */
static void place_labels(struct label **labels, size_t n)
{
    qsort(labels, n, sizeof *labels, by_height);
    for (size_t i = 1; i < n; i++)
        for (size_t k = 0; k < i;) {
            const bool free_there = !covers(labels[i], labels[k]);
            if (!free_there)
                labels[i]->y = labels[k]->y + LINE;
            k = free_there ? k + 1 : 0;
        }
}

static void draw_labels(FILE *out, const struct mix__plot *plot, const struct frame *f)
{
    struct label labels[MIX_REPORT_RUNS], *order[MIX_REPORT_RUNS];
    size_t n = 0;
    for (size_t s = 0; s < plot->n; s++) {
        const struct mix__plot_series *series = &plot->series[s];
        for (size_t i = 0; i < series->n && series->named && n < MIX_REPORT_RUNS; i++) {
            if (!drawn(&f->x, &f->y, &series->points[i]))
                continue;
            const double x = across(f, series->points[i].x);
            const double width = CHARACTER * (double)strlen(series->name);
            const bool right = x > (LEFT + WIDTH) / 2;
            labels[n] = (struct label){ .x = x,
                                        .y = down(f, series->points[i].y),
                                        .from = right ? x - GAP - width : x + GAP,
                                        .to = right ? x - GAP : x + GAP + width,
                                        .name = series->name };
            order[n] = &labels[n];
            n++;
        }
    }
    place_labels(order, n);
    for (size_t i = 0; i < n; i++) {
        const bool right = labels[i].to < labels[i].x;
        fprintf(out, "<text%s x=\"%.1f\" y=\"%.1f\">", right ? " class=\"end\"" : "",
                right ? labels[i].to : labels[i].from, labels[i].y + 4);
        mix__plot_text(out, labels[i].name);
        fprintf(out, "</text>\n");
    }
}

static void begin(FILE *out, int width, int height, const char *title)
{
    fprintf(out, "<figure><figcaption>");
    mix__plot_text(out, title);
    fprintf(out,
            "</figcaption><svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"",
            width, height, width, height);
    mix__plot_text(out, title);
    fprintf(out, "\">\n");
}

static void end(FILE *out)
{
    fprintf(out, "</svg></figure>\n");
}

void mix__plot_draw(FILE *out, const struct mix__plot *plot)
{
    const struct frame f = fit(plot);
    begin(out, WIDTH, HEIGHT, plot->title);
    draw_axes(out, plot, &f);
    for (size_t s = 0; s < plot->n; s++)
        if (!plot->series[s].named)
            draw_line(out, &f, &plot->series[s]);
    for (size_t s = 0; s < plot->n; s++)
        if (!plot->series[s].faint)
            draw_points(out, plot, &f, &plot->series[s]);
    draw_labels(out, plot, &f);
    end(out);
}

/* ---- bits ----------------------------------------------------------------------------------- */

enum { BAR = 16, BAR_GAP = 3, ROW = 104, ROW_HEAD = 20, BIT = 10, NAME_MOST = 26 };

/* The end of a long name says more than its beginning; UTF-8 is cut between characters. */
static const char *name_end(const char *name)
{
    const size_t length = strlen(name);
    if (length <= NAME_MOST)
        return name;
    for (name += length - NAME_MOST; ((unsigned char)*name & 0xc0) == 0x80; name++)
        ;
    return name;
}

/* Bits above 8, of a float layer, are as high as 8. */
static int bits_height(int bits)
{
    return BIT * (bits > 8 ? 8 : bits < 0 ? 0 : bits);
}

static void draw_bar(FILE *out, const char *layer, const struct mix__plot_bits *row, size_t l,
                     int floor)
{
    const int x = LEFT + BAR * (int)l, high = bits_height(row->activation[l]);
    if (row->activation[l] <= 0)
        return;
    fprintf(out, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\"><title>", x,
            floor - high, BAR - BAR_GAP, high, mix__plot_color(row->color));
    mix__plot_text(out, layer);
    fprintf(out, ": activations %d bits, weights %d</title></rect>", row->activation[l],
            row->weight[l]);
    fprintf(out, "<path class=\"weight\" d=\"M%d %dh%d\"/>\n", x - 1,
            floor - bits_height(row->weight[l]), BAR - BAR_GAP + 2);
}

static void draw_row(FILE *out, const char *const *layers, size_t n_layers,
                     const struct mix__plot_bits *row, int floor)
{
    const int right = LEFT + BAR * (int)n_layers;
    for (int bits = 0; bits <= 8; bits += 2) {
        fprintf(out, "<path class=\"grid\" d=\"M%d %dH%d\"/>", LEFT, floor - BIT * bits, right);
        fprintf(out, "<text class=\"end\" x=\"%d\" y=\"%d\">%d</text>\n", LEFT - 6,
                floor - BIT * bits + 4, bits);
    }
    fprintf(out, "<text x=\"%d\" y=\"%d\">", LEFT, floor - 8 * BIT - 8);
    mix__plot_text(out, row->name);
    fprintf(out, "</text>\n");
    for (size_t l = 0; l < n_layers; l++)
        draw_bar(out, layers[l], row, l, floor);
}

void mix__plot_draw_bits(FILE *out, const char *const *layers, size_t n_layers,
                         const struct mix__plot_bits *rows, size_t n_rows)
{
    static const char title[] = "Bits of every layer: input activations as bars, weights as lines";
    const int height = (ROW + ROW_HEAD) * (int)n_rows;
    size_t longest = 0;
    for (size_t l = 0; l < n_layers; l++)
        longest = longest < strlen(layers[l]) ? strlen(layers[l]) : longest;
    begin(out, LEFT + BAR * (int)n_layers + RIGHT,
          height + CHARACTER * (int)(longest < NAME_MOST ? longest : NAME_MOST + 1), title);
    for (size_t r = 0; r < n_rows; r++)
        draw_row(out, layers, n_layers, &rows[r], (ROW + ROW_HEAD) * ((int)r + 1) - ROW_HEAD / 2);
    for (size_t l = 0; l < n_layers; l++) {
        const char *name = name_end(layers[l]);
        fprintf(out, "<text class=\"layer\" transform=\"translate(%d %d) rotate(-90)\">%s",
                LEFT + BAR * (int)l + 10, height, name == layers[l] ? "" : "&#8230;");
        mix__plot_text(out, name);
        fprintf(out, "</text>\n");
    }
    end(out);
}
