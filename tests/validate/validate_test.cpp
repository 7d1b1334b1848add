// Validation on a machine made by hand, whose all-to-all curve is a line through two points.
#include "models/validate/validate.hpp"

#include <gtest/gtest.h>

#include "models/vocab/error.hpp"

namespace headway {
namespace {

// Points (1 MiB, 10 us) and (3 MiB, 30 us): half way, at 2 MiB sent, T = 20 us.
Profile profile_of_two_points() {
    Profile profile;
    profile.communication.push_back({.collective = Collective::all_to_all,
                                     .path = PathClass::nvlink,
                                     .num_ranks = 2,
                                     .bytes = {1048576, 3 * 1048576},
                                     .seconds = {10e-6, 30e-6}});
    return profile;
}

AnchorLoader loader() {
    return {.profile = [](const std::string&) { return profile_of_two_points(); },
            .scenario = [](const std::filesystem::path&) { return Scenario{}; }};
}

// With n = 2 ranks half of the buffer S is sent: S = 2 MiB sits on the first point, S = 4 MiB in
// the middle. Published 25 us against predicted 20 us is an error of 20/25 - 1 = -20 %.
TEST(Validate, JudgesHeldOutSizesAndMarksFittedOnes) {
    const AnchorSet set{.exchanges = {{.name = "pair",
                                       .path = PathClass::nvlink,
                                       .num_ranks = 2,
                                       .bytes = {2 * 1048576, 4 * 1048576},
                                       .seconds = {12e-6, 25e-6},
                                       .tolerance = 0.1}}};
    const auto results = validate(set, loader());
    ASSERT_EQ(results.size(), 2u);
    EXPECT_EQ(results[0].verdict, Verdict::fitted);
    EXPECT_EQ(results[1].verdict, Verdict::out);
    EXPECT_NEAR(results[1].predicted, 20e-6, 1e-12);
    EXPECT_NEAR(results[1].error, -0.2, 1e-9);
    EXPECT_TRUE(any_out(results));
}

TEST(Validate, WithoutAToleranceAnAnchorIsListed) {
    const AnchorSet set{.exchanges = {{.name = "pair",
                                       .path = PathClass::nvlink,
                                       .num_ranks = 2,
                                       .bytes = {4 * 1048576},
                                       .seconds = {25e-6}}}};
    const auto results = validate(set, loader());
    EXPECT_EQ(results[0].verdict, Verdict::listed);
    EXPECT_FALSE(any_out(results));
}

// Another run of the same machine is judged at every size, the fitted ones included.
TEST(Validate, ARepeatCountsAtFittedSizesToo) {
    const AnchorSet set{.exchanges = {{.name = "pair",
                                       .path = PathClass::nvlink,
                                       .num_ranks = 2,
                                       .bytes = {2 * 1048576},
                                       .seconds = {8e-6},
                                       .repeat = true}}};
    const auto results = validate(set, loader());
    EXPECT_EQ(results[0].category, AnchorCategory::all_to_all_repeat);
    EXPECT_EQ(results[0].verdict, Verdict::listed);
    EXPECT_NEAR(results[0].error, 10.0 / 8.0 - 1.0, 1e-9);
}

AnchorResult step_error(double error, Verdict verdict = Verdict::listed) {
    return {.category = AnchorCategory::step, .error = error, .verdict = verdict};
}

// Errors -0.3, 0.1, 0.2 (and a fitted one, which does not count): bias 0, mean 0.2, median 0.2,
// nearest-rank p95 = third of three = 0.3, worst -0.3.
TEST(Statistics, AreOfHeldOutErrors) {
    const auto all = statistics({step_error(-0.3, Verdict::out), step_error(0.1, Verdict::pass),
                                 step_error(0.2), step_error(9.0, Verdict::fitted)});
    ASSERT_EQ(all.size(), 1u);
    const AnchorStatistics& s = all.front();
    EXPECT_EQ(s.count, 3);
    EXPECT_EQ(s.fitted, 1);
    EXPECT_EQ(s.judged, 2);
    EXPECT_EQ(s.out, 1);
    EXPECT_NEAR(s.bias, 0.0, 1e-12);
    EXPECT_NEAR(s.mean, 0.2, 1e-12);
    EXPECT_NEAR(s.median, 0.2, 1e-12);
    EXPECT_NEAR(s.p95, 0.3, 1e-12);
    EXPECT_NEAR(s.worst, -0.3, 1e-12);
}

TEST(Statistics, OfAnEvenNumberTakeTheMiddleOfTheMedians) {
    const auto all = statistics({step_error(0.1), step_error(0.3)});
    EXPECT_NEAR(all.front().median, 0.2, 1e-12);
}

// Steps a (BF16, -0.3), b (BF16, pipeline, +0.1) and c (MXFP8, pipeline, +0.5): precisions come
// first, and b counts twice.
TEST(Statistics, OfAGroupAreOfItsSteps) {
    std::vector<AnchorResult> results = {step_error(-0.3), step_error(0.1), step_error(0.5)};
    results[0].groups = {"BF16"};
    results[1].groups = {"BF16", "pipeline"};
    results[2].groups = {"MXFP8", "pipeline"};
    const auto groups = step_groups(results);
    ASSERT_EQ(groups.size(), 3u);
    EXPECT_EQ(groups[0].name, "BF16");
    EXPECT_NEAR(groups[0].statistics.bias, -0.1, 1e-12);
    EXPECT_NEAR(groups[0].statistics.p90, 0.3, 1e-12);
    EXPECT_EQ(groups[1].name, "MXFP8");
    EXPECT_EQ(groups[1].statistics.count, 1);
    EXPECT_EQ(groups[2].name, "pipeline");
    EXPECT_NEAR(groups[2].statistics.median, 0.3, 1e-12);
}

// Published 3 s over 2 s, predicted 4 s over 2 s: 1.5 and 2.
TEST(Ratios, AreOfTwoSteps) {
    const std::vector<AnchorResult> results = {
        {.category = AnchorCategory::step, .name = "a", .published = 3.0, .predicted = 4.0},
        {.category = AnchorCategory::memory, .name = "b", .published = 9.0, .predicted = 9.0},
        {.category = AnchorCategory::step, .name = "b", .published = 2.0, .predicted = 2.0}};
    const auto all = ratios({{.name = "pair", .run = "a", .over = "b"}}, results);
    ASSERT_EQ(all.size(), 1u);
    EXPECT_NEAR(all[0].published, 1.5, 1e-12);
    EXPECT_NEAR(all[0].predicted, 2.0, 1e-12);
    EXPECT_THROW(ratios({{.name = "pair", .run = "a", .over = "c"}}, results), InputError);
}

TEST(Validate, AnUnknownPlanOrAMissingProfileIsBadInput) {
    const AnchorSet set{.runs = {{.name = "a", .scenario = "s.yaml", .plan = "hp"}}};
    EXPECT_THROW(validate(set, loader()), InputError);
    AnchorLoader load = loader();
    load.scenario = [](const std::filesystem::path&) {
        Scenario scenario;
        scenario.profile = profile_of_two_points();
        scenario.plans = {{.name = "ep"}};
        return scenario;
    };
    EXPECT_THROW(validate(set, load), InputError);
}

}  // namespace
}  // namespace headway
