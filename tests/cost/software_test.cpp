// Intervals of other people's software, what two plans' noise hides, and model FLOPs that no plan
// changes.
#include "models/cost/software.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "models/cost/predict.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

constexpr double kNinety = 1.6449;

// t = 10 s, curves +-3 s, software 0.6 t to 1.4 t, that is 4 s to either side: hypot(3, 4) = 5.
TEST(Software, CurvesAndSoftwareAddInQuadratureOnEachSide) {
    const Interval curves{7.0 * second, 13.0 * second};
    const Interval both = widened(curves, 10.0 * second, {0.6, 1.4});
    EXPECT_NEAR(both.low.in(second), 5.0, 1e-12);
    EXPECT_NEAR(both.high.in(second), 15.0, 1e-12);
    const Interval slower = widened(curves, 10.0 * second, {1.0, 1.4});
    EXPECT_NEAR(slower.low.in(second), 7.0, 1e-12);
    EXPECT_NEAR(slower.high.in(second), 15.0, 1e-12);
}

TEST(Software, OnlyPublicProfilesHaveATerm) {
    Profile profile = toy::profile();
    profile.provenance.kind = "measured";
    EXPECT_EQ(software_term(profile).step.high, 1.0);
    const Scenario s = toy::scenario();
    const double own = predict(s, profile).plans[0].step_interval.high.in(second);
    profile.provenance.kind = "public";
    EXPECT_EQ(software_term(profile).step.high, kOtherSoftware.step.high);
    EXPECT_GT(predict(s, profile).plans[0].step_interval.high.in(second), own);
}

PlanPrediction plan_of(double expert, double exchange, std::vector<double> sigma) {
    PlanPrediction plan;
    plan.phases = {{.phase = Phase::expert, .time = expert * second},
                   {.phase = Phase::dispatch, .time = exchange * second}};
    plan.step = (expert + exchange) * second;
    plan.curve_sigma = std::move(sigma);
    return plan;
}

// Both plans rest on curve 0 with 1 s each: its error cancels, and 0.1 s of difference is decided.
// Where they rest on two curves, 1.645 sqrt(1 + 1) s hide it.
TEST(Undecided, ASharedCurveCancels) {
    const Profile profile = toy::profile();
    EXPECT_FALSE(is_undecided(plan_of(10, 1, {1, 0}), plan_of(10, 1.1, {1, 0}), profile));
    EXPECT_TRUE(is_undecided(plan_of(10, 1, {1, 0}), plan_of(10, 1.1, {0, 1}), profile));
    const double hidden = kNinety * std::sqrt(2.0);
    EXPECT_FALSE(
        is_undecided(plan_of(10, 1, {1, 0}), plan_of(10, 1 + 1.01 * hidden, {0, 1}), profile));
    EXPECT_TRUE(
        is_undecided(plan_of(10, 1, {1, 0}), plan_of(10, 1 + 0.99 * hidden, {0, 1}), profile));
}

// The noise is what software may do to what differs, or to the step, whichever is less. 5 s less
// and 4 s more, 1 s apart: 0.92 x 5 s hide it. Nothing but 6 s more: 0.92 x 6 s do not. The
// share of the step, 12 s of 100, hides 9 s less and 4 s more, 5 s apart; it does not hide 19
// and 4.
TEST(Undecided, SoftwareErrsOnWhatDiffers) {
    EXPECT_EQ(kOtherSoftware.difference.of_differing, 0.92);
    EXPECT_EQ(kOtherSoftware.difference.of_step, 0.12);
    Profile profile = toy::profile();
    profile.provenance.kind = "public";
    EXPECT_TRUE(is_undecided(plan_of(95, 9, {}), plan_of(100, 5, {}), profile));
    EXPECT_FALSE(is_undecided(plan_of(100, 5, {}), plan_of(100, 11, {}), profile));
    EXPECT_TRUE(is_undecided(plan_of(91, 9, {}), plan_of(100, 5, {}), profile));
    EXPECT_FALSE(is_undecided(plan_of(81, 9, {}), plan_of(100, 5, {}), profile));
}

