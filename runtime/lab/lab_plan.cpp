#include "runtime/lab/lab_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "models/text/text_table.hpp"
#include "models/vocab/error.hpp"

namespace headway::runtime {
namespace {

constexpr int kMostHosts = 250;

class Planner {
  public:
    Planner(const Cluster& cluster, const LabOptions& options)
        : cluster_(scaled(cluster, options.scale)), by_nodes_(options.hosts == HostKind::nodes) {}

    LabPlan plan() {
        check();
        add_hosts();
        for (int h = 0; h < num_hosts(); ++h) {
            add_cable(
                {.host = h, .lower = "mgmt", .upper = fmt::format("m{}", h), .bridge = "mgmt"});
        }
        if (!by_nodes_) add_island_cables();
        if (cluster_.fabric) add_fabric();
        for (int h = 0; h < num_hosts(); ++h) add_routes(h);
        add_sentences();
        return std::move(plan_);
    }

  private:
    int num_hosts() const { return static_cast<int>(plan_.hosts.size()); }
    int rank_of(int host) const { return by_nodes_ ? host * cluster_.gpus_per_node : host; }

    void check() const {
        const auto refuse = [&](std::string found, std::string accepted, std::string hint = "") {
            throw InputError(InputProblem{.where = "cluster " + cluster_.name,
                                          .found = std::move(found),
                                          .accepted = std::move(accepted),
                                          .hint = std::move(hint)});
        };
        const int hosts = by_nodes_ ? cluster_.num_nodes : cluster_.num_ranks();
        if (hosts > kMostHosts)
            refuse(fmt::format("{} hosts", hosts), fmt::format("at most {}", kMostHosts),
                   by_nodes_ ? "" : "--hosts nodes makes a node one host");
        if (by_nodes_ && num_links(cluster_, LinkKind::nic_up) != cluster_.num_nodes)
            refuse(
                fmt::format("{} NICs a node", cluster_.fabric ? cluster_.fabric->nics_per_node : 0),
                "one NIC a node with --hosts nodes", "--hosts gpus gives every GPU its NIC");
        const int last = cluster_.num_ranks() - 1;
        if (!cluster_.fabric && cluster_.num_nodes > 1 &&
            path_class(cluster_, 0, last) != PathClass::nvlink)
            refuse(fmt::format("{} nodes and no fabric", cluster_.num_nodes),
                   "a fabric, or one NVLink domain over all ranks");
        if (cluster_.fabric && cluster_.fabric->core)
            refuse("fabric.core", "leaves and one spine: the lab has no third tier");
        if (cluster_.fabric && cluster_.fabric->planes > 1)
            refuse(fmt::format("{} planes", cluster_.fabric->planes), "one plane");
        if (cluster_.has_pairwise_links())
            refuse("nvlink.pairwise", "a switch: the lab has no pairwise links");
        for (const LinkOverride& o : cluster_.link_overrides) {
            if (!links_named(cluster_, o.link).empty()) continue;
            refuse("no link '" + o.link + "'", all_link_names(cluster_),
                   link_hint(cluster_, o.link));
        }
    }

    void add_hosts() {
        const int per_host = by_nodes_ ? cluster_.gpus_per_node : 1;
        for (int first = 0; first < cluster_.num_ranks(); first += per_host) {
            LabHost host{.name = fmt::format("{}{}", by_nodes_ ? "node" : "gpu", first / per_host)};
            for (int r = first; r < first + per_host; ++r) host.ranks.push_back(r);
            for (const RankOverride& o : cluster_.rank_overrides) {
                const bool own = o.rank >= first && o.rank < first + per_host;
                if (own) host.speed = std::min(host.speed, o.compute_factor);
            }
            plan_.hosts.push_back(std::move(host));
        }
    }

    double factor(NamedLink link) const {
        double product = 1.0;
        for (const LinkOverride& o : cluster_.link_overrides) {
            const auto named = links_named(cluster_, o.link);
            if (std::find(named.begin(), named.end(), link) != named.end())
                product *= o.bandwidth_factor;
        }
        return product;
    }

    void add_bridge(const std::string& name) {
        auto& bridges = plan_.bridges;
        if (std::find(bridges.begin(), bridges.end(), name) == bridges.end())
            bridges.push_back(name);
    }

    void add_cable(LabCable cable) {
        add_bridge(cable.bridge);
        if (!cable.lower_bridge.empty()) add_bridge(cable.lower_bridge);
        plan_.cables.push_back(std::move(cable));
    }

