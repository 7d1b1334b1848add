// Rates as a scenario is priced at them: of the model's type, never above the device's peak, and
// known to be outside what was measured.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "models/cost/predict.hpp"
#include "models/cost/price.hpp"
#include "models/vocab/error.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

KernelWork gemm_work() {
    return {.kernel = Kernel::dense_gemm, .flops = 1e12 * flop, .size = 1e12, .width = 1024};
}

KernelWork stream_work() {
    return {.kernel = Kernel::streaming, .bytes = 1e9 * byte, .size = 1e9};
}

std::string error_of(const Scenario& scenario, const Profile& profile) {
    try {
        predict(scenario, profile);
    } catch (const InputError& e) {
        return e.what();
    }
    return "";
}

// t >= FLOPs / peak and bytes / bandwidth, whatever the profile says.
TEST(Rates, NeverExceedTheDevicesPeak) {
    Scenario s = toy::scenario();
    s.cluster.device.peak_matmul = 0.5 * toy::kFlopRate * flop / second;
    s.cluster.device.memory_bandwidth = 0.5 * toy::kByteRate * byte / second;
    const Profile profile = toy::profile();
    const PriceBook book(profile, s.cluster, Dtype::bf16);
    EXPECT_DOUBLE_EQ(book.kernel_time(gemm_work(), Pass::forward).in(second),
                     1e12 / (0.5 * toy::kFlopRate));
    EXPECT_DOUBLE_EQ(book.kernel_time(stream_work(), Pass::forward).in(second),
                     1e9 / (0.5 * toy::kByteRate));
    EXPECT_TRUE(book.rate_of(gemm_work(), Pass::forward).capped);
    const std::string warning = predict(s, profile).plans[0].warnings.at(0);
    EXPECT_NE(warning.find("above what toy can do"), std::string::npos) << warning;
    EXPECT_THROW(predict(s, profile, {.strict = true}), InputError);
}

Seconds expert_time(const Scenario& s, const Profile& profile, Pass pass) {
    const Prediction prediction = predict(s, profile);
    for (const PhaseCost& cost : prediction.plans.at(0).phases)
        if (cost.phase == Phase::expert && cost.pass == pass) return cost.time / cost.count;
    return {};
}

// R = 4096 x 4 rows, d = 1024, f = 512. Products: 4 R d f FLOPs; a GELU of its own moves 2 R f
// elements of 2 bytes forward, 4 R f backward. Where whole experts were measured with it, at twice
// the rate, its pass is gone; of a gated activation it stays without a curve of gated experts.
TEST(Rates, AnActivationIsInTheProductsWhereTheyWereMeasuredSo) {
    Scenario s = toy::scenario();
    Profile profile = toy::profile();
    const double rows = 4096.0 * 4, products = 4 * rows * 1024 * 512, row = rows * 512 * 2;
    EXPECT_NEAR(expert_time(s, profile, Pass::forward).in(second),
                products / toy::kFlopRate + 2 * row / toy::kByteRate, 1e-9);
    EXPECT_NEAR(expert_time(s, profile, Pass::backward).in(second),
                2 * products / toy::kFlopRate + 4 * row / toy::kByteRate, 1e-9);
    KernelCurves& joined = profile.kernel(Kernel::grouped_gemm_gelu);
    joined.forward = profile.kernel(Kernel::grouped_gemm).forward;
    joined.forward[0].rate = {2 * toy::kFlopRate, 2 * toy::kFlopRate};
    EXPECT_NEAR(expert_time(s, profile, Pass::forward).in(second), products / (2 * toy::kFlopRate),
                1e-9);
    EXPECT_NEAR(expert_time(s, profile, Pass::backward).in(second),
                2 * products / (2 * toy::kFlopRate), 1e-9);
    s.model.moe.activation = Activation::swiglu;
    EXPECT_NEAR(expert_time(s, profile, Pass::forward).in(second),
                1.5 * products / toy::kFlopRate + 3 * row / toy::kByteRate, 1e-9);
    KernelCurves& gated = profile.kernel(Kernel::grouped_gemm_swiglu);
    gated.forward = joined.forward;
    gated.forward[0].rate = {3 * toy::kFlopRate, 3 * toy::kFlopRate};
    EXPECT_NEAR(expert_time(s, profile, Pass::forward).in(second),
                1.5 * products / (3 * toy::kFlopRate), 1e-9);
    s.plans[0].implementation = Implementation::unfused;  // its products leave the activation out
    EXPECT_GT(expert_time(s, profile, Pass::forward).in(second), 1.5 * products / toy::kFlopRate);
}

