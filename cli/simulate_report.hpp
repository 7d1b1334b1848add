// What `headway simulate` prints about its runs: tables, JSON, Timeline CSV.
#pragma once

#include <string>
#include <vector>

#include "models/vocab/scenario.hpp"
#include "sim/simulate.hpp"

namespace headway::cli {

struct PlanRun {
    std::string name, layer_split;
    sim::SimulationResult result;
    Seconds predicted;
    bool whole_step = true;
    double epsilon = 0.0;
    int num_micro_batches = 1, num_draws = 1;
    int pipeline_ranks = 1;
    int num_link_bins = 0;
    double cpu_s = 0.0;
};

// format: table, json or csv.
std::string simulation_report(const Scenario& scenario, const std::vector<PlanRun>& runs,
                              const std::string& format);

}  // namespace headway::cli
