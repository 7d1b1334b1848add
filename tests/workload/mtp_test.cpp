// Layers of multi-token prediction against the closed forms of docs/reference/model.md, section 4:
// what stands around their transformer layer, the losses, parameters, copies of the embedding,
// messages. Symbols: n layers of them, T tokens of a rank, d hidden, V vocabulary, b bytes an
// element.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include "models/workload/parameters.hpp"
#include "models/workload/workload.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

constexpr double kT = 4096, kD = 1024, kV = 32000, kB = 2;

// Toy: two MoE layers, GELU, 64 experts of width 512, k 4.
Scenario with_mtp(int layers) {
    Scenario s = toy::scenario();
    s.model.mtp_num_layers = layers;
    return s;
}

double flops_in(const PhaseWork& phase) {
    const auto* compute = std::get_if<ComputeWork>(&phase.work);
    double sum = 0.0;
    for (int i = 0; compute != nullptr && i < compute->num_kernels; ++i)
        sum += compute->kernels[static_cast<std::size_t>(i)].flops.in(flop);
    return sum;
}

double bytes_moved(const PhaseWork& phase) {
    const auto* compute = std::get_if<ComputeWork>(&phase.work);
    double sum = 0.0;
    for (int i = 0; compute != nullptr && i < compute->num_kernels; ++i) {
        const KernelWork& kernel = compute->kernels[static_cast<std::size_t>(i)];
        if (kernel.flops <= Flops{}) sum += kernel.bytes.in(byte);
    }
    return sum;
}

std::vector<Phase> names(const std::vector<PhaseWork>& phases) {
    std::vector<Phase> result;
    for (const PhaseWork& phase : phases) result.push_back(phase.phase);
    return result;
}

// Embedding, two norms, 2 d to d, the layer as it is, a norm; backward in the other order.
TEST(MultiTokenPrediction, StandsAroundATransformerLayer) {
    const Scenario s = with_mtp(1);
    const Workload w = build_workload(s, s.plans[0]);
    ASSERT_EQ(w.entry_of_layer, (std::vector{0, 0, 1}));
    const LayerWork &plain = w.layers[0], &mtp = w.layers[1];
    EXPECT_EQ(mtp.first_layer, 2);
    EXPECT_TRUE(mtp.is_moe);
    std::vector<Phase> forward{Phase::embed, Phase::norm, Phase::mtp_project},
        backward{Phase::norm};
    for (const Phase p : names(plain.forward)) forward.push_back(p);
    forward.push_back(Phase::norm);
    for (const Phase p : names(plain.backward)) backward.push_back(p);
    for (const Phase p : {Phase::mtp_project, Phase::norm, Phase::embed}) backward.push_back(p);
    EXPECT_EQ(names(mtp.forward), forward);
    EXPECT_EQ(names(mtp.backward), backward);
    const PhaseWork &project = mtp.forward[2], &back = mtp.backward[mtp.backward.size() - 3];
    EXPECT_EQ(flops_in(project), 2.0 * kT * kD * 2.0 * kD);
    EXPECT_EQ(flops_in(back), 2.0 * flops_in(project));
    EXPECT_EQ(bytes_moved(project), 4.0 * kT * kD * kB);         // both normed rows copied
    EXPECT_EQ(bytes_moved(mtp.forward[0]), 2.0 * kT * kD * kB);  // the embedding's
    EXPECT_EQ(bytes_moved(mtp.forward[1]), 4.0 * kT * kD * kB);
    EXPECT_EQ(bytes_moved(mtp.forward.back()), 2.0 * kT * kD * kB);
    EXPECT_EQ(bytes_moved(mtp.backward.front()), 4.0 * kT * kD * kB);
    // Chunks of an exchange lie where they lay, behind what was put before them.
    ASSERT_EQ(mtp.forward_pipelines.size(), plain.forward_pipelines.size());
    EXPECT_EQ(mtp.forward_pipelines[0].begin, plain.forward_pipelines[0].begin + 3);
    EXPECT_EQ(mtp.backward_pipelines[0].end, plain.backward_pipelines[0].end + 1);
}

// 1 + n logits and losses behind one norm. Model FLOPs of a token are more by the layer, 4 d^2 and
// 2 d V for each.
TEST(MultiTokenPrediction, EveryLayerHasLogitsAndALoss) {
    const Scenario none = with_mtp(0);
    const Workload before = build_workload(none, none.plans[0]);
    for (const int n : {1, 2}) {
        const Scenario s = with_mtp(n);
        const Workload w = build_workload(s, s.plans[0]);
        std::map<std::pair<Phase, Pass>, int> counts;
        double logits = 0.0;
        for (const PhaseWork& phase : w.after) {
            ++counts[{phase.phase, phase.pass}];
            logits += flops_in(phase);
        }
        for (const Pass pass : {Pass::forward, Pass::backward}) {
            EXPECT_EQ((counts[{Phase::lm_head, pass}]), 1 + n);
            EXPECT_EQ((counts[{Phase::loss, pass}]), 1 + n);
            EXPECT_EQ((counts[{Phase::norm, pass}]), 1);
        }
        EXPECT_EQ(logits, (1 + n) * 3.0 * 2.0 * kT * kD * kV);
        const double layer = before.layers[0].model_flops.in(flop);
        EXPECT_NEAR((w.model_flops - before.model_flops).in(flop) /
                        (n * (layer + kT * (4.0 * kD * kD + 2.0 * kD * kV))),
                    1.0, 1e-12);
    }
}

