// LayerSetup: one MoE layer of a plan, ready to be run on the reference backend: shapes of the
// layer, and the routing that the scenario's seed gives it.
#pragma once

#include <vector>

#include "models/vocab/scenario.hpp"
#include "models/workload/routing.hpp"
#include "runtime/reference/weights.hpp"

namespace headway::runtime {

struct LayerSetup {
    bool head_parallel = false;
    int num_ranks = 1;
    int num_routers = 1;  // H for HP
    ModelDims dims;
    EpShape ep;  // one of the two is used
    HpShape hp;
    RouterShape router;
};

// InputError for ranks that do not fit the layer, or its nodes.
LayerSetup layer_setup(const Scenario& scenario, const Plan& plan);

// What of a scenario is run: its MoE layers alone, or whole steps.
enum class RunKind { layers, steps };

// The scenario cut down to what one group of `num_ranks` ranks runs: one node, the plan with that
// group size, micro-batches of `tokens` tokens a rank, no overlap; of layers one micro-batch and no
// recompute. What `headway-run` measures, and what a prediction must be made for to be compared
// with it. 0 keeps the scenario's own number, and its nodes; so does the size that all plans have.
Scenario scenario_to_run(const Scenario& scenario, int num_ranks, std::int64_t tokens,
                         RunKind kind = RunKind::layers);

// Settings of the plan that no runtime executes, as "key: value".
std::vector<std::string> settings_not_executed(const Plan& plan);
// What of a scenario scenario_to_run takes back for a run of the MoE layers alone, one micro-batch:
// a sentence for each plan that has some.
std::vector<std::string> not_executed(const Scenario& scenario);

// Chosen experts of every router and source rank in `layer`. [router][source] of [tokens, k]
std::vector<std::vector<Assignment>> layer_routing(const Scenario& scenario,
                                                   const LayerSetup& setup, int layer);

}  // namespace headway::runtime
