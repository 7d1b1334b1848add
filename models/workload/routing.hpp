// Routing: how popular the experts of a router are (skew), and which experts each token chooses
// (noise). A token chooses k distinct experts one after the other, each with probability
// proportional to its popularity (Plackett-Luce; what top-k of logits with Gumbel noise gives).
// With expert groups it may only choose from `top_groups` of them: those whose experts score best,
// or groups drawn by their total popularity (GroupScore). Everything is a function of (seed, layer,
// head, rank, sample).
#pragma once

#include <cstdint>
#include <vector>

#include "models/vocab/model_spec.hpp"
#include "models/vocab/scenario.hpp"

namespace headway::inline workload {

struct RouterShape {
    int num_experts = 0;
    int top_k = 0;
    int num_groups = 1;
    int top_groups = 1;
    GroupScore group_score = GroupScore::random;
};

// Which router, and which draw of it.
struct RouterId {
    int layer = 0;
    int head = 0;         // HP: the head; 0 for EP
    int source_rank = 0;  // the rank whose tokens are routed
    int sample = 0;       // repetition of the noise; popularity does not depend on it
};

// Experts chosen by the tokens of one source: expert[t * top_k + j], distinct within a token.
struct Assignment {
    std::int64_t num_tokens = 0;
    int top_k = 0;
    std::vector<std::int32_t> expert;  // [tokens, k]
};

RouterShape router_shape(const Moe& moe);

// Popularity of each expert, summing to 1. A trace was recorded behind the router, so that its
// counts are shares of the choices: the popularity is what makes a token take each expert so often.
// [E]
std::vector<double> expert_popularity(const Routing& routing, const RouterShape& shape,
                                      const RouterId& router);

// The experts that `num_tokens` tokens choose. Without noise each expert gets its expected number
// of them, rounded; which experts a token chooses together is drawn.
Assignment sample_assignment(const Routing& routing, const RouterShape& shape,
                             const RouterId& router, std::int64_t num_tokens);

}  // namespace headway::inline workload