// HP's gated experts: 6 P d f FLOPs at the rate of gated ones, at that of ungated ones without.
TEST(Rates, GatedFusedExpertsHaveTheirOwnRate) {
    Scenario s = toy::scenario();
    Profile profile = toy::profile();
    s.model.moe.activation = Activation::swiglu;
    s.plans = {toy::hp(8, s.model, 8)};
    const double ungated = expert_time(s, profile, Pass::forward).in(second);
    KernelCurves& gated = profile.kernel(Kernel::fused_expert_swiglu);
    gated.forward = profile.kernel(Kernel::fused_expert).forward;
    for (double& rate : gated.forward[0].rate) rate *= 2.0;
    EXPECT_NEAR(expert_time(s, profile, Pass::forward).in(second), 0.5 * ungated, 1e-9);
    s.model.moe.activation = Activation::gelu;
    EXPECT_NEAR(expert_time(s, profile, Pass::forward).in(second), ungated * 2.0 / 3.0, 1e-9);
}

// Which direction was asked for, and of what: a number without them says nothing.
TEST(Rates, AWarningNamesPassAndUnit) {
    const Scenario s = toy::scenario();
    Profile profile = toy::profile();
    for (int k = 0; k < kNumKernels; ++k) {
        for (RateCurve& curve : profile.kernel(static_cast<Kernel>(k)).forward)
            curve.size = {1e17, 1e18};
    }
    const std::vector<std::string> warnings = predict(s, profile).plans[0].warnings;
    const auto said = [&](const std::string& text) {
        return std::any_of(warnings.begin(), warnings.end(),
                           [&](const std::string& w) { return w.find(text) != std::string::npos; });
    };
    EXPECT_TRUE(said("dense_gemm (forward)") && said("FLOPs asked"));
    EXPECT_TRUE(said("grouped_gemm (forward)") && said("rows an expert asked"));
    EXPECT_TRUE(said("gather (forward)") && said("bytes asked"));
}

// Measured on a device of peaks P and B: a slower device achieves the same share of its own peaks,
// a faster one what was measured.
TEST(Rates, AreScaledDownToASlowerDevice) {
    Scenario s = toy::scenario();
    Profile profile = toy::profile();
    profile.provenance.device = "measured";
    profile.provenance.peak_matmul = 10.0 * toy::kFlopRate * flop / second;
    profile.provenance.memory_bandwidth = 2.0 * toy::kByteRate * byte / second;
    s.cluster.device.peak_matmul = 0.25 * profile.provenance.peak_matmul;
    s.cluster.device.memory_bandwidth = 4.0 * profile.provenance.memory_bandwidth;
    const PriceBook book(profile, s.cluster, Dtype::bf16);
    EXPECT_DOUBLE_EQ(book.kernel_time(gemm_work(), Pass::forward).in(second),
                     1e12 / (0.25 * toy::kFlopRate));
    EXPECT_DOUBLE_EQ(book.kernel_time(stream_work(), Pass::forward).in(second),
                     1e9 / toy::kByteRate);
    EXPECT_NE(predict(s, profile).notes.back().find("times 0.25"), std::string::npos);
    profile.provenance.device = "toy";  // the same device: as measured
    EXPECT_DOUBLE_EQ(PriceBook(profile, s.cluster, Dtype::bf16)
                         .kernel_time(gemm_work(), Pass::forward)
                         .in(second),
                     1e12 / toy::kFlopRate);
}

