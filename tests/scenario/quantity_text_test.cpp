#include "models/scenario/quantity_text.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "models/vocab/units.hpp"

namespace headway {
namespace {

double value_of(std::string_view text, UnitClass unit_class) {
    const ParsedQuantity parsed = parse_quantity(text, unit_class);
    EXPECT_TRUE(parsed.value.has_value()) << text << ": " << parsed.found;
    return parsed.value.value_or(std::nan(""));
}

TEST(QuantityText, DecimalBinaryAndBitUnitsDiffer) {
    EXPECT_EQ(value_of("1 GB", UnitClass::bytes), 1e9);
    EXPECT_EQ(value_of("1 GiB", UnitClass::bytes), 1073741824.0);  // 2^30
    EXPECT_EQ(value_of("400 Gbps", UnitClass::bandwidth), 50e9);   // 400e9 / 8
    EXPECT_EQ(value_of("450 GB/s", UnitClass::bandwidth), 450e9);
    EXPECT_EQ(value_of("989 TFLOP/s", UnitClass::flop_rate), 989e12);
    EXPECT_EQ(value_of("4 %", UnitClass::percent), 0.04);
    EXPECT_EQ(value_of("4%", UnitClass::percent), 0.04);  // the blank is optional
    EXPECT_EQ(value_of("1e3 us", UnitClass::seconds), 1e-3);
}

TEST(QuantityText, IsTheNearestDouble) {
    // Multiplying 14.8 by 1e-6 is one unit in the last place off; shifting the decimals is exact.
    EXPECT_EQ(value_of("14.8 us", UnitClass::seconds), 14.8e-6);
    EXPECT_EQ(value_of("0.1 ps", UnitClass::seconds), 0.1e-12);
}

TEST(QuantityText, UnitsAgreeWithTheVocabulary) {
    EXPECT_EQ(value_of("3 GiB", UnitClass::bytes) * byte, 3.0 * GiB);
    EXPECT_EQ(value_of("3 TB", UnitClass::bytes) * byte, 3.0 * TB);
    EXPECT_EQ(value_of("7 Gbps", UnitClass::bandwidth) * (byte / second), 7.0 * Gbit / second);
    EXPECT_EQ(value_of("7 TFLOP/s", UnitClass::flop_rate) * (flop / second), 7.0 * TFLOP / second);
    EXPECT_EQ(value_of("1 ms", UnitClass::seconds) * second, ms);
}

TEST(QuantityText, RefusesWhatIsNotADecimalNumberWithItsUnit) {
    for (const char* text : {"", " ", "450", "GB/s", "450 GBps", "450 gb/s", "450 GB", "0x10 GB/s",
                             "inf GB/s", "nan GB/s", "1e400 GB/s", "1e-99999999999999999999 GB/s",
                             "4..5 GB/s", "--4 GB/s", "1,5 GB/s", "450 GB/s x", "+4 GB/s"}) {
        EXPECT_FALSE(parse_quantity(text, UnitClass::bandwidth).value.has_value()) << text;
    }
}

TEST(QuantityText, NeverTurnsBytesIntoBits) {
    // 'GBps' is one letter away from 'Gbps', which is eight times less; so it is not suggested.
    const ParsedQuantity parsed = parse_quantity("450 GBps", UnitClass::bandwidth);
    EXPECT_EQ(parsed.hint, "GB/s is bytes per second, Gbps is bits per second");
    EXPECT_EQ(parse_quantity("989 TFLOPS", UnitClass::flop_rate).hint, "did you mean 'TFLOP/s'?");
}

TEST(QuantityText, ReadsIntegersOfTheWholeRangeOnly) {
    EXPECT_EQ(parse_integer("9223372036854775807"), std::numeric_limits<std::int64_t>::max());
    for (const char* text :
         {"9223372036854775808", "", "1.0", "1e3", "0x10", "1 ", "+1", "1_000"}) {
        EXPECT_FALSE(parse_integer(text).has_value()) << text;
    }
}

TEST(QuantityText, WhatIsPrintedReadsBackToTheSameBits) {
    std::mt19937_64 random(7);
    const auto round_trips = [](double value, UnitClass unit_class) {
        const std::string text = quantity_to_text(value, unit_class);
        if (unit_class == UnitClass::none) return parse_number(text) == value;
        return parse_quantity(text, unit_class).value == value;
    };
    for (int i = 0; i < 3000; ++i) {
        // Any finite positive double, of any exponent.
        const double value = std::abs(std::bit_cast<double>(random()));
        if (!std::isfinite(value)) continue;
        for (const UnitClass unit_class :
             {UnitClass::none, UnitClass::bytes, UnitClass::seconds, UnitClass::flops,
              UnitClass::bandwidth, UnitClass::flop_rate, UnitClass::percent}) {
            ASSERT_TRUE(round_trips(value, unit_class))
                << value << " as " << quantity_to_text(value, unit_class);
        }
    }
}

TEST(QuantityText, PrintsTheShortestUnit) {
    EXPECT_EQ(quantity_to_text(450e9, UnitClass::bandwidth), "450 GB/s");
    EXPECT_EQ(quantity_to_text(80.0 * 1073741824.0, UnitClass::bytes), "80 GiB");
    EXPECT_EQ(quantity_to_text(2e-6, UnitClass::seconds), "2 us");
    EXPECT_EQ(quantity_to_text(0.04, UnitClass::percent), "4 %");
    EXPECT_EQ(number_to_text(1e21), "1e21");
    EXPECT_EQ(number_to_text(-0.5), "-0.5");
}

TEST(QuantityText, MessagesShowNoControlCharacters) {
    EXPECT_EQ(in_quotes("a\x1b[31m\n"), "'a\\x1b[31m\\x0a'");
    EXPECT_EQ(in_quotes(std::string(100, 'x')).size(), 65u);  // 60, three dots, two quotes
}

}  // namespace
}  // namespace headway
