// A plan's precision: linear layers and experts at the rates of the recipe's type, everything else
// at the model's, and what travels at the bytes that the plan says.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "models/cost/predict.hpp"
#include "models/vocab/error.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

// Rates of MXFP8 are twice the bf16 ones of the kernels given; peaks allow it.
Scenario scenario_with(Recipe recipe) {
    Scenario s = toy::scenario();
    s.plans.resize(1);
    s.plans[0].precision.recipe = recipe;
    s.baseline = s.plans[0].name;
    s.cluster.device.peaks[static_cast<std::size_t>(Dtype::fp8)] = 1e20 * flop / second;
    return s;
}

Profile profile_with(const std::vector<Kernel>& kernels, Dtype type) {
    Profile profile = toy::profile();
    profile.overheads.launch = {};
    for (const Kernel kernel : kernels) {
        profile.kernel(kernel, type) = profile.kernel(kernel);
        for (RateCurve& curve : profile.kernel(kernel, type).forward)
            for (double& rate : curve.rate) rate *= 2.0;
        for (RateCurve& curve : profile.kernel(kernel, type).backward)
            for (double& rate : curve.rate) rate *= 2.0;
    }
    return profile;
}

const PhaseCost& cost_of(const PlanPrediction& plan, Phase phase, Pass pass = Pass::forward) {
    for (const PhaseCost& cost : plan.phases)
        if (cost.phase == phase && cost.pass == pass) return cost;
    throw std::logic_error("no such phase");
}

const std::vector<Kernel> kGemms = {Kernel::dense_gemm, Kernel::grouped_gemm};

// Attention's core at twice the rate in FP8 takes half the time, where it is asked for.
TEST(Precision, AttentionIsInFp8WhereItIsAskedFor) {
    Profile profile = profile_with(kGemms, Dtype::mxfp8);
    profile.kernel(Kernel::attention, Dtype::fp8) =
        profile_with({Kernel::attention}, Dtype::fp8).kernel(Kernel::attention, Dtype::fp8);
    Scenario s = scenario_with(Recipe::mxfp8);
    const PlanPrediction plain = predict(s, profile).plans[0];
    s.plans[0].precision.attention = true;
    const PlanPrediction fp8 = predict(s, profile).plans[0];
    for (const Pass pass : {Pass::forward, Pass::backward}) {
        EXPECT_NEAR(cost_of(fp8, Phase::attention_core, pass).time /
                        cost_of(plain, Phase::attention_core, pass).time,
                    0.5, 1e-9);
        EXPECT_EQ(cost_of(fp8, Phase::expert, pass).time, cost_of(plain, Phase::expert, pass).time);
    }
    // No curve: an error that says so, never the model's rate.
    EXPECT_THROW(predict(s, profile_with(kGemms, Dtype::mxfp8)), InputError);
}

TEST(Precision, LinearLayersRunAtTheRecipesRatesAndNothingElseDoes) {
    const Profile profile = profile_with(kGemms, Dtype::mxfp8);
    const PlanPrediction bf16 = predict(scenario_with(Recipe::none), profile).plans[0],
                         mxfp8 = predict(scenario_with(Recipe::mxfp8), profile).plans[0];
    for (const Pass pass : {Pass::forward, Pass::backward}) {
        EXPECT_LT(cost_of(mxfp8, Phase::attention_out, pass).time,
                  0.51 * cost_of(bf16, Phase::attention_out, pass).time);
        EXPECT_LT(cost_of(mxfp8, Phase::expert, pass).time,
                  cost_of(bf16, Phase::expert, pass).time);
        for (const Phase phase : {Phase::attention_core, Phase::lm_head, Phase::route,
                                  Phase::dispatch, Phase::combine, Phase::permute})
            EXPECT_EQ(cost_of(mxfp8, phase, pass).time, cost_of(bf16, phase, pass).time)
                << name(phase);
    }
    EXPECT_GT(cost_of(mxfp8, Phase::optimizer, Pass::update).bytes,
              cost_of(bf16, Phase::optimizer, Pass::update).bytes);
}

// R rows on g experts, padded to a multiple of a: R + g (a - 1) / 2 in the mean.
TEST(Precision, ExpertRowsArePaddedToTheAlignment) {
    const Profile profile = profile_with(kGemms, Dtype::mxfp8);
    Scenario s = scenario_with(Recipe::none);
    const Flops even = cost_of(predict(s, profile).plans[0], Phase::expert).flops;
    s = scenario_with(Recipe::mxfp8);
    const Flops padded = cost_of(predict(s, profile).plans[0], Phase::expert).flops;
    const Workload w = build_workload(s, s.plans[0]);
    for (const LayerWork& layer : w.layers) {
        if (!layer.is_moe) continue;
        for (const PhaseWork& phase : layer.forward) {
            if (phase.phase != Phase::expert) continue;
            const PhaseShape& shape = *std::get<ComputeWork>(phase.work).shape;
            EXPECT_NEAR(padded / even, 1.0 + 15.5 * shape.groups / shape.rows, 1e-12);
        }
    }
}

TEST(Precision, ATypeWithoutACurveIsAnErrorThatSaysHowToGoOn) {
    const Profile profile = profile_with({Kernel::dense_gemm}, Dtype::mxfp8);
    Scenario s = scenario_with(Recipe::mxfp8);
    try {
        predict(s, profile);
        FAIL();
    } catch (const InputError& e) {
        const std::string what = e.what();
        EXPECT_NE(what.find("kernel grouped_gemm in mxfp8, by the plan's precision"),
                  std::string::npos)
            << what;
        EXPECT_NE(what.find("precision.experts: false"), std::string::npos) << what;
    }
    s.plans[0].precision.experts = false;
    const PlanPrediction without = predict(s, profile).plans[0],
                         bf16 = predict(scenario_with(Recipe::none), profile).plans[0];
    EXPECT_EQ(cost_of(without, Phase::expert).time, cost_of(bf16, Phase::expert).time);
}

// Bytes of an MXFP8 element with its scale: 1 + 1/32, of bf16: 2.
TEST(Precision, WhatTravelsIsNarrowWhereThePlanSaysSo) {
    const Profile profile = profile_with(kGemms, Dtype::mxfp8);
    Scenario s = scenario_with(Recipe::mxfp8);
    const PlanPrediction wide = predict(s, profile).plans[0];
    s.plans[0].precision.dispatch_forward = true;
    const PlanPrediction dispatch = predict(s, profile).plans[0];
    const auto ratio = [&](const PlanPrediction& plan, Phase phase, Pass pass) {
        return cost_of(plan, phase, pass).bytes / cost_of(wide, phase, pass).bytes;
    };
    EXPECT_DOUBLE_EQ(ratio(dispatch, Phase::dispatch, Pass::forward), (1.0 + 1.0 / 32.0) / 2.0);
    EXPECT_DOUBLE_EQ(ratio(dispatch, Phase::combine, Pass::forward), 1.0);
    EXPECT_DOUBLE_EQ(ratio(dispatch, Phase::combine, Pass::backward), 1.0);
    EXPECT_DOUBLE_EQ(ratio(dispatch, Phase::dispatch, Pass::backward), 1.0);
    s.plans[0].precision.dispatch_forward = false;
    s.plans[0].precision.combine_backward = true;
    const PlanPrediction combine = predict(s, profile).plans[0];
    EXPECT_DOUBLE_EQ(ratio(combine, Phase::combine, Pass::backward), (1.0 + 1.0 / 32.0) / 2.0);
    EXPECT_DOUBLE_EQ(ratio(combine, Phase::dispatch, Pass::forward), 1.0);
}

}  // namespace
}  // namespace headway
