/*
 * search/phases.c - the phases of bit selection, as settings->search names them.
 */
#include <math.h>
#include <string.h>

#include "search/search.h"

/* Training batches that measure what a layer's bits do to the loss. */
enum { GREEDY_BATCHES = 8 };

static double share_of(const struct mix__trainer *t, double batches)
{
    const double per_epoch = (double)mix__batches_per_epoch(t->batches);
    return fmin(batches, per_epoch) / per_epoch;
}

/* Selection is the end of the last phase. */
void mix__phases_select(struct mix__trainer *t)
{
    const mix_settings *s = t->settings;
    struct mix__phase phase = { .name = s->search,
                                .lr = s->meta_lr,
                                .constant = true,
                                .weight_decay = s->meta_weight_decay,
                                .enter = mix__search_enter,
                                .leave = mix__search_leave };
    if (strcmp(s->search, "joint") == 0) {
        phase.share = s->meta_warmup_epochs + s->search_epochs;
        phase.step = mix__joint_step;
    } else if (strcmp(s->search, "greedy") == 0) {
        phase.share = share_of(t, GREEDY_BATCHES);
        phase.enter = mix__greedy_enter;
        phase.step = mix__greedy_step;
    } else if (strcmp(s->search, "random") == 0) {
        phase.share = share_of(t, 1);
        phase.enter = mix__random_enter;
        phase.step = mix__random_step;
    } else {
        struct mix__phase meta = phase;
        meta.name = "bit-meta";
        meta.share = s->meta_warmup_epochs;
        meta.enter = mix__meta_enter;
        meta.step = mix__meta_step;
        meta.leave = NULL;
        mix__trainer_add(t, &meta);
        phase.name = "bit-search";
        phase.share = s->search_epochs;
        phase.step = strcmp(s->search, "unfixed") == 0 ? mix__unfixed_step : mix__search_step;
    }
    mix__trainer_add(t, &phase);
}
