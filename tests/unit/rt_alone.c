/*
 * rt_alone.c - a program that uses all of runtime.h and links libmetamix_rt only; rt_alone.sh looks
 * at what it needs. With a .mix file it runs the network on a gray image, without one it meets the
 * error that it should.
 */
#include <stdio.h>
#include <stdlib.h>

#include "metamix/runtime.h"

static int run(mix_runtime *rt)
{
    mix_runtime_info info;
    mix_runtime_info_get(rt, &info);
    const size_t n = (size_t)info.height * (size_t)info.width * (size_t)info.channels;
    float *image = calloc(n, sizeof *image), *logits = calloc((size_t)info.classes, sizeof *logits);
    if (image && logits) {
        mix_runtime_run(rt, image, 1, logits);
        const char *name = mix_runtime_class_name(rt, 0);
        printf("%s: %s %g\n", info.name, name ? name : "class 0", (double)logits[0]);
    }
    const int code = image && logits ? 0 : 1;
    free(image);
    free(logits);
    return code;
}

int main(int argc, char **argv)
{
    static const _Alignas(64) char garbage[64] = "this is no network";
    mix_ctx *ctx;
    mix_runtime *rt;
    if (mix_ctx_new(&ctx, NULL) != MIX_OK)
        return 1;
    const mix_status status = argc > 1 ? mix_runtime_open(&rt, ctx, argv[1])
                                       : mix_runtime_open_bytes(&rt, ctx, garbage, sizeof garbage);
    int code = argc > 1 ? (int)status : status != MIX_EFORMAT;
    if (status == MIX_OK)
        code = run(rt);
    else
        puts(mix_ctx_error(ctx));
    mix_runtime_close(rt);
    mix_ctx_free(ctx);
    return code;
}