Prediction one_plan(PlanPrediction plan, double tokens_per_second) {
    plan.name = "ep";
    plan.num_ranks = 1;
    plan.tokens_per_second_per_gpu = tokens_per_second;
    Prediction prediction{.baseline = "ep"};
    prediction.plans.push_back(std::move(plan));
    return prediction;
}

// a: 1,000 tokens in 20 s, 50 a second; b: 500 tokens in 11 s, 45.45 a second, 22 s for a's tokens.
// Both rest on curve 0, by 2 s and by 2 x 1 s for the same tokens: that cancels, and 2 s of
// difference are decided. Rested b on another curve, 1.645 sqrt(4 + 4) = 4.7 s would hide them.
TEST(HeldAgainst, IsTokenForToken) {
    const Profile profile = toy::profile();
    const Prediction a = one_plan(plan_of(15, 5, {2, 0}), 1000.0 / 20);
    const Rival decided =
        held_against(a, one_plan(plan_of(8, 3, {1, 0}), 500.0 / 11), profile, true);
    ASSERT_EQ(decided.answers.size(), 1u);
    EXPECT_NEAR(decided.answers[0].speedup, 22.0 / 20, 1e-12);
    EXPECT_FALSE(decided.answers[0].undecided);
    const Prediction b = one_plan(plan_of(8, 3, {0, 1}), 500.0 / 11);
    EXPECT_TRUE(held_against(a, b, profile, true).answers[0].undecided);
}

// By two profiles nothing cancels. 20 s and 22 s are 2 s apart: hypot(1.2, 1.6) = 2 is the border,
// of the upper end of the faster and the lower end of the slower.
TEST(HeldAgainst, OfTwoProfilesTheIntervalsCount) {
    const Profile profile = toy::profile();
    const auto answer = [&](double high) {
        PlanPrediction a = plan_of(15, 5, {}), b = plan_of(16, 6, {});
        a.step_interval = {0.0 * second, high * second};
        b.step_interval = {(22 - 1.6) * second, 100.0 * second};
        return held_against(one_plan(a, 50), one_plan(b, 1000.0 / 22), profile, false).answers[0];
    };
    EXPECT_FALSE(answer(20 + 1.19).undecided);
    EXPECT_TRUE(answer(20 + 1.21).undecided);
}

// HP adds two projections of 2 d H d_h FLOPs a token. They are no model FLOPs: the rates of the
// plans stand as their steps do.
TEST(ModelFlops, AreTheBaselinesUnderEveryPlan) {
    Scenario s = toy::scenario();
    s.plans.push_back(toy::hp(8, s.model, 8));
    const Prediction p = predict(s, toy::profile());
    ASSERT_EQ(p.plans.size(), 2u);
    const double ratio = p.plans[0].model_flop_rate_per_gpu / p.plans[1].model_flop_rate_per_gpu;
    EXPECT_NEAR(ratio, p.plans[1].step / p.plans[0].step, 1e-9);
}

// 8 ranks, one sequence of 4096 each.
TEST(Totals, AreWhatOneComputesByHand) {
    const Scenario s = toy::scenario();
    const Prediction p = predict(s, toy::profile());
    EXPECT_EQ(p.size.num_ranks, 8);
    EXPECT_EQ(p.size.sequences, 8);
    EXPECT_EQ(p.size.tokens(), 8 * 4096);
    const PlanPrediction& plan = p.plans[0];
    const double rate = 8 * 4096 / plan.step.in(second);
    EXPECT_NEAR(plan.tokens_per_second(), rate, 1e-6 * rate);
    EXPECT_NEAR(plan.tokens_per_day(), 86400 * rate, 1e-6 * 86400 * rate);
    EXPECT_NEAR(plan.gpu_hours_per_trillion_tokens(), 8 * 1e12 / rate / 3600, 1.0);
    EXPECT_NEAR(plan.mfu(), plan.model_flop_rate_per_gpu / s.cluster.device.peak_matmul, 1e-12);
    // d = 1024, E = 64, k = 4, f = 512: 60 of 64 experts of 2 d f are idle, in two layers, and the
    // embedding of 32000 d is a look-up.
    const double idle = 2.0 * 60 * 2 * 1024 * 512 + 32000.0 * 1024;
    EXPECT_NEAR(plan.parameters - plan.active_parameters, idle, 1.0);
}

}  // namespace
}  // namespace headway
