/*
 * format/pickle_machine.c - the opcodes. No part of this recurses, and a value is never copied.
 */
#include "format/pickle_machine.h"

#include <string.h>

#include "base/bytes.h"

enum { PROTOCOL_MAX = 5 };

#define MARK UINT32_MAX /* on the stack */
#define NONE UINT32_MAX /* in the memo  */

mix_status mix__pickle_bad(const struct mix__pickle *p, const char *what)
{
    return mix__fail(p->ctx, MIX_EFORMAT, "%s: byte %zu: pickle: %s", p->source.path, p->op, what);
}

/* ---- the machine's parts ---- */

mix_status mix__pickle_room(struct mix__pickle *p, void *array, size_t count, size_t *capacity,
                            size_t size)
{
    if (count >= MIX__PICKLE_VALUES_MAX)
        return mix__fail(p->ctx, MIX_EFORMAT, "%s: byte %zu: pickle: more than %d values",
                         p->source.path, p->op, MIX__PICKLE_VALUES_MAX);
    return mix__grow(p->ctx, array, count, capacity, size);
}

mix_status mix__pickle_take(struct mix__pickle *p, uint64_t n, const char **bytes)
{
    *bytes = p->source.bytes + p->at;
    if (n > p->source.end - p->at)
        return mix__pickle_bad(p, "cut off inside an opcode");
    p->at += n;
    return MIX_OK;
}

static mix_status push_index(struct mix__pickle *p, uint32_t index)
{
    MIX_TRY(mix__pickle_room(p, &p->stack, p->n_stack, &p->cap_stack, sizeof *p->stack));
    p->stack[p->n_stack++] = index;
    return MIX_OK;
}

static mix_status push(struct mix__pickle *p, struct mix__pickle_value value)
{
    MIX_TRY(mix__pickle_room(p, &p->values, p->n_values, &p->cap_values, sizeof *p->values));
    value.at = p->op;
    p->values[p->n_values] = value;
    return push_index(p, (uint32_t)p->n_values++);
}

static mix_status push_int(struct mix__pickle *p, int64_t integer)
{
    return push(p, (struct mix__pickle_value){ .kind = MIX__PICKLE_INT, .integer = integer });
}

mix_status mix__pickle_pop(struct mix__pickle *p, size_t n, const uint32_t **first)
{
    *first = p->stack;
    if (p->n_stack < n)
        return mix__pickle_bad(p, "the stack is too short for this opcode");
    if (n == 0) /* the stack may not be there yet */
        return MIX_OK;
    *first = p->stack + p->n_stack - n;
    for (size_t i = 0; i < n; i++)
        if ((*first)[i] == MARK)
            return mix__pickle_bad(p, "a mark lies where a value is expected");
    p->n_stack -= n;
    return MIX_OK;
}

/* How many values lie above the topmost mark. */
static mix_status above_mark(const struct mix__pickle *p, size_t *n)
{
    for (*n = 0; *n < p->n_stack; ++*n)
        if (p->stack[p->n_stack - 1 - *n] == MARK)
            return MIX_OK;
    return mix__pickle_bad(p, "there is no mark on the stack");
}

static mix_status append(struct mix__pickle *p, uint32_t container, uint32_t value)
{
    MIX_TRY(mix__pickle_room(p, &p->cells, p->n_cells, &p->cap_cells, sizeof *p->cells));
    struct mix__pickle_value *c = &p->values[container];
    const uint32_t cell = (uint32_t)p->n_cells++;
    p->cells[cell] = (struct mix__pickle_cell){ .value = value };
    if (c->items.n++ == 0)
        c->items.first = cell;
    else
        p->cells[c->items.last].next = cell;
    c->items.last = cell;
    return MIX_OK;
}

static mix_status append_all(struct mix__pickle *p, uint32_t container, const uint32_t *values,
                             size_t n)
{
    for (size_t i = 0; i < n; i++)
        MIX_TRY(append(p, container, values[i]));
    return MIX_OK;
}

/* ---- opcodes: each has its immediate number, or 0 ---- */

static mix_status do_nothing(struct mix__pickle *p, uint64_t n)
{
    (void)p;
    (void)n;
    return MIX_OK;
}

static mix_status do_protocol(struct mix__pickle *p, uint64_t n)
{
    return n <= PROTOCOL_MAX ? MIX_OK : mix__pickle_bad(p, "of a protocol above 5");
}

static mix_status do_mark(struct mix__pickle *p, uint64_t n)
{
    (void)n;
    return push_index(p, MARK);
}

