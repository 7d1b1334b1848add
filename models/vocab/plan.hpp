// Plan: how a model is laid over the ranks. The MoE layer is split over groups of `group_size`
// ranks (EP or HP); equal ranks of different groups are replicas; `parallel` cuts the rest
// (mesh.hpp).
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "models/vocab/model_spec.hpp"
#include "models/vocab/offload.hpp"
#include "models/vocab/parallel.hpp"
#include "models/vocab/recompute.hpp"

namespace headway {

// What an EP dispatch sends: a copy per chosen expert (none, "naive"), per distinct destination
// rank, or per distinct destination node with NVLink forwarding there (node).
enum class Dedup { none, rank, node };
inline constexpr std::array kDedupNames = {std::string_view("none"), std::string_view("rank"),
                                           std::string_view("node")};

// Who moves rows at their source: passes of their own before and after the exchange; or the
// exchange itself (Megatron's flex: DeepEP, HybridEP); or nobody, as all tokens go to all ranks
// (allgather).
enum class TokenDispatcher { alltoall, allgather, flex };
inline constexpr std::array kTokenDispatcherNames = {
    std::string_view("alltoall"), std::string_view("allgather"), std::string_view("flex")};

struct ExpertParallel {
    Dedup dedup = Dedup::none;
    TokenDispatcher dispatcher = TokenDispatcher::alltoall;
    std::optional<int> node_limit;    // M: a token's experts lie on at most M nodes
    std::optional<int> latent_width;  // l: LatentMoE, tokens travel and experts work at width l < d
    bool hide_count_exchange = false;  // counts travel behind the permute instead of before it
};

// Multi-Head LatentMoE. Every head has its own router and experts. For group_size <= num_heads a
// rank owns num_heads / group_size heads; beyond that, the experts of a head are split over
// group_size / num_heads ranks (HP x EP).
struct HeadParallel {
    int num_heads = 0;          // H
    int head_width = 0;         // d_h
    int num_experts = 0;        // E, per head
    int top_k = 0;              // k, per head
    int expert_width = 0;       // f
    Dedup dedup = Dedup::rank;  // of the dispatch inside a head under HP x EP: none or rank
};

enum class Optimizer { adamw_fp32, adamw_8bit };
inline constexpr std::array kOptimizerNames = {std::string_view("adamw_fp32"),
                                               std::string_view("adamw_8bit")};

// Who runs the step. fused: kernels that copy a row only where it must move, of a host that is
// never waited for; unfused: the code released with arXiv 2602.04870, with its duplications, casts,
// layout copies and host syncs; torch and megatron: the kernels of `fused`, launched one by one by
// the host of eager PyTorch or of Megatron-LM with TransformerEngine; headway: the same, enqueued
// by headway's own host, with what its runtime moves besides (workload/host_work.cpp).
enum class Implementation { fused, unfused, torch, megatron, headway };
inline constexpr std::array kImplementationNames = {
    std::string_view("fused"), std::string_view("unfused"), std::string_view("torch"),
    std::string_view("megatron"), std::string_view("headway")};
constexpr bool launches_eagerly(Implementation i) {
    return i == Implementation::torch || i == Implementation::megatron;
}

// Kernels of the attention core, by the names of Megatron's attention_backend: cuDNN's or
// FlashAttention 3's, which profiles hold the rates of, or FlashAttention 2's.
enum class AttentionBackend { fused, flash };
inline constexpr std::array kAttentionBackendNames = {std::string_view("fused"),
                                                      std::string_view("flash")};

// What is launched as a CUDA graph, one a layer and pass; by the names of Megatron's
// cuda_graph_scope: norms and attention; the dense feed-forward; the router and shared experts; the
// counts and the permutation; all of the step (headway's own can do this one only).
enum class GraphScope { attn, mlp, moe_router, moe_preprocess, full_iteration };
inline constexpr std::array kGraphScopeNames = {
    std::string_view("attn"), std::string_view("mlp"), std::string_view("moe_router"),
    std::string_view("moe_preprocess"), std::string_view("full_iteration")};
// Bit i stands for scope i.
using GraphScopes = unsigned;
constexpr bool has_scope(GraphScopes set, GraphScope scope) {
    return (set >> static_cast<unsigned>(scope) & 1u) != 0;
}

// What linear layers and experts compute in; by the names of Megatron's fp8_recipe and fp4_recipe.
enum class Recipe { none, tensorwise, delayed, blockwise, mxfp8, nvfp4 };
inline constexpr std::array kRecipeNames = {
    std::string_view("none"),      std::string_view("tensorwise"), std::string_view("delayed"),
    std::string_view("blockwise"), std::string_view("mxfp8"),      std::string_view("nvfp4")};

struct Precision {
    Recipe recipe = Recipe::none;
    bool experts = true;            // routed experts too
    bool dispatch_forward = false;  // Megatron's moe_dispatch_fwd_dtype: the recipe's type
    bool combine_backward = false;
    bool attention = false;  // attention's core in FP8 (Megatron's fp8_dot_product_attention)

