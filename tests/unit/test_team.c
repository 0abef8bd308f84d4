/*
 * test_team.c - every part of every job is done once, by however many threads.
 */
#include "support.h"

#include "runtime/team.h"

enum { THREADS_MAX = 64, LENGTH = 100 };

/* Parts of one job write next to each other and never to the same place. */
static void count(void *arg, int part, int parts)
{
    int *done = arg;
    if (part < 0 || part >= parts || parts > THREADS_MAX)
        abort();
    for (int i = part * LENGTH; i < (part + 1) * LENGTH; i++)
        done[i]++;
}

static void test_parts(void **state)
{
    static const int threads[] = { 1, 2, 3, 7, THREADS_MAX };
    static int done[THREADS_MAX * LENGTH];
    (void)state;
    mix_ctx *ctx = plain_ctx();
    for (size_t t = 0; t < MIX_COUNT(threads); t++) {
        struct mix__team *team;
        const int jobs = 20000 / threads[t];
        CHECK_OK(mix__team_new(&team, ctx, threads[t]));
        memset(done, 0, sizeof done);
        for (int job = 0; job < jobs; job++)
            mix__team_run(team, count, done);
        for (int i = 0; i < THREADS_MAX * LENGTH; i++)
            assert_int_equal(done[i], i < threads[t] * LENGTH ? jobs : 0);
        mix__team_free(team);
    }
    mix_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_parts) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
