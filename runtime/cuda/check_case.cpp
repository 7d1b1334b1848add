#include "runtime/cuda/check_case.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "models/workload/random.hpp"
#include "models/workload/traffic.hpp"

namespace headway::runtime {

std::string LayerCase::name() const {
    std::string kind = head_parallel ? "HP" : "EP naive";
    if (dedup == Dedup::rank) kind = head_parallel ? "HP, EP rank-dedup" : "EP rank-dedup";
    if (dedup == Dedup::node) kind = fmt::format("EP node-dedup, nodes of {}", ranks_per_node);
    return fmt::format("{} T={} d={} H={} d_h={} E={} k={} f={} {}", kind, tokens, hidden, heads,
                       head_width, experts, top_k, expert_width,
                       headway::kActivationNames[static_cast<std::size_t>(activation)]);
}

LayerSetup setup_of(const LayerCase& c, int num_ranks) {
    LayerSetup s{.head_parallel = c.head_parallel, .num_ranks = num_ranks};
    s.num_routers = c.head_parallel ? c.heads : 1;
    s.dims = {.hidden = c.hidden, .expert_width = c.expert_width};
    const SparseShape sparse{.num_experts = c.experts,
                             .activation = c.activation,
                             .dedup = c.dedup,
                             .fused = c.head_parallel,
                             .ranks_per_node = c.ranks_per_node};
    const RoutingRule rule{.top_k = c.top_k};
    if (c.head_parallel) {
        s.hp = {.num_heads = c.heads,
                .head_width = c.head_width,
                .tokens = std::vector<std::int64_t>(static_cast<std::size_t>(num_ranks), c.tokens),
                .sparse = sparse,
                .routing = rule};
    } else {
        s.ep = {.sparse = sparse, .routing = rule};
    }
    s.router = {.num_experts = c.experts, .top_k = c.top_k};
    return s;
}

Assignment choices(const LayerCase& c, int head, int source) {
    Random random({7, static_cast<std::uint64_t>(head), static_cast<std::uint64_t>(source)});
    std::vector<std::int32_t> allowed;
    for (int e = 0; e < c.experts; ++e) {
        if (e % 3 != 0 || c.experts - c.experts / 3 - 1 < c.top_k) allowed.push_back(e);
    }
    Assignment a{.num_tokens = c.tokens, .top_k = c.top_k};
    for (int t = 0; t < c.tokens; ++t) {
        for (int j = 0; j < c.top_k; ++j) {
            const std::size_t left = allowed.size() - static_cast<std::size_t>(j);
            std::swap(allowed[static_cast<std::size_t>(j)],
                      allowed[static_cast<std::size_t>(j) + random.below(left)]);
            a.expert.push_back(allowed[static_cast<std::size_t>(j)]);
        }
    }
    return a;
}

Assignment held_choices(const LayerCase& c, const LayerSetup& s, int rank) {
    Assignment held{.top_k = c.top_k};
    for (const HeadBlock& b : head_blocks(s.hp, rank)) {
        const Assignment a = choices(c, s.hp.first_head(rank) + b.rows.head, b.source);
        held.num_tokens += a.num_tokens;
        held.expert.insert(held.expert.end(), a.expert.begin(), a.expert.end());
    }
    return held;
}

// HP x EP: bytes among the ranks that share a head, of every head.
TrafficMatrix expected_traffic_in_heads(const LayerCase& c, const LayerSetup& s) {
    TrafficMatrix all(s.num_ranks);
    const int sharers = s.hp.sharers();
    for (int first = 0; first < s.num_ranks; first += sharers) {
        std::vector<Assignment> held;
        for (int m = 0; m < sharers; ++m) held.push_back(held_choices(c, s, first + m));
        const TrafficMatrix own =
            scaled(dispatch_copies(held, c.experts, c.dedup), 2 * std::int64_t{c.head_width});
        for (int i = 0; i < sharers; ++i) {
            for (int j = 0; j < sharers; ++j) all.at(first + i, first + j) = own.at(i, j);
        }
    }
    return all;
}

// Bytes this rank must send to each, in the exchanges of forward and backward.
TrafficMatrix expected_traffic(const LayerCase& c, const LayerSetup& s) {
    if (c.head_parallel)
        return scaled(head_scatter_copies(s.hp.tokens, c.heads), 2 * std::int64_t{c.head_width});
    std::vector<Assignment> all;
    for (int r = 0; r < s.num_ranks; ++r) all.push_back(choices(c, 0, r));
    const std::int64_t row_bytes = 2 * std::int64_t{c.hidden};
    if (c.dedup != Dedup::node) return scaled(dispatch_copies(all, c.experts, c.dedup), row_bytes);
    const NodeCopies copies = node_dispatch_copies(all, c.experts, c.ranks_per_node);
    TrafficMatrix both = copies.over_nic;
    for (std::size_t i = 0; i < both.bytes.size(); ++i) both.bytes[i] += copies.inside.bytes[i];
    return scaled(both, row_bytes);
}

std::vector<LayerCase> layer_cases(int num_ranks) {
    const int n = num_ranks;
    std::vector<LayerCase> all = {
        {true, Dedup::none, 333, 256, 2 * n, 64, 16, 4, 128},
        {true, Dedup::none, 77, 128, n, 128, 8, 1, 64},
        {true, Dedup::none, 512, 256, n, 64, 32, 8, 192, Activation::gelu_tanh},
        {true, Dedup::none, 200, 256, n, 256, 12, 3, 128},
        {true, Dedup::none, 129, 128, 2 * n, 64, 16, 2, 64, Activation::swiglu},
        {false, Dedup::none, 333, 256, 1, 0, 4 * n, 2, 192},
        {false, Dedup::none, 77, 128, 1, 0, std::max(n, 2), 1, 64},
        {false, Dedup::none, 500, 384, 1, 0, 16 * n, 8, 128, Activation::gelu_tanh},
        {false, Dedup::none, 130, 128, 1, 0, 8 * n, 1, 256},
    };
    if (n > 1) {
        all.push_back({false, Dedup::rank, 333, 256, 1, 0, 4 * n, 2, 192});
        all.push_back({false, Dedup::rank, 500, 384, 1, 0, 16 * n, 8, 128});
        all.push_back({false, Dedup::rank, 77, 128, 1, 0, 2 * n, 1, 64});
    }
    for (int nodes = 1; nodes <= n && n > 1; nodes *= 2) {
        const auto on_nodes = [&](LayerCase c) {
            c.ranks_per_node = n / nodes;
            all.push_back(c);
        };
        on_nodes({false, Dedup::node, 333, 256, 1, 0, 4 * n, 2, 192});
        on_nodes({false, Dedup::node, 500, 384, 1, 0, 16 * n, 8, 128, Activation::gelu_tanh});
        on_nodes({false, Dedup::node, 77, 128, 1, 0, 2 * n, 1, 64});
        on_nodes({false, Dedup::node, 130, 128, 1, 0, n, n, 64});  // every rank, one expert each
    }
    for (int heads = 1; heads < n; heads *= 2) {  // HP x EP: n / heads ranks share a head
        all.push_back({true, Dedup::none, 200, 256, heads, 128, 4 * n, 3, 128});
        all.push_back({true, Dedup::rank, 77, 128, heads, 64, 2 * n, 2, 64, Activation::gelu_tanh});
    }
    return all;
}

}  // namespace headway::runtime
