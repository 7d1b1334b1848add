// The host of an eager framework: what it launches, and the step that it bounds.
#include <gtest/gtest.h>

#include <array>
#include <tuple>

#include "models/cost/predict.hpp"
#include "models/vocab/error.hpp"
#include "models/workload/workload.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

constexpr GraphScopes scopes(std::initializer_list<GraphScope> list) {
    GraphScopes set = 0;
    for (const GraphScope s : list) set |= 1u << static_cast<unsigned>(s);
    return set;
}

double launches_of(const std::vector<PhaseWork>& phases) {
    double sum = 0.0;
    for (const PhaseWork& phase : phases) sum += phase.launches;
    return sum;
}

Scenario host_scenario(Plan plan) {
    Scenario s = toy::scenario();
    s.plans = {std::move(plan)};
    s.baseline = s.plans[0].name;
    return s;
}

Plan eager(Implementation implementation, Plan plan = toy::ep(Dedup::rank, 8)) {
    plan.implementation = implementation;
    return plan;
}

Profile host_profile(Seconds launch) {
    Profile p = toy::profile();
    p.overheads.host_launch = launch;
    p.overheads.host_residual = 0.25;
    return p;
}

// 9.0 ms of 13.5 us an operation, the floor of published layers: 300 forward and 370 backward.
TEST(Host, MegatronsMoeLayerHasTheOperationsOfThePublishedFloor) {
    const Scenario s = host_scenario(eager(Implementation::megatron));
    const LayerWork layer = build_workload(s, s.plans[0]).layers[0];
    double moe[2] = {};
    for (const auto* phases : {&layer.forward, &layer.backward})
        for (const PhaseWork& phase : *phases)
            if (phase.phase != Phase::norm && phase.phase != Phase::attention_qkv &&
                phase.phase != Phase::attention_core && phase.phase != Phase::attention_out)
                moe[phase.pass == Pass::backward] += phase.launches;
    EXPECT_EQ(moe[0], 300.0);
    EXPECT_EQ(moe[1], 370.0);
    EXPECT_NEAR((moe[0] + moe[1]) * 13.48e-6, 9.0e-3, 0.05e-3);
}

TEST(Host, FusedKernelsAreLaunchedByNobodyWhoIsWaitedFor) {
    const Scenario s = host_scenario(eager(Implementation::fused));
    const Workload work = build_workload(s, s.plans[0]);
    EXPECT_EQ(
        launches_of(work.layers[0].forward) + launches_of(work.before) + launches_of(work.after),
        0.0);
}

Profile own_host(Seconds call, Seconds exchange) {
    Profile p = toy::profile();
    toy::set_own_host(p, call, exchange);
    p.overheads.host_sync = 5.0 * us;
    return p;
}

double sum_of(const PerHostCall<double>& calls) {
    double sum = 0.0;
    for (const double n : calls.values) sum += n;
    return sum;
}

// Calls of a layer in a pass, and its waits.
struct CallsOfLayer {
    PerHostCall<double> forward, backward;
    int waits = 0;
};

CallsOfLayer calls_of_layer(Plan plan) {
    const Scenario s = host_scenario(eager(Implementation::headway, std::move(plan)));
    const LayerWork layer = build_workload(s, s.plans[0]).layers[0];
    CallsOfLayer sum;
    for (const auto* phases : {&layer.forward, &layer.backward}) {
        for (const PhaseWork& phase : *phases) {
            auto& to = phase.pass == Pass::backward ? sum.backward : sum.forward;
            for (std::size_t i = 0; i < kNumHostCalls; ++i) to.values[i] += phase.calls.values[i];
            sum.waits += phase.host_waits ? 1 : 0;
            EXPECT_EQ(phase.launches, 0.0);
        }
    }
    return sum;
}

