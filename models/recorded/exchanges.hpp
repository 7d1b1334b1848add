// Who sends how much to whom in the all-to-alls of a Recording, on all ranks of a cluster. Private
// to models/recorded.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "models/recorded/recording.hpp"
#include "models/vocab/cluster.hpp"
#include "models/vocab/scenario.hpp"
#include "models/vocab/traffic_matrix.hpp"

namespace headway::inline recorded {

// Bytes from each rank of a block, size x stride consecutive ranks, to each.
struct ExchangedBytes {
    std::vector<std::shared_ptr<const TrafficMatrix>> blocks;  // one for all, or one a block
    int block_size = 1;

    const TrafficMatrix& of_rank(int rank) const {
        const auto block = static_cast<std::size_t>(rank / block_size);
        return *blocks[blocks.size() == 1 ? 0 : block];
    }
    // That come to a rank, from itself too.
    double received(int rank) const;
};

// A scenario with one MoE layer that routes what a rank sends in the exchange `task`; InputError
// where the recording does not say its router, or rows are not tokens times top_k.
Scenario routed_layer(const Recording& recording, const RecordedTask& task, const Cluster& cluster,
                      const Routing& routing);

class Exchanges {
  public:
    // `routing`: drawn for every routed exchange; none: every rank routes as the recorded one did.
    // InputError where a routing is given and the recording does not say what it needs.
    Exchanges(const Recording& recording, const Cluster& cluster,
              const std::optional<Routing>& routing);

    // The way that the exchange `task` goes.
    ExchangedBytes bytes(int task);

  private:
    ExchangedBytes as_recorded(const RecordedTask& task) const;
    ExchangedBytes drawn(int task);
    int layer_of(const RecordedTask& task);

    const Recording& recording_;
    const Cluster& cluster_;
    const std::optional<Routing>& routing_;
    std::vector<bool> routed_;  // [task] its rows come back later
    std::vector<std::pair<std::vector<double>, std::vector<double>>> layers_;  // splits, in order
    std::map<int, ExchangedBytes> drawn_;                                      // [layer]
};

}  // namespace headway::inline recorded
