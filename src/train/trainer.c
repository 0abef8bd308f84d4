/*
 * train/trainer.c - the loop over phases, epochs and steps; phase.c has what steps are made of.
 */
#include "train/trainer.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/clock.h"

void mix__trainer_plan(struct mix__trainer *t)
{
    const int64_t per_epoch = mix__batches_per_epoch(t->batches);
    int first_epoch = 0, n = 0;
    for (int i = 0; i < t->n_phases; i++) {
        struct mix__phase p = t->phases[i];
        /* the tolerance keeps 0.3 * 10 from becoming 4 steps */
        p.steps = (int64_t)ceil(p.share * (double)per_epoch - 1e-6);
        p.warmup_steps = (int64_t)ceil(p.warmup * (double)per_epoch - 1e-6);
        p.epochs = (int)((p.steps + per_epoch - 1) / per_epoch);
        p.first_epoch = first_epoch;
        first_epoch += p.epochs;
        if (p.steps > 0 || p.leave)
            t->phases[n++] = p;
    }
    t->n_phases = n;
}

static int64_t epoch_steps(const struct mix__trainer *t, const struct mix__phase *p, int64_t epoch)
{
    const int64_t per_epoch = mix__batches_per_epoch(t->batches);
    const int64_t left = p->steps - epoch * per_epoch;
    return left < per_epoch ? left : per_epoch;
}

static double rate(const struct mix__trainer *t, const struct mix__phase *p, int64_t step)
{
    const int64_t at = t->point.epoch * mix__batches_per_epoch(t->batches) + step;
    return p->constant ? p->lr : mix__schedule_cosine(p->lr, at, p->warmup_steps, p->steps);
}

/* Is the current epoch one after which the phase evaluates? */
static bool judges(const struct mix__trainer *t, const struct mix__phase *p)
{
    const int64_t done = t->point.epoch + 1;
    return p->evaluate && (done % t->settings->val_interval == 0 || done == p->epochs);
}

/* ---- time ---- */

/* Books the time since the last call on the current phase. */
static void book_time(struct mix__trainer *t)
{
    const double now = mix__clock(), waited = mix__batches_waited(t->batches);
    t->point.seconds[t->point.phase] += now - t->marked;
    t->point.waited += waited - t->waited;
    t->waited = waited;
    t->marked = now;
}

static void report(struct mix__trainer *t, const struct mix__phase *p, bool epoch_done)
{
    if (!t->observer || !t->observer->progress)
        return;
    const struct mix__point *at = &t->point;
    const double images = at->images ? (double)at->images : NAN;
    const double speed = (double)t->train_images / t->train_seconds;
    const int64_t done = at->epoch * mix__batches_per_epoch(t->batches) + at->step;
    const bool judged = epoch_done && judges(t, p);
    const int64_t epochs_left = p->epochs - at->epoch - epoch_done;
    const int64_t interval = t->settings->val_interval;
    const mix_progress progress = {
        .phase = p->name,
        .epoch = (int)at->epoch,
        .epochs = p->epochs,
        .step = at->step,
        .steps = epoch_steps(t, p, at->epoch),
        .loss = at->loss / images,
        .top1 = 100.0 * (double)at->top1 / images,
        .gbops = t->gbops,
        .images_per_second = speed,
        .seconds_left = (double)(p->steps - done) * mix__engine_batch(t->engine) / speed +
                        (double)((epochs_left + interval - 1) / interval) * t->judge_seconds,
        .data_wait = t->train_wait / t->train_seconds,
        .epoch_done = epoch_done,
        .val_top1 = judged ? at->last.top1 : NAN,
        .val_top5 = judged ? at->last.top5 : NAN,
        .val_loss = judged ? at->last.loss : NAN,
    };
    t->observer->progress(t->observer->user, &progress);
}

/* Nothing was timed in a phase without steps of its own, or stopped before the first. Measuring the
 * floors is no time of the phase's. */
static mix_status tell_profile(struct mix__trainer *t, const struct mix__phase *p)
{
    mix_profile profile;
    if (!t->profiler || t->profiler->steps == 0)
        return MIX_OK;
    book_time(t);
    MIX_TRY(mix__profiler_report(t->profiler, p->name, &profile));
    t->observer->profile(t->observer->user, &profile);
    t->marked = mix__clock();
    return MIX_OK;
}

/* ---- saving ---- */

static mix_status save(struct mix__trainer *t, const char *phase)
{
    const struct mix__checkpoint_content content = { .phase = phase,
                                                     .bits = t->bits,
                                                     .point = &t->point,
                                                     .optimizer = &t->optimizer,
                                                     .alpha_optimizer = &t->alpha_optimizer,
                                                     .average = &t->average,
                                                     .images = mix__batches_images(t->batches) };
    MIX_TRY(mix__checkpoint_save(t->state, t->folder.last, &content));
    t->saved = mix__clock();
    return MIX_OK;
}