// headway's own host hands NCCL counts, dispatch and combine forward and the latter two backward;
// under rank-dedup two records behind the counts, and the gates' gradients in backward; HP a
// scatter and a gather. Attention is a call each way.
TEST(Host, HeadwaysOwnHandsOverExchanges) {
    const auto check = [](const Plan& plan, double equal, double sent, double sent_back,
                          int waits) {
        const CallsOfLayer calls = calls_of_layer(plan);
        EXPECT_EQ(calls.forward[HostCall::all_to_all], equal) << plan.name;
        EXPECT_EQ(calls.forward[HostCall::exchange], sent) << plan.name;
        EXPECT_EQ(calls.backward[HostCall::exchange], sent_back) << plan.name;
        EXPECT_EQ(calls.waits, waits) << plan.name;
        EXPECT_EQ(calls.forward[HostCall::attention], 1.0);
        EXPECT_EQ(calls.backward[HostCall::attention_backward], 1.0);
    };
    check(toy::ep(Dedup::none, 8), 1.0, 2.0, 2.0, 1);
    check(toy::ep(Dedup::rank, 8), 1.0, 4.0, 3.0, 1);
    check(toy::hp(8, toy::scenario().model, 8), 2.0, 0.0, 0.0, 0);
}

// EP's layer of runtime/cuda, launch by launch: norms 2; q k v and output 2 products; core; router
// a product and a kernel; a sort of 4 and the copies; counts and their copy; the map of rows;
// regroup; experts 2; ungroup; unpermute. Backward: every product 2; norms 4, and a kernel each in
// router, permute, regroup, ungroup and unpermute.
TEST(Host, CallsOfALayerAreThoseOfTheRuntime) {
    const CallsOfLayer calls = calls_of_layer(toy::ep(Dedup::none, 8));
    EXPECT_EQ(calls.forward[HostCall::product], 3.0);
    EXPECT_EQ(calls.backward[HostCall::product], 6.0);
    EXPECT_EQ(calls.forward[HostCall::grouped], 2.0);
    EXPECT_EQ(calls.backward[HostCall::grouped], 4.0);
    EXPECT_EQ(calls.forward[HostCall::kernel], 2.0 + 1.0 + 5.0 + 2.0 + 1.0 + 1.0 + 1.0 + 1.0);
    EXPECT_EQ(calls.backward[HostCall::kernel], 4.0 + 1.0 + 1.0 + 1.0 + 1.0 + 1.0);
}

// A host so slow that nothing else counts: a step of m micro-batches is its calls, and the
// hand-over of every bucket of gradients behind the last one: a layer each, and the table. What
// follows the last of them is the device's.
TEST(Host, AStepOfASlowHostIsItsCalls) {
    for (const int micro_batches : {1, 3}) {
        Scenario s =
            host_scenario(eager(Implementation::headway, toy::hp(8, toy::scenario().model, 8)));
        s.batch.num_micro_batches = micro_batches;
        const Workload work = build_workload(s, s.plans[0]);
        double calls = 0.0;
        for (const auto* phases : {&work.before, &work.after})
            for (const PhaseWork& phase : *phases) calls += sum_of(phase.calls);
        for (const LayerWork& layer : work.layers)
            for (const auto* phases : {&layer.forward, &layer.backward})
                for (const PhaseWork& phase : *phases) calls += layer.count * sum_of(phase.calls);
        const double buckets = s.model.num_layers + 1;
        const Seconds call = 10.0 * ms;
        const PlanPrediction p =
            predict_plan(s, s.plans[0], own_host(call, call), {.software = false});
        EXPECT_NEAR(p.step / ((micro_batches * calls + buckets) * call), 1.0, 3e-3);
    }
}

// Behind its wait for counts the host needs x to hand over the dispatch, while the device has
// nothing to do: a step of L layers whose kernels cost the host nothing takes L x longer, as long
// as x is shorter than what the device has to do between dispatch and combine. HP never waits.
TEST(Host, EpWaitsForItsDispatchInEveryLayer) {
    const auto added = [](const Plan& plan, double x) {
        const Scenario s = host_scenario(eager(Implementation::headway, plan));
        const auto step = [&](Seconds exchange) {
            return predict_plan(s, s.plans[0], own_host(1e-3 * ns, exchange), {.software = false})
                .step;
        };
        return (step(x * us) - step(1e-3 * ns)).in(us);
    };
    const double x = 20.0, layers = toy::scenario().model.num_layers;
    EXPECT_NEAR(added(toy::ep(Dedup::none, 8), x), layers * x, 0.01);
    EXPECT_NEAR(added(toy::hp(8, toy::scenario().model, 8), x), 0.0, 0.01);
}

