/* progress.c - a line is a list of fields; those that do not fit are left out. */
#include "progress.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "table.h"

enum { BAR_MIN = 8, BAR_MAX = 30, LINE_MAX_BYTES = 512 };

struct line {
    char *text;
    size_t used, room; /* room: characters that may be used, the final zero byte not counted */
};

static void field(struct line *l, const char *format, ...) MIX_PRINTF(2, 3);
static void field(struct line *l, const char *format, ...)
{
    char text[LINE_MAX_BYTES];
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n < 0 || n >= (int)sizeof text || l->used + n > l->room)
        return;
    memcpy(l->text + l->used, text, n + 1);
    l->used += n;
}

static void number(struct line *l, const char *format, double value)
{
    char text[64];
    if (!isfinite(value))
        return;
    snprintf(text, sizeof text, format, value);
    field(l, "%s", text);
}

static void time_left(struct line *l, double seconds)
{
    if (isfinite(seconds) && seconds >= 0)
        field(l, " %s left", cell_time(seconds).text);
}

static void head(struct line *l, const mix_progress *now)
{
    field(l, "%s", now->phase);
    if (now->epochs > 0)
        field(l, " %d/%d", now->epoch + 1, now->epochs);
}

void progress_line(char *text, size_t size, int width, const mix_progress *now)
{
    char rest[LINE_MAX_BYTES] = "";
    struct line l = { text, 0, (size_t)width < size ? (size_t)width : size - 1 };
    text[0] = 0;
    head(&l, now);
    const size_t least = now->steps > 0 ? BAR_MIN + 3 : 0; /* " [########]" */
    if (l.used + least > l.room)
        return;
    struct line r = { rest, 0, l.room - l.used - least };
    if (r.room >= sizeof rest)
        r.room = sizeof rest - 1;
    number(&r, " loss %.3f", now->loss);
    number(&r, " top-1 %.1f%%", now->top1);
    time_left(&r, now->seconds_left);
    if (isfinite(now->gbops))
        field(&r, " %s GBOPs", cell_gbops(now->gbops).text);
    number(&r, " %.0f img/s", now->images_per_second);
    if (least) {
        const size_t left = l.room - l.used - r.used - 3;
        const int cells = left < BAR_MAX ? (int)left : BAR_MAX;
        const double part = (double)now->step / (double)now->steps;
        const int full = (int)((part < 0 ? 0 : part > 1 ? 1 : part) * cells);
        char bar[BAR_MAX + 1];
        memset(bar, '#', full);
        memset(bar + full, '-', cells - full);
        field(&l, " [%.*s]", cells, bar);
    }
    field(&l, "%s", rest);
}

/* A line that stays: after an epoch with its validation figures, or from the middle of one. */
static void plain_line(const mix_progress *now)
{
    char text[LINE_MAX_BYTES] = "";
    struct line l = { text, 0, sizeof text - 1 };
    head(&l, now);
    if (!now->epoch_done && now->steps > 0)
        field(&l, " step %lld/%lld", (long long)now->step, (long long)now->steps);
    number(&l, ": loss %.4f", now->loss);
    number(&l, ", top-1 %.2f%%", now->top1);
    if (now->epoch_done) {
        number(&l, "; validation loss %.4f", now->val_loss);
        number(&l, ", top-1 %.2f%%", now->val_top1);
        number(&l, ", top-5 %.2f%%", now->val_top5);
    }
    if (isfinite(now->gbops))
        field(&l, "; %s GBOPs", cell_gbops(now->gbops).text);
    number(&l, "; %.0f images/s", now->images_per_second);
    if (now->data_wait >= 0.005)
        number(&l, ", %.0f%% waiting for data", 100 * now->data_wait);
    if (isfinite(now->seconds_left) && now->seconds_left > 0)
        field(&l, ";");
    time_left(&l, now->seconds_left > 0 ? now->seconds_left : NAN);
    fprintf(stderr, "%s\n", text);
}

double clock_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int terminal_width(void)
{
    struct winsize w;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

void progress_begin(struct progress *p, bool quiet)
{
    *p = (struct progress){ .quiet = quiet, .last = clock_seconds() };
    p->terminal = isatty(STDERR_FILENO);
}

void progress_clear(struct progress *p)
{
    if (p->drawn)
        fputs("\r\033[K", stderr);
    p->drawn = false;
}

void progress_show(struct progress *p, const mix_progress *now)
{
    const double t = clock_seconds();
    if (p->quiet)
        return;
    if (now->epoch_done) {
        progress_clear(p);
        plain_line(now);
    } else if (t - p->last < (p->terminal ? 0.1 : 30)) {
        return;
    } else if (p->terminal) {
        char text[LINE_MAX_BYTES];
        /* The last column stays free: some terminals wrap once it is written. */
        progress_line(text, sizeof text, terminal_width() - 1, now);
        fprintf(stderr, "\r%s\033[K", text);
        p->drawn = true;
    } else {
        plain_line(now);
    }
    fflush(stderr);
    p->last = t;
}