/* A value without content, of this kind. */
static mix_status do_empty(struct mix__pickle *p, uint64_t kind)
{
    return push(p, (struct mix__pickle_value){ .kind = (enum mix__pickle_kind)kind });
}

static mix_status do_int(struct mix__pickle *p, uint64_t n)
{
    return push_int(p, (int64_t)n);
}

static mix_status do_int32(struct mix__pickle *p, uint64_t n)
{
    return push_int(p, (int32_t)(uint32_t)n);
}

/* n bytes in two's complement. */
static mix_status do_long(struct mix__pickle *p, uint64_t n)
{
    const char *bytes;
    MIX_TRY(mix__pickle_take(p, n, &bytes));
    if (n > 8)
        return do_empty(p, MIX__PICKLE_OTHER);
    uint64_t value = mix__number(bytes, n);
    if (n > 0 && n < 8 && value >> (8 * n - 1))
        value |= UINT64_MAX << 8 * n;
    return push_int(p, (int64_t)value);
}

static mix_status do_float(struct mix__pickle *p, uint64_t n)
{
    (void)n;
    return do_empty(p, MIX__PICKLE_OTHER);
}

static mix_status do_text(struct mix__pickle *p, uint64_t n)
{
    const char *bytes;
    MIX_TRY(mix__pickle_take(p, n, &bytes));
    return push(
        p, (struct mix__pickle_value){ .kind = MIX__PICKLE_TEXT, .text = { bytes, (size_t)n } });
}

/* The tuple takes the place of its first item: what lies there is read before it is written. */
static mix_status make_tuple(struct mix__pickle *p, size_t n, size_t marks)
{
    const uint32_t *first;
    const uint32_t tuple = (uint32_t)p->n_values;
    MIX_TRY(mix__pickle_room(p, &p->values, p->n_values, &p->cap_values, sizeof *p->values));
    p->values[p->n_values++] = (struct mix__pickle_value){ .kind = MIX__PICKLE_TUPLE, .at = p->op };
    MIX_TRY(mix__pickle_pop(p, n, &first));
    MIX_TRY(append_all(p, tuple, first, n));
    p->n_stack -= marks;
    return push_index(p, tuple);
}

static mix_status do_short_tuple(struct mix__pickle *p, uint64_t n)
{
    return make_tuple(p, n, 0);
}

static mix_status do_tuple(struct mix__pickle *p, uint64_t n)
{
    size_t items;
    (void)n;
    MIX_TRY(above_mark(p, &items));
    return make_tuple(p, items, 1);
}

/* Adds the n topmost values to the container below them and marks; an object is only looked at. */
static mix_status fill(struct mix__pickle *p, enum mix__pickle_kind kind, size_t n, size_t marks)
{
    const uint32_t *first, *container;
    MIX_TRY(mix__pickle_pop(p, n, &first));
    p->n_stack -= marks;
    MIX_TRY(mix__pickle_pop(p, 1, &container));
    p->n_stack++; /* it stays */
    const enum mix__pickle_kind found = p->values[*container].kind;
    if (found == kind && (kind != MIX__PICKLE_DICT || n % 2 == 0))
        return append_all(p, *container, first, n);
    return found == MIX__PICKLE_CALL ? MIX_OK
                                     : mix__pickle_bad(p, "items for what is no list or dict");
}

static mix_status do_item(struct mix__pickle *p, uint64_t kind)
{
    return fill(p, (enum mix__pickle_kind)kind, kind == MIX__PICKLE_DICT ? 2 : 1, 0);
}

static mix_status do_items(struct mix__pickle *p, uint64_t kind)
{
    size_t n;
    MIX_TRY(above_mark(p, &n));
    return fill(p, (enum mix__pickle_kind)kind, n, 1);
}

static bool same_text(const char *expected, const char *bytes, size_t n)
{
    return strlen(expected) == n && memcmp(expected, bytes, n) == 0;
}

static mix_status push_global(struct mix__pickle *p, const char *module, size_t n_module,
                              const char *name, size_t n_name)
{
    for (const struct mix__pickle_global *g = p->source.globals; g->name; g++)
        if (same_text(g->module, module, n_module) && same_text(g->name, name, n_name))
            return push(p, (struct mix__pickle_value){ .kind = MIX__PICKLE_GLOBAL, .global = g });
    return mix__fail(p->ctx, MIX_EFORMAT,
                     "%s: byte %zu: the file asks for Python's '%.*s.%.*s', which is not run here; "
                     "expected tensors by name, as torch.save(model.state_dict(), ...) writes",
                     p->source.path, p->op, (int)(n_module < 80 ? n_module : 80), module,
                     (int)(n_name < 80 ? n_name : 80), name);
}

