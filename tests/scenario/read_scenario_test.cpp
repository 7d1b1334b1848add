#include "models/scenario/read_scenario.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <tuple>

#include "models/scenario/check_scenario.hpp"
#include "models/scenario/head_parallel_twin.hpp"
#include "models/workload/parameters.hpp"

namespace headway {
namespace {

// A scenario on presets, with the given model, cluster, routing and plans.
struct Parts {
    std::string model = "{preset: olmoe_1b_7b}";
    std::string cluster = "{preset: dgx_h100}";
    std::string routing = "{}";
    std::string plans = "[{name: ep, expert_parallel: {}, group_size: 8}]";
};

Scenario read(const Parts& parts) {
    return read_scenario_text("model: " + parts.model + "\ncluster: " + parts.cluster +
                                  "\nbatch: {sequence_length: 4096}\nrouting: " + parts.routing +
                                  "\nplans: " + parts.plans + "\n",
                              "s.yaml", "");
}

TEST(ReadScenario, EveryKeyArrives) {
    const Scenario s =
        read_scenario(HEADWAY_SOURCE_DIR "/tests/scenario/every_key.yaml", ReadOptions{});
    EXPECT_EQ(s.model.attention.latent->nope_width, 48);
    EXPECT_EQ(s.model.moe.capacity_factor, 1.25);
    EXPECT_EQ(s.model.dtype, Dtype::fp16);
    EXPECT_EQ(s.cluster.nvlink->latency.in(second), 2.5e-6);
    EXPECT_EQ(s.cluster.fabric->nic, 12.5 * GB / second);         // 100 Gbps
    EXPECT_EQ(s.cluster.fabric->spine_latency.in(second), 6e-6);  // 6000 ns
    EXPECT_EQ(s.cluster.fabric->spraying, Spraying::ecmp);
    EXPECT_EQ(s.cluster.link_overrides.at(0).link, "nic:3");
    EXPECT_EQ(s.batch.tokens_per_rank(), 2 * 128);
    EXPECT_FALSE(s.routing.noise);
    EXPECT_EQ(s.routing.skew, Skew::zipf);
    EXPECT_EQ(s.routing.parameter, 0.75);
    EXPECT_EQ(s.routing.seed, 12345u);
    const auto& ep = std::get<ExpertParallel>(s.plans.at(0).layer);
    EXPECT_EQ(ep.dedup, Dedup::node);
    EXPECT_EQ(ep.node_limit, 2);
    const auto& hp = std::get<HeadParallel>(s.plans.at(1).layer);
    EXPECT_EQ(hp.expert_width, 96);
    EXPECT_EQ(hp.dedup, Dedup::none);
    EXPECT_TRUE(s.notes.empty());  // explicit fields leave nothing to assume
    const RateCurve& gemm = s.profile->kernel(Kernel::dense_gemm).forward.at(0);
    EXPECT_EQ(gemm.rate, (std::vector<double>{10e12, 50.5e12, 20e12, 80e12}));  // [width, size]
    EXPECT_EQ(s.profile->kernel(Kernel::gather).forward.at(0).width, std::vector<double>{1.0});
    EXPECT_TRUE(s.profile->kernel(Kernel::gather).backward.empty());
    EXPECT_EQ(s.profile->communication.at(0).seconds, (std::vector<double>{10e-6, 25.5e-6}));
}

TEST(ReadScenario, EveryKeyIsWrittenBack) {
    const Scenario s =
        read_scenario(HEADWAY_SOURCE_DIR "/tests/scenario/every_key.yaml", ReadOptions{});
    const std::string text = to_yaml(s);
    EXPECT_EQ(to_yaml(read_scenario_text(text, "s.yaml", "", ReadOptions{})), text);
    EXPECT_NE(text.find("node_limit: 2"), std::string::npos);
    EXPECT_NE(text.find("exponent: 0.75"), std::string::npos);
    EXPECT_NE(text.find("clocks: \"1980 MHz\""), std::string::npos);
}

TEST(ReadScenario, KeysReplaceThoseOfAPreset) {
    const Scenario s = read({.model = "{preset: olmoe_1b_7b, moe: {top_k: 4}}",
                             .cluster = "{preset: dgx_h200, nodes: 4, nvlink: {latency: 9 us}}"});
    EXPECT_EQ(s.model.moe.top_k, 4);
    EXPECT_EQ(s.model.moe.num_experts, 64);  // of the preset
    EXPECT_EQ(s.cluster.num_ranks(), 32);
    EXPECT_EQ(s.cluster.nvlink->latency.in(second), 9e-6);
    EXPECT_EQ(s.cluster.nvlink->bandwidth, 450 * GB / second);  // of dgx_h100, two presets below
    EXPECT_EQ(s.cluster.device.memory, 139.8 * GiB);            // of dgx_h200
}

TEST(ReadScenario, TheNvlinkDomainFollowsTheNode) {
    const Scenario s = read({.cluster = "{preset: dgx_h100, gpus_per_node: 4, nodes: 2}"});
    EXPECT_EQ(s.cluster.nvlink->domain, 4);
}

// The older key and Megatron's keys are one value, which is written in the latter.
TEST(ReadScenario, RecomputeByModuleAndByItsOlderKey) {
    const auto plan = [](const std::string& keys) {
        return read({.plans = "[{name: ep, expert_parallel: {}, group_size: 8" + keys + "}]"});
    };
    const auto of = [&](const std::string& keys) { return plan(keys).plans[0].recompute; };
    using enum RecomputeModule;
    EXPECT_EQ(of(""), Recompute{});
    for (const RecomputeLevel level : kRecomputeLevels)
        EXPECT_EQ(
            of(", recompute: " + std::string(kRecomputeNames[static_cast<std::size_t>(level)])),
            Recompute(level));
    EXPECT_EQ(of(", recompute_granularity: selective").selected(), modules(core_attn))
        << "Megatron's default";
    EXPECT_EQ(of(", recompute_granularity: selective, recompute_modules: moe").selected(),
              modules(moe));
    EXPECT_EQ(of(", recompute_granularity: selective, recompute_modules: [layernorm, moe_act]"),
              of(", recompute_granularity: selective, recompute_modules: [moe_act, layernorm]"));
    EXPECT_EQ(of(", recompute_granularity: full"), Recompute(RecomputeLevel::full));
    for (const std::string keys :
         {", recompute: moe", ", recompute: full",
          ", recompute_granularity: selective, recompute_modules: [mlp]"}) {
        const Scenario s = plan(keys);
        EXPECT_EQ(read_scenario_text(to_yaml(s), "s.yaml", "", ReadOptions{}).plans[0].recompute,
                  s.plans[0].recompute)
            << keys;
    }
}

TEST(ReadScenario, SkewsOfEveryKind) {
    EXPECT_EQ(read({}).routing.skew, Skew::none);
    EXPECT_EQ(read({.routing = "{skew: {kind: dirichlet, concentration: 0.5}}"}).routing.parameter,
              0.5);
    std::string row = "[1";
    for (int i = 1; i < 64; ++i) row += ", " + std::to_string(i);
    row += "]";
    const Routing histogram =
        read({.routing = "{skew: {kind: histogram, weights: " + row + "}}"}).routing;
    ASSERT_EQ(histogram.weights.size(), 1u);
    EXPECT_EQ(histogram.weights[0][63], 63.0);
    const Routing trace =
        read({.routing = "{skew: {kind: trace, counts: [" + row + ", " + row + "]}}"}).routing;
    EXPECT_EQ(trace.weights.size(), 2u);
}

// H heads of width d / H with the model's E, k, f: H E m (d/H) f = E m d f expert parameters.
TEST(HeadParallelTwin, KeepsExpertParameters) {
    for (const int num_heads : {1, 4, 16, 64}) {
        const Scenario s =
            read({.plans = "[{name: hp, head_parallel: {num_heads: " + std::to_string(num_heads) +
                           "}, group_size: 1}]"});
        const auto& hp = std::get<HeadParallel>(s.plans.at(0).layer);
        EXPECT_EQ(hp.num_heads * hp.head_width, s.model.hidden);
        EXPECT_EQ(count_parameters(s.model, s.plans[0]).experts, count_parameters(s.model).experts);
        ASSERT_EQ(s.notes.size(), 1u);
        EXPECT_NE(s.notes[0].find("equal the EP layer's"), std::string::npos) << s.notes[0];
    }
}

TEST(HeadParallelTwin, SaysWhenItIsNoTwin) {
    const Scenario s =
        read({.plans = "[{name: hp, head_parallel: {num_heads: 8, top_k: 4}, group_size: 8}]"});
    ASSERT_EQ(s.notes.size(), 1u);
    EXPECT_NE(s.notes[0].find("NOT the parameters"), std::string::npos) << s.notes[0];
}

// group_size N, H heads, E experts a head: N | H, or H | N and (N / H) | E.
TEST(CheckScenario, HeadGroupsFollowTheRule) {
    Scenario s = read({.cluster = "{preset: dgx_h100, nodes: 8}",
                       .plans = "[{name: hp, head_parallel: {num_heads: 16}, group_size: 16}]"});
    for (int size = 1; size <= 64; ++size) {
        s.plans[0].group_size = size;
        const bool fits_world = 64 % size == 0;  // then also whole nodes or fractions of one
        const bool fits_heads = size <= 16 ? 16 % size == 0 : size % 16 == 0;
        EXPECT_EQ(check_scenario(s).empty(), fits_world && fits_heads) << size;
    }
}

TEST(CheckScenario, WorksOnValuesMadeInCode) {
    Scenario s = read({});
    EXPECT_TRUE(check_scenario(s).empty());
    s.model.moe.top_k = 65;
    const std::vector<InputProblem> problems = check_scenario(s);
    ASSERT_EQ(problems.size(), 1u);
    EXPECT_EQ(problems[0].where, "model.moe.top_k");
    EXPECT_EQ(problems[0].accepted, "1 to 64");
}

TEST(Presets, AreListedByKindAndName) {
    const std::vector<Preset> presets = list_presets();
    const auto has = [&](const std::string& kind, const std::string& name) {
        return std::any_of(presets.begin(), presets.end(),
                           [&](const Preset& p) { return p.kind == kind && p.name == name; });
    };
    EXPECT_TRUE(has("models", "deepseek_v3"));
    EXPECT_TRUE(has("clusters", "gb200_nvl72"));
    EXPECT_TRUE(has("profiles", "h100_public"));
    EXPECT_TRUE(std::is_sorted(presets.begin(), presets.end(), [](const auto& a, const auto& b) {
        return std::tie(a.kind, a.name) < std::tie(b.kind, b.name);
    }));
}

}  // namespace
}  // namespace headway
