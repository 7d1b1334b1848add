#include "runtime/lab/lab_script.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace headway::runtime {
namespace {

// As large Ethernet frames as clusters use: headers are 1 % of the bytes.
constexpr int kMtu = 9000;

// Every kernel has it, it fills a queue that never drops, and is ended by no rise of the delay.
// BBR, which keeps queues short, leaves a fifth of links idle that many flows load both ways.
constexpr const char* kCongestionControl = "reno";

// A bucket as small as the kernel can still fill in time, so that an exchange gets no free start,
// and a queue that never drops: what is sent too early waits, as behind a switch with flow control.
std::string bucket(const std::string& interface, Bandwidth rate) {
    const double bytes_per_s = rate.in(byte / second);
    const auto burst = static_cast<long>(std::max(2.0 * kMtu, bytes_per_s * 1e-3));
    constexpr long kQueue = 64L << 20;
    return fmt::format("qdisc add dev {} root tbf rate {:.0f}bit burst {} limit {}\n", interface,
                       8.0 * bytes_per_s, burst, kQueue);
}

std::string port(const std::string& interface, const std::string& bridge, bool dead) {
    return fmt::format("link set {} master {}\nlink set {} {}\n", interface, bridge, interface,
                       dead ? "down" : "up");
}

}  // namespace

LabScript fabric_script(const LabPlan& plan, const std::vector<int>& holders) {
    LabScript script;
    script.ip = "link set lo up\n";
    for (const std::string& bridge : plan.bridges) {
        script.ip += fmt::format(
            "link add {0} mtu {1} type bridge mcast_snooping 0\nlink set {0} up\n", bridge, kMtu);
    }
    for (const LabCable& cable : plan.cables) {
        const bool at_host = cable.host >= 0;
        script.ip += fmt::format(
            "link add {} mtu {} type veth peer name {} mtu {}{}\n", cable.upper, kMtu, cable.lower,
            kMtu,
            at_host ? fmt::format(" netns {}", holders[static_cast<std::size_t>(cable.host)]) : "");
        script.ip += port(cable.upper, cable.bridge, cable.dead);
        if (!at_host) script.ip += port(cable.lower, cable.lower_bridge, cable.dead);
        if (cable.up_link.empty() || cable.dead) continue;
        script.tc += bucket(cable.upper, cable.down);
        if (!at_host) script.tc += bucket(cable.lower, cable.up);
    }
    return script;
}

LabScript host_script(const LabPlan& plan, int host) {
    LabScript script;
    const std::string own = payload_address(host);
    script.ip =
        fmt::format("link set lo up\naddr add {}/32 dev {}\n", own, payload_interface(plan, host));
    for (const LabCable& cable : plan.cables) {
        if (cable.host != host) continue;
        script.ip += fmt::format("link set {} up\n", cable.lower);
        if (cable.lower == "mgmt")
            script.ip += fmt::format("addr add {}/16 dev mgmt\n", management_address(host));
        if (!cable.up_link.empty() && !cable.dead) script.tc += bucket(cable.lower, cable.up);
    }
    std::string direct, relayed;
    for (const LabRoute& route : plan.hosts[static_cast<std::size_t>(host)].routes) {
        const std::string peer = payload_address(route.peer);
        std::string& lines = route.via < 0 ? direct : relayed;
        lines +=
            route.via < 0
                ? fmt::format("route add {}/32 dev {} src {} congctl {}\n", peer, route.interface,
                              own, kCongestionControl)
                : fmt::format("route add {}/32 via {} dev {} onlink src {} congctl {}\n", peer,
                              payload_address(route.via), route.interface, own, kCongestionControl);
    }
    script.ip += direct + relayed;
    return script;
}

}  // namespace headway::runtime
