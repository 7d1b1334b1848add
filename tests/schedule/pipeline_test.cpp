#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>
#include <tuple>

#include "models/schedule/pipeline_order.hpp"
#include "models/schedule/pipeline_times.hpp"

namespace headway::inline schedule {
namespace {

// Times of one chunk: F, input gradient B, weight gradient W, and x of a forward with a backward
// beside it.
struct ChunkTimes {
    double f = 1, b = 1, w = 1, x = 0;

    double of(const PipelineItem& item) const {
        switch (item.part) {
            case PipelinePart::forward:
                return f;
            case PipelinePart::backward:
                return b + w;
            case PipelinePart::backward_input:
                return b;
            case PipelinePart::backward_weight:
                return w;
        }
        return 0;
    }
    double of(const PipelineStep& step) const { return step.beside ? x : of(step.item); }
};

PipelineTimes run(PipelineSchedule schedule, const PipelineShape& shape, const ChunkTimes& times,
                  double hop = 0.0) {
    EXPECT_EQ(pipeline_rule_broken(schedule, shape), "");
    return run_pipeline(
        pipeline_order(schedule, shape),
        [&](int, const PipelineStep& step) { return times.of(step) * second; },
        [&](int, int, int) { return hop * second; });
}

double makespan(PipelineSchedule schedule, const PipelineShape& shape, const ChunkTimes& times,
                double hop = 0.0) {
    return run(schedule, shape, times, hop).makespan.in(second);
}

using enum PipelineSchedule;

// Published and hand-solved makespans, with the formula beside them.
TEST(Pipeline, TakesTheTimesOfItsClosedForms) {
    const ChunkTimes t{1, 1.3, 0.7, 0};
    const double full = t.f + t.b + t.w;
    EXPECT_NEAR(makespan(gpipe, {4, 1, 8}, t), (8 + 3) * full, 1e-9);
    EXPECT_NEAR(makespan(one_f_one_b, {4, 1, 8}, t), (8 + 3) * full, 1e-9);  // 33.0
    // m (F + B) + (p - 1)(F + B) / v, in chunk times: 57.0
    EXPECT_NEAR(makespan(interleaved, {4, 2, 8}, t), 8 * 2 * full + 3 * full, 1e-9);
    // (m v + p - 1) c - (m v - (v - 1) p - 1)(c - x), x = 0.8 c: 50.4
    const double x = 0.8 * full;
    EXPECT_NEAR(makespan(combined_1f1b, {4, 2, 8}, {1, 1.3, 0.7, x}),
                (16 + 3) * full - (16 - 4 - 1) * (full - x), 1e-9);
    // m (F + B) + (p - 1)(F + B - 2 W): 28.8
    EXPECT_NEAR(makespan(zb_h1, {4, 1, 8}, t), 8 * full + 3 * (full - 2 * t.w), 1e-9);
    EXPECT_NEAR(makespan(zb_h2, {4, 1, 8}, t), 27.0, 1e-9);
    // (p / 2 - 1)(F&B + B - 3 W) of idle beside m F&B: 66, and 57.6 when a pair takes 2.4
    EXPECT_NEAR(makespan(dualpipe, {8, 1, 20}, {1, 1, 1, 3}), 66.0, 1e-9);
    EXPECT_NEAR(makespan(dualpipe, {8, 1, 20}, {1, 1, 1, 2.4}), 57.6, 1e-9);
    // Half as many ranks and micro-batches under the V take as long.
    EXPECT_NEAR(makespan(dualpipe_v, {4, 2, 10}, {1, 1, 1, 3}), 66.0, 1e-9);
    // At equal times no rank idles between its first and its last step: 2 m (F + B + W) + (p - 1)
    // F.
    EXPECT_NEAR(makespan(zb_v, {4, 2, 8}, {10, 10, 10, 0}), 510.0, 1e-9);
}

TEST(Pipeline, WithoutPeersIsTheSumOfItsWork) {
    EXPECT_NEAR(makespan(one_f_one_b, {1, 1, 5}, {1, 2, 3, 0}), 5 * 6.0, 1e-9);
    EXPECT_NEAR(makespan(interleaved, {1, 3, 4}, {1, 2, 3, 0}), 12 * 6.0, 1e-9);
    // F + (m - 1) x + B: the first forward and the last backward have nothing beside them.
    EXPECT_NEAR(makespan(combined_1f1b, {1, 1, 8}, {1, 1, 1, 2.5}), 1 + 7 * 2.5 + 2, 1e-9);
}

// A hop lies on the loop of 1F1B: 2 h ((p - 1) m / p + p - 2) more; interleaving pays it once,
// 2 (p v - 1) h, while a hop is shorter than a forward.
TEST(Pipeline, HopsDelayOneFOneBInEveryMicroBatch) {
    const ChunkTimes t{1, 1.3, 0.7, 0};
    for (const auto& [p, m] : {std::pair(4, 16), {4, 32}, {8, 64}}) {
        const double h = 0.1, bare = makespan(one_f_one_b, {p, 1, m}, t);
        EXPECT_NEAR(makespan(one_f_one_b, {p, 1, m}, t, h) - bare,
                    2 * h * ((p - 1.0) * m / p + p - 2), 1e-9);
        EXPECT_NEAR(makespan(interleaved, {p, 2, m}, t, h) - makespan(interleaved, {p, 2, m}, t),
                    2 * (2.0 * p - 1) * h, 1e-9);
    }
}

double held(const PipelineOrder& order, int rank, bool until_weight) {
    return peak_in_flight(order.steps[static_cast<std::size_t>(rank)], until_weight,
                          [](int, int) { return 1.0; });
}

TEST(Pipeline, HoldsAsManyMicroBatchesAsItsScheduleSays) {
    const int p = 4, m = 16;
    const PipelineOrder plain = pipeline_order(one_f_one_b, {p, 1, m});
    const PipelineOrder virtual_stages = pipeline_order(interleaved, {p, 3, m});
    const PipelineOrder h1 = pipeline_order(zb_h1, {p, 1, m});
    const PipelineOrder h2 = pipeline_order(zb_h2, {p, 1, m});
    const PipelineOrder v = pipeline_order(zb_v, {p, 2, m});
    const PipelineOrder dual = pipeline_order(dualpipe, {p, 1, m});
    for (int r = 0; r < p; ++r) {
        EXPECT_EQ(held(plain, r, true), p - r);
        EXPECT_EQ(held(virtual_stages, r, true), 2 * (p - r - 1) + 2 * p + 1);
        EXPECT_EQ(held(h1, r, false), p - r);  // until the input gradient
        EXPECT_EQ(held(h1, r, true), p);       // until the weight gradient
        EXPECT_EQ(held(h2, r, false), 2 * (p - r) - 1);
        EXPECT_EQ(held(v, r, true), 2 * p);  // chunks of half a stage
        EXPECT_EQ(held(dual, r, true), p + 1);
    }
}

std::vector<double> numbers(const std::string& text) {
    std::istringstream in(text);
    std::vector<double> values;
    for (double value; in >> value;) values.push_back(value);
    return values;
}

TEST(Pipeline, EqualsAnIndependentExecutionOfRandomOrders) {
    std::ifstream in(HEADWAY_SOURCE_DIR "/tests/schedule/executed_orders.csv");
    int cases = 0;
    for (std::string line; std::getline(in, line);) {
        if (line.starts_with("#") || line.starts_with("schedule")) continue;
        std::vector<std::string> cell;
        std::istringstream cells(line);
        for (std::string text; std::getline(cells, text, ',');) cell.push_back(text);
        ASSERT_EQ(cell.size(), 15u) << line;
        const auto number = [&](std::size_t i) { return std::stoi(cell[i]); };
        const auto found =
            std::find(kPipelineScheduleNames.begin(), kPipelineScheduleNames.end(), cell[0]);
        ASSERT_NE(found, kPipelineScheduleNames.end()) << line;
        const auto schedule = static_cast<PipelineSchedule>(found - kPipelineScheduleNames.begin());
        const PipelineShape shape{number(1), number(2), number(3), number(4)};
        ASSERT_EQ(pipeline_rule_broken(schedule, shape), "") << line;
        const ChunkTimes t{double(number(5)), double(number(6)), double(number(7)),
                           double(number(8))};
        const int hop = number(9), seed = number(10);
        const auto scale = [&](int stage) {
            return seed < 0 ? 10.0 : 10.0 + (stage * 7 + seed) % 5;
        };
        const PipelineOrder order = pipeline_order(schedule, shape);
        const PipelineTimes times = run_pipeline(
            order,
            [&](int, const PipelineStep& step) {
                double factor = scale(step.item.stage);
                if (step.beside) factor = std::max(factor, scale(step.beside->stage));
                return t.of(step) * factor * second;
            },
            [&](int, int, int) { return hop * second; });
        EXPECT_EQ(times.makespan.in(second), number(11)) << line;
        const auto busy = numbers(cell[12]), held_b = numbers(cell[13]), held_w = numbers(cell[14]);
        ASSERT_EQ(busy.size(), order.steps.size()) << line;
        for (std::size_t r = 0; r < busy.size(); ++r) {
            EXPECT_EQ(times.busy[r].in(second), busy[r]) << line;
            EXPECT_EQ(held(order, static_cast<int>(r), false), held_b[r]) << line;
            EXPECT_EQ(held(order, static_cast<int>(r), true), held_w[r]) << line;
            EXPECT_GE(times.bubble(r).in(second), -1e-9) << line;
        }
        ++cases;
    }
    EXPECT_GE(cases, 500);
}

// Every schedule, also at fewer micro-batches than ranks: each item once, forward before backward.
TEST(Pipeline, RunsEveryItemOfEveryLegalShapeOnce) {
    int legal = 0;
    for (std::size_t s = 0; s < kPipelineScheduleNames.size(); ++s)
        for (int p = 1; p <= 6; ++p)
            for (int v = 1; v <= 3; ++v)
                for (int m = 1; m <= 14; ++m) {
                    const auto schedule = static_cast<PipelineSchedule>(s);
                    const PipelineShape shape{p, v, m};
                    if (!pipeline_rule_broken(schedule, shape).empty()) continue;
                    ++legal;
                    const PipelineOrder order = pipeline_order(schedule, shape);
                    std::set<std::tuple<int, int, int, int>> done;
                    const auto add = [&](const PipelineItem& i) {
                        const int kind = i.part == PipelinePart::forward           ? 0
                                         : i.part == PipelinePart::backward_weight ? 2
                                                                                   : 1;
                        EXPECT_TRUE(
                            done.insert({kind, i.direction, i.stage, i.micro_batch}).second);
                        if (i.part == PipelinePart::backward) {
                            EXPECT_TRUE(
                                done.insert({2, i.direction, i.stage, i.micro_batch}).second);
                        }
                    };
                    for (const auto& rank : order.steps)
                        for (const PipelineStep& step : rank) {
                            add(step.item);
                            if (step.beside) add(*step.beside);
                        }
                    EXPECT_EQ(done.size(),
                              static_cast<std::size_t>(3 * order.directions * order.stages *
                                                       order.micro_batches))
                        << name(schedule) << " p " << p << " v " << v << " m " << m;
                    EXPECT_NO_THROW(run(schedule, shape, {1, 1, 1, 2}));
                }
    EXPECT_GT(legal, 300);
}

// More work, more ranks to cross or a longer hop never end sooner.
TEST(Pipeline, IsMonotoneInWorkAndHops) {
    for (const auto& [schedule, shape] : {std::pair(one_f_one_b, PipelineShape{4, 1, 8}),
                                          {interleaved, PipelineShape{4, 2, 8}},
                                          {zb_h1, PipelineShape{4, 1, 8}},
                                          {zb_v, PipelineShape{4, 2, 8}},
                                          {dualpipe, PipelineShape{4, 1, 8}}}) {
        const ChunkTimes t{1, 1.1, 0.9, 2.5};
        const double bare = makespan(schedule, shape, t);
        EXPECT_LE(bare, makespan(schedule, shape, {1.2, 1.1, 0.9, 2.7}));
        EXPECT_LE(bare, makespan(schedule, shape, {1, 1.1, 1.1, 2.7}));
        EXPECT_LE(bare, makespan(schedule, shape, t, 0.2));
    }
}

TEST(Pipeline, NamesTheRuleOfAnIllegalShape) {
    EXPECT_EQ(
        pipeline_rule_broken(interleaved, {4, 2, 6}),
        "interleaved leaves 2 of 6 micro-batches to a last group that is smaller than 4 ranks; "
        "nearest: 4 or 8 micro-batches");
    EXPECT_EQ(pipeline_rule_broken(one_f_one_b, {4, 2, 8}),
              "1f1b has 1 chunk on every rank, not 2; interleaved and combined_1f1b have more");
    EXPECT_EQ(pipeline_rule_broken(dualpipe, {3, 1, 8}),
              "dualpipe needs an even number of ranks, not 3; nearest: 4");
    EXPECT_EQ(pipeline_rule_broken(dualpipe, {4, 1, 7}),
              "dualpipe needs an even number of at least 8 micro-batches, not 7; nearest: 8");
    EXPECT_EQ(pipeline_rule_broken(zb_v, {4, 1, 8}), "zb_v has 2 chunks on every rank, not 1");
}

}  // namespace
}  // namespace headway::inline schedule
