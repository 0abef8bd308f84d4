/*
 * runtime/team.c - workers wait for the job's number to change: a short while awake, since the next
 * operator follows within microseconds, then asleep. Each thread begins with its own part and goes on
 * with those that nobody has begun: where other processes want the cores, a worker that has not got
 * one holds nobody up.
 */
#include "runtime/team.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { SPINS = 2000 };

struct worker {
    struct mix__team *team;
    int part;
    pthread_t thread;
};

struct mix__team {
    mix_ctx *ctx;
    int threads, started;
    struct worker *workers; /* (threads - 1) */
    mix__team_work *work;
    void *arg;
    atomic_uint job;     /* counts jobs            */
    atomic_uint *begun;  /* (threads): the last job whose part this was begun */
    atomic_int working;  /* parts not done yet     */
    atomic_bool closing; /* the last job: go home  */
    pthread_mutex_t lock;
    pthread_cond_t begin, done;
};

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static unsigned next_job(struct mix__team *t, unsigned seen)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&t->job) != seen)
            return atomic_load(&t->job);
        relax();
    }
    pthread_mutex_lock(&t->lock);
    while (atomic_load(&t->job) == seen)
        pthread_cond_wait(&t->begin, &t->lock);
    pthread_mutex_unlock(&t->lock);
    return atomic_load(&t->job);
}

static void part_done(struct mix__team *t)
{
    if (atomic_fetch_sub(&t->working, 1) != 1)
        return;
    pthread_mutex_lock(&t->lock);
    pthread_cond_signal(&t->done);
    pthread_mutex_unlock(&t->lock);
}

/* A late worker finds the parts of its job begun, whatever runs by then. */
static void take_parts(struct mix__team *t, int own, unsigned job)
{
    for (int i = 0; i < t->threads; i++) {
        const int part = (own + i) % t->threads;
        unsigned before = job - 1;
        if (!atomic_compare_exchange_strong(&t->begun[part], &before, job))
            continue;
        t->work(t->arg, part, t->threads);
        part_done(t);
    }
}

static void *worker_main(void *arg)
{
    const struct worker *w = arg;
    struct mix__team *t = w->team;
    unsigned seen = 0;
    for (;;) {
        seen = next_job(t, seen);
        if (atomic_load(&t->closing))
            return NULL;
        take_parts(t, w->part, seen);
    }
}

/* What the workers look at is written before the job's number. */
static unsigned call(struct mix__team *t)
{
    pthread_mutex_lock(&t->lock);
    const unsigned job = atomic_fetch_add(&t->job, 1) + 1;
    pthread_cond_broadcast(&t->begin);
    pthread_mutex_unlock(&t->lock);
    return job;
}

void mix__team_run(struct mix__team *t, mix__team_work *work, void *arg)
{
    if (t->threads == 1) {
        work(arg, 0, 1);
        return;
    }
    t->work = work;
    t->arg = arg;
    atomic_store(&t->working, t->threads);
    take_parts(t, 0, call(t));
    for (int i = 0; i < SPINS && atomic_load(&t->working); i++)
        relax();
    pthread_mutex_lock(&t->lock);
    while (atomic_load(&t->working))
        pthread_cond_wait(&t->done, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

static mix_status start(struct mix__team *t)
{
    t->workers = mix__zalloc(t->ctx, (size_t)t->threads, sizeof *t->workers);
    t->begun = mix__zalloc(t->ctx, (size_t)t->threads, sizeof *t->begun);
    if (!t->workers || !t->begun)
        return MIX_ENOMEM;
    for (; t->started < t->threads - 1; t->started++) {
        struct worker *w = &t->workers[t->started];
        w->team = t;
        w->part = t->started + 1;
        const int error = pthread_create(&w->thread, NULL, worker_main, w);
        if (error)
            return mix__fail(t->ctx, MIX_EUNSUPPORTED, "cannot start thread %d of %d: %s",
                             w->part + 1, t->threads, strerror(error));
    }
    return MIX_OK;
}

mix_status mix__team_new(struct mix__team **out, mix_ctx *ctx, int threads)
{
    *out = NULL;
    struct mix__team *t = mix__zalloc(ctx, 1, sizeof *t);
    if (!t)
        return MIX_ENOMEM;
    t->ctx = ctx;
    t->threads = threads;
    if (pthread_mutex_init(&t->lock, NULL) != 0)
        goto no_lock;
    if (pthread_cond_init(&t->begin, NULL) != 0)
        goto no_begin;
    if (pthread_cond_init(&t->done, NULL) != 0)
        goto no_done;
    const mix_status status = start(t);
    if (status != MIX_OK) {
        mix__team_free(t);
        return status;
    }
    *out = t;
    return MIX_OK;
no_done:
    pthread_cond_destroy(&t->begin);
no_begin:
    pthread_mutex_destroy(&t->lock);
no_lock:
    mix__free(ctx, t);
    return MIX_ENOMEM;
}

void mix__team_free(struct mix__team *t)
{
    if (!t)
        return;
    atomic_store(&t->closing, true);
    (void)call(t);
    for (int i = 0; i < t->started; i++)
        pthread_join(t->workers[i].thread, NULL);
    pthread_cond_destroy(&t->done);
    pthread_cond_destroy(&t->begin);
    pthread_mutex_destroy(&t->lock);
    mix__free(t->ctx, t->workers);
    mix__free(t->ctx, t->begun);
    mix__free(t->ctx, t);
}

int mix__team_size(const struct mix__team *t)
{
    return t->threads;
}
