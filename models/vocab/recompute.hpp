// Recompute: what backward computes again instead of keeping it. Keys carry Megatron's names.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "models/vocab/bit_set.hpp"

namespace headway {

// Parts of a layer whose inside backward computes again (Megatron-LM d98e8a6,
// core/transformer/transformer_config.py, recompute_modules): the attention core; q, k and v of
// latent attention; both norms; the activation of the experts; the dense feed-forward; the shared
// experts; the MoE layer with its exchanges. `experts` is headway's own: the routed experts from
// the rows that arrived, without an exchange.
enum class RecomputeModule {
    core_attn,
    mla_up_proj,
    layernorm,
    moe_act,
    mlp,
    shared_experts,
    moe,
    experts,
};
inline constexpr std::array kRecomputeModuleNames = {
    std::string_view("core_attn"), std::string_view("mla_up_proj"),
    std::string_view("layernorm"), std::string_view("moe_act"),
    std::string_view("mlp"),       std::string_view("shared_experts"),
    std::string_view("moe"),       std::string_view("experts")};

using RecomputeModules = unsigned;
template <class... Module>
constexpr RecomputeModules modules(Module... m) {
    return bits_of(m...);
}

enum class RecomputeGranularity { none, selective, full };
inline constexpr std::array kRecomputeGranularityNames = {
    std::string_view("none"), std::string_view("selective"), std::string_view("full")};

// What full takes: every layer, `num_layers` of them behind one kept input (uniform), or the first
// `num_layers` layers of every chunk of a pipeline, one by one (block).
enum class RecomputeMethod { uniform, block };
inline constexpr std::array kRecomputeMethodNames = {std::string_view("uniform"),
                                                     std::string_view("block")};

// The older key `recompute`, in order of what it computes again: the activation function; the
// experts too, without an exchange; the whole layer.
enum class RecomputeLevel { none, activation, moe, full };
inline constexpr std::array kRecomputeNames = {std::string_view("none"),
                                               std::string_view("activation"),
                                               std::string_view("moe"), std::string_view("full")};
inline constexpr std::array kRecomputeLevels = {RecomputeLevel::none, RecomputeLevel::activation,
                                                RecomputeLevel::moe, RecomputeLevel::full};

struct Recompute {
    RecomputeGranularity granularity = RecomputeGranularity::none;
    RecomputeModules modules = 0;  // of selective
    RecomputeMethod method = RecomputeMethod::uniform;
    int num_layers = 1;

    constexpr Recompute() = default;
    constexpr Recompute(RecomputeLevel level) {  // NOLINT: a level is a value of it
        if (level == RecomputeLevel::none) return;
        if (level == RecomputeLevel::full) {
            granularity = RecomputeGranularity::full;
            return;
        }
        granularity = RecomputeGranularity::selective;
        modules = headway::modules(RecomputeModule::moe_act);
        if (level == RecomputeLevel::moe) modules |= headway::modules(RecomputeModule::experts);
    }

    constexpr bool is_full() const { return granularity == RecomputeGranularity::full; }
    constexpr RecomputeModules selected() const {
        return granularity == RecomputeGranularity::selective ? modules : 0u;
    }
    constexpr bool has(RecomputeModule m) const { return (selected() & headway::modules(m)) != 0u; }
    friend constexpr bool operator==(const Recompute&, const Recompute&) = default;
};

// "none", "moe", "core_attn+layernorm", "full", "full, block of 4": a level's name where one says
// it.
std::string recompute_text(const Recompute& recompute);

}  // namespace headway
