// A Recording on a cluster: its groups re-laid, its collectives priced, its expert blocks scaled
// with the rows that a routing brings.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "models/cost/price.hpp"
#include "models/cost/streams.hpp"
#include "models/recorded/recording.hpp"
#include "models/recorded/replay.hpp"
#include "models/vocab/cluster.hpp"
#include "models/vocab/profile.hpp"
#include "models/vocab/program.hpp"
#include "models/vocab/scenario.hpp"

namespace headway::inline recorded {

struct LaidOut {
    Recording recording;             // with its groups as they are on the cluster
    std::vector<ReplayTask> replay;  // [task]
    std::vector<TimedTask> timed;    // [task] priced: the busiest rank
    std::vector<Price> prices;       // [task] of collectives
    std::vector<Bytes> sent;         // [task] by the busiest rank
    Program program;                 // the same for the simulator: every rank, links unpriced
    double sigma = 0.0;              // seconds of a step, from the residuals of curves
    std::vector<Seconds> compute_of_rank;
    std::vector<std::string> warnings;
};

// InputError where the recording does not say what the cluster needs: other ranks than it has, on
// axes that hold different work.
LaidOut lay_out(const Recording& recording, const Cluster& cluster, const Profile& profile,
                const std::optional<Routing>& routing);

}  // namespace headway::inline recorded
