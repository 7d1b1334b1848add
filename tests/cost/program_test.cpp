// The program given to the simulator carries the same work as the prediction.
#include "models/cost/program.hpp"

#include <gtest/gtest.h>

#include <array>
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

// recompute: full runs the layer's forward again in backward: what it dispatches goes the way of
// forward, and only what backward itself sends goes the other way round.
TEST(Program, ARecomputedDispatchGoesTheWayOfForward) {
    Scenario s = toy::scenario();
    s.routing = {.skew = Skew::zipf, .parameter = 1.0};
    s.plans[0].recompute = RecomputeLevel::full;
    std::vector<bool> dispatch, combine;
    for (const Task& task : build_program(s, s.plans[0], toy::profile()).tasks) {
        if (task.layer != 0 || task.pass != Pass::backward) continue;
        if (task.phase != Phase::dispatch && task.phase != Phase::combine) continue;
        const bool transposed = std::get<ExchangeTask>(task.work).stages.at(0).transposed;
        (task.phase == Phase::dispatch ? dispatch : combine).push_back(transposed);
    }
    EXPECT_EQ(dispatch, (std::vector<bool>{false, true}));  // again, then of gradients
    EXPECT_EQ(combine, (std::vector<bool>{true, false}));
}

// What a plan's exchanges and reductions run as: all pairs at once, node-dedup in two stages that
// forward chunk by chunk, rings.
TEST(Program, PlansChooseTheirAlgorithms) {
    Scenario s = toy::scenario();
    s.cluster = toy::cluster(2, 4);
    const auto stages_of = [&](const Plan& plan, Phase phase) {
        std::size_t stages = 0;
        for (const Task& task : build_program(s, plan, toy::profile()).tasks) {
            if (const auto* reduce = std::get_if<ReduceTask>(&task.work)) {
                EXPECT_EQ(reduce->algorithm, ReduceAlgorithm::ring);
            }
            if (task.phase != phase) continue;
            const auto& exchange = std::get<ExchangeTask>(task.work);
            EXPECT_EQ(exchange.algorithm, ExchangeAlgorithm::grouped);
            EXPECT_EQ(exchange.in_chunks, exchange.stages.size() > 1);
            stages = exchange.stages.size();
        }
        return stages;
    };
    EXPECT_EQ(stages_of(toy::ep(Dedup::none, 8), Phase::dispatch), 1U);
    EXPECT_EQ(stages_of(toy::ep(Dedup::rank, 8), Phase::dispatch), 1U);
    EXPECT_EQ(stages_of(toy::ep(Dedup::node, 8), Phase::dispatch), 2U);
    EXPECT_EQ(stages_of(toy::hp(8, s.model, 8), Phase::head_scatter), 1U);
}

// Micro-batches of one draw are written once and copied: what each task waits for is what it would
// wait for if it were written anew, as for draws of their own.
TEST(Program, CopiedMicroBatchesWaitForTheSame) {
    Scenario s = toy::scenario();
    s.batch.num_micro_batches = 4;
    const Program copied = build_program(s, s.plans[0], toy::profile(), {.num_draws = 1});
    const Program written = build_program(s, s.plans[0], toy::profile(), {.num_draws = 0});
    ASSERT_EQ(copied.tasks.size(), written.tasks.size());
    for (std::size_t t = 0; t < copied.tasks.size(); ++t) {
        const Task &a = copied.tasks[t], &b = written.tasks[t];
        EXPECT_EQ(a.after, b.after) << t;
        EXPECT_EQ(a.phase, b.phase);
        EXPECT_EQ(a.layer, b.layer);
        EXPECT_EQ(a.micro_batch, b.micro_batch);
        EXPECT_EQ(a.stream, b.stream);
        EXPECT_EQ(a.work.index(), b.work.index());
    }
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

// Only the first N layers: what is left out is neither reduced nor updated. Without the embedding
// and the head, a layer's share of gradients and of the update is the same for any N.
TEST(Program, FewerLayersReduceAndUpdateTheirOwnParametersOnly) {
    Scenario s = toy::scenario(2, 8);
    s.model.num_layers = 6;
    s.model.vocab_size = 128;
    Plan plan = toy::ep(Dedup::none, 8);
    const auto of = [&](int layers) {
        double reduced = 0.0, updated = 0.0;
        int buckets = 0;
        for (const Task& task :
             build_program(s, plan, toy::profile(), {.num_layers = layers}).tasks) {
            EXPECT_LT(task.layer, layers);
            if (const auto* reduce = std::get_if<ReduceTask>(&task.work)) {
                reduced += static_cast<double>(reduce->bytes);
                ++buckets;
            }
            if (task.phase == Phase::optimizer)
                updated += std::get<ComputeTask>(task.work).bytes.in(byte);
        }
        EXPECT_EQ(buckets, 2 * layers + 1);  // replicated and expert gradients, and the table
        return std::array{reduced, updated};
    };
    const auto two = of(2), four = of(4), six = of(6);
    for (std::size_t i = 0; i < 2; ++i) {
        EXPECT_GT(two[i], 0.0);
        EXPECT_NEAR((six[i] - four[i]) / (four[i] - two[i]), 1.0, 1e-6);
        EXPECT_LT(two[i], 0.6 * six[i]);
    }
}

}  // namespace
}  // namespace headway
