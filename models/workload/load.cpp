// Expected load of one MoE layer on the ranks of a group.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/workload/extremes.hpp"
#include "models/workload/member_rates.hpp"
#include "models/workload/traffic.hpp"
#include "models/workload/workload.hpp"
#include "models/workload/worst_group.hpp"

namespace headway::inline workload {
namespace {

std::size_t index(PathClass c) {
    return static_cast<std::size_t>(c);
}

// Variance, per token, of the number of its k experts that fall into a set with share p of the
// picks (hypergeometric for equal experts).
double rows_variance(double rows, const RouterShape& shape) {
    if (shape.num_experts <= 1) return 0.0;
    const double p = rows / shape.top_k;
    return shape.top_k * p * (1.0 - p) * (shape.num_experts - shape.top_k) /
           (shape.num_experts - 1.0);
}

double hit_variance(double hit) {
    return hit * (1.0 - hit);
}

// Sums, over the members of a group, of what a token of each brings to each rank or island.
struct Arrivals {
    std::vector<double> mean, variance;

    // Value i is of rank lane + i lanes.
    template <class Variance>
    void add(const std::vector<double>& values, double times, Variance&& of_one, int lane = 0,
             int lanes = 1) {
        const auto stride = static_cast<std::size_t>(lanes);
        mean.resize(values.size() * stride, 0.0);
        variance.resize(values.size() * stride, 0.0);
        std::size_t r = static_cast<std::size_t>(lane);
        for (const double value : values) {
            mean[r] += times * value;
            variance[r] += times * of_one(value);
            r += stride;
        }
    }
    void remove(std::size_t r, double value, double value_variance) {
        mean[r] -= value;
        variance[r] = std::max(0.0, variance[r] - value_variance);
    }
    double total() const { return std::accumulate(mean.begin(), mean.end(), 0.0); }
    // The one with the most among each `count` ranks that get the same.
    Arrivals of_each(int count) const {
        if (count == 1) return *this;
        Arrivals most;
        for (auto first = mean.begin(); first != mean.end(); first += count) {
            const auto found = std::max_element(first, first + count);
            most.mean.push_back(*found);
            most.variance.push_back(variance[static_cast<std::size_t>(found - mean.begin())]);
        }
        return most;
    }
};

// Expected largest of the sums over `tokens` tokens of each member.
double busiest(const Arrivals& a, double tokens, bool noise) {
    const auto [low, high] = std::minmax_element(a.mean.begin(), a.mean.end());
    if (!noise) return tokens * *high;
    if (*high - *low <= 1e-12 * *high) {
        const int count = static_cast<int>(a.mean.size());
        return tokens * *high +
               std::sqrt(tokens * a.variance.front()) * expected_max_of_normals(count);
    }
    std::vector<double> scaled_mean(a.mean.size()), sigma(a.mean.size());
    for (std::size_t r = 0; r < a.mean.size(); ++r) {
        scaled_mean[r] = tokens * a.mean[r];
        sigma[r] = std::sqrt(tokens * a.variance[r]);
    }
    return expected_max(scaled_mean, sigma);
}

// What is known of a group before its load is summed up.
struct GroupView {
    const Cluster& cluster;
    const ExpertLayout& layout;
    std::vector<MemberRates> members;  // one when all are alike
    bool noise = true;
    int first = 0;  // rank of the group that lies worst

