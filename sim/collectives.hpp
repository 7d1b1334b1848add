// Collectives: all that are under way in a simulation. One that may take a course noted before
// (course_memory.hpp) reserves its links when its first rank comes. Whatever else wants one of them
// makes it a collective as any other, which is then simulated from its beginning to that moment.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "models/vocab/program.hpp"
#include "sim/collective.hpp"
#include "sim/course_memory.hpp"
#include "sim/event_queue.hpp"
#include "sim/network.hpp"
#include "sim/past.hpp"
#include "sim/recorder.hpp"

namespace headway::sim {

struct CollectivesOptions {
    double epsilon = 0.0;
    bool trace = false;  // keep the arrows
    bool repeat = true;  // take courses noted before; the same comes out, later
};

class Collectives {
  public:
    Collectives(const Program& program, const PathTable& paths, Network& network,
                EventQueue& events, const CollectivesOptions& options);

    // The collective of a task that the rank takes part in; begun if it is not under way.
    RunningCollective& of(int rank, int task);
    // False when it has no stage: the rank leaves.
    bool enter(int rank, int task, Picoseconds now);
    RunningCell& cell(std::uint32_t slot) { return *slots_[slot]; }
    Armed arm(RunningCell& run, int member, int stage, Picoseconds now);
    // The member goes on to the next stage; false when there is none: it leaves.
    bool enter_next(RunningCell& run, int member, int stage, Picoseconds now);
    // All members leave the stage at `time`.
    void release(const RunningCell& run, int stage, Picoseconds time) {
        sim::release(run, stage, time, events_);
    }
    // What the network delivers.
    void deliver(const Delivery& delivery, Picoseconds now) {
        sim::deliver(*slots_[slot_of(delivery)], delivery, now, medium_);
    }
    // By its course, the member leaves now, or somebody was to come who has not.
    bool departs(const Event& event, Picoseconds now);
    // The member leaves the cell. True if it is its last one, so that it leaves the collective.
    bool leave(RunningCell& run, int member, Picoseconds now);
    // A rank has left all its cells; the last one ends the collective.
    void leave(RunningCollective& run);
    void end(RunningCollective& run);
    // Something else is about to use these links.
    void disturb(std::span<const std::uint32_t> links, Picoseconds now);

    int num_running() const { return num_running_; }
    // Seconds by which batching may have moved the ends of the groups of each task.
    std::vector<double>& errors() { return errors_; }
    std::vector<Arrow>& arrows() { return arrows_; }
    std::int64_t num_repeated() const { return num_repeated_; }  // collectives, with all cells

  private:
    RunningCollective& begin(int task, int group);
    RunningCell* begin_cell(RunningCollective& whole, CellKind& kind);
    void follow_on(RunningCell& run);
    void begin_cells(RunningCollective& run, Picoseconds now);
    void arrive(RunningCell& run, int member, Picoseconds now);
    bool put_off(RunningCell& run, int member, Picoseconds now);
    void ensure_spelled_out(RunningCell& run);
    void follow_or_simulate(RunningCell& run, Picoseconds now);
    void expect(RunningCell& run, Picoseconds now);
    bool reserve_links(const RunningCell& run, Picoseconds now);
    void free_links(const RunningCell& run);
    void simulate(RunningCell& run, Picoseconds now, bool noted);
    void note_arrow(const RunningCell& run, int member, int stage);
    void note_course(RunningCell& run, double error, std::int64_t instants);
    void end(RunningCell& run);

    const Program& program_;
    const PathTable& paths_;
    Network& network_;
    EventQueue& events_;
    CollectivesOptions options_;
    Medium medium_;
    CourseMemory memory_;
    Past past_;
    std::vector<std::vector<RunningCollective*>> running_;  // [task][group]
    std::deque<RunningCollective> collectives_;             // one stays where it is
    std::vector<RunningCollective*> free_;
    std::vector<std::unique_ptr<RunningCell>> slots_;
    std::vector<std::uint32_t> free_slots_;
    std::vector<std::uint32_t> reserved_;  // [link] 1 + slot, or 0
    // [first link of a cell's] the same of the last cell there that has not ended.
    std::vector<std::uint32_t> last_on_;
    int num_running_ = 0;
    std::int64_t num_repeated_ = 0;
    std::vector<double> errors_;
    std::vector<Arrow> arrows_;
};

}  // namespace headway::sim
