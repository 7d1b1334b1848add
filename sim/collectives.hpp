// Collectives: all that are under way in a simulation. A rank enters a stage, waits its latency, is
// armed; messages start when both their ends are armed; the rank leaves the stage when its last
// message has come. In a collective stage all messages start together and all ranks leave together.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "models/vocab/program.hpp"
#include "sim/collective.hpp"
#include "sim/event_queue.hpp"
#include "sim/network.hpp"
#include "sim/recorder.hpp"

namespace headway::sim {

// What follows from a rank being armed.
enum class Armed {
    waits,    // for its messages
    leaves,   // there are none for it
    all_meet  // it is the last of a collective stage without messages
};

class Collectives {
  public:
    // trace: keep the arrows.
    Collectives(const Program& program, const PathTable& paths, Network& network,
                EventQueue& events, double epsilon, bool trace);

    // The collective of a task that the rank takes part in; begun if it is not under way.
    RunningCollective& of(int rank, int task);
    // False when there is no such stage: the rank leaves.
    bool enter(int rank, int task, int stage, Picoseconds now);
    Armed arm(int rank, int task, int stage, Picoseconds now);
    // All members leave the stage at `time`.
    void release(const RunningCollective& run, int stage, Picoseconds time);
    // What the network delivers.
    void deliver(const Delivery& delivery, Picoseconds now);
    // The rank has all that it waited for in the stage.
    void note_arrow(int rank, int task, int stage);
    // A rank leaves; the last one ends the collective.
    void leave(RunningCollective& run);
    void end(RunningCollective& run);

    int num_running() const { return num_running_; }
    // Seconds by which batching may have moved the ends of the groups of each task.
    std::vector<double>& errors() { return errors_; }
    std::vector<Arrow>& arrows() { return arrows_; }

  private:
    RunningCollective& begin(int task, int group);
    void open(RunningCollective& run, Picoseconds now);
    void start(RunningCollective& run, std::size_t stage, std::size_t message, Picoseconds now);
    void deliver(RunningCollective& run, int stage, std::int32_t message, Picoseconds time);

    const Program& program_;
    const PathTable& paths_;
    Network& network_;
    EventQueue& events_;
    double epsilon_ = 0.0;
    bool trace_ = false;
    std::vector<std::vector<RunningCollective*>> running_;  // [task][group]
    std::vector<std::unique_ptr<RunningCollective>> slots_;
    std::vector<std::uint32_t> free_slots_;
    int num_running_ = 0;
    std::vector<double> errors_;
    std::vector<Arrow> arrows_;
};

}  // namespace headway::sim