TEST(Host, AProfileThatDoesNotKnowHeadwaysHostIsRefused) {
    const Scenario s = host_scenario(eager(Implementation::headway));
    for (const auto& [unknown, key] : {std::pair(HostCall::attention, "overheads.host_attention"),
                                       std::pair(HostCall::exchange, "overheads.host_exchange")}) {
        Profile profile = own_host(us, us);
        profile.overheads.host_calls[unknown] = {};
        try {
            predict_plan(s, s.plans[0], profile);
            FAIL();
        } catch (const InputError& e) {
            EXPECT_NE(std::string(e.what()).find(key), std::string::npos);
        }
    }
}

// Records: T D copies a rank, of which (N - 1) / N leave it, k choices of 4 B each, over a curve of
// t = 1 us + bytes / B; twice in forward, once in backward.
TEST(Host, RecordsTravelWithTheCounts) {
    Scenario s = host_scenario(eager(Implementation::headway));
    const double n = 8, k = 4, e = 64, tokens = 4096;
    double missed = 1.0;
    for (int i = 0; i < k; ++i) missed *= (e - e / n - i) / (e - i);
    const double copies = tokens * n * (1.0 - missed) * (n - 1.0) / n;
    const double one = 1e-6 + 4.0 * k * copies / toy::kLink;
    const Profile profile = own_host(1e-3 * ns, 1e-3 * ns);
    const PlanPrediction p = predict_plan(s, s.plans[0], profile, {.software = false});
    for (const PhaseCost& cost : p.phases) {
        if (cost.phase != Phase::count_exchange) continue;
        const bool forward = cost.pass == Pass::forward;
        EXPECT_EQ(cost.count, s.model.num_layers);
        EXPECT_NEAR(cost.time.in(us), 1e6 * s.model.num_layers * (forward ? 5e-6 + 2.0 * one : one),
                    1e-2);
    }
}

// Heads that a rank owns, H / N of them, are moved by a copy of T H d_h b bytes read and written,
// around every exchange; one head a rank lies where it arrives.
TEST(Host, SeveralHeadsARankAreMovedAroundTheExchange) {
    for (const int heads : {8, 16}) {
        const Scenario s =
            host_scenario(eager(Implementation::headway, toy::hp(heads, toy::scenario().model, 8)));
        Scenario ideal = s;
        ideal.plans[0].implementation = Implementation::fused;
        const auto scatter = [&](const Scenario& of) {
            const PlanPrediction p =
                predict_plan(of, of.plans[0], own_host(1e-3 * ns, 1e-3 * ns), {.software = false});
            for (const PhaseCost& cost : p.phases)
                if (cost.phase == Phase::head_scatter && cost.pass == Pass::forward)
                    return cost.time.in(us) / cost.count;
            return 0.0;
        };
        const double moved = 2.0 * 4096 * 1024 * 2.0;
        EXPECT_NEAR(scatter(s) - scatter(ideal), heads > 8 ? 1e6 * moved / toy::kByteRate : 0.0,
                    1e-3);
    }
}

// A graph is one operation; what is outside it keeps its own.
TEST(Host, AGraphIsOneLaunchAPass) {
    Plan plan = eager(Implementation::megatron);
    const Scenario whole = host_scenario(plan);
    const LayerWork before = build_workload(whole, plan).layers[0];
    plan.cuda_graph_scope = scopes({GraphScope::attn});
    const LayerWork after = build_workload(host_scenario(plan), plan).layers[0];
    double attention = 0.0;
    for (const PhaseWork& phase : before.forward)
        if (phase.phase == Phase::norm || phase.phase == Phase::attention_qkv ||
            phase.phase == Phase::attention_core || phase.phase == Phase::attention_out)
            attention += phase.launches;
    EXPECT_GT(attention, 1.0);
    EXPECT_EQ(launches_of(after.forward), launches_of(before.forward) - attention + 1.0);
    plan.cuda_graph_scope = scopes({GraphScope::full_iteration});
    const Workload graph = build_workload(host_scenario(plan), plan);
    EXPECT_EQ(launches_of(graph.layers[0].forward) + launches_of(graph.layers[0].backward), 0.0);
}

