// Layers that alternate: dense and MoE ones, with a window and without.
#include <gtest/gtest.h>

#include "models/cost/predict.hpp"
#include "models/cost/program.hpp"
#include "models/workload/parameters.hpp"
#include "models/workload/workload.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

// L = 9 layers: one dense, then every second MoE: layers 2, 4, 6, 8 of 9.
Scenario alternating() {
    Scenario s = toy::scenario();
    s.model.num_layers = 9;
    s.model.num_dense_layers = 1;
    s.model.moe_every = 2;
    s.model.dense_width = 2048;
    return s;
}

double core_flops(const LayerWork& layer) {
    for (const PhaseWork& phase : layer.forward) {
        if (phase.phase == Phase::attention_core)
            return std::get<ComputeWork>(phase.work).kernels[0].flops.in(flop);
    }
    return 0.0;
}

TEST(LayerPattern, EqualLayersAreOneEntry) {
    const Scenario s = alternating();
    const Workload w = build_workload(s, s.plans[0]);
    ASSERT_EQ(w.layers.size(), 2u);
    EXPECT_EQ(w.layers[0].first_layer, 0);
    EXPECT_EQ(w.layers[0].count, 5);
    EXPECT_FALSE(w.layers[0].is_moe);
    EXPECT_EQ(w.layers[1].first_layer, 2);
    EXPECT_EQ(w.layers[1].count, 4);
    EXPECT_TRUE(w.layers[1].is_moe);
}

// P = L a + D 3 d w + M (d E + 2 d E f), with D = 5 dense and M = 4 MoE layers.
TEST(LayerPattern, ParametersFollowTheLayers) {
    const ModelSpec model = alternating().model;
    const ParameterCount count = count_parameters(model);
    EXPECT_EQ(count.dense_mlp, 5 * 3.0 * 1024 * 2048);
    EXPECT_EQ(count.router, 4 * 1024.0 * 64);
    EXPECT_EQ(count.experts, 4 * 2.0 * 1024 * 64 * 512);
    EXPECT_EQ(count.attention, 9 * attention_parameters(model));
}

// The program names the layers themselves: its tasks add up to the prediction's compute time, and
// experts run in layers 2, 4, 6 and 8.
TEST(LayerPattern, ProgramAndPredictionRunTheSameLayers) {
    Scenario s = alternating();
    s.model.attention.window = 1024;
    s.model.attention.full_every = 3;
    const Program program = build_program(s, s.plans[0], toy::profile());
    Seconds compute, predicted;
    for (const Task& task : program.tasks) {
        if (const auto* work = std::get_if<ComputeTask>(&task.work)) compute += work->per_rank[0];
        if (task.phase == Phase::expert) {
            EXPECT_TRUE(task.layer % 2 == 0 && task.layer > 0) << task.layer;
        }
    }
    const Prediction prediction = predict(s, toy::profile());
    for (const PhaseCost& phase : prediction.plans[0].phases) {
        if (!is_communication(phase.phase)) predicted += phase.time;
    }
    EXPECT_NEAR(compute / predicted, 1.0, 1e-9);
}

// A query at position p of its chunk sees p + 1/2 keys in the mean, whatever the sequence.
TEST(LayerPattern, ChunksAreSeenByTheirOwnTokens) {
    for (const int sequence : {4096, 5000, 1000}) {
        Scenario s = toy::scenario();
        s.batch.sequence_length = sequence;
        s.model.attention.window = 1024;
        s.model.attention.window_kind = WindowKind::chunked;
        double keys = 0.0;
        for (int p = 0; p < sequence; ++p) keys += p % 1024 + 0.5;
        const double flops = 2.0 * keys * 8 * (128 + 128);  // T ctx h (w_qk + w_v) 2
        EXPECT_NEAR(core_flops(build_workload(s, s.plans[0]).layers[0]) / flops, 1.0, 1e-12)
            << sequence;
    }
}

// A window's core runs at the rate of a causal sequence whose tokens see as many keys: 2 w (1 -
// w/2S).
TEST(LayerPattern, AWindowRunsAtTheRateOfAsManyKeys) {
    Scenario s = toy::scenario();
    s.batch.sequence_length = 4096;
    const auto size = [&] {
        const Workload workload = build_workload(s, s.plans[0]);
        for (const PhaseWork& phase : workload.layers[0].forward)
            if (phase.phase == Phase::attention_core)
                return std::get<ComputeWork>(phase.work).kernels[0].size;
        return 0.0;
    };
    EXPECT_EQ(size(), 4096.0);
    s.model.attention.window = 128;
    EXPECT_EQ(size(), 256.0 * (1.0 - 128.0 / 8192.0));
}

// d h w_v more parameters a layer, and as many multiplications a token.
TEST(LayerPattern, AnOutputGateIsAnotherProjection) {
    Scenario s = toy::scenario();
    const double without = attention_parameters(s.model);
    const Flops flops = build_workload(s, s.plans[0]).model_flops;
    s.model.attention.output_gate = true;
    const double gate = 1024.0 * 8 * 128;
    EXPECT_EQ(attention_parameters(s.model), without + gate);
    EXPECT_NEAR((build_workload(s, s.plans[0]).model_flops - flops).in(flop), 2 * 4096 * 2.0 * gate,
                1e3);
}

}  // namespace
}  // namespace headway
