// Ranks as threads of this process: the communicator of the CPU reference runtime. A watchdog ends
// the run on all ranks when one throws, or shows no progress for `deadline` while it is not waiting
// for others (a stall), or when all that are left wait for each other in vain.
#pragma once

#include <chrono>
#include <functional>
#include <vector>

#include "runtime/communicator.hpp"

namespace headway::runtime {

struct ThreadRunOptions {
    std::chrono::milliseconds deadline{60'000};  // longest time in one phase without a collective
    std::chrono::milliseconds grace{2'000};      // for the other ranks to end after a failure
};

// Runs `body` on `num_ranks` threads and returns every rank's ledger. Throws RankFailure; the first
// failure is the one reported. NOTE: a rank that does not end within the grace period is left
// behind, still running: `body` must own (by shared_ptr or by value) all it touches. A copy of it
// lives as long as its last rank.
std::vector<TrafficLedger> run_on_threads(int num_ranks, std::function<void(Communicator&)> body,
                                          ThreadRunOptions options = {});

}  // namespace headway::runtime