mix_status mix__trainer_save_best(struct mix__trainer *t, const char *phase)
{
    const struct mix__checkpoint_content content = { .phase = phase, .bits = t->bits };
    return mix__checkpoint_save(t->state, t->folder.best, &content);
}

static mix_status stop(struct mix__trainer *t, const struct mix__phase *p)
{
    book_time(t);
    MIX_TRY(save(t, p->name));
    MIX_TRY(tell_profile(t, p));
    return mix__fail(t->ctx, MIX_ESTOPPED,
                     "stopped in phase %s, epoch %lld, step %lld; saved in %s: the same command "
                     "goes on from there",
                     p->name, (long long)t->point.epoch + 1, (long long)t->point.step,
                     t->folder.last);
}

static mix_status log_epoch(struct mix__trainer *t, const struct mix__phase *p, double seconds)
{
    const struct mix__point *at = &t->point;
    const mix_accuracy unknown = { .top1 = NAN, .top5 = NAN, .loss = NAN };
    const mix_accuracy *val = judges(t, p) ? &at->last : &unknown;
    const double images = (double)at->images;
    t->point.log_lines++;
    return mix__run_log_append(
        &t->folder,
        json_pack("{s:s, s:I, s:I, s:o, s:o, s:f, s:o, s:o, s:o, s:o, s:f}", "phase", p->name,
                  "epoch", (json_int_t)at->epoch, "steps", (json_int_t)at->step, "loss",
                  mix__json_real(at->loss / images), "top1",
                  mix__json_real(100.0 * (double)at->top1 / images), "lr", rate(t, p, at->step - 1),
                  "gbops", mix__json_real(t->gbops), "val_top1", mix__json_real(val->top1),
                  "val_top5", mix__json_real(val->top5), "val_loss", mix__json_real(val->loss),
                  "seconds", seconds));
}

/* ---- the loop ---- */

static mix_status make_step(struct mix__trainer *t, const struct mix__phase *p)
{
    struct mix__batch batch;
    struct mix__loss loss = { .loss = NAN };
    const int64_t per_epoch = mix__batches_per_epoch(t->batches);
    const double began = mix__clock(), before = mix__batches_waited(t->batches);
    mix__profiler_begin(t->profiler);
    MIX_TRY(mix__batches_next(t->batches, &batch));
    assert(batch.count == mix__engine_batch(t->engine));
    mix__engine_feed(t->engine, &batch);
    MIX_TRY(mix__trainer_teach(t, &batch));
    t->lr = rate(t, p, t->point.step);
    t->counter = (p->first_epoch + t->point.epoch) * per_epoch + t->point.step;
    MIX_TRY(p->step(t, p, batch.labels, &loss));
    if (p->evaluate)
        mix__average_add(&t->average, t->state, t->point.epoch * per_epoch + t->point.step);
    t->point.loss += loss.loss * batch.count;
    t->point.top1 += loss.top1;
    t->point.images += batch.count;
    t->point.step++;
    t->train_images += batch.count;
    const double passed = mix__clock() - began, waited = mix__batches_waited(t->batches) - before;
    t->train_seconds += passed;
    t->train_wait += waited;
    if (t->profiler)
        t->profiler->waited += waited;
    mix__profiler_end(t->profiler, passed);
    book_time(t);
    return MIX_OK;
}

/* Adds the place to the sentence of a numeric failure. */
static mix_status locate(struct mix__trainer *t, const struct mix__phase *p, mix_status status)
{
    if (status != MIX_ENUMERIC)
        return status;
    return mix__fail(t->ctx, MIX_ENUMERIC,
                     "phase %s, epoch %lld, step %lld: %s; try a learning rate below %g", p->name,
                     (long long)t->point.epoch + 1, (long long)t->point.step + 1,
                     mix_ctx_error(t->ctx), p->lr);
}

mix_status mix__trainer_judge(struct mix__trainer *t, const struct mix__phase *p,
                              mix_accuracy *accuracy)
{
    const double began = mix__clock();
    const int64_t last = t->point.epoch < p->epochs ? t->point.epoch : p->epochs - 1;
    if (t->settings->bn_batches > 0 && !p->fixed_stats) {
        /* the first batches of the epoch that was just trained on */
        MIX_TRY(mix__batches_seek(t->batches, p->first_epoch + (int)last, 0));
        MIX_TRY(mix__restat(t->engine, t->batches, t->settings->bn_batches));
    }
    MIX_TRY(mix__evaluate(t->judge, t->validation, t->observer, accuracy));
    if (!isfinite(accuracy->loss))
        return mix__fail(t->ctx, MIX_ENUMERIC, "the validation loss is %g", accuracy->loss);
    t->judge_seconds = mix__clock() - began;
    return MIX_OK;
}

static mix_status judge_and_keep(struct mix__trainer *t, const struct mix__phase *p)
{
    struct mix__point *at = &t->point;
    MIX_TRY(mix__trainer_judge(t, p, &at->last));
    if (at->best.images > 0 && at->last.top1 <= at->best.top1)
        return MIX_OK;
    at->best = at->last;
    return mix__trainer_save_best(t, p->name);
}

