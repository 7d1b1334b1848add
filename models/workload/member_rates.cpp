#include "models/workload/member_rates.hpp"

#include <algorithm>
#include <cstddef>

#include "models/workload/inclusion.hpp"

namespace headway::inline workload {
namespace {

void add(std::vector<double>& sum, const std::vector<double>& part, double weight) {
    sum.resize(part.size(), 0.0);
    for (std::size_t i = 0; i < part.size(); ++i) sum[i] += weight * part[i];
}

}  // namespace

bool is_forwarded(const Cluster& cluster, const ExpertLayout& layout) {
    return layout.dedup == Dedup::node && layout.ranks() > cluster.island_size();
}

bool members_alike(const Routing& routing) {
    return routing.scope == SkewScope::global || routing.skew == Skew::none ||
           routing.skew == Skew::histogram || routing.skew == Skew::trace;
}

std::vector<RouterId> routers_of(const ExpertLayout& layout, int layer, int group, int member,
                                 int sample) {
    const int num_ranks = layout.ranks() * layout.num_heads;  // of the plan's group
    std::vector<RouterId> routers;
    for (int r = member; r < num_ranks; r += layout.ranks()) {
        routers.push_back({.layer = layer,
                           .head = group % layout.num_heads,
                           .source_rank = group / layout.num_heads * num_ranks + r,
                           .sample = sample});
    }
    return routers;
}

MemberRates member_rates(const Scenario& scenario, const ExpertLayout& layout, int layer, int group,
                         int member) {
    const std::size_t n = static_cast<std::size_t>(layout.group_size);
    const bool forwarded = is_forwarded(scenario.cluster, layout),
               dedup = layout.dedup != Dedup::none;
    const int islands = forwarded ? layout.ranks() / scenario.cluster.island_size() : 1;
    MemberRates rates;
    if (scenario.routing.skew == Skew::none) {
        rates.rows.assign(n, static_cast<double>(layout.router.top_k) / layout.group_size);
        rates.copies = dedup ? hit_probabilities({}, layout.router, layout.group_size) : rates.rows;
        if (forwarded) rates.node_copies = hit_probabilities({}, layout.router, islands);
        return rates;
    }
    std::vector<int> partitions = {layout.router.num_experts};
    if (dedup) partitions.push_back(layout.group_size);
    if (forwarded) partitions.push_back(islands);
    std::vector<RouterId> routers = routers_of(layout, layer, group, member, 0);
    if (members_alike(scenario.routing)) routers.resize(1);
    const double weight = 1.0 / static_cast<double>(routers.size());
    for (const RouterId& id : routers) {
        const auto hits = hit_probabilities(expert_popularity(scenario.routing, layout.router, id),
                                            layout.router, partitions);
        add(rates.experts, hits[0], weight);
        if (dedup) add(rates.copies, hits[1], weight);
        if (forwarded) add(rates.node_copies, hits[2], weight);
    }
    rates.rows.assign(n, 0.0);
    for (std::size_t e = 0; e < rates.experts.size(); ++e)
        rates.rows[e * n / rates.experts.size()] += rates.experts[e];
    if (!dedup) rates.copies = rates.rows;
    return rates;
}

}  // namespace headway::inline workload
