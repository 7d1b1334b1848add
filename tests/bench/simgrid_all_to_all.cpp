// The all-to-all cases of tests/sim/table_cases.hpp under SimGrid 3.32 (flow model CM02, all
// factors 1, latency 0), for scripts/bench_simgrid. Not part of the build.
//   usage: simgrid_all_to_all star|leafspine bal|zipf|rand RANKS    prints: completion_s cpu_s rss
#include <sys/resource.h>

#include <cstdio>
#include <simgrid/s4u.hpp>
#include <string>
#include <vector>

#include "tests/sim/table_cases.hpp"

namespace sg4 = simgrid::s4u;

namespace {

constexpr double kNic = 50e9, kTrunk = 200e9;
constexpr int kHostsPerLeaf = 8;

using Hosts = std::vector<sg4::Host*>;

void add_host(sg4::NetZone* zone, int i, Hosts& hosts) {
    const std::string name = std::to_string(i);
    sg4::Host* host = zone->create_host("host" + name, 1e9);
    const auto* link = zone->create_split_duplex_link("nic" + name, kNic)->set_latency(0)->seal();
    zone->add_route(host->get_netpoint(), nullptr, nullptr, nullptr,
                    {{link, sg4::LinkInRoute::Direction::UP}}, true);
    hosts.push_back(host);
}

Hosts build(const std::string& topology, int ranks) {
    Hosts hosts;
    auto* root = sg4::create_star_zone("root");
    if (topology == "star") {
        for (int i = 0; i < ranks; ++i) add_host(root, i, hosts);
    } else {
        for (int first = 0; first < ranks; first += kHostsPerLeaf) {
            const std::string name = std::to_string(first / kHostsPerLeaf);
            auto* leaf = sg4::create_star_zone("leaf" + name);
            leaf->set_parent(root);
            auto* router = leaf->create_router("router" + name);
            for (int i = first; i < first + kHostsPerLeaf; ++i) add_host(leaf, i, hosts);
            leaf->seal();
            const auto* trunk =
                root->create_split_duplex_link("trunk" + name, kTrunk)->set_latency(0)->seal();
            root->add_route(leaf->get_netpoint(), nullptr, router, nullptr,
                            {{trunk, sg4::LinkInRoute::Direction::UP}}, true);
        }
    }
    root->seal();
    return hosts;
}

void rank_main(int rank, const headway::TrafficMatrix* matrix) {
    static int token = 0;  // what the messages carry; nobody reads it
    const int n = matrix->num_ranks;
    std::vector<void*> received(static_cast<std::size_t>(n), nullptr);
    std::vector<sg4::CommPtr> comms;
    auto* own = sg4::Mailbox::by_name(std::to_string(rank));
    for (int k = 1; k < n; ++k) {
        comms.push_back(own->get_async<void>(&received[static_cast<std::size_t>(k)]));
    }
    for (int k = 1; k < n; ++k) {
        const int to = (rank + k) % n;
        comms.push_back(sg4::Mailbox::by_name(std::to_string(to))
                            ->put_async(&token, static_cast<std::uint64_t>(matrix->at(rank, to))));
    }
    sg4::Comm::wait_all(comms);
}

}  // namespace

int main(int argc, char** argv) {
    sg4::Engine engine(&argc, argv);
    for (const char* setting :
         {"network/model:CM02", "network/bandwidth-factor:1", "network/latency-factor:1",
          "network/TCP-gamma:0", "network/weight-S:0", "network/crosstraffic:0"}) {
        sg4::Engine::set_config(setting);
    }
    const std::string topology = argv[1];
    const int ranks = std::stoi(argv[3]);
    const headway::TrafficMatrix matrix = headway::sim::cases::matrix(argv[2], ranks);
    const Hosts hosts = build(topology, ranks);
    for (int r = 0; r < ranks; ++r) {
        sg4::Actor::create("rank", hosts[static_cast<std::size_t>(r)], rank_main, r, &matrix);
    }
    engine.run();
    rusage u{};
    getrusage(RUSAGE_SELF, &u);
    const auto seconds = [](const timeval& t) {
        return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
    };
    std::printf("%.9f %.3f %ld\n", sg4::Engine::get_clock(),
                seconds(u.ru_utime) + seconds(u.ru_stime), u.ru_maxrss * 1024);
    return 0;
}
