#include "sim/operation.hpp"

#include <algorithm>
#include <cmath>

namespace headway::sim {
namespace {

using Efficiency = std::array<double, static_cast<std::size_t>(kNumPathClasses)>;

// Appends messages between members of one operation.
struct Writer {
    const Topology& topology;
    const std::vector<int>& members;
    const Efficiency& efficiency;

    void add(Stage& stage, int from, int to, double bytes, double shared_by = 1.0) const {
        const int source = members[static_cast<std::size_t>(from)];
        const int destination = members[static_cast<std::size_t>(to)];
        if (source == destination || bytes <= 0.0) return;
        Message m{.from = from, .to = to, .bytes = bytes};
        m.path = topology.live_path(source, destination);
        m.path_class = path_class(topology.cluster(), source, destination);
        const bool fabric = m.path_class == PathClass::nic || m.path_class == PathClass::spine;
        m.wire_bytes =
            bytes * (fabric ? shared_by : 1.0) / efficiency[static_cast<std::size_t>(m.path_class)];
        stage.messages.push_back(m);
    }
};

// Bytes from member to member of one group; uniform without a matrix.
struct GroupBytes {
    const TrafficMatrix* matrix = nullptr;
    std::int64_t uniform = 0;

    double operator()(int from, int to) const {
        return static_cast<double>(matrix ? matrix->at(from, to) : uniform);
    }
};

GroupBytes group_bytes(const ExchangeStage& stage, int group) {
    if (stage.matrices.empty()) return {.uniform = stage.uniform_bytes};
    const auto slot = stage.matrices.size() == 1 ? 0 : static_cast<std::size_t>(group);
    return {.matrix = stage.matrices[slot].get(), .uniform = stage.uniform_bytes};
}

void expand_grouped(const GroupBytes& bytes, int n, const Writer& writer, Stage stage,
                    std::vector<Stage>& out) {
    // Without any bytes to send it is a rendezvous.
    stage.collective = bytes.matrix == nullptr && bytes.uniform == 0;
    for (int i = 0; i < n; ++i) {
        for (int j = 0; j < n; ++j) writer.add(stage, i, j, bytes(i, j));
    }
    out.push_back(std::move(stage));
}

void expand_pairwise(const GroupBytes& bytes, int n, const Writer& writer, const Stage& stage,
                     std::vector<Stage>& out) {
    for (int round = 1; round < n; ++round) {
        out.push_back(stage);
        for (int i = 0; i < n; ++i) {
            const int j = (i + round) % n;
            writer.add(out.back(), i, j, bytes(i, j));
        }
    }
}

void expand_hierarchical(const GroupBytes& bytes, const Writer& writer, const Stage& stage,
                         std::vector<Stage>& out) {
    const int n = static_cast<int>(writer.members.size());
    const int island = std::min(n, writer.topology.cluster().island_size());
    Stage inside = stage, across = stage;
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
    out.push_back(std::move(inside));
    out.push_back(std::move(across));
}

// Members of one island must sit together, the same number on each; else one ring in member order.
int rings_of(const std::vector<int>& members, int island) {
    const auto n = static_cast<int>(members.size());
    int k = 0;
    while (k < n && members[static_cast<std::size_t>(k)] / island == members[0] / island) ++k;
    if (k == n || n % k != 0) return 1;
    for (int i = 0; i < n; ++i) {
        const auto at = static_cast<std::size_t>(i), head = static_cast<std::size_t>(i / k * k);
        if (members[at] / island != members[head] / island) return 1;
    }
    return k;
}

// Ring c enters its first island at member c; each island is left by the member next to where it
// was entered, and the next one is entered at the same number (on the same rail).
std::vector<int> ring_order(int n, int k, int c) {
    std::vector<int> order;
    int entry = c;
    for (int first = 0; first < n; first += k) {
        for (int step = 0; step < k; ++step) order.push_back(first + (entry + step) % k);
        entry = (entry + k - 1) % k;
    }
    return order;
}

void expand_ring(double bytes, const Writer& writer, Stage& stage) {
    const auto n = static_cast<int>(writer.members.size());
    const int k = rings_of(writer.members, writer.topology.cluster().island_size());
    for (int c = 0; c < k; ++c) {
        const std::vector<int> order = ring_order(n, k, c);
        for (int i = 0; i < n; ++i) {
            writer.add(stage, order[static_cast<std::size_t>(i)],
                       order[static_cast<std::size_t>((i + 1) % n)], bytes / k, k);
        }
    }
}

void expand_tree(double bytes, const Writer& writer, Stage& stage) {
    const auto n = static_cast<int>(writer.members.size());
    for (const int shift : {0, n / 2}) {
        for (int i = 1; i < n; ++i) {  // heap order: the parent of i is (i - 1) / 2
            const int child = (i + shift) % n, parent = ((i - 1) / 2 + shift) % n;
            writer.add(stage, child, parent, bytes / 2);
            writer.add(stage, parent, child, bytes / 2);
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

Operation expand(const ExchangeTask& task, int group, const Topology& topology) {
    Operation op;
    for (int i = 0; i < task.group_size; ++i) op.members.push_back(group * task.group_size + i);
    for (const ExchangeStage& s : task.stages) {
        const Writer writer{topology, op.members, s.efficiency};
        const GroupBytes bytes = group_bytes(s, group);
        const Stage stage{.latency = to_picoseconds(s.latency), .messages = {}};
        switch (task.algorithm) {
            case ExchangeAlgorithm::grouped:
                expand_grouped(bytes, task.group_size, writer, stage, op.stages);
                break;
            case ExchangeAlgorithm::pairwise:
                expand_pairwise(bytes, task.group_size, writer, stage, op.stages);
                break;
            case ExchangeAlgorithm::hierarchical:
                expand_hierarchical(bytes, writer, stage, op.stages);
                break;
        }
    }
    return op;
}

Operation expand(const ReduceTask& task, int group, const Topology& topology) {
    Operation op;
    const int first = group / task.stride * task.stride * task.group_size + group % task.stride;
    for (int i = 0; i < task.group_size; ++i) op.members.push_back(first + i * task.stride);
    Stage stage{.latency = to_picoseconds(task.latency), .collective = true, .messages = {}};
    const Writer writer{topology, op.members, task.efficiency};
    const double n = task.group_size, bytes = static_cast<double>(task.bytes);
    const double passes = task.collective == Collective::all_reduce ? 2.0 : 1.0;
    if (task.algorithm == ReduceAlgorithm::tree && task.collective == Collective::all_reduce) {
        expand_tree(bytes, writer, stage);
    } else {
        expand_ring(passes * bytes * (n - 1) / n, writer, stage);
    }
    op.stages.push_back(std::move(stage));
    return op;
}

}  // namespace headway::sim
