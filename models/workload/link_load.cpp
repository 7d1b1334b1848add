#include "models/workload/link_load.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>

#include "models/vocab/links.hpp"
#include "models/workload/extremes.hpp"

namespace headway::inline workload {
namespace {

std::size_t at(PathClass c) {
    return static_cast<std::size_t>(c);
}

double squeeze_of(const LinkLoad& load, PathClass path) {
    const double own = load.busiest_rank()[at(path)];
    return own > 0.0 ? load.busiest_link()[at(path)] / own : 1.0;
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
    // The ranks of a leaf or a pod.
    Range block_of(const Tier& tier, int rank) const {
        const std::int64_t ranks = tier.nodes * cluster_.gpus_per_node;
        return block(rank, static_cast<int>(std::min<std::int64_t>(ranks, cluster_.num_ranks())));
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

void LinkLoad::Port::resize(int count) {
    bytes.assign(static_cast<std::size_t>(count), 0.0);
    variance.assign(static_cast<std::size_t>(count), 0.0);
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
    for (std::size_t c = 1; c < own_.size(); ++c) own_[c].resize(num_ranks);  // but `self`
    if (cluster.has_pairwise_links()) pair_.resize(num_ranks * cluster.nvlink->domain);
    const int nodes = divide_up(num_ranks, cluster.gpus_per_node);
    if (cluster.pcie && cluster.pcie->gpus_per_switch > 0)
        root_.resize(nodes * divide_up(cluster.gpus_per_node, cluster.pcie->gpus_per_switch));
    if (!cluster.fabric) return;
    num_nics_ = std::min(cluster.fabric->nics_per_node, cluster.gpus_per_node);
    nic_.resize(nodes * num_nics_);
    tiers_ = tiers_of(cluster);
    for (std::size_t t = 0; t < tiers_.size; ++t) {
        blocks_[t].resize(
            static_cast<int>((nodes + tiers_.tier[t].nodes - 1) / tiers_.tier[t].nodes) *
            (cluster.fabric->rails ? num_nics_ : 1));
    }
    if (!cluster.has_pod_pairs()) return;
    num_pods_ = headway::num_pods(cluster);
    pods_.resize(num_pods_ * num_pods_);
}

int LinkLoad::switch_of(int rank) const {
    const int size = cluster_.pcie->gpus_per_switch;
    return cluster_.node_of(rank) * divide_up(cluster_.gpus_per_node, size) +
           rank % cluster_.gpus_per_node / size;
}

int LinkLoad::block_of(const Tier& tier, int rank, int rail) const {
    const int block = static_cast<int>(cluster_.node_of(rank) / tier.nodes);
    return cluster_.fabric->rails ? block * num_nics_ + rail : block;
}

// Fabric messages leave by the NIC of the destination's rail.
bool LinkLoad::relays() const {
    return cluster_.fabric->rails && cluster_.nvlink &&
           cluster_.nvlink->domain >= cluster_.gpus_per_node;
}

void LinkLoad::add_pair(int source, int destination, double bytes, double variance) {
    if (pair_.bytes.empty()) return;
    const int domain = cluster_.nvlink->domain;
    pair_.add(source * domain + destination % domain, bytes, variance);
}

void LinkLoad::add_pods(int source, int destination, double bytes, double variance) {
    const std::int64_t size = tiers_.tier[1].nodes * cluster_.gpus_per_node;
    pods_.add(static_cast<int>(source / size * num_pods_ + destination / size), bytes, variance);
}

void LinkLoad::add(int source, int destination, double bytes, double variance) {
    const PathClass path = path_class(cluster_, source, destination);
    if (path == PathClass::self) return;
    total_[at(path)] += bytes;
    own_[at(path)].up.add(source, bytes);
    own_[at(path)].down.add(destination, bytes, variance);
    if (path == PathClass::nvlink) {
        add_pair(source, destination, bytes, variance);
    } else if (path == PathClass::pcie) {
        if (root_.up.bytes.empty() || switch_of(source) == switch_of(destination)) return;
        root_.up.add(switch_of(source), bytes);
        root_.down.add(switch_of(destination), bytes, variance);
    } else {
        const int to = nic_of(cluster_, destination), rail = to % num_nics_;
        const int from =
            relays() ? cluster_.node_of(source) * num_nics_ + rail : nic_of(cluster_, source);
        nic_.up.add(from, bytes);
        nic_.down.add(to, bytes, variance);
        for (std::size_t t = 0; t < tiers_.size && tiers_.tier[t].path <= path; ++t) {
            blocks_[t].up.add(block_of(tiers_.tier[t], source, from % num_nics_), bytes);
            blocks_[t].down.add(block_of(tiers_.tier[t], destination, rail), bytes, variance);
        }
        if (path == PathClass::core && num_pods_ > 1)
            add_pods(source, destination, bytes, variance);
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
        const Range domain = members.domain(rank), island = members.island(rank);
        // `senders` of the class reach the member, which sends `sent` over it itself.
        const auto load = [&](PathClass path, int senders, double sent) {
            if (senders == 0) return;
            total_[at(path)] += sent;
            own_[at(path)].up.add(rank, sent);
            own_[at(path)].down.add(rank, senders * own, senders * spread);
        };
        load(PathClass::nvlink, domain.size() - 1, sum(domain) - own);
        for (int s = domain.begin; s < domain.end && !pair_.bytes.empty(); ++s)
            if (s != m) add_pair(members.rank(s), rank, own, spread);
        load(PathClass::pcie, island.size() - domain.size(), sum(island) - sum(domain));
        if (!root_.up.bytes.empty()) {
            const Range near = members.pcie_switch(rank), in = near.overlap(domain);
            const int senders = island.size() - domain.size() - near.size() + in.size();
            root_.up.add(switch_of(rank), sum(island) - sum(domain) - sum(near) + sum(in));
            root_.down.add(switch_of(rank), senders * own, senders * spread);
        }
        if (!cluster_.fabric || island.size() == n) continue;
        const int nic = nic_of(cluster_, rank);
        const double up = relays() ? 0.0 : 1.0;  // add_relayed() adds what leaves
        // What is left to send, and from how many, beyond the island and each tier's block.
        double left = before.back() - sum(island);
        int senders = n - island.size();
        nic_.up.add(nic, up * left);
        nic_.down.add(nic, senders * own, senders * spread);
        PathClass path = PathClass::nic;
        for (std::size_t t = 0; t < tiers_.size && senders > 0; ++t) {
            const Range in = members.block_of(tiers_.tier[t], rank), both = in.overlap(island);
            const double beyond = before.back() - sum(in) - sum(island) + sum(both);
            const int from = n - in.size() - island.size() + both.size();
            load(path, senders - from, left - beyond);
            path = tiers_.tier[t].path;
            left = beyond;
            senders = from;
            if (from == 0) break;
            const int block = block_of(tiers_.tier[t], rank, nic % num_nics_);
            blocks_[t].up.add(block, up * left);
            blocks_[t].down.add(block, senders * own, senders * spread);
        }
        load(path, senders, left);
        if (path != PathClass::core || num_pods_ == 1) continue;
        // Every member beyond the pod sends to this one.
        const Range pod = members.block_of(tiers_.tier[1], rank);
        for (int s = 0; s < n; ++s) {
            if (s >= pod.begin && s < pod.end) continue;
            add_pods(members.rank(s), rank, own, spread);
        }
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
            const Range island = members.island(rank);
            nic_.up.add(cluster_.node_of(rank) * num_nics_ + rail, before.back() - sum(island));
            for (std::size_t t = 0; t < tiers_.size; ++t) {
                const Range in = members.block_of(tiers_.tier[t], rank);
                blocks_[t].up.add(block_of(tiers_.tier[t], rank, rail),
                                  before.back() - sum(in) - sum(island) + sum(in.overlap(island)));
            }
        }
    }
}

LinkLoad group_load(const Cluster& cluster, int group_size) {
    const int island = cluster.island_size();
    std::int64_t all_ways =
        island % group_size == 0 ? group_size : std::lcm<std::int64_t>(island, group_size);
    for (const Tier& tier : tiers_of(cluster)) {
        const std::int64_t block = tier.nodes * cluster.gpus_per_node;
        if (block % group_size != 0 && group_size % block != 0)
            all_ways = std::lcm(all_ways, std::min<std::int64_t>(block, cluster.num_ranks()));
    }
    return {cluster, static_cast<int>(std::min<std::int64_t>(all_ways, cluster.num_ranks()))};
}

PathCounts LinkLoad::mean() const {
    PathCounts result = total_;
    for (double& bytes : result) bytes /= num_ranks_;
    return result;
}

// Ranks of the block that begins at `begin` over those of it that are among num_ranks_.
double LinkLoad::all_over_seen(double begin, double size) const {
    return (std::min<double>(begin + size, cluster_.num_ranks()) - begin) /
           (std::min<double>(begin + size, num_ranks_) - begin);
}

// A block's uplinks are those of a full one; ranks of it that are not among num_ranks_ send as much
// as those that are.
double LinkLoad::busiest_block(std::size_t tier) const {
    if (tier >= tiers_.size) return 0.0;
    const double size = static_cast<double>(tiers_.tier[tier].nodes) * cluster_.gpus_per_node;
    const int rails = cluster_.fabric->rails ? num_nics_ : 1;
    TwoWay scaled = blocks_[tier];
    for (Port* port : {&scaled.up, &scaled.down}) {
        for (std::size_t i = 0; i < port->bytes.size(); ++i) {
            const double begin = static_cast<double>(i / static_cast<std::size_t>(rails)) * size;
            const double scale = all_over_seen(begin, size) * rails / size;
            port->bytes[i] *= scale;
            port->variance[i] *= scale * scale;
        }
    }
    return scaled.busiest();
}

// Pods that are not all among num_ranks_ send on as much for each rank as those that are.
double LinkLoad::busiest_pair_of_pods() const {
    const double size = static_cast<double>(tiers_.tier[1].nodes) * cluster_.gpus_per_node;
    Port scaled = pods_;
    for (std::size_t i = 0; i < scaled.bytes.size(); ++i) {
        const double begin = static_cast<double>(i / static_cast<std::size_t>(num_pods_)) * size;
        if (begin >= num_ranks_) break;
        const double scale = all_over_seen(begin, size);
        scaled.bytes[i] *= scale;
        scaled.variance[i] *= scale * scale;
    }
    return pair_load(cluster_) * scaled.busiest();
}

PathCounts LinkLoad::busiest_rank() const {
    PathCounts result{};
    for (std::size_t c = 0; c < result.size(); ++c) result[c] = own_[c].busiest();
    return result;
}

PathCounts LinkLoad::busiest_link() const {
    PathCounts result{};
    result[at(PathClass::nvlink)] = pair_.bytes.empty()
                                        ? own_[at(PathClass::nvlink)].busiest()
                                        : (cluster_.nvlink->domain - 1) * pair_.busiest();
    result[at(PathClass::pcie)] = own_[at(PathClass::pcie)].busiest();
    if (!root_.up.bytes.empty()) {
        double& pcie = result[at(PathClass::pcie)];
        pcie = std::max(
            pcie, root_.busiest() * (cluster_.pcie->bandwidth / cluster_.pcie->root_bandwidth));
    }
    if (!cluster_.fabric) return result;
    const double nic = nic_.busiest() * num_nics_ / cluster_.gpus_per_node;
    const double leaf = busiest_block(0),
                 pod = num_pods_ > 1 ? busiest_pair_of_pods() : busiest_block(1);
    result[at(PathClass::core)] = pod;
    result[at(PathClass::spine)] = std::max(0.0, leaf - pod);
    result[at(PathClass::nic)] = std::max(0.0, nic - std::max(leaf, pod));
    return result;
}

PathCounts LinkLoad::on_curve(double root_squeeze) const {
    PathCounts result = busiest_link();
    double& pcie = result[at(PathClass::pcie)];
    pcie = std::max(own_[at(PathClass::pcie)].busiest(), pcie / root_squeeze);
    return result;
}

LinkLoad equal_load(const Cluster& cluster, int group_size, int stride) {
    LinkLoad load = group_load(cluster, group_size);
    const std::vector<double> columns(static_cast<std::size_t>(group_size / stride), 1.0);
    for (int first = 0; first + group_size <= load.num_ranks(); first += group_size) {
        for (int i = 0; i < stride; ++i) load.add_columns(first + i, stride, columns);
    }
    return load;
}

double root_squeeze(const Cluster& cluster, int group_size) {
    if (!cluster.pcie || cluster.pcie->gpus_per_switch == 0) return 1.0;
    return squeeze_of(equal_load(cluster, group_size), PathClass::pcie);
}

double mesh_squeeze(const Cluster& cluster, int group_size, int stride) {
    if (!cluster.has_pairwise_links()) return 1.0;
    return squeeze_of(equal_load(cluster, group_size, stride), PathClass::nvlink);
}

double pods_squeeze(const Cluster& cluster, int group_size, int stride) {
    if (!cluster.has_pod_pairs()) return 1.0;
    return squeeze_of(equal_load(cluster, group_size, stride), PathClass::core);
}

double pods_squeeze(const Cluster& cluster) {
    if (!cluster.has_pod_pairs()) return 1.0;
    const double ranks =
        static_cast<double>(tiers_of(cluster).tier[1].nodes) * cluster.gpus_per_node;
    return ranks * pair_load(cluster);
}

}  // namespace headway::inline workload
