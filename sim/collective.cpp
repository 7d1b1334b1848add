#include "sim/collective.hpp"

#include <algorithm>
#include <cassert>
#include <stdexcept>
#include <variant>

namespace headway::sim {
namespace {

constexpr std::size_t kAhead = 8;  // messages are fetched so far ahead of their start

void begin_stage(const Stage& stage, std::size_t n, bool trace, StageState& state) {
    state.armed.assign(n, 0);
    state.members.assign(n, {});
    state.begin.assign(trace ? stage.messages.size() : 0, 0);
    state.num_armed = 0;
    state.num_pending = static_cast<int>(stage.messages.size());
    for (const Message& m : stage.messages) {
        ++state.members[static_cast<std::size_t>(m.from)].pending;
        ++state.members[static_cast<std::size_t>(m.to)].pending;
    }
    state.first_of.assign(n + 1, 0);
    for (std::size_t i = 0; i < n; ++i)
        state.first_of[i + 1] = state.first_of[i] + state.members[i].pending;
    state.partners.resize(2 * stage.messages.size());
    std::vector<std::int32_t> at(state.first_of.begin(), state.first_of.end() - 1);
    const auto add = [&](std::int32_t member, std::int32_t other, std::int32_t message) {
        state.partners[static_cast<std::size_t>(at[static_cast<std::size_t>(member)]++)] = {
            .member = other, .message = message};
    };
    for (std::size_t k = 0; k < stage.messages.size(); ++k) {
        const Message& m = stage.messages[k];
        add(m.from, m.to, static_cast<std::int32_t>(k));
        add(m.to, m.from, static_cast<std::int32_t>(k));
    }
}

// A message goes through the network under (collective, stage, message).
void start(RunningCollective& run, std::size_t stage, std::size_t m, Picoseconds now,
           const Medium& in) {
    const Message& message = run.operation.stages[stage].messages[m];
    if (in.trace) run.states[stage].begin[m] = now;
    const std::uint64_t tag = std::uint64_t{run.slot} << 44 | std::uint64_t{stage} << 32 | m;
    in.network.start(message.path, message.bytes, message.wire_bytes, tag, now);
}

void open(RunningCollective& run, Picoseconds now, Network& network) {
    for (const Stage& stage : run.operation.stages)
        for (const Message& m : stage.messages) network.use(m.path, m.wire_bytes);
    run.opened = network.open(now);
}

}  // namespace

int RunningCollective::member_index(int rank) const {
    return static_cast<int>(std::ranges::lower_bound(members(), rank) - members().begin());
}

bool RunningCollective::opens(int member, int stage) const {
    const StageState& state = states[static_cast<std::size_t>(stage)];
    const bool starts = operation.stages[static_cast<std::size_t>(stage)].collective
                            ? state.num_armed + 1 == static_cast<int>(members().size())
                            : state.members[static_cast<std::size_t>(member)].pending > 0;
    return starts && !opened;
}

bool RunningCollective::is_rendezvous() const {
    return spelled_out && num_stages() == 1 && operation.stages[0].collective &&
           operation.stages[0].messages.empty();
}

double RunningCollective::bytes_sent(int member) const {
    return (kind != nullptr ? kind->sent : sent)[static_cast<std::size_t>(member)];
}

PathClass RunningCollective::bottleneck(int member) const {
    if (mode == Mode::repeats) {
        const Departure& last = course->departures[num_left - 1];
        assert(last.member == member);
        return last.bottleneck;
    }
    PathClass result = PathClass::self;
    for (std::size_t s = 0; s < operation.stages.size(); ++s) {
        const std::int32_t m = states[s].members[static_cast<std::size_t>(member)].slowest;
        if (m >= 0) result = operation.stages[s].messages[static_cast<std::size_t>(m)].path_class;
    }
    return result;
}

void begin_collective(int group, RunningCollective& c) {
    c.opened.reset();
    c.members_done = 0;
    c.group = group;
    c.decoupling_error = 0.0;
    c.spelled_out = c.noted = false;
    c.mode = RunningCollective::Mode::simulated;
    c.kind = nullptr;
    c.course = nullptr;
    c.own = {};
    c.order.clear();
    c.num_entered = 0;
    c.num_left = c.num_come = 0;
}

void spell_out(const Task& task, const PathTable& paths, double epsilon, bool trace,
               RunningCollective& c) {
    if (const auto* exchange = std::get_if<ExchangeTask>(&task.work)) {
        expand(*exchange, c.group, paths, c.operation);
    } else if (const auto* reduce = std::get_if<ReduceTask>(&task.work)) {
        expand(*reduce, c.group, paths, c.operation);
    } else {
        throw std::logic_error("simulate: compute is not a collective");
    }
    const std::size_t n = c.operation.members.size();
    c.sent.assign(n, 0.0);
    if (c.states.size() < c.operation.stages.size()) c.states.resize(c.operation.stages.size());
    for (std::size_t s = 0; s < c.operation.stages.size(); ++s) {
        Stage& stage = c.operation.stages[s];
        c.decoupling_error += decouple(stage, paths.topology(), epsilon);
        for (const Message& m : stage.messages) c.sent[static_cast<std::size_t>(m.from)] += m.bytes;
        begin_stage(stage, n, trace, c.states[s]);
    }
    c.spelled_out = true;
}

void push_armed(RunningCollective& run, int rank, int stage, Picoseconds now, EventQueue& events) {
    Picoseconds time = now + run.latency(stage);
    if (stage == 0 && run.kind != nullptr && !run.kind->collective) {
        if (run.num_entered++ == 0) run.first = time;
        time = run.first + run.kind->rounded_up(time - run.first);
    }
    events.push(
        {.time = time, .kind = EventKind::armed, .rank = rank, .task = run.task, .stage = stage});
}

Armed arm(RunningCollective& run, int member, int stage_index, Picoseconds now, const Medium& in) {
    const auto slot = static_cast<std::size_t>(stage_index), m = static_cast<std::size_t>(member);
    StageState& state = run.states[slot];
    const Stage& stage = run.operation.stages[slot];
    state.armed[m] = 1;
    ++state.num_armed;
    if (stage.collective) {
        if (state.num_armed < static_cast<int>(run.members().size())) return Armed::waits;
        if (stage.messages.empty()) return Armed::all_meet;
        if (!run.opened) open(run, now, in.network);
        for (std::size_t k = 0; k < stage.messages.size(); ++k) start(run, slot, k, now, in);
        return Armed::waits;
    }
    if (state.members[m].pending == 0) return Armed::leaves;
    if (!run.opened) open(run, now, in.network);
    const std::span<const Partner> partners = state.partners_of(m);
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

void release(const RunningCollective& run, int stage, Picoseconds time, EventQueue& events) {
    for (const int member : run.members()) {
        events.push({.time = time,
                     .kind = EventKind::stage_done,
                     .rank = member,
                     .task = run.task,
                     .stage = stage});
    }
}

void deliver(RunningCollective& run, const Delivery& delivery, Picoseconds now, const Medium& in) {
    const int stage_index = static_cast<int>(delivery.tag >> 32 & 0xfff);
    const auto m = static_cast<std::int32_t>(delivery.tag & 0xffffffff);
    const auto slot = static_cast<std::size_t>(stage_index);
    const Stage& stage = run.operation.stages[slot];
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
        in.events.push({.time = member.last,
                        .kind = EventKind::stage_done,
                        .rank = run.members()[static_cast<std::size_t>(end)],
                        .task = run.task,
                        .stage = stage_index});
    }
    if (stage.collective && state.num_pending == 0) {
        const auto last = std::ranges::max(state.members, {}, &MemberState::last).last;
        release(run, stage_index, last, in.events);
    }
}

}  // namespace headway::sim
