// ExpertLayout: the part of a plan in which tokens choose experts on other ranks, brought to one
// form: EP's group, a part of which is an expert-tensor-parallel group, or, under HP x EP, the
// ranks that share one head. HP with at most H ranks has a group of one: routing moves nothing.
#pragma once

#include <optional>

#include "models/vocab/scenario.hpp"
#include "models/workload/routing.hpp"

namespace headway::inline workload {

struct ExpertLayout {
    RouterShape router;
    int group_size = 1;          // N: parts that the experts of a router are shared out to
    int expert_tensor = 1;       // e: consecutive ranks of a part, each with f/e of its experts
    double tokens_per_rank = 0;  // (sub-)tokens that each of them routes
    int routers_per_rank = 1;    // HP: heads owned by a rank
    int num_heads = 1;           // HP: group g shares head g % num_heads
    int width = 0;               // of a travelling copy: d, l (LatentMoE) or d_h
    int expert_width = 0;        // on a rank
    Dedup dedup = Dedup::none;
    bool gathers_tokens = false;  // every rank gets all tokens, and takes the rows of its experts
    std::optional<double> capacity_factor;

    // Consecutive ranks that exchange.
    int ranks() const { return group_size * expert_tensor; }
    // Copies go to the rank of a part that has the source's place in its own, and from there to all
    // of the part (Megatron-LM's alltoall); else, with a copy a rank or node, to all of it at once
    // (its flex).
    bool gathers_rows() const {
        return expert_tensor > 1 && dedup == Dedup::none && !gathers_tokens;
    }
    // Exchanges side by side, each among every lanes()-th rank.
    int lanes() const { return gathers_rows() ? expert_tensor : 1; }
    bool exchanges() const { return ranks() > lanes(); }
};

ExpertLayout expert_layout(const Scenario& scenario, const Plan& plan);

// Bytes of an element of results that ranks add up, and of their gradients. Megatron-LM has them in
// the type of the router's probabilities (core/transformer/moe/token_dispatcher.py).
double summed_element(const ModelSpec& model, const Plan& plan);

}  // namespace headway::inline workload
