/*
 * train/run_json.h - reading and writing one small JSON file: a run folder's, a recipe.
 */
#ifndef METAMIX_TRAIN_RUN_JSON_H
#define METAMIX_TRAIN_RUN_JSON_H

#include "train/run_folder.h"

/* Errors: MIX_EIO; MIX_EFORMAT with line and column. */
mix_status mix__run_json_read(mix_ctx *ctx, const char *path, json_t **out) MIX_CHECKED;
/* Atomically. Takes json, NULL meaning that making it ran out of memory. */
mix_status mix__run_json_write(struct mix__run_folder *folder, const char *path,
                               json_t *json) MIX_CHECKED;

/* The member's number; NAN where object is none or has no such number. */
double mix__json_real_of(const json_t *object, const char *key);

#endif
