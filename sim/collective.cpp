#include "sim/collective.hpp"

#include <algorithm>
#include <cassert>

namespace headway::sim {
namespace {

constexpr std::size_t kAhead = 8;  // messages are fetched so far ahead of their start

// A message goes through the network under (cell, stage, message).
void start(RunningCell& run, std::size_t stage, std::size_t m, Picoseconds now, const Medium& in) {
    const Message& message = run.cell->operation.stages[stage].messages[m];
    if (in.trace) run.states[stage].begin[m] = now;
    const std::uint64_t tag = std::uint64_t{run.slot} << 44 | std::uint64_t{stage} << 32 | m;
    in.network.start(message.path, message.bytes, message.wire_bytes, tag, now);
}

}  // namespace

int RunningCollective::member_index(int rank) const {
    const std::vector<int>& all = members();
    const auto near = static_cast<std::size_t>(rank - all.front());
    if (near < all.size() && all[near] == rank) return static_cast<int>(near);
    return static_cast<int>(std::ranges::lower_bound(all, rank) - all.begin());
}

bool RunningCell::opens(int member, int stage) const {
    const StageState& state = states[static_cast<std::size_t>(stage)];
    const bool starts = cell->operation.stages[static_cast<std::size_t>(stage)].collective
                            ? state.num_armed + 1 == static_cast<int>(kind->members.size())
                            : state.members[static_cast<std::size_t>(member)].pending > 0;
    return starts && !opened;
}

bool RunningCell::is_rendezvous() const {
    return num_stages() == 1 && kind->collective && kind->num_messages == 0;
}

PathClass RunningCell::bottleneck(int member) const {
    if (mode == Mode::repeats) {
        const Departure& last = course->departures[num_left - 1];
        assert(last.member == member);
        return last.bottleneck;
    }
    PathClass result = PathClass::self;
    for (std::size_t s = 0; cell != nullptr && s < cell->operation.stages.size(); ++s) {
        const std::int32_t m = states[s].members[static_cast<std::size_t>(member)].slowest;
        if (m < 0) continue;
        result = cell->operation.stages[s].messages[static_cast<std::size_t>(m)].path_class;
    }
    return result;
}

void begin_cell(RunningCollective& whole, CellKind& kind, RunningCell& run) {
    run.whole = &whole;
    run.kind = &kind;
    run.cell = nullptr;
    run.opened.reset();
    run.noted = false;
    run.mode = RunningCell::Mode::simulated;
    run.course = nullptr;
    run.departures.clear();
    run.order.clear();
    run.num_left = run.num_come = 0;
    run.found.reset();
    run.num_departed = 0;
    run.arrivals.assign(kind.members.size(), kNotYet);
    run.departed.assign(kind.members.size(), 0);
}

void begin_stages(const Cell& cell, bool trace, RunningCell& run) {
    run.cell = &cell;
    const std::size_t n = cell.operation.members.size();
    if (run.states.size() < cell.operation.stages.size())
        run.states.resize(cell.operation.stages.size());
    for (std::size_t s = 0; s < cell.operation.stages.size(); ++s) {
        const Stage& stage = cell.operation.stages[s];
        StageState& state = run.states[s];
        state.armed.assign(n, 0);
        state.members.assign(n, {});
        for (std::size_t m = 0; m < n; ++m)
            state.members[m].pending = static_cast<int>(cell.partners[s].of(m).size());
        state.begin.assign(trace ? stage.messages.size() : 0, 0);
        state.num_armed = 0;
        state.num_pending = static_cast<int>(stage.messages.size());
    }
}

void push_armed(const RunningCell& run, int member, int stage, Picoseconds now,
                EventQueue& events) {
    events.push({.time = now + run.cell->operation.stages[static_cast<std::size_t>(stage)].latency,
                 .kind = EventKind::armed,
                 .rank = member,
                 .task = static_cast<int>(run.slot),
                 .stage = stage});
}

// What all cells need together decides how coarsely each may be stepped.
void open(RunningCell& run, Picoseconds now, Network& network) {
    for (const Stage& stage : run.cell->operation.stages)
        for (const Message& m : stage.messages) network.use(m.path, m.wire_bytes);
    run.opened = network.open(now, run.whole->kind->outline.busiest);
    if (run.found) network.coarsen(*run.opened, *run.found);
}

Armed arm(RunningCell& run, int member, int stage_index, Picoseconds now, const Medium& in) {
    const auto slot = static_cast<std::size_t>(stage_index), m = static_cast<std::size_t>(member);
    StageState& state = run.states[slot];
    const Stage& stage = run.cell->operation.stages[slot];
    state.armed[m] = 1;
    ++state.num_armed;
    if (stage.collective) {
        if (state.num_armed < static_cast<int>(run.kind->members.size())) return Armed::waits;
        if (stage.messages.empty()) return Armed::all_meet;
        if (!run.opened) open(run, now, in.network);
        for (std::size_t k = 0; k < stage.messages.size(); ++k) start(run, slot, k, now, in);
        return Armed::waits;
    }
    if (state.members[m].pending == 0) return Armed::leaves;
    if (!run.opened) open(run, now, in.network);
    const std::span<const Partner> partners = run.cell->partners[slot].of(m);
    for (std::size_t k = 0; k < partners.size(); ++k) {
        if (k + kAhead < partners.size()) {
            const auto soon = static_cast<std::size_t>(partners[k + kAhead].message);
            __builtin_prefetch(&stage.messages[soon]);
        }
        if (state.armed[static_cast<std::size_t>(partners[k].member)] == 0) continue;
        start(run, slot, static_cast<std::size_t>(partners[k].message), now, in);
    }
    return Armed::waits;
}

namespace {

void push_done(const RunningCell& run, int member, int stage, Picoseconds time,
               EventQueue& events) {
    events.push({.time = time,
                 .kind = EventKind::stage_done,
                 .rank = member,
                 .task = static_cast<int>(run.slot),
                 .stage = stage});
}

}  // namespace

void release(const RunningCell& run, int stage, Picoseconds time, EventQueue& events) {
    for (int m = 0; m < static_cast<int>(run.kind->members.size()); ++m)
        push_done(run, m, stage, time, events);
}

void deliver(RunningCell& run, const Delivery& delivery, Picoseconds now, const Medium& in) {
    const int stage_index = static_cast<int>(delivery.tag >> 32 & 0xfff);
    const auto m = static_cast<std::int32_t>(delivery.tag & 0xffffffff);
    const auto slot = static_cast<std::size_t>(stage_index);
    const Stage& stage = run.cell->operation.stages[slot];
    StageState& state = run.states[slot];
    const Message& message = stage.messages[static_cast<std::size_t>(m)];
    const Picoseconds time = std::max(delivery.time, now) + in.topology.latency(message.path);
    --state.num_pending;
    for (const int end : {message.from, message.to}) {
        MemberState& member = state.members[static_cast<std::size_t>(end)];
        if (time >= member.last) {
            member.last = time;
            member.slowest = m;
        }
        if (--member.pending > 0 || stage.collective) continue;
        push_done(run, end, stage_index, member.last, in.events);
    }
    if (stage.collective && state.num_pending == 0) {
        const auto last = std::ranges::max(state.members, {}, &MemberState::last).last;
        release(run, stage_index, last, in.events);
    }
}

}  // namespace headway::sim
