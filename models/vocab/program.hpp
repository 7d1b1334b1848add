// Program: a training step ready to be executed by the simulator. Every rank of a role runs the
// same list of tasks, in order of each stream, with its own compute times; a role is a pipeline
// rank, a block of consecutive ranks, and without a pipeline there is one. It is built from a
// Workload by pricing the compute tasks with a Profile, so that the engine itself needs to know
// neither models nor profiles.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

#include "models/vocab/cluster.hpp"
#include "models/vocab/overlap.hpp"
#include "models/vocab/phase.hpp"
#include "models/vocab/profile.hpp"
#include "models/vocab/traffic_matrix.hpp"
#include "models/vocab/units.hpp"

namespace headway {

// gradient: reductions of gradients, beside the exchanges of the backward pass. offload, reload:
// copies to and from host memory; host: what the CPUs compute. send_*: messages to other pipeline
// ranks, activations and their gradients, each kind one after the other.
enum class Stream {
    compute,
    communication,
    gradient,
    offload,
    reload,
    host,
    send_forward,
    send_backward
};
inline constexpr int kNumStreams = 6;           // of the work of one rank
inline constexpr int kNumStreamsWithSends = 8;  // all
// Neither slows compute down nor is slowed by it.
constexpr bool is_of_host(Stream s) {
    return s == Stream::offload || s == Stream::reload || s == Stream::host;
}

// Runs beside a whole pass, which ends when that has ended.
constexpr bool is_beside_passes(Stream s) {
    return s == Stream::gradient || is_of_host(s);
}

// Achieved fraction of each path class's link bandwidth.
using Efficiency = std::array<double, static_cast<std::size_t>(kNumPathClasses)>;
constexpr Efficiency full_efficiency() {
    Efficiency result{};
    result.fill(1.0);
    return result;
}

struct ComputeTask {
    // One entry: the same on all ranks; else [rank of the role]. Without the cluster's rank
    // overrides, which the simulator applies.
    std::vector<Seconds> per_rank;
    int pieces = 1;  // Overlap's
    Flops flops;     // of the busiest rank, for the report
    Bytes bytes;
};

enum class ExchangeAlgorithm {
    grouped,       // all pairs at once, as NCCL's grouped send/recv and ncclAlltoAll run it
    pairwise,      // n-1 rounds, rank i exchanges with i XOR r or (i + r) mod n
    hierarchical,  // NVLink to the rank on the right rail, then NIC
};

// One all-to-all per group of `group_size` consecutive ranks. `stages` run one after the other on
// every rank (node-dedup has two: over the NIC to the same-numbered GPU of each destination node,
// then NVLink forwarding). The matrix is the one of a single group when all groups share it, else
// one matrix a group of the role.
struct ExchangeStage {
    std::vector<std::shared_ptr<const TrafficMatrix>>
        matrices;                    // one, or [group of the role]; null: uniform
    bool transposed = false;         // the matrices are read [destination, source]
    std::int64_t uniform_bytes = 0;  // per ordered pair, when there is no matrix
    Seconds latency;                 // before the first byte of this stage arrives
    // At this stage's message sizes, from the profile's curves, so that an uncontended uniform
    // exchange takes exactly the predicted time; 1 when unused.
    Efficiency efficiency = full_efficiency();
};

struct ExchangeTask {
    int group_size = 1;
    ExchangeAlgorithm algorithm = ExchangeAlgorithm::grouped;
    // Grouped stages that forward chunk by chunk run beside each other, after the latency of both:
    // what many small chunks come to. Else a rank ends a stage before it enters the next.
    bool in_chunks = false;
    std::vector<ExchangeStage> stages;
};

enum class ReduceAlgorithm { ring, tree };

// Reduction over `group_size` ranks that are `stride` apart: {r, r + stride, ...}.
struct ReduceTask {
    Collective collective = Collective::all_reduce;
    ReduceAlgorithm algorithm = ReduceAlgorithm::ring;
    int group_size = 1;
    int stride = 1;
    std::int64_t bytes = 0;                    // of the whole buffer, per rank
    std::vector<std::int64_t> bytes_of_group;  // [group of the role] where they differ; else none
    Seconds latency;
    // What a lane achieves of its links (ring_lanes() in vocab/cluster.hpp). [path class]
    Efficiency efficiency = full_efficiency();
};

// A message from every rank of the role to the rank with the same place in another role. It starts
// when what it is `after` has ended, whether its receiver waits for it or not, and neither end
// computes slower meanwhile.
struct SendTask {
    int to_role = 0;
    int message = 0;  // its number, from 0; no other to that role has the same
    std::int64_t bytes = 0;
    Seconds latency;
    Efficiency efficiency = full_efficiency();
};

// A copy to or from host memory, or work there, of known time.
struct HostTask {
    std::vector<Seconds> per_rank;  // as ComputeTask has it
    Bytes bytes;                    // of the busiest rank
};

using TaskWork = std::variant<ComputeTask, ExchangeTask, ReduceTask, SendTask, HostTask>;

struct Task {
    Phase phase = Phase::embed;
    Pass pass = Pass::forward;
    int layer = -1;
    int micro_batch = 0;
    int chunk = 0;
    Stream stream = Stream::compute;
    std::vector<int> after;     // tasks of the same rank that must end first, besides stream order
    std::vector<int> receives;  // messages that must have come
    TaskWork work;
    // The rank's host enqueues the tasks of its role in order, for so long each: compute starts
    // when that has begun and ends no earlier than it has, all else starts when it has ended.
    Seconds launch{};
    bool host_waits = false;  // for the task's end, before it enqueues the next
};

struct Program {
    int num_ranks = 0;
    Seconds lead;                // of every host, where the step begins
    Overlap overlap;             // of compute beside collectives of its rank
    std::vector<Task> tasks;     // of one role after the other, each topologically ordered
    std::vector<int> role_ends;  // [role] where its tasks end; empty: one role

    int num_roles() const { return role_ends.empty() ? 1 : static_cast<int>(role_ends.size()); }
    int ranks_of_role() const { return num_ranks / num_roles(); }
    int role_of(int rank) const { return rank / ranks_of_role(); }
    bool has_launches() const {
        return std::any_of(tasks.begin(), tasks.end(),
                           [](const Task& t) { return t.launch > Seconds{} || t.host_waits; });
    }
    bool uses_host() const {
        return std::any_of(tasks.begin(), tasks.end(),
                           [](const Task& t) { return is_of_host(t.stream); });
    }
    int tasks_begin(int role) const {
        return role == 0 ? 0 : role_ends[static_cast<std::size_t>(role) - 1];
    }
    int tasks_end(int role) const {
        return role_ends.empty() ? static_cast<int>(tasks.size())
                                 : role_ends[static_cast<std::size_t>(role)];
    }
};

}  // namespace headway
