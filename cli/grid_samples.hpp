// Grids of layers that headway-run executed: fitted by calibrate, judged by verify.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "models/fit/fit_profile.hpp"
#include "models/vocab/scenario.hpp"
#include "runtime/layers/layer_grid.hpp"

namespace headway::cli {

// Adds what the executions tell about phases and exchanges.
void add_layers(const Scenario& base, const std::vector<runtime::GridSample>& samples,
                CalibrationSamples& result);

// One layer of the grid, predicted and measured (the median of its executions).
struct JudgedPhase {
    Pass pass = Pass::forward;
    Phase phase = Phase::route;
    double predicted = 0.0, low = 0.0, high = 0.0, measured = 0.0;  // s
};
struct JudgedLayer {
    runtime::GridPoint point;
    int num_ranks = 1;
    std::vector<JudgedPhase> phases;
    double predicted = 0.0, measured = 0.0;  // s, of all phases
    double expected = 0.0;                   // s, predicted before the routing is drawn
    double predicted_bytes = 0.0, peak_bytes = 0.0;
};
std::vector<JudgedLayer> judge_grid(const Scenario& base, const Profile& profile,
                                    const std::vector<runtime::GridSample>& samples);

std::string judged_csv(const std::vector<JudgedLayer>& layers);
// Errors of phases, layers, memory, and of the speedup of HP over each EP layer of the same tokens,
// width, experts, k and f.
std::string judged_table(const std::vector<JudgedLayer>& layers);

}  // namespace headway::cli