static mix_status take_line(struct mix__pickle *p, const char **line, size_t *n)
{
    const char *begin = p->source.bytes + p->at;
    const char *end = memchr(begin, '\n', p->source.end - p->at);
    *line = begin;
    *n = end ? (size_t)(end - begin) : 0;
    if (!end)
        return mix__pickle_bad(p, "cut off inside a name");
    p->at += *n + 1;
    return MIX_OK;
}

static mix_status do_global(struct mix__pickle *p, uint64_t n)
{
    const char *module, *name;
    size_t n_module, n_name;
    (void)n;
    MIX_TRY(take_line(p, &module, &n_module));
    MIX_TRY(take_line(p, &name, &n_name));
    return push_global(p, module, n_module, name, n_name);
}

static mix_status do_stack_global(struct mix__pickle *p, uint64_t n)
{
    const uint32_t *two;
    (void)n;
    MIX_TRY(mix__pickle_pop(p, 2, &two));
    const struct mix__pickle_value *module = &p->values[two[0]], *name = &p->values[two[1]];
    if (module->kind != MIX__PICKLE_TEXT || name->kind != MIX__PICKLE_TEXT)
        return mix__pickle_bad(p, "a global's name is no text");
    return push_global(p, module->text.bytes, module->text.length, name->text.bytes,
                       name->text.length);
}

/* Pairs of the list that Python 2 gives to OrderedDict; anything else leaves the dict empty. */
static mix_status fill_from_pairs(struct mix__pickle *p, uint32_t dict, uint32_t argument)
{
    const struct mix__pickle_value *list, *pair, *items[2];
    if (mix__pickle_unpack(p, &p->values[argument], &list, 1) != 1 ||
        list->kind != MIX__PICKLE_LIST)
        return MIX_OK;
    for (uint32_t cell = list->items.first; (pair = mix__pickle_next(p, &cell));) {
        const bool listed = pair->kind == MIX__PICKLE_LIST || pair->kind == MIX__PICKLE_TUPLE;
        if (!listed || mix__pickle_unpack(p, pair, items, 2) != 2)
            return mix__pickle_bad(p, "a dict is made of what are no pairs");
        const uint32_t two[] = { (uint32_t)(items[0] - p->values),
                                 (uint32_t)(items[1] - p->values) };
        MIX_TRY(append_all(p, dict, two, 2));
    }
    return MIX_OK;
}

static mix_status do_reduce(struct mix__pickle *p, uint64_t n)
{
    const uint32_t *two;
    (void)n;
    MIX_TRY(mix__pickle_pop(p, 2, &two));
    const uint32_t global = two[0], argument = two[1];
    if (p->values[global].kind != MIX__PICKLE_GLOBAL ||
        p->values[argument].kind != MIX__PICKLE_TUPLE)
        return mix__pickle_bad(p, "expected a call of a global with a tuple");
    if (!p->values[global].global->dict)
        return push(p, (struct mix__pickle_value){ .kind = MIX__PICKLE_CALL,
                                                   .call = { global, argument } });
    MIX_TRY(do_empty(p, MIX__PICKLE_DICT));
    return fill_from_pairs(p, p->stack[p->n_stack - 1], argument);
}

/* An object's attributes: a state dict's _metadata, for one. */
static mix_status do_build(struct mix__pickle *p, uint64_t n)
{
    const uint32_t *state;
    (void)n;
    return mix__pickle_pop(p, 1, &state);
}

static mix_status do_persistent(struct mix__pickle *p, uint64_t n)
{
    const uint32_t *id;
    (void)n;
    MIX_TRY(mix__pickle_pop(p, 1, &id));
    return push(p, (struct mix__pickle_value){ .kind = MIX__PICKLE_PERSISTENT, .id = *id });
}

static mix_status do_put(struct mix__pickle *p, uint64_t n)
{
    const uint32_t *top;
    if (n >= MIX__PICKLE_VALUES_MAX)
        return mix__pickle_bad(p, "a memo number beyond what is read");
    MIX_TRY(mix__pickle_pop(p, 1, &top));
    p->n_stack++; /* it stays */
    while (p->n_memo <= n) {
        MIX_TRY(mix__pickle_room(p, &p->memo, p->n_memo, &p->cap_memo, sizeof *p->memo));
        p->memo[p->n_memo++] = NONE;
    }
    p->memo[n] = *top;
    return MIX_OK;
}

