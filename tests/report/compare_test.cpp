#include "models/report/compare.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "models/vocab/error.hpp"

namespace headway {
namespace {

// Predicted: 3 equal layers of dispatch at p each. Measured: 2 ranks, layers 0 and 1, where rank 1
// is the slower one: m0 and m1. The error is p / mean(m0, m1) - 1.
TEST(Compare, JoinsTheMeanExecutionOfTheSlowestRank) {
    const Seconds p = 9.0 * ms, m0 = 8.0 * ms, m1 = 12.0 * ms;
    Timeline predicted, measured;
    predicted.spans = {{.layer = 0,
                        .phase = Phase::dispatch,
                        .count = 3,
                        .duration = p,
                        .low = 8.5 * ms,
                        .high = 10.5 * ms}};
    for (const int rank : {0, 1}) {
        const double factor = rank == 1 ? 1.0 : 0.5;
        measured.spans.push_back(
            {.rank = rank, .layer = 0, .phase = Phase::dispatch, .duration = factor * m0});
        measured.spans.push_back(
            {.rank = rank, .layer = 1, .phase = Phase::dispatch, .duration = factor * m1});
    }
    const Comparison comparison = compare(predicted, measured);
    ASSERT_EQ(comparison.phases.size(), 1u);
    const PhaseComparison& phase = comparison.phases[0];
    EXPECT_DOUBLE_EQ(phase.measured.in(ms), 0.5 * (m0 + m1).in(ms));
    EXPECT_DOUBLE_EQ(phase.error(), p / (0.5 * (m0 + m1)) - 1.0);
    EXPECT_TRUE(phase.inside());
    EXPECT_DOUBLE_EQ(comparison.worst_error(), phase.error());
}

// A recomputed phase runs twice in the backward of a layer: a + b on either side, of each
// micro-batch; the slower rank counts.
TEST(Compare, PhasesThatRunAgainAddUp) {
    const Seconds a = 2.0 * ms, b = 5.0 * ms;
    Timeline predicted, measured;
    for (const Seconds time : {a, b}) {
        predicted.spans.push_back({.layer = 0,
                                   .pass = Pass::backward,
                                   .phase = Phase::dispatch,
                                   .duration = time,
                                   .low = 0.5 * time,
                                   .high = 2.0 * time});
        for (const int micro_batch : {0, 1}) {
            for (const int rank : {0, 1})
                measured.spans.push_back({.rank = rank,
                                          .layer = 0,
                                          .micro_batch = micro_batch,
                                          .pass = Pass::backward,
                                          .phase = Phase::dispatch,
                                          .duration = (1.0 + rank) * time});
        }
    }
    const Comparison comparison = compare(predicted, measured);
    ASSERT_EQ(comparison.phases.size(), 1u);
    EXPECT_DOUBLE_EQ(comparison.phases[0].predicted.in(ms), (a + b).in(ms));
    EXPECT_DOUBLE_EQ(comparison.phases[0].measured.in(ms), 2.0 * (a + b).in(ms));
    EXPECT_TRUE(comparison.phases[0].inside());
}

TEST(Compare, PhasesOfOneSideOnlyAreListedNotHidden) {
    Timeline predicted, measured;
    predicted.spans = {{.phase = Phase::norm, .duration = 1.0 * ms}};
    measured.spans = {{.phase = Phase::route, .duration = 1.0 * ms}};
    const Comparison comparison = compare(predicted, measured);
    EXPECT_TRUE(comparison.phases.empty());
    EXPECT_EQ(comparison.only_predicted, std::vector<std::string>{"norm forward"});
    EXPECT_EQ(comparison.only_measured, std::vector<std::string>{"route forward"});
    EXPECT_NE(to_table(comparison).find("measured only: route forward"), std::string::npos);
}

// Three runs of phases a and b: each phase is judged by its own median, a pass by the median of its
// sums, so that one disturbed run moves neither.
TEST(Compare, SeveralRunsGiveTheirMedians) {
    Timeline predicted;
    predicted.spans = {{.phase = Phase::dispatch, .duration = 1.0 * ms},
                       {.phase = Phase::expert, .duration = 1.0 * ms}};
    const auto run = [](double a, double b) {
        Timeline t{.plan = "p"};
        t.spans = {{.phase = Phase::dispatch, .duration = a * ms},
                   {.phase = Phase::expert, .duration = b * ms}};
        return t;
    };
    const std::vector<Timeline> runs = {run(1.0, 9.0), run(5.0, 2.0), run(2.0, 3.0)};
    const Comparison comparison = compare(predicted, runs);
    ASSERT_EQ(comparison.phases.size(), 2u);
    EXPECT_DOUBLE_EQ(comparison.phases[0].measured.in(ms), 2.0);  // of 1, 5, 2
    EXPECT_DOUBLE_EQ(comparison.phases[1].measured.in(ms), 3.0);  // of 9, 2, 3
    EXPECT_DOUBLE_EQ(comparison.passes[0].measured.in(ms), 7.0);  // of 10, 7, 5
    const std::vector<Timeline> two = {run(1.0, 4.0), run(3.0, 2.0)};
    EXPECT_DOUBLE_EQ(compare(predicted, two).phases[0].measured.in(ms), 2.0);
    Timeline other{.plan = "p"};
    other.spans = {{.phase = Phase::dispatch, .duration = 1.0 * ms}};
    EXPECT_THROW(compare(predicted, {run(1, 1), other}), InputError);
}

TEST(Compare, PassesSumTheJoinedPhases) {
    Timeline predicted, measured;
    predicted.spans = {{.phase = Phase::dispatch, .duration = 1.0 * ms},
                       {.phase = Phase::expert, .duration = 2.0 * ms},
                       {.pass = Pass::backward, .phase = Phase::expert, .duration = 5.0 * ms}};
    measured.spans = {{.phase = Phase::dispatch, .duration = 2.0 * ms},
                      {.phase = Phase::expert, .duration = 2.0 * ms},
                      {.pass = Pass::backward, .phase = Phase::expert, .duration = 4.0 * ms}};
    const Comparison comparison = compare(predicted, measured);
    ASSERT_EQ(comparison.passes.size(), 2u);
    EXPECT_DOUBLE_EQ(comparison.passes[0].error(), 3.0 / 4.0 - 1.0);
    EXPECT_DOUBLE_EQ(comparison.passes[1].error(), 5.0 / 4.0 - 1.0);
    EXPECT_DOUBLE_EQ(comparison.worst_error(), -0.5);  // dispatch: 1 predicted, 2 measured
}

TEST(Compare, TwoZerosAgree) {
    EXPECT_DOUBLE_EQ(signed_error(Seconds{}, Seconds{}), 0.0);
}

}  // namespace
}  // namespace headway
