/*
 * peer_images.c - the image pipeline as a filter, for images.py to compare with Pillow.
 *
 * A line of standard input names a job; the answer goes to standard output:
 *   eval SIZE RESIZE FILE                   "ok BYTES HEIGHT WIDTH" and a line's end, then the
 * pixels crop SIZE TOP LEFT HEIGHT WIDTH FILE    the same, of a box eval1, crop1 the same, never
 * decoded at a smaller scale full SHRINK FILE                        the same, decoded only boxes N
 * HEIGHT WIDTH                    N lines "top left height width" A file that cannot be decoded:
 * "error SENTENCE".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/random.h"
#include "data/image.h"

struct job {
    char kind[8], path[4096];
    int size, resize, shrink;
    struct mix__box box;
};

static bool parse(const char *line, struct job *j)
{
    struct mix__box *b = &j->box;
    *j = (struct job){ .size = 0 };
    return sscanf(line, "%7s", j->kind) == 1 &&
           ((strncmp(j->kind, "eval", 4) == 0 &&
             sscanf(line, "%*s %d %d %4095[^\n]", &j->size, &j->resize, j->path) == 3) ||
            (strncmp(j->kind, "crop", 4) == 0 &&
             sscanf(line, "%*s %d %d %d %d %d %4095[^\n]", &j->size, &b->top, &b->left, &b->height,
                    &b->width, j->path) == 6) ||
            (strcmp(j->kind, "full") == 0 &&
             sscanf(line, "%*s %d %4095[^\n]", &j->shrink, j->path) == 2));
}

static mix_status work(mix_ctx *ctx, const struct job *j, const struct mix__source *source,
                       struct mix__image *image)
{
    int height, width;
    if (j->shrink)
        return mix__image_decode(ctx, source, j->shrink, image);
    MIX_TRY(mix__source_size(ctx, source, &height, &width));
    const struct mix__view view = j->kind[0] == 'e'
                                      ? mix__view_fit(height, width, j->size, j->resize)
                                      : mix__view_crop(j->box, j->size);
    MIX_TRY(mix__image_decode(ctx, source, j->kind[4] == '1' ? 1 : mix__view_shrink(&view), image));
    return mix__image_view(ctx, image, &view);
}

static void answer(mix_ctx *ctx, const struct job *j)
{
    char *bytes = NULL;
    struct mix__image image = { 0 };
    struct mix__source source = { .name = j->path };
    mix_status status = mix__file_read(ctx, j->path, (size_t)1 << 30, &bytes, &source.size);
    source.bytes = (const uint8_t *)bytes;
    if (status == MIX_OK)
        status = work(ctx, j, &source, &image);
    if (status == MIX_OK) {
        const size_t n = (size_t)image.height * image.width * 3;
        printf("ok %zu %d %d\n", n, image.height, image.width);
        fwrite(image.pixels, 1, n, stdout);
    } else {
        printf("error %s\n", mix_ctx_error(ctx));
    }
    mix__image_release(ctx, &image);
    mix__free(ctx, bytes);
}

static void boxes(int n, int height, int width)
{
    for (int i = 0; i < n; i++) {
        const struct mix__draws draws = { 1, MIX__STREAM(MIX__RANDOM_AUGMENT, 0), (uint64_t)i };
        const struct mix__box b = mix__draw_box(&draws, height, width);
        printf("%d %d %d %d\n", b.top, b.left, b.height, b.width);
    }
}

int main(void)
{
    char line[8192];
    mix_ctx *ctx;
    if (mix_ctx_new(&ctx, NULL) != MIX_OK)
        return 1;
    while (fgets(line, sizeof line, stdin)) {
        struct job job;
        int n, height, width;
        if (sscanf(line, "boxes %d %d %d", &n, &height, &width) == 3) {
            boxes(n, height, width);
        } else if (parse(line, &job)) {
            answer(ctx, &job);
        } else {
            fprintf(stderr, "peer_images: not understood: %s", line);
            return 1;
        }
        fflush(stdout);
    }
    mix_ctx_free(ctx);
    return 0;
}
