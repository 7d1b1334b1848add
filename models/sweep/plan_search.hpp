// All legal plans of a scenario, and the fastest that fits into memory. Varied: the MoE layer (EP
// with each deduplication, HP with each number of heads), the group it is spread over (HP beyond H
// ranks is HP x EP), recomputation, ZeRO-1, overlap chunks, and how many sequences a micro-batch
// holds at the same global batch; with `layouts` the cuts of layouts.hpp too. Not varied is what
// changes the model or its numerics: the optimizer, LatentMoE, node limits; those are taken from
// the scenario's own plans.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "models/vocab/error.hpp"
#include "models/vocab/prediction.hpp"
#include "models/vocab/scenario.hpp"

namespace headway::inline sweep {

enum class PlanKind { data_parallel, expert_parallel, head_parallel, head_and_expert_parallel };
PlanKind kind_of(const Plan& plan);
// "EP, a copy a rank, 8 ranks", "HP x EP, 8 heads, 64 ranks": everything but the knobs below it.
std::string variant_name(const Plan& plan);
// "recompute moe, 4 chunks, ZeRO-1, 2 x 4 sequences"
std::string knobs_text(const Plan& plan, const Batch& batch);

struct Candidate {
    Plan plan;
    Batch batch;
    PlanPrediction prediction;
};

struct SearchOptions {
    std::vector<int> heads;  // H to try; empty: those of the scenario's HP plans
    bool layouts = false;    // vary tensor, context and pipeline parallelism and sharding too
    int threads = 1;
    std::function<void(std::size_t done, std::size_t total)> progress;
};

struct SearchResult {
    std::size_t num_legal = 0, num_fitting = 0;
    std::vector<Candidate> best;         // one a variant, fastest first; all fit
    std::optional<Candidate> smallest;   // the one with the least memory, when none fits
    std::vector<InputProblem> unpriced;  // why plans could not be priced (a curve is missing)
};

// `scenario` is resolved and has a profile.
SearchResult search_plans(const Scenario& scenario, const SearchOptions& options = {});

// What one other choice would change, the rest as in `chosen`.
struct Alternative {
    std::string choice;   // "recompute none"
    Candidate candidate;  // its prediction may be infeasible
};
std::vector<Alternative> alternatives(const Scenario& scenario, const Candidate& chosen);

}  // namespace headway::inline sweep
