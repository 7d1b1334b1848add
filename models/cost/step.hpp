// StepTime: a priced Workload. Collects time by phase and pass, with what overlaps already taken
// out. Private to models/cost.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "models/cost/price.hpp"
#include "models/vocab/prediction.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline cost {

// Sum over a step of one phase in one pass.
struct PhaseTotal {
    int count = 0;
    Seconds time, hidden;
    double sigma = 0.0;
    Bytes bytes;
    Flops flops;
    Bottleneck bottleneck = Bottleneck::none;
    Seconds slowest;  // of one execution, which decides the bottleneck shown
};

// One execution of a phase as priced, for the Timeline.
struct PhaseTime {
    const PhaseWork* work = nullptr;
    Seconds time, hidden;
    double sigma = 0.0;
    Bottleneck bottleneck = Bottleneck::none;
};

struct LayerTime {
    std::vector<PhaseTime> forward, backward;
    Seconds forward_total, backward_total;
};

struct StepTime {
    Seconds total;
    Seconds moe_forward,
        moe_backward;  // MoE part of one MoE layer: without attention and norms, mean over layers
    std::array<std::array<PhaseTotal, 3>, static_cast<std::size_t>(kNumPhases)> phases{};
    std::vector<PhaseTime> before, after, update;
    std::vector<LayerTime> layers;
};

// Of the MoE part of a layer: neither attention nor norms.
constexpr bool is_moe_part(Phase phase) {
    switch (phase) {
        case Phase::norm:
        case Phase::attention_qkv:
        case Phase::attention_core:
        case Phase::attention_out:
        case Phase::dense_mlp:
            return false;
        default:
            return true;
    }
}

StepTime price_step(const Workload& workload, const Profile& profile, PriceBook& book);

// Bytes that a phase sends off-rank (busiest rank) or moves through memory, and its FLOPs.
Bytes phase_bytes(const PhaseWork& phase);
Flops phase_flops(const PhaseWork& phase);

}  // namespace headway::inline cost
