// What a rank of a mesh computes and exchanges, against the closed forms of
// docs/reference/model.md, section 5. Symbols: t, c, p tensor-, context- and pipeline-parallel
// ranks, W all ranks, T tokens of a tensor-parallel group, d hidden, b bytes an element.
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "models/workload/parameters.hpp"
#include "models/workload/workload.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

Parallel axes(int t, int c, int p) {
    return {.tensor_model_parallel_size = t,
            .sequence_parallel = t > 1,
            .context_parallel_size = c,
            .pipeline_model_parallel_size = p};
}

Plan with(Plan plan, const Parallel& parallel) {
    plan.parallel = parallel;
    return plan;
}

double flops_of(const std::vector<PhaseWork>& phases) {
    double sum = 0.0;
    for (const PhaseWork& phase : phases) {
        const auto* compute = std::get_if<ComputeWork>(&phase.work);
        for (int i = 0; compute != nullptr && i < compute->num_kernels; ++i)
            sum += compute->kernels[static_cast<std::size_t>(i)].flops.in(flop);
    }
    return sum;
}

// All FLOPs of a step on all ranks, the optimizer's apart, and the model's own.
std::pair<double, double> step_flops(const Scenario& s, const Plan& plan) {
    const Workload w = build_workload(s, plan);
    double rank = flops_of(w.before) + flops_of(w.after);
    for (const LayerWork& layer : w.layers)
        rank += layer.count * (flops_of(layer.forward) + flops_of(layer.backward));
    const double executions = double{1} * w.num_micro_batches * w.num_ranks / mesh_of(s, plan).pp;
    return {executions * rank, executions * w.model_flops.in(flop)};
}

// GBS S tokens have the same FLOPs however a mesh cuts model, tokens and layers.
TEST(MeshPhases, FlopsOverAllRanksDoNotDependOnTheMesh) {
    Scenario s = toy::scenario();
    s.model.num_layers = 4;
    s.model.num_dense_layers = 1;
    s.model.dense_width = 2048;
    s.model.moe.num_shared_experts = 1;
    s.model.moe.shared_expert_width = 256;
    s.batch.global_batch_size = 32;
    for (const auto& kind : {toy::ep(Dedup::none, 4), toy::hp(4, s.model, 4)}) {
        s.plans = {kind};
        const auto [all, of_model] = step_flops(s, kind);
        for (const Parallel& p : {axes(2, 1, 1), axes(4, 1, 1), axes(1, 2, 1), axes(2, 4, 1),
                                  axes(1, 1, 2), axes(2, 2, 2)}) {
            const auto [cut, of_cut_model] = step_flops(s, with(kind, p));
            EXPECT_NEAR(cut / all, 1.0, 1e-12);
            EXPECT_NEAR(of_cut_model / of_model, 1.0, 1e-12);
        }
    }
}

struct Volume {
    Phase phase;
    double bytes;
    friend bool operator==(const Volume&, const Volume&) = default;
};
std::ostream& operator<<(std::ostream& out, const Volume& v) {
    return out << name(v.phase) << ' ' << v.bytes;
}

// Buffers of the collectives of a list, in order.
std::vector<Volume> volumes(const std::vector<PhaseWork>& phases) {
    std::vector<Volume> result;
    for (const PhaseWork& phase : phases)
        if (const auto* reduce = std::get_if<ReduceWork>(&phase.work))
            result.push_back({phase.phase, reduce->bytes.in(byte)});
    return result;
}

Scenario dense_scenario() {
    Scenario s = toy::scenario();
    s.model.num_dense_layers = s.model.num_layers;
    s.model.dense_width = 2048;
    return s;
}