Plan as_graph(Plan plan) {
    plan.implementation = Implementation::headway;
    plan.cuda_graph_scope = scopes({GraphScope::full_iteration});
    return plan;
}

// The host launches one kernel's worth for a step of headway's that is one graph, whatever the
// micro-batches; what moves besides stays.
TEST(Host, HeadwaysStepAsAGraphIsOneLaunch) {
    for (const int micro_batches : {1, 4}) {
        const Plan hp = toy::hp(16, toy::scenario().model, 8);
        Scenario s = host_scenario(as_graph(hp));
        s.batch.num_micro_batches = micro_batches;
        const Workload graph = build_workload(s, s.plans[0]),
                       enqueued = build_workload(s, eager(Implementation::headway, hp));
        double kernels = 0.0, calls = 0.0;
        for (const auto* phases : {&graph.before, &graph.layers[0].forward,
                                   &graph.layers[0].backward, &graph.after, &graph.update})
            for (const PhaseWork& phase : *phases) {
                kernels += phase.calls[HostCall::kernel];
                for (const double n : phase.calls.values) calls += n;
                EXPECT_FALSE(phase.host_waits);
            }
        EXPECT_EQ(kernels * micro_batches, 1.0);
        EXPECT_EQ(calls, kernels);
        EXPECT_EQ(graph.layers[0].forward.size(), enqueued.layers[0].forward.size());
        EXPECT_TRUE(graph.runs_free);
    }
}

// As a graph a step takes what it takes of a host whose enqueueing takes no time, whatever this
// one's takes; enqueued, a host of 100 us a kernel makes it longer than all its launches: of the
// layers alone, 2 exchanges and over 10 kernels a pass.
TEST(Host, AGraphHidesTheHostHoweverSlow) {
    const Plan hp = toy::hp(8, toy::scenario().model, 8);
    const Scenario graph = host_scenario(as_graph(hp)),
                   enqueued = host_scenario(eager(Implementation::headway, hp));
    const auto step = [](const Scenario& s, Seconds host) {
        return predict_plan(s, s.plans[0], own_host(host, host), {.software = false}).step;
    };
    const Seconds ideal = step(enqueued, 1e-3 * ns);
    EXPECT_NEAR(step(graph, 1e-3 * ns) / ideal, 1.0, 1e-6);
    EXPECT_NEAR(step(graph, 100.0 * us) / ideal, 1.0, 1e-6);
    const Seconds slow = 1.0 * ms;
    EXPECT_GT(step(enqueued, slow), toy::scenario().model.num_layers * 2 * 12 * slow);
    // Nothing but a launch bounds a step of a host as slow as that.
    EXPECT_NEAR(step(graph, 1.0 * second) / second, 1.0, 0.01);
}

// On one rank EP has no counts to wait for, and its step can be a graph too.
TEST(Host, EpOfOneRankCanBeAGraph) {
    EXPECT_FALSE(waits_for_counts(toy::ep(Dedup::none, 1)));
    EXPECT_TRUE(waits_for_counts(toy::ep(Dedup::none, 2)));
    EXPECT_FALSE(waits_for_counts(toy::hp(8, toy::scenario().model, 8)));
    EXPECT_TRUE(waits_for_counts(toy::hp(4, toy::scenario().model, 8)));
    const Scenario s = host_scenario(as_graph(toy::ep(Dedup::none, 1)));
    const Workload work = build_workload(s, s.plans[0]);
    for (const PhaseWork& phase : work.layers[0].forward) EXPECT_FALSE(phase.host_waits);
}

