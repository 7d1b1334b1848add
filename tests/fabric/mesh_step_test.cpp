// Steps on a mesh: what prediction and simulation make of the same tasks, and what hides what.
#include <gtest/gtest.h>

#include <cstdint>
#include <numeric>
#include <string>
#include <variant>
#include <vector>

#include "models/cost/predict.hpp"
#include "models/cost/program.hpp"
#include "sim/simulate.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

struct Case {
    std::string name;
    Parallel parallel;
    int group = 1;
    Recompute recompute;
    bool heads = false;
    TokenDispatcher dispatcher = TokenDispatcher::alltoall;
};

std::vector<Case> cases() {
    const auto tensor = [](int t, int c, CpCommType type = CpCommType::p2p) {
        return Parallel{.tensor_model_parallel_size = t,
                        .sequence_parallel = t > 1,
                        .context_parallel_size = c,
                        .cp_comm_type = type};
    };
    const auto two_levels = [&](int t, int a, int b) {
        Parallel parallel = tensor(t, a * b, CpCommType::a2a_p2p);
        parallel.hierarchical_context_parallel_sizes = {a, b};
        return parallel;
    };
    const auto sharded = [](DataParallelSharding strategy, int instances = 1) {
        return Parallel{.data_parallel_sharding_strategy = strategy,
                        .num_distributed_optimizer_instances = instances};
    };
    const auto overlapped = [&](int t, int c) {
        Parallel parallel = tensor(t, c);
        parallel.tp_comm_overlap = true;
        return parallel;
    };
    const auto experts_cut = [&](int t, int e) {
        Parallel parallel = tensor(t, 1);
        parallel.expert_tensor_parallel_size = e;
        return parallel;
    };
    Parallel both = tensor(2, 2);
    both.data_parallel_sharding_strategy = DataParallelSharding::optim_grads_params;
    return {{"tp", tensor(2, 1), 8},
            {"tp and recompute", tensor(4, 1), 8, RecomputeLevel::full},
            {"tp of heads", tensor(2, 1), 8, RecomputeLevel::none, true},
            {"etp", experts_cut(2, 2), 4},
            {"etp beyond tp", experts_cut(1, 4), 2, RecomputeLevel::full},
            {"etp of one part", experts_cut(2, 2), 1},
            {"all tokens to all ranks", experts_cut(2, 2), 4, RecomputeLevel::none, false,
             TokenDispatcher::allgather},
            {"overlapped tp", overlapped(2, 1), 8},
            {"overlapped tp and recompute", overlapped(4, 1), 8, RecomputeLevel::full},
            {"overlapped tp and ring", overlapped(2, 2), 4},
            {"ring", tensor(1, 4), 8},
            {"tp and ring", tensor(2, 2), 4, RecomputeLevel::full},
            {"gathered keys", tensor(1, 2, CpCommType::all_gather), 8},
            {"heads for tokens", tensor(2, 4, CpCommType::a2a), 8},
            {"heads for tokens inside a ring", two_levels(1, 2, 4), 8},
            {"tp and two levels", two_levels(2, 2, 2), 4, RecomputeLevel::full},
            {"zero-1", sharded(DataParallelSharding::optim)},
            {"zero-2", sharded(DataParallelSharding::optim_grads)},
            {"fsdp", sharded(DataParallelSharding::optim_grads_params)},
            {"fsdp and recompute", sharded(DataParallelSharding::optim_grads_params), 1,
             RecomputeLevel::full},
            {"hsdp", sharded(DataParallelSharding::optim_grads_params, 2)},
            {"tp, ring, fsdp one after the other", both, 4}};
}

