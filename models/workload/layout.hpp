// ExpertLayout: the part of a plan in which tokens choose experts on other ranks, brought to one
// form: EP's group, or, under HP x EP, the ranks that share one head. HP with at most H ranks has a
// group of one: routing moves nothing.
#pragma once

#include <optional>

#include "models/vocab/scenario.hpp"
#include "models/workload/routing.hpp"

namespace headway::inline workload {

struct ExpertLayout {
    RouterShape router;
    int group_size = 1;          // consecutive ranks that share the experts of a router
    double tokens_per_rank = 0;  // (sub-)tokens that each of them routes
    int routers_per_rank = 1;    // HP: heads owned by a rank
    int num_heads = 1;           // HP: group g shares head g % num_heads
    int width = 0;               // of a travelling copy: d, l (LatentMoE) or d_h
    int expert_width = 0;
    Dedup dedup = Dedup::none;
    std::optional<double> capacity_factor;
};

ExpertLayout expert_layout(const Scenario& scenario, const Plan& plan);

}  // namespace headway::inline workload
