#include <fmt/format.h>

#include <algorithm>

#include "models/scenario/check_scenario.hpp"
#include "models/scenario/divisors.hpp"

namespace headway::inline scenario {
namespace {

void check_attention(const Attention& attention, std::vector<InputProblem>& problems) {
    const bool names_window = attention.window_every != 1 || attention.full_every != 0 ||
                              attention.window_kind != WindowKind::sliding;
    if (names_window && !attention.window) {
        problems.push_back({"attention", "layers of a window, but no window",
                            "window in tokens beside window_kind, window_every and full_every",
                            ""});
    }
    if (attention.latent) return;
    if (attention.num_kv_heads > attention.num_heads ||
        attention.num_heads % attention.num_kv_heads != 0) {
        problems.push_back({"attention.num_kv_heads",
                            fmt::format("num_kv_heads {} does not divide num_heads {}",
                                        attention.num_kv_heads, attention.num_heads),
                            "one of: " + divisor_list(attention.num_heads), ""});
    }
}

void check_groups(const Moe& moe, std::vector<InputProblem>& problems) {
    if (moe.num_experts % moe.num_expert_groups != 0) {
        problems.push_back({"moe.num_expert_groups",
                            fmt::format("num_expert_groups {} does not divide num_experts {}",
                                        moe.num_expert_groups, moe.num_experts),
                            "one of: " + divisor_list(moe.num_experts), ""});
        return;
    }
    if (moe.top_groups > moe.num_expert_groups) {
        problems.push_back({"moe.top_groups",
                            fmt::format("top_groups {} exceeds num_expert_groups {}",
                                        moe.top_groups, moe.num_expert_groups),
                            fmt::format("1 to {}", moe.num_expert_groups), ""});
        return;
    }
    const int reachable = moe.num_experts / moe.num_expert_groups * moe.top_groups;
    if (moe.top_k > reachable) {
        problems.push_back({"moe.top_groups",
                            fmt::format("top_k {} exceeds the {} experts of {} groups", moe.top_k,
                                        reachable, moe.top_groups),
                            fmt::format("top_k from 1 to {}, or more top_groups", reachable), ""});
    }
}

void check_moe(const Moe& moe, std::vector<InputProblem>& problems) {
    if (moe.top_k > moe.num_experts) {
        problems.push_back(
            {"moe.top_k",
             fmt::format("top_k {} exceeds num_experts {}", moe.top_k, moe.num_experts),
             fmt::format("1 to {}", moe.num_experts), ""});
    } else {
        check_groups(moe, problems);
    }
    if (moe.num_shared_experts > 0 && moe.shared_expert_width == 0) {
        problems.push_back(
            {"moe.num_shared_experts",
             fmt::format("{} shared experts without shared_expert_width", moe.num_shared_experts),
             "shared_expert_width of at least 1", ""});
    }
}

}  // namespace

std::vector<InputProblem> check_model(const ModelSpec& model) {
    std::vector<InputProblem> problems;
    check_attention(model.attention, problems);
    check_moe(model.moe, problems);
    if (model.num_dense_layers > model.num_layers) {
        problems.push_back({"num_dense_layers",
                            fmt::format("num_dense_layers {} exceeds num_layers {}",
                                        model.num_dense_layers, model.num_layers),
                            fmt::format("0 to {}", model.num_layers), ""});
    }
    if (model.moe_every > 1 && model.num_moe_layers() == 0) {
        problems.push_back(
            {"moe_every",
             fmt::format("moe_every {} leaves no MoE layer of {}", model.moe_every,
                         model.num_layers),
             fmt::format("1 to {}", std::max(1, model.num_layers - model.num_dense_layers)), ""});
    } else if (model.moe_every > 1 && model.num_dense_layers == 0 && model.dense_width == 0) {
        problems.push_back(
            {"moe_every", "dense layers without dense_width", "dense_width of at least 1", ""});
    }
    if (model.num_dense_layers > 0 && model.dense_width == 0) {
        problems.push_back(
            {"num_dense_layers",
             fmt::format("{} dense layers without dense_width", model.num_dense_layers),
             "dense_width of at least 1", ""});
    }
    return problems;
}

}  // namespace headway::inline scenario
