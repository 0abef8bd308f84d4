/*
 * test_packed.c - codes of every width there and back, and the drawn layout.
 */
#include "support.h"

#include "base/random.h"
#include "tensor/packed.h"

static void test_round_trip(void **unused)
{
    (void)unused;
    for (int bits = 2; bits <= 8; bits++)
        for (size_t n = 0; n < 70; n++) {
            int8_t codes[70], back[70];
            uint8_t packed[71];
            const size_t bytes = mix__packed_bytes(n, bits);
            assert_int_equal(bytes, (n * (size_t)bits + 7) / 8);
            for (size_t i = 0; i < n; i++)
                codes[i] =
                    (int8_t)((int)(mix__random_u64(1, n, i) >> (64 - bits)) - (1 << (bits - 1)));
            memset(packed, 0x5a, sizeof packed);
            mix__codes_pack(packed, codes, n, bits);
            assert_int_equal(packed[bytes], 0x5a);
            mix__codes_unpack(back, packed, n, bits);
            assert_memory_equal(back, codes, n);
        }
}

static void test_layout(void **unused)
{
    static const int8_t codes[] = { 1, -1, 2, -3, 0, 3, -2, 1 };
    uint8_t packed[3];
    (void)unused;
    mix__codes_pack(packed, codes, 8, 3);
    /* 001 111 010 101 000 011 110 001, the first one lowest */
    const uint32_t stream = 1 | 7 << 3 | 2 << 6 | 5 << 9 | 0 << 12 | 3 << 15 | 6 << 18 | 1 << 21;
    for (int i = 0; i < 3; i++)
        assert_int_equal(packed[i], stream >> 8 * i & 255);
    mix__codes_pack(packed, codes, 2, 4);
    assert_int_equal(packed[0], 0xf1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_layout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