// A type without a rate is an error that says which the profile has; with one it is priced at it.
TEST(Rates, AreOfTheModelsType) {
    Scenario s = toy::scenario();
    Profile profile = toy::profile();
    for (const Dtype type : {Dtype::fp32, Dtype::fp64, Dtype::fp8}) {
        s.model.dtype = type;
        const std::string error = error_of(s, profile);
        EXPECT_NE(error.find("the model's dtype; the profile has bf16"), std::string::npos)
            << error;
    }
    s.model.dtype = Dtype::fp16;
    EXPECT_EQ(error_of(s, profile), "");
    s.model.dtype = Dtype::fp32;
    for (int k = 0; k < kNumKernels; ++k) {
        const auto kernel = static_cast<Kernel>(k);
        if (is_byte_rate(kernel) || profile.kernel(kernel).forward.empty()) continue;
        RateCurve curve = profile.kernel(kernel).forward.front();
        for (double& rate : curve.rate) rate *= 0.125;
        profile.kernel(kernel, Dtype::fp32).forward = {curve};
    }
    EXPECT_EQ(error_of(s, profile), "");
    const PriceBook book(profile, s.cluster, Dtype::fp32);
    EXPECT_DOUBLE_EQ(book.kernel_time(gemm_work(), Pass::forward).in(second),
                     8e12 / toy::kFlopRate);
}

// fp8 has a peak of its own, which the cluster must state; wider types are no faster than bf16.
TEST(Rates, APeakOfANarrowerTypeMustBeStated) {
    Scenario s = toy::scenario();
    Profile profile = toy::profile();
    profile.kernel(Kernel::dense_gemm, Dtype::fp8) = profile.kernel(Kernel::dense_gemm);
    const PriceBook unknown(profile, s.cluster, Dtype::fp8);
    EXPECT_THROW(unknown.kernel_time(gemm_work(), Pass::forward), InputError);
    s.cluster.device.peaks[static_cast<std::size_t>(Dtype::fp8)] = 2e18 * flop / second;
    const PriceBook book(profile, s.cluster, Dtype::fp8);
    EXPECT_DOUBLE_EQ(book.kernel_time(gemm_work(), Pass::forward).in(second),
                     1e12 / toy::kFlopRate);
    EXPECT_EQ(s.cluster.device.peak(Dtype::fp32), s.cluster.device.peak_matmul);
}

// A phase curve of layers with 8..64 experts, asked for 128: counted, named, refused by --strict.
TEST(Rates, AWholePhaseOutsideItsLayersIsCounted) {
    const Scenario s = toy::scenario();
    Profile profile = toy::profile();
    const Extent any{1, 1e9};
    profile.phases = {{.layer = LayerKind::ep,
                       .phase = Phase::expert,
                       .pass = Pass::forward,
                       .terms = {Term::tokens},
                       .seconds = {1e-6},
                       .measured = ShapeRange{any, any, {8, 64}, any, any, any},
                       .source = "test"}};
    EXPECT_TRUE(predict(s, profile, {.strict = true}).plans[0].warnings.empty());
    Scenario more = s;
    more.model.moe.num_experts = 128;
    const std::string warning = predict(more, profile).plans[0].warnings.at(0);
    EXPECT_NE(warning.find("experts 128..128 asked, 8..64 measured"), std::string::npos) << warning;
    EXPECT_THROW(predict(more, profile, {.strict = true}), InputError);
    // Two layers; a chunked or a recomputed one would count as often as it looks up.
    EXPECT_NE(warning.find("phase expert forward (ep): 1 look-up "), std::string::npos) << warning;
}

}  // namespace
}  // namespace headway
