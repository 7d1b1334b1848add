// A grid of MoE layers to be run, and what the runs gave, both as CSV: one line a layer, one line a
// phase of a rank. Calibration fits one grid's samples; held-out grids judge the fit.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "models/vocab/phase.hpp"
#include "models/vocab/scenario.hpp"
#include "models/vocab/timeline.hpp"

namespace headway::runtime {

// In files, `kind` is hp, ep, ep_rank or ep_node: node-dedup on two nodes of half the ranks each.
struct GridPoint {
    LayerKind kind = LayerKind::hp;
    int tokens = 0;                 // per rank
    int hidden = 0;                 // d
    int heads = 1, head_width = 0;  // HP only
    int experts = 0, top_k = 0, expert_width = 0;
    double zipf = 0.0;  // exponent of the skew; 0: none
    int nodes = 1;      // of ep_rank; several: node-dedup

    friend bool operator==(const GridPoint&, const GridPoint&) = default;
};

std::string_view kind_name(const GridPoint& point);
std::vector<GridPoint> read_grid(const std::filesystem::path& file);

// `base` with the model, batch, routing and the one plan of `point`, on a group of `num_ranks`. All
// ranks are on one machine: between the nodes of a point lies what lies inside them.
Scenario scenario_of(const Scenario& base, const GridPoint& point, int num_ranks);

// The median, p10 and p90 of one phase on one rank.
struct GridSample {
    GridPoint point;
    int num_ranks = 1, rank = 0;
    Pass pass = Pass::forward;
    Phase phase = Phase::route;
    double median_us = 0.0, p10_us = 0.0, p90_us = 0.0;
    std::int64_t bytes = 0;       // sent off-rank
    std::int64_t peak_bytes = 0;  // of the rank's memory, by the whole layer
    int clock_mhz = 0;
    std::string throttle;
};

std::string grid_samples_header();
std::string to_csv_line(const GridSample& sample);
std::vector<GridSample> read_grid_samples(const std::filesystem::path& file);
// After a run that was cut off: removes a last execution that is not whole from the file, so that
// a run that appends goes on from whole ones.
void drop_unfinished(const std::filesystem::path& file);

// The samples of one layer as a measured Timeline, in the order of the file. `samples` are of one
// point and one execution.
Timeline timeline_of(const std::vector<GridSample>& samples, const Scenario& scenario);
// [point] executions that the samples have of it, on all their ranks.
std::vector<int> num_executions(const std::vector<GridPoint>& points,
                                const std::vector<GridSample>& samples);
// Consecutive samples of one execution.
std::vector<std::vector<GridSample>> by_execution(const std::vector<GridSample>& samples);

}  // namespace headway::runtime