// Megatron's own count: the card of Megatron-Bridge 067f987 on 256 GB300 has 1597.31 TFLOP/s/GPU at
// 6143.635 tokens/s/GPU. It leaves out the routers, 6 d E a token of 59 layers.
TEST(MultiTokenPrediction, FlopsOfDeepSeekV3AreMegatrons) {
    Scenario s = toy::scenario();
    toy::widen_to_deepseek_v3(s.model);
    s.model.num_layers = 61;
    s.model.num_dense_layers = 3;
    s.model.dense_width = 18432;
    s.model.vocab_size = 129280;
    s.model.mtp_num_layers = 1;
    const double token = 3.0 * build_workload(s, s.plans[0]).model_flops.in(flop) / kT;
    EXPECT_NEAR((token - 59.0 * 6.0 * 7168 * 256) / (1597.31e12 / 6143.635), 1.0, 1e-4);
}

// 2 d^2 and a layer of the last one's kind: dense in a model whose last layer is.
TEST(MultiTokenPrediction, ParametersAreThoseOfTheLastLayerAnd2dTod) {
    ModelSpec model = toy::scenario().model;
    model.num_layers = 3;
    model.moe_every = 2;  // dense, MoE, dense
    model.dense_width = 2048;
    const ParameterCount before = count_parameters(model);
    model.mtp_num_layers = 2;
    const ParameterCount after = count_parameters(model);
    EXPECT_FALSE(model.is_moe_layer(4));
    EXPECT_EQ(model.num_moe_layers(), 1);
    EXPECT_EQ(after.experts, before.experts);
    EXPECT_EQ(after.total() - before.total(),
              2.0 * (attention_parameters(model) + 3.0 * kD * 2048 + 2.0 * kD * kD));
    model.num_layers = 2;
    EXPECT_EQ(model.num_moe_layers(), 3);
    EXPECT_EQ(model.moe_layer(0), 1);
    EXPECT_EQ(model.moe_layer(2), 3);
    const Plan plan = toy::ep(Dedup::none, 8);
    double layers = 0.0;
    for (int layer = 0; layer < model.all_layers(); ++layer)
        layers += layer_parameters(model, plan, layer).dense();
    const ParameterCount count = count_parameters(model, plan);
    EXPECT_EQ(layers, count.replicated() - count.embedding - count.lm_head);
}

Parallel pipeline(int p, const std::string& layout) {
    Parallel parallel;
    parallel.pipeline_model_parallel_size = p;
    parallel.pipeline_model_parallel_layout = layout;
    return parallel;
}

// The embedding lies once more where m is, of which gradients (4 V d) are summed with those of the
// first rank; a stage behind which m lies apart from L sends 1 + n rows a token.
TEST(MultiTokenPrediction, NeedsACopyOfTheEmbeddingAndLongerMessages) {
    struct Copied {
        std::string layout;
        bool tied;
        int copy;  // rank
        std::vector<int> rows;
        double tables;  // of all ranks
    };
    for (const Copied& c : {Copied{"Et|t|t|tmmL", false, 3, {1, 1, 1, 3}, 3.0},
                            Copied{"Et|tt|tmm|L", false, 2, {1, 1, 3, 3}, 3.0},
                            Copied{"Et|t|t|tmmL", true, 3, {1, 1, 1, 3}, 2.0}}) {
        Scenario s = toy::scenario(4, 8);
        s.model.num_layers = 4;
        s.model.mtp_num_layers = 2;
        s.model.tied_embeddings = c.tied;
        Plan plan = toy::ep(Dedup::none, 8);
        plan.parallel = pipeline(4, c.layout);
        ASSERT_EQ(pipeline_layout_broken(s.model, plan.parallel), "");
        const PipelineWork work = build_pipeline(s, plan);
        EXPECT_EQ(work.rows, c.rows);
        EXPECT_EQ(work.message_behind(2).in(byte), c.rows[2] * kT * kD * kB);
        double dense = 0.0;
        for (int rank = 0; rank < 4; ++rank) {
            const auto stages = stages_of_rank(s.model, plan.parallel, rank);
            dense += rank_parameters(s.model, plan, stages).dense();
            double summed = 0.0;
            for (const PhaseWork& phase : work.late_reductions[static_cast<std::size_t>(rank)]) {
                const auto& reduce = std::get<ReduceWork>(phase.work);
                if (reduce.stride < 8) continue;
                EXPECT_EQ(reduce.stride, 8 * c.copy);
                EXPECT_EQ(reduce.group_size, 2);
                summed += reduce.bytes.in(byte);
            }
            EXPECT_EQ(summed, rank == 0 || rank == c.copy ? 4.0 * kV * kD : 0.0) << rank;
        }
        const ParameterCount count = count_parameters(s.model, plan);
        EXPECT_EQ(dense, count.replicated() - count.embedding - count.lm_head + c.tables * kV * kD);
    }
}

