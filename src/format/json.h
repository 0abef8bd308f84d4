/*
 * format/json.h - JSON objects (jansson): in a text, and as small files of their own.
 */
#ifndef METAMIX_FORMAT_JSON_H
#define METAMIX_FORMAT_JSON_H

#include <jansson.h>

#include "base/ctx.h"

/* The object that a text of size bytes is, byte `at` of what, which stands in front of errors; what
 * may be NULL. *out is the caller's, for json_decref(); NULL after a failure. Errors: MIX_EFORMAT
 * (no object, a key twice), MIX_ENOMEM. */
mix_status mix__json_parse(mix_ctx *ctx, const char *what, size_t at, const char *text, size_t size,
                           json_t **out) MIX_CHECKED;
/* Of a file of at most 16 MB. Errors: also MIX_EIO. */
mix_status mix__json_load(mix_ctx *ctx, const char *path, json_t **out) MIX_CHECKED;
/* Indented, the file at once or not at all; numbers with so many digits, 17: all of a double. Takes
 * json, NULL meaning that making it ran out of memory. Errors: MIX_EIO, MIX_ENOMEM. */
mix_status mix__json_save(mix_ctx *ctx, const char *path, json_t *json, int digits) MIX_CHECKED;

/* Takes row, NULL meaning that making it ran out of memory. false: list is gone, for want of it. */
bool mix__json_append(json_t *list, json_t *row);
/* A number, or null when it is not finite. */
json_t *mix__json_real(double value);
/* The member's number; NAN where object is none or has no such number. */
double mix__json_real_of(const json_t *object, const char *key);

#endif
