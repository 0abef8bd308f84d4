/*
 * format/pickle.h - Python's pickles as plain data. Nothing is executed: a pickle becomes a tree
 * of values, and a class or function that it names must be in the caller's list and stays a name.
 */
#ifndef METAMIX_FORMAT_PICKLE_H
#define METAMIX_FORMAT_PICKLE_H

#include <stdint.h>

#include "base/ctx.h"

/* A class or function that a pickle may name. */
struct mix__pickle_global {
    const char *module, *name;
    bool dict;   /* a call of it makes a DICT: from nothing, or from a list of pairs */
    int meaning; /* the caller's own                                                 */
};

enum mix__pickle_kind {
    MIX__PICKLE_OTHER, /* None, a float, a whole number beyond 64 bits */
    MIX__PICKLE_INT,   /* also False and True                          */
    MIX__PICKLE_TEXT,  /* also bytes                                   */
    MIX__PICKLE_TUPLE,
    MIX__PICKLE_LIST,
    MIX__PICKLE_DICT,
    MIX__PICKLE_GLOBAL,
    MIX__PICKLE_CALL,      /* of a global that makes no DICT */
    MIX__PICKLE_PERSISTENT /* what a persistent id stands for */
};

struct mix__pickle_value {
    enum mix__pickle_kind kind;
    size_t at; /* the byte of the file from which it was made */
    union {
        int64_t integer;
        struct {
            const char *bytes; /* zero-terminated, with zeros inside where the file has them */
            size_t length;
        } text;
        struct {
            uint32_t first, last, n; /* cells; a DICT has a key and a value for each pair */
        } items;
        const struct mix__pickle_global *global;
        struct {
            uint32_t global, argument; /* values; the argument is a TUPLE */
        } call;
        uint32_t id; /* value */
    };
};

/* Where a pickle lies: bytes[begin, ...), at most up to end, of a file that is held in memory. */
struct mix__pickle_source {
    const char *path;
    char *bytes; /* the byte behind each text becomes zero */
    size_t begin, end;
    const struct mix__pickle_global *globals; /* up to one without a name */
};

struct mix__pickle;
/* Values point into the bytes. Errors: MIX_EFORMAT with the byte (malformed, an opcode or a global
 * that is not allowed, beyond a limit), MIX_ENOMEM. */
mix_status mix__pickle_load(struct mix__pickle **out, mix_ctx *ctx,
                            const struct mix__pickle_source *source) MIX_CHECKED;
void mix__pickle_free(struct mix__pickle *pickle);

size_t mix__pickle_end(const struct mix__pickle *pickle); /* the byte behind it */
const struct mix__pickle_value *mix__pickle_root(const struct mix__pickle *pickle);

/* All values, in the order in which they were made. Containers may hold themselves. */
size_t mix__pickle_count(const struct mix__pickle *pickle);
const struct mix__pickle_value *mix__pickle_value(const struct mix__pickle *pickle, uint32_t index);

/* Items in order: *cell begins as items.first; NULL behind the last. */
const struct mix__pickle_value *mix__pickle_next(const struct mix__pickle *pickle, uint32_t *cell);
/* The first max items; gives how many there are. */
size_t mix__pickle_unpack(const struct mix__pickle *pickle, const struct mix__pickle_value *items,
                          const struct mix__pickle_value **out, size_t max);
/* It is this text. */
bool mix__pickle_is(const struct mix__pickle_value *value, const char *text);
/* The last value of a DICT under this key; NULL: none. */
const struct mix__pickle_value *mix__pickle_get(const struct mix__pickle *pickle,
                                                const struct mix__pickle_value *dict,
                                                const char *key);

#endif
