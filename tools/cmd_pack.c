/* cmd_pack.c - a data set written once, resized, for fast epochs. */

#include "commands.h"
#include "command_job.h"
#include "stop.h"
#include "table.h"

struct packing {
    struct job job;
    double began; /* seconds */
};

static void on_progress(void *user, size_t done, size_t images)
{
    struct packing *p = user;
    const double seconds = clock_seconds() - p->began;
    mix_progress progress = mix_progress_at("pack", (int64_t)done, (int64_t)images);
    progress.images_per_second = (double)done / seconds;
    progress.seconds_left = seconds * (double)(images - done) / (double)done;
    p->job.observer.progress(p->job.observer.user, &progress);
}

static bool on_stop(void *user)
{
    struct packing *p = user;
    return p->job.observer.stop(p->job.observer.user);
}

static const char *const halves[MIX_SPLITS] = { "train", "val" };

static int print_json(const struct options *o, const mix_pack_info *info)
{
    json_t *all = json_pack("{s:o, s:o, s:i}", "data", job_text(o->settings.data), "out",
                            job_text(o->out), "classes", info->classes);
    for (int i = 0; i < MIX_SPLITS && all; i++)
        json_object_set_new(all, halves[i],
                            json_pack("{s:I, s:I, s:I, s:I}", "images", (json_int_t)info->images[i],
                                      "resized", (json_int_t)info->resized[i], "skipped",
                                      (json_int_t)info->skipped[i], "bytes",
                                      (json_int_t)info->bytes[i]));
    return job_print_json(o, all);
}

static void print(const struct options *o, const mix_pack_info *info)
{
    struct table t;
    printf("%s: %d classes\n", o->out, info->classes);
    table_begin(&t, "lrrrr");
    table_row(&t, "half\timages\tresized\tleft out\tfile");
    for (int i = 0; i < MIX_SPLITS; i++)
        table_row(&t, "%s\t%zu\t%zu\t%zu\t%s", halves[i], info->images[i], info->resized[i],
                  info->skipped[i], cell_bytes((double)info->bytes[i]).text);
    table_end(&t, stdout);
}

static int run(const struct options *options)
{
    struct packing p = { .began = clock_seconds() };
    mix_pack_info info;
    mix_pack_options o;
    mix_status status = job_open(&p.job, options);
    if (status != MIX_OK)
        return status;
    stop_catch();
    mix_pack_options_init(&o);
    o.size = options->pack_size;
    o.quality = options->quality;
    o.skip_bad_images = options->settings.skip_bad_images;
    o.progress = on_progress;
    o.stop = on_stop;
    o.user = &p;
    status = mix_data_pack(p.job.ctx, options->settings.data, options->out, &o, &info);
    progress_clear(&p.job.progress);
    const int code = job_close(&p.job, status);
    if (code)
        return code;
    if (options->json)
        return print_json(options, &info);
    print(options, &info);
    return 0;
}

const struct command command_pack = {
    .name = "pack",
    .summary = "Write a data set once, resized, into two large files for fast epochs.",
    .takes = TAKES_PACK | TAKES_CPU,
    .needs = TAKES_PACK | TAKES_DATA,
    .run = run,
    .more = "The folder is then a data set of its own. A pack that was not finished is never taken "
            "for one. Example: metamix pack --data imagenet --out imagenet256",
};
