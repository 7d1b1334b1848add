#include "sim/all_to_all.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <span>
#include <stdexcept>

#include "sim/fair_share.hpp"
#include "sim/flow_engine.hpp"

namespace headway::sim {
namespace {

struct LinkTotals {
    std::vector<double> bytes, busy_seconds;  // [link]
};

void describe_links(const Topology& topology, const LinkTotals& totals, AllToAllResult& result) {
    double bound = 0.0;
    for (std::uint32_t l = 0; l < totals.bytes.size(); ++l) {
        if (totals.bytes[l] <= 0.0) continue;
        bound = std::max(bound, totals.bytes[l] / topology.capacity()[l]);
        result.links.push_back({.name = topology.link_name(l),
                                .capacity = topology.capacity()[l] * (byte / second),
                                .bytes = totals.bytes[l] * byte,
                                .busy = totals.busy_seconds[l] * second});
    }
    result.lower_bound = bound * second;
}

// The bytes of every off-diagonal entry when they are all the same and positive, else 0.
std::int64_t uniform_bytes(const TrafficMatrix& matrix) {
    if (matrix.num_ranks < 2) return 0;
    const std::int64_t value = matrix.at(0, 1);
    std::int64_t differing = 0;
    for (int i = 0; i < matrix.num_ranks; ++i) {
        const std::int64_t* row =
            &matrix.bytes[static_cast<std::size_t>(i) * static_cast<std::size_t>(matrix.num_ranks)];
        for (int j = 0; j < matrix.num_ranks; ++j) differing += row[j] != value && i != j;
    }
    return differing == 0 ? value : 0;
}

// Flows of rank 0 by the kinds of links that they cross; by symmetry every rank has the same.
struct FlowClass {
    double flows_per_rank = 0.0;
    FlowPath path;
};

std::vector<FlowClass> classes_of_rank_0(const Topology& topology) {
    std::array<int, static_cast<std::size_t>(kNumLinkKinds)> links_of_kind{};
    for (std::uint32_t l = 0; l < static_cast<std::uint32_t>(topology.num_links()); ++l) {
        ++links_of_kind[static_cast<std::size_t>(topology.kind(l))];
    }
    std::map<std::vector<int>, int> flows_by_kinds;
    for (int j = 1; j < topology.num_ranks(); ++j) {
        std::vector<int> kinds;
        const Path path = topology.path(0, j);
        for (const std::uint32_t l : path.span()) {
            kinds.push_back(static_cast<int>(topology.kind(l)));
        }
        ++flows_by_kinds[kinds];
    }
    std::vector<FlowClass> classes;
    for (const auto& [kinds, flows] : flows_by_kinds) {
        FlowClass c{.flows_per_rank = static_cast<double>(flows), .path = {}};
        for (const int kind : kinds) {
            // All flows of the class spread evenly over all links of the kind.
            const double crossings = c.flows_per_rank * topology.num_ranks() /
                                     links_of_kind[static_cast<std::size_t>(kind)];
            c.path.push_back({static_cast<std::uint32_t>(kind), crossings});
        }
        classes.push_back(std::move(c));
    }
    return classes;
}

// Capacity by link kind; the links of a kind are equal in a symmetric topology.
std::vector<double> capacity_by_kind(const Topology& topology) {
    std::vector<double> result(static_cast<std::size_t>(kNumLinkKinds), 0.0);
    for (std::uint32_t l = 0; l < static_cast<std::uint32_t>(topology.num_links()); ++l) {
        result[static_cast<std::size_t>(topology.kind(l))] = topology.capacity()[l];
    }
    return result;
}

AllToAllResult collapsed(const Topology& topology, std::int64_t bytes) {
    const std::vector<FlowClass> classes = classes_of_rank_0(topology);
    const std::vector<double> capacity = capacity_by_kind(topology);
    std::vector<double> left(classes.size(), static_cast<double>(bytes));
    std::vector<double> kind_busy(capacity.size(), 0.0), kind_bytes(capacity.size(), 0.0);
    AllToAllResult result;
    double now = 0.0, weighted = 0.0;
    const double ranks = topology.num_ranks();
    while (std::ranges::any_of(left, [](double b) { return b > 0.0; })) {
        std::vector<FlowPath> active(classes.size());
        for (std::size_t c = 0; c < classes.size(); ++c) {
            if (left[c] > 0.0) active[c] = classes[c].path;
        }
        const std::vector<double> rates = max_min_rates(capacity, active);
        double step = std::numeric_limits<double>::infinity();
        for (std::size_t c = 0; c < classes.size(); ++c) {
            if (left[c] > 0.0) step = std::min(step, left[c] / rates[c]);
        }
        now += step;
        ++result.instants;
        for (std::size_t c = 0; c < classes.size(); ++c) {
            if (left[c] <= 0.0) continue;
            for (const Crossing& x : classes[c].path) kind_busy[x.link] = now;
            left[c] -= rates[c] * step;
            if (left[c] > 1e-9 * static_cast<double>(bytes)) continue;
            left[c] = 0.0;
            weighted += now * classes[c].flows_per_rank * ranks;
            result.flows += std::llround(classes[c].flows_per_rank * ranks);
            for (const Crossing& x : classes[c].path) {
                kind_bytes[x.link] += x.multiplicity * static_cast<double>(bytes);
            }
        }
    }
    LinkTotals totals;
    for (std::uint32_t l = 0; l < static_cast<std::uint32_t>(topology.num_links()); ++l) {
        const auto kind = static_cast<std::size_t>(topology.kind(l));
        totals.bytes.push_back(kind_bytes[kind]);
        totals.busy_seconds.push_back(kind_busy[kind]);
    }
    result.completion = now * second;
    result.mean_flow_completion = weighted / static_cast<double>(result.flows) * second;
    result.rank_finish.assign(static_cast<std::size_t>(topology.num_ranks()), now * second);
    describe_links(topology, totals, result);
    return result;
}

// Union-find over links: flows that (transitively) share links belong to one engine.
struct LinkSets {
    std::vector<std::uint32_t> parent;

