// predict on a machine with constant rates, where every phase can be solved by hand; and the laws
// that no profile may break.
#include "models/cost/predict.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "models/cost/moe_layer.hpp"
#include "models/vocab/error.hpp"
#include "models/workload/inclusion.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

const PhaseCost& phase(const PlanPrediction& plan, Phase wanted, Pass pass = Pass::forward) {
    const auto found =
        std::find_if(plan.phases.begin(), plan.phases.end(),
                     [&](const PhaseCost& c) { return c.phase == wanted && c.pass == pass; });
    if (found == plan.phases.end()) throw std::logic_error("phase not in plan");
    return *found;
}

PlanPrediction run(const Scenario& s, const Plan& plan) {
    return predict_plan(s, plan, toy::profile());
}

// c chunks: T = X + (D + C) / c + max(0, (c-1)/c (D + C) - X), so with X large only the two ends
// stay exposed.
TEST(Predict, ChunkedOverlapExposesTheEndsOnly) {
    Scenario s = toy::scenario();
    s.model.moe.expert_width = 16384;
    Plan plan = toy::ep(Dedup::none, 8);
    const PlanPrediction serial = run(s, plan);
    plan.overlap_chunks = 4;
    const PlanPrediction chunked = run(s, plan);
    const double exchange =
        (phase(serial, Phase::dispatch).time + phase(serial, Phase::combine).time).in(second)-4e-6;
    const double exposed =
        (phase(chunked, Phase::dispatch).time + phase(chunked, Phase::combine).time).in(second);
    EXPECT_NEAR(exposed, exchange / 4 + 4e-6, 1e-9);
    EXPECT_LT(chunked.step, serial.step);
}

TEST(Predict, IntervalComesFromTheResiduals) {
    const Scenario s = toy::scenario();
    const PlanPrediction p = run(s, s.plans[0]);
    const PhaseCost& dispatch = phase(p, Phase::dispatch);
    const double half = 1.6449 * 0.05 * dispatch.time.in(second);
    EXPECT_NEAR((dispatch.interval.high - dispatch.time).in(second), half, 1e-9);
    EXPECT_GT(p.step_interval.high, p.step);
    // Independent curves: the step's relative spread is below that of its worst curve.
    EXPECT_LT((p.step_interval.high - p.step) / p.step, 1.6449 * 0.1);
}

TEST(Predict, InfeasibleIsAResultThatNamesTheItem) {
    Scenario s = toy::scenario();
    s.cluster.device.memory = 1.0 * GiB;
    const PlanPrediction p = run(s, s.plans[0]);
    EXPECT_FALSE(p.feasible);
    EXPECT_NE(p.infeasible_because.find("largest item"), std::string::npos);
    Bytes sum;
    for (const MemoryItem& item : p.memory.items) sum += item.bytes;
    EXPECT_DOUBLE_EQ(sum.in(byte), p.memory.peak.in(byte));
}

TEST(Predict, StrictTurnsExtrapolationIntoAnError) {
    const Scenario s = toy::scenario();
    Profile profile = toy::profile();
    profile.kernel(Kernel::grouped_gemm).forward[0].size = {1.0, 16.0};
    EXPECT_FALSE(predict(s, profile).plans[0].warnings.empty());
    EXPECT_THROW(predict(s, profile, {.strict = true}), InputError);
}

TEST(Predict, MissingCurveIsAnErrorThatNamesIt) {
    Profile profile = toy::profile();
    profile.kernel(Kernel::router).forward.clear();
    const Scenario s = toy::scenario();
    try {
        predict(s, profile);
        FAIL() << "no error";
    } catch (const InputError& e) {
        EXPECT_NE(std::string(e.what()).find("router"), std::string::npos);
    }
}

// System: EP, the baseline, and HP, whose fused experts the profile does not know. Expectation: EP
// has the price that it has alone, HP is named with the curve that it lacks, and asking for HP
// alone is an error.
TEST(Predict, APlanWhoseCurveIsMissingLeavesTheOthers) {
    Profile profile = toy::profile();
    profile.kernel(Kernel::fused_expert).forward.clear();
    Scenario s = toy::scenario();
    const Prediction alone = predict(s, profile);
    s.plans.push_back(toy::hp(8, s.model, 8));
    const Prediction both = predict(s, profile);
    ASSERT_EQ(both.plans.size(), 1u);
    EXPECT_EQ(both.plans[0].step, alone.plans[0].step);
    ASSERT_EQ(both.unpriced.size(), 1u);
    EXPECT_EQ(both.unpriced[0].name, "hp");
    EXPECT_NE(both.unpriced[0].because.find("fused_expert"), std::string::npos);
    EXPECT_THROW(predict(s, profile, {.only_plans = {"hp"}}), MissingCurve);
    EXPECT_THROW(predict(s, profile, {.strict = true}), InputError);
    s.baseline = "hp";
    EXPECT_THROW(predict(s, profile), MissingCurve);
}

