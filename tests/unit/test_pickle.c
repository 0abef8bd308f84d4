/* test_pickle.c - pickles by hand: what they make, and what is refused. */
#include "support.h"

#include "format/pickle.h"

static mix_ctx *ctx;

static const struct mix__pickle_global globals[] = {
    { "collections", "OrderedDict", true, 1 },
    { "a", "f", false, 2 },
    { 0 },
};

static char bytes[256];

static mix_status load(struct mix__pickle **p, const char *text, size_t size)
{
    /* Something lies before and behind. */
    assert_true(size + 4 <= sizeof bytes);
    memset(bytes, '?', sizeof bytes);
    memcpy(bytes + 2, text, size);
    const struct mix__pickle_source source = {
        .path = "f", .bytes = bytes, .begin = 2, .end = 2 + size, .globals = globals
    };
    return mix__pickle_load(p, ctx, &source);
}

#define LOAD(p, text) CHECK_OK(load(p, text, sizeof(text) - 1))

static void test_numbers(void **state)
{
    static const struct {
        const char *text;
        size_t size;
        int64_t value;
    } numbers[] = {
#define N(text, value) { text, sizeof(text) - 1, value }
        N("K\xff.", 255),
        N("M\xff\xff.", 65535),
        N("J\xff\xff\xff\xff.", -1),
        N("J\0\0\0\x80.", INT32_MIN),
        N("\x8a\0.", 0),
        N("\x8a\1\xff.", -1),
        N("\x8a\2\xff\0.", 255),
        N("\x8a\7\0\0\0\0\0\0\x80.", -(INT64_C(1) << 55)),
        N("\x8a\x8\0\0\0\0\0\0\0\x80.", INT64_MIN),
        N("\x88.", 1),
        N("\x89.", 0),
        N("\x80\5\x95\0\0\0\0\0\0\0\0K\1.", 1),
#undef N
    };
    (void)state;
    for (size_t i = 0; i < MIX_COUNT(numbers); i++) {
        struct mix__pickle *p;
        CHECK_OK(load(&p, numbers[i].text, numbers[i].size));
        assert_int_equal(mix__pickle_root(p)->kind, MIX__PICKLE_INT);
        assert_true(mix__pickle_root(p)->integer == numbers[i].value);
        assert_int_equal(mix__pickle_end(p), 2 + numbers[i].size);
        mix__pickle_free(p);
    }
}

