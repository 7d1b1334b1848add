// A machine and a model small enough to solve by hand: every rate is a constant.
#pragma once

#include "models/vocab/profile.hpp"
#include "models/vocab/scenario.hpp"

namespace headway::toy {

inline constexpr double kFlopRate = 100e12, kByteRate = 1e12, kLink = 100e9;

// t = FLOPs / 100 TFLOP/s, bytes / 1 TB/s; all-to-all t = 1 us + bytes / 100 GB/s on any path; no
// overheads. Activations are passes of their own.
inline Profile profile() {
    Profile p{.name = "toy", .provenance = {.device = "toy"}};
    for (int k = 0; k < kNumKernels; ++k) {
        const bool optional = k == static_cast<int>(Kernel::grouped_gemm_gelu) ||
                              k == static_cast<int>(Kernel::grouped_gemm_swiglu) ||
                              k == static_cast<int>(Kernel::fused_expert_swiglu);
        if (optional) continue;
        const double rate = is_byte_rate(static_cast<Kernel>(k)) ? kByteRate : kFlopRate;
        p.kernel(static_cast<Kernel>(k)).forward = {{.size = {1.0, 1e18},
                                                     .width = {1.0},
                                                     .rate = {rate, rate},
                                                     .residual = 0.1,
                                                     .source = "toy"}};
    }
    for (Collective c : {Collective::all_to_all, Collective::all_reduce}) {
        for (PathClass path : {PathClass::nvlink, PathClass::nic, PathClass::spine}) {
            p.communication.push_back({.collective = c,
                                       .path = path,
                                       .num_ranks = 8,
                                       .link = kLink * byte / second,
                                       .bytes = {1.0, 1e15},
                                       .seconds = {1e-6 + 1.0 / kLink, 1e-6 + 1e15 / kLink},
                                       .residual = 0.05,
                                       .source = "toy"});
        }
    }
    p.overheads.overlap_slowdown = 1.0;
    return p;
}

// headway's own host: calls of NCCL cost `exchange`, all others `call`.
inline void set_own_host(Profile& p, Seconds call, Seconds exchange) {
    for (std::size_t i = 0; i < kNumHostCalls; ++i) {
        const auto kind = static_cast<HostCall>(i);
        const bool hands_over = kind == HostCall::all_to_all || kind == HostCall::exchange ||
                                kind == HostCall::reduction;
        p.overheads.host_calls[kind] = hands_over ? exchange : call;
    }
}

inline Cluster cluster(int nodes, int gpus) {
    return {.name = "toy",
            .device = {"toy", 1e18 * flop / second, 1e18 * byte / second, 1e6 * GiB},
            .num_nodes = nodes,
            .gpus_per_node = gpus,
            .nvlink = NvLink{gpus, kLink * byte / second, {}},
            .fabric = Fabric{.nics_per_node = gpus, .nic = kLink * byte / second}};
}

inline Plan ep(Dedup dedup, int group, std::string name = "ep") {
    return {.name = std::move(name), .layer = ExpertParallel{.dedup = dedup}, .group_size = group};
}

inline Plan hp(int heads, const ModelSpec& model, int group, std::string name = "hp") {
    return {.name = std::move(name),
            .layer = HeadParallel{heads, model.hidden / heads, model.moe.num_experts,
                                  model.moe.top_k, model.moe.expert_width},
            .group_size = group};
}

// The widths of DeepSeek-V3: d 7168, h 128 of 128 + 64 and 128, ranks 1536 and 512, 256 experts, k
// 8, f 2048, one shared expert of 2048.
inline void widen_to_deepseek_v3(ModelSpec& model) {
    model.hidden = 7168;
    model.attention = {.num_heads = 128, .num_kv_heads = 128, .head_width = 192};
    model.attention.latent = LatentAttention{1536, 512, 128, 64, 128};
    model.moe = {.num_experts = 256,
                 .top_k = 8,
                 .expert_width = 2048,
                 .activation = Activation::swiglu,
                 .num_shared_experts = 1,
                 .shared_expert_width = 2048};
}

// T = 4096 tokens, d = 1024, E = 64, k = 4, f = 512, two layers, GELU without gate, equal experts
// without noise.
inline Scenario scenario(int nodes = 1, int gpus = 8) {
    Scenario s{.name = "toy"};
    s.model = {
        .name = "toy",
        .vocab_size = 32000,
        .hidden = 1024,
        .num_layers = 2,
        .attention = {.num_heads = 8, .num_kv_heads = 8, .head_width = 128},
        .moe = {.num_experts = 64, .top_k = 4, .expert_width = 512, .activation = Activation::gelu},
        .dtype = Dtype::bf16};
    s.cluster = cluster(nodes, gpus);
    s.batch = {.sequence_length = 4096};
    s.routing.noise = false;
    s.plans = {ep(Dedup::none, nodes * gpus)};
    s.baseline = "ep";
    return s;
}

}  // namespace headway::toy