    // As the named links; a leaf's hashed uplinks are one trunk of their sum.
    void add_cable(LabCable cable, LinkKind up, LinkKind down, int index, int each = 1) {
        const auto end = [&](LinkKind kind, std::string& name, Bandwidth& bandwidth) {
            name = fmt::format("{}:{}", headway::name(kind), index);
            for (int i = index * each; i < (index + 1) * each; ++i)
                bandwidth += factor({kind, i}) * full_bandwidth(cluster_, kind);
            cable.dead = cable.dead || bandwidth <= Bandwidth{};
        };
        end(up, cable.up_link, cable.up);
        end(down, cable.down_link, cable.down);
        add_cable(std::move(cable));
    }

    bool has_peer(int rank, PathClass path) const {
        const auto reach = reach_by_class(cluster_, rank)[static_cast<std::size_t>(path)];
        for (int peer = reach.begin; peer < reach.end; ++peer) {
            if (path_class(cluster_, rank, peer) == path) return true;
        }
        return false;
    }

    void add_island_cables() {
        for (int r = 0; r < num_hosts(); ++r) {
            if (cluster_.nvlink && has_peer(r, PathClass::nvlink)) {
                add_cable({.host = r,
                           .lower = "nvl",
                           .upper = fmt::format("nvl{}", r),
                           .bridge = fmt::format("nvlsw{}", r / cluster_.nvlink->domain)},
                          LinkKind::nvlink_up, LinkKind::nvlink_down, r);
            }
            if (cluster_.pcie && has_peer(r, PathClass::pcie)) {
                add_cable({.host = r,
                           .lower = "pcie",
                           .upper = fmt::format("pcie{}", r),
                           .bridge = fmt::format("pciesw{}", cluster_.node_of(r))},
                          LinkKind::pcie_up, LinkKind::pcie_down, r);
            }
        }
    }

    std::vector<int> hosts_of_nic(int nic) const {
        std::vector<int> hosts;
        for (int h = 0; h < num_hosts(); ++h) {
            if (nic_of(cluster_, rank_of(h)) == nic) hosts.push_back(h);
        }
        return hosts;
    }

    void add_fabric() {
        const int leaves =
            num_links(cluster_, LinkKind::leaf_up) / links_per_index(cluster_, LinkKind::leaf_up);
        for (int n = 0; n < num_links(cluster_, LinkKind::nic_up); ++n) {
            // Without leaves of their own all NICs hang on one.
            const int leaf = leaves > 0 ? leaf_of_nic(cluster_, n) : 0;
            LabCable cable{.upper = fmt::format("nic{}", n), .bridge = fmt::format("leaf{}", leaf)};
            const std::vector<int> hosts = hosts_of_nic(n);
            if (hosts.size() == 1) {
                cable.host = hosts.front();
                cable.lower = "nic";
            } else {
                cable.lower = fmt::format("card{}up", n);
                cable.lower_bridge = fmt::format("card{}", n);
                for (const int h : hosts)
                    add_cable({.host = h,
                               .lower = "nic",
                               .upper = fmt::format("card{}p{}", n, h),
                               .bridge = cable.lower_bridge});
            }
            add_cable(std::move(cable), LinkKind::nic_up, LinkKind::nic_down, n);
        }
        for (int l = 0; leaves > 1 && l < leaves; ++l) {
            add_cable({.lower = fmt::format("leaf{}up", l),
                       .lower_bridge = fmt::format("leaf{}", l),
                       .upper = fmt::format("spine{}", l),
                       .bridge = "spine"},
                      LinkKind::leaf_up, LinkKind::leaf_down, l,
                      links_per_index(cluster_, LinkKind::leaf_up));
        }
    }

    void add_routes(int host) {
        const int rank = rank_of(host);
        for (int peer = 0; peer < num_hosts(); ++peer) {
            if (peer == host) continue;
            const int to = rank_of(peer);
            LabRoute route{.peer = peer, .interface = "nic"};
            const PathClass path = path_class(cluster_, rank, to);
            if (path == PathClass::nvlink) route.interface = "nvl";
            if (path == PathClass::pcie) route.interface = "pcie";
            if (crosses_nic(path)) {
                const int relay = relay_of(cluster_, rank, to);
                if (relay != rank) route = {.peer = peer, .interface = "nvl", .via = relay};
            }
            plan_.hosts[static_cast<std::size_t>(host)].routes.push_back(std::move(route));
        }
    }

