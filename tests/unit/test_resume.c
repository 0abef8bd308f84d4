/*
 * Resume = no resume: a run that is killed at any step, or stopped, and started again ends with
 * the same checkpoint and log as one that was not.
 */
#include "runs.h"

#include <signal.h>
#include <sys/wait.h>

#include <jansson.h>

enum job { TRAIN, QUANTIZE, FROM_WEIGHTS, GREEDY, JOINT };

/* Counts what happens: steps, batches of evaluations and ends of epochs (between the line in the
 * log and the checkpoint). When none is left it kills the process, or asks to stop. */
struct killer {
    int left;
    bool gently;
};

static void kill_now(void *user, const mix_progress *progress)
{
    struct killer *k = user;
    (void)progress;
    if (!k->gently && k->left-- == 0)
        kill(getpid(), SIGKILL);
}

static bool stop_now(void *user)
{
    struct killer *k = user;
    return k->gently && k->left-- == 0;
}

static mix_status run_job(mix_ctx *ctx, enum job job, const char *run, struct killer *k)
{
    const mix_observer observer = { .progress = kill_now, .stop = stop_now, .user = k };
    mix_settings s;
    mix_result result;
    tiny_settings(&s);
    s.checkpoint_minutes = 0.0; /* save after every step */
    if (k && k->left % 2)
        s.checkpoint_minutes = 60.0; /* only after epochs */
    s.ema_decay = job == TRAIN ? 0.0 : 0.9;
    s.stage_c_epochs = job == QUANTIZE;
    if (job == GREEDY || job == JOINT)
        strcpy(s.search, job == GREEDY ? "greedy" : "joint");
    if (job == FROM_WEIGHTS) {
        strcpy(s.weights, "float/best.safetensors");
        strcpy(s.teacher, "self");
    }
    const char *from = job == FROM_WEIGHTS ? NULL : "float";
    const mix_status status = job == TRAIN
                                  ? mix_train(ctx, run, &s, k ? &observer : NULL, &result)
                                  : mix_quantize(ctx, run, from, &s, k ? &observer : NULL, &result);
    mix_result_release(&result);
    return status;
}

/* In a child, so that a kill is one; a new program, as threads do not survive a fork. */
static bool run_killed(enum job job, const char *run, int steps)
{
    char job_text[16], steps_text[16];
    int how;
    snprintf(job_text, sizeof job_text, "%d", job);
    snprintf(steps_text, sizeof steps_text, "%d", steps);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execl("/proc/self/exe", "test_resume", job_text, run, steps_text, (char *)NULL);
        _exit(3);
    }
    assert_int_equal(waitpid(child, &how, 0), child);
    return WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL;
}

static int be_killed(char **argv)
{
    struct killer k = { .left = atoi(argv[3]) };
    return run_job(run_ctx(), (enum job)atoi(argv[1]), argv[2], &k) == MIX_OK ? 0 : 1;
}

/* Lines of both logs are equal but for "seconds". */
static void check_same_log(const char *a, const char *b)
{
    char line_a[4096], line_b[4096];
    FILE *fa = fopen(a, "r"), *fb = fopen(b, "r");
    assert_non_null(fa);
    assert_non_null(fb);
    while (fgets(line_a, sizeof line_a, fa)) {
        json_error_t error;
        assert_non_null(fgets(line_b, sizeof line_b, fb));
        json_t *ja = json_loads(line_a, 0, &error), *jb = json_loads(line_b, 0, &error);
        assert_non_null(ja);
        assert_non_null(jb);
        json_object_del(ja, "seconds");
        json_object_del(jb, "seconds");
        if (!json_equal(ja, jb))
            fail_msg("logs differ:\n%s%s", line_a, line_b);
        json_decref(ja);
        json_decref(jb);
    }
    assert_null(fgets(line_b, sizeof line_b, fb));
    fclose(fa);
    fclose(fb);
}

static void check_same_run(mix_ctx *ctx, const char *a, const char *b)
{
    static const char *const files[] = { "last.safetensors", "best.safetensors" };
    char pa[64], pb[64];
    for (size_t i = 0; i < MIX_COUNT(files); i++) {
        snprintf(pa, sizeof pa, "%s/%s", a, files[i]);
        snprintf(pb, sizeof pb, "%s/%s", b, files[i]);
        check_same_tensors(ctx, pa, pb);
    }
    snprintf(pa, sizeof pa, "%s/log.jsonl", a);
    snprintf(pb, sizeof pb, "%s/log.jsonl", b);
    check_same_log(pa, pb);
}

