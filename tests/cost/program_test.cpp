// The program given to the simulator carries the same work as the prediction.
#include "models/cost/program.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "models/cost/predict.hpp"
#include "models/workload/drawn_group.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

// Without noise every rank has T k rows: compute tasks sum to the predicted compute time.
TEST(Program, ComputeTimeEqualsPredictionWithoutNoise) {
    const Scenario s = toy::scenario();
    const Program program = build_program(s, s.plans[0], toy::profile());
    Seconds compute, predicted;
    for (const Task& task : program.tasks) {
        if (const auto* work = std::get_if<ComputeTask>(&task.work)) compute += work->per_rank[0];
    }
    const Prediction prediction = predict(s, toy::profile());
    for (const PhaseCost& phase : prediction.plans[0].phases) {
        if (!is_communication(phase.phase)) predicted += phase.time;
    }
    EXPECT_NEAR(compute / predicted, 1.0, 1e-9);
}

// latency + bytes / (link * efficiency) of the uniform exchange is the curve's time.
TEST(Program, ExchangeReproducesTheCurve) {
    const Scenario s = toy::scenario();
    const Program program = build_program(s, toy::hp(8, s.model, 8), toy::profile());
    const double bytes = 4096.0 * 1024 * 2;  // per pair: T H/N d_h b
    int seen = 0;
    for (const Task& task : program.tasks) {
        if (task.phase != Phase::head_scatter) continue;
        const ExchangeStage& stage = std::get<ExchangeTask>(task.work).stages.at(0);
        EXPECT_EQ(stage.uniform_bytes, static_cast<std::int64_t>(bytes / 8));
        const double rate =
            toy::kLink * stage.efficiency[static_cast<std::size_t>(PathClass::nvlink)];
        EXPECT_NEAR(stage.latency.in(second) + 7 * bytes / 8 / rate,
                    1e-6 + 7 * bytes / 8 / toy::kLink, 1e-12);
        ++seen;
    }
    EXPECT_EQ(seen, 2 * 2);  // layers, passes
}

TEST(Program, CombineReturnsWhatDispatchBrought) {
    Scenario s = toy::scenario();
    s.routing = {.seed = 4};
    const Program program = build_program(s, s.plans[0], toy::profile());
    std::shared_ptr<const TrafficMatrix> dispatch;
    for (const Task& task : program.tasks) {
        if (task.layer != 0 || task.pass != Pass::forward) continue;
        if (task.phase == Phase::dispatch)
            dispatch = std::get<ExchangeTask>(task.work).stages[0].matrices.at(0);
        if (task.phase == Phase::combine) {
            ASSERT_NE(dispatch, nullptr);
            const ExchangeStage& stage = std::get<ExchangeTask>(task.work).stages[0];
            EXPECT_EQ(stage.matrices.at(0), dispatch) << "one matrix, read the other way round";
            EXPECT_TRUE(stage.transposed);
        }
    }
    ASSERT_NE(dispatch, nullptr);
    std::int64_t total = 0;
    for (std::int64_t b : dispatch->bytes) total += b;
    EXPECT_EQ(total, 8LL * 4096 * 4 * 1024 * 2);  // N T k d b
}

// Drawing counts instead of tokens keeps the mean and the spread of what arrives.
TEST(DrawnGroup, CountsHaveTheMomentsOfTokens) {
    Scenario s = toy::scenario();
    s.routing = {.seed = 11};
    for (Dedup dedup : {Dedup::none, Dedup::rank}) {
        const Plan plan = toy::ep(dedup, 8);
        double mean[2] = {0, 0}, square[2] = {0, 0};
        const int samples = 40;
        for (int i = 0; i < samples; ++i) {
            int way = 0;
            for (Drawing drawing : {Drawing::by_token, Drawing::by_count}) {
                const DrawnGroup g = draw_group(s, plan, 0, 0, i, drawing);
                const double received = static_cast<double>(g.copies.received(0));
                mean[way] += received / samples;
                square[way] += received * received / samples;
                ++way;
            }
        }
        EXPECT_NEAR(mean[0] / mean[1], 1.0, 0.005);
        const double sigma0 = std::sqrt(square[0] - mean[0] * mean[0]),
                     sigma1 = std::sqrt(square[1] - mean[1] * mean[1]);
        EXPECT_NEAR(sigma0 / sigma1, 1.0, 0.6);  // 40 samples: 11 % standard error each
    }
}

}  // namespace
}  // namespace headway
