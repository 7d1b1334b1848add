// Starts the ranks of a run as processes of this machine and waits for all of them. When one fails,
// the others have a grace period to end by themselves; then they are killed. The ranks die with
// this process. Each rank, with all its threads, has cores of its own (cores.hpp).
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "runtime/process/launch_environment.hpp"

namespace headway::runtime {

struct RankEnd {
    int rank = 0;
    int exit_code = 0;
    int signal = 0;                  // that ended it; 0: it exited
    bool ended_by_launcher = false;  // killed after the grace period

    bool failed() const { return exit_code != 0 || signal != 0; }
};

struct LocalRun {
    std::string executable;                       // a path
    std::vector<std::string> arguments;           // without the program's name
    std::vector<Environment> added;               // to this process's environment, by rank
    int listen_fd = -1;                           // stays open in rank 0
    std::function<void(std::size_t rank)> enter;  // in the rank's process, before it executes
    std::chrono::milliseconds grace{6'000};
};

struct LocalRunEnd {
    std::vector<RankEnd> ranks;  // in the order of their ends
    int interrupted_by = 0;      // SIGINT or SIGTERM, passed on to the ranks
};

LocalRunEnd run_local_ranks(const LocalRun& run);

// 0, or the code of the first rank that failed; kRankFailureExit where a signal ended it.
int exit_code_of(const LocalRunEnd& end);
// One line for every rank that a signal ended and that could not say so itself.
std::string describe(const LocalRunEnd& end);

}  // namespace headway::runtime
