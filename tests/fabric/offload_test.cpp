// What lies in host memory: times solved by hand, bytes counted where they are.
#include <gtest/gtest.h>

#include <algorithm>
#include <string_view>

#include "models/cost/memory.hpp"
#include "models/cost/predict.hpp"
#include "models/cost/program.hpp"
#include "models/vocab/error.hpp"
#include "models/workload/layout.hpp"
#include "models/workload/parameters.hpp"
#include "sim/simulate.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {
namespace offload {

constexpr double kCopy = 25e9, kAdam = 10e9;  // bytes a second, of a rank

// 8 ranks, which share the optimizer; copies at half of 50 GB/s, AdamW at 10 GB/s.
Scenario offloading(double share, bool overlaps = false) {
    Scenario s = toy::scenario();
    s.cluster.host = Host{.bandwidth = 50e9 * byte / second,
                          .memory_bandwidth = 1e12 * byte / second,
                          .memory = 1e4 * GiB};
    Plan& plan = s.plans[0];
    plan.parallel.data_parallel_sharding_strategy = DataParallelSharding::optim;
    plan.offload = {.optimizer_cpu_offload = true,
                    .optimizer_offload_fraction = share,
                    .overlap_cpu_optimizer_d2h_h2d = overlaps};
    return s;
}

Profile profile() {
    Profile p = toy::profile();
    p.host = HostRates{.copy = 0.5,
                       .copy_residual = 0.1,
                       .adam = kAdam * byte / second,
                       .adam_residual = 0.4,
                       .source = "toy"};
    return p;
}

PlanPrediction predicted(const Scenario& s) {
    return predict(s, profile(), {}).plans[0];
}

const PhaseCost* phase(const PlanPrediction& plan, Phase phase) {
    const auto found = std::ranges::find_if(plan.phases, [&](const PhaseCost& p) {
        return p.phase == phase && p.pass == Pass::update;
    });
    return found == plan.phases.end() ? nullptr : &*found;
}

double time_of(const PlanPrediction& plan, Phase which) {
    const PhaseCost* found = phase(plan, which);
    return found != nullptr ? found->time.in(second) : 0.0;
}

double on_host(const PlanPrediction& plan) {
    return time_of(plan, Phase::offload) + time_of(plan, Phase::host_optimizer) +
           time_of(plan, Phase::optimizer) + time_of(plan, Phase::reload);
}

// n of a rank: an eighth of what is replicated, and all of its own experts, which have no replica.
double own_parameters(const Scenario& s) {
    const ParameterCount count = count_parameters(s.model, s.plans[0]);
    return count.replicated() / 8.0 + count.experts / 8.0;
}

// Down 4 f n / c, then the host's 28 f n / a beside the GPU's (1 - f) n of 30 B at 1 TB/s, up 4 f n
// / c.
TEST(OffloadedOptimizer, WithoutOverlapIsOneStepAfterTheOther) {
    for (const double share : {0.25, 1.0}) {
        const Scenario s = offloading(share);
        const double n = own_parameters(s), copy = 4.0 * share * n / kCopy,
                     host = 28.0 * share * n / kAdam, gpu = (1.0 - share) * n * 30.0 / 1e12;
        const PlanPrediction plan = predicted(s);
        EXPECT_NEAR(time_of(plan, Phase::offload), copy, 1e-9 * copy);
        EXPECT_NEAR(time_of(plan, Phase::optimizer), gpu, 1e-9 * host);
        EXPECT_NEAR(time_of(plan, Phase::host_optimizer), host - gpu, 1e-9 * host);
        EXPECT_NEAR(time_of(plan, Phase::reload), copy, 1e-9 * copy);
        EXPECT_NEAR(on_host(plan), 2.0 * copy + host, 1e-9 * host);
        EXPECT_EQ(phase(plan, Phase::optimizer) == nullptr, share == 1.0);
    }
}

// n pieces of down d, host c and up u each, the host the slowest: d + n c + u; the GPU's optimizer
// is done before. Slow copies: n d + c + u.
TEST(OffloadedOptimizer, WithOverlapIsAFlowOfPieces) {
    for (const double adam : {kAdam, 1000.0 * kAdam}) {
        const Scenario s = offloading(0.5, true);
        Profile p = profile();
        p.host->adam = adam * byte / second;
        Scenario fast = s;
        fast.cluster.host->memory_bandwidth = 1e15 * byte / second;
        const double n = 0.5 * own_parameters(s), pieces = s.model.num_layers + 1.0,
                     copy = 4.0 * n / kCopy / pieces, host = 28.0 * n / adam / pieces;
        const double gpu = n * 30.0 / 1e12;
        const double wanted = std::max(copy, host) * (pieces - 1.0) + 2.0 * copy + host;
        ASSERT_LT(gpu, wanted - copy);
        EXPECT_NEAR(on_host(predict(fast, p, {}).plans[0]), wanted, 1e-9 * wanted) << adam;
    }
}

// Eight ranks of a node share its memory and, where it is less than theirs, its link.
TEST(OffloadedOptimizer, SharesWhatItsNodeHas) {
    Scenario s = offloading(1.0);
    const double n = own_parameters(s);
    s.cluster.host->memory_bandwidth = 8.0 * 5e9 * byte / second;  // also of copies: 5 GB/s
    EXPECT_NEAR(on_host(predicted(s)), 28.0 * n / 5e9 + 2.0 * 4.0 * n / (0.5 * 5e9), 1e-9);
    s = offloading(1.0);
    s.cluster.host->node_bandwidth = 8.0 * 10e9 * byte / second;
    EXPECT_NEAR(on_host(predicted(s)), 28.0 * n / kAdam + 2.0 * 4.0 * n / (0.5 * 10e9), 1e-9);
    s.cluster.host->node_bandwidth = 8.0 * 60e9 * byte / second;  // more than the GPUs' links
    EXPECT_NEAR(on_host(predicted(s)), 28.0 * n / kAdam + 2.0 * 4.0 * n / kCopy, 1e-9);
}

TEST(OffloadedOptimizer, OfNothingIsTheOneOnTheGpu) {
    Scenario s = offloading(0.0);
    const PlanPrediction none = predicted(s);
    s.plans[0].offload = {};
    EXPECT_DOUBLE_EQ(none.step.in(second), predicted(s).step.in(second));
    EXPECT_EQ(none.memory.peak.in(byte), predicted(s).memory.peak.in(byte));
    EXPECT_EQ(none.memory.host.node.in(byte), 0.0);
}

double item(const std::vector<MemoryItem>& items, std::string_view name) {
    const auto found = std::ranges::find(items, name, &MemoryItem::name);
    return found == items.end() ? 0.0 : found->bytes.in(byte);
}

// f of the states leave the GPU, 12 B a parameter, or 8 where its masters stay; the host has 16 B,
// eight times a node.
TEST(OffloadedOptimizer, MovesItsStates) {
    Scenario s = offloading(0.25);
    const double n = own_parameters(s);
    PlanMemory memory = predicted(s).memory;
    EXPECT_NEAR(item(memory.items, "optimizer states"), 12.0 * 0.75 * n, 1.0);
    EXPECT_NEAR(item(memory.host.items, "optimizer states"), 16.0 * 0.25 * n, 1.0);
    EXPECT_NEAR(memory.host.node.in(byte), 8.0 * 16.0 * 0.25 * n, 8.0);
    s.plans[0].offload.use_precision_aware_optimizer = false;
    memory = predicted(s).memory;
    EXPECT_NEAR(item(memory.items, "optimizer states"), (4.0 + 8.0 * 0.75) * n, 1.0);
    EXPECT_NEAR(memory.host.node.in(byte), 8.0 * 16.0 * 0.25 * n, 8.0);
}

TEST(OffloadedOptimizer, NeedsRoomInHostMemory) {
    Scenario s = offloading(1.0);
    const double all = 8.0 * 16.0 * own_parameters(s);
    s.cluster.host->memory = 1.001 * all * byte;
    EXPECT_TRUE(predicted(s).feasible);
    s.cluster.host->memory = 0.999 * all * byte;
    const PlanPrediction plan = predicted(s);
    EXPECT_FALSE(plan.feasible);
    EXPECT_NE(plan.infeasible_because.find("host memory of a node"), std::string::npos);
    s.cluster.host->memory = {};  // not stated
    EXPECT_TRUE(predicted(s).feasible);
}

TEST(OffloadedOptimizer, WithoutRatesIsNotPriced) {
    const Scenario s = offloading(1.0);
    EXPECT_THROW(predict(s, toy::profile(), {}), MissingCurve);
}

// The simulator runs the same pieces; the ranks of a pipeline wait for each other before.
TEST(OffloadedOptimizer, IsSimulatedAsItIsPredicted) {
    for (const int stages : {1, 2}) {
        for (const bool overlaps : {false, true}) {
            Scenario s = offloading(0.5, overlaps);
            Plan& plan = s.plans[0];
            plan.group_size = 4;
            plan.parallel.pipeline_model_parallel_size = stages;
            s.batch.num_micro_batches = 4;
            const Program program = build_program(s, plan, profile(), {});
            const sim::SimulationResult run = sim::simulate(program, sim::Topology(s.cluster), {});
            const double wanted = predicted(s).step.in(second);
            EXPECT_NEAR(run.step.in(second), wanted, 5e-3 * wanted) << stages << ' ' << overlaps;
        }
    }
}

// ---- Activations. T 4096, d 1024, 8 heads of 128, 64 experts of 512 with k 4 on 8 ranks: rows
// 16384.

constexpr double kMiB = 1048576.0;

Scenario offloading_modules(OffloadModules modules) {
    Scenario s = offloading(0.0);
    s.plans[0].offload = {.fine_grained_activation_offloading = true, .modules = modules};
    return s;
}

double moved_by_layer(const Scenario& s, Pass pass) {
    const Workload work = build_workload(s, s.plans[0]);
    const auto& phases = pass == Pass::forward ? work.layers[0].forward : work.layers[0].backward;
    double bytes = 0.0;
    for (const PhaseWork& phase : phases)
        if (const auto* host = std::get_if<HostWork>(&phase.work)) bytes += host->bytes.in(byte);
    return bytes;
}

// T d b = 8 MiB; rows d b = 32, rows f b = 16.
TEST(OffloadedActivations, AreTheInputsOfTheirModules) {
    using enum OffloadModule;
    const auto mebibytes = [](auto... m) {
        const Scenario s = offloading_modules(offload_modules(m...));
        EXPECT_EQ(moved_by_layer(s, Pass::forward), moved_by_layer(s, Pass::backward));
        return moved_by_layer(s, Pass::forward) / kMiB;
    };
    EXPECT_NEAR(mebibytes(attn_norm), 8.0, 1e-9);
    EXPECT_NEAR(mebibytes(qkv_linear), 8.0, 1e-9);
    EXPECT_NEAR(mebibytes(core_attn), 24.0, 1e-9);
    EXPECT_NEAR(mebibytes(core_attn, attn_proj), 32.0, 1e-9);
    EXPECT_NEAR(mebibytes(mlp_norm), 8.0, 1e-9);
    EXPECT_NEAR(mebibytes(expert_fc1), 32.0, 1e-9);
    EXPECT_NEAR(mebibytes(moe_act), 16.0, 1e-9);
    EXPECT_NEAR(mebibytes(fused_group_mlp), 32.0 + 16.0 + 16.0, 1e-9);
    EXPECT_NEAR(mebibytes(attn_norm, expert_fc1, moe_act), 56.0, 1e-9);
}

// A module's tensors that are computed again go nowhere.
TEST(OffloadedActivations, AreWhatIsKept) {
    using enum OffloadModule;
    Scenario s = offloading_modules(offload_modules(qkv_linear, expert_fc1));
    s.plans[0].recompute.granularity = RecomputeGranularity::selective;
    s.plans[0].recompute.modules = modules(RecomputeModule::layernorm);
    EXPECT_NEAR(moved_by_layer(s, Pass::forward) / kMiB, 32.0, 1e-9);
}

double layers_time(const PlanPrediction& plan, Pass pass) {
    double sum = 0.0;
    for (const PhaseCost& p : plan.phases) {
        const bool outer =
            p.phase == Phase::embed || p.phase == Phase::lm_head || p.phase == Phase::loss;
        if (p.pass == pass && !outer) sum += p.time.in(second);
    }
    return sum;
}

// A pass takes the longer of what it computes and exchanges, and of its copy.
TEST(OffloadedActivations, AreHiddenBehindTheirPass) {
    for (const double copy : {1e15, 10e9, 1e9}) {
        Scenario s = offloading_modules(offload_modules(OffloadModule::expert_fc1));
        s.cluster.host->bandwidth = 2.0 * copy * byte / second;  // half of it is achieved
        s.cluster.host->memory_bandwidth = 1e18 * byte / second;
        Scenario none = s;
        none.plans[0].offload = {};
        const double bytes = 32.0 * kMiB, layers = s.model.num_layers;
        for (const Pass pass : {Pass::forward, Pass::backward}) {
            // The final norm reads and writes T d b = 8 MiB at 1e12 B/s, in backward twice.
            const double norm = (pass == Pass::forward ? 2.0 : 4.0) * 8.0 * kMiB / 1e12;
            const double before = (layers_time(predicted(none), pass) - norm) / layers;
            EXPECT_NEAR(layers_time(predicted(s), pass) - norm,
                        layers * std::max(before, bytes / copy), 1e-9 * layers * before)
                << copy;
        }
    }
}

// What leaves the GPU is on the host, as often as it is in flight: 2, 1 of two stages of one layer.
// Two layers' are on their way, or all there is.
TEST(OffloadedActivations, AreCountedInHostMemoryByStage) {
    using enum OffloadModule;
    Scenario s = offloading_modules(offload_modules(core_attn, expert_fc1));
    s.model.num_layers = 8;
    s.plans[0].group_size = 4;
    s.plans[0].parallel.pipeline_model_parallel_size = 2;
    s.batch.num_micro_batches = 4;
    Scenario none = s;
    none.plans[0].offload = {};
    const double bytes = (24.0 + 32.0) * kMiB;
    const PlanMemory with = predicted(s).memory, without = predicted(none).memory;
    for (std::size_t stage = 0; stage < 2; ++stage) {
        const double away = (2.0 - static_cast<double>(stage)) * 4.0 * bytes;
        EXPECT_NEAR(item(with.stages[stage].host_items, "activations"), away, 1.0);
        EXPECT_NEAR(item(with.stages[stage].items, "offloaded: two layers on their way"),
                    2.0 * bytes, 1.0);
        EXPECT_NEAR((without.stages[stage].allocated - with.stages[stage].allocated).in(byte),
                    away - 2.0 * bytes, 1.0);
    }
    // One node: four ranks of either stage.
    EXPECT_NEAR(with.host.node.in(byte), 4.0 * (2.0 + 1.0) * 4.0 * bytes, 8.0);
}

// All that n layers keep but the router's, in copies that spread over all L.
TEST(OffloadedActivations, OfWholeLayersAreThoseOfTheFirst) {
    Scenario s = offloading(0.0);
    s.model.num_layers = 8;
    s.plans[0].offload = {.cpu_offloading_num_layers = 2};
    Scenario none = s;
    none.plans[0].offload = {};
    // Input, norms, q, k, v, output, residual; log-sum-exp; rows, pre-activations and hidden rows.
    const double bytes = 8.0 * 8.0 * kMiB + 4096.0 * 8.0 * 4.0 + (32.0 + 16.0 + 16.0) * kMiB;
    EXPECT_NEAR(moved_by_layer(s, Pass::forward), 2.0 / 8.0 * bytes, 1.0);
    const PlanMemory with = predicted(s).memory, without = predicted(none).memory;
    EXPECT_NEAR(item(with.host.items, "activations"), 2.0 * bytes, 1.0);
    EXPECT_NEAR((without.allocated - with.allocated).in(byte), 0.0, 1.0) << "two are on their way";
    // The first of the two is dense: the only one of its kind, while seven share the other's copy.
    s.model.num_dense_layers = 1;
    s.model.dense_width = s.model.moe.expert_width;
    EXPECT_NEAR(moved_by_layer(s, Pass::forward),
                item(predicted(s).memory.host.items, "activations") - bytes, 1.0);
    s.model.num_dense_layers = 0;
    s.model.mtp_num_layers = 1;
    for (const LayerWork& layer : build_workload(s, s.plans[0]).layers) {
        const auto copies = std::ranges::count_if(layer.forward, [](const PhaseWork& phase) {
            return std::holds_alternative<HostWork>(phase.work);
        });
        EXPECT_EQ(copies, s.model.is_mtp_layer(layer.first_layer) ? 0 : 1);
    }
}

// Where copies are exposed a message leaves before the last one of its pass has ended: in each of
// the 2 (m v + p - 1) passes on the longest path at most one copy less.
TEST(OffloadedActivations, AreSimulatedAsTheyArePredicted) {
    using enum OffloadModule;
    for (const PipelineSchedule schedule :
         {PipelineSchedule::one_f_one_b, PipelineSchedule::interleaved}) {
        for (const double link : {100e9, 5e9}) {
            Scenario s = offloading_modules(offload_modules(core_attn, expert_fc1));
            s.cluster.host->bandwidth = link * byte / second;
            s.model.num_layers = 8;
            Plan& plan = s.plans[0];
            plan.group_size = 4;
            plan.parallel.pipeline_model_parallel_size = 2;
            plan.parallel.virtual_pipeline_model_parallel_size =
                schedule == PipelineSchedule::interleaved ? 2 : 1;
            s.batch.num_micro_batches = 4;
            const sim::SimulationResult run =
                sim::simulate(build_program(s, plan, profile(), {}), sim::Topology(s.cluster), {});
            const double wanted = predicted(s).step.in(second);
            const double chunks = plan.parallel.virtual_pipeline_model_parallel_size;
            const double copy = 2.0 * (24.0 + 32.0) * kMiB / link;  // half of it is achieved
            const double fewer = link < 10e9 ? 2.0 * (4.0 * chunks + 1.0) * copy : 0.0;
            EXPECT_LE(run.step.in(second), 1.01 * wanted) << name(schedule) << link;
            EXPECT_GE(run.step.in(second), 0.99 * wanted - fewer) << name(schedule) << link;
        }
    }
}

}  // namespace offload
}  // namespace
}  // namespace headway
