#include "models/workload/traffic.hpp"

#include <cassert>
#include <cstddef>

namespace headway::inline workload {
namespace {

// Calls visit(destination) once per distinct rank that a token's k experts live on.
template <class Visit>
void for_each_distinct(const std::int32_t* experts, int top_k, int experts_per_part,
                       std::vector<char>& seen, Visit&& visit) {
    for (int j = 0; j < top_k; ++j) {
        const int part = experts[j] / experts_per_part;
        char& mark = seen[static_cast<std::size_t>(part)];
        if (!mark) visit(part);
        mark = 1;
    }
    for (int j = 0; j < top_k; ++j)
        seen[static_cast<std::size_t>(experts[j] / experts_per_part)] = 0;
}

}  // namespace

TrafficMatrix dispatch_copies(const std::vector<Assignment>& assignments, int num_experts,
                              Dedup dedup, int expert_tensor) {
    assert(dedup != Dedup::node);
    const int num_ranks = static_cast<int>(assignments.size()), e = expert_tensor;
    const int per_part = num_experts / (num_ranks / e);
    assert(per_part * (num_ranks / e) == num_experts);
    TrafficMatrix copies(num_ranks);
    std::vector<char> seen(assignments.size(), 0);
    for (int source = 0; source < num_ranks; ++source) {
        const Assignment& a = assignments[static_cast<std::size_t>(source)];
        for (std::int64_t t = 0; t < a.num_tokens; ++t) {
            const std::int32_t* experts = a.expert.data() + t * a.top_k;
            if (dedup == Dedup::none) {
                for (int j = 0; j < a.top_k; ++j)
                    ++copies.at(source, experts[j] / per_part * e + source % e);
            } else {
                for_each_distinct(experts, a.top_k, per_part, seen, [&](int part) {
                    for (int i = 0; i < e; ++i) ++copies.at(source, part * e + i);
                });
            }
        }
    }
    return copies;
}

NodeCopies node_dispatch_copies(const std::vector<Assignment>& assignments, int num_experts,
                                int gpus_per_node, int expert_tensor) {
    const int num_ranks = static_cast<int>(assignments.size()), e = expert_tensor;
    const int per_part = num_experts / (num_ranks / e), parts_of_node = gpus_per_node / e;
    NodeCopies copies{TrafficMatrix(num_ranks), TrafficMatrix(num_ranks)};
    std::vector<char> seen_rank(assignments.size(), 0), seen_node(assignments.size(), 0);
    for (int source = 0; source < num_ranks; ++source) {
        const Assignment& a = assignments[static_cast<std::size_t>(source)];
        const int home = source / gpus_per_node, local = source % gpus_per_node;
        const auto entry = [&](int node) {
            return node == home ? source : node * gpus_per_node + local;
        };
        for (std::int64_t t = 0; t < a.num_tokens; ++t) {
            const std::int32_t* experts = a.expert.data() + t * a.top_k;
            for_each_distinct(experts, a.top_k, per_part * parts_of_node, seen_node, [&](int node) {
                if (node != home) ++copies.over_nic.at(source, entry(node));
            });
            for_each_distinct(experts, a.top_k, per_part, seen_rank, [&](int part) {
                for (int rank = part * e; rank < (part + 1) * e; ++rank)
                    ++copies.inside.at(entry(rank / gpus_per_node), rank);
            });
        }
    }
    return copies;
}

std::vector<std::int64_t> rows_per_expert(const std::vector<Assignment>& assignments,
                                          int num_experts) {
    std::vector<std::int64_t> rows(static_cast<std::size_t>(num_experts), 0);
    for (const Assignment& a : assignments) {
        for (std::int32_t e : a.expert) ++rows[static_cast<std::size_t>(e)];
    }
    return rows;
}

std::vector<std::int64_t> rows_per_rank(const std::vector<Assignment>& assignments, int num_experts,
                                        int expert_tensor) {
    const std::vector<std::int64_t> by_expert = rows_per_expert(assignments, num_experts);
    std::vector<std::int64_t> rows(assignments.size(), 0);
    const auto width = static_cast<std::size_t>(expert_tensor);
    const std::size_t per_part = by_expert.size() / (rows.size() / width);
    for (std::size_t i = 0; i < by_expert.size(); ++i) rows[i / per_part * width] += by_expert[i];
    for (std::size_t r = 0; r < rows.size(); ++r) rows[r] = rows[r - r % width];
    return rows;
}

TrafficMatrix scaled(const TrafficMatrix& copies, std::int64_t bytes_per_copy) {
    TrafficMatrix result = copies;
    for (std::int64_t& b : result.bytes) b *= bytes_per_copy;
    return result;
}

TrafficMatrix head_scatter_copies(const std::vector<std::int64_t>& tokens, int num_heads) {
    const int num_ranks = static_cast<int>(tokens.size());
    TrafficMatrix copies(num_ranks);
    for (int source = 0; source < num_ranks; ++source) {
        const std::int64_t own = tokens[static_cast<std::size_t>(source)];
        if (num_ranks <= num_heads) {
            const std::int64_t heads = num_heads / num_ranks;
            for (int j = 0; j < num_ranks; ++j) copies.at(source, j) = own * heads;
        } else {
            const int sharers = num_ranks / num_heads;
            for (int h = 0; h < num_heads; ++h)
                copies.at(source, h * sharers + source % sharers) = own;
        }
    }
    return copies;
}

std::vector<std::int64_t> scattered_sub_tokens(const std::vector<std::int64_t>& tokens,
                                               int num_heads) {
    const TrafficMatrix copies = head_scatter_copies(tokens, num_heads);
    std::vector<std::int64_t> held(tokens.size());
    for (int r = 0; r < copies.num_ranks; ++r) {
        held[static_cast<std::size_t>(r)] = copies.received(r) + copies.at(r, r);
    }
    return held;
}

}  // namespace headway::inline workload
