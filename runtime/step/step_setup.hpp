// StepSetup: a whole training step of a plan, ready to be run: embedding, pre-norm blocks of causal
// attention and an MoE layer or a dense feed-forward, final norm, head, loss, AdamW. One group of
// ranks, which are data-parallel outside the MoE layers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/vocab/scenario.hpp"
#include "runtime/layers/layer_setup.hpp"

namespace headway::runtime {

struct StepOptimizer {
    double learning_rate = 1e-3;
    double beta1 = 0.9, beta2 = 0.95;
    double epsilon = 1e-8;
};

// What of a layer backward computes again instead of keeping it.
enum class Again { nothing, experts, feed_forward, layer };

struct StepSetup {
    ModelSpec model;
    LayerSetup moe;  // of every MoE layer
    int num_ranks = 1;
    int sequence_length = 0, num_sequences = 1;  // of a rank's micro-batch
    int num_micro_batches = 1;
    bool overlap_reductions = true;
    std::vector<Again> again;  // [layer]
    StepOptimizer optimizer;

    std::int64_t tokens() const { return std::int64_t{sequence_length} * num_sequences; }
    // On all ranks, of a step.
    std::int64_t all_tokens() const { return tokens() * num_ranks * num_micro_batches; }
};

inline constexpr double kNormEpsilon = 1e-6;

// What a step reads and how it routes.
struct StepRun {
    int num_steps = 0;    // timed as wholes
    std::string data;     // file whose bytes are tokens; empty: drawn tokens
    bool forced = false;  // experts as the scenario's routing draws them, not the routers' choice
    bool check = false;   // on GPUs: loss and gradients of a step against the CPU reference
    std::string losses;   // CSV of loss by step
    double learning_rate = 1e-3;
};

// InputError for settings of the chosen plans, as the scenario's file has them, that no run of a
// step executes.
void check_steps(const Scenario& whole, const std::vector<Plan>& chosen, const StepRun& run);
// `scenario` as scenario_to_run gives it for steps.
StepSetup step_setup(const Scenario& scenario, const Plan& plan, const StepRun& run);

}  // namespace headway::runtime
