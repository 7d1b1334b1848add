// EventQueue: what the ranks of a simulation do next, in order of time, then of creation, so that a
// run is reproducible to the bit.
#pragma once

#include <cstdint>
#include <queue>
#include <vector>

#include "sim/flow_engine.hpp"

namespace headway::sim {

enum class EventKind {
    compute_done,
    host_done,   // a copy to or from host memory, or work there
    launched,    // the rank's host has enqueued a task
    arrives,     // the rank has waited the latency of a collective's first stage
    armed,       // the member has waited the latency of a stage
    stage_done,  // the member has all its messages of a stage
    departs,     // from a cell that takes a course noted before, or is missing there
    send,        // a send's latency has passed
    sent         // the message of a send has come
};

struct Event {
    Picoseconds time = 0;
    EventKind kind = EventKind::compute_done;
    int rank = 0;  // armed, stage_done, departs: a member of the cell
    int task = 0;  // and its slot
    // compute_done: the version of the rank's schedule; departs: of what is expected; sent: a
    // number of Sends
    int stage = 0;
    std::uint64_t sequence = 0;

    friend bool operator>(const Event& a, const Event& b) {
        return a.time != b.time ? a.time > b.time : a.sequence > b.sequence;
    }
};

class EventQueue {
  public:
    bool empty() const { return events_.empty(); }
    Picoseconds next_time() const { return events_.empty() ? kNever : events_.top().time; }
    void push(Event event) {
        event.sequence = sequence_++;
        events_.push(event);
    }
    Event pop() {
        const Event event = events_.top();
        events_.pop();
        return event;
    }

  private:
    std::uint64_t sequence_ = 0;
    std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
};

}  // namespace headway::sim
