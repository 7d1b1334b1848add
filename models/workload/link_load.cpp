#include "models/workload/link_load.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>

#include "models/workload/extremes.hpp"

namespace headway::inline workload {
namespace {

std::size_t at(PathClass c) {
    return static_cast<std::size_t>(c);
}

int divide_up(int a, int b) {
    return (a + b - 1) / b;
}

}  // namespace

// The members of a group that each of them meets on each path class: path_class() in
// vocab/cluster.hpp, whose classes are blocks of ranks that lie in one another.
class LinkLoad::Members {
  public:
    Members(const Cluster& cluster, int first, int stride, int count)
        : cluster_(cluster), first_(first), stride_(stride), all_{0, count} {}

    int rank(int member) const { return first_ + member * stride_; }
    const Range& all() const { return all_; }
    Range domain(int rank) const {
        return block(rank, cluster_.nvlink ? cluster_.nvlink->domain : 1);
    }
    Range node(int rank) const {
        return cluster_.fabric ? block(rank, cluster_.gpus_per_node) : all_;
    }
    // What is reached without a NIC: the larger of the two.
    Range island(int rank) const {
        const Range a = domain(rank), b = node(rank);
        return a.size() > b.size() ? a : b;
    }
    Range leaf(int rank) const {
        const int nodes = cluster_.fabric ? cluster_.fabric->nodes_per_leaf : 0;
        return nodes > 0 ? block(rank, nodes * cluster_.gpus_per_node) : all_;
    }
    Range pcie_switch(int rank) const {
        const int node = rank - rank % cluster_.gpus_per_node,
                  size = cluster_.pcie->gpus_per_switch;
        const int begin = node + rank % cluster_.gpus_per_node / size * size;
        return range(begin, std::min(begin + size, node + cluster_.gpus_per_node));
    }

  private:
    Range block(int rank, int size) const {
        return range(rank - rank % size, rank - rank % size + size);
    }
    // Members whose ranks are in [begin, end).
    Range range(int begin, int end) const {
        const auto from = [&](int rank) {
            return rank <= first_ ? 0 : divide_up(rank - first_, stride_);
        };
        return Range{from(begin), from(end)}.overlap(all_);
    }

    const Cluster& cluster_;
    int first_, stride_;
    Range all_;
};

void LinkLoad::TwoWay::resize(int count) {
    for (Port* port : {&up, &down}) {
        port->bytes.assign(static_cast<std::size_t>(count), 0.0);
        port->variance.assign(static_cast<std::size_t>(count), 0.0);
    }
}

double LinkLoad::Port::busiest() const {
    std::vector<double> mean, sigma;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        if (bytes[i] <= 0.0) continue;
        mean.push_back(bytes[i]);
        sigma.push_back(std::sqrt(variance[i]));
    }
    if (mean.empty()) return 0.0;
    const auto [low, high] = std::minmax_element(mean.begin(), mean.end());
    if (*std::max_element(sigma.begin(), sigma.end()) <= 0.0) return *high;
    if (*high - *low > 1e-12 * *high) return std::max(*high, expected_max(mean, sigma));
    return *high + sigma.front() * expected_max_of_normals(static_cast<int>(mean.size()));
}

LinkLoad::LinkLoad(const Cluster& cluster, int num_ranks)
    : cluster_(cluster), num_ranks_(num_ranks) {
    nvlink_.resize(num_ranks);
    pcie_.resize(num_ranks);
    const int nodes = divide_up(num_ranks, cluster.gpus_per_node);
    if (cluster.pcie && cluster.pcie->gpus_per_switch > 0)
        root_.resize(nodes * divide_up(cluster.gpus_per_node, cluster.pcie->gpus_per_switch));
    if (!cluster.fabric) return;
    num_nics_ = std::min(cluster.fabric->nics_per_node, cluster.gpus_per_node);
    nic_.resize(nodes * num_nics_);
    own_nic_.resize(num_ranks);
    own_spine_.resize(num_ranks);
    if (cluster.fabric->nodes_per_leaf > 0) {
        leaf_.resize(divide_up(nodes, cluster.fabric->nodes_per_leaf) *
                     (cluster.fabric->rails ? num_nics_ : 1));
    }
}

int LinkLoad::switch_of(int rank) const {
    const int size = cluster_.pcie->gpus_per_switch;
    return cluster_.node_of(rank) * divide_up(cluster_.gpus_per_node, size) +
           rank % cluster_.gpus_per_node / size;
}

int LinkLoad::leaf_of(int rank, int rail) const {
    const int leaf = cluster_.node_of(rank) / cluster_.fabric->nodes_per_leaf;
    return cluster_.fabric->rails ? leaf * num_nics_ + rail : leaf;
}

