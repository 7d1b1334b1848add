#include "sim/collectives.hpp"

#include <algorithm>
#include <utility>
#include <variant>

namespace headway::sim {
namespace {

using Mode = RunningCollective::Mode;

int group_of_rank(const Task& task, int rank) {
    if (const auto* exchange = std::get_if<ExchangeTask>(&task.work)) {
        return group_of(*exchange, rank);
    }
    return group_of(std::get<ReduceTask>(task.work), rank);
}

}  // namespace

Collectives::Collectives(const Program& program, const PathTable& paths, Network& network,
                         EventQueue& events, const CollectivesOptions& options)
    : program_(program),
      paths_(paths),
      network_(network),
      events_(events),
      options_(options),
      medium_{.topology = paths.topology(),
              .network = network,
              .events = events,
              .trace = options.trace},
      memory_(program, paths.topology(), options.epsilon),
      past_(paths, options.epsilon, program.num_roles() > 1),
      running_(program.tasks.size()),
      reserved_(static_cast<std::size_t>(paths.topology().num_links()), 0),
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
    begin_collective(group, run);
    CollectiveKind* kind = memory_.find(task, group);
    if (kind == nullptr && memory_.is_of_a_kind(task)) {
        ensure_spelled_out(run);
        kind = &memory_.learn(task, group, run.operation, run.sent);
    }
    if (kind != nullptr && kind->num_messages == 0) kind = nullptr;  // a rendezvous, or nothing
    if (kind == nullptr || !options_.repeat) ensure_spelled_out(run);
    if (kind == nullptr) return run;
    run.kind = kind;
    if (options_.repeat) run.mode = Mode::put_off;
    run.arrivals.assign(kind->members.size(), kNotYet);
    run.departed.assign(kind->members.size(), 0);
    return run;
}

void Collectives::end(RunningCollective& run) {
    double& error = errors_[static_cast<std::size_t>(run.task)];
    if (run.mode == Mode::repeats) {
        network_.add(run.kind->links, run.course->loads, run.kind->num_messages,
                     run.course->instants);
        error = std::max(error, run.course->error);
        ++num_repeated_;
        free_links(run);
    } else {
        const std::int64_t before = network_.num_instants();
        double closed = run.decoupling_error + (run.opened ? network_.close(*run.opened) : 0.0);
        if (run.kind != nullptr) closed += 1e-12 * static_cast<double>(run.kind->quantum);
        if (run.noted) {
            note_course(run, closed, network_.num_instants() - before);
            free_links(run);
        }
        error = std::max(error, closed);
    }
    running_[static_cast<std::size_t>(run.task)][static_cast<std::size_t>(run.group)] = nullptr;
    free_slots_.push_back(run.slot);
    --num_running_;
}

void Collectives::note_course(RunningCollective& run, double error, std::int64_t instants) {
    Course course = std::exchange(run.own, {});
    course.arrivals = run.arrivals;
    course.error = error;
    course.instants = instants;
    for (std::size_t k = 0; k < run.before.size(); ++k) {
        const Network::Load now = network_.load(run.kind->links[k]);
        course.loads.push_back({now.bytes - run.before[k].bytes, now.busy - run.before[k].busy});
    }
    memory_.remember(*run.kind, std::move(course));
}

bool Collectives::enter(int rank, int task, int stage, Picoseconds now) {
    RunningCollective& run = of(rank, task);
    if (stage == run.num_stages()) return false;
    push_armed(run, rank, stage, now, events_);
    return true;
}

Armed Collectives::arm(int rank, int task, int stage, Picoseconds now) {
    RunningCollective& run = of(rank, task);
    const int member = run.member_index(rank);
    if (stage == 0 && run.kind != nullptr &&
        run.arrivals[static_cast<std::size_t>(member)] == kNotYet) {
        arrive(run, member, now);
        if (run.mode != Mode::simulated && !put_off(run, member, now)) return Armed::waits;
    }
    if (!run.noted && run.opens(member, stage)) {
        for (const Stage& s : run.operation.stages)
            for (const Message& m : s.messages) disturb(m.path.span(), now);
    }
    return sim::arm(run, member, stage, now, medium_);
}

void Collectives::arrive(RunningCollective& run, int member, Picoseconds now) {
    if (run.order.empty() || run.kind->collective) run.first = now;
    run.order.push_back(member);
    run.arrivals[static_cast<std::size_t>(member)] = run.kind->collective ? 0 : now - run.first;
}

