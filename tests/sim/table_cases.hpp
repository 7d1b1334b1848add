// The uneven all-to-all cases that other simulators were measured on: hosts with 50e9 bytes/s NICs
// (each direction) on one switch ("star"), or 8 hosts a leaf with 2:1 trunks ("leafspine"); and two
// 2:1 leaves whose uplinks, as many as hosts, are chosen by a hash of the pair ("hashed"). Sizes of
// mean 1 MiB: equal ("bal"), globally hot destinations ("zipf"), or a Zipf order per source
// ("rand").
#pragma once

#include <cmath>
#include <cstdint>
#include <numeric>
#include <string_view>
#include <utility>
#include <vector>

#include "models/vocab/cluster.hpp"
#include "models/vocab/traffic_matrix.hpp"

namespace headway::sim::cases {

class SplitMix64 {
  public:
    explicit SplitMix64(std::uint64_t state) : state_(state) {}
    std::uint64_t next() {
        std::uint64_t z = state_ += 0x9E3779B97F4A7C15ULL;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
        return z ^ (z >> 31);
    }
    double uniform() { return static_cast<double>(next() >> 11) / 9007199254740992.0; }
    std::vector<int> permutation(int size) {
        std::vector<int> result(static_cast<std::size_t>(size));
        std::iota(result.begin(), result.end(), 0);
        for (int a = size - 1; a >= 1; --a) {
            const auto b = static_cast<std::size_t>(next() % static_cast<std::uint64_t>(a + 1));
            std::swap(result[static_cast<std::size_t>(a)], result[b]);
        }
        return result;
    }

  private:
    std::uint64_t state_;
};

inline constexpr double kMeanBytes = 1048576.0;

inline TrafficMatrix balanced(int ranks) {
    TrafficMatrix m(ranks);
    for (int i = 0; i < ranks; ++i) {
        for (int j = 0; j < ranks; ++j) m.at(i, j) = i == j ? 0 : 1048576;
    }
    return m;
}

// size(i,j) = max(1, floor(m P w(j) / sum(w) (0.5 + u))), w(j) = 1 / (perm(j) + 1)
inline TrafficMatrix zipf(int ranks) {
    SplitMix64 random(42);
    const std::vector<int> order = random.permutation(ranks);
    std::vector<double> weight;
    for (const int o : order) weight.push_back(1.0 / (o + 1));
    const double sum = std::accumulate(weight.begin(), weight.end(), 0.0);
    TrafficMatrix m(ranks);
    for (int i = 0; i < ranks; ++i) {
        for (int j = 0; j < ranks; ++j) {
            const double size =
                std::floor(kMeanBytes * ranks * weight[static_cast<std::size_t>(j)] / sum *
                           (0.5 + random.uniform()));
            m.at(i, j) = i == j ? 0 : std::max<std::int64_t>(1, static_cast<std::int64_t>(size));
        }
    }
    return m;
}

// size(i,j) = max(1, floor(m P / (perm_i(j) + 1) / H_P)), H_P the P-th harmonic number
inline TrafficMatrix rand(int ranks) {
    SplitMix64 random(42);
    double harmonic = 0.0;
    for (int a = 0; a < ranks; ++a) harmonic += 1.0 / (a + 1);
    TrafficMatrix m(ranks);
    for (int i = 0; i < ranks; ++i) {
        const std::vector<int> order = random.permutation(ranks);
        for (int j = 0; j < ranks; ++j) {
            const double size = std::floor(
                kMeanBytes * ranks * (1.0 / (order[static_cast<std::size_t>(j)] + 1)) / harmonic);
            m.at(i, j) = i == j ? 0 : std::max<std::int64_t>(1, static_cast<std::int64_t>(size));
        }
    }
    return m;
}

inline TrafficMatrix matrix(std::string_view sizes, int ranks) {
    if (sizes == "bal") return balanced(ranks);
    return sizes == "zipf" ? zipf(ranks) : rand(ranks);
}

inline Cluster cluster(std::string_view topology, int ranks) {
    Cluster c{.name = "table", .num_nodes = ranks, .gpus_per_node = 1};
    c.fabric = Fabric{.nics_per_node = 1, .nic = 50.0 * GB / second};
    if (topology == "leafspine") {
        c.fabric->nodes_per_leaf = 8;
        c.fabric->oversubscription = 2.0;
    }
    if (topology == "hashed") {
        c.fabric->nodes_per_leaf = ranks / 2;
        c.fabric->oversubscription = 2.0;
        c.fabric->uplinks_per_leaf = ranks / 2;
        c.fabric->spraying = Spraying::ecmp;
    }
    return c;
}

}  // namespace headway::sim::cases
