#include "models/vocab/error.hpp"

#include <gtest/gtest.h>

namespace headway {
namespace {

// A guess is for slips of the hand; another number is another thing.
TEST(DidYouMean, GuessesWordsAndNotNumbers) {
    EXPECT_EQ(did_you_mean("hiden", {"hidden", "heads"}), "hidden");
    EXPECT_EQ(did_you_mean("fp4", {"fp64", "fp32", "fp8"}), "");
    EXPECT_EQ(did_you_mean("dgx_h300", {"dgx_h100", "dgx_h200"}), "");
    EXPECT_EQ(did_you_mean("dgx_g100", {"dgx_h100", "dgx_h200"}), "dgx_h100");
}

}  // namespace
}  // namespace headway
