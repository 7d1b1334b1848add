// Property of prices: no kernel beats the peak of its device or its memory, whatever model is asked
// of whatever profile on whatever machine.
#include <gtest/gtest.h>

#include <filesystem>
#include <random>
#include <variant>

#include "models/cost/price.hpp"
#include "models/scenario/read_scenario.hpp"
#include "models/workload/workload.hpp"

namespace headway {
namespace {

const ReadOptions kShipped = {
    .preset_dirs = {std::filesystem::path(HEADWAY_SOURCE_DIR) / "scenarios"}};

Scenario random_scenario(std::mt19937& draw, const Cluster& cluster) {
    const auto power = [&](int low, int high) {
        return 1 << (low + static_cast<int>(draw() % static_cast<unsigned>(high - low + 1)));
    };
    Scenario s{.name = "random"};
    s.cluster = cluster;
    s.model = {
        .name = "random",
        .vocab_size = 1000 * power(0, 7),
        .hidden = 128 * power(1, 6),
        .num_layers = 2,
        .num_dense_layers = 1,
        .dense_width = 384 * power(0, 5),
        .attention = {.num_heads = 8, .num_kv_heads = 4, .head_width = 64 * power(0, 2)},
        .moe = {
            .num_experts = power(3, 9), .top_k = power(0, 3), .expert_width = 96 * power(0, 7)}};
    s.batch = {.sequence_length = 512 * power(0, 5), .sequences_per_rank = power(0, 2)};
    const int heads = power(3, 4);
    s.plans = {{.name = "ep", .layer = ExpertParallel{}, .group_size = 1},
               {.name = "hp",
                .layer = HeadParallel{heads, s.model.hidden / heads, s.model.moe.num_experts,
                                      s.model.moe.top_k, s.model.moe.expert_width},
                .group_size = 1}};
    return s;
}

void expect_within(const std::vector<PhaseWork>& phases, const PriceBook& book, const Device& d) {
    constexpr double kRounding = 1.0 - 1e-9;
    for (const PhaseWork& phase : phases) {
        const auto* work = std::get_if<ComputeWork>(&phase.work);
        if (work == nullptr) continue;
        Flops flops;
        for (int i = 0; i < work->num_kernels; ++i) {
            const KernelWork& kernel = work->kernels[static_cast<std::size_t>(i)];
            const Seconds time = book.kernel_time(kernel, phase.pass);
            flops += kernel.flops;
            ASSERT_GE(time, kRounding * (kernel.flops / d.peak_matmul)) << name(phase.phase);
            ASSERT_GE(time, kRounding * (kernel.bytes / d.memory_bandwidth)) << name(phase.phase);
        }
        // A whole phase that was measured may find its bytes in a cache, never its FLOPs.
        ASSERT_GE(book.compute_time(*work, phase.pass), kRounding * (flops / d.peak_matmul))
            << name(phase.phase);
    }
}

// A profile without a curve of every kernel that a layer needs prices no layer: l40s_public has no
// experts of HP.
bool prices(const Profile& profile, const Plan& plan) {
    const Kernel experts = plan.is_head_parallel() ? Kernel::fused_expert : Kernel::grouped_gemm;
    return !profile.kernel(experts, Dtype::bf16).forward.empty();
}

TEST(Prices, BeatNeitherThePeakNorTheMemoryOfAnyDevice) {
    std::mt19937 draw(1);
    std::vector<Cluster> clusters;
    std::vector<Profile> profiles;
    for (const Preset& preset : list_presets(kShipped)) {
        if (preset.kind == "clusters") clusters.push_back(read_cluster(preset.path, kShipped));
        if (preset.kind == "profiles") profiles.push_back(read_profile(preset.path, kShipped));
    }
    ASSERT_FALSE(clusters.empty() || profiles.empty());
    int priced = 0;
    for (const Profile& profile : profiles) {
        for (const Cluster& cluster : clusters) {
            for (int i = 0; i < 3; ++i) {
                const Scenario s = random_scenario(draw, cluster);
                const PriceBook book(profile, s.cluster, s.model.dtype);
                for (const Plan& plan : s.plans) {
                    if (!prices(profile, plan)) continue;
                    ++priced;
                    SCOPED_TRACE(profile.name + " on " + cluster.name + ", " + plan.name);
                    const Workload w = build_workload(s, plan);
                    for (const auto* phases : {&w.before, &w.after, &w.update})
                        expect_within(*phases, book, cluster.device);
                    for (const LayerWork& layer : w.layers) {
                        expect_within(layer.forward, book, cluster.device);
                        expect_within(layer.backward, book, cluster.device);
                    }
                }
            }
        }
    }
    EXPECT_GT(priced, 200);
}

}  // namespace
}  // namespace headway
