#include "models/vocab/units.hpp"

#include <gtest/gtest.h>

#include <concepts>
#include <type_traits>

namespace headway {
namespace {

static_assert(450.0 * GB / (450.0 * GB / second) == second);
static_assert(std::is_same_v<decltype(GB / second), Bandwidth>);
static_assert(std::is_same_v<decltype(GB / MB), double>);
static_assert(std::is_same_v<decltype((TFLOP / second) * second), Flops>);
static_assert(!std::is_convertible_v<double, Seconds>);
static_assert(!std::is_constructible_v<Seconds, double>);
static_assert(!std::is_constructible_v<Seconds, Bytes>);

template <class A, class B>
concept Addable = requires(A a, B b) {
    a + b;
};
static_assert(Addable<Bytes, Bytes>);
static_assert(!Addable<Bytes, Seconds>);

TEST(Units, DecimalAndBinaryPrefixesDiffer) {
    EXPECT_EQ(GB.in(byte), 1e9);
    EXPECT_EQ(GiB.in(byte), 1024.0 * 1024.0 * 1024.0);
    EXPECT_EQ((400.0 * Gbit).in(GB), 50.0);  // 400 Gbit / 8
}

TEST(Units, WholeByteCountsAreExactTo2To53) {
    const double n = 9007199254740991.0;  // 2^53 - 1
    EXPECT_EQ((n * byte).in(byte), n);
}

}  // namespace
}  // namespace headway
