#include "sim/collectives.hpp"

#include <algorithm>
#include <utility>
#include <variant>

namespace headway::sim {
namespace {

using Mode = RunningCell::Mode;

int group_of_rank(const Task& task, int rank) {
    if (const auto* exchange = std::get_if<ExchangeTask>(&task.work)) {
        return group_of(*exchange, rank);
    }
    return group_of(std::get<ReduceTask>(task.work), rank);
}

bool is_last_of(const RunningCell& run, int member) {
    const int rank = run.kind->members[static_cast<std::size_t>(member)];
    return run.whole->missing[static_cast<std::size_t>(run.whole->member_index(rank))] == 1;
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
      memory_(program, options.epsilon),
      past_(paths, options.epsilon, program.num_roles() > 1),
      running_(program.tasks.size()),
      reserved_(static_cast<std::size_t>(paths.topology().num_links()), 0),
      last_on_(reserved_.size(), 0),
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
    if (free_.empty()) free_.push_back(&collectives_.emplace_back());
    RunningCollective& run = *free_.back();
    free_.pop_back();
    ++num_running_;
    run.task = task;
    run.group = group;
    run.kind = memory_.find(task, group);
    if (run.kind == nullptr) {
        const bool comes_again = memory_.is_of_a_kind(task);
        run.spelled_out = spell_out(program_.tasks[static_cast<std::size_t>(task)], group, paths_,
                                    options_.epsilon, comes_again);
        if (comes_again) {
            run.kind = &memory_.learn(task, group, run.spelled_out);
        } else {
            run.kind = &run.own_kind.emplace(kind_of(*run.spelled_out, false, options_.epsilon));
        }
    }
    run.has_begun = false;
    run.num_entered = run.members_done = run.cells_repeated = 0;
    run.error = 0.0;
    run.missing.clear();
    for (int m = 0; m < static_cast<int>(run.members().size()); ++m)
        run.missing.push_back(static_cast<int>(run.kind->places_of(m).size()));
    run.bottleneck.assign(run.members().size(), PathClass::self);
    for (CellKind& kind : run.kind->cells) run.cells.push_back(begin_cell(run, kind));
    return run;
}

RunningCell* Collectives::begin_cell(RunningCollective& whole, CellKind& kind) {
    if (free_slots_.empty()) {
        free_slots_.push_back(static_cast<std::uint32_t>(slots_.size()));
        slots_.push_back(std::make_unique<RunningCell>());
        slots_.back()->slot = free_slots_.back();
    }
    RunningCell& run = *slots_[free_slots_.back()];
    free_slots_.pop_back();
    sim::begin_cell(whole, kind, run);
    // Nothing is put off for a rendezvous.
    if (whole.kind->comes_again && options_.repeat && kind.num_messages > 0) {
        run.mode = Mode::put_off;
    } else {
        ensure_spelled_out(run);
    }
    return &run;
}

void Collectives::end(RunningCollective& run) {
    for (RunningCell* cell : run.cells)
        if (cell != nullptr) end(*cell);
    const CollectiveKind& kind = *run.kind;
    double& error = errors_[static_cast<std::size_t>(run.task)];
    error = std::max(error, run.error + kind.outline.decoupling_error +
                                1e-12 * static_cast<double>(kind.quantum));
    if (run.cells_repeated > 0 && run.cells_repeated == static_cast<int>(run.cells.size()))
        ++num_repeated_;
    running_[static_cast<std::size_t>(run.task)][static_cast<std::size_t>(run.group)] = nullptr;
    run.cells.clear();
    run.spelled_out.reset();
    run.own_kind.reset();
    free_.push_back(&run);
    --num_running_;
}

void Collectives::end(RunningCell& run) {
    double error = 0.0;
    if (run.mode == Mode::repeats) {
        network_.add(run.kind->links, run.course->loads, run.kind->num_messages,
                     run.course->instants);
        error = run.course->error;
        run.left = run.course->left;
        ++run.whole->cells_repeated;
        free_links(run);
    } else {
        const std::int64_t before = network_.num_instants();
        if (run.opened) {
            run.left = network_.coarseness(*run.opened);
            error = network_.close(*run.opened);
        }
        if (run.noted) {
            note_course(run, error, network_.num_instants() - before);
            free_links(run);
        }
    }
    run.whole->error = std::max(run.whole->error, error);
    if (!run.kind->links.empty() && last_on_[run.kind->links[0]] == run.slot + 1)
        last_on_[run.kind->links[0]] = 0;
    *std::ranges::find(run.whole->cells, &run) = nullptr;
    free_slots_.push_back(run.slot);
}

void Collectives::note_course(RunningCell& run, double error, std::int64_t instants) {
    Course course{.departures = run.departures};
    course.found = run.found;
    course.left = run.left;
    course.arrivals = run.arrivals;
    course.error = error;
    course.instants = instants;
    for (std::size_t k = 0; k < run.before.size(); ++k) {
        const Network::Load now = network_.load(run.kind->links[k]);
        course.loads.push_back({now.bytes - run.before[k].bytes, now.busy - run.before[k].busy});
    }
    memory_.remember(*run.kind, std::move(course));
}

bool Collectives::enter(int rank, int task, Picoseconds now) {
    RunningCollective& run = of(rank, task);
    if (run.num_stages() == 0) return false;
    Picoseconds time = now + run.kind->outline.latency;
    if (run.num_entered++ == 0) run.first = time;
    if (run.kind->quantum > 0) time = run.first + run.kind->rounded_up(time - run.first);
    events_.push({.time = time, .kind = EventKind::arrives, .rank = rank, .task = task});
    return true;
}

bool Collectives::enter_next(RunningCell& run, int member, int stage, Picoseconds now) {
    note_arrow(run, member, stage);
    if (stage + 1 == run.num_stages()) return false;
    push_armed(run, member, stage + 1, now, events_);
    return true;
}

// A collective often begins while some cells of the one before still run. Where that is done with
// just these links, it ends there.
void Collectives::follow_on(RunningCell& run) {
    std::uint32_t& last = last_on_[run.kind->links[0]];
    if (last != 0) {
        RunningCell& before = *slots_[last - 1];
        const bool ends = before.is_done() && before.kind->is_one_set &&
                          before.kind->links == run.kind->links &&
                          (!before.opened || network_.is_alone(*before.opened));
        if (ends) {
            end(before);
            run.found = before.left;
        }
    }
    last_on_[run.kind->links[0]] = run.slot + 1;
}

// Before its first member comes to a cell, all cells need their links.
void Collectives::begin_cells(RunningCollective& run, Picoseconds now) {
    run.has_begun = true;
    for (RunningCell* cell : run.cells) {
        if (cell->kind->collective) continue;
        cell->first = now;
        if (run.kind->apart) follow_on(*cell);
        if (cell->mode == Mode::put_off && !reserve_links(*cell, now)) {
            ensure_spelled_out(*cell);
            cell->mode = Mode::simulated;
        }
        if (cell->mode != Mode::simulated || !run.kind->apart) continue;
        disturb(cell->kind->links, now);
        open(*cell, now, network_);
    }
}

Armed Collectives::arm(RunningCell& run, int member, int stage, Picoseconds now) {
    if (stage == 0) {
        if (!run.whole->has_begun) begin_cells(*run.whole, now);
        arrive(run, member, now);
        if (run.mode != Mode::simulated && !put_off(run, member, now)) return Armed::waits;
    }
    if (!run.noted && run.opens(member, stage)) {
        for (const Stage& s : run.cell->operation.stages)
            for (const Message& m : s.messages) disturb(m.path.span(), now);
    }
    return sim::arm(run, member, stage, now, medium_);
}

void Collectives::arrive(RunningCell& run, int member, Picoseconds now) {
    if (run.kind->collective) run.first = now;  // the last one is that of all
    run.order.push_back(member);
    run.arrivals[static_cast<std::size_t>(member)] = now - run.first;
}

// What an arrival makes of a cell that is put off or repeats: true if it goes on as any other,
// whose member is to be armed. The links of a collective stage, whose start is that of all, are
// needed from the last arrival on.
bool Collectives::put_off(RunningCell& run, int member, Picoseconds now) {
    const CellKind& kind = *run.kind;
    const bool is_last = run.order.size() == kind.members.size();
    if (kind.collective && is_last && !reserve_links(run, now)) {
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

void Collectives::follow_or_simulate(RunningCell& run, Picoseconds now) {
    const Course* course = run.kind->find(run.found, run.arrivals, now - run.first);
    if (course == nullptr) return simulate(run, now, true);
    run.course = course;
    run.mode = Mode::repeats;
    run.num_come = 0;
    expect(run, now);
}

// Makes an event of the next departure or, if arrivals come before it, of the moment at which the
// next of them is missing.
void Collectives::expect(RunningCell& run, Picoseconds now) {
    const Course& course = *run.course;
    const auto has_come = [&](int m) {
        return run.arrivals[static_cast<std::size_t>(m)] != kNotYet;
    };
    while (run.num_come < course.order.size() && has_come(course.order[run.num_come]))
        ++run.num_come;
    const Departure* next =
        run.num_left < course.departures.size() ? &course.departures[run.num_left] : nullptr;
    Event event{
        .kind = EventKind::departs, .task = static_cast<int>(run.slot), .stage = ++run.version};
    if (run.num_come < course.order.size()) {
        const int missing = course.order[run.num_come];
        const Picoseconds then = course.arrivals[static_cast<std::size_t>(missing)];
        event.time = run.first + then + 1;
        event.rank = missing;
        if (next != nullptr && then < next->time) next = nullptr;
    }
    if (next != nullptr) {
        event.time = std::max(now, run.first + next->time);
        event.rank = next->member;
    }
    if (next != nullptr || run.num_come < course.order.size()) events_.push(event);
}

// False if anything uses or has reserved one of them.
bool Collectives::reserve_links(const RunningCell& run, Picoseconds now) {
    disturb(run.kind->links, now);
    const auto is_free = [this](std::uint32_t link) { return network_.is_free(link); };
    if (!std::ranges::all_of(run.kind->links, is_free)) return false;
    for (const std::uint32_t l : run.kind->links) reserved_[l] = run.slot + 1;
    return true;
}

void Collectives::free_links(const RunningCell& run) {
    for (const std::uint32_t l : run.kind->links) reserved_[l] = 0;
}

void Collectives::disturb(std::span<const std::uint32_t> links, Picoseconds now) {
    for (const std::uint32_t l : links) {
        if (reserved_[l] == 0) continue;
        RunningCell& run = *slots_[reserved_[l] - 1];
        free_links(run);
        run.noted = false;
        if (run.mode != Mode::simulated) simulate(run, now, false);
    }
}

void Collectives::ensure_spelled_out(RunningCell& run) {
    if (run.cell != nullptr) return;
    RunningCollective& whole = *run.whole;
    if (whole.spelled_out == nullptr) whole.spelled_out = whole.kind->spelled_out;
    if (whole.spelled_out == nullptr)
        whole.spelled_out = spell_out(program_.tasks[static_cast<std::size_t>(whole.task)],
                                      whole.group, paths_, options_.epsilon, true);
    const auto number = static_cast<std::size_t>(run.kind - whole.kind->cells.data());
    begin_stages(whole.spelled_out->cells[number], medium_.trace, run);
}

// From its beginning to now, then on with all others.
void Collectives::simulate(RunningCell& run, Picoseconds now, bool noted) {
    ensure_spelled_out(run);
    if (noted && run.mode == Mode::repeats)
        run.departures.assign(
            run.course->departures.begin(),
            run.course->departures.begin() + static_cast<std::ptrdiff_t>(run.num_left));
    run.mode = Mode::simulated;
    run.noted = noted;
    run.before.clear();
    if (noted)
        for (const std::uint32_t l : run.kind->links) run.before.push_back(network_.load(l));
    past_.relive(run, now, medium_);
}

// The member has all that it waited for in the stage; of several cells the last one counts.
void Collectives::note_arrow(const RunningCell& run, int member, int stage) {
    const auto slot = static_cast<std::size_t>(stage), at = static_cast<std::size_t>(member);
    if (!medium_.trace || !is_last_of(run, member)) return;
    const StageState& state = run.states[slot];
    const MemberState& last = state.members[at];
    if (last.slowest < 0) return;
    const auto m = static_cast<std::size_t>(last.slowest);
    const Operation& operation = run.cell->operation;
    const Message& message = operation.stages[slot].messages[m];
    const Task& task = program_.tasks[static_cast<std::size_t>(run.whole->task)];
    arrows_.push_back({.from = operation.members[static_cast<std::size_t>(message.from)],
                       .to = operation.members[static_cast<std::size_t>(message.to)],
                       .task = run.whole->task,
                       .phase = task.phase,
                       .pass = task.pass,
                       .begin = static_cast<double>(state.begin[m]) * ps,
                       .end = static_cast<double>(last.last) * ps});
}

bool Collectives::departs(const Event& event, Picoseconds now) {
    RunningCell& run = cell(static_cast<std::uint32_t>(event.task));
    if (run.mode != Mode::repeats || run.version != event.stage) return false;
    if (run.arrivals[static_cast<std::size_t>(event.rank)] == kNotYet) {
        follow_or_simulate(run, now);
        return false;
    }
    ++run.num_left;
    expect(run, now);
    return true;
}

bool Collectives::leave(RunningCell& run, int member, Picoseconds now) {
    RunningCollective& whole = *run.whole;
    const auto in_whole = static_cast<std::size_t>(
        whole.member_index(run.kind->members[static_cast<std::size_t>(member)]));
    const PathClass bottleneck = run.bottleneck(member);
    whole.bottleneck[in_whole] = bottleneck;
    run.departed[static_cast<std::size_t>(member)] = 1;
    ++run.num_departed;
    if (run.noted) run.departures.push_back({now - run.first, member, bottleneck});
    return --whole.missing[in_whole] == 0;
}

void Collectives::leave(RunningCollective& run) {
    if (++run.members_done == static_cast<int>(run.members().size())) end(run);
}

}  // namespace headway::sim