// Where nothing contends, messages take what the formulas say.
TEST(MeshStep, SimulationAgreesWithPrediction) {
    for (const Case& c : cases()) {
        Scenario s = toy::scenario();
        s.batch.num_micro_batches = 2;
        Plan plan = c.heads ? toy::hp(8, s.model, c.group) : toy::ep(Dedup::none, c.group);
        plan.parallel = c.parallel;
        if (auto* ep = std::get_if<ExpertParallel>(&plan.layer)) ep->dispatcher = c.dispatcher;
        plan.recompute = c.recompute;
        // Buckets of gradients would contend with exchanges for the same links.
        plan.overlap_grad_all_reduce =
            c.group == 1 && c.parallel.num_distributed_optimizer_instances == 1;
        plan.overlap_param_gather = plan.overlap_grad_all_reduce &&
                                    gathers_once(c.parallel.data_parallel_sharding_strategy);
        s.plans = {plan};
        s.baseline = plan.name;
        const Profile profile = toy::profile();
        const Seconds predicted = predict(s, profile).plans.at(0).step;
        const Seconds simulated = sim::simulate(build_program(s, plan, profile, {.num_draws = 1}),
                                                sim::Topology(s.cluster))
                                      .step;
        EXPECT_NEAR(simulated / predicted, 1.0, 0.01) << c.name;
    }
}

// A level of one rank is none: every price is that of the kind with one level.
TEST(MeshStep, TwoLevelsAreOneInTheLimits) {
    const auto step = [](CpCommType type, std::array<int, 2> sizes) {
        Scenario s = toy::scenario(2, 8);
        s.plans[0].group_size = 8;
        s.plans[0].parallel = {.context_parallel_size = 8,
                               .cp_comm_type = type,
                               .hierarchical_context_parallel_sizes = sizes};
        return predict(s, toy::profile()).plans.at(0).step.in(second);
    };
    EXPECT_EQ(step(CpCommType::a2a_p2p, {1, 8}), step(CpCommType::p2p, {}));
    EXPECT_EQ(step(CpCommType::a2a_p2p, {8, 1}), step(CpCommType::a2a, {}));
}

// Over two nodes of four: what leaves a node is the ring's alone, one hop of keys and values on a
// card of its own each, where a ring over all eight sends it seven times on.
TEST(MeshStep, TheInnerLevelStaysInsideItsNode) {
    Scenario s = toy::scenario(2, 4);
    s.plans[0].group_size = 8;
    s.plans[0].parallel = {.context_parallel_size = 8,
                           .cp_comm_type = CpCommType::a2a_p2p,
                           .hierarchical_context_parallel_sizes = {4, 2}};
    const Workload work = build_workload(s, s.plans[0]);
    for (const PhaseWork& phase : work.layers[0].forward) {
        if (phase.phase != Phase::cp_exchange) continue;
        if (const auto* heads = std::get_if<ExchangeWork>(&phase.work)) {
            EXPECT_EQ(heads->mean[static_cast<std::size_t>(PathClass::nic)], Bytes{});
        } else {
            const auto& ring = std::get<ReduceWork>(phase.work);
            EXPECT_EQ(ring_lanes(s.cluster, ring.group_size, ring.stride).farthest, PathClass::nic);
            EXPECT_NEAR(0.5 * ring.bytes.in(byte), 4096.0 / 8 * 2 * 8 * 128 * 2, 1e-9);
        }
    }
}

PhaseCost cost_of(const PlanPrediction& plan, Phase phase, Pass pass) {
    for (const PhaseCost& cost : plan.phases)
        if (cost.phase == phase && cost.pass == pass) return cost;
    return {};
}

// The gather and the scatter of a layer's rows, R d b (e-1)/e each at 100 GB/s behind 1 us, lie on
// the path of compute: two layers, one after the other.
TEST(MeshStep, RowsOfCutExpertsAreGatheredInTheOpen) {
    for (const int e : {2, 4}) {
        Scenario s = toy::scenario();
        s.plans = {toy::ep(Dedup::none, 2)};
        s.plans[0].parallel.expert_tensor_parallel_size = e;
        const PlanPrediction plan = predict(s, toy::profile()).plans.at(0);
        const double one = 1e-6 + (e - 1) * 4096.0 * 4 * 1024 * 2 / toy::kLink;
        for (const Pass pass : {Pass::forward, Pass::backward}) {
            for (const Phase phase : {Phase::etp_all_gather, Phase::etp_reduce_scatter}) {
                const PhaseCost cost = cost_of(plan, phase, pass);
                EXPECT_NEAR(cost.time.in(second), 2 * one, 1e-9 * one);
                EXPECT_EQ(cost.hidden, Seconds{});
            }
        }
    }
}