// Attention and MLP: T d b gathered before and scattered after; backward gathers the gradient, and
// the input again (its rank's part was kept).
TEST(MeshPhases, SequenceParallelLayersGatherAndScatterTwiceForwardThriceBackward) {
    const Scenario s = dense_scenario();
    const LayerWork layer =
        build_workload(s, with(toy::ep(Dedup::none, 1), axes(4, 1, 1))).layers.at(0);
    const Volume gather{Phase::tp_all_gather, 4096.0 * 1024 * 2},
        scatter{Phase::tp_reduce_scatter, 4096.0 * 1024 * 2};
    EXPECT_EQ(volumes(layer.forward), (std::vector{gather, scatter, gather, scatter}));
    EXPECT_EQ(volumes(layer.backward),
              (std::vector{gather, gather, scatter, gather, gather, scatter}));
}

int num_beside_a_phase(const LayerWork& layer) {
    int n = 0;
    for (const auto* phases : {&layer.forward, &layer.backward})
        for (const PhaseWork& phase : *phases)
            n += phase.beside == Beside::next_phase || phase.beside == Beside::previous_phase;
    return n;
}

// All ten have user buffers, but for latent attention, which turns them off.
TEST(MeshPhases, OverlappedExchangesOfTensorParallelism) {
    Scenario s = dense_scenario();
    Parallel parallel = axes(4, 1, 1);
    EXPECT_EQ(
        num_beside_a_phase(build_workload(s, with(toy::ep(Dedup::none, 1), parallel)).layers.at(0)),
        0);
    parallel.tp_comm_overlap = true;
    const Plan plan = with(toy::ep(Dedup::none, 1), parallel);
    EXPECT_EQ(num_beside_a_phase(build_workload(s, plan).layers.at(0)), 4 + 6);
    s.model.attention.latent = LatentAttention{};
    EXPECT_EQ(num_beside_a_phase(build_workload(s, plan).layers.at(0)), 0);
}

TEST(MeshPhases, WithoutSequenceParallelismSumsStayWithAllRanks) {
    const Scenario s = dense_scenario();
    Parallel parallel = axes(4, 1, 1);
    parallel.sequence_parallel = false;
    const LayerWork layer = build_workload(s, with(toy::ep(Dedup::none, 1), parallel)).layers.at(0);
    const Volume sum{Phase::tp_all_reduce, 4096.0 * 1024 * 2};
    EXPECT_EQ(volumes(layer.forward), (std::vector{sum, sum}));
    EXPECT_EQ(volumes(layer.backward), (std::vector{sum, sum}));
}

// Latent attention gathers q_rank + kv_rank + rope columns instead of d.
TEST(MeshPhases, LatentAttentionGathersItsLatents) {
    Scenario s = dense_scenario();
    s.model.attention.latent = LatentAttention{
        .query_rank = 256, .kv_rank = 128, .nope_width = 64, .rope_width = 32, .value_width = 64};
    const LayerWork layer =
        build_workload(s, with(toy::ep(Dedup::none, 1), axes(4, 1, 1))).layers.at(0);
    const double narrow = 4096.0 * (256 + 128 + 32) * 2, wide = 4096.0 * 1024 * 2;
    EXPECT_EQ(volumes(layer.forward).at(0), (Volume{Phase::tp_all_gather, narrow}));
    EXPECT_EQ(volumes(layer.forward).at(1), (Volume{Phase::tp_reduce_scatter, wide}));
    // The MLP's three, then the gradient of the output, the latents again, and their gradient.
    EXPECT_EQ(volumes(layer.backward).at(4), (Volume{Phase::tp_all_gather, narrow}));
    EXPECT_EQ(volumes(layer.backward).at(5), (Volume{Phase::tp_reduce_scatter, narrow}));
}