/* What is evaluated and kept is the average, and the phase ends with it. */
static mix_status judge_epoch(struct mix__trainer *t, const struct mix__phase *p)
{
    mix__average_swap(&t->average, t->state);
    const mix_status status = judge_and_keep(t, p);
    if (status != MIX_OK || t->point.epoch < p->epochs - 1)
        mix__average_swap(&t->average, t->state);
    return status == MIX_ESTOPPED ? stop(t, p) : locate(t, p, status);
}

static mix_status finish_epoch(struct mix__trainer *t, const struct mix__phase *p, double began)
{
    struct mix__point *at = &t->point;
    if (judges(t, p))
        MIX_TRY(judge_epoch(t, p));
    book_time(t);
    MIX_TRY(log_epoch(t, p, mix__clock() - began));
    report(t, p, true);
    at->epoch++;
    at->step = at->images = at->top1 = 0;
    at->loss = 0.0;
    return save(t, p->name);
}

static mix_status run_epoch(struct mix__trainer *t, const struct mix__phase *p)
{
    struct mix__point *at = &t->point;
    const mix_observer *o = t->observer;
    const double began = mix__clock(), between = 60.0 * t->settings->checkpoint_minutes;
    const int64_t steps = epoch_steps(t, p, at->epoch);
    if (at->step < steps) /* else it was stopped in the evaluation */
        MIX_TRY(mix__batches_seek(t->batches, p->first_epoch + (int)at->epoch, at->step));
    while (at->step < steps) {
        const mix_status status = make_step(t, p);
        if (status != MIX_OK)
            return locate(t, p, status);
        report(t, p, false);
        if (o && o->stop && o->stop(o->user))
            return stop(t, p);
        if (mix__clock() - t->saved >= between)
            MIX_TRY(save(t, p->name));
    }
    return finish_epoch(t, p, began);
}

static mix_status check_point(struct mix__trainer *t)
{
    const struct mix__point *at = &t->point;
    if (at->phase == t->n_phases && at->epoch == 0 && at->step == 0)
        return MIX_OK;
    if (at->phase < t->n_phases) {
        const struct mix__phase *p = &t->phases[at->phase];
        if (at->epoch <= p->epochs &&
            at->step <= (at->epoch < p->epochs ? epoch_steps(t, p, at->epoch) : 0))
            return MIX_OK;
    }
    return mix__fail(t->ctx, MIX_EFORMAT,
                     "%s: phase %lld, epoch %lld, step %lld is not in this run: has the data set "
                     "changed?",
                     t->folder.last, (long long)at->phase, (long long)at->epoch,
                     (long long)at->step);
}

static mix_status run_phase(struct mix__trainer *t, const struct mix__phase *p)
{
    struct mix__point *at = &t->point;
    const bool fresh = at->epoch == 0 && at->step == 0;
    t->gbops = NAN;
    t->train_seconds = t->train_wait = t->judge_seconds = 0.0;
    t->train_images = 0;
    if (fresh)
        at->last = (mix_accuracy){ 0 };
    if (fresh && !p->goes_on)
        at->best = at->last;
    MIX_TRY(p->enter(t, p, fresh));
    while (at->epoch < p->epochs)
        MIX_TRY(run_epoch(t, p));
    MIX_TRY(tell_profile(t, p));
    if (p->leave) {
        const mix_status status = p->leave(t, p);
        if (status != MIX_OK)
            return status == MIX_ESTOPPED ? stop(t, p) : locate(t, p, status);
    }
    book_time(t);
    at->phase++;
    at->epoch = 0;
    return p->leave ? save(t, p->name) : MIX_OK;
}

mix_status mix__trainer_run(struct mix__trainer *t)
{
    MIX_TRY(check_point(t));
    if (t->observer && t->observer->profile)
        MIX_TRY(mix__profiler_new(&t->profiler, t->engine));
    t->marked = t->saved = mix__clock();
    while (t->point.phase < t->n_phases)
        MIX_TRY(run_phase(t, &t->phases[t->point.phase]));
    return MIX_OK;
}

void mix__trainer_release(struct mix__trainer *t)
{
    mix__profiler_free(t->profiler);
    mix__batches_free(t->batches);
    mix__batches_free(t->validation);
    mix__engine_free(t->engine);
    mix__engine_free(t->judge);
    mix__engine_free(t->teacher);
    mix__state_free(t->teacher_state);
    mix__state_free(t->state);
    mix__optimizer_release(&t->optimizer);
    mix__optimizer_release(&t->alpha_optimizer);
    mix__average_release(&t->average);
    mix__free(t->ctx, t->ranges);
    mix__free(t->ctx, t->bits);
    mix__free(t->ctx, t->dlogits);
    mix__run_folder_release(&t->folder);
}
