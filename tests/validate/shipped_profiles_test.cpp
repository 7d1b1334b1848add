// The shipped profiles: every curve has a source, more work never takes less time, and nothing runs
// beyond the datasheet of its device.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "models/scenario/read_scenario.hpp"

namespace headway {
namespace {

namespace fs = std::filesystem;
const fs::path kScenarios = fs::path(HEADWAY_SOURCE_DIR) / "scenarios";
const ReadOptions kPresets = {.preset_dirs = {kScenarios}};

std::vector<Profile> shipped_profiles() {
    std::vector<Profile> profiles;
    for (const Preset& preset : list_presets(kPresets)) {
        if (preset.kind == "profiles") profiles.push_back(read_profile(preset.path, kPresets));
    }
    return profiles;
}

// By device name, from the shipped clusters.
std::map<std::string, Device> datasheets() {
    std::map<std::string, Device> devices;
    for (const Preset& preset : list_presets(kPresets)) {
        if (preset.kind != "clusters") continue;
        const Device device = read_cluster(preset.path, kPresets).device;
        devices[device.name] = device;
    }
    return devices;
}

std::vector<const RateCurve*> curves_of(const KernelCurves& kernel) {
    std::vector<const RateCurve*> curves;
    for (const auto* list : {&kernel.forward, &kernel.backward})
        for (const RateCurve& curve : *list) curves.push_back(&curve);
    return curves;
}

TEST(ShippedProfiles, CoverTheMachinesOfTheAnchors) {
    std::vector<std::string> names;
    for (const Profile& profile : shipped_profiles()) names.push_back(profile.name);
    for (const char* name : {"a100_public", "h100_public", "h200_public", "b200_public"})
        EXPECT_NE(std::find(names.begin(), names.end(), name), names.end()) << name;
}

TEST(ShippedProfiles, EveryCurveHasASourceAndAResidual) {
    for (const Profile& profile : shipped_profiles()) {
        SCOPED_TRACE(profile.name);
        EXPECT_FALSE(profile.overheads.source.empty());
        for (const KernelCurves& kernel : profile.kernels) {
            for (const RateCurve* curve : curves_of(kernel)) {
                EXPECT_FALSE(curve->source.empty());
                EXPECT_GT(curve->residual, 0.0);
            }
        }
        for (const TimeCurve& curve : profile.communication) {
            EXPECT_FALSE(curve.source.empty());
            EXPECT_GT(curve.residual, 0.0);
        }
    }
}

std::vector<double> steps(const std::vector<double>& grid) {
    std::vector<double> values;
    for (double v = grid.front() / 3; v < 3 * grid.back(); v *= 1.37) values.push_back(v);
    return values;
}

// t = work / rate never falls with a side of the work: between the points of a curve and beyond.
TEST(ShippedProfiles, MoreWorkNeverTakesLessTime) {
    for (const Profile& profile : shipped_profiles()) {
        for (std::size_t k = 0; k < profile.kernels.size(); ++k) {
            const auto kernel = static_cast<Kernel>(k / kNumDtypes);
            SCOPED_TRACE(profile.name + ' ' + std::string(name(kernel)));
            for (const RateCurve* curve : curves_of(profile.kernels[k])) {
                const bool whole = kernel == Kernel::dense_gemm;
                const auto time = [&](double side, double width, double inner) {
                    const double size = whole ? side * width : side;
                    return side * width * inner / curve->at(kernel, size, width, inner).value;
                };
                for (double size : steps(curve->size)) {
                    for (double w : steps(curve->width)) {
                        const double side = whole ? size / w : size;
                        const double f = curve->inner.empty() ? 1.0 : 1.3 * curve->inner.front();
                        const double t = time(side, w, f) * (1 - 1e-9);
                        ASSERT_GE(time(1.02 * side, w, f), t) << size << ' ' << w;
                        if (curve->width.size() > 1) {
                            ASSERT_GE(time(side, 1.02 * w, f), t) << size << ' ' << w;
                        }
                        ASSERT_GE(time(side, w, 1.02 * f), t) << size << ' ' << w;
                    }
                }
            }
        }
    }
}

TEST(ShippedProfiles, NoRateExceedsTheDatasheet) {
    const auto devices = datasheets();
    for (const Profile& profile : shipped_profiles()) {
        SCOPED_TRACE(profile.name);
        ASSERT_TRUE(devices.contains(profile.provenance.device)) << profile.provenance.device;
        const Device& device = devices.at(profile.provenance.device);
        for (std::size_t k = 0; k < profile.kernels.size(); ++k) {
            const auto kernel = static_cast<Kernel>(k / kNumDtypes);
            const auto type = static_cast<Dtype>(k % kNumDtypes);
            const double limit = is_byte_rate(kernel) ? device.memory_bandwidth.in(byte / second)
                                                      : device.peak(type).in(flop / second);
            for (const RateCurve* curve : curves_of(profile.kernels[k]))
                for (double rate : curve->rate) EXPECT_LE(rate, limit) << name(kernel);
        }
    }
}

// A profile states the peaks of its device, as the shipped cluster of that device does.
TEST(ShippedProfiles, StateThePeaksOfTheirDevice) {
    const auto devices = datasheets();
    for (const Profile& profile : shipped_profiles()) {
        const Device& device = devices.at(profile.provenance.device);
        EXPECT_DOUBLE_EQ(profile.provenance.peak_matmul / device.peak_matmul, 1.0) << profile.name;
        EXPECT_DOUBLE_EQ(profile.provenance.memory_bandwidth / device.memory_bandwidth, 1.0)
            << profile.name;
    }
}

TEST(ShippedProfiles, EveryPhaseCurveStatesWhatItWasMeasuredOn) {
    for (const Profile& profile : shipped_profiles()) {
        for (const PhaseCurve& curve : profile.phases)
            EXPECT_TRUE(curve.measured) << profile.name << ' ' << name(curve.phase);
    }
}

// Wider dense GEMMs of Blackwell run no slower, larger ones neither, but for B200: its power limit
// takes rates of large ones down, and a larger one takes longer all the same.
TEST(ShippedProfiles, DenseRatesOfBlackwellRiseWithTheSize) {
    for (const Profile& profile : shipped_profiles()) {
        const bool limited = profile.name == "b200_public";
        if (!limited && profile.name != "gb200_public") continue;
        const RateCurve& c = profile.kernel(Kernel::dense_gemm).forward.front();
        for (std::size_t w = 0; w < c.width.size(); ++w) {
            for (std::size_t s = 1; s < c.size.size(); ++s) {
                const double here = c.rate[w * c.size.size() + s],
                             before = c.rate[w * c.size.size() + s - 1];
                if (limited)
                    EXPECT_LT(c.size[s - 1] / before, c.size[s] / here) << profile.name;
                else
                    EXPECT_GE(here, before) << profile.name;
                if (w == 0) continue;
                EXPECT_GE(here, c.rate[(w - 1) * c.size.size() + s]) << profile.name;
            }
        }
    }
}

// HP's experts of scenarios/paper_4gpu.yaml, P = 8 heads / 4 ranks x 65536 sub-tokens x 4 choices,
// d_h 128, f 1536: t = 4 P d_h f / rate forward, twice the work backward. The grid has that work on
// as many groups: 673 and 2572 us (docs/results/kernels_h200_grid.csv, one H200, 2026-11-30).
TEST(ShippedProfiles, FusedExpertsOfALongWidthTakeWhatTheGridMeasured) {
    const Profile profile = read_profile(kScenarios / "profiles" / "h200_measured.yaml", kPresets);
    const KernelCurves& experts = profile.kernel(Kernel::fused_expert);
    const double work = 4.0 * 2 * 65536 * 4 * 128 * 1536, rows = 65536 * 4 / 128.0;
    const auto us = [&](const RateCurve& c, double passes) {
        return 1e6 * passes * work / c.at(Kernel::fused_expert, rows, 128, 1536).value;
    };
    EXPECT_NEAR(us(experts.forward.front(), 1.0) / 673.0, 1.0, 0.03);
    EXPECT_NEAR(us(experts.backward.front(), 2.0) / 2572.0, 1.0, 0.03);
}

// Gated experts of EP and HP at the widths of Qwen3-30B-A3B and DeepSeek-V3, which no curve was
// fitted to (docs/results/kernels_gated_h200.csv, one H200, 2026-12-01, medians of two rounds): 6 P
// d f FLOPs forward, twice that backward. Ungated experts' rates miss these by up to 33 %.
TEST(ShippedProfiles, GatedExpertsTakeWhatWasMeasuredElsewhere) {
    const Profile profile = read_profile(kScenarios / "profiles" / "h200_measured.yaml", kPresets);
    struct Case {
        Kernel kernel;
        double rows, experts, width, inner, forward_us, backward_us;
    };
    const auto fused = Kernel::fused_expert_swiglu, grouped = Kernel::grouped_gemm_swiglu;
    for (const Case& c : {Case{fused, 1024, 512, 64, 768, 319.8, 1546.1},
                          Case{fused, 1024, 256, 128, 768, 250.9, 988.8},
                          Case{fused, 1024, 256, 256, 768, 512.4, 1834.7},
                          Case{fused, 512, 512, 64, 2048, 443.9, 2508.1},
                          Case{fused, 512, 512, 128, 2048, 683.1, 3201.4},
                          Case{fused, 512, 256, 256, 2048, 697.5, 2750.2},
                          Case{grouped, 4096, 16, 2048, 768, 909.9, 2057.3},
                          Case{grouped, 2048, 16, 7168, 2048, 4702.6, 10021.4}}) {
        const double forward = 6.0 * c.rows * c.experts * c.width * c.inner;
        const auto us = [&](const RateCurve& curve, double work) {
            const double width = c.kernel == fused ? c.width : c.inner;
            return 1e6 * work / curve.at(c.kernel, c.rows, width, c.inner).value;
        };
        const KernelCurves& curves = profile.kernel(c.kernel);
        EXPECT_NEAR(us(curves.forward.front(), forward) / c.forward_us, 1.0, 0.055) << c.width;
        EXPECT_NEAR(us(curves.backward.front(), 2.0 * forward) / c.backward_us, 1.0, 0.055)
            << c.width;
    }
}

// Bytes over time stays below the link's nominal bandwidth. Reductions are left out: NVLink SHARP
// reduces in the switch, and two-node reductions use all NICs of a node.
TEST(ShippedProfiles, NoAllToAllBeatsItsLink) {
    for (const Profile& profile : shipped_profiles()) {
        for (const TimeCurve& curve : profile.communication) {
            if (curve.collective != Collective::all_to_all) continue;
            for (std::size_t i = 0; i < curve.bytes.size(); ++i)
                EXPECT_LE(curve.bytes[i] / curve.seconds[i], curve.link.in(byte / second))
                    << profile.name << ' ' << name(curve.path) << ' ' << curve.bytes[i];
        }
    }
}

}  // namespace
}  // namespace headway
