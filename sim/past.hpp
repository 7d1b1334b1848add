// Past: what a cell of a collective that has its links to itself has done up to now, where it was
// put off in the hope that it need not be simulated (course_memory.hpp).
#pragma once

#include "sim/collective.hpp"
#include "sim/event_queue.hpp"
#include "sim/network.hpp"
#include "sim/path_table.hpp"

namespace headway::sim {

class Past {
  public:
    // As the network of the simulation.
    Past(const PathTable& paths, double epsilon, bool parts);

    // Goes through all before `now` and hands what goes on then to `present`.
    void relive(RunningCell& run, Picoseconds now, const Medium& present);

  private:
    void handle(RunningCell& run, const Event& event, Picoseconds now);

    Network network_;
    EventQueue events_;
    Medium medium_;
    std::vector<Delivery> deliveries_;
    std::vector<Event> left_;  // for the present
};

}  // namespace headway::sim
