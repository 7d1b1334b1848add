#include "sim/operation.hpp"

#include <algorithm>
#include <cmath>
#include <span>

namespace headway::sim {
namespace {

// Appends messages between members of one operation.
struct Writer {
    const PathTable& paths;
    const std::vector<int>& members;
    const Efficiency& efficiency;

    void add(Stage& stage, int from, int to, double bytes) const {
        const int source = members[static_cast<std::size_t>(from)];
        const int destination = members[static_cast<std::size_t>(to)];
        if (source == destination || bytes <= 0.0) return;
        const std::span<const Route> planes = paths.routes(source, destination);
        const double part = bytes / static_cast<double>(planes.size());
        for (const Route& route : planes) {
            const PathClass c = route.path_class;
            stage.messages.push_back({.from = from,
                                      .to = to,
                                      .bytes = part,
                                      .wire_bytes = part / efficiency[static_cast<std::size_t>(c)],
                                      .path_class = c,
                                      .path = route.path});
        }
    }
};

// Bytes from member to member of one group; uniform without a matrix.
struct GroupBytes {
    const TrafficMatrix* matrix = nullptr;
    std::int64_t uniform = 0;

    bool transposed = false;

    double operator()(int from, int to) const {
        if (!matrix) return static_cast<double>(uniform);
        return static_cast<double>(transposed ? matrix->at(to, from) : matrix->at(from, to));
    }
};

GroupBytes group_bytes(const ExchangeStage& stage, int group) {
    if (stage.matrices.empty()) return {.uniform = stage.uniform_bytes};
    const std::size_t slot =
        static_cast<std::size_t>(group) % stage.matrices.size();  // in its role
    return {.matrix = stage.matrices[slot].get(),
            .uniform = stage.uniform_bytes,
            .transposed = stage.transposed};
}

// Appends stages to an operation; those of its former life lend their memory.
struct Stages {
    std::vector<Stage>& all;
    std::size_t used = 0;