// Skewed: every part gathers what it has drawn, so that no part's buffer is another's; the sum of
// all is that of all rows.
TEST(MeshStep, EveryPartGathersItsOwnRows) {
    Scenario s = toy::scenario();
    s.routing = {.noise = true, .skew = Skew::zipf, .parameter = 0.8, .seed = 5};
    s.plans = {toy::ep(Dedup::none, 4)};
    s.plans[0].parallel.expert_tensor_parallel_size = 2;
    const Program program = build_program(s, s.plans[0], toy::profile(), {.num_draws = 1});
    int found = 0;
    for (const Task& task : program.tasks) {
        if (task.phase != Phase::etp_all_gather && task.phase != Phase::etp_reduce_scatter)
            continue;
        const auto& reduce = std::get<ReduceTask>(task.work);
        ASSERT_EQ(reduce.bytes_of_group.size(), 4u);
        EXPECT_EQ(std::accumulate(reduce.bytes_of_group.begin(), reduce.bytes_of_group.end(),
                                  std::int64_t{0}),
                  8LL * 4096 * 4 * 1024 * 2);
        EXPECT_GT(reduce.bytes_of_group[0], 0);
        ++found;
    }
    EXPECT_EQ(found, 2 * 2 * 2);  // layers, passes
}

// In chunks a gather follows its dispatch, a combine its scatter: no longer than in one piece.
TEST(MeshStep, ChunksOfCutExpertsOverlapAsPredicted) {
    Scenario s = toy::scenario();
    s.plans = {toy::ep(Dedup::none, 4)};
    s.plans[0].parallel.expert_tensor_parallel_size = 2;
    const Seconds whole = predict(s, toy::profile()).plans.at(0).step;
    s.plans[0].overlap_chunks = 4;
    s.plans[0].overlap_grad_all_reduce = false;
    const Seconds predicted = predict(s, toy::profile()).plans.at(0).step;
    EXPECT_LT(predicted, whole);
    const Seconds simulated =
        sim::simulate(build_program(s, s.plans[0], toy::profile(), {.num_draws = 1}),
                      sim::Topology(s.cluster))
            .step;
    EXPECT_NEAR(simulated / predicted, 1.0, 0.01);
}

// c parts of the core, c-1 hops of x each: core + (c-1) max(0, x - core / c).
TEST(MeshStep, ARingHidesBehindTheCore) {
    for (const double rate : {1e12, toy::kFlopRate, 1e16}) {
        Scenario s = toy::scenario();
        s.model.num_layers = 1;
        s.plans[0].parallel.context_parallel_size = 4;
        Profile profile = toy::profile();
        profile.kernel(Kernel::attention).forward[0].rate = {rate, rate};
        const PlanPrediction plan = predict(s, profile).plans.at(0);
        const double tokens = 4096 / 4, width = 8 * 128;
        const double core = 2 * tokens * 2048 * 2 * width / rate;
        const double hop = 1e-6 + tokens * 2 * width * 2 / toy::kLink;
        const PhaseCost ring = cost_of(plan, Phase::cp_exchange, Pass::forward);
        EXPECT_NEAR(cost_of(plan, Phase::attention_core, Pass::forward).time.in(second), core,
                    1e-6 * core);
        EXPECT_NEAR((ring.time + ring.hidden).in(second), 3 * hop, 1e-6 * hop);
        EXPECT_NEAR(ring.time.in(second), 3 * std::max(0.0, hop - core / 4), 1e-6 * hop);
    }
}