    int size() const { return layout.ranks(); }
    // A member's copies are for the ranks with its place among so many: size() / lanes() of them.
    int lanes() const { return layout.lanes(); }
    int places() const { return size() / lanes(); }
    // Ranks that get the same copies.
    int twins() const { return layout.expert_tensor / lanes(); }
    bool alike() const { return members.size() == 1; }
    const MemberRates& of(int member) const {
        return members[alike() ? 0 : static_cast<std::size_t>(member)];
    }
    double repeats() const { return alike() ? size() : 1.0; }
};

// What the copies of all members come to at each rank.
template <class Variance>
Arrivals arrivals_of(const GroupView& group, Variance&& variance) {
    Arrivals all;
    const int lanes = group.lanes();
    for (int m = 0; m < static_cast<int>(group.members.size()); ++m) {
        const std::vector<double>& copies = group.of(m).copies;
        if (!group.alike()) {
            all.add(copies, 1.0, variance, m % lanes, lanes);
            continue;
        }
        for (int lane = 0; lane < lanes; ++lane)
            all.add(copies, group.places(), variance, lane, lanes);
    }
    return all;
}

std::vector<double> running_sum(const std::vector<double>& values) {
    std::vector<double> sums(values.size() + 1, 0.0);
    std::partial_sum(values.begin(), values.end(), sums.begin() + 1);
    return sums;
}

// Off-rank copies a token by class: of the mean rank, and of the rank that sends or receives most.
struct ClassCounts {
    PathCounts mean{}, most{};
};

ClassCounts direct_counts(const GroupView& group) {
    const int n = group.size(), lanes = group.lanes();
    ClassCounts counts;
    if (group.alike() && group.of(0).experts.empty() && groups_alike(group.cluster, n) &&
        groups_alike(group.cluster, lanes)) {
        const PathCounts peers =
            peers_of(group.cluster, group.first, group.first, group.places(), lanes);
        for (std::size_t c = 0; c < peers.size(); ++c)
            counts.mean[c] = counts.most[c] = peers[c] * group.of(0).copies.front();
        return counts;
    }
    std::vector<PathCounts> received(static_cast<std::size_t>(n), PathCounts{});
    std::vector<double> running;
    for (int r = 0; r < n; ++r) {
        const std::vector<double>& copies = group.of(r).copies;
        if (r == 0 || !group.alike()) running = running_sum(copies);
        const int first = group.first + r % lanes;  // of those that r exchanges with
        const PathCounts sent = by_class(group.cluster, group.first + r, first, running, lanes);
        for (std::size_t c = 0; c < sent.size(); ++c) counts.mean[c] += sent[c] / n;
        keep_slowest(group.cluster, sent, counts.most);
        if (group.alike()) {
            received[static_cast<std::size_t>(r)] =
                peers_of(group.cluster, group.first + r, first, group.places(), lanes);
            for (double& c : received[static_cast<std::size_t>(r)])
                c *= copies[static_cast<std::size_t>(r / lanes)];
            continue;
        }
        for (int d = r % lanes; d < n; d += lanes) {
            received[static_cast<std::size_t>(d)]
                    [index(path_class(group.cluster, group.first + r, group.first + d))] +=
                copies[static_cast<std::size_t>(d / lanes)];
        }
    }
    for (PathCounts& r : received) {
        r[index(PathClass::self)] = 0.0;
        keep_slowest(group.cluster, r, counts.most);
    }
    return counts;
}

// `sent(m)[j]`: what a token of member m brings to member j of {m % stride, m % stride + stride,
// ...}.
template <class Sent, class Variance>
LinkCounts links_of(const GroupView& group, int stride, Sent&& sent, Variance&& variance) {
    const double tokens = group.layout.tokens_per_rank;
    const auto spread = [&](double copies) {
        return group.noise ? tokens * variance(copies) : 0.0;
    };
    LinkLoad load = group_load(group.cluster, group.size());
    std::vector<double> columns, spreads;
    if (group.alike()) {
        for (const double copies : sent(0)) {
            columns.push_back(tokens * copies);
            spreads.push_back(spread(copies));
        }
    }
    for (int first = 0; first + group.size() <= load.num_ranks(); first += group.size()) {
        for (int lane = 0; lane < stride && group.alike(); ++lane)
            load.add_columns(first + lane, stride, columns, spreads);
        for (int m = 0; m < group.size() && !group.alike(); ++m) {
            int to = first + m % stride;
            for (const double copies : sent(m)) {
                load.add(first + m, to, tokens * copies, spread(copies));
                to += stride;
            }
        }
    }
    return busiest_links(load, group.cluster, group.size());
}

// Node-dedup's second stage: a rank sends on what those with its local number brought.
LinkCounts links_inside(const GroupView& group, int island) {
    const int n = group.size();
    const double tokens = group.layout.tokens_per_rank;
    LinkLoad load = group_load(group.cluster, n);
    for (int first = 0; first + n <= load.num_ranks(); first += n) {
        for (int r = 0; r < n; ++r) {
            for (int local = 0; local < island; ++local) {
                double copies = 0.0, variance = 0.0;
                for (int source = local; source < n; source += group.alike() ? n : island) {
                    const double one = group.of(source).copies[static_cast<std::size_t>(r)];
                    const double times = group.alike() ? double{1} * n / island : 1.0;
                    copies += times * one;
                    variance += times * hit_variance(one);
                }
                load.add(first + r / island * island + local, first + r, tokens * copies,
                         group.noise ? tokens * variance : 0.0);
            }
        }
    }
    return busiest_links(load, group.cluster, n);
}

// One-stage dispatch: every rank sends its copies straight to the destination ranks.
void add_direct(GroupLoad& load, const GroupView& group) {
    const int n = group.size();
    const double tokens = group.layout.tokens_per_rank;
    const bool naive = group.layout.dedup == Dedup::none;
    const auto variance = [&](double copies) {
        return naive ? rows_variance(copies, group.layout.router) : hit_variance(copies);
    };
    const Arrivals all = arrivals_of(group, variance);
    load.copies_sent = tokens * all.total() / n;
    Arrivals others = all;
    for (int r = 0; r < n; ++r) {
        const double own = group.of(r).copies[static_cast<std::size_t>(r / group.lanes())];
        others.remove(static_cast<std::size_t>(r), own, variance(own));
    }
    const double expected = *std::max_element(others.mean.begin(), others.mean.end());
    const double received = busiest(others.of_each(group.twins()), tokens, group.noise);
    // Chance makes the busiest rank this much busier than expected.
    const double luck = expected > 0.0 ? received / (tokens * expected) : 1.0;
    load.copies_received = luck * tokens * *std::max_element(all.mean.begin(), all.mean.end());
    const ClassCounts counts = direct_counts(group);
    for (std::size_t c = 0; c < counts.mean.size(); ++c) {
        load.copies_mean[c] = tokens * counts.mean[c];
        load.copies_max[c] = luck * tokens * counts.most[c];
    }
    const LinkCounts links = links_of(
        group, group.lanes(), [&](int m) -> const auto& { return group.of(m).copies; }, variance);
    load.copies_on_curve = links.on_curve;
    load.copies_links = links.links;
}

// Over the NIC: a copy to every distinct remote island.
void add_over_nic(GroupLoad& load, const GroupView& group, int island) {
    const int islands = group.size() / island;
    const double tokens = group.layout.tokens_per_rank;
    Arrivals others;
    for (std::size_t m = 0; m < group.members.size(); ++m)
        others.add(group.members[m].node_copies, group.repeats() / island, hit_variance);
    ClassCounts counts;
    std::vector<PathCounts> received(static_cast<std::size_t>(islands), PathCounts{});
    for (int r = 0; r < group.size(); ++r) {
        const std::vector<double>& copies = group.of(r).node_copies;
        const int home = r / island;
        const double own = copies[static_cast<std::size_t>(home)];
        others.remove(static_cast<std::size_t>(home), own / island, hit_variance(own) / island);
        // Members of one island differ only where each routes in its own way.
        if (group.alike() && r % island != 0) continue;
        PathCounts sent{};
        for (int node = 0; node < islands; ++node) {
            if (node == home) continue;
            const std::size_t c =
                index(path_class(group.cluster, group.first + r, group.first + node * island));
            sent[c] += copies[static_cast<std::size_t>(node)];
            received[static_cast<std::size_t>(node)][c] +=
                copies[static_cast<std::size_t>(node)] / (group.alike() ? 1.0 : island);
        }
        for (std::size_t c = 0; c < sent.size(); ++c)
            counts.mean[c] += sent[c] / (group.alike() ? islands : group.size());
        keep_slowest(group.cluster, sent, counts.most);
    }
    for (const PathCounts& r : received) keep_slowest(group.cluster, r, counts.most);
    const double expected = *std::max_element(others.mean.begin(), others.mean.end());
    const double luck =
        expected > 0.0 ? busiest(others, tokens, group.noise) / (tokens * expected) : 1.0;
    for (std::size_t c = 0; c < counts.mean.size(); ++c) {
        load.copies_mean[c] = tokens * counts.mean[c];
        load.copies_max[c] = luck * tokens * counts.most[c];
    }
    const LinkCounts links = links_of(
        group, island, [&](int m) -> const auto& { return group.of(m).node_copies; }, hit_variance);
    load.copies_on_curve = links.on_curve;
    load.copies_links = links.links;
}

// Two stages: a copy per distinct remote island over the NIC, then forwarding inside.
void add_forwarded(GroupLoad& load, const GroupView& group) {
    const int island = group.cluster.island_size(), n = group.size(), islands = n / island;
    const double tokens = group.layout.tokens_per_rank;
    add_over_nic(load, group, island);
    load.forwarded = true;
    // To a rank come copies of all tokens; those that it forwards to itself do not travel.
    const Arrivals all = arrivals_of(group, hit_variance);
    Arrivals others = all;
    for (int r = 0; r < n; ++r) {
        for (int source = r % island; source < n; source += island) {
            const double own = group.of(source).copies[static_cast<std::size_t>(r)];
            others.remove(static_cast<std::size_t>(r), own, hit_variance(own));
        }
    }
    const double mean = tokens * others.total() / n,
                 most = busiest(others.of_each(group.twins()), tokens, group.noise);
    const std::size_t inside = index(path_class(group.cluster, group.first, group.first + 1));
    load.forward_mean[inside] = mean;
    load.forward_max[inside] = std::max(most, mean);
    const LinkCounts links = links_inside(group, island);
    load.forward_on_curve = links.on_curve;
    load.forward_links = links.links;
    const double across = std::accumulate(load.copies_mean.begin(), load.copies_mean.end(), 0.0);
    const double arrived = tokens * all.total() / n;
    load.copies_sent = across + arrived / islands;
    const double expected = tokens * *std::max_element(others.mean.begin(), others.mean.end());
    const double luck = expected > 0.0 ? most / expected : 1.0;
    load.copies_received = luck * tokens * *std::max_element(all.mean.begin(), all.mean.end());
    load.copies_forwarded = arrived * (islands - 1) / islands;
}

// Rows of each expert of part `part` over all tokens of the group.
std::vector<double> own_experts(const GroupView& group, std::size_t part) {
    const std::size_t experts = group.of(0).experts.size();
    const std::size_t per_part = experts / static_cast<std::size_t>(group.layout.group_size);
    std::vector<double> rows(per_part, 0.0);
    for (const MemberRates& member : group.members) {
        for (std::size_t e = 0; e < per_part; ++e)
            rows[e] += group.repeats() * member.experts[part * per_part + e];
    }
    return rows;
}

// The group that lies worst, with the rates of its members.
GroupView group_view(const Scenario& scenario, const ExpertLayout& layout, int layer) {
    GroupView group{.cluster = scenario.cluster,
                    .layout = layout,
                    .members = {},
                    .noise = scenario.routing.noise,
                    .first = worst_group(scenario.cluster, layout.ranks())};
    const int distinct = members_alike(scenario.routing) ? 1 : layout.ranks();
    for (int m = 0; m < distinct; ++m) {
        MemberRates& rates =
            group.members.emplace_back(member_rates(scenario, layout, layer, 0, m));
        if (group.twins() == 1) continue;
        std::vector<double> of_ranks;
        for (const double copies : rates.copies)
            of_ranks.insert(of_ranks.end(), static_cast<std::size_t>(group.twins()), copies);
        rates.copies = std::move(of_ranks);
    }
    return group;
}

// Routing that no exchange follows: every rank works on all rows of its own routers, and of those
// that share its experts' width, whatever the skew, but its experts share them unevenly.
GroupLoad local_load(const Scenario& scenario, const ExpertLayout& layout, int layer) {
    const double own = layout.tokens_per_rank * layout.router.top_k,
                 rows = own * layout.expert_tensor;
    GroupLoad load{.rows_mean = rows, .rows_max = rows, .copies_sent = own, .copies_received = own};
    if (scenario.routing.skew != Skew::none)
        load.spread = row_spread(own_experts(group_view(scenario, layout, layer), 0));
    return load;
}

GroupLoad load_of(const GroupView& group) {
    GroupLoad load;
    const ExpertLayout& layout = group.layout;
    const double tokens = layout.tokens_per_rank;
    Arrivals rows;
    for (const MemberRates& member : group.members) {
        rows.add(member.rows, group.repeats(),
                 [&](double r) { return rows_variance(r, layout.router); });
    }
    load.rows_mean = tokens * layout.router.top_k * layout.expert_tensor;
    load.rows_max = std::max(load.rows_mean, busiest(rows, tokens, group.noise));
    const std::size_t hot = static_cast<std::size_t>(
        std::max_element(rows.mean.begin(), rows.mean.end()) - rows.mean.begin());
    if (group.noise) {
        load.rows_sigma =
            std::sqrt(tokens * rows.variance[hot]) * sigma_of_max_of_normals(layout.group_size);
    }
    if (!group.of(0).experts.empty()) load.spread = row_spread(own_experts(group, hot));
    if (layout.gathers_tokens) {
        load.copies_sent = load.copies_received = load.rows_max;
    } else if (is_forwarded(group.cluster, layout)) {
        add_forwarded(load, group);
    } else {
        add_direct(load, group);
    }
    if (layout.capacity_factor) {
        load.rows_max = std::min(load.rows_max, *layout.capacity_factor * load.rows_mean);
    }
    return load;
}

}  // namespace

GroupLoad expected_load(const Scenario& scenario, const Plan& plan, int layer) {
    const ExpertLayout layout = expert_layout(scenario, plan);
    if (!layout.exchanges()) return local_load(scenario, layout, layer);
    return load_of(group_view(scenario, layout, layer));
}

}  // namespace headway::inline workload
