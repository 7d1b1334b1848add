#include "models/text/human.hpp"

#include <gtest/gtest.h>

namespace headway {
namespace {

TEST(Human, ThreeSignificantDigits) {
    EXPECT_EQ(significant(1.234), "1.23");
    EXPECT_EQ(significant(12.34), "12.3");
    EXPECT_EQ(significant(123.4), "123");
    EXPECT_EQ(significant(9.999), "10.0");  // rounding carries into the next digit
    EXPECT_EQ(significant(0.001234), "0.00123");
    EXPECT_EQ(significant(0.0), "0");
}

TEST(Human, TimeChoosesItsUnit) {
    EXPECT_EQ(human(1.234 * ms), "1.23 ms");
    EXPECT_EQ(human(999.96 * ms), "1.00 s");  // never "1000 ms"
    EXPECT_EQ(human(42.0 * us), "42.0 us");
    EXPECT_EQ(human(Seconds{}), "0 ns");
    EXPECT_EQ(human(7200.0 * second), "7200 s");
}

TEST(Human, BytesAreBinaryAndRatesDecimal) {
    EXPECT_EQ(human(4.5 * GiB), "4.50 GiB");
    EXPECT_EQ(human(1023.9 * MiB), "1.00 GiB");
    EXPECT_EQ(human(100.0 * byte), "100 B");
    EXPECT_EQ(human(46.5 * GB / second), "46.5 GB/s");
    EXPECT_EQ(human(312.0 * TFLOP / second), "312 TFLOP/s");
}

TEST(Human, GroupedInsertsACommaEveryThreeDigits) {
    EXPECT_EQ(grouped(1234567.4), "1,234,567");
    EXPECT_EQ(grouped(999.0), "999");
    EXPECT_EQ(grouped(-1000.0), "-1,000");
    EXPECT_EQ(grouped(-0.2), "0");
}

TEST(Human, SignedPercent) {
    EXPECT_EQ(signed_percent(0.1234), "+12.3 %");
    EXPECT_EQ(signed_percent(-0.05), "-5.0 %");
}

}  // namespace
}  // namespace headway
