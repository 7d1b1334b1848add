// LinkLoad: what the busiest link of each path class carries in an all-to-all, links that several
// ranks share included: NICs, PCIe switches, leaf uplinks. Everything is in bytes of one rank's
// share of its class, so that bytes / link_bandwidth() is the time that the link needs: with two
// NICs for eight GPUs, a quarter of what a NIC carries.
//   nic + spine + core  the busiest NIC
//   spine + core        the busiest leaf, without its oversubscription
//   core                the busiest pod, without the oversubscription of both tiers; in a
//                       dragonfly the busiest pair of pods (pair_load())
//   pcie                the busiest PCIe link or switch uplink
//   nvlink              the busiest port, or pairwise link
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

#include "models/vocab/cluster.hpp"

namespace headway::inline workload {

using PathCounts = std::array<double, static_cast<std::size_t>(kNumPathClasses)>;

class LinkLoad {
  public:
    // The load of ranks [0, num_ranks); ranks beyond, if any, load the leaves as these do.
    LinkLoad(const Cluster& cluster, int num_ranks);

    void add(int source, int destination, double bytes, double variance = 0.0);
    // Every member of the group {first, first + stride, ...} sends columns[j] to its member j;
    // variance: of what one member sends there.
    void add_columns(int first, int stride, const std::vector<double>& columns,
                     const std::vector<double>& variance = {});

    int num_ranks() const { return num_ranks_; }
    PathCounts mean() const;  // sent by a rank, plain bytes
    // Expected: of the rank that sends or receives most, plain bytes; of the busiest link.
    PathCounts busiest_rank() const;
    PathCounts busiest_link() const;
    // The latter, with PCIe as if no switch were shared, which a measured PCIe curve holds already.
    PathCounts on_curve(double root_squeeze) const;

  private:
    struct Port {
        std::vector<double> bytes, variance;
        void resize(int count);
        void add(int index, double value, double spread = 0.0) {
            bytes[static_cast<std::size_t>(index)] += value;
            variance[static_cast<std::size_t>(index)] += spread;
        }
        double busiest() const;  // expected
    };
    struct TwoWay {
        Port up, down;
        void resize(int count) {
            up.resize(count);
            down.resize(count);
        }
        double busiest() const { return std::max(up.busiest(), down.busiest()); }
    };
    struct Range {  // members [begin, end) of a group, by their number
        int begin = 0, end = 0;
        int size() const { return std::max(0, end - begin); }
        Range overlap(const Range& other) const {
            return {std::max(begin, other.begin), std::min(end, other.end)};
        }
        // What lies between two running sums, running[m] that of the first m members.
        double sum(const std::vector<double>& running) const {
            return size() == 0 ? 0.0
                               : running[static_cast<std::size_t>(end)] -
                                     running[static_cast<std::size_t>(begin)];
        }
    };
    class Members;

    int switch_of(int rank) const;
    int block_of(const Tier& tier, int rank, int rail) const;
    bool relays() const;
    void add_pair(int source, int destination, double bytes, double variance);
    void add_pods(int source, int destination, double bytes, double variance);
    double busiest_pair_of_pods() const;
    double all_over_seen(double begin, double size) const;
    double busiest_block(std::size_t tier) const;
    void add_relayed(const Members& members, const std::vector<double>& columns);

    const Cluster& cluster_;
    int num_ranks_ = 0;
    int num_nics_ = 1;  // of a node; a GPU with several sees one
    PathCounts total_{};
    TwoWay root_, nic_;
    Tiers tiers_;
    std::array<TwoWay, 2> blocks_;  // [tier]
    Port pair_;                     // [rank, number in the domain], of pairwise links
    Port pods_;                     // [pod, other pod], of a dragonfly
    int num_pods_ = 1;
    std::array<TwoWay, static_cast<std::size_t>(kNumPathClasses)>
        own_;  // of a rank, by class, on links that it may share
};

// The fewest ranks that show all ways in which groups of consecutive ranks lie on the islands.
LinkLoad group_load(const Cluster& cluster, int group_size);
// The load of every `stride`-th rank of all groups with each other, a byte to each.
LinkLoad equal_load(const Cluster& cluster, int group_size, int stride = 1);
// What an equal exchange needs on the PCIe switches' uplinks over what it needs on the ranks'
// links; on pairwise links over what it would need on a switch.
double root_squeeze(const Cluster& cluster, int group_size);
double mesh_squeeze(const Cluster& cluster, int group_size, int stride = 1);
// What it needs on the links between the pods of a dragonfly over what the same bytes need there
// at the tier's narrowing. A message of every rank to one other: pods_squeeze(cluster).
double pods_squeeze(const Cluster& cluster, int group_size, int stride = 1);
double pods_squeeze(const Cluster& cluster);

// What the busiest links carry when all groups exchange at once.
struct LinkCounts {
    PathCounts on_curve{}, links{};
};

inline LinkCounts busiest_links(const LinkLoad& load, const Cluster& cluster, int group_size) {
    return {load.on_curve(root_squeeze(cluster, group_size)), load.busiest_link()};
}

}  // namespace headway::inline workload