// Fabric messages leave by the NIC of the destination's rail.
bool LinkLoad::relays() const {
    return cluster_.fabric->rails && cluster_.nvlink &&
           cluster_.nvlink->domain >= cluster_.gpus_per_node;
}

void LinkLoad::add(int source, int destination, double bytes, double variance) {
    const PathClass path = path_class(cluster_, source, destination);
    if (path == PathClass::self) return;
    total_[at(path)] += bytes;
    if (path == PathClass::nvlink) {
        nvlink_.up.add(source, bytes);
        nvlink_.down.add(destination, bytes, variance);
    } else if (path == PathClass::pcie) {
        pcie_.up.add(source, bytes);
        pcie_.down.add(destination, bytes, variance);
        if (root_.up.bytes.empty() || switch_of(source) == switch_of(destination)) return;
        root_.up.add(switch_of(source), bytes);
        root_.down.add(switch_of(destination), bytes, variance);
    } else {
        TwoWay& own = path == PathClass::nic ? own_nic_ : own_spine_;
        own.up.add(source, bytes);
        own.down.add(destination, bytes, variance);
        const int to = nic_of(cluster_, destination), rail = to % num_nics_;
        const int from =
            relays() ? cluster_.node_of(source) * num_nics_ + rail : nic_of(cluster_, source);
        nic_.up.add(from, bytes);
        nic_.down.add(to, bytes, variance);
        if (path != PathClass::spine) return;
        leaf_.up.add(leaf_of(source, from % num_nics_), bytes);
        leaf_.down.add(leaf_of(destination, rail), bytes, variance);
    }
}

void LinkLoad::add_columns(int first, int stride, const std::vector<double>& columns,
                           const std::vector<double>& variance) {
    const int n = static_cast<int>(columns.size());
    const Members members(cluster_, first, stride, n);
    std::vector<double> before(columns.size() + 1, 0.0);
    std::partial_sum(columns.begin(), columns.end(), before.begin() + 1);
    const auto sum = [&](const Range& r) { return r.sum(before); };
    for (int m = 0; m < n; ++m) {
        const int rank = members.rank(m);
        const double own = columns[static_cast<std::size_t>(m)],
                     spread = variance.empty() ? 0.0 : variance[static_cast<std::size_t>(m)];
        const Range domain = members.domain(rank), island = members.island(rank),
                    leaf = members.leaf(rank), both = leaf.overlap(island);
        // `senders` of the class reach the member, which sends `sent` over it itself.
        const auto load = [&](PathClass path, TwoWay& links, int up, int down, int senders,
                              double sent) {
            if (senders == 0) return;
            total_[at(path)] += sent;
            links.up.add(up, sent);
            links.down.add(down, senders * own, senders * spread);
        };
        load(PathClass::nvlink, nvlink_, rank, rank, domain.size() - 1, sum(domain) - own);
        load(PathClass::pcie, pcie_, rank, rank, island.size() - domain.size(),
             sum(island) - sum(domain));
        if (!root_.up.bytes.empty()) {
            const Range near = members.pcie_switch(rank), in = near.overlap(domain);
            const int senders = island.size() - domain.size() - near.size() + in.size();
            root_.up.add(switch_of(rank), sum(island) - sum(domain) - sum(near) + sum(in));
            root_.down.add(switch_of(rank), senders * own, senders * spread);
        }
        if (!cluster_.fabric || island.size() == n) continue;
        const int nic = nic_of(cluster_, rank);
        const double near = sum(leaf) - sum(both),
                     far = before.back() - sum(leaf) - sum(island) + sum(both);
        const int near_senders = leaf.size() - both.size(),
                  far_senders = n - leaf.size() - island.size() + both.size();
        load(PathClass::nic, own_nic_, rank, rank, near_senders, near);
        load(PathClass::spine, own_spine_, rank, rank, far_senders, far);
        const double up = relays() ? 0.0 : 1.0;  // add_relayed() adds what leaves
        nic_.up.add(nic, up * (near + far));
        nic_.down.add(nic, (near_senders + far_senders) * own,
                      (near_senders + far_senders) * spread);
        if (far_senders == 0) continue;
        leaf_.up.add(leaf_of(rank, nic % num_nics_), up * far);
        leaf_.down.add(leaf_of(rank, nic % num_nics_), far_senders * own, far_senders * spread);
    }
    if (cluster_.fabric && relays()) add_relayed(members, columns);
}

