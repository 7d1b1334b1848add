// What frameworks move beyond the fused kernels, and what an update of theirs does.
#include <gtest/gtest.h>

#include "models/workload/phases.hpp"
#include "models/workload/workload.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

Plan of(Implementation implementation, Dedup dedup = Dedup::none) {
    Plan plan = toy::ep(dedup, 8);
    plan.implementation = implementation;
    return plan;
}

double bytes(std::span<const PhaseWork> phases, Phase phase, Pass pass) {
    double sum = 0.0;
    for (const PhaseWork& p : phases) {
        const auto* work = std::get_if<ComputeWork>(&p.work);
        if (p.phase != phase || p.pass != pass || work == nullptr) continue;
        for (int i = 0; i < work->num_kernels; ++i)
            sum += work->kernels[static_cast<std::size_t>(i)].bytes.in(byte);
    }
    return sum;
}

// T = 4096, d = 1024, k = 4: a rank sends T k rows in the mean, by 52 bytes an element more.
TEST(Framework, TorchWeighsAndAddsRowsOperatorByOperator) {
    const Scenario s = toy::scenario();
    const Plan fused = of(Implementation::fused), torch = of(Implementation::torch);
    const LayerWork a = build_workload(s, fused).layers[0], b = build_workload(s, torch).layers[0];
    const double rows = 4096.0 * 4.0 * 1024.0;
    EXPECT_NEAR(bytes(b.forward, Phase::unpermute, Pass::forward) -
                    bytes(a.forward, Phase::unpermute, Pass::forward),
                52.0 * rows, 1.0);
    EXPECT_NEAR(bytes(b.backward, Phase::permute, Pass::backward) -
                    bytes(a.backward, Phase::permute, Pass::backward),
                29.0 * rows, 1.0);
    EXPECT_EQ(bytes(b.forward, Phase::expert, Pass::forward),
              bytes(a.forward, Phase::expert, Pass::forward));
}

// R rows at the busiest rank: Megatron clamps and joins the halves of quick_geglu by 31 and 63
// bytes an element of R f, adds biases by 47 and 69 bytes an element of R d, and sums the gates'
// gradient by 16 bytes an element of R f. The fused operators move none of it, and make no pass
// over the hidden rows (3 R f b and 6 R f b).
TEST(Framework, MegatronClampsAndAddsBiasesByOperatorsOfTheirOwn) {
    Scenario s = toy::scenario();
    s.model.moe.activation = Activation::swiglu;
    Plan plan = of(Implementation::megatron);
    const LayerWork plain = build_workload(s, plan).layers[0];
    s.model.moe.activation = Activation::quick_geglu;
    const LayerWork clamped = build_workload(s, plan).layers[0];
    s.model.moe.add_bias_linear = true;
    const LayerWork biased = build_workload(s, plan).layers[0];
    plan.use_transformer_engine_op_fuser = true;
    const LayerWork fused = build_workload(s, plan).layers[0];
    const double rows = expected_load(s, plan, 0).rows_max,
                 hidden = rows * s.model.moe.expert_width;
    const auto expert = [](const LayerWork& layer, Pass pass) {
        return bytes(pass == Pass::forward ? layer.forward : layer.backward, Phase::expert, pass);
    };
    const auto moved = [&](const LayerWork& a, const LayerWork& b, Pass pass) {
        return expert(a, pass) - expert(b, pass);
    };
    EXPECT_NEAR(moved(clamped, plain, Pass::forward), 31.0 * hidden, 1.0);
    EXPECT_NEAR(moved(clamped, plain, Pass::backward), 63.0 * hidden, 1.0);
    EXPECT_NEAR(moved(biased, clamped, Pass::forward), 47.0 * rows * 1024.0, 1.0);
    EXPECT_NEAR(moved(biased, clamped, Pass::backward), 69.0 * rows * 1024.0, 1.0);
    EXPECT_NEAR(moved(plain, fused, Pass::forward), 3.0 * 2.0 * hidden, 1.0);
    EXPECT_NEAR(moved(plain, fused, Pass::backward), (6.0 * 2.0 + 16.0) * hidden, 1.0);
}

