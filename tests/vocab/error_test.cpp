#include "models/vocab/error.hpp"

#include <gtest/gtest.h>

namespace headway {
namespace {

// A guess is for slips of the hand; another number of a short name is another thing.
TEST(DidYouMean, GuessesWordsAndNotTheNumbersThatAreNames) {
    EXPECT_EQ(did_you_mean("hiden", {"hidden", "heads"}), "hidden");
    EXPECT_EQ(did_you_mean("fp4", {"fp64", "fp32", "fp8"}), "");
    EXPECT_EQ(did_you_mean("olmoe_1b_70b", {"olmoe_1b_7b"}), "olmoe_1b_7b");
}

}  // namespace
}  // namespace headway
