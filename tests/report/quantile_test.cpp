#include "models/vocab/quantile.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace headway {
namespace {

// q between order statistics: of {1, 2, 4, 8}, q = 0.5 is 3, q = 0.1 is 1 + 0.3 (2 - 1).
TEST(Quantile, Interpolates) {
    std::vector<double> values = {8, 1, 4, 2};
    EXPECT_DOUBLE_EQ(quantile(values, 0.5), 3.0);
    EXPECT_DOUBLE_EQ(quantile(values, 0.1), 1.3);
    EXPECT_DOUBLE_EQ(quantile(values, 1.0), 8.0);
}

}  // namespace
}  // namespace headway