TEST(Predict, SpeedupIsAgainstTheBaselineEvenWhenItIsNotShown) {
    Scenario s = toy::scenario();
    s.plans.push_back(toy::hp(8, s.model, 8));
    const Prediction all = predict(s, toy::profile()),
                     one = predict(s, toy::profile(), {.only_plans = {"hp"}});
    ASSERT_EQ(one.plans.size(), 1u);
    EXPECT_DOUBLE_EQ(one.plans[0].speedup, all.plans[1].speedup);
    EXPECT_DOUBLE_EQ(all.plans[0].speedup, 1.0);
}

// What is computed again costs time: none <= activation <= moe <= full, with any number of chunks.
TEST(Predict, MoreRecomputeIsNeverFaster) {
    Scenario s = toy::scenario();
    Profile profile = toy::profile();
    profile.overheads.overlap_slowdown = 1.3;
    for (const int width : {256, 4096, 16384}) {
        s.model.moe.expert_width = width;
        for (const int chunks : {1, 2, 4, 16}) {
            Plan plan = toy::ep(Dedup::none, 8);
            plan.overlap_chunks = chunks;
            Seconds last;
            for (const RecomputeLevel r : {RecomputeLevel::none, RecomputeLevel::activation,
                                           RecomputeLevel::moe, RecomputeLevel::full}) {
                plan.recompute = r;
                const Seconds step = predict_plan(s, plan, profile).step;
                EXPECT_GE(step, last)
                    << width << " wide, " << chunks << " chunks, recompute " << recompute_text(r);
                last = step;
            }
        }
    }
}

// A forward kernel run again in backward takes what it takes in forward, not what backward takes:
// with backward twice as slow a FLOP, recompute: moe adds the forward experts' time to backward.
TEST(Predict, WhatIsComputedAgainIsPricedAsForward) {
    const Scenario s = toy::scenario();
    Profile profile = toy::profile();
    RateCurve slow = profile.kernel(Kernel::grouped_gemm).forward[0];
    for (double& rate : slow.rate) rate *= 0.5;
    profile.kernel(Kernel::grouped_gemm).backward = {slow};
    Plan plan = toy::ep(Dedup::none, 8);
    const PlanPrediction none = predict_plan(s, plan, profile);
    plan.recompute = RecomputeLevel::moe;
    const PlanPrediction moe = predict_plan(s, plan, profile);
    const auto expert = [](const PlanPrediction& p, Pass pass) {
        return phase(p, Phase::expert, pass).time;
    };
    EXPECT_NEAR(expert(moe, Pass::backward).in(us),
                (expert(none, Pass::backward) + expert(none, Pass::forward)).in(us), 1e-6);
}

// L buckets of g each, on their own stream behind backward: with a backward of b a layer and
// g > b, L g - (L - 1) b shows; with g < b the last bucket, and what the others slow down.
TEST(Predict, GradientBucketsShowWhatTheBackwardDoesNotHide) {
    Scenario s = toy::scenario(2, 8);
    s.model.num_layers = 4;
    s.model.vocab_size = 1000;
    s.cluster.nvlink->bandwidth *= 1000.0;  // of which reductions between nodes need little
    Plan plan = toy::ep(Dedup::none, 8);
    plan.overlap_grad_all_reduce = false;
    for (const double slower : {1.0, 100.0}) {  // the network, by which buckets outlast layers
        Profile profile = toy::profile();
        for (TimeCurve& curve : profile.communication)
            if (curve.collective == Collective::all_reduce)
                for (double& t : curve.seconds) t *= slower;
        plan.overlap_grad_all_reduce = false;
        const PlanPrediction apart = predict_plan(s, plan, profile);
        plan.overlap_grad_all_reduce = true;
        const PlanPrediction beside = predict_plan(s, plan, profile);
        Seconds all, backward, shown;
        for (const PhaseCost& p : apart.phases) {
            if (p.phase == Phase::grad_all_reduce || p.phase == Phase::expert_grad_all_reduce)
                all += p.time;
            else if (p.pass == Pass::backward && p.phase != Phase::lm_head &&
                     p.phase != Phase::loss && p.phase != Phase::embed)
                backward += p.time;
        }
        for (const PhaseCost& p : beside.phases)
            if (p.phase == Phase::grad_all_reduce || p.phase == Phase::expert_grad_all_reduce)
                shown += p.time;
        const Seconds outlast = all / 4.0 > backward / 4.0 ? all - 0.75 * backward : all / 4.0;
        // Each bucket has a start of its own, 1 us times `slower`; the embedding's backward is
        // beside the last.
        EXPECT_NEAR(shown.in(us), outlast.in(us), 0.02 * all.in(us) + 8.0 * slower);
        EXPECT_LE(beside.step, apart.step + 8.0 * slower * us);
    }
}