static mix_status do_memoize(struct mix__pickle *p, uint64_t n)
{
    (void)n;
    return do_put(p, p->n_memo);
}

static mix_status do_get(struct mix__pickle *p, uint64_t n)
{
    if (n >= p->n_memo || p->memo[n] == NONE)
        return mix__pickle_bad(p, "nothing is in the memo under this number");
    return push_index(p, p->memo[n]);
}

/* Names as in Python's pickletools. bytes: of the immediate number that follows the opcode and is
 * given to run; without one, fixed is given. */
static const struct opcode {
    unsigned char code, bytes;
    uint64_t fixed;
    mix_status (*run)(struct mix__pickle *p, uint64_t n);
} opcodes[] = {
    { 0x80, 1, 0, do_protocol },             /* PROTO */
    { 0x95, 8, 0, do_nothing },              /* FRAME */
    { '(', 0, 0, do_mark },                  /* MARK */
    { 'N', 0, MIX__PICKLE_OTHER, do_empty }, /* NONE */
    { 'G', 8, 0, do_float },                 /* BINFLOAT */
    { 0x88, 0, 1, do_int },                  /* NEWTRUE */
    { 0x89, 0, 0, do_int },                  /* NEWFALSE */
    { 'K', 1, 0, do_int },                   /* BININT1 */
    { 'M', 2, 0, do_int },                   /* BININT2 */
    { 'J', 4, 0, do_int32 },                 /* BININT */
    { 0x8a, 1, 0, do_long },                 /* LONG1 */
    { 'X', 4, 0, do_text },                  /* BINUNICODE */
    { 0x8c, 1, 0, do_text },                 /* SHORT_BINUNICODE */
    { 0x8d, 8, 0, do_text },                 /* BINUNICODE8 */
    { 'U', 1, 0, do_text },                  /* SHORT_BINSTRING */
    { 'T', 4, 0, do_text },                  /* BINSTRING */
    { 'C', 1, 0, do_text },                  /* SHORT_BINBYTES */
    { 'B', 4, 0, do_text },                  /* BINBYTES */
    { ')', 0, 0, do_short_tuple },           /* EMPTY_TUPLE */
    { 0x85, 0, 1, do_short_tuple },          /* TUPLE1 */
    { 0x86, 0, 2, do_short_tuple },          /* TUPLE2 */
    { 0x87, 0, 3, do_short_tuple },          /* TUPLE3 */
    { 't', 0, 0, do_tuple },                 /* TUPLE */
    { ']', 0, MIX__PICKLE_LIST, do_empty },  /* EMPTY_LIST */
    { 'a', 0, MIX__PICKLE_LIST, do_item },   /* APPEND */
    { 'e', 0, MIX__PICKLE_LIST, do_items },  /* APPENDS */
    { '}', 0, MIX__PICKLE_DICT, do_empty },  /* EMPTY_DICT */
    { 's', 0, MIX__PICKLE_DICT, do_item },   /* SETITEM */
    { 'u', 0, MIX__PICKLE_DICT, do_items },  /* SETITEMS */
    { 'c', 0, 0, do_global },                /* GLOBAL */
    { 0x93, 0, 0, do_stack_global },         /* STACK_GLOBAL */
    { 'R', 0, 0, do_reduce },                /* REDUCE */
    { 0x81, 0, 0, do_reduce },               /* NEWOBJ */
    { 'b', 0, 0, do_build },                 /* BUILD */
    { 'Q', 0, 0, do_persistent },            /* BINPERSID */
    { 'q', 1, 0, do_put },                   /* BINPUT */
    { 'r', 4, 0, do_put },                   /* LONG_BINPUT */
    { 0x94, 0, 0, do_memoize },              /* MEMOIZE */
    { 'h', 1, 0, do_get },                   /* BINGET */
    { 'j', 4, 0, do_get },                   /* LONG_BINGET */
};

mix_status mix__pickle_step(struct mix__pickle *p, unsigned char code)
{
    const char *bytes;
    for (size_t i = 0; i < MIX_COUNT(opcodes); i++) {
        const struct opcode *o = &opcodes[i];
        if (o->code != code)
            continue;
        MIX_TRY(mix__pickle_take(p, o->bytes, &bytes));
        return o->run(p, o->bytes ? mix__number(bytes, o->bytes) : o->fixed);
    }
    return mix__fail(p->ctx, MIX_EFORMAT, "%s: byte %zu: pickle: opcode 0x%02x is not read",
                     p->source.path, p->op, code);
}
