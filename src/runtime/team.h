/*
 * runtime/team.h - a fixed number of threads that do the parts of one job at a time.
 */
#ifndef METAMIX_RUNTIME_TEAM_H
#define METAMIX_RUNTIME_TEAM_H

#include "base/ctx.h"

struct mix__team;

typedef void mix__team_work(void *arg, int part, int parts);

/* The calling thread is one of the threads. Errors: MIX_ENOMEM, MIX_EUNSUPPORTED (no thread). */
mix_status mix__team_new(struct mix__team **out, mix_ctx *ctx, int threads) MIX_CHECKED;
void mix__team_free(struct mix__team *team); /* accepts NULL */
int mix__team_size(const struct mix__team *team);

/* Calls work(arg, part, parts) once for each part, side by side in these threads, and waits. */
void mix__team_run(struct mix__team *team, mix__team_work *work, void *arg);

#endif
