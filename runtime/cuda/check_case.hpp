// The layers that check_layers runs: shapes, the choices that their tokens are given, and the bytes
// that the Workload counts for them.
#pragma once

#include <string>
#include <vector>

#include "models/vocab/traffic_matrix.hpp"
#include "models/workload/routing.hpp"
#include "runtime/layers/layer_setup.hpp"

namespace headway::runtime {

struct LayerCase {
    bool head_parallel = true;
    Dedup dedup = Dedup::none;
    int tokens = 0, hidden = 0, heads = 1, head_width = 0, experts = 0, top_k = 1, expert_width = 0;
    Activation activation = Activation::gelu;
    int ranks_per_node = 0;  // Dedup::node

    std::string name() const;
};

std::vector<LayerCase> layer_cases(int num_ranks);
LayerSetup setup_of(const LayerCase& c, int num_ranks);

// Distinct choices; every third expert gets no token where enough others are left.
Assignment choices(const LayerCase& c, int head, int source);
// What rank `rank` holds of its shared head's choices, one source after the other.
Assignment held_choices(const LayerCase& c, const LayerSetup& s, int rank);

// Bytes from each rank to each: HP's exchanges, or EP's; and HP x EP's inside the heads.
TrafficMatrix expected_traffic(const LayerCase& c, const LayerSetup& s);
TrafficMatrix expected_traffic_in_heads(const LayerCase& c, const LayerSetup& s);

}  // namespace headway::runtime
