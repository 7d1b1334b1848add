// Phase and Pass: the contract between model, simulator and the real run. The three producers of a
// Timeline use these names and no others, so that `verify` is a join by phase.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>

namespace headway {

enum class Phase {
    // dense parts of the step
    embed,
    norm,
    attention_qkv,
    attention_core,
    attention_out,
    dense_mlp,
    lm_head,
    loss,
    mtp_project,  // multi-token prediction: hidden row and embedding joined, 2 d to d
    // shared by EP and HP
    route,
    shared_expert,
    permute,
    expert,
    unpermute,
    // EP only: count_exchange is the small all-to-all of counts with its host sync;
    // regroup goes from source-rank order to local-expert order,
    // ungroup back; etp_*: rows go to all ranks that share an expert's width, and the sums of their
    // results back
    latent_down,
    count_exchange,
    dispatch,
    etp_all_gather,
    regroup,
    ungroup,
    etp_reduce_scatter,
    combine,
    latent_up,
    // HP only
    head_project,
    head_scatter,
    head_gather,
    head_merge,
    // what the parallel axes of a plan exchange around the parts above, and a pipeline's idle time;
    // a chunk of a pipeline rank as one span, and its weight gradients where they run apart
    tp_all_gather,
    tp_reduce_scatter,
    tp_all_reduce,
    cp_exchange,
    pipeline_p2p,
    pipeline_bubble,
    pipeline_stage,
    pipeline_weight,
    // end of step; with parameters sharded, their gathers and scatters in every pass too. offload
    // and reload are copies to and from host memory, host_optimizer works there
    grad_all_reduce,
    expert_grad_all_reduce,
    offload,
    host_optimizer,
    optimizer,
    reload,
    param_all_gather,
};

enum class Pass { forward, backward, update };

inline constexpr std::array kPhaseNames = {
    std::string_view("embed"),
    std::string_view("norm"),
    std::string_view("attention_qkv"),
    std::string_view("attention_core"),
    std::string_view("attention_out"),
    std::string_view("dense_mlp"),
    std::string_view("lm_head"),
    std::string_view("loss"),
    std::string_view("mtp_project"),
    std::string_view("route"),
    std::string_view("shared_expert"),
    std::string_view("permute"),
    std::string_view("expert"),
    std::string_view("unpermute"),
    std::string_view("latent_down"),
    std::string_view("count_exchange"),
    std::string_view("dispatch"),
    std::string_view("etp_all_gather"),
    std::string_view("regroup"),
    std::string_view("ungroup"),
    std::string_view("etp_reduce_scatter"),
    std::string_view("combine"),
    std::string_view("latent_up"),
    std::string_view("head_project"),
    std::string_view("head_scatter"),
    std::string_view("head_gather"),
    std::string_view("head_merge"),
    std::string_view("tp_all_gather"),
    std::string_view("tp_reduce_scatter"),
    std::string_view("tp_all_reduce"),
    std::string_view("cp_exchange"),
    std::string_view("pipeline_p2p"),
    std::string_view("pipeline_bubble"),
    std::string_view("pipeline_stage"),
    std::string_view("pipeline_weight"),
    std::string_view("grad_all_reduce"),
    std::string_view("expert_grad_all_reduce"),
    std::string_view("offload"),
    std::string_view("host_optimizer"),
    std::string_view("optimizer"),
    std::string_view("reload"),
    std::string_view("param_all_gather"),
};
inline constexpr int kNumPhases = static_cast<int>(kPhaseNames.size());
static_assert(kNumPhases == static_cast<int>(Phase::param_all_gather) + 1);

inline constexpr std::array kPassNames = {std::string_view("forward"), std::string_view("backward"),
                                          std::string_view("update")};

constexpr std::string_view name(Phase phase) {
    return kPhaseNames[static_cast<std::size_t>(phase)];
}
constexpr std::string_view name(Pass pass) {
    return kPassNames[static_cast<std::size_t>(pass)];
}

constexpr std::optional<Phase> phase_from_name(std::string_view text) {
    for (int i = 0; i < kNumPhases; ++i) {
        if (kPhaseNames[static_cast<std::size_t>(i)] == text) return static_cast<Phase>(i);
    }
    return std::nullopt;
}

constexpr std::optional<Pass> pass_from_name(std::string_view text) {
    for (std::size_t i = 0; i < kPassNames.size(); ++i) {
        if (kPassNames[i] == text) return static_cast<Pass>(i);
    }
    return std::nullopt;
}

// A chunk of a pipeline rank as one span: the sum of other phases.
constexpr bool is_chunk(Phase phase) {
    return phase == Phase::pipeline_stage || phase == Phase::pipeline_weight;
}

// True for the phases that move bytes between ranks.
constexpr bool is_communication(Phase phase) {
    switch (phase) {
        case Phase::count_exchange:
        case Phase::dispatch:
        case Phase::etp_all_gather:
        case Phase::etp_reduce_scatter:
        case Phase::combine:
        case Phase::head_scatter:
        case Phase::head_gather:
        case Phase::tp_all_gather:
        case Phase::tp_reduce_scatter:
        case Phase::tp_all_reduce:
        case Phase::cp_exchange:
        case Phase::pipeline_p2p:
        case Phase::grad_all_reduce:
        case Phase::expert_grad_all_reduce:
        case Phase::param_all_gather:
            return true;
        default:
            return false;
    }
}

}  // namespace headway
