// One CPU rank of a run over a network, from its launch environment to its exit code: rendezvous,
// Gloo. Programs that are built without Gloo refuse such runs.
#pragma once

#include <functional>
#include <string>

#include "runtime/communicator.hpp"
#include "runtime/process/process_rank.hpp"

namespace headway::runtime {

struct NetworkRank {
    std::string program;  // begins its messages
    RankIdentity identity;
    Environment environment;
    Facts facts;  // to which the version is added
    ChannelOptions channel;
};

// Exit code, as of run_rank_to_its_end. `body` is told of a failure of the run by what it calls.
int run_network_rank(const NetworkRank& rank,
                     const std::function<void(SideChannel&, Communicator&)>& body);

}  // namespace headway::runtime
