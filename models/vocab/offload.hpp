// Offload: what a plan keeps in the memory of the host instead of the GPU's. Keys carry Megatron's
// names (Megatron-LM d98e8a6, core/optimizer/optimizer_config.py and
// core/transformer/transformer_config.py).
#pragma once

#include <array>
#include <string_view>

#include "models/vocab/bit_set.hpp"

namespace headway {

// Parts of a layer whose inputs go to the host in forward and come back in backward: of both norms,
// of the projections to q, k and v, of the attention core and of its output projection; rows as
// they arrived at the experts; what their activation reads; all that the experts keep.
enum class OffloadModule {
    attn_norm,
    qkv_linear,
    core_attn,
    attn_proj,
    mlp_norm,
    expert_fc1,
    moe_act,
    fused_group_mlp,
};
inline constexpr std::array kOffloadModuleNames = {
    std::string_view("attn_norm"), std::string_view("qkv_linear"),
    std::string_view("core_attn"), std::string_view("attn_proj"),
    std::string_view("mlp_norm"),  std::string_view("expert_fc1"),
    std::string_view("moe_act"),   std::string_view("fused_group_mlp")};

using OffloadModules = unsigned;
template <class... Module>
constexpr OffloadModules offload_modules(Module... m) {
    return bits_of(m...);
}

struct Offload {
    // AdamW of `optimizer_offload_fraction` of a rank's parameters runs on the host, its states
    // there: gradients go down and parameters come up (core/optimizer/cpu_offloading).
    bool optimizer_cpu_offload = false;
    double optimizer_offload_fraction = 1.0;
    bool overlap_cpu_optimizer_d2h_h2d = false;  // copies run beside the host's optimizer
    // The host's master parameters are the only ones; else the GPU keeps its own too.
    bool use_precision_aware_optimizer = true;

    // Activations, module by module in every layer (core/pipeline_parallel/
    // fine_grained_activation_offload.py); or those of whole layers, the first ones
    // (TransformerEngine's cpu_offload.py).
    bool fine_grained_activation_offloading = false;
    OffloadModules modules = 0;
    int cpu_offloading_num_layers = 0;

    friend bool operator==(const Offload&, const Offload&) = default;

    constexpr double optimizer_share() const {
        return optimizer_cpu_offload ? optimizer_offload_fraction : 0.0;
    }
    constexpr bool has_activations() const { return modules != 0 || cpu_offloading_num_layers > 0; }
    constexpr bool is_any() const { return optimizer_cpu_offload || has_activations(); }
    constexpr bool has(OffloadModule m) const { return (modules & offload_modules(m)) != 0; }
};

// Bytes of an offloaded parameter that go down (its gradient) and come up (itself): copies are
// fp32, as PyTorch casts on the GPU.
inline constexpr double kOffloadedParameterBytes = 4.0;
// Bytes of it in host memory: parameter, gradient and both moments in fp32; AdamW reads all of
// them and writes all but the gradient.
inline constexpr double kHostStateBytes = 16.0, kHostOptimizerBytes = 28.0;

}  // namespace headway
