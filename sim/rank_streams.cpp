#include "sim/rank_streams.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <variant>

#include "sim/operation.hpp"

namespace headway::sim {
namespace {

bool is_of_a_pass(const Task& task) {
    return task.pass != Pass::update &&
           (task.stream == Stream::compute || task.stream == Stream::communication);
}

}  // namespace

RankStreams::RankStreams(const Program& program, const Cluster& cluster,
                         const std::vector<int>& messages, EventQueue& events)
    : program_(program), events_(events), ranks_(static_cast<std::size_t>(program.num_ranks)) {
    for (int role = 0; role < program.num_roles(); ++role) {
        Lists& lists = tasks_.emplace_back();
        for (int t = program.tasks_begin(role); t < program.tasks_end(role); ++t) {
            std::vector<int>& list = lists[stream_of(t)];
            place_.push_back(static_cast<int>(list.size()));
            list.push_back(t);
        }
    }
    if (program.has_launches()) {
        Picoseconds before = 0;
        for (const Task& task : program.tasks) {
            enqueued_before_.push_back(before);
            before += to_picoseconds(task.launch);
        }
        enqueued_before_.push_back(before);
    }
    for (int r = 0; r < program.num_ranks; ++r) {
        at(r).role = static_cast<std::size_t>(program.role_of(r));
        at(r).received.assign(static_cast<std::size_t>(messages[at(r).role]), 0);
        if (enqueued_before_.empty()) continue;
        const int first = program.tasks_begin(program.role_of(r));
        at(r).host =
            -enqueued_before_[static_cast<std::size_t>(first)] - to_picoseconds(program.lead);
        at(r).host_limit = next_wait(at(r).role, first);
    }
    for (const RankOverride& o : cluster.rank_overrides) at(o.rank).speed = o.compute_factor;
}

std::size_t RankStreams::stream_of(int task) const {
    return static_cast<std::size_t>(task_at(task).stream);
}

bool RankStreams::is_done(const Rank& rank, int task) const {
    return place_[static_cast<std::size_t>(task)] < rank.cursor[stream_of(task)];
}

bool RankStreams::is_ready(const Rank& rank, const Task& task) const {
    return std::ranges::all_of(task.after, [&](int before) { return is_done(rank, before); }) &&
           std::ranges::all_of(task.receives, [&](int message) {
               return rank.received[static_cast<std::size_t>(message)] != 0;
           });
}

void RankStreams::receive(int rank, int message) {
    at(rank).received[static_cast<std::size_t>(message)] = 1;
}

// Tasks of a stream with numbers below `task`, of the only role.
int RankStreams::num_before(std::size_t stream, int task) const {
    const std::vector<int>& list = tasks_[0][stream];
    return static_cast<int>(std::ranges::lower_bound(list, task) - list.begin());
}

int RankStreams::ready_task(int r, std::size_t stream, Picoseconds now) {
    const Rank& rank = at(r);
    const auto cursor = static_cast<std::size_t>(rank.cursor[stream]);
    if (rank.running[stream] || cursor >= list(rank, stream).size()) return kNoTask;
    const int task = list(rank, stream)[cursor];
    if (!is_ready(rank, task_at(task))) return kNoTask;
    const Picoseconds from = launched(rank, task);
    if (from <= now) return task;
    if (from != kNever)
        events_.push({.time = from, .kind = EventKind::launched, .rank = r, .task = task});
    return kNoTask;
}

int RankStreams::next_wait(std::size_t role, int task) const {
    const int end = program_.tasks_end(static_cast<int>(role));
    while (task < end && !task_at(task).host_waits) ++task;
    return task;
}

Picoseconds RankStreams::enqueued(const Rank& rank, int task) const {
    return enqueued_before_.empty()
               ? 0
               : rank.host + enqueued_before_[static_cast<std::size_t>(task) + 1];
}

Picoseconds RankStreams::launched(const Rank& rank, int task) const {
    // Copies to and from host memory are enqueued with the layer before or behind theirs.
    if (enqueued_before_.empty() || is_of_host(task_at(task).stream)) return 0;
    if (task > rank.host_limit) return kNever;
    if (!std::holds_alternative<ComputeTask>(task_at(task).work)) return enqueued(rank, task);
    return rank.host + enqueued_before_[static_cast<std::size_t>(task)];
}

void RankStreams::begin(int r, int task, Picoseconds now) {
    Rank& rank = at(r);
    if (is_of_a_pass(task_at(task)) && rank.passing++ == 0) rank.busy_since = now;
    rank.running[stream_of(task)] = true;
    rank.started[stream_of(task)] = now;
    const auto* work = std::get_if<ComputeTask>(&task_at(task).work);
    if (work == nullptr) return;
    const std::size_t slot = static_cast<std::size_t>(r) % work->per_rank.size();  // in its role
    rank.compute.task = task;
    rank.compute.alone = {work->per_rank[slot].in(ps) / rank.speed, work->pieces};
    rank.compute.since = now;
    schedule(r, now);
}

void RankStreams::end(int r, int task, Picoseconds now) {
    Rank& rank = at(r);
    const std::size_t stream = stream_of(task);
    if (rank.compute.task == task) rank.compute.task = kNoTask;
    rank.running[stream] = false;
    ++rank.cursor[stream];
    if (task == rank.host_limit && !enqueued_before_.empty()) {
        rank.host = std::max(rank.host, now - enqueued_before_[static_cast<std::size_t>(task) + 1]);
        rank.host_limit = next_wait(rank.role, task + 1);
    }
    finished(r, now);
    if (!is_of_a_pass(task_at(task))) return;
    rank.passes_end = now;
    if (--rank.passing == 0) rank.busy += now - rank.busy_since;
}

Picoseconds RankStreams::started(int rank, int task) const {
    return at(rank).started[stream_of(task)];
}

void RankStreams::finished(int rank, Picoseconds time) {
    at(rank).finish = std::max(at(rank).finish, time);
}

bool RankStreams::is_current(const Event& event) const {
    const Compute& compute = at(event.rank).compute;
    return compute.task == event.task && compute.version == event.stage;
}

void RankStreams::schedule(int r, Picoseconds now) {
    Compute& compute = at(r).compute;
    const auto time = static_cast<Picoseconds>(
        std::llround(compute.alone.until_end(is_slowed(at(r)), program_.overlap)));
    events_.push({.time = std::max(now + time, enqueued(at(r), compute.task)),
                  .kind = EventKind::compute_done,
                  .rank = r,
                  .task = compute.task,
                  .stage = ++compute.version});
}

void RankStreams::communicate(int r, int change, Picoseconds now) {
    Rank& rank = at(r);
    const bool before = is_slowed(rank);
    rank.communicating += change;
    Compute& compute = rank.compute;
    if (compute.task == kNoTask || is_slowed(rank) == before) return;
    compute.alone.advance(static_cast<double>(now - compute.since), before, program_.overlap);
    compute.since = now;
    schedule(r, now);
}

void RankStreams::check_all_done() const {
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
        for (std::size_t s = 0; s < kNumStreams; ++s) {
            const auto cursor = static_cast<std::size_t>(ranks_[r].cursor[s]);
            const std::vector<int>& tasks = list(ranks_[r], s);
            if (cursor == tasks.size()) continue;
            const Task& task = task_at(tasks[cursor]);
            std::string text = fmt::format(
                "simulate: rank {} never ends task {} ({} {}, layer {}, micro-batch {})", r,
                tasks[cursor], name(task.phase), name(task.pass), task.layer, task.micro_batch);
            for (const int before : task.after)
                if (!is_done(ranks_[r], before))
                    text += fmt::format("; task {} comes first", before);
            for (const int message : task.receives)
                if (ranks_[r].received[static_cast<std::size_t>(message)] == 0)
                    text += fmt::format("; message {} has not come", message);
            throw std::logic_error(text);
        }
    }
}