    std::size_t add(Picoseconds latency, bool collective) {
        if (used == all.size()) all.emplace_back();
        Stage& stage = all[used];
        stage.latency = latency;
        stage.collective = collective;
        stage.messages.clear();
        return used++;
    }
    void end() { all.resize(used); }
};

void expand_grouped(const GroupBytes& bytes, int n, const Writer& writer, Picoseconds latency,
                    Stages& out) {
    // Without any bytes to send it is a rendezvous.
    Stage& stage = out.all[out.add(latency, bytes.matrix == nullptr && bytes.uniform == 0)];
    for (int i = 0; i < n; ++i) {
        for (int j = 0; j < n; ++j) writer.add(stage, i, j, bytes(i, j));
    }
}

void expand_in_chunks(const ExchangeTask& task, int group, const PathTable& paths,
                      const std::vector<int>& members, Stages& out) {
    Picoseconds latency = 0;
    for (const ExchangeStage& s : task.stages) latency += to_picoseconds(s.latency);
    Stage& stage = out.all[out.add(latency, false)];
    for (const ExchangeStage& s : task.stages) {
        const Writer writer{paths, members, s.efficiency};
        const GroupBytes bytes = group_bytes(s, group);
        for (int i = 0; i < task.group_size; ++i) {
            for (int j = 0; j < task.group_size; ++j) writer.add(stage, i, j, bytes(i, j));
        }
    }
}

void expand_pairwise(const GroupBytes& bytes, int n, const Writer& writer, Picoseconds latency,
                     Stages& out) {
    for (int round = 1; round < n; ++round) {
        Stage& stage = out.all[out.add(latency, false)];
        for (int i = 0; i < n; ++i) {
            const int j = (i + round) % n;
            writer.add(stage, i, j, bytes(i, j));
        }
    }
}

void expand_hierarchical(const GroupBytes& bytes, const Writer& writer, Picoseconds latency,
                         Stages& out) {
    const int n = static_cast<int>(writer.members.size());
    const int island = std::min(n, writer.paths.topology().cluster().island_size());
    const std::size_t first = out.add(latency, false), second = out.add(latency, false);
    Stage &inside = out.all[first], &across = out.all[second];
    for (int i = 0; i < n; ++i) {
        const int base = i / island * island;
        for (int local = 0; base + local < n && local < island; ++local) {
            double sum = 0.0;  // all that leaves i for this local number, on any island
            for (int j = local; j < n; j += island) sum += bytes(i, j);
            writer.add(inside, i, base + local, sum);
        }
        for (int j = i % island; j < n; j += island) {
            double sum = 0.0;  // what the ranks of i's island have for j
            for (int k = base; k < std::min(n, base + island); ++k) sum += bytes(k, j);
            if (j / island != i / island) writer.add(across, i, j, sum);
        }
    }
}

// Ring c enters its first island at member c; each island is left by another member than it was
// entered by, and the next one is entered at the same number (on the same rail). On a switch rings
// pass their neighbours in turn. With pairwise links they go to and fro, +1, -1, +2, -2, ... of c
// (Williams 1949): steps of all lengths, so that k rings, k even, share no pair's link.
std::vector<int> ring_order(int n, int k, int c, bool pairwise) {
    std::vector<int> order;
    const auto offset = [&](int step) {
        return pairwise ? (step % 2 == 0 ? k - step / 2 : (step + 1) / 2) : step;
    };
    int entry = c;
    for (int first = 0; first < n; first += k) {
        for (int step = 0; step < k; ++step) order.push_back(first + (entry + offset(step)) % k);
        entry = (entry + offset(k - 1)) % k;
    }
    return order;
}

void expand_ring(double bytes, int k, const Writer& writer, Stage& stage) {
    const auto n = static_cast<int>(writer.members.size());
    const Cluster& cluster = writer.paths.topology().cluster();
    const bool pairwise = cluster.has_pairwise_links();
    if (pairwise &&
        path_class(cluster, writer.members.front(), writer.members.back()) == PathClass::nvlink) {
        for (int i = 0; i < n; ++i) {  // each member's part goes straight to all others
            for (int j = 0; j < n; ++j) writer.add(stage, i, j, bytes / (n - 1));
        }
        return;
    }
    for (int c = 0; c < k; ++c) {
        const std::vector<int> order = ring_order(n, k, c, pairwise);
        for (int i = 0; i < n; ++i) {
            writer.add(stage, order[static_cast<std::size_t>(i)],
                       order[static_cast<std::size_t>((i + 1) % n)], bytes / k);
        }
    }
}

// Lane c is rotated by c inside the islands, so that all NICs work.
void expand_tree(double bytes, int k, const Writer& writer, Stage& stage) {
    const auto n = static_cast<int>(writer.members.size());
    const double edge = bytes / 2 / k;
    for (int c = 0; c < k; ++c) {
        const auto place = [&](int i) { return i / k * k + (i + c) % k; };
        for (const int shift : {0, n / 2}) {
            for (int i = 1; i < n; ++i) {  // heap order: the parent of i is (i - 1) / 2
                const int child = place((i + shift) % n), parent = place(((i - 1) / 2 + shift) % n);
                writer.add(stage, child, parent, edge);
                writer.add(stage, parent, child, edge);
            }
        }
    }
}

}  // namespace

Picoseconds to_picoseconds(Seconds time) {
    return static_cast<Picoseconds>(std::llround(time.in(ps)));
}

int num_groups(const ExchangeTask& task, int num_ranks) {
    return num_ranks / task.group_size;
}

int num_groups(const ReduceTask& task, int num_ranks) {
    return num_ranks / task.group_size;
}

int group_of(const ExchangeTask& task, int rank) {
    return rank / task.group_size;
}

int group_of(const ReduceTask& task, int rank) {
    const int block = task.group_size * task.stride;
    return rank / block * task.stride + rank % task.stride;
}

void expand(const ExchangeTask& task, int group, const PathTable& paths, Operation& op) {
    op.members.clear();
    for (int i = 0; i < task.group_size; ++i) op.members.push_back(group * task.group_size + i);
    Stages out{.all = op.stages};
    if (task.in_chunks && task.stages.size() > 1) {
        expand_in_chunks(task, group, paths, op.members, out);
        return out.end();
    }
    for (const ExchangeStage& s : task.stages) {
        const Writer writer{paths, op.members, s.efficiency};
        const GroupBytes bytes = group_bytes(s, group);
        const Picoseconds latency = to_picoseconds(s.latency);
        switch (task.algorithm) {
            case ExchangeAlgorithm::grouped:
                expand_grouped(bytes, task.group_size, writer, latency, out);
                break;
            case ExchangeAlgorithm::pairwise:
                expand_pairwise(bytes, task.group_size, writer, latency, out);
                break;
            case ExchangeAlgorithm::hierarchical:
                expand_hierarchical(bytes, writer, latency, out);
                break;
        }
    }
    out.end();
}

void expand(const ReduceTask& task, int group, const PathTable& paths, Operation& op) {
    op.members.clear();
    const int first = group / task.stride * task.stride * task.group_size + group % task.stride;
    for (int i = 0; i < task.group_size; ++i) op.members.push_back(first + i * task.stride);
    Stages out{.all = op.stages};
    Stage& stage = out.all[out.add(to_picoseconds(task.latency), true)];
    const Writer writer{paths, op.members, task.efficiency};
    const auto in_role = static_cast<std::size_t>(group);
    const std::vector<std::int64_t>& own = task.bytes_of_group;
    const double n = task.group_size,
                 bytes = static_cast<double>(own.empty() ? task.bytes : own[in_role % own.size()]);
    const double passes = task.collective == Collective::all_reduce ? 2.0 : 1.0;
    const int lanes = ring_lanes(paths.topology().cluster(), task.group_size, task.stride).lanes;
    if (task.algorithm == ReduceAlgorithm::tree && task.collective == Collective::all_reduce) {
        expand_tree(bytes, lanes, writer, stage);
    } else {
        expand_ring(passes * bytes * (n - 1) / n, lanes, writer, stage);
    }
    out.end();
}

double decouple(Stage& stage, const Topology& topology, double epsilon) {
    const double share = topology.relay_share();
    if (epsilon <= 0.0 || share >= 1.0) return 0.0;
    const auto relayed = [](const Message& m) {
        return m.path_class != PathClass::nvlink && m.path.size > 2 && m.path.skip == 0;
    };
    const auto is_port = [&](std::uint32_t l) {
        return topology.kind(l) == LinkKind::nvlink_up || topology.kind(l) == LinkKind::nvlink_down;
    };
    std::vector<double> inside(static_cast<std::size_t>(topology.num_links()), 0.0);
    std::vector<double> fabric(inside.size(), 0.0);
    bool any = false;
    for (const Message& m : stage.messages) {
        std::vector<double>& load = m.path_class == PathClass::nvlink ? inside : fabric;
        for (const std::uint32_t l : m.path.span()) load[l] += m.wire_bytes;
        any = any || (relayed(m) && is_port(m.path.links[0]));
    }
    if (!any) return 0.0;
    double inside_time = 0.0, fabric_time = 0.0;
    for (std::uint32_t l = 0; l < inside.size(); ++l) {
        if (inside[l] > 0.0)
            inside_time = std::max(inside_time, inside[l] / topology.capacity()[l]);
        if (fabric[l] > 0.0 && !is_port(l))
            fabric_time = std::max(fabric_time, fabric[l] / topology.capacity()[l]);
    }
    const double error = inside_time / (1.0 - share);
    if (error > 2.0 * epsilon * fabric_time) return 0.0;
    for (Message& m : stage.messages) {
        if (relayed(m) && is_port(m.path.links[0])) m.path.skip = 2;
    }
    return error;
}

}  // namespace headway::sim