static void test_other(void **state)
{
    struct mix__pickle *p;
    (void)state;
    LOAD(&p, "(NG\0\0\0\0\0\0\0\0\x8a\11.........t.");
    const struct mix__pickle_value *item[4];
    assert_int_equal(mix__pickle_unpack(p, mix__pickle_root(p), item, 4), 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(item[i]->kind, MIX__PICKLE_OTHER);
    mix__pickle_free(p);
}

static void test_texts(void **state)
{
    struct mix__pickle *p;
    const struct mix__pickle_value *item[8];
    (void)state;
    LOAD(&p, "(X\2\0\0\0abU\2cdT\1\0\0\0eC\0\x8c\1fB\2\0\0\0\0\0t.");
    assert_int_equal(mix__pickle_unpack(p, mix__pickle_root(p), item, 8), 6);
    static const char *const texts[] = { "ab", "cd", "e", "", "f" };
    for (int i = 0; i < 5; i++) {
        assert_string_equal(item[i]->text.bytes, texts[i]);
        assert_true(mix__pickle_is(item[i], texts[i]));
        assert_false(mix__pickle_is(item[i], "x"));
    }
    assert_int_equal(item[5]->text.length, 2);
    assert_false(mix__pickle_is(item[5], ""));
    mix__pickle_free(p);
}

/* {"a": (1,), "b": [2, 3]} in several ways. */
static const struct {
    const char *text;
    size_t size;
} dicts[] = {
#define N(text)                                                                                    \
    {                                                                                              \
        text, sizeof(text) - 1                                                                     \
    }
    N("}(U\1aK\1\x85U\1b](K\2K\3eu."),
    N("}U\1aK\1\x85sU\1b]K\2aK\3as."),
    /* a class, the memo, an object's state */
    N("ccollections\nOrderedDict\nq\0)Rq\1(U\1aq\2(K\1tU\1b](K\2K\3eu}U\1xh\2sb."),
    /* protocol 4; the dict holds itself, and "b" is set twice */
    N("\x8c\13collections\x8c\13OrderedDict\x93)R\x94(h\0h\0U\1bNU\1aK\1\x85U\1b](K\2K\3eu."),
    /* Python 2: from a list of pairs */
    N("ccollections\nOrderedDict\n]((U\1aK\1\x85t](U\1b](K\2K\3eee\x85R."),
    N("}(U\1ar\0\1\0\0K\1\x85U\1b](K\2K\3eu."),
#undef N
};

static void test_containers(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_COUNT(dicts); i++) {
        struct mix__pickle *p;
        const struct mix__pickle_value *item[3];
        CHECK_OK(load(&p, dicts[i].text, dicts[i].size));
        const struct mix__pickle_value *root = mix__pickle_root(p);
        assert_int_equal(root->kind, MIX__PICKLE_DICT);
        const struct mix__pickle_value *a = mix__pickle_get(p, root, "a");
        const struct mix__pickle_value *b = mix__pickle_get(p, root, "b");
        assert_non_null(a);
        assert_non_null(b);
        assert_null(mix__pickle_get(p, root, "x"));
        assert_int_equal(a->kind, MIX__PICKLE_TUPLE);
        assert_int_equal(mix__pickle_unpack(p, a, item, 3), 1);
        assert_int_equal(item[0]->integer, 1);
        assert_int_equal(b->kind, MIX__PICKLE_LIST);
        assert_int_equal(mix__pickle_unpack(p, b, item, 3), 2);
        assert_int_equal(item[0]->integer, 2);
        assert_int_equal(item[1]->integer, 3);
        mix__pickle_free(p);
    }
}

/* Calls stay what they are; items given to an object go nowhere. */
static void test_calls(void **state)
{
    struct mix__pickle *p;
    (void)state;
    LOAD(&p, "ca\nf\nK\7\x85RU\1aK\1sK\2a}b.");
    const struct mix__pickle_value *call = mix__pickle_root(p), *seven;
    assert_int_equal(call->kind, MIX__PICKLE_CALL);
    assert_int_equal(mix__pickle_value(p, call->call.global)->global->meaning, 2);
    assert_int_equal(mix__pickle_unpack(p, mix__pickle_value(p, call->call.argument), &seven, 1),
                     1);
    assert_int_equal(seven->integer, 7);
    assert_int_equal(seven->at, 2 + 5);
    mix__pickle_free(p);

    LOAD(&p, "ca\nf\n)\x81\x94K\1K\2\x86Q\x86h\0\x86.");
    const struct mix__pickle_value *pair[2];
    mix__pickle_unpack(p, mix__pickle_root(p), pair, 2);
    assert_int_equal(pair[1]->kind, MIX__PICKLE_CALL);
    mix__pickle_unpack(p, pair[0], pair, 2);
    assert_int_equal(pair[0]->kind, MIX__PICKLE_CALL);
    assert_int_equal(pair[1]->kind, MIX__PICKLE_PERSISTENT);
    assert_int_equal(mix__pickle_value(p, pair[1]->id)->kind, MIX__PICKLE_TUPLE);
    mix__pickle_free(p);
}