// Head and loss: T d b gathered, three sums of 4 T bytes; backward T d b twice.
TEST(MeshPhases, TheVocabularyIsCut) {
    const Scenario s = dense_scenario();
    const Workload w = build_workload(s, with(toy::ep(Dedup::none, 1), axes(4, 1, 1)));
    const double wide = 4096.0 * 1024 * 2;
    const Volume sum{Phase::tp_all_reduce, 4.0 * 4096};
    EXPECT_EQ(volumes(w.after), (std::vector{Volume{Phase::tp_all_gather, wide}, sum, sum, sum,
                                             Volume{Phase::tp_all_gather, wide},
                                             Volume{Phase::tp_reduce_scatter, wide}}));
    EXPECT_EQ(volumes(w.before), (std::vector{Volume{Phase::tp_reduce_scatter, wide},
                                              Volume{Phase::tp_all_gather, wide}}));
}

Bytes sent(const std::vector<PhaseWork>& phases, Phase wanted) {
    Bytes sum;
    for (const PhaseWork& phase : phases) {
        if (phase.phase != wanted) continue;
        if (const auto* reduce = std::get_if<ReduceWork>(&phase.work)) {
            const double n = reduce->group_size;
            sum += (n - 1.0) / n * reduce->bytes;
        } else {
            for (const Bytes b : std::get<ExchangeWork>(phase.work).mean) sum += b;
        }
    }
    return sum;
}

// T = S / c tokens, h heads of width w, h_kv of keys and of values; per rank of t:
//   p2p         (c-1) T 2 h_kv w b / t, twice that backward
//   all_gather  the same; backward it and the gradients' scatter
//   a2a         T (h w + 2 h_kv w + h w) b (c-1) / (c t), both ways
TEST(MeshPhases, ContextParallelVolumes) {
    Scenario s = dense_scenario();
    s.model.attention.num_kv_heads = 4;
    const double t = 2, c = 2, tokens = 4096 / c, kv = tokens * 2 * 4 * 128 * 2 / t;
    Parallel parallel = axes(2, 2, 1);
    const auto bytes = [&](CpCommType type) {
        parallel.cp_comm_type = type;
        const LayerWork layer =
            build_workload(s, with(toy::ep(Dedup::none, 1), parallel)).layers.at(0);
        return std::pair(sent(layer.forward, Phase::cp_exchange).in(byte),
                         sent(layer.backward, Phase::cp_exchange).in(byte));
    };
    EXPECT_EQ(bytes(CpCommType::p2p), std::pair((c - 1) * kv, 2 * (c - 1) * kv));
    EXPECT_EQ(bytes(CpCommType::all_gather), std::pair((c - 1) * kv, 2 * (c - 1) * kv));
    const double both = tokens * (2 * 8 + 2 * 4) * 128 * 2 * (c - 1) / c / t;
    EXPECT_EQ(bytes(CpCommType::a2a), std::pair(both, both));
}

// c = a b: heads for tokens among a neighbours, T (2 h + 2 h_kv) w b (a-1)/(a t), and a ring of b
// groups a t apart, b-1 hops of T 2 h_kv w b / t, twice that backward; the levels alone are the
// kinds with one.
TEST(MeshPhases, TwoLevelsOfContextParallelism) {
    Scenario s = dense_scenario();
    s.model.attention.num_kv_heads = 4;
    const double t = 2, c = 4, tokens = 4096 / c, kv = tokens * 2 * 4 * 128 * 2 / t,
                 heads = tokens * (2 * 8 + 2 * 4) * 128 * 2 / t;
    Parallel parallel = axes(2, 4, 1);
    const auto layer = [&](CpCommType type, int a = 0, int b = 0) {
        parallel.cp_comm_type = type;
        parallel.hierarchical_context_parallel_sizes = {a, b};
        return build_workload(s, with(toy::ep(Dedup::none, 1), parallel)).layers.at(0);
    };
    const auto bytes = [](const LayerWork& work) {
        return std::pair(sent(work.forward, Phase::cp_exchange).in(byte),
                         sent(work.backward, Phase::cp_exchange).in(byte));
    };
    using enum CpCommType;
    const LayerWork two = layer(a2a_p2p, 2, 2);
    EXPECT_EQ(bytes(two), std::pair(heads / 2 + kv, heads / 2 + 2 * kv));
    EXPECT_EQ(bytes(layer(a2a_p2p, 1, 4)), bytes(layer(p2p)));
    EXPECT_EQ(bytes(layer(a2a_p2p, 4, 1)), bytes(layer(a2a)));
    for (const PhaseWork& phase : two.forward) {
        if (phase.phase != Phase::cp_exchange) continue;
        if (const auto* ring = std::get_if<ReduceWork>(&phase.work)) {
            EXPECT_EQ(std::pair(ring->group_size, ring->stride), std::pair(2, 4));
        } else {
            const auto& exchange = std::get<ExchangeWork>(phase.work);
            EXPECT_EQ(std::pair(exchange.group_size, exchange.stride), std::pair(4, 2));
        }
    }
}