    void add_sentences() {
        auto& texts = plan_.not_emulated;
        texts.emplace_back("latency of links: the kernel's own stands in their place");
        texts.emplace_back("RDMA, NVLink's and PCIe's protocols: every path is TCP");
        if (by_nodes_ && cluster_.gpus_per_node > 1)
            texts.emplace_back("links inside a node: its ranks share a host and its loopback");
        if (cluster_.pcie && cluster_.pcie->gpus_per_switch > 0 && !by_nodes_)
            texts.emplace_back("uplinks of PCIe switches: a node's GPUs share one");
        if (cluster_.fabric && links_per_index(cluster_, LinkKind::leaf_up) > 1 &&
            num_links(cluster_, LinkKind::leaf_up) > 0)
            texts.emplace_back(
                "hashed uplinks (spraying: ecmp): a leaf's are one trunk of their sum");
        for (const LabCable& cable : plan_.cables) {
            if (cable.dead && cable.up != cable.down)
                texts.push_back(fmt::format("a link dead one way: {} and {} are both down",
                                            cable.up_link, cable.down_link));
        }
        texts.emplace_back("the devices' speed: ranks compute on this machine's cores");
    }

    Cluster cluster_;
    bool by_nodes_;
    LabPlan plan_;
};

std::string rate_text(Bandwidth rate) {
    return fmt::format("{:.4g} Mbit/s", rate.in(byte / second) * 8e-6);
}

std::string address(int net, int host) {
    return fmt::format("10.{}.{}.{}", net, host / 200, host % 200 + 1);
}

}  // namespace

double parse_scale(const std::string& text) {
    const std::string_view all = text;
    const std::size_t slash = all.find('/');
    const auto number = [&](std::string_view part) {
        double value = 0.0;
        const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
        return error == std::errc() && end == part.data() + part.size() ? value : 0.0;
    };
    const double scale = slash == std::string_view::npos
                             ? number(all)
                             : number(all.substr(0, slash)) / number(all.substr(slash + 1));
    if (scale > 0.0 && scale <= 1.0) return scale;
    throw InputError({.where = "--scale",
                      .found = "'" + text + "'",
                      .accepted = "a number above 0 and at most 1, e.g. 1/40 or 0.025"});
}

Cluster scaled(Cluster cluster, double scale) {
    if (cluster.nvlink) cluster.nvlink->bandwidth *= scale;
    if (cluster.pcie) {
        cluster.pcie->bandwidth *= scale;
        cluster.pcie->root_bandwidth *= scale;
    }
    if (cluster.fabric) cluster.fabric->nic *= scale;
    return cluster;
}

LabPlan plan_lab(const Cluster& cluster, const LabOptions& options) {
    return Planner(cluster, options).plan();
}

std::string payload_address(int host) {
    return address(20, host);
}

std::string management_address(int host) {
    return address(21, host);
}

std::string payload_interface(const LabPlan& plan, int host) {
    for (const char* name : {"nic", "nvl", "pcie"}) {
        for (const LabCable& cable : plan.cables) {
            if (cable.host == host && cable.lower == name) return name;
        }
    }
    return "lo";
}

std::string describe(const LabPlan& plan) {
    TextTable table{.head = {"link", "leaves by", "rate"}, .rows = {}};
    for (const LabCable& cable : plan.cables) {
        if (cable.up_link.empty()) continue;
        const std::string lower =
            cable.host >= 0
                ? plan.hosts[static_cast<std::size_t>(cable.host)].name + "/" + cable.lower
                : cable.lower_bridge + "/" + cable.lower;
        const auto rate = [&](Bandwidth b) { return cable.dead ? "dead" : rate_text(b); };
        table.rows.push_back({cable.up_link, lower, rate(cable.up)});
        table.rows.push_back({cable.down_link, cable.bridge + "/" + cable.upper, rate(cable.down)});
    }
    std::string text = table.to_string();
    for (const LabHost& host : plan.hosts) {
        if (host.speed < 1.0)
            text += fmt::format("{}: its ranks run {:.0f} % of the time\n", host.name,
                                100.0 * host.speed);
    }
    for (const std::string& sentence : plan.not_emulated)
        text += "not emulated: " + sentence + "\n";
    return text;
}

}  // namespace headway::runtime
