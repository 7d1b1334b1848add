#include "models/fit/fit_profile.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "models/cost/moe_layer.hpp"
#include "models/fit/layer_samples.hpp"

namespace headway {
namespace {

Scenario scenario(std::int64_t tokens, Plan plan) {
    Scenario s{.name = "round trip"};
    s.model = {.hidden = 128, .num_layers = 1, .dtype = Dtype::fp32};
    s.model.attention = {.num_heads = 2, .num_kv_heads = 2, .head_width = 64};
    s.model.moe = {.num_experts = 8, .top_k = 2, .expert_width = 256};
    s.cluster.gpus_per_node = 2;
    s.cluster.device.peak_matmul = 1e18 * flop / second;
    s.cluster.device.memory_bandwidth = 1e6 * GB / second;
    s.cluster.pcie = Pcie{.bandwidth = 10.0 * GB / second};
    s.batch.sequence_length = static_cast<int>(tokens);
    s.routing.noise = false;  // sampled load = expected load
    plan.name = "p";
    plan.group_size = 2;
    s.plans = {plan};
    return s;
}

// A machine with known curves: what the phases take there, by the model, is taken for a
// measurement.
Profile known() {
    Profile p{.name = "known"};
    const auto rate = [&](Kernel k, double low, double high) {
        p.kernel(k, Dtype::fp32).forward = {
            {.size = {1, 1e9}, .width = {1, 4096}, .rate = {low, high, low, high}}};
        p.kernel(k, Dtype::fp32).backward = {
            {.size = {1, 1e9}, .width = {1, 4096}, .rate = {high, low, high, low}}};
    };
    rate(Kernel::streaming, 5e9, 5e9);
    rate(Kernel::gather, 2e9, 6e9);
    rate(Kernel::dense_gemm, 1e10, 3e10);
    rate(Kernel::grouped_gemm, 1e10, 2e10);
    rate(Kernel::fused_expert, 8e9, 9e9);
    rate(Kernel::router, 4e9, 5e9);
    p.communication = {{.collective = Collective::all_to_all,
                        .path = PathClass::pcie,
                        .num_ranks = 2,
                        .link = 10.0 * GB / second,
                        .bytes = {1e3, 1e9},
                        .seconds = {1e-5, 0.2}}};
    p.overheads = {.launch = 1.0 * us, .count_exchange = 20.0 * us};
    return p;
}

// fit(predict(known)) predicts what known predicts, phase by phase: the samples' account of FLOPs,
// bytes, sizes, streaming and launches is the model's. Held-out sizes too, to the interpolation.
TEST(FitProfile, GivesBackTheMachineThatItWasMeasuredOn) {
    const std::vector<Plan> plans = {
        {.layer = ExpertParallel{}},
        {.layer = HeadParallel{
             .num_heads = 2, .head_width = 64, .num_experts = 8, .top_k = 2, .expert_width = 256}}};
    for (const Plan& plan : plans) {
        CalibrationSamples samples;
        samples.launch = {1e-6};
        for (double bytes = 1e3; bytes < 1e8; bytes *= 2) {
            samples.kernels.push_back({.kernel = Kernel::streaming,
                                       .size = bytes,
                                       .work = bytes,
                                       .seconds = bytes / 5e9 + 1e-6});
        }
        for (const std::int64_t tokens : {64, 128, 256, 512, 1024, 2048}) {
            const Scenario s = scenario(tokens, plan);
            add_samples(s, s.plans[0], predict_moe_layers(s, s.plans[0], known(), 1).timeline,
                        samples);
        }
        const Profile fitted = fit_profile(samples, {}, "test");
        for (const std::int64_t tokens : {256, 700}) {
            const Scenario s = scenario(tokens, plan);
            const auto wanted = predict_moe_layers(s, s.plans[0], known(), 1).timeline.spans;
            const auto got = predict_moe_layers(s, s.plans[0], fitted, 1).timeline.spans;
            ASSERT_EQ(got.size(), wanted.size());
            for (std::size_t i = 0; i < got.size(); ++i) {
                EXPECT_NEAR(got[i].duration / wanted[i].duration, 1.0, 0.1)
                    << name(got[i].phase) << " " << name(got[i].pass) << " at " << tokens;
            }
        }
    }
}

// Curves without samples stay those of the base.
TEST(FitProfile, KeepsWhatWasNotMeasured) {
    CalibrationSamples samples;
    samples.exchanges = {{.path = PathClass::pcie, .num_ranks = 4, .sample = {1e6, 1e-3}}};
    const Profile fitted = fit_profile(samples, known(), "test");
    EXPECT_EQ(fitted.communication.size(), 2U);
    EXPECT_EQ(fitted.kernel(Kernel::router, Dtype::fp32).forward[0].rate,
              known().kernel(Kernel::router, Dtype::fp32).forward[0].rate);
    EXPECT_EQ(fitted.overheads.count_exchange, known().overheads.count_exchange);
}

// Curves of the row movers that were measured take the place of the base's of the same phase,
// layer and pass; its others stay, and a profile without any is read as before.
TEST(FitProfile, RowMoversReplaceThoseOfTheBase) {
    Profile base = known();
    base.phases = {{.layer = LayerKind::ep, .phase = Phase::unpermute, .source = "base"},
                   {.layer = LayerKind::ep, .phase = Phase::expert, .source = "base"}};
    CalibrationSamples samples;
    for (const double tokens : {64.0, 128.0, 256.0, 512.0, 1024.0}) {
        samples.phases.push_back({{.layer = LayerKind::ep,
                                   .phase = Phase::unpermute,
                                   .own_tokens = tokens,
                                   .tokens = tokens,
                                   .width = 128,
                                   .top_k = 2,
                                   .sent = 2 * tokens},
                                  Pass::forward,
                                  1e-9 * tokens * 128});
    }
    const Profile fitted = fit_profile(samples, base, "test");
    ASSERT_EQ(fitted.phases.size(), 2U);
    EXPECT_EQ(fitted.phases[0].phase, Phase::expert);
    EXPECT_EQ(fitted.phases[0].source, "base");
    EXPECT_EQ(fitted.phases[1].phase, Phase::unpermute);
    EXPECT_EQ(fitted.phases[1].source, "test: 5 samples");
    EXPECT_TRUE(fit_profile({}, known(), "test").phases.empty());
}

}  // namespace
}  // namespace headway
