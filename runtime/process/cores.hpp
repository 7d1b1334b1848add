// Which cores a rank runs on. Each rank that exchanges over sockets keeps a thread busy, and two
// such threads on one core halve the speed of both. So ranks that share cores split them evenly;
// cores that a launcher bound to one rank are left alone.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/process/side_channel.hpp"

namespace headway::runtime {

// Where a rank is, and where its launcher lets it run.
struct RankCores {
    std::string host;
    std::vector<int> allowed;

    friend bool operator==(const RankCores&, const RankCores&) = default;
};

std::vector<int> allowed_cores();  // of this process

// This process with all the threads that it has; those that they start follow. Nothing for no
// cores. A machine that refuses runs them anywhere: slower perhaps, not wrong.
void stay_on(const std::vector<int>& cores);

// An equal share of consecutive cores; none (run anywhere) where there are fewer cores than ranks.
std::vector<int> cores_of_rank(const std::vector<int>& allowed, int rank, int num_ranks);

// What of all[rank].allowed is rank `rank`'s: a share as large as those of the others with the same
// cores on the same host; all of it where there are none.
std::vector<int> own_cores(std::span<const RankCores> all, int rank);

// "0-3,8"
std::string cores_text(std::span<const int> cores);

// Collective: this rank stays on its own_cores().
void take_cores(SideChannel& channel, const std::string& host);

}  // namespace headway::runtime