// The gradients of the table are whole when the backward has ended, and nothing hides them: of a
// vocabulary whose table takes e at least e shows, and as the head takes no longer, 2 e at most.
TEST(Predict, TheTablesGradientsAreHiddenByNothing) {
    Scenario s = toy::scenario();
    s.model.vocab_size = 400000;
    const Plan plan = toy::ep(Dedup::none, 8);
    const PlanPrediction p = predict_plan(s, plan, toy::profile());
    const double table = 4.0 * 400000 * 1024, e = 1e-6 + 2.0 * 7.0 / 8.0 * table / toy::kLink;
    EXPECT_GE(phase(p, Phase::grad_all_reduce, Pass::update).time.in(second), e);
    EXPECT_LT(phase(p, Phase::grad_all_reduce, Pass::update).time.in(second), 2.02 * e);
}

// L buckets of g each, from the begin of the step on; layer i's forward waits for bucket i: with a
// forward of f a layer and g > f, L g - (L - 1) f shows; with g < f the first bucket.
TEST(Predict, GatheredParametersShowWhatTheForwardDoesNotHide) {
    Scenario s = toy::scenario(2, 8);
    s.model.num_layers = 4;
    s.model.vocab_size = 1000;
    Plan plan = toy::ep(Dedup::none, 8);
    plan.parallel.data_parallel_sharding_strategy = DataParallelSharding::optim;
    plan.overlap_grad_all_reduce = false;
    for (const double slower : {1.0, 100.0}) {  // the network, by which buckets outlast layers
        Profile profile = toy::profile();
        for (TimeCurve& curve : profile.communication)
            if (curve.collective == Collective::all_reduce)
                for (double& t : curve.seconds) t *= slower;
        plan.overlap_param_gather = false;
        const PlanPrediction apart = predict_plan(s, plan, profile);
        plan.overlap_param_gather = true;
        const PlanPrediction beside = predict_plan(s, plan, profile);
        Seconds all, forward, shown;
        for (const PhaseCost& p : apart.phases) {
            if (p.phase == Phase::param_all_gather)
                all += p.time;
            else if (p.pass == Pass::forward && p.phase != Phase::lm_head &&
                     p.phase != Phase::loss && p.phase != Phase::embed)
                forward += p.time;
        }
        for (const PhaseCost& p : beside.phases)
            if (p.phase == Phase::param_all_gather) shown += p.time;
        const Seconds outlast = all > forward ? all - 0.75 * forward : all / 4.0;
        EXPECT_NEAR(shown.in(us), outlast.in(us), 0.02 * all.in(us) + 8.0 * slower);
        EXPECT_LE(beside.step, apart.step + 8.0 * slower * us);
        EXPECT_LT(shown, 0.9 * all);
    }
}

// A curve that does not say on which link it was measured is taken for this cluster's, and that is
// said; one that says it is not mentioned.
TEST(Predict, ACurveOfAnUnknownLinkIsWarnedAbout) {
    const Scenario s = toy::scenario();
    Profile profile = toy::profile();
    const auto warned = [&](Bandwidth link) {
        for (TimeCurve& curve : profile.communication) curve.link = link;
        int count = 0;
        for (const std::string& w : predict_plan(s, s.plans[0], profile).warnings)
            count += w.find("does not say which link") != std::string::npos ? 1 : 0;
        return count;
    };
    EXPECT_GT(warned({}), 0);
    EXPECT_EQ(warned(toy::kLink * (byte / second)), 0);
}