    // The type of a linear layer's operands.
    Dtype linear(Dtype model) const {
        switch (recipe) {
            case Recipe::none:
                return model;
            case Recipe::tensorwise:
            case Recipe::delayed:
                return Dtype::fp8;
            case Recipe::blockwise:
                return Dtype::fp8_block;
            case Recipe::mxfp8:
                return Dtype::mxfp8;
            case Recipe::nvfp4:
                return Dtype::nvfp4;
        }
        return model;
    }
    // Rows of an expert are padded to a multiple of this (TransformerEngine).
    int row_alignment() const {
        if (recipe == Recipe::none) return 1;
        return recipe == Recipe::mxfp8 || recipe == Recipe::nvfp4 ? 32 : 16;
    }
};

using MoeLayerSplit = std::variant<ExpertParallel, HeadParallel>;
inline constexpr std::array kLayerSplitNames = {std::string_view("expert_parallel"),
                                                std::string_view("head_parallel")};
static_assert(kLayerSplitNames.size() == std::variant_size_v<MoeLayerSplit>);

struct Plan {
    std::string name;
    MoeLayerSplit layer;
    int group_size = 1;  // ranks of one EP or HP group (expert_model_parallel_size)
    Parallel parallel;
    Precision precision;
    Recompute recompute;
    Offload offload;
    Optimizer optimizer = Optimizer::adamw_fp32;
    Dtype main_grads_dtype = Dtype::fp32;  // gradients as accumulated, reduced and read
    // Products of weight gradients add to them; else a kernel of its own does.
    bool gradient_accumulation_fusion = true;
    Dtype main_params_dtype = Dtype::fp32;  // master parameters
    Dtype exp_avg_dtype = Dtype::fp32;      // first and second moment; adamw_8bit: a byte each
    Dtype exp_avg_sq_dtype = Dtype::fp32;
    bool store_param_remainders = false;  // master: the 16 bits that a bf16 parameter lacks
    int overlap_chunks =
        1;  // token chunks whose communication overlaps expert compute; 1: no overlap
    bool overlap_grad_all_reduce = true;
    bool overlap_param_gather = false;
    bool use_transformer_engine_op_fuser = false;
    Implementation implementation = Implementation::fused;
    GraphScopes cuda_graph_scope = 0;
    AttentionBackend attention_backend = AttentionBackend::fused;

    // How the MoE layer is split: the plan's own key, and the word for it in every result.
    std::string_view layer_split() const { return kLayerSplitNames[layer.index()]; }
    bool is_head_parallel() const { return std::holds_alternative<HeadParallel>(layer); }
};

// What a rank receives is known when the routers have chosen, and its host waits for that: EP over
// several ranks, HP over more ranks than heads.
constexpr bool waits_for_counts(const Plan& plan) {
    const auto* hp = std::get_if<HeadParallel>(&plan.layer);
    return plan.group_size > (hp != nullptr ? hp->num_heads : 1);
}

// ZeRO-1 and beyond: a rank updates its share of the parameters.
// Megatron's use_transformer_engine_op_fuser: what stands between and behind an expert's products
// (activation, clamps, biases, gates, casts) is in their epilogues.
constexpr bool fuses_expert_operators(const Plan& plan) {
    return plan.implementation == Implementation::megatron && plan.use_transformer_engine_op_fuser;
}
// Whether an update ends with parameters that are gathered once, for all of the next step.
constexpr bool gathers_once(DataParallelSharding sharding) {
    return sharding == DataParallelSharding::optim || sharding == DataParallelSharding::optim_grads;
}
constexpr bool shards_optimizer(const Plan& plan) {
    return plan.parallel.data_parallel_sharding_strategy != DataParallelSharding::no_shard;
}

// Bytes a parameter of what the optimizer keeps.
constexpr double master_bytes(const Plan& plan) {
    return plan.store_param_remainders ? 2.0 : bytes_per_element(plan.main_params_dtype);
}
constexpr double moment_bytes(const Plan& plan) {
    return plan.optimizer == Optimizer::adamw_8bit
               ? 2.0
               : bytes_per_element(plan.exp_avg_dtype) + bytes_per_element(plan.exp_avg_sq_dtype);
}

}  // namespace headway
