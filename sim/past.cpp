#include "sim/past.hpp"

#include <algorithm>

namespace headway::sim {
namespace {

bool has_departed(const RunningCell& run, int member) {
    return run.departed[static_cast<std::size_t>(member)] != 0;
}

}  // namespace

Past::Past(const PathTable& paths, double epsilon, bool parts)
    : network_(paths.topology(), epsilon, false, parts),
      medium_{.topology = paths.topology(), .network = network_, .events = events_} {}

void Past::relive(RunningCell& run, Picoseconds now, const Medium& present) {
    if (run.whole->kind->apart) open(run, run.first, network_);
    for (const int m : run.order)
        events_.push({.time = run.first + run.arrivals[static_cast<std::size_t>(m)],
                      .kind = EventKind::armed,
                      .rank = m,
                      .task = static_cast<int>(run.slot)});
    // Who came at this moment is part of the past, what follows from it then is not.
    for (Picoseconds at = 0; at <= now;) {
        if (events_.next_time() <= at) {
            const Event e = events_.pop();
            const bool arrives = e.kind == EventKind::armed && e.stage == 0;
            if (arrives || at < now) {
                handle(run, e, at);
            } else {
                left_.push_back(e);
            }
            continue;
        }
        const Picoseconds delivery = network_.next_delivery(), event = events_.next_time();
        at = std::max(at, std::min(delivery, event));
        if (at > now || delivery > event) continue;
        deliveries_.clear();
        network_.deliver(delivery, deliveries_);
        for (const Delivery& d : deliveries_) deliver(run, d, at, medium_);
    }
    if (run.opened) present.network.adopt(network_, run.kind->links, *run.opened);
    while (!events_.empty()) left_.push_back(events_.pop());
    for (const Event& e : left_) {
        const bool leaves = e.kind == EventKind::stage_done && e.stage + 1 == run.num_stages();
        if (!leaves || !has_departed(run, e.rank)) present.events.push(e);
    }
    left_.clear();
}

void Past::handle(RunningCell& run, const Event& e, Picoseconds now) {
    const bool leaves =
        e.kind == EventKind::stage_done || arm(run, e.rank, e.stage, now, medium_) == Armed::leaves;
    if (!leaves) return;
    if (e.stage + 1 < run.num_stages()) return push_armed(run, e.rank, e.stage + 1, now, events_);
    left_.push_back({.time = now,
                     .kind = EventKind::stage_done,
                     .rank = e.rank,
                     .task = e.task,
                     .stage = e.stage});
}

}  // namespace headway::sim
