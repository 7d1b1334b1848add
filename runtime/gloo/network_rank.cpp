#include "runtime/gloo/network_rank.hpp"

#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "models/report/version.hpp"
#include "models/vocab/error.hpp"
#include "runtime/gloo/gloo_communicator.hpp"
#include "runtime/host.hpp"
#include "runtime/process/connection.hpp"
#include "runtime/process/cores.hpp"

namespace headway::runtime {
namespace {

// PyTorch's variable names the interface; else the one that leads to rank 0.
GlooAddress address_of(const NetworkRank& rank, SideChannel& channel) {
    const auto named = rank.environment.find("GLOO_SOCKET_IFNAME");
    GlooAddress address;
    if (named != rank.environment.end() && !named->second.empty()) {
        address.interface = named->second;
    } else {
        address.host = own_address_towards(rank.identity.host);
    }
    const std::vector<std::string> hosts = channel.all_gather("addresses", address.host);
    const auto is_local = [](const std::string& host) { return host.rfind("127.", 0) == 0; };
    if (std::any_of(hosts.begin(), hosts.end(), is_local) &&
        !std::all_of(hosts.begin(), hosts.end(), is_local)) {
        channel.refuse(InputProblem{.where = "network of the ranks",
                                    .found = "rank 0's name stands for its own loopback there",
                                    .hint = "GLOO_SOCKET_IFNAME=eth0 (the interface's name) on all "
                                            "ranks"}
                           .to_string());
    }
    return address;
}

}  // namespace

int run_network_rank(const NetworkRank& rank,
                     const std::function<void(SideChannel&, Communicator&)>& body) {
    Facts facts = rank.facts;
    facts.emplace_back("headway", std::string(version()));
    return run_rank_to_its_end(
        rank.program, rank.identity, facts, rank.channel, [&](SideChannel& channel) {
            take_cores(channel, host_name());
            const auto communicator = make_gloo_communicator(channel, address_of(rank, channel));
            body(channel, *communicator);
            channel.barrier();  // nobody closes a connection that another one still uses
        });
}

}  // namespace headway::runtime