// Two cut phases a pass, each of t parts: forward t-1 hops gathered and t-1 scattered around it,
// backward twice as many gathered. Under slow GEMMs all of it hides, beside fast ones nothing does;
// the GEMMs take what they take without overlap.
TEST(MeshStep, TensorParallelExchangesHideBehindTheirGemms) {
    Scenario s = toy::scenario();
    s.model.num_layers = s.model.num_dense_layers = 1;
    s.model.dense_width = 2048;
    s.plans = {toy::ep(Dedup::none, 1)};
    s.plans[0].parallel = {.tensor_model_parallel_size = 4, .sequence_parallel = true};
    const double hop = 1e-6 + 4096.0 * 1024 * 2 / 4 / toy::kLink;
    for (const double rate : {1e9, 1e19}) {
        Profile profile = toy::profile();
        for (int k = 0; k < kNumKernels; ++k)
            for (RateCurve& curve : profile.kernel(static_cast<Kernel>(k)).forward)
                curve.rate = {rate, rate};
        s.cluster.device.peak_matmul = 1e20 * flop / second;
        s.plans[0].parallel.tp_comm_overlap = false;
        const PlanPrediction apart = predict(s, profile).plans.at(0);
        s.plans[0].parallel.tp_comm_overlap = true;
        const PlanPrediction beside = predict(s, profile).plans.at(0);
        for (const Pass pass : {Pass::forward, Pass::backward}) {
            const bool forward = pass == Pass::forward;
            const PhaseCost gather = cost_of(beside, Phase::tp_all_gather, pass),
                            scatter = cost_of(beside, Phase::tp_reduce_scatter, pass),
                            mlp = cost_of(beside, Phase::dense_mlp, pass);
            // The head has no user buffer: its gathers are whole.
            const double alone = 1e-6 + 3 * (hop - 1e-6);
            EXPECT_NEAR((gather.time + gather.hidden).in(second),
                        (forward ? 2 : 4) * 3 * hop + (forward ? 1 : 2) * alone, 1e-3 * hop);
            EXPECT_NEAR(mlp.time.in(second), cost_of(apart, Phase::dense_mlp, pass).time.in(second),
                        1e-9 * mlp.time.in(second));
            const double hidden = (gather.hidden + scatter.hidden).in(second);
            EXPECT_NEAR(hidden, rate < 1e12 ? (forward ? 4 : 6) * 3 * hop : 0.0, 1e-2 * hop);
        }
    }
}

// Parameters of L layers travel beside the passes, gradients beside the backward ones: a pass takes
// the longer of both. What the table needs has nothing to hide behind.
TEST(MeshStep, ShardsTravelBesideThePasses) {
    for (const double rate : {1e10, 1e16}) {
        Scenario s = toy::scenario();
        s.plans = {toy::ep(Dedup::none, 1)};
        s.plans[0].parallel.data_parallel_sharding_strategy =
            DataParallelSharding::optim_grads_params;
        Profile profile = toy::profile();
        for (int k = 0; k < kNumKernels; ++k)
            for (RateCurve& curve : profile.kernel(static_cast<Kernel>(k)).forward)
                curve.rate = {rate, rate};
        const PlanPrediction plan = predict(s, profile).plans.at(0);
        const double n = 7.0 / 8.0, d = 1024, table = n * 2 * 32000 * d / toy::kLink + 1e-6;
        const double dense = n * 2 * (4 * d * d + 64 * d) / toy::kLink + 1e-6,
                     experts = n * 2 * (64 * 2 * d * 512) / toy::kLink + 1e-6;
        const PhaseCost gathers = cost_of(plan, Phase::param_all_gather, Pass::forward);
        const double all = 2 * table + 2 * (dense + experts);
        EXPECT_NEAR((gathers.time + gathers.hidden).in(second), all, 1e-6 * all);
        const bool slow = rate < 1e12;
        if (slow) {
            EXPECT_NEAR(gathers.time.in(second), table, 1e-6 * table);
        } else {
            EXPECT_GT(gathers.time.in(second), 0.9 * all);
        }
    }
}

}  // namespace
}  // namespace headway
