// Phase and Pass: the contract between model, simulator and the real run. The three producers of a
// Timeline use these names and no others, so that `verify` is a join by phase.
#pragma once

#include <algorithm>
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

// What a phase is a part of. moe_layer: what the runtime's layers execute and `verify` compares;
// chunk: of a pipeline rank, as one span, the sum of other phases.
enum class PhasePart { step, moe_layer, chunk };

struct PhaseFacts {
    Phase phase{};
    std::string_view name;
    PhasePart part = PhasePart::step;
    bool communicates = false;  // moves bytes between ranks
};
// The one place that says what a phase is, in the order of a forward pass, which tables keep.
inline constexpr std::array kPhaseTable = {
    PhaseFacts{Phase::embed, "embed"},
    PhaseFacts{Phase::norm, "norm"},
    PhaseFacts{Phase::mtp_project, "mtp_project"},
    PhaseFacts{Phase::tp_all_gather, "tp_all_gather", PhasePart::step, true},
    PhaseFacts{Phase::attention_qkv, "attention_qkv"},
    PhaseFacts{Phase::cp_exchange, "cp_exchange", PhasePart::step, true},
    PhaseFacts{Phase::attention_core, "attention_core"},
    PhaseFacts{Phase::attention_out, "attention_out"},
    PhaseFacts{Phase::tp_reduce_scatter, "tp_reduce_scatter", PhasePart::step, true},
    PhaseFacts{Phase::tp_all_reduce, "tp_all_reduce", PhasePart::step, true},
    PhaseFacts{Phase::dense_mlp, "dense_mlp"},
    PhaseFacts{Phase::latent_down, "latent_down", PhasePart::moe_layer},
    PhaseFacts{Phase::head_project, "head_project", PhasePart::moe_layer},
    PhaseFacts{Phase::head_scatter, "head_scatter", PhasePart::moe_layer, true},
    PhaseFacts{Phase::route, "route", PhasePart::moe_layer},
    PhaseFacts{Phase::shared_expert, "shared_expert", PhasePart::moe_layer},
    PhaseFacts{Phase::permute, "permute", PhasePart::moe_layer},
    PhaseFacts{Phase::count_exchange, "count_exchange", PhasePart::moe_layer, true},
    PhaseFacts{Phase::dispatch, "dispatch", PhasePart::moe_layer, true},
    PhaseFacts{Phase::etp_all_gather, "etp_all_gather", PhasePart::moe_layer, true},
    PhaseFacts{Phase::regroup, "regroup", PhasePart::moe_layer},
    PhaseFacts{Phase::expert, "expert", PhasePart::moe_layer},
    PhaseFacts{Phase::ungroup, "ungroup", PhasePart::moe_layer},
    PhaseFacts{Phase::etp_reduce_scatter, "etp_reduce_scatter", PhasePart::moe_layer, true},
    PhaseFacts{Phase::combine, "combine", PhasePart::moe_layer, true},
    PhaseFacts{Phase::unpermute, "unpermute", PhasePart::moe_layer},
    PhaseFacts{Phase::latent_up, "latent_up", PhasePart::moe_layer},
    PhaseFacts{Phase::head_gather, "head_gather", PhasePart::moe_layer, true},
    PhaseFacts{Phase::head_merge, "head_merge", PhasePart::moe_layer},
    PhaseFacts{Phase::lm_head, "lm_head"},
    PhaseFacts{Phase::loss, "loss"},
    PhaseFacts{Phase::pipeline_stage, "pipeline_stage", PhasePart::chunk},
    PhaseFacts{Phase::pipeline_weight, "pipeline_weight", PhasePart::chunk},
    PhaseFacts{Phase::pipeline_p2p, "pipeline_p2p", PhasePart::step, true},
    PhaseFacts{Phase::pipeline_bubble, "pipeline_bubble"},
    PhaseFacts{Phase::grad_all_reduce, "grad_all_reduce", PhasePart::step, true},
    PhaseFacts{Phase::expert_grad_all_reduce, "expert_grad_all_reduce", PhasePart::step, true},
    PhaseFacts{Phase::offload, "offload"},
    PhaseFacts{Phase::host_optimizer, "host_optimizer"},
    PhaseFacts{Phase::optimizer, "optimizer"},
    PhaseFacts{Phase::reload, "reload"},
    PhaseFacts{Phase::param_all_gather, "param_all_gather", PhasePart::step, true},
};
inline constexpr int kNumPhases = static_cast<int>(kPhaseTable.size());

constexpr std::array<PhaseFacts, kPhaseTable.size()> phases_by_number() {
    std::array<PhaseFacts, kPhaseTable.size()> facts{};
    for (const PhaseFacts& f : kPhaseTable) facts[static_cast<std::size_t>(f.phase)] = f;
    return facts;
}
inline constexpr auto kPhaseFacts = phases_by_number();
constexpr const PhaseFacts& facts(Phase phase) {
    return kPhaseFacts[static_cast<std::size_t>(phase)];
}

inline constexpr auto kPhaseNames = [] {
    std::array<std::string_view, kPhaseTable.size()> names{};
    for (std::size_t i = 0; i < names.size(); ++i) names[i] = kPhaseFacts[i].name;
    return names;
}();
static_assert(std::ranges::none_of(kPhaseNames, &std::string_view::empty),
              "a phase without a row in kPhaseTable");
static_assert(kNumPhases == static_cast<int>(Phase::param_all_gather) + 1);

inline constexpr std::array kPassNames = {std::string_view("forward"), std::string_view("backward"),
                                          std::string_view("update")};

constexpr std::string_view name(Phase phase) {
    return facts(phase).name;
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

constexpr bool is_chunk(Phase phase) {
    return facts(phase).part == PhasePart::chunk;
}
constexpr bool is_moe_phase(Phase phase) {
    return facts(phase).part == PhasePart::moe_layer;
}
constexpr bool is_communication(Phase phase) {
    return facts(phase).communicates;
}

}  // namespace headway
