#include "sim/collectives.hpp"

#include <algorithm>
#include <variant>

namespace headway::sim {
namespace {

constexpr std::size_t kAhead = 8;  // messages are fetched so far ahead of their start

int group_of_rank(const Task& task, int rank) {
    if (const auto* exchange = std::get_if<ExchangeTask>(&task.work)) {
        return group_of(*exchange, rank);
    }
    return group_of(std::get<ReduceTask>(task.work), rank);
}

}  // namespace

Collectives::Collectives(const Program& program, const PathTable& paths, Network& network,
                         EventQueue& events, double epsilon, bool trace)
    : program_(program),
      paths_(paths),
      network_(network),
      events_(events),
      epsilon_(epsilon),
      trace_(trace),
      running_(program.tasks.size()),
      errors_(program.tasks.size(), 0.0) {}

RunningCollective& Collectives::of(int rank, int task) {
    const Task& t = program_.tasks[static_cast<std::size_t>(task)];
    const auto group = static_cast<std::size_t>(group_of_rank(t, rank));
    auto& by_group = running_[static_cast<std::size_t>(task)];
    if (by_group.size() <= group) by_group.resize(group + 1, nullptr);
    if (by_group[group] == nullptr) by_group[group] = &begin(task, static_cast<int>(group));
    return *by_group[group];
}

RunningCollective& Collectives::begin(int task, int group) {
    if (free_slots_.empty()) {
        free_slots_.push_back(static_cast<std::uint32_t>(slots_.size()));
        slots_.push_back(std::make_unique<RunningCollective>());
        slots_.back()->slot = free_slots_.back();
    }
    RunningCollective& run = *slots_[free_slots_.back()];
    free_slots_.pop_back();
    ++num_running_;
    run.task = task;
    begin_collective(program_.tasks[static_cast<std::size_t>(task)], group, paths_, epsilon_,
                     trace_, run);
    return run;
}

void Collectives::end(RunningCollective& run) {
    double& error = errors_[static_cast<std::size_t>(run.task)];
    error =
        std::max(error, run.decoupling_error + (run.opened ? network_.close(*run.opened) : 0.0));
    running_[static_cast<std::size_t>(run.task)][static_cast<std::size_t>(run.group)] = nullptr;
    free_slots_.push_back(run.slot);
    --num_running_;
}

bool Collectives::enter(int rank, int task, int stage, Picoseconds now) {
    const RunningCollective& run = of(rank, task);
    if (stage == run.num_stages()) return false;
    const Picoseconds latency = run.operation.stages[static_cast<std::size_t>(stage)].latency;
    events_.push({.time = now + latency,
                  .kind = EventKind::armed,
                  .rank = rank,
                  .task = task,
                  .stage = stage});
    return true;
}

void Collectives::open(RunningCollective& run, Picoseconds now) {
    for (const Stage& stage : run.operation.stages) {
        for (const Message& m : stage.messages) network_.use(m.path, m.wire_bytes);
    }
    run.opened = network_.open(now);
}

Armed Collectives::arm(int rank, int task, int stage_index, Picoseconds now) {
    RunningCollective& run = of(rank, task);
    const auto slot = static_cast<std::size_t>(stage_index);
    StageState& state = run.states[slot];
    const Stage& stage = run.operation.stages[slot];
    const auto member = static_cast<std::size_t>(run.member_index(rank));
    state.armed[member] = 1;
    ++state.num_armed;
    if (stage.collective) {
        if (state.num_armed < static_cast<int>(run.operation.members.size())) return Armed::waits;
        if (stage.messages.empty()) return Armed::all_meet;
        if (!run.opened) open(run, now);
        for (std::size_t m = 0; m < stage.messages.size(); ++m) start(run, slot, m, now);
        return Armed::waits;
    }
    if (state.members[member].pending == 0) return Armed::leaves;
    if (!run.opened) open(run, now);
    const std::span<const Partner> partners = state.partners_of(member);
    for (std::size_t k = 0; k < partners.size(); ++k) {
        if (k + kAhead < partners.size()) {
            const auto soon = static_cast<std::size_t>(partners[k + kAhead].message);
            __builtin_prefetch(&stage.messages[soon]);
        }
        if (state.armed[static_cast<std::size_t>(partners[k].member)] == 0) continue;
        start(run, slot, static_cast<std::size_t>(partners[k].message), now);
    }
    return Armed::waits;
}

void Collectives::release(const RunningCollective& run, int stage, Picoseconds time) {
    for (const int member : run.operation.members) {
        events_.push({.time = time,
                      .kind = EventKind::stage_done,
                      .rank = member,
                      .task = run.task,
                      .stage = stage});
    }
}

// A message goes through the network under (collective, stage, message).
void Collectives::start(RunningCollective& run, std::size_t stage, std::size_t m, Picoseconds now) {
    const Message& message = run.operation.stages[stage].messages[m];
    if (trace_) run.states[stage].begin[m] = now;
    const std::uint64_t tag = std::uint64_t{run.slot} << 44 | std::uint64_t{stage} << 32 | m;
    network_.start(message.path, message.bytes, message.wire_bytes, tag, now);
}

void Collectives::deliver(const Delivery& d, Picoseconds now) {
    deliver(*slots_[d.tag >> 44], static_cast<int>(d.tag >> 32 & 0xfff),
            static_cast<std::int32_t>(d.tag & 0xffffffff), std::max(d.time, now));
}

void Collectives::deliver(RunningCollective& run, int stage_index, std::int32_t m,
                          Picoseconds time) {
    const auto slot = static_cast<std::size_t>(stage_index);
    const Stage& stage = run.operation.stages[slot];
    StageState& state = run.states[slot];
    const Message& message = stage.messages[static_cast<std::size_t>(m)];
    time += paths_.topology().latency(message.path);
    --state.num_pending;
    for (const int end : {message.from, message.to}) {
        MemberState& member = state.members[static_cast<std::size_t>(end)];
        if (time >= member.last) {
            member.last = time;
            member.slowest = m;
        }
        if (--member.pending > 0 || stage.collective) continue;
        events_.push({.time = member.last,
                      .kind = EventKind::stage_done,
                      .rank = run.operation.members[static_cast<std::size_t>(end)],
                      .task = run.task,
                      .stage = stage_index});
    }
    if (stage.collective && state.num_pending == 0) {
        release(run, stage_index, std::ranges::max(state.members, {}, &MemberState::last).last);
    }
}

void Collectives::note_arrow(int rank, int task, int stage) {
    if (!trace_) return;
    const RunningCollective& run = of(rank, task);
    const auto slot = static_cast<std::size_t>(stage);
    const StageState& state = run.states[slot];
    const MemberState& member = state.members[static_cast<std::size_t>(run.member_index(rank))];
    const std::int32_t m = member.slowest;
    if (m < 0) return;
    const Message& message = run.operation.stages[slot].messages[static_cast<std::size_t>(m)];
    arrows_.push_back({.from = run.operation.members[static_cast<std::size_t>(message.from)],
                       .to = run.operation.members[static_cast<std::size_t>(message.to)],
                       .task = task,
                       .phase = program_.tasks[static_cast<std::size_t>(task)].phase,
                       .pass = program_.tasks[static_cast<std::size_t>(task)].pass,
                       .begin = static_cast<double>(state.begin[static_cast<std::size_t>(m)]) * ps,
                       .end = static_cast<double>(member.last) * ps});
}

void Collectives::leave(RunningCollective& run) {
    if (++run.members_done == static_cast<int>(run.operation.members.size())) end(run);
}

}  // namespace headway::sim