// What leaves the nodes, by the rail of its destination.
void LinkLoad::add_relayed(const Members& members, const std::vector<double>& columns) {
    const int n = static_cast<int>(columns.size());
    for (int rail = 0; rail < num_nics_; ++rail) {
        std::vector<double> before(columns.size() + 1, 0.0);
        for (int m = 0; m < n; ++m) {
            const bool on_rail = nic_of(cluster_, members.rank(m)) % num_nics_ == rail;
            const auto slot = static_cast<std::size_t>(m);
            before[slot + 1] = before[slot] + (on_rail ? columns[slot] : 0.0);
        }
        const auto sum = [&](const Range& r) { return r.sum(before); };
        for (int m = 0; m < n; ++m) {
            const int rank = members.rank(m);
            const Range island = members.island(rank), leaf = members.leaf(rank);
            nic_.up.add(cluster_.node_of(rank) * num_nics_ + rail, before.back() - sum(island));
            if (leaf_.up.bytes.empty()) continue;
            leaf_.up.add(leaf_of(rank, rail),
                         before.back() - sum(leaf) - sum(island) + sum(leaf.overlap(island)));
        }
    }
}

LinkLoad group_load(const Cluster& cluster, int group_size) {
    const int island = cluster.island_size();
    const std::int64_t all_ways =
        island % group_size == 0 ? group_size : std::lcm<std::int64_t>(island, group_size);
    return {cluster, static_cast<int>(std::min<std::int64_t>(all_ways, cluster.num_ranks()))};
}

PathCounts LinkLoad::mean() const {
    PathCounts result = total_;
    for (double& bytes : result) bytes /= num_ranks_;
    return result;
}

// A leaf's uplinks are those of a full leaf; ranks of it that are not among num_ranks_ send as much
// as those that are.
double LinkLoad::busiest_leaf() const {
    if (leaf_.up.bytes.empty()) return 0.0;
    const int size = cluster_.fabric->nodes_per_leaf * cluster_.gpus_per_node,
              rails = cluster_.fabric->rails ? num_nics_ : 1;
    TwoWay scaled = leaf_;
    for (Port* port : {&scaled.up, &scaled.down}) {
        for (std::size_t i = 0; i < port->bytes.size(); ++i) {
            const int begin = static_cast<int>(i) / rails * size;
            const double here = std::min(begin + size, num_ranks_) - begin,
                         all = std::min(begin + size, cluster_.num_ranks()) - begin;
            const double scale = all / here * rails / size;
            port->bytes[i] *= scale;
            port->variance[i] *= scale * scale;
        }
    }
    return scaled.busiest();
}

PathCounts LinkLoad::busiest_rank() const {
    PathCounts result{};
    result[at(PathClass::nvlink)] = nvlink_.busiest();
    result[at(PathClass::pcie)] = pcie_.busiest();
    result[at(PathClass::nic)] = own_nic_.busiest();
    result[at(PathClass::spine)] = own_spine_.busiest();
    return result;
}

PathCounts LinkLoad::busiest_link() const {
    PathCounts result{};
    result[at(PathClass::nvlink)] = nvlink_.busiest();
    result[at(PathClass::pcie)] = pcie_.busiest();
    if (!root_.up.bytes.empty()) {
        double& pcie = result[at(PathClass::pcie)];
        pcie = std::max(
            pcie, root_.busiest() * (cluster_.pcie->bandwidth / cluster_.pcie->root_bandwidth));
    }
    if (!cluster_.fabric) return result;
    const double nic = nic_.busiest() * num_nics_ / cluster_.gpus_per_node;
    result[at(PathClass::spine)] = busiest_leaf();
    result[at(PathClass::nic)] = std::max(0.0, nic - result[at(PathClass::spine)]);
    return result;
}

PathCounts LinkLoad::on_curve(double root_squeeze) const {
    PathCounts result = busiest_link();
    double& pcie = result[at(PathClass::pcie)];
    pcie = std::max(pcie_.busiest(), pcie / root_squeeze);
    return result;
}

double root_squeeze(const Cluster& cluster, int group_size) {
    if (!cluster.pcie || cluster.pcie->gpus_per_switch == 0) return 1.0;
    LinkLoad load = group_load(cluster, group_size);
    const std::vector<double> equal(static_cast<std::size_t>(group_size), 1.0);
    for (int first = 0; first + group_size <= load.num_ranks(); first += group_size)
        load.add_columns(first, 1, equal);
    const auto pcie = at(PathClass::pcie);
    const double own = load.busiest_rank()[pcie];
    return own > 0.0 ? load.busiest_link()[pcie] / own : 1.0;
}

}  // namespace headway::inline workload