static const struct {
    const char *text;
    size_t size;
    const char *says;
} hostile[] = {
#define N(text, says)                                                                              \
    {                                                                                              \
        text, sizeof(text) - 1, says                                                               \
    }
    N("", "byte 2: pickle: cut off"),
    N("N", "byte 3: pickle: cut off"),
    N("\x80\6.", "protocol above 5"),
    N(".", "stack is too short"),
    N("(.", "a mark lies"),
    N("NN.", "more than one value"),
    N("J\0\0\0", "cut off"),
    N("X\377\377\377\377a.", "cut off"),
    N("\x8d\377\377\377\377\377\377\377\377a.", "cut off"),
    N("\x8a\xff.", "cut off"),
    N("K\1t.", "no mark"),
    N("\x85.", "too short"),
    N("(\x85.", "a mark lies"),
    N("e.", "no mark"),
    N("(e.", "too short"),
    N("((e.", "a mark lies"),
    N("Na.", "too short"),
    N("NNa.", "no list or dict"),
    N("}Na.", "no list or dict"),
    N("](NNu.", "no list or dict"),
    N("}(Nu.", "no list or dict"),
    N("](Na.", "a mark lies"),
    N("h\0.", "byte 2: pickle: nothing is in the memo"),
    N("Nq\3h\2.", "byte 5: pickle: nothing is in the memo"),
    N("Nr\377\377\377\377.", "memo number beyond"),
    N("Nj\377\377\377\377.", "nothing is in the memo"),
    N("q\0.", "too short"),
    N("(q\0.", "a mark lies"),
    N("N)R.", "expected a call"),
    N("ca\nf\nNR.", "expected a call"),
    N("ccollections\nOrderedDict\n]Na\x85R.", "what are no pairs"),
    N("ccollections\nOrderedDict\n]K\1\x85"
      "a\x85R.",
      "what are no pairs"),
    N("cos\nsystem\n(U\4truetR.", "asks for Python's 'os.system', which is not run"),
    N("\x8c\2os\x8c\6system\x93.", "'os.system'"),
    N("ca\ng\n.", "'a.g'"),
    N("cb\nf\n.", "'b.f'"),
    N("caa\nf\n.", "'aa.f'"),
    N("ca.f\n\n.", "'a.f.'"),
    N("ca\nf", "cut off inside a name"),
    N("NN\x93.", "a global's name is no text"),
    N("ios\nsystem\n.", "byte 2: pickle: opcode 0x69 is not read"),
    N("I1\n.", "opcode 0x49"),
    N("N2.", "opcode 0x32"),
#undef N
};

static void test_hostile(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_COUNT(hostile); i++) {
        struct mix__pickle *p = (void *)&p;
        CHECK_FAILS(ctx, load(&p, hostile[i].text, hostile[i].size), MIX_EFORMAT, hostile[i].says);
        assert_memory_equal(mix_ctx_error(ctx), "f: byte ", 8);
        assert_null(p);
    }
}

/* More than are allowed: values, marks, items, numbers in the memo; little memory is taken. */
static void test_limits(void **state)
{
    static const char *const repeated[] = { "N", "(", "h\0", "]", "h\0\x85" };
    enum { SIZE = 4 << 20 };
    char *much = malloc(SIZE + 16);
    (void)state;
    assert_non_null(much);
    for (size_t i = 0; i < MIX_COUNT(repeated); i++) {
        struct mix__pickle *p;
        const size_t n = repeated[i][0] == 'h' ? 2 + strlen(repeated[i] + 2) : 1;
        memcpy(much, "Nq\0", 3);
        for (size_t at = 3; at < SIZE; at += n)
            memcpy(much + at, repeated[i], n);
        const struct mix__pickle_source source = {
            .path = "f", .bytes = much, .end = SIZE, .globals = globals
        };
        CHECK_FAILS(ctx, mix__pickle_load(&p, ctx, &source), MIX_EFORMAT, "more than 1048576");
        assert_null(p);
    }
    free(much);
}

static int set_up(void **state)
{
    (void)state;
    ctx = plain_ctx();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mix_ctx_free(ctx);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers), cmocka_unit_test(test_other),
        cmocka_unit_test(test_texts),   cmocka_unit_test(test_containers),
        cmocka_unit_test(test_calls),   cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
