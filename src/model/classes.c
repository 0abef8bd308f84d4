/*
 * model/classes.c - the names of a graph's classes, as one block of text.
 */
#include <string.h>

#include "model/graph.h"

static bool between(unsigned char byte, unsigned char low, unsigned char high)
{
    return byte >= low && byte <= high;
}

/* Bytes of the UTF-8 character that text begins with (Unicode 15, table 3-7); 0: there is none, or
 * it is a control character. */
static size_t character(const char *text)
{
    const unsigned char *t = (const unsigned char *)text;
    const unsigned char low = t[0] == 0xe0 ? 0xa0 : t[0] == 0xf0 ? 0x90 : 0x80;
    const unsigned char high = t[0] == 0xed ? 0x9f : t[0] == 0xf4 ? 0x8f : 0xbf;
    const size_t n = between(t[0], 0x20, 0x7e)   ? 1
                     : between(t[0], 0xc2, 0xdf) ? 2
                     : between(t[0], 0xe0, 0xef) ? 3
                     : between(t[0], 0xf0, 0xf4) ? 4
                                                 : 0;
    if (n > 1 && !between(t[1], low, high))
        return 0;
    for (size_t i = 2; i < n; i++)
        if (!between(t[i], 0x80, 0xbf))
            return 0;
    return n;
}

static char *copy_text(char *to, const char *name)
{
    while (*name) {
        const size_t n = character(name);
        for (size_t i = 0; i < n; i++)
            *to++ = *name++;
        if (n > 0)
            continue;
        *to++ = '?';
        name++;
    }
    *to++ = '\0';
    return to;
}

mix_status mix__graph_name_classes(mix_graph *g, mix__class_name *name, const void *of)
{
    const int classes = g->tensors[g->output].c;
    size_t bytes = 0;
    for (int i = 0; i < classes; i++)
        bytes += strlen(name(of, i)) + 1;
    char *names = mix__alloc(g->ctx, bytes, 1), *at = names;
    if (!names)
        return MIX_ENOMEM;
    for (int i = 0; i < classes; i++)
        at = copy_text(at, name(of, i));
    mix__free(g->ctx, g->class_names);
    g->class_names = names;
    g->class_names_bytes = bytes;
    return MIX_OK;
}
