// LabPlan: a cluster as hosts, bridges and cables with a token bucket at either end, as network
// namespaces can have them. Pure: nothing is made here. Every host has three kinds of interfaces:
//   nic          to its leaf's bridge; where GPUs share a NIC, to a bridge of that NIC
//   nvl, pcie    to a bridge of its NVLink domain, or of its node
//   mgmt         to a bridge without buckets: rendezvous and signs of life, as clusters have it
// The bridges lie in a namespace of their own, joined by trunks to one bridge, the spine.
#pragma once

#include <string>
#include <vector>

#include "models/vocab/cluster.hpp"
#include "models/vocab/links.hpp"

namespace headway::runtime {

enum class HostKind { gpus, nodes };  // what one namespace stands for

struct LabOptions {
    double scale = 1.0;  // of every bandwidth
    HostKind hosts = HostKind::gpus;
};

// "1/40" or "0.025", above 0 and at most 1; else InputError.
double parse_scale(const std::string& text);

// Every bandwidth times `scale`; what a run in the lab is predicted with.
Cluster scaled(Cluster cluster, double scale);

struct LabCable {
    int host = -1;             // at the lower end; -1: the lower end is a port of a bridge too
    std::string lower;         // the interface there
    std::string lower_bridge;  // empty at a host
    std::string upper;         // a port of `bridge`
    std::string bridge;
    // What it stands for, by the names of link_overrides; empty: nothing, it has no bucket.
    std::string up_link, down_link;
    Bandwidth up, down;  // leaving at the lower end, at the upper end
    bool dead = false;   // one of the two is: the port is down
};

struct LabRoute {
    int peer = 0;  // the host that it leads to
    std::string interface;
    int via = -1;  // over this host; -1: directly
};

struct LabHost {
    std::string name;  // "gpu3", "node1"
    std::vector<int> ranks;
    double speed = 1.0;  // part of the time that its ranks may run
    std::vector<LabRoute> routes;
};

struct LabPlan {
    std::vector<LabHost> hosts;
    std::vector<std::string> bridges;
    std::vector<LabCable> cables;
    std::vector<std::string> not_emulated;  // a sentence each
};

// InputError for what cannot be laid out.
LabPlan plan_lab(const Cluster& cluster, const LabOptions& options);

std::string payload_address(int host);     // 10.20.x.y, on payload_interface()
std::string management_address(int host);  // 10.21.x.y, on mgmt

std::string payload_interface(const LabPlan& plan, int host);  // nic, else nvl, pcie, or lo

// The map from the links of the cluster to interfaces and their rates, and what is not emulated.
std::string describe(const LabPlan& plan);

}  // namespace headway::runtime
