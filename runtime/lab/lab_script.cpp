#include "runtime/lab/lab_script.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace headway::runtime {
namespace {

// As large Ethernet frames as clusters use: headers are 1 % of the bytes.
constexpr int kMtu = 9000;

// Every kernel has it, it fills a queue that never drops, and is ended by no rise of the delay.
// BBR, which keeps queues short, leaves a fifth of links idle that many flows load both ways.
constexpr const char* kCongestionControl = "reno";

struct Flow {
    int source = 0, destination = 0;  // hosts
};

// A bucket as small as the kernel can still fill in time, so that an exchange gets no free start,
// with queues that never drop: what is sent too early waits, as behind a switch with flow control.
// Where messages are sent (`flows`) they take turns frame by frame, as those of a NIC's queue pairs
// do: one after the other they would all come to one host at a time. Everywhere else, as in a
// switch, what comes first leaves first. Acknowledgements (nothing but that flag, below 64 bytes)
// wait for nothing; data that overtook data would be sent again.
std::string bucket(const std::string& interface, Bandwidth rate, const std::vector<Flow>& flows) {
    constexpr long kQueue = 64L << 20;
    constexpr std::size_t kAcknowledgements = 2, kData = 3;
    const double bits = 8.0 * rate.in(byte / second);
    const auto burst = static_cast<long>(std::max(2.0 * kMtu, bits / 8.0 * 1e-3));
    const auto class_of = [&](std::size_t minor, int prio, double share, long own_burst) {
        return fmt::format(
            "class add dev {0} parent 1:1 classid 1:{1:x} htb prio {2} rate {3:.0f}bit ceil "
            "{4:.0f}bit burst {5} cburst {5} quantum {6}\nqdisc add dev {0} parent 1:{1:x} bfifo "
            "limit {7}\n",
            interface, minor, prio, share * bits, bits, own_burst, kMtu, kQueue);
    };
    std::string text = fmt::format(
        "qdisc add dev {0} root handle 1: htb default {4:x}\n"
        "class add dev {0} parent 1: classid 1:1 htb rate {1:.0f}bit ceil {1:.0f}bit burst {2} "
        "cburst {2} quantum {3}\n",
        interface, bits, burst, kMtu, kData);
    text += class_of(kAcknowledgements, 0, 0.1, burst) + class_of(kData, 1, 0.1, burst);
    text += fmt::format(
        "filter add dev {} parent 1: protocol ip prio 1 u32 match u16 0 0xffc0 at 2 match u8 0x10 "
        "0xff at 33 flowid 1:{:x}\n",
        interface, kAcknowledgements);
    for (std::size_t i = 0; i < flows.size(); ++i) {
        const std::size_t minor = kData + 1 + i;
        text += class_of(minor, 1, 0.8 / static_cast<double>(flows.size()), kMtu);
        text += fmt::format(
            "filter add dev {} parent 1: protocol ip prio 2 u32 match ip src {}/32 match ip dst "
            "{}/32 flowid 1:{:x}\n",
            interface, payload_address(flows[i].source), payload_address(flows[i].destination),
            minor);
    }
    return text;
}

// Those whose first bucket is this one: what its host sends by it, or the hosts behind it.
std::vector<Flow> flows_through(const LabPlan& plan, const LabCable& cable) {
    std::vector<Flow> flows;
    for (const LabCable& feeder : plan.cables) {
        const bool own = &feeder == &cable && cable.host >= 0;
        const bool behind = cable.host < 0 && feeder.host >= 0 && feeder.up_link.empty() &&
                            feeder.bridge == cable.lower_bridge;
        if (!own && !behind) continue;
        for (const LabRoute& route : plan.hosts[static_cast<std::size_t>(feeder.host)].routes) {
            if (route.interface == feeder.lower) flows.push_back({feeder.host, route.peer});
        }
    }
    return flows;
}

std::string port(const std::string& interface, const std::string& bridge, bool dead) {
    return fmt::format("link set {} master {}\nlink set {} {}\n", interface, bridge, interface,
                       dead ? "down" : "up");
}

// Locally administered, by what the interface is called on every host, and the host.
std::string hardware_address(const std::string& interface, int host) {
    int letters = 0;
    for (const char c : interface) letters = (31 * letters + c) & 0xffff;
    return fmt::format("02:00:{:02x}:{:02x}:{:02x}:{:02x}", letters >> 8, letters & 0xff, host >> 8,
                       host & 0xff);
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
            at_host ? fmt::format(" address {} netns {}", hardware_address(cable.lower, cable.host),
                                  holders[static_cast<std::size_t>(cable.host)])
                    : "");
        script.ip += port(cable.upper, cable.bridge, cable.dead);
        if (!at_host) script.ip += port(cable.lower, cable.lower_bridge, cable.dead);
        if (cable.up_link.empty() || cable.dead) continue;
        script.tc += bucket(cable.upper, cable.down, {});
        if (!at_host) script.tc += bucket(cable.lower, cable.up, flows_through(plan, cable));
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
        script.ip +=
            fmt::format("link set {0} gso_max_size {1}\nlink set {0} up\n", cable.lower, 2 * kMtu);
        if (cable.lower == "mgmt")
            script.ip += fmt::format("addr add {}/16 dev mgmt\n", management_address(host));
        if (!cable.up_link.empty() && !cable.dead)
            script.tc += bucket(cable.lower, cable.up, flows_through(plan, cable));
    }
    // Nothing is lost in queues, however long a message waits there: none is sent again.
    const std::string transport = fmt::format(
        "src {} congctl {} initcwnd 100 initrwnd 100 rto_min 60s\n", own, kCongestionControl);
    std::string direct, relayed;
    for (const LabRoute& route : plan.hosts[static_cast<std::size_t>(host)].routes) {
        const std::string peer = payload_address(route.peer);
        // Who is where is known: asked for, the neighbours of more than some thirty hosts would
        // not fit into the one table that the kernel has for all namespaces.
        if (route.via < 0) {
            direct += fmt::format(
                "neigh add {0} lladdr {1} dev {2} nud permanent\n"
                "route add {0}/32 dev {2} {3}",
                peer, hardware_address(route.interface, route.peer), route.interface, transport);
        } else {
            relayed += fmt::format("route add {}/32 via {} dev {} onlink {}", peer,
                                   payload_address(route.via), route.interface, transport);
        }
    }
    script.ip += direct + relayed;
    return script;
}

}  // namespace headway::runtime