// A note that two places would say is said once.
TEST(Predict, ANoteIsSaidOnce) {
    Scenario s = toy::scenario();
    s.notes = {"assumed: a", "assumed: b", "assumed: a"};
    const std::vector<std::string> notes = notes_of(s, s.plans, toy::profile());
    EXPECT_EQ(std::count(notes.begin(), notes.end(), "assumed: a"), 1);
    EXPECT_EQ(predict(s, toy::profile()).notes, notes);
}

// A rank at speed v: every phase of equal work takes 1/v, on all ranks, as they wait for it.
TEST(Predict, TheSlowestRankIsWaitedFor) {
    Scenario s = toy::scenario();
    s.plans[0].overlap_grad_all_reduce = false;
    const PlanPrediction usual = run(s, s.plans[0]);
    s.cluster.rank_overrides = {{.rank = 3, .compute_factor = 0.5}};
    const PlanPrediction slow = run(s, s.plans[0]);
    for (const PhaseCost& p : usual.phases) {
        const double factor = is_communication(p.phase) ? 1.0 : 2.0;
        EXPECT_NEAR(phase(slow, p.phase, p.pass).time.in(us), factor * p.time.in(us), 1e-6)
            << name(p.phase);
    }
    // A rank that is faster than the others changes nothing.
    s.cluster.rank_overrides = {{.rank = 3, .compute_factor = 2.0}};
    EXPECT_EQ(run(s, s.plans[0]).step, usual.step);
}

// Under skew the busiest rank and the slow one are two: the phase takes the longer of
// busiest and mean / v.
TEST(Predict, TheBusiestRankAndTheSlowestAreTwo) {
    Scenario s = toy::scenario();
    s.routing.skew = Skew::zipf;
    s.routing.parameter = 1.0;
    s.routing.per_layer = false;
    const PlanPrediction usual = run(s, s.plans[0]);
    const double imbalance = usual.traffic.imbalance;
    ASSERT_GT(imbalance, 1.3);
    const auto ratio = [&](double speed) {
        s.cluster.rank_overrides = {{.rank = 3, .compute_factor = speed}};
        return phase(run(s, s.plans[0]), Phase::expert).time / phase(usual, Phase::expert).time;
    };
    EXPECT_NEAR(ratio(0.9), 1.0, 1e-9);
    EXPECT_NEAR(ratio(0.1), 10.0 / imbalance, 0.01);
}

// A NIC at a quarter of its bandwidth B: an equal exchange of V bytes a rank takes
// 1 us + 4 V / B, as all wait for its rank; NVLink alone does not notice.
TEST(Predict, ASlowLinkIsWaitedFor) {
    Scenario s = toy::scenario(2, 8);
    const auto time = [&](const Plan& plan) { return phase(run(s, plan), Phase::dispatch).time; };
    const Plan wide = toy::ep(Dedup::none, 16), inside = toy::ep(Dedup::none, 8);
    const Seconds usual = time(wide), usual_inside = time(inside);
    s.cluster.link_overrides = {{.link = "nic:5", .bandwidth_factor = 0.25}};
    EXPECT_NEAR((time(wide) - 2.0 * us) / (usual - 2.0 * us), 4.0, 1e-6);  // of two layers
    EXPECT_EQ(time(inside), usual_inside);
}

// No exchange is over before a message can have arrived.
TEST(Predict, AnExchangeTakesAtLeastTheLinksLatency) {
    Scenario s = toy::scenario();
    s.cluster.nvlink->latency = 5.0 * ms;
    EXPECT_GE(phase(run(s, s.plans[0]), Phase::dispatch).time, 2 * 5.0 * ms);  // two layers
}

// h bytes of hidden rows a layer: of L layers, all but the one in work go without them.
TEST(Predict, RecomputeSavesAllLayersButTheOneInWork) {
    Scenario s = toy::scenario();
    const auto allocated = [&](int layers, RecomputeLevel recompute) {
        s.model.num_layers = layers;
        Plan plan = toy::ep(Dedup::none, 8);
        plan.recompute = recompute;
        return run(s, plan).memory.allocated.in(byte);
    };
    const double rows = 4096.0 * 4, f = 512, b = 2;
    for (const auto& [recompute, h] : {std::pair{RecomputeLevel::activation, rows * f * b},
                                       std::pair{RecomputeLevel::moe, 2 * rows * f * b}}) {
        EXPECT_DOUBLE_EQ(allocated(1, recompute), allocated(1, RecomputeLevel::none));
        EXPECT_NEAR(allocated(5, RecomputeLevel::none) - allocated(5, recompute), 4 * h, 1.0);
    }
}

}  // namespace
}  // namespace headway