Still RankStreams::take_computing(Picoseconds now) {
    Still still{.first = std::numeric_limits<int>::max()};
    for (const Rank& rank : ranks_) {
        for (std::size_t s = 0; s < kNumStreams; ++s) {
            const auto cursor = static_cast<std::size_t>(rank.cursor[s]);
            const std::vector<int>& tasks = list(rank, s);
            if (cursor < tasks.size()) still.first = std::min(still.first, tasks[cursor]);
            if (cursor > 0) still.reach = std::max(still.reach, tasks[cursor - 1] + 1);
        }
    }
    for (const Rank& rank : ranks_) {
        auto& ended = still.ended.emplace_back();
        for (std::size_t s = 0; s < kNumStreams; ++s)
            ended[s] = rank.cursor[s] - num_before(s, still.first);
    }
    while (!events_.empty()) {
        const Event e = events_.pop();
        if (!is_current(e)) continue;
        assert(e.kind == EventKind::compute_done);
        const Compute& compute = at(e.rank).compute;
        still.reach = std::max(still.reach, e.task + 1);
        still.computing.push_back({.rank = e.rank,
                                   .task = e.task - still.first,
                                   .started = started(e.rank, e.task) - now,
                                   .since = compute.since - now,
                                   .until = e.time - now,
                                   .alone = compute.alone});
    }
    return still;
}

bool RankStreams::all_wait_in(int task) const {
    return std::ranges::all_of(ranks_, [&](const Rank& rank) {
        for (std::size_t s = 0; s < kNumStreams; ++s) {
            const auto cursor = static_cast<std::size_t>(rank.cursor[s]);
            if (cursor > 0 && list(rank, s)[cursor - 1] > task) return false;
        }
        return rank.compute.task == kNoTask;
    });
}

void RankStreams::put_computing(const Still& still, Picoseconds now) {
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
        Rank& rank = ranks_[r];
        for (std::size_t s = 0; s < kNumStreams; ++s) {
            rank.cursor[s] = num_before(s, still.first) + still.ended[r][s];
            rank.running[s] = false;
        }
        rank.communicating = 0;
        rank.compute.task = kNoTask;
    }
    for (const Computing& c : still.computing) {
        Rank& rank = at(c.rank);
        const int task = still.first + c.task;
        rank.running[stream_of(task)] = true;
        rank.started[stream_of(task)] = now + c.started;
        rank.compute.task = task;
        rank.compute.alone = c.alone;
        rank.compute.since = now + c.since;
        events_.push({.time = now + c.until,
                      .kind = EventKind::compute_done,
                      .rank = c.rank,
                      .task = task,
                      .stage = ++rank.compute.version});
    }
}

void RankStreams::put_waiting(int task, std::span<const Picoseconds> entered) {
    const std::size_t stream = stream_of(task);
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
        Rank& rank = ranks_[r];
        for (std::size_t s = 0; s < kNumStreams; ++s) {
            rank.cursor[s] = num_before(s, task);
            rank.running[s] = false;
        }
        rank.running[stream] = true;
        rank.started[stream] = entered[r];
        rank.communicating = 1;
        rank.compute.task = kNoTask;
    }
}

}  // namespace headway::sim