// What an arrival makes of a collective that is put off or repeats: true if it goes on as any
// other, whose member is to be armed. The links are needed from the first arrival on; those of a
// collective stage from the last on, whose start is that of all.
bool Collectives::put_off(RunningCollective& run, int member, Picoseconds now) {
    const CollectiveKind& kind = *run.kind;
    const bool is_last = run.order.size() == kind.members.size();
    const bool needs_links = kind.collective ? is_last : run.order.size() == 1;
    if (needs_links && !reserve_links(run, now)) {
        ensure_spelled_out(run);
        run.mode = Mode::simulated;
        for (const int m : run.order)
            if (m != member) sim::arm(run, m, 0, now, medium_);
        return true;
    }
    if (run.mode == Mode::repeats && kind.fits(*run.course, run.arrivals, now - run.first)) {
        expect(run, now);
    } else if (kind.may_depart(run.arrivals, run.order.size())) {
        follow_or_simulate(run, now);
    }
    return false;
}

void Collectives::follow_or_simulate(RunningCollective& run, Picoseconds now) {
    run.course = run.kind->find(run.arrivals, now - run.first);
    if (run.course == nullptr) return simulate(run, now, true);
    run.mode = Mode::repeats;
    run.num_come = 0;
    expect(run, now);
}

// Makes an event of the next departure or, if arrivals come before it, of the moment at which the
// next of them is missing.
void Collectives::expect(RunningCollective& run, Picoseconds now) {
    const Course& course = *run.course;
    const auto has_come = [&](int m) {
        return run.arrivals[static_cast<std::size_t>(m)] != kNotYet;
    };
    while (run.num_come < course.order.size() && has_come(course.order[run.num_come]))
        ++run.num_come;
    const Departure* next =
        run.num_left < course.departures.size() ? &course.departures[run.num_left] : nullptr;
    Event event{.kind = EventKind::departs, .task = run.task, .stage = ++run.version};
    if (run.num_come < course.order.size()) {
        const int missing = course.order[run.num_come];
        const Picoseconds then = course.arrivals[static_cast<std::size_t>(missing)];
        event.time = run.first + then + 1;
        event.rank = run.kind->members[static_cast<std::size_t>(missing)];
        if (next != nullptr && then < next->time) next = nullptr;
    }
    if (next != nullptr) {
        event.time = std::max(now, run.first + next->time);
        event.rank = run.kind->members[static_cast<std::size_t>(next->member)];
    }
    if (next != nullptr || run.num_come < course.order.size()) events_.push(event);
}

// False if anything uses or has reserved one of them.
bool Collectives::reserve_links(const RunningCollective& run, Picoseconds now) {
    disturb(run.kind->links, now);
    const auto is_free = [this](std::uint32_t link) { return network_.is_free(link); };
    if (!std::ranges::all_of(run.kind->links, is_free)) return false;
    for (const std::uint32_t l : run.kind->links) reserved_[l] = run.slot + 1;
    return true;
}

void Collectives::free_links(const RunningCollective& run) {
    for (const std::uint32_t l : run.kind->links) reserved_[l] = 0;
}

void Collectives::disturb(std::span<const std::uint32_t> links, Picoseconds now) {
    for (const std::uint32_t l : links) {
        if (reserved_[l] == 0) continue;
        RunningCollective& run = *slots_[reserved_[l] - 1];
        free_links(run);
        run.noted = false;
        if (run.mode != Mode::simulated) simulate(run, now, false);
    }
}

void Collectives::ensure_spelled_out(RunningCollective& run) {
    if (run.spelled_out) return;
    spell_out(program_.tasks[static_cast<std::size_t>(run.task)], paths_, options_.epsilon,
              medium_.trace, run);
}

// From its beginning to now, then on with all others.
void Collectives::simulate(RunningCollective& run, Picoseconds now, bool noted) {
    ensure_spelled_out(run);
    run.mode = Mode::simulated;
    run.noted = noted;
    run.before.clear();
    if (noted)
        for (const std::uint32_t l : run.kind->links) run.before.push_back(network_.load(l));
    past_.relive(run, now, medium_);
}

void Collectives::note_arrow(int rank, int task, int stage) {
    if (!medium_.trace) return;
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

bool Collectives::departs(const Event& event, Picoseconds now) {
    const Task& task = program_.tasks[static_cast<std::size_t>(event.task)];
    const auto group = static_cast<std::size_t>(group_of_rank(task, event.rank));
    RunningCollective* run = running_[static_cast<std::size_t>(event.task)][group];
    if (run == nullptr || run->mode != Mode::repeats || run->version != event.stage) return false;
    if (run->arrivals[static_cast<std::size_t>(run->member_index(event.rank))] == kNotYet) {
        follow_or_simulate(*run, now);
        return false;
    }
    ++run->num_left;
    expect(*run, now);
    return true;
}

void Collectives::leave(RunningCollective& run, int rank, Picoseconds now) {
    if (run.kind != nullptr) {
        const int member = run.member_index(rank);
        run.departed[static_cast<std::size_t>(member)] = 1;
        if (run.noted || run.mode == Mode::repeats)
            run.own.departures.push_back({now - run.first, member, run.bottleneck(member)});
    }
    if (++run.members_done == static_cast<int>(run.members().size())) end(run);
}

}  // namespace headway::sim
