/*
 * export_c.c - exported C, compiled and run, has the integer runtime's logits, bit for bit.
 */
#include "in_folder.h"
#include "net_fixture.h"

#include <stdlib.h>

#include "format/c_write.h"
#include "format/mix_file.h"
#include "metamix/runtime.h"

enum { CLASSES = SMALL_CLASSES, IMAGES = 3, PIXELS = SMALL_PIXELS };

/* Reads images from a file, writes logits to another. */
static const char driver[] =
    "#include <stdio.h>\n"
    "#include \"net.h\"\n"
    "int main(void)\n"
    "{\n"
    "    static float image[NET_HEIGHT * NET_WIDTH * NET_CHANNELS];\n"
    "    float logits[NET_CLASSES];\n"
    "    FILE *in = fopen(\"images\", \"rb\"), *out = fopen(\"logits\", \"wb\");\n"
    "    if (!in || !out)\n"
    "        return 1;\n"
    "    while (fread(image, sizeof image, 1, in) == 1) {\n"
    "        net_run(image, logits);\n"
    "        fwrite(logits, sizeof logits, 1, out);\n"
    "    }\n"
    "    return fclose(out) != 0;\n"
    "}\n";

static void shell(const char *format, const char *argument)
{
    char command[1024];
    snprintf(command, sizeof command, format, argument);
    if (system(command) != 0)
        fail_msg("failed: %s", command);
}

static void expected_logits(const struct mix__net *net, const float *images, float *logits)
{
    char *bytes;
    size_t size;
    mix_runtime *rt;
    CHECK_OK(mix__mix_encode(net, &bytes, &size));
    CHECK_OK(mix_runtime_open_bytes(&rt, ctx, bytes, size));
    mix_runtime_run(rt, images, IMAGES, logits);
    mix_runtime_close(rt);
    mix__free(ctx, bytes);
}

static void check_logits(const float *expected, const char *what)
{
    float found[IMAGES * CLASSES + 1];
    FILE *f = fopen("logits", "rb");
    assert_non_null(f);
    assert_int_equal(fread(found, sizeof *found, IMAGES * CLASSES + 1, f), IMAGES * CLASSES);
    fclose(f);
    if (memcmp(found, expected, IMAGES * CLASSES * sizeof *found) != 0)
        fail_msg("%s: logits differ: %.9g, expected %.9g", what, (double)found[0],
                 (double)expected[0]);
}

#define WARNINGS "-Wall -Wextra -Wpedantic -Werror "

/* Optimised as users would; without -std=c11 gcc contracts products and sums where it can. */
static void run_everywhere(const float *expected, const char *what)
{
    shell("%s " WARNINGS "-std=c11 -O2 -o host net.c main.c -lm && ./host", MIX_TEST_CC);
    check_logits(expected, what);
#ifdef MIX_TEST_ARM_CC
    shell("%s " WARNINGS "-O2 -mcpu=cortex-a53 -mfpu=neon-vfpv4 -static -o arm net.c main.c -lm && "
          "rm logits && " MIX_TEST_QEMU " ./arm",
          MIX_TEST_ARM_CC);
    check_logits(expected, what);
#endif
#ifdef MIX_TEST_CORTEX_CC
    shell("%s " WARNINGS
          "-std=c11 -Os -mcpu=cortex-m4 -mthumb -mfpu=fpv4-sp-d16 -mfloat-abi=hard -c net.c "
          "-o m4.o",
          MIX_TEST_CORTEX_CC);
#endif
}

static void check_net(const char *arch, int bits)
{
    struct net_fixture f;
    struct mix__net *net;
    char what[64];
    float expected[IMAGES * CLASSES];
    float *images = malloc(IMAGES * PIXELS * sizeof *images);
    for (size_t i = 0; i < IMAGES * PIXELS; i++)
        images[i] = (float)mix__random_normal(5, (uint64_t)bits, i);
    fixture_make_small(&f, ctx, arch, bits);
    CHECK_OK(fixture_lower(&f, &net));
    CHECK_OK(mix__c_write(net, "net.c"));
    write_bytes("images", images, IMAGES * PIXELS * sizeof *images);
    write_bytes("main.c", driver, sizeof driver - 1);
    expected_logits(net, images, expected);
    snprintf(what, sizeof what, "%s at %d bits", arch, bits);
    run_everywhere(expected, what);
    free(images);
    mix__net_free(net);
    fixture_release(&f);
}

static void test_networks(void **state)
{
    (void)state;
    for (int bits = MIX_BITS_MIN; bits <= MIX_BITS_MAX; bits++)
        check_net("mobilenet_v2", bits), check_net("odd", bits);
    check_net("mobilenet_v3_small", 3);
    check_net("mobilenet_v3_large", 8);
    check_net("resnet18", 4);
    check_net("resnet50", 2);
}

static void test_refusals(void **state)
{
    struct net_fixture f;
    struct mix__net *net;
    (void)state;
    fixture_make_small(&f, ctx, "mobilenet_v2", 4);
    CHECK_OK(fixture_lower(&f, &net));
    static const char *const names[] = { "net.cpp", ".c",      "./.c", "9lives.c",
                                         "a b.c",   "folder/", "c" };
    for (size_t i = 0; i < MIX_COUNT(names); i++)
        CHECK_FAILS(ctx, mix__c_write(net, names[i]), MIX_EINVAL, "NAME.c");
    CHECK_FAILS(ctx, mix__c_write(net, "missing/net.c"), MIX_EIO, "missing/net.h");
    CHECK_OK(mix__c_write(net, "mobile-net.v2.c"));
    shell("grep -q 'void mobile_net_v2_run(' %s", "mobile-net.v2.h");
    shell(MIX_TEST_CC " -std=c11 -Wall -Werror -c %s", "mobile-net.v2.c");
    strcpy(net->ops[0].name, "a*/#error b"); /* a file's names do not leave their comments */
    strcpy(net->name, "c*/#error\nd");
    CHECK_OK(mix__c_write(net, "net.c"));
    shell(MIX_TEST_CC " -std=c11 -Wall -Werror -c %s", "net.c");
    mix__net_free(net);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_networks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refusals, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
