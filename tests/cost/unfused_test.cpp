// The released code's extra moves on the toy machine, where a byte costs 1 ps and a launch nothing.
#include <gtest/gtest.h>

#include <algorithm>

#include "models/cost/predict.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

double seconds(const PlanPrediction& plan, Phase phase, Pass pass) {
    double total = 0;
    for (const PhaseCost& c : plan.phases)
        if (c.phase == phase && c.pass == pass) total += c.time.in(second);
    return total;
}

// unfused - fused, of one phase in both layers
double extra(const Scenario& s, Plan plan, Phase phase, Pass pass) {
    const PlanPrediction fused = predict_plan(s, plan, toy::profile());
    plan.implementation = Implementation::unfused;
    return seconds(predict_plan(s, plan, toy::profile()), phase, pass) -
           seconds(fused, phase, pass);
}

constexpr double kTokens = 4096, kWidth = 1024, kCopies = 4, kLayers = 2;
constexpr double kRow = kTokens * kWidth, kWeights = 64.0 / 8 * 2 * 1024 * 512;

// b = 2: duplication reads 4 row and writes 2 k row; the weighted sum runs apart from the unpermute
// (4 k row) into fp32 (2 row more).
TEST(Unfused, EpDuplicatesAndSumsApart) {
    const Scenario s = toy::scenario();
    const Plan ep = s.plans[0];
    EXPECT_NEAR(extra(s, ep, Phase::permute, Pass::forward),
                kLayers * (4 + 2 * kCopies) * kRow / toy::kByteRate, 1e-12);
    EXPECT_NEAR(extra(s, ep, Phase::unpermute, Pass::forward),
                kLayers * (4 * kCopies + 2) * kRow / toy::kByteRate, 1e-12);
    EXPECT_NEAR(extra(s, ep, Phase::expert, Pass::forward), kLayers * 6 * kWeights / toy::kByteRate,
                1e-12);
}

// Three waits for the host instead of one.
TEST(Unfused, EpWaitsThreeTimes) {
    Scenario s = toy::scenario();
    Profile profile = toy::profile();
    profile.overheads.host_sync = 1e-3 * second;
    Plan plan = s.plans[0];
    const double fused =
        seconds(predict_plan(s, plan, profile), Phase::count_exchange, Pass::forward);
    plan.implementation = Implementation::unfused;
    const double unfused =
        seconds(predict_plan(s, plan, profile), Phase::count_exchange, Pass::forward);
    EXPECT_NEAR(fused, kLayers * 1e-3, 1e-12);
    EXPECT_NEAR(unfused, kLayers * 3e-3, 1e-12);
}

// b = 2, P = k row: 2 P to copies in token order, (4 - 2) row + (4 + 2) row + 4 row around the
// gather.
TEST(Unfused, HpCopiesAroundTheGather) {
    const Scenario s = toy::scenario();
    EXPECT_NEAR(extra(s, toy::hp(8, s.model, 8), Phase::unpermute, Pass::forward),
                kLayers * (4 * kCopies + 12) * kRow / toy::kByteRate, 1e-12);
}

// Language head and loss in fp32: the logits are twice the bytes (one read in the forward loss);
// the head's products are TF32, twice the time of bf16 whether FLOPs or bytes bound them.
TEST(Unfused, HeadAndLossAreInFp32) {
    const Scenario s = toy::scenario();
    const Plan ep = s.plans[0];
    const double logits = 2.0 * kTokens * static_cast<double>(s.model.vocab_size);
    EXPECT_NEAR(extra(s, ep, Phase::loss, Pass::forward), logits / toy::kByteRate, 1e-12);
    for (const Pass pass : {Pass::forward, Pass::backward}) {
        const double fused = seconds(predict_plan(s, ep, toy::profile()), Phase::lm_head, pass);
        EXPECT_GT(fused, 0.0);
        EXPECT_NEAR(extra(s, ep, Phase::lm_head, pass), fused, 1e-12);
    }
}

// Whatever the machine, the same traffic and never a faster step.
TEST(Unfused, SendsTheSameAndIsNeverFaster) {
    const Scenario s = toy::scenario();
    for (Plan plan : {s.plans[0], toy::hp(8, s.model, 8), toy::hp(8, s.model, 4)}) {
        const PlanPrediction fused = predict_plan(s, plan, toy::profile());
        plan.implementation = Implementation::unfused;
        for (const int chunks : {1, 4}) {
            plan.overlap_chunks = chunks;
            const PlanPrediction unfused = predict_plan(s, plan, toy::profile());
            EXPECT_EQ(unfused.traffic.sent_mean.in(byte), fused.traffic.sent_mean.in(byte));
            if (chunks == 1) {
                EXPECT_GT(unfused.step.in(second), fused.step.in(second));
            }
        }
    }
}

}  // namespace
}  // namespace headway
