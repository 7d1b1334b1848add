// RankStreams: how far every rank has come in the program. A rank works through the tasks of each
// of its streams in order; a task starts when those that it waits for have ended and its host has
// enqueued it (program.hpp). Compute takes its time / the rank's speed, and is slower while the
// rank has a collective in progress (models/vocab/overlap.hpp).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "models/vocab/cluster.hpp"
#include "models/vocab/program.hpp"
#include "sim/event_queue.hpp"
#include "sim/repetition.hpp"

namespace headway::sim {

class RankStreams {
  public:
    // messages: how many come to each role.
    RankStreams(const Program& program, const Cluster& cluster, const std::vector<int>& messages,
                EventQueue& events);

    // The next task of a stream if the rank can start it now; else kNoTask. One that waits for the
    // host alone is asked for again by a `launched` event.
    int ready_task(int rank, std::size_t stream, Picoseconds now);
    void receive(int rank, int message);
    void begin(int rank, int task, Picoseconds now);  // compute is scheduled
    void end(int rank, int task, Picoseconds now);
    Picoseconds started(int rank, int task) const;  // of a task under way
    void finished(int rank, Picoseconds time);      // the rank has ended some task at `time`

    // The compute_done event of a rank whose schedule has not changed since.
    bool is_current(const Event& event) const;
    void enter_collective(int rank, Picoseconds now) { communicate(rank, +1, now); }
    void leave_collective(int rank, Picoseconds now) { communicate(rank, -1, now); }

    bool hosts_launch() const { return !enqueued_before_.empty(); }
    std::size_t stream_of(int task) const;
    Picoseconds finish(int rank) const { return at(rank).finish; }
    // Time in which the rank computed or communicated in a forward or backward pass, sends and
    // reductions apart, and the end of the last of them. Without repetition.
    Picoseconds busy(int rank) const { return at(rank).busy; }
    Picoseconds passes_end(int rank) const { return at(rank).passes_end; }
    // Throws std::logic_error naming a rank that has not done everything, and what it waits for.
    void check_all_done() const;

    // For repetition. Without collectives under way; takes the events of the computing ranks.
    Still take_computing(Picoseconds now);
    // True if all ranks are in `task` and compute nothing, and none has begun a later task.
    bool all_wait_in(int task) const;
    // The ranks go on from such a state.
    void put_computing(const Still& still, Picoseconds now);
    void put_waiting(int task, std::span<const Picoseconds> entered);

  private:
    struct Compute {
        int task = kNoTask;
        OverlappedCompute alone;  // in picoseconds
        Picoseconds since = 0;
        int version = 0;
    };
    struct Rank {
        std::array<int, kNumStreams> cursor{};  // in the stream's list
        std::array<bool, kNumStreams> running{};
        std::array<Picoseconds, kNumStreams> started{};
        Compute compute;
        int communicating = 0;  // collectives in progress
        double speed = 1.0;     // of compute, from the cluster's overrides
        Picoseconds finish = 0;
        int passing = 0;  // tasks of the passes under way
        Picoseconds busy = 0, busy_since = 0, passes_end = 0;
        std::size_t role = 0;
        std::vector<std::uint8_t> received;  // [message]
        // The host enqueues task t from `host` + enqueued_before_[t] on, up to `host_limit`, a task
        // whose end it waits for.
        Picoseconds host = 0;
        int host_limit = 0;
    };
    using Lists = std::array<std::vector<int>, kNumStreams>;

    const Rank& at(int rank) const { return ranks_[static_cast<std::size_t>(rank)]; }
    Rank& at(int rank) { return ranks_[static_cast<std::size_t>(rank)]; }
    const Task& task_at(int task) const { return program_.tasks[static_cast<std::size_t>(task)]; }
    const std::vector<int>& list(const Rank& rank, std::size_t stream) const {
        return tasks_[rank.role][stream];
    }
    bool is_done(const Rank& rank, int task) const;
    bool is_ready(const Rank& rank, const Task& task) const;
    int num_before(std::size_t stream, int task) const;
    static bool is_slowed(const Rank& rank) { return rank.communicating > 0; }
    void schedule(int rank, Picoseconds now);
    void communicate(int rank, int change, Picoseconds now);
    int next_wait(std::size_t role, int task) const;  // of the host, from this task on
    // When the host lets the task start; kNever: it waits for another.
    Picoseconds launched(const Rank& rank, int task) const;
    Picoseconds enqueued(const Rank& rank, int task) const;

    const Program& program_;
    EventQueue& events_;
    std::vector<Lists> tasks_;  // [role]
    std::vector<int> place_;    // [task] in its stream's list
    // [task, and one more] what the host needs for all tasks of the role before it; without
    // launches empty.
    std::vector<Picoseconds> enqueued_before_;
    std::vector<Rank> ranks_;
};

}  // namespace headway::sim