    explicit LinkSets(int links) : parent(static_cast<std::size_t>(links)) {
        std::iota(parent.begin(), parent.end(), 0U);
    }
    std::uint32_t root(std::uint32_t l) {
        while (parent[l] != l) l = parent[l] = parent[parent[l]];
        return l;
    }
    void join(std::span<const std::uint32_t> links) {
        for (const std::uint32_t l : links) {
            const std::uint32_t a = root(links[0]), b = root(l);
            parent[std::max(a, b)] = std::min(a, b);
        }
    }
};

struct PairFlow {
    int source, destination;
    double bytes;
    Path path;
};

class FlowByFlow {
  public:
    FlowByFlow(const Topology& topology, const TrafficMatrix& matrix)
        : topology_(topology), sets_(topology.num_links()) {
        const auto links = static_cast<std::size_t>(topology.num_links());
        totals_.bytes.assign(links, 0.0);
        totals_.busy_seconds.assign(links, 0.0);
        local_.assign(links, 0);
        rank_finish_.assign(static_cast<std::size_t>(matrix.num_ranks), 0);
        for (int i = 0; i < matrix.num_ranks; ++i) {
            for (int j = 0; j < matrix.num_ranks; ++j) {
                if (i == j || matrix.at(i, j) <= 0) continue;
                const std::vector<Path> paths = topology.live_paths(i, j);
                const double bytes =
                    static_cast<double>(matrix.at(i, j)) / static_cast<double>(paths.size());
                for (const Path& path : paths) {
                    sets_.join(path.span());
                    flows_.push_back({i, j, bytes, path});
                }
            }
        }
    }

