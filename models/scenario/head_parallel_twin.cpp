#include "models/scenario/head_parallel_twin.hpp"

#include <fmt/format.h>

#include <cstdint>

namespace headway::inline scenario {

HeadParallel head_parallel_twin(const ModelSpec& model, const HeadParallel& partial) {
    HeadParallel twin = partial;
    if (twin.head_width == 0) twin.head_width = model.hidden / twin.num_heads;
    if (twin.num_experts == 0) twin.num_experts = model.moe.num_experts;
    if (twin.top_k == 0) twin.top_k = model.moe.top_k;
    if (twin.expert_width == 0) twin.expert_width = model.moe.expert_width;
    return twin;
}

std::string describe_twin(const ModelSpec& model, const HeadParallel& twin,
                          const std::string& plan_name) {
    const Moe& moe = model.moe;
    const std::int64_t projected = std::int64_t{twin.num_heads} * twin.head_width;
    std::string text = fmt::format(
        "plan {}: HP twin of {}: H = {} heads of width {} (H*d_h = {}), each with E = {} experts, "
        "k = {}, f = {}",
        plan_name, model.name, twin.num_heads, twin.head_width, projected, twin.num_experts,
        twin.top_k, twin.expert_width);
    const bool is_equal = projected == model.hidden && twin.num_experts == moe.num_experts &&
                          twin.top_k == moe.top_k && twin.expert_width == moe.expert_width;
    text += is_equal ? "; expert parameters and active expert FLOPs per token equal the EP layer's"
                     : "; NOT the parameters and FLOPs of the EP layer";
    return text +
           fmt::format("; two projections add {:.1f}M parameters a layer",
                       2e-6 * static_cast<double>(model.hidden) * static_cast<double>(projected));
}

}  // namespace headway::inline scenario
