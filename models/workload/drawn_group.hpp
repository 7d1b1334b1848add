// One draw of a MoE layer in one group, rank by rank, for the simulator and for exporting matrices:
// who sends how many copies to whom, and how many rows each rank's experts get. Small draws are
// counted token by token. Large ones are drawn from the normal approximation of the same counts
// (mean and variance of load.cpp), which conserves tokens times k exactly for the naive dispatch;
// tests compare the two. Without noise the counts are the expectation, rounded.
#pragma once

#include <cstdint>
#include <vector>

#include "models/vocab/scenario.hpp"
#include "models/vocab/traffic_matrix.hpp"
#include "models/workload/traffic.hpp"

namespace headway::inline workload {

enum class Drawing {
    automatic,
    by_token,
    by_count
};  // automatic: by token up to 2^20 choices in the group

struct DrawnGroup {
    TrafficMatrix copies;  // none, rank: copies by destination
    NodeCopies staged;     // node: the two stages; `copies` is empty
    bool forwarded = false;
    std::vector<std::int64_t> rows;  // expert rows by rank
};

// `group` is the number of the group in the world; groups draw independently, those of one head (or
// of EP) from the same popularity. Drawn by token, it is the routing that a run of the plan draws.
DrawnGroup draw_group(const Scenario& scenario, const Plan& plan, int layer, int group,
                      int sample = 0, Drawing drawing = Drawing::automatic);

// Draws of every group of ranks [first, first + count); none where no rows of the layer travel.
std::vector<DrawnGroup> draw_groups(const Scenario& scenario, const Plan& plan, int layer,
                                    int first, int count, int sample = 0);

}  // namespace headway::inline workload
