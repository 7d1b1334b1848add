// GlooCommunicator: CPU ranks as processes that exchange over TCP, by Gloo (what PyTorch uses
// between CPUs). The side channel brings them together, and ends the run on all of them when one
// fails.
#pragma once

#include <memory>
#include <string>

#include "runtime/communicator.hpp"
#include "runtime/process/side_channel.hpp"

namespace headway::runtime {

// How a rank is reached by the others.
struct GlooAddress {
    std::string interface;  // by the name of a network interface, or
    std::string host;       // by this name or number of its machine
};

// The communicator of all ranks of the channel. Collective. The channel must outlive it.
std::unique_ptr<Communicator> make_gloo_communicator(SideChannel& channel,
                                                     const GlooAddress& address);

}  // namespace headway::runtime