static void check_kills(enum job job, const char *whole, const int *kills, size_t n)
{
    char run[32];
    for (size_t i = 0; i < n; i++) {
        snprintf(run, sizeof run, "killed-%d-%d", job, kills[i]);
        assert_true(run_killed(job, run, kills[i]));
        run_killed(job, run, 3); /* once more, soon after the resume, unless it ends before */
        mix_ctx *ctx = run_ctx();
        if (run_job(ctx, job, run, NULL) != MIX_OK)
            fail_msg("resume after %d steps: %s", kills[i], mix_ctx_error(ctx));
        check_same_run(ctx, whole, run);
        mix_ctx_free(ctx);
    }
}

/* Inside an epoch the state is saved as often as checkpoint_minutes says. */
static void saves_in_an_epoch(void **state)
{
    (void)state;
    assert_true(run_killed(TRAIN, "often", 4));
    assert_true(access("often/last.safetensors", F_OK) == 0);
    assert_true(run_killed(TRAIN, "rarely", 5));
    assert_true(access("rarely/config.json", F_OK) == 0);
    assert_true(access("rarely/last.safetensors", F_OK) != 0);
}

/* Before the first step, in an epoch, at its end, in an evaluation, in the last epoch. The data
 * event is number 0; an epoch is 6 steps, 3 batches of evaluation and its end. */
static void train_resumes(void **state)
{
    static const int kills[] = { 0, 4, 8, 10, 15, 20 };
    (void)state;
    check_kills(TRAIN, "float", kills, MIX_COUNT(kills));
}

static void quantize_resumes(void **state)
{
    static const int kills[] = { 5, 11, 18, 20, 31, 36, 41, 46 };
    mix_ctx *ctx = run_ctx();
    (void)state;
    CHECK_OK(run_job(ctx, QUANTIZE, "whole", NULL));
    mix_ctx_free(ctx);
    check_kills(QUANTIZE, "whole", kills, MIX_COUNT(kills));
}

/* The teacher comes from the file of weights again. */
static void quantize_from_weights_resumes(void **state)
{
    static const int kills[] = { 11, 31 };
    mix_ctx *ctx = run_ctx();
    (void)state;
    CHECK_OK(run_job(ctx, FROM_WEIGHTS, "whole-from-weights", NULL));
    mix_ctx_free(ctx);
    check_kills(FROM_WEIGHTS, "whole-from-weights", kills, MIX_COUNT(kills));
}

/* In the measurements of the one, in and between epochs of the other; the float network is judged in
 * events 1 to 3. */
static void other_searches_resume(void **state)
{
    static const int kills[] = { 6, 8, 11 };
    mix_ctx *ctx = run_ctx();
    (void)state;
    CHECK_OK(run_job(ctx, GREEDY, "whole-greedy", NULL));
    CHECK_OK(run_job(ctx, JOINT, "whole-joint", NULL));
    mix_ctx_free(ctx);
    check_kills(GREEDY, "whole-greedy", kills, MIX_COUNT(kills));
    check_kills(JOINT, "whole-joint", kills, MIX_COUNT(kills));
}

/* Stopped after every step (and during evaluations) until it is done. */
static void stops_save(void **state)
{
    mix_ctx *ctx = run_ctx();
    mix_status status;
    int starts = 0;
    (void)state;
    do {
        struct killer k = { .left = 3, .gently = true };
        status = run_job(ctx, TRAIN, "stopped", &k);
        starts++;
    } while (status == MIX_ESTOPPED && starts < 100);
    if (status != MIX_OK)
        fail_msg("start %d: %s", starts, mix_ctx_error(ctx));
    assert_in_range(starts, 3, 20);
    check_same_run(ctx, "float", "stopped");
    mix_ctx_free(ctx);
}

static int set_up(void **state)
{
    (void)state;
    enter_folder();
    write_tiny_data("data");
    mix_ctx *ctx = run_ctx();
    train_tiny(ctx, "float");
    mix_ctx_free(ctx);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    leave_folder();
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 4)
        return be_killed(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stops_save),
        cmocka_unit_test(saves_in_an_epoch),
        cmocka_unit_test(train_resumes),
        cmocka_unit_test(quantize_resumes),
        cmocka_unit_test(quantize_from_weights_resumes),
        cmocka_unit_test(other_searches_resume),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