// V = 32000: the loss of torch moves 22 and 21 bytes a logit more, that of Megatron-LM 9 and 7; the
// table's gradient is written whole, 12 bytes an element.
TEST(Framework, LossAndTableMoveTheLogitsAndTheTable) {
    const Scenario s = toy::scenario();
    const Workload fused = build_workload(s, of(Implementation::fused)),
                   torch = build_workload(s, of(Implementation::torch)),
                   megatron = build_workload(s, of(Implementation::megatron));
    const double logits = 4096.0 * 32000.0, table = 32000.0 * 1024.0;
    const auto beyond = [&](const Workload& work, Pass pass) {
        return bytes(work.after, Phase::loss, pass) - bytes(fused.after, Phase::loss, pass);
    };
    EXPECT_NEAR(beyond(torch, Pass::forward), 22.0 * logits, 1.0);
    EXPECT_NEAR(beyond(torch, Pass::backward), 21.0 * logits, 1.0);
    EXPECT_NEAR(beyond(megatron, Pass::forward), 9.0 * logits, 1.0);
    EXPECT_NEAR(beyond(megatron, Pass::backward), 7.0 * logits, 1.0);
    EXPECT_NEAR(bytes(megatron.before, Phase::embed, Pass::backward) -
                    bytes(fused.before, Phase::embed, Pass::backward),
                12.0 * table, 1.0);
}

// Bytes of n parameters in fp32: zeroed (4) and scaled (8); normed (4), clipped (8), masters to
// bf16 (6). Under ZeRO-1 over p ranks the last three are of n / p.
TEST(Framework, MegatronsUpdateScalesNormsClipsAndCopies) {
    const Scenario s = toy::scenario();
    for (const bool sharded : {false, true}) {
        Plan fused = of(Implementation::fused);
        if (sharded) fused.parallel.data_parallel_sharding_strategy = DataParallelSharding::optim;
        Plan megatron = fused;
        megatron.implementation = Implementation::megatron;
        const StepShape shape = step_shape(s, megatron);
        EXPECT_NEAR(framework_update_bytes(shape, 100.0, 10.0), 12.0 * 100.0 + 18.0 * 10.0, 1e-9);
        const double beyond =
            bytes(build_workload(s, megatron).update, Phase::optimizer, Pass::update) -
            bytes(build_workload(s, fused).update, Phase::optimizer, Pass::update);
        const RankParameters n =
            rank_parameters(s.model, megatron,
                            std::vector{PipelineStage{.embedding = true,
                                                      .head_and_loss = true,
                                                      .first_layer = 0,
                                                      .num_layers = s.model.num_layers}});
        const double held = n.dense() + n.experts,
                     own = sharded ? n.dense() / 8.0 + n.experts : held;
        EXPECT_NEAR(beyond / (12.0 * held + 18.0 * own), 1.0, 1e-9) << sharded;
    }
}

// DeepEP and HybridEP read and sum rows at their source: no pass before or after the exchange,
// which is the same; the host prepares it all the same.
TEST(Framework, AFlexDispatcherMovesNoRowsAtTheirSource) {
    const Scenario s = toy::scenario();
    const Plan passes = of(Implementation::megatron, Dedup::rank);
    Plan flex = passes;
    std::get<ExpertParallel>(flex.layer).dispatcher = TokenDispatcher::flex;
    const LayerWork a = build_workload(s, passes).layers[0], b = build_workload(s, flex).layers[0];
    for (const auto* phases : {&b.forward, &b.backward})
        for (const PhaseWork& phase : *phases)
            EXPECT_TRUE(phase.phase != Phase::permute && phase.phase != Phase::unpermute);
    EXPECT_EQ(a.forward.size(), b.forward.size() + 2);
    EXPECT_EQ(a.backward.size(), b.backward.size() + 2);
    const auto sum = [](const std::vector<PhaseWork>& phases) {
        double launches = 0.0;
        for (const PhaseWork& phase : phases) launches += phase.launches;
        return launches;
    };
    EXPECT_EQ(sum(a.forward), sum(b.forward));
    EXPECT_EQ(sum(a.backward), sum(b.backward));
    const auto sent = [](const std::vector<PhaseWork>& phases) {
        for (const PhaseWork& phase : phases)
            if (phase.phase == Phase::dispatch) return std::get<ExchangeWork>(phase.work).mean;
        return PathBytes{};
    };
    EXPECT_EQ(sent(a.forward), sent(b.forward));
}

}  // namespace
}  // namespace headway
