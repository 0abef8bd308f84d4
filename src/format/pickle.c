/*
 * format/pickle.c - a pickle is a program for a stack machine with a memo; its opcodes are in
 * pickle_machine.c.
 */
#include "format/pickle_machine.h"

#include <assert.h>
#include <string.h>

/* Up to STOP, which must leave one value. */
static mix_status run(struct mix__pickle *p)
{
    const char *code;
    const uint32_t *root;
    for (;;) {
        p->op = p->at;
        MIX_TRY(mix__pickle_take(p, 1, &code));
        if (*code == '.')
            break;
        MIX_TRY(mix__pickle_step(p, (unsigned char)*code));
    }
    MIX_TRY(mix__pickle_pop(p, 1, &root));
    if (p->n_stack != 0)
        return mix__pickle_bad(p, "ends with more than one value on the stack");
    p->stack[p->n_stack++] = *root;
    return MIX_OK;
}

/* The byte behind a text is an opcode that has been run. */
static void end_texts(struct mix__pickle *p)
{
    for (size_t i = 0; i < p->n_values; i++) {
        const struct mix__pickle_value *v = &p->values[i];
        if (v->kind == MIX__PICKLE_TEXT)
            p->source.bytes[v->text.bytes - p->source.bytes + v->text.length] = '\0';
    }
}

mix_status mix__pickle_load(struct mix__pickle **out, mix_ctx *ctx,
                            const struct mix__pickle_source *source)
{
    assert(source->begin <= source->end);
    *out = NULL;
    struct mix__pickle *p = mix__zalloc(ctx, 1, sizeof *p);
    if (!p)
        return MIX_ENOMEM;
    p->ctx = ctx;
    p->source = *source;
    p->at = p->op = source->begin;
    mix_status status = mix__pickle_room(p, &p->cells, 0, &p->cap_cells, sizeof *p->cells);
    p->n_cells = 1;
    if (status == MIX_OK)
        status = run(p);
    if (status != MIX_OK) {
        mix__pickle_free(p);
        return status;
    }
    end_texts(p);
    *out = p;
    return MIX_OK;
}

void mix__pickle_free(struct mix__pickle *p)
{
    if (!p)
        return;
    mix__free(p->ctx, p->values);
    mix__free(p->ctx, p->cells);
    mix__free(p->ctx, p->stack);
    mix__free(p->ctx, p->memo);
    mix__free(p->ctx, p);
}

/* ---- looking at it ---- */

size_t mix__pickle_end(const struct mix__pickle *p)
{
    return p->at;
}

const struct mix__pickle_value *mix__pickle_root(const struct mix__pickle *p)
{
    return &p->values[p->stack[0]];
}

size_t mix__pickle_count(const struct mix__pickle *p)
{
    return p->n_values;
}

const struct mix__pickle_value *mix__pickle_value(const struct mix__pickle *p, uint32_t index)
{
    assert(index < p->n_values);
    return &p->values[index];
}

const struct mix__pickle_value *mix__pickle_next(const struct mix__pickle *p, uint32_t *cell)
{
    if (*cell == 0)
        return NULL;
    const struct mix__pickle_cell *c = &p->cells[*cell];
    *cell = c->next;
    return &p->values[c->value];
}

size_t mix__pickle_unpack(const struct mix__pickle *p, const struct mix__pickle_value *items,
                          const struct mix__pickle_value **out, size_t max)
{
    uint32_t cell = items->items.first;
    for (size_t i = 0; i < max && i < items->items.n; i++)
        out[i] = mix__pickle_next(p, &cell);
    return items->items.n;
}

bool mix__pickle_is(const struct mix__pickle_value *value, const char *text)
{
    return value->kind == MIX__PICKLE_TEXT && strlen(text) == value->text.length &&
           memcmp(text, value->text.bytes, value->text.length) == 0;
}

const struct mix__pickle_value *
mix__pickle_get(const struct mix__pickle *p, const struct mix__pickle_value *dict, const char *key)
{
    const struct mix__pickle_value *k, *v, *found = NULL;
    for (uint32_t cell = dict->items.first; (k = mix__pickle_next(p, &cell));) {
        v = mix__pickle_next(p, &cell);
        if (mix__pickle_is(k, key))
            found = v;
    }
    return found;
}