struct RowsOfPhase {
    Phase phase;
    double rows;  // of T d b
    friend bool operator==(const RowsOfPhase&, const RowsOfPhase&) = default;
};

// t = 4 ranks share the columns of the product: with sequence parallelism whole rows of 2 d are
// gathered before it and its columns after it; backward gathers the gradient, the input again, and
// sums 2 d. Without it the columns are gathered all the same.
TEST(MultiTokenPrediction, TensorParallelRanksGatherRowsAndColumns) {
    const auto around = [](bool sequence_parallel, Pass pass) {
        Scenario s = with_mtp(1);
        s.model.num_dense_layers = s.model.num_layers;
        s.model.dense_width = 2048;
        s.plans = {toy::ep(Dedup::none, 1)};
        s.plans[0].parallel.tensor_model_parallel_size = 4;
        s.plans[0].parallel.sequence_parallel = sequence_parallel;
        const LayerWork layer = build_workload(s, s.plans[0]).layers.at(1);
        const auto& phases = pass == Pass::forward ? layer.forward : layer.backward;
        std::vector<RowsOfPhase> found;
        const auto project = std::ranges::find(phases, Phase::mtp_project, &PhaseWork::phase);
        EXPECT_EQ(flops_in(*project),
                  (pass == Pass::forward ? 1.0 : 2.0) * 2.0 * kT * kD * 2.0 * kD / 4);
        const auto end = pass == Pass::forward ? project + 2 : phases.end();
        for (auto phase = pass == Pass::forward ? phases.begin() : project - 2; phase < end;
             ++phase)
            if (const auto* reduce = std::get_if<ReduceWork>(&phase->work))
                found.push_back({phase->phase, reduce->bytes.in(byte) / (kT * kD * kB)});
        return found;
    };
    const auto gather = [](double rows) { return RowsOfPhase{Phase::tp_all_gather, rows}; };
    EXPECT_EQ(around(true, Pass::forward),
              (std::vector{RowsOfPhase{Phase::tp_reduce_scatter, 1}, gather(2), gather(1)}));
    EXPECT_EQ(
        around(true, Pass::backward),
        (std::vector{gather(1), gather(2), RowsOfPhase{Phase::tp_reduce_scatter, 2}, gather(1)}));
    EXPECT_EQ(around(false, Pass::forward),
              (std::vector{RowsOfPhase{Phase::tp_all_reduce, 1}, gather(1)}));
}

// uniform repeats norms, product, layer and last norm, not the embedding; block leaves it as it is.
TEST(MultiTokenPrediction, FullRecomputeStartsBehindTheEmbedding) {
    Scenario s = with_mtp(1);
    s.plans[0].recompute = RecomputeLevel::full;
    const auto repeated = [&] {
        const Workload w = build_workload(s, s.plans[0]);
        std::vector<Phase> again;
        for (const PhaseWork& phase : w.layers.at(1).backward)
            if (phase.again) again.push_back(phase.phase);
        return again;
    };
    const std::vector<Phase> all = names(build_workload(s, s.plans[0]).layers.at(1).forward);
    std::vector<Phase> expected(all.begin() + 1, all.end());
    std::erase(expected, Phase::count_exchange);
    EXPECT_EQ(repeated(), expected);
    s.plans[0].recompute.method = RecomputeMethod::block;
    s.plans[0].recompute.num_layers = 8;
    EXPECT_EQ(repeated(), std::vector<Phase>{});
    // The feed-forward part alone: not the norm behind it, whose backward comes first.
    s.plans[0].recompute = {};
    s.plans[0].recompute.granularity = RecomputeGranularity::selective;
    s.plans[0].recompute.modules = modules(RecomputeModule::moe);
    const LayerWork moe = build_workload(s, s.plans[0]).layers.at(1);
    EXPECT_EQ(moe.backward[0].phase, Phase::norm);
    EXPECT_FALSE(moe.backward[0].again);
    EXPECT_TRUE(moe.backward[1].again);
    EXPECT_EQ(repeated().back(), Phase::unpermute);
}

}  // namespace
}  // namespace headway
