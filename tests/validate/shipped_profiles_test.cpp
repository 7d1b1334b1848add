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

// size / rate(size), the time up to a constant, never falls with size.
TEST(ShippedProfiles, MoreWorkNeverTakesLessTime) {
    for (const Profile& profile : shipped_profiles()) {
        for (int k = 0; k < kNumKernels; ++k) {
            const auto kernel = static_cast<Kernel>(k);
            for (const RateCurve* curve : curves_of(profile.kernel(kernel))) {
                const std::size_t n = curve->size.size();
                for (std::size_t i = 0; i + 1 < curve->rate.size(); ++i) {
                    if (i % n == n - 1) continue;  // the next entry begins a row
                    EXPECT_LE(curve->size[i % n] / curve->rate[i],
                              curve->size[i % n + 1] / curve->rate[i + 1] * 1.001)
                        << profile.name << ' ' << name(kernel) << " entry " << i;
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
        for (int k = 0; k < kNumKernels; ++k) {
            const auto kernel = static_cast<Kernel>(k);
            const double limit = is_byte_rate(kernel) ? device.memory_bandwidth.in(byte / second)
                                                      : device.peak_matmul.in(flop / second);
            for (const RateCurve* curve : curves_of(profile.kernel(kernel)))
                for (double rate : curve->rate) EXPECT_LE(rate, limit) << name(kernel);
        }
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