const ReduceWork& find(const std::vector<PhaseWork>& phases, Phase wanted, int nth = 0) {
    for (const PhaseWork& phase : phases)
        if (phase.phase == wanted && nth-- == 0) return std::get<ReduceWork>(phase.work);
    throw std::out_of_range("no such phase");
}

// W 64, t 2, c 2, N 8: dense gradients over DP x CP = 32 ranks t apart, experts' over EDP = 8 ranks
// N apart. Two instances: shards over halves of these, and the halves' shards between them.
TEST(MeshPhases, GradientsFollowTheMesh) {
    Scenario s = toy::scenario(8, 8);
    Plan plan = with(toy::ep(Dedup::none, 8), axes(2, 2, 1));
    const RankParameters own =
        rank_parameters(s.model, plan, pipeline_stages(s.model, plan.parallel));
    Workload w = build_workload(s, plan);
    const ReduceWork dense = find(w.update, Phase::grad_all_reduce),
                     experts = find(w.update, Phase::expert_grad_all_reduce);
    EXPECT_EQ(std::pair(dense.group_size, dense.stride), std::pair(32, 2));
    EXPECT_EQ(std::pair(experts.group_size, experts.stride), std::pair(8, 8));
    EXPECT_EQ(dense.bytes.in(byte), 4.0 * own.dense());
    EXPECT_EQ(experts.bytes.in(byte), 4.0 * own.experts);
    // Routers are on both ranks of a tensor-parallel group, which saw other tokens each.
    EXPECT_EQ(find(w.update, Phase::tp_all_reduce).bytes.in(byte), 4.0 * 2 * 1024 * 64);

    plan.parallel.data_parallel_sharding_strategy = DataParallelSharding::optim;
    plan.parallel.num_distributed_optimizer_instances = 2;
    w = build_workload(s, plan);
    const ReduceWork shard = find(w.update, Phase::grad_all_reduce),
                     replicas = find(w.update, Phase::grad_all_reduce, 1),
                     expert_replicas = find(w.update, Phase::expert_grad_all_reduce, 1);
    EXPECT_EQ(shard.collective, Collective::reduce_scatter);
    EXPECT_EQ(std::pair(shard.group_size, shard.stride), std::pair(16, 2));
    EXPECT_EQ(replicas.collective, Collective::all_reduce);
    EXPECT_EQ(std::pair(replicas.group_size, replicas.stride), std::pair(2, 32));
    EXPECT_EQ(replicas.bytes, shard.bytes / 16);
    EXPECT_EQ(std::pair(expert_replicas.group_size, expert_replicas.stride), std::pair(2, 32));
}

