// Hub: the side channel's server, a thread of rank 0. It lets the ranks in when all have come with
// equal facts, passes their contributions on, and watches them: a rank whose connection ends
// without a goodbye, that gives no sign of life, or makes no progress is named to all others.
#pragma once

#include <atomic>
#include <chrono>
#include <thread>

#include "runtime/process/connection.hpp"

namespace headway::runtime {

struct ChannelOptions {
    std::chrono::milliseconds rendezvous{60'000};  // for all ranks to arrive
    std::chrono::milliseconds beat{100};           // period of the signs of life
    std::chrono::milliseconds silence{5'000};      // without one a rank counts as stopped
    std::chrono::milliseconds deadline{60'000};    // longest time in one phase without progress
    std::chrono::milliseconds settle{1'000};       // for the cause of a symptom to show itself
    std::chrono::milliseconds grace{4'000};        // for the ranks to end after a failure
};

class Hub {
  public:
    Hub(Descriptor listener, int num_ranks, ChannelOptions options);
    // Stays until every rank has said goodbye; after a failure, at most for the grace period.
    ~Hub();
    Hub(const Hub&) = delete;
    Hub& operator=(const Hub&) = delete;

  private:
    std::atomic<bool> leaving_{false};
    std::thread thread_;
};

}  // namespace headway::runtime