// TransformerEngine's modules take twice as long in FP8: of 12, 3, 50 forward and what is linear.
TEST(Host, Fp8TakesTheHostTwiceForLinearLayers) {
    Plan plan = eager(Implementation::megatron);
    const LayerWork bf16 = build_workload(host_scenario(plan), plan).layers[0];
    plan.precision.recipe = Recipe::tensorwise;
    const LayerWork fp8 = build_workload(host_scenario(plan), plan).layers[0];
    for (std::size_t i = 0; i < bf16.forward.size(); ++i) {
        const Phase phase = bf16.forward[i].phase;
        const bool linear = phase == Phase::attention_qkv || phase == Phase::attention_out ||
                            phase == Phase::expert;
        EXPECT_EQ(fp8.forward[i].launches, (linear ? 2.0 : 1.0) * bf16.forward[i].launches)
            << name(phase);
    }
}

// A host so slow that nothing else counts: the step is its launches, one after the other, but for
// what follows the last of them, the table's gradients and the update.
TEST(Host, AStepOfASlowHostIsItsLaunches) {
    Scenario s = host_scenario(eager(Implementation::torch));
    const Workload work = build_workload(s, s.plans[0]);
    double operations = launches_of(work.before) + launches_of(work.after);
    for (const LayerWork& layer : work.layers)
        operations += layer.count * (launches_of(layer.forward) + launches_of(layer.backward));
    const Seconds launch = 10.0 * ms;
    const PlanPrediction p = predict_plan(s, s.plans[0], host_profile(launch), {.software = false});
    EXPECT_NEAR(p.step / (operations * launch), 1.0, 2e-3);
    EXPECT_GT(p.launch_wait, 0.98 * p.step);
    // All of it is off by what a launch is, 25 %: 1.6449 standard deviations either way.
    EXPECT_NEAR((p.step_interval.high - p.step) / (0.25 * 1.6449 * p.step), 1.0, 0.02);
}

// With launches that take no time the host's step is that of one graph.
TEST(Host, ALaunchThatCostsNothingChangesNothing) {
    Plan plan = eager(Implementation::megatron, toy::ep(Dedup::none, 8));
    const Scenario launched = host_scenario(plan);
    plan.cuda_graph_scope = scopes({GraphScope::full_iteration});
    const Scenario graph = host_scenario(plan);
    const Seconds a = predict_plan(graph, graph.plans[0], host_profile(ns)).step,
                  b = predict_plan(launched, launched.plans[0], host_profile(1e-6 * ns)).step;
    EXPECT_NEAR(a / b, 1.0, 1e-6);
}

// Longer launches never make a step shorter.
TEST(Host, TheStepGrowsWithTheLaunch) {
    for (const Implementation i : {Implementation::torch, Implementation::megatron}) {
        const Scenario s = host_scenario(eager(i));
        Seconds last;
        for (const double launch : {0.1, 1.0, 3.0, 10.0, 30.0, 100.0}) {
            const Seconds step = predict_plan(s, s.plans[0], host_profile(launch * us)).step;
            EXPECT_GE(step, last);
            last = step;
        }
    }
}

TEST(Host, AProfileThatDoesNotKnowTheHostIsRefused) {
    const Scenario s = host_scenario(eager(Implementation::megatron));
    try {
        predict_plan(s, s.plans[0], toy::profile());
        FAIL();
    } catch (const InputError& e) {
        EXPECT_NE(std::string(e.what()).find("overheads.host_launch"), std::string::npos);
    }
}

// FlashAttention 2 takes 1.5 times as long in either pass; nothing else changes.
TEST(Host, FlashAttention2StretchesTheCoreAlone) {
    const Scenario s = toy::scenario();
    Plan fused = toy::ep(Dedup::none, 8), flash = fused;
    flash.attention_backend = AttentionBackend::flash;
    const PlanPrediction a = predict_plan(s, fused, toy::profile()),
                         b = predict_plan(s, flash, toy::profile());
    ASSERT_EQ(a.phases.size(), b.phases.size());
    for (std::size_t i = 0; i < a.phases.size(); ++i) {
        const double times = a.phases[i].phase == Phase::attention_core ? 1.5 : 1.0;
        EXPECT_NEAR(b.phases[i].time.in(second), times * a.phases[i].time.in(second), 1e-15)
            << name(a.phases[i].phase);
        EXPECT_EQ(a.phases[i].flops, b.phases[i].flops);
    }
}

}  // namespace
}  // namespace headway