// A bucket a layer, of as many bytes as it has: with one dense layer of f and L - 1 of routers. The
// head leaves with the last layer, the table behind all of them.
TEST(MeshPhases, GradientsLeaveInTheBucketsOfTheirLayers) {
    Scenario s = toy::scenario();
    s.model.num_layers = 3;
    s.model.num_dense_layers = 1;
    s.model.dense_width = 4096;
    s.model.dense_activation = Activation::gelu;
    const Plan plan = toy::ep(Dedup::none, 8);
    const ReduceWork dense = find(build_workload(s, plan).update, Phase::grad_all_reduce);
    const double all = dense.bytes.in(byte), table = 4.0 * 32000 * 1024;
    std::vector<double> bytes;
    for (const double share : dense.buckets) bytes.push_back(share * all);
    ASSERT_EQ(bytes.size(), 4u);
    const double of_layer = 4.0 * layer_parameters(s.model, plan, 1).dense();
    EXPECT_NEAR(bytes[0], 4.0 * layer_parameters(s.model, plan, 0).dense(), 1.0);
    EXPECT_NEAR(bytes[1], of_layer, 1.0);
    EXPECT_NEAR(bytes[2], of_layer + table, 1.0);
    EXPECT_NEAR(bytes[3], table, 1.0);
    EXPECT_GT(bytes[0], bytes[1]);
}

// Bytes that a rank sends in a step of m micro-batches, by parallelism.md's table: g = 4 bytes of a
// gradient, 2 of a parameter, times (n-1)/n of the parameters that n ranks share.
//   no_shard 2 g;  optim g + 2;  optim_grads m g + 2;  optim_grads_params m (g + 2 + 2), of which
//   the embedding is not gathered again, nor the head between its two passes
TEST(MeshPhases, ShardedDataParallelismByStrategy) {
    Scenario s = toy::scenario();
    s.batch.num_micro_batches = 3;
    Plan plan = toy::ep(Dedup::none, 1);
    const auto moved = [&](DataParallelSharding strategy) {
        plan.parallel.data_parallel_sharding_strategy = strategy;
        const Workload w = build_workload(s, plan);
        double micro = 0.0, once = 0.0;
        const auto add = [](const std::vector<PhaseWork>& phases, double& sum) {
            for (const PhaseWork& phase : phases)
                if (const auto* r = std::get_if<ReduceWork>(&phase.work))
                    sum += (r->collective == Collective::all_reduce ? 2.0 : 1.0) * 7.0 / 8.0 *
                           r->bytes.in(byte);
        };
        for (const auto* phases : {&w.before, &w.after}) add(*phases, micro);
        for (const LayerWork& layer : w.layers) {
            double own = 0.0;
            add(layer.forward, own);
            add(layer.backward, own);
            micro += layer.count * own;
        }
        add(w.update, once);
        return once + 3 * micro;
    };
    const RankParameters all =
        rank_parameters(s.model, plan, pipeline_stages(s.model, plan.parallel));
    const double n = 7.0 / 8.0 * (all.dense() + all.experts),
                 ends = 7.0 / 8.0 * 2 * s.model.vocab_size * s.model.hidden;
    EXPECT_DOUBLE_EQ(moved(DataParallelSharding::no_shard), 8 * n);
    EXPECT_DOUBLE_EQ(moved(DataParallelSharding::optim), (4 + 2) * n);
    EXPECT_DOUBLE_EQ(moved(DataParallelSharding::optim_grads), (3 * 4 + 2) * n);
    EXPECT_DOUBLE_EQ(moved(DataParallelSharding::optim_grads_params),
                     3 * (4 + 2 + 2) * n - 3 * 2 * ends);
}

// Each rank of a pipeline updates what its stages hold; a tied table has a copy on the last one.
TEST(MeshPhases, StagesHoldTheirOwnParameters) {
    ModelSpec model = toy::scenario().model;
    model.num_layers = 4;
    const double table = double{32000} * 1024;
    for (const bool tied : {false, true}) {
        model.tied_embeddings = tied;
        const Plan plan = with(toy::ep(Dedup::none, 4), axes(1, 1, 2));
        double dense = 0.0;
        for (const int rank : {0, 1})
            dense +=
                rank_parameters(model, plan, stages_of_rank(model, plan.parallel, rank)).dense();
        const ParameterCount count = count_parameters(model, plan);
        EXPECT_EQ(dense, count.replicated() + (tied ? table : 0.0));
    }
}

}  // namespace
}  // namespace headway
