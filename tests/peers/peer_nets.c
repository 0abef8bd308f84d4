/*
 * peer_nets.c - integer networks with random weights as .mix files, for export.py.
 *
 *   peer_nets FOLDER      writes FOLDER/NETWORK-wBaB.mix for networks of every kind, B from 2 to 8
 */
#include "net_fixture.h"

#include "format/mix_file.h"

static void write_net(mix_ctx *ctx, const char *folder, const char *arch, int bits)
{
    struct net_fixture f;
    struct mix__net *net;
    char path[4096];
    fixture_make_small(&f, ctx, arch, bits);
    CHECK_OK(fixture_lower(&f, &net));
    snprintf(path, sizeof path, "%s/%s-w%da%d.mix", folder, arch, bits, bits);
    CHECK_OK(mix__mix_write(net, path));
    mix__net_free(net);
    fixture_release(&f);
}

int main(int argc, char **argv)
{
    static const char *const archs[] = { "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small",
                                         "resnet18",     "resnet50",           "odd" };
    mix_ctx *ctx;
    if (argc != 2 || mix_ctx_new(&ctx, NULL) != MIX_OK)
        return 2;
    for (size_t i = 0; i < MIX_COUNT(archs); i++)
        for (int bits = MIX_BITS_MIN; bits <= MIX_BITS_MAX; bits++)
            write_net(ctx, argv[1], archs[i], bits);
    mix_ctx_free(ctx);
    return 0;
}