    AllToAllResult run(double epsilon) {
        AllToAllResult result;
        const auto root_of = [&](const PairFlow& flow) { return sets_.root(flow.path.links[0]); };
        std::ranges::stable_sort(flows_, {}, root_of);
        std::vector<std::vector<std::uint32_t>> links(sets_.parent.size());  // [root]
        for (std::uint32_t l = 0; l < links.size(); ++l) links[sets_.root(l)].push_back(l);
        for (auto begin = flows_.begin(); begin != flows_.end();) {
            const std::uint32_t root = root_of(*begin);
            const auto end = std::find_if(begin, flows_.end(),
                                          [&](const PairFlow& f) { return root_of(f) != root; });
            run_set(links[root], {begin, end}, epsilon, result);
            begin = end;
        }
        Picoseconds last = 0;
        for (const Picoseconds t : rank_finish_) {
            result.rank_finish.push_back(static_cast<double>(t) * ps);
            last = std::max(last, t);
        }
        result.completion = static_cast<double>(last) * ps;
        if (result.flows > 0) {
            result.mean_flow_completion = sum_of_finish_ / static_cast<double>(result.flows) * ps;
        }
        describe_links(topology_, totals_, result);
        // Batching may end it early, by no more than its error bound.
        result.completion = max(result.completion, result.lower_bound);
        return result;
    }

  private:
    void run_set(std::span<const std::uint32_t> links, std::span<const PairFlow> flows,
                 double epsilon, AllToAllResult& result) {
        std::vector<double> capacity;
        for (const std::uint32_t l : links) {
            local_[l] = static_cast<std::uint32_t>(capacity.size());
            capacity.push_back(topology_.capacity()[l]);
        }
        FlowEngine engine(capacity, epsilon);
        for (const PairFlow& flow : flows) {
            Path inside;
            for (const std::uint32_t l : flow.path.span()) inside.add(local_[l]);
            engine.start(inside.span(), flow.bytes);
        }
        std::vector<Completion> done;
        while (engine.next_completion() != kNever) {
            engine.advance(engine.next_completion(), done);
            for (const Completion& c : done) finish(flows[c.flow], c.time);
            done.clear();
        }
        result.flows += static_cast<std::int64_t>(flows.size());
        result.instants += engine.num_instants();
        result.error_bound = max(result.error_bound, engine.error_bound_seconds() * second);
    }

    void finish(const PairFlow& flow, Picoseconds time) {
        sum_of_finish_ += static_cast<double>(time);
        Picoseconds& sender = rank_finish_[static_cast<std::size_t>(flow.source)];
        Picoseconds& receiver = rank_finish_[static_cast<std::size_t>(flow.destination)];
        const Picoseconds arrived = time + topology_.latency(flow.path);
        sender = std::max(sender, arrived);
        receiver = std::max(receiver, arrived);
        for (const std::uint32_t l : flow.path.span()) {
            totals_.bytes[l] += flow.bytes;
            // All flows start at zero, so a link is busy until its last flow ends.
            totals_.busy_seconds[l] =
                std::max(totals_.busy_seconds[l], static_cast<double>(time) * 1e-12);
        }
    }

    const Topology& topology_;
    LinkSets sets_;
    std::vector<PairFlow> flows_;
    std::vector<std::uint32_t> local_;  // [link] its number in its set
    LinkTotals totals_;
    std::vector<Picoseconds> rank_finish_;
    double sum_of_finish_ = 0.0;
};

}  // namespace

AllToAllResult all_to_all(const Topology& topology, const TrafficMatrix& matrix,
                          const AllToAllOptions& options) {
    if (matrix.num_ranks != topology.num_ranks()) {
        throw std::logic_error("all_to_all: matrix and topology differ in ranks");
    }
    const std::int64_t uniform =
        options.collapse && topology.is_symmetric() ? uniform_bytes(matrix) : 0;
    if (uniform > 0) return collapsed(topology, uniform);
    try {
        return FlowByFlow(topology, matrix).run(options.epsilon);
    } catch (const DeadPath& dead) {
        AllToAllResult result;
        result.unreachable = dead.where();
        return result;
    }
}

}  // namespace headway::sim
