// Scenario: everything one run needs, resolved: model, cluster, batch, routing, plans, profile. It
// is read from YAML by models/scenario and passed around as a value.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/vocab/cluster.hpp"
#include "models/vocab/mesh.hpp"
#include "models/vocab/model_spec.hpp"
#include "models/vocab/plan.hpp"
#include "models/vocab/profile.hpp"

namespace headway {

struct Batch {
    int sequence_length = 0;
    int sequences_per_rank = 1;            // of one micro-batch on one data-parallel rank
    int num_micro_batches = 1;             // gradient accumulation steps, unless the next is given
    std::optional<int> global_batch_size;  // sequences of a step: sets each plan's micro-batches

    // Tokens of one micro-batch, before a plan cuts them (rank_tokens).
    std::int64_t tokens_per_rank() const {
        return std::int64_t{sequence_length} * sequences_per_rank;
    }
};

// Router skew: the popularity of experts apart from sampling noise. Weights are normalised over the
// experts of a router; which expert is popular is drawn from the seed.
//   none: equal;  zipf: w_i ~ 1 / (i+1)^s;  power_law: the truncated Pareto draw that inference
//   collectors use; dirichlet: symmetric with concentration `parameter`;  histogram: given weights;
//   trace: recorded counts by layer
enum class Skew { none, zipf, power_law, dirichlet, histogram, trace };
inline constexpr std::array kSkewNames = {
    std::string_view("none"),      std::string_view("zipf"),      std::string_view("power_law"),
    std::string_view("dirichlet"), std::string_view("histogram"), std::string_view("trace")};

enum class SkewScope {
    global,
    per_source
};  // same popularity on all source ranks, or drawn for each
inline constexpr std::array kSkewScopeNames = {std::string_view("global"),
                                               std::string_view("per_source")};

struct Routing {
    bool noise = true;  // sampled top-k; false: the expectation, exactly
    Skew skew = Skew::none;
    double parameter = 0.0;  // exponent or concentration
    std::vector<std::vector<double>>
        weights;  // histogram: one row; trace: a row a layer, reused cyclically
    SkewScope scope = SkewScope::global;
    bool per_layer = true;  // popularity is drawn anew for each layer
    std::uint64_t seed = 0;
};

// One axis of a sweep, as written: a key of the scenario by its path ("model.moe.top_k"), or a
// derived axis that keeps something equal, and its values ("8", "400 Gbps", "0..1.5:0.25").
struct SweepAxis {
    std::string key;
    std::vector<std::string> values;
};

struct Scenario {
    std::string name;
    ModelSpec model;
    Cluster cluster;
    Batch batch;
    Routing routing;
    std::vector<Plan> plans;
    std::string baseline;            // name of the plan that speedups refer to
    std::optional<Profile> profile;  // may come from the command line instead
    std::vector<SweepAxis> sweep;    // axes of `headway sweep`; the command line may bring others
    std::vector<std::string> notes;  // what was assumed on the way ("HP twin of ...: H*d_h = d")
};

inline Mesh mesh_of(const Scenario& scenario, const Plan& plan) {
    return mesh_of(scenario.cluster.num_ranks(), plan);
}

// Tokens of one micro-batch: on a group of tensor-parallel ranks, whose heads and widths they share
// out, and on one rank outside of attention and dense feed-forward, where a rank has a part of its
// own under sequence parallelism.
struct RankTokens {
    std::int64_t group = 0;  // T = MBS S / c
    std::int64_t own = 0;    // T / t; T without sequence parallelism
};
inline RankTokens rank_tokens(const Batch& batch, const Parallel& parallel) {
    const std::int64_t group = batch.tokens_per_rank() / parallel.context_parallel_size;
    return {group,
            parallel.sequence_parallel ? group / parallel.tensor_model_parallel_size : group};
}
inline RankTokens rank_tokens(const Scenario& scenario, const Plan& plan) {
    return rank_tokens(scenario.batch, plan.parallel);
}

// Micro-batches of one pipeline, or gradient accumulation steps: m.
inline int num_micro_batches(const Scenario& scenario, const Plan& plan) {
    const Batch& batch = scenario.batch;
    if (!batch.global_batch_size) return batch.num_micro_batches;
    return *batch.global_batch_size / (batch.sequences_per_rank * mesh_of(scenario, plan).dp);
}

// Sequences of a step on all ranks together: MBS m DP.
inline std::int64_t sequences_of(const Scenario& scenario, const Plan& plan) {
    return std::int64_t{mesh_of(scenario, plan).dp} * scenario.batch.sequences_per_rank *
           num_micro_batches(scenario, plan);
}

}  // namespace headway
