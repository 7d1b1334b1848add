#include "runtime/layers/measure.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "models/vocab/error.hpp"
#include "models/vocab/phase.hpp"
#include "models/workload/drawn_group.hpp"
#include "models/workload/layout.hpp"
#include "models/workload/workload.hpp"
#include "runtime/host.hpp"
#include "runtime/layers/layer_setup.hpp"

namespace headway::runtime {
namespace {

void on_nodes_of(Cluster& cluster, int gpus, int num_ranks) {
    cluster.num_nodes = num_ranks / gpus;
    cluster.gpus_per_node = gpus;
    cluster.fabric = Fabric{.nics_per_node = 1, .nic = GB / second};
}

Scenario small(Plan plan) {
    Scenario s{.name = "small"};
    s.model = {.hidden = 16,
               .num_layers = 3,
               .num_dense_layers = 1,
               .moe = {.num_experts = 8,
                       .top_k = 2,
                       .expert_width = 8,
                       .num_shared_experts = 1,
                       .shared_expert_width = 8},
               .dtype = Dtype::fp32};
    s.model.attention = {.num_heads = 2, .num_kv_heads = 2, .head_width = 8};
    s.cluster = {.name = "box", .num_nodes = 1, .gpus_per_node = plan.group_size};
    s.cluster.pcie = Pcie{.bandwidth = GB / second};
    const auto* ep = std::get_if<ExpertParallel>(&plan.layer);
    if (ep != nullptr && ep->dedup == Dedup::node) on_nodes_of(s.cluster, 2, plan.group_size);
    s.batch = {.sequence_length = 12};
    plan.name = "p";
    s.plans = {plan};
    return s;
}

std::vector<Plan> plans() {
    const HeadParallel heads{
        .num_heads = 2, .head_width = 8, .num_experts = 8, .top_k = 2, .expert_width = 8};
    return {{.layer = ExpertParallel{}, .group_size = 1},
            {.layer = ExpertParallel{}, .group_size = 2},
            {.layer = ExpertParallel{.dedup = Dedup::rank}, .group_size = 4},
            {.layer = ExpertParallel{.dedup = Dedup::node}, .group_size = 4},
            {.layer = ExpertParallel{.latent_width = 8}, .group_size = 8},
            {.layer = heads, .group_size = 1},
            {.layer = heads, .group_size = 2},
            {.layer = heads, .group_size = 4}};
}

std::set<CallSite> phases_of(const std::vector<PhaseWork>& work) {
    std::set<CallSite> sites;
    for (const PhaseWork& phase : work) {
        if (is_moe_phase(phase.phase)) sites.insert({phase.phase, phase.pass});
    }
    return sites;
}

// The phases that run are those that the Workload prices, so that verify can join them. The one
// exception: the gates' gradient that rank-dedup sends back has no price of its own.
TEST(Measure, RunsThePhasesOfTheWorkload) {
    for (const Plan& plan : plans()) {
        const Scenario s = small(plan);
        const LayerWork work = build_moe_layer(s, s.plans[0], expected_load(s, s.plans[0], 1), 1);
        std::set<CallSite> expected = phases_of(work.forward);
        expected.merge(phases_of(work.backward));
        const Measurement m = measure_plan(s, s.plans[0], {.num_warmups = 0, .num_repeats = 1});
        std::set<CallSite> run;
        for (const Span& span : m.timeline.spans) run.insert({span.phase, span.pass});
        run.erase({Phase::count_exchange, Pass::backward});
        EXPECT_EQ(run, expected) << plan.group_size << (plan.is_head_parallel() ? " hp" : " ep");
    }
}

// One span for every rank, layer and phase, with the number of repeats, the median between p10 and
// p90, and begin times that do not run backwards on a rank.
TEST(Measure, GivesASpanForEveryRankLayerAndPhase) {
    const Scenario s = small(plans()[1]);
    const Measurement m =
        measure_plan(s, s.plans[0], {.num_layers = 2, .num_warmups = 1, .num_repeats = 3});
    std::map<std::pair<int, int>, int> spans;
    std::map<int, Seconds> clock;
    for (const Span& span : m.timeline.spans) {
        ++spans[{span.rank, span.layer}];
        EXPECT_EQ(span.samples, 3);
        EXPECT_LE(span.low, span.duration);
        EXPECT_LE(span.duration, span.high);
        EXPECT_GE(span.begin, clock[span.rank]);
        clock[span.rank] = span.begin;
    }
    ASSERT_EQ(spans.size(), 4U);  // 2 ranks, layers 1 and 2
    for (const auto& [key, count] : spans) EXPECT_EQ(count, 19);
    EXPECT_EQ(m.timeline.source, Source::measured);
    EXPECT_EQ(m.timeline.profile, cpu_name());
}

TEST(Measure, RefusesWhatItCannotRunWithTheValidChoices) {
    Scenario s = small({.layer = ExpertParallel{}, .group_size = 3});
    try {
        measure_plan(s, s.plans[0], {});
        FAIL();
    } catch (const InputError& error) {
        EXPECT_NE(std::string(error.what()).find("accepted: 1, 2, 4, 8 ranks"), std::string::npos);
    }
}

// Node-dedup needs whole nodes: 8 experts over 4 ranks do not lie on nodes of 3. What a cluster's
// NVLink domain holds is a node.
TEST(Measure, NodeDedupOnPartsOfNodesIsRefused) {
    Scenario s = small({.layer = ExpertParallel{.dedup = Dedup::node}, .group_size = 4});
    EXPECT_EQ(layer_setup(s, s.plans[0]).ep.sparse.ranks_per_node, 2);
    on_nodes_of(s.cluster, 3, 6);
    try {
        layer_setup(s, s.plans[0]);
        FAIL() << "4 ranks on nodes of 3 were accepted";
    } catch (const InputError& error) {
        EXPECT_STREQ(
            error.what(),
            "plan p: dedup: node, and 4 ranks do not fill nodes of 3; accepted: 1, 2 ranks");
    }
    s.cluster.nvlink = NvLink{.domain = 6};
    EXPECT_EQ(layer_setup(s, s.plans[0]).ep.sparse.ranks_per_node, 4) << "one node";
}

// A number of ranks that is every plan's own leaves the nodes as they are; another one is a cut.
TEST(Measure, TheNodesStayWhereNoRankIsCut) {
    const Scenario s = small({.layer = ExpertParallel{.dedup = Dedup::node}, .group_size = 4});
    EXPECT_EQ(scenario_to_run(s, 4, 0).cluster.num_nodes, 2);
    EXPECT_EQ(scenario_to_run(s, 0, 0).cluster.num_nodes, 2);
    const Scenario cut = scenario_to_run(s, 2, 0);
    EXPECT_EQ(cut.cluster.num_nodes, 1);
    EXPECT_EQ(layer_setup(cut, cut.plans[0]).ep.sparse.ranks_per_node, 2) << "one node";
}

// What runs is headway's own implementation, where a plan says so, and else the kernels of `fused`.
TEST(Measure, RunsAsHeadwayDoes) {
    Scenario s = small({.layer = ExpertParallel{}, .group_size = 2});
    for (const auto& [asked, run] : {std::pair(Implementation::headway, Implementation::headway),
                                     std::pair(Implementation::megatron, Implementation::fused)}) {
        s.plans[0].implementation = asked;
        EXPECT_EQ(scenario_to_run(s, 2, 12).plans[0].implementation, run);
    }
}

// What no runtime executes is taken back, so that predictions and fits for a run are without it,
// and named: nothing of a plan is dropped in silence.
TEST(Measure, NamesTheSettingsThatAreNotExecuted) {
    Scenario s = small({.layer = ExpertParallel{}, .group_size = 2});
    EXPECT_TRUE(not_executed(s).empty());
    s.batch.num_micro_batches = 4;
    Plan& plan = s.plans[0];
    plan.layer = ExpertParallel{.hide_count_exchange = true};
    plan.recompute = RecomputeLevel::full;
    plan.overlap_chunks = 2;
    plan.parallel.data_parallel_sharding_strategy = DataParallelSharding::optim;
    plan.optimizer = Optimizer::adamw_8bit;
    plan.implementation = Implementation::unfused;
    plan.main_grads_dtype = Dtype::bf16;
    plan.exp_avg_sq_dtype = Dtype::fp16;
    ASSERT_EQ(not_executed(s).size(), 1U);
    EXPECT_EQ(
        not_executed(s)[0],
        "plan p: recompute: full, overlap_chunks: 2, hide_count_exchange: true, "
        "implementation: unfused, "
        "data_parallel_sharding_strategy: optim, optimizer: adamw_8bit, main_grads_dtype: bf16, "
        "exp_avg_sq_dtype: fp16, num_micro_batches: 4 is "
        "not executed: the MoE layers run alone, one micro-batch, phase after phase");
    const Scenario run = scenario_to_run(s, 2, 12);
    EXPECT_EQ(run.batch.num_micro_batches, 1);
    const Measurement m = measure_plan(run, run.plans[0], {.num_warmups = 0, .num_repeats = 1});
    std::set<CallSite> executed;
    for (const Span& span : m.timeline.spans) executed.insert({span.phase, span.pass});
    const LayerWork work =
        build_moe_layer(run, run.plans[0], expected_load(run, run.plans[0], 1), 1);
    std::set<CallSite> priced = phases_of(work.forward);
    priced.merge(phases_of(work.backward));
    EXPECT_EQ(executed, priced);
    const auto num_experts =
        std::count_if(work.backward.begin(), work.backward.end(),
                      [](const PhaseWork& p) { return p.phase == Phase::expert; });
    EXPECT_EQ(num_experts, 1) << "no second run of the experts is priced";
}

// A failing rank ends the whole measurement, named with the phase.
TEST(Measure, AnInjectedFaultIsNamed) {
    const Scenario s = small(plans()[1]);
    for (const auto kind : {InjectedFault::Kind::throws, InjectedFault::Kind::stalls}) {
        MeasureOptions options{.num_repeats = 1};
        options.threads = {.deadline = std::chrono::milliseconds(300),
                           .grace = std::chrono::milliseconds(100)};
        options.fault = {kind, 1, Phase::combine};
        try {
            measure_plan(s, s.plans[0], options);
            FAIL();
        } catch (const RankFailure& failure) {
            EXPECT_EQ(failure.rank, 1);
            EXPECT_EQ(failure.site, (CallSite{Phase::combine, Pass::forward}));
        }
    }
}

// What draw_group says of a layer, head by head, are the bytes that a run of it exchanges: on the
// diagonal blocks of the groups, copies times the fp32 row; nothing elsewhere.
TEST(Measure, ExchangesWhatIsDrawnOfItsGroups) {
    for (const Plan& plan : plans()) {
        if (plan.group_size != 4) continue;
        Scenario s = small(plan);
        s.routing = {.skew = Skew::dirichlet, .parameter = 0.3, .seed = 5};
        const int layer = s.model.num_dense_layers, n = expert_layout(s, plan).group_size;
        const std::int64_t row = 4 * expert_layout(s, plan).width;
        if (draw_group(s, plan, layer, 0).forwarded)
            continue;  // two matrices: node-dedup's own test
        TrafficMatrix expected(plan.group_size);
        for (int g = 0; g < plan.group_size / n; ++g) {
            const TrafficMatrix copies = draw_group(s, plan, layer, g).copies;
            for (int i = 0; i < n; ++i) {
                for (int j = 0; j < n; ++j)
                    expected.at(g * n + i, g * n + j) = row * copies.at(i, j);
            }
        }
        const Measurement m =
            measure_plan(s, s.plans.front(), {.num_warmups = 0, .num_repeats = 1});
        EXPECT_EQ(m.traffic.at({Phase::dispatch, Pass::forward}), expected);
        EXPECT_EQ(m.traffic.at({Phase::combine, Pass::forward}), expected.transposed());
    }
}

}  // namespace
}  // namespace headway::runtime
