// Which phases belong to the MoE layer itself: what the runtime executes and `verify` compares.
#pragma once

#include "models/vocab/phase.hpp"

namespace headway::inline workload {

constexpr bool is_moe_phase(Phase phase) {
    return phase >= Phase::route && phase <= Phase::head_merge;
}

}  // namespace headway::inline workload
