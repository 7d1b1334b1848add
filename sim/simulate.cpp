#include "sim/simulate.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <queue>
#include <stdexcept>
#include <variant>

#include "sim/collective.hpp"
#include "sim/repetition.hpp"

namespace headway::sim {
namespace {

constexpr int kNumStreams = 3;
constexpr int kNoTask = -1;

enum class EventKind { compute_done, armed, stage_done };

struct Event {
    Picoseconds time = 0;
    std::uint64_t sequence = 0;
    EventKind kind = EventKind::compute_done;
    int rank = 0;
    int task = 0;
    int stage = 0;  // or, for compute_done, the version of the rank's schedule

    friend bool operator>(const Event& a, const Event& b) {
        return a.time != b.time ? a.time > b.time : a.sequence > b.sequence;
    }
};

struct ComputeState {
    int task = kNoTask;
    double left = 0.0;  // picoseconds at full speed
    Picoseconds since = 0;
    int version = 0;
};

struct RankState {
    std::array<int, kNumStreams> cursor{};  // in the stream's list
    std::array<bool, kNumStreams> running{};
    std::vector<std::uint8_t> done;    // [task]
    std::vector<Picoseconds> started;  // [task]
    ComputeState compute;
    int communicating = 0;  // collectives in progress
    double speed = 1.0;     // of compute, from the cluster's overrides
    Picoseconds finish = 0;
};

class Simulation {
  public:
    Simulation(const Program& program, const Topology& topology, const SimulateOptions& options)
        : program_(program),
          topology_(topology),
          options_(options),
          paths_(topology),
          network_(topology, options.epsilon, options.trace || options.link_use),
          recorder_(program, options.timeline),
          ranks_(static_cast<std::size_t>(program.num_ranks)),
          collectives_(program.tasks.size()),
          error_of_task_(program.tasks.size(), 0.0) {
        for (std::size_t t = 0; t < program.tasks.size(); ++t) {
            streams_[stream_of(static_cast<int>(t))].push_back(static_cast<int>(t));
        }
        for (RankState& rank : ranks_) {
            rank.done.assign(program.tasks.size(), 0);
            rank.started.assign(program.tasks.size(), 0);
        }
        for (const RankOverride& o : topology.cluster().rank_overrides) {
            ranks_[static_cast<std::size_t>(o.rank)].speed = o.compute_factor;
        }
        result_.timeline.source = Source::simulated;
    }

    SimulationResult run() {
        for (int r = 0; r < program_.num_ranks; ++r) start_ready_tasks(r);
        while (true) {
            // All events of one moment first: rates are solved once for all that starts in it.
            if (!events_.empty() && events_.top().time <= now_) {
                handle_next_event();
                continue;
            }
            const Picoseconds delivery = network_.next_delivery();
            const Picoseconds event = events_.empty() ? kNever : events_.top().time;
            if (delivery == kNever && event == kNever) break;
            now_ = std::max(now_, std::min(delivery, event));
            if (delivery <= event) handle_deliveries(delivery);
        }
        return finish();
    }

  private:
    std::size_t stream_of(int task) const {
        return static_cast<std::size_t>(program_.tasks[static_cast<std::size_t>(task)].stream);
    }
    const Task& task_at(int task) const { return program_.tasks[static_cast<std::size_t>(task)]; }
    RankState& rank_at(int rank) { return ranks_[static_cast<std::size_t>(rank)]; }

    void push(Picoseconds time, EventKind kind, int rank, int task, int stage) {
        events_.push({.time = time,
                      .sequence = sequence_++,
                      .kind = kind,
                      .rank = rank,
                      .task = task,
                      .stage = stage});
    }

    void handle_next_event() {
        const Event e = events_.top();
        events_.pop();
        ++result_.events;
        switch (e.kind) {
            case EventKind::compute_done:
                if (rank_at(e.rank).compute.version != e.stage) return;
                rank_at(e.rank).compute.task = kNoTask;
                finish_task(e.rank, e.task);
                break;
            case EventKind::armed:
                arm(e.rank, e.task, e.stage);
                break;
            case EventKind::stage_done:
                leave_stage(e.rank, e.task, e.stage);
                break;
        }
    }

    void start_ready_tasks(int r) {
        RankState& rank = rank_at(r);
        for (std::size_t s = 0; s < kNumStreams; ++s) {
            if (rank.running[s]) continue;
            const auto cursor = static_cast<std::size_t>(rank.cursor[s]);
            if (cursor >= streams_[s].size()) continue;
            const int task = streams_[s][cursor];
            const bool ready = std::ranges::all_of(task_at(task).after, [&](int before) {
                return rank.done[static_cast<std::size_t>(before)] != 0;
            });
            if (!ready) continue;
            rank.running[s] = true;
            rank.started[static_cast<std::size_t>(task)] = now_;
            start_task(r, task);
        }
    }

    void start_task(int r, int task) {
        RankState& rank = rank_at(r);
        if (const auto* work = std::get_if<ComputeTask>(&task_at(task).work)) {
            const auto slot = work->per_rank.size() == 1 ? 0 : static_cast<std::size_t>(r);
            rank.compute.task = task;
            rank.compute.left = work->per_rank[slot].in(ps) / rank.speed;
            rank.compute.since = now_;
            schedule_compute(r);
            return;
        }
        set_communicating(r, +1);
        enter_stage(r, task, 0);
    }

    void finish_task(int r, int task) {
        RankState& rank = rank_at(r);
        const std::size_t s = stream_of(task);
        rank.done[static_cast<std::size_t>(task)] = 1;
        rank.running[s] = false;
        ++rank.cursor[s];
        rank.finish = std::max(rank.finish, now_);
        record_span(r, task);
        if (r == 0 && options_.progress) {
            options_.progress(static_cast<std::size_t>(task) + 1, program_.tasks.size());
        }
        start_ready_tasks(r);
    }

    // ---- compute, slower while the rank communicates

    double slowdown(const RankState& rank) const {
        return rank.communicating > 0 ? program_.overlap_slowdown : 1.0;
    }

    void schedule_compute(int r) {
        ComputeState& compute = rank_at(r).compute;
        const auto time =
            static_cast<Picoseconds>(std::llround(compute.left * slowdown(rank_at(r))));
        push(now_ + time, EventKind::compute_done, r, compute.task, ++compute.version);
    }

    void set_communicating(int r, int change) {
        RankState& rank = rank_at(r);
        const double before = slowdown(rank);
        rank.communicating += change;
        if (rank.compute.task == kNoTask || slowdown(rank) == before) return;
        rank.compute.left = std::max(
            0.0, rank.compute.left - static_cast<double>(now_ - rank.compute.since) / before);
        rank.compute.since = now_;
        schedule_compute(r);
    }

    // ---- collectives

    int group_of_task(int r, int task) const {
        const Task& t = task_at(task);
        if (const auto* exchange = std::get_if<ExchangeTask>(&t.work)) {
            return group_of(*exchange, r);
        }
        return group_of(std::get<ReduceTask>(t.work), r);
    }

    RunningCollective& collective_of(int r, int task) {
        const auto group = static_cast<std::size_t>(group_of_task(r, task));
        auto& by_group = collectives_[static_cast<std::size_t>(task)];
        if (by_group.size() <= group) by_group.resize(group + 1, nullptr);
        if (by_group[group] == nullptr) by_group[group] = &begin(task, static_cast<int>(group));
        return *by_group[group];
    }

    RunningCollective& begin(int task, int group) {
        if (free_slots_.empty()) {
            free_slots_.push_back(static_cast<std::uint32_t>(slots_.size()));
            slots_.push_back(std::make_unique<RunningCollective>());
            slots_.back()->slot = free_slots_.back();
        }
        RunningCollective& run = *slots_[free_slots_.back()];
        free_slots_.pop_back();
        ++num_running_;
        run.task = task;
        begin_collective(task_at(task), group, paths_, options_.epsilon, options_.trace, run);
        return run;
    }

    void end(RunningCollective& run) {
        double& error = error_of_task_[static_cast<std::size_t>(run.task)];
        error = std::max(error,
                         run.decoupling_error + (run.opened ? network_.close(*run.opened) : 0.0));
        collectives_[static_cast<std::size_t>(run.task)][static_cast<std::size_t>(run.group)] =
            nullptr;
        free_slots_.push_back(run.slot);
        --num_running_;
    }

    void enter_stage(int r, int task, int stage) {
        RunningCollective& run = collective_of(r, task);
        if (stage == run.num_stages()) return leave(r, run);
        const Picoseconds latency = run.operation.stages[static_cast<std::size_t>(stage)].latency;
        push(now_ + latency, EventKind::armed, r, task, stage);
    }

    void open(RunningCollective& run) {
        open_paths_.clear();
        for (const Stage& stage : run.operation.stages) {
            for (const Message& m : stage.messages) open_paths_.push_back(m.path);
        }
        run.opened = network_.open(open_paths_, now_);
    }

    void arm(int r, int task, int stage_index) {
        RunningCollective& run = collective_of(r, task);
        const auto slot = static_cast<std::size_t>(stage_index);
        StageState& state = run.states[slot];
        const Stage& stage = run.operation.stages[slot];
        const auto member = static_cast<std::size_t>(run.member_index(r));
        state.armed[member] = 1;
        ++state.num_armed;
        if (stage.collective) {
            if (state.num_armed < static_cast<int>(run.operation.members.size())) return;
            if (stage.messages.empty()) return release_all(run, stage_index, now_);
            if (!run.opened) open(run);
            for (std::size_t m = 0; m < stage.messages.size(); ++m) start_message(run, slot, m);
            return;
        }
        if (state.pending[member] == 0) return leave_stage(r, task, stage_index);
        if (!run.opened) open(run);
        for (const std::int32_t m : state.messages_of(member)) {
            const Message& message = stage.messages[static_cast<std::size_t>(m)];
            const auto from = static_cast<std::size_t>(message.from);
            const auto to = static_cast<std::size_t>(message.to);
            if (state.armed[from] && state.armed[to]) {
                start_message(run, slot, static_cast<std::size_t>(m));
            }
        }
    }

    // A message goes through the network under (collective, stage, message).
    void start_message(RunningCollective& run, std::size_t stage, std::size_t m) {
        const Message& message = run.operation.stages[stage].messages[m];
        if (options_.trace) run.states[stage].begin[m] = now_;
        const std::uint64_t tag = std::uint64_t{run.slot} << 44 | std::uint64_t{stage} << 32 | m;
        network_.start(message.path, message.bytes, message.wire_bytes, tag, now_);
    }

    void handle_deliveries(Picoseconds time) {
        deliveries_.clear();
        network_.deliver(time, deliveries_);
        for (const Delivery& d : deliveries_) {
            deliver(*slots_[d.tag >> 44], static_cast<int>(d.tag >> 32 & 0xfff),
                    static_cast<std::int32_t>(d.tag & 0xffffffff), std::max(d.time, now_));
        }
    }

    void deliver(RunningCollective& run, int stage_index, std::int32_t m, Picoseconds time) {
        const auto slot = static_cast<std::size_t>(stage_index);
        const Stage& stage = run.operation.stages[slot];
        StageState& state = run.states[slot];
        const Message& message = stage.messages[static_cast<std::size_t>(m)];
        --state.num_pending;
        for (const int end : {message.from, message.to}) {
            const auto member = static_cast<std::size_t>(end);
            if (time >= state.last[member]) {
                state.last[member] = time;
                state.slowest[member] = m;
            }
            if (--state.pending[member] > 0 || stage.collective) continue;
            push(state.last[member], EventKind::stage_done, run.operation.members[member], run.task,
                 stage_index);
        }
        if (stage.collective && state.num_pending == 0) {
            release_all(run, stage_index, std::ranges::max(state.last));
        }
    }

    void release_all(RunningCollective& run, int stage, Picoseconds time) {
        RunningCollective& last = is_still(run) ? pass_over_repetitions(run) : run;
        if (&last != &run) time = now_;
        for (const int member : last.operation.members) {
            push(time, EventKind::stage_done, member, last.task, stage);
        }
    }

    void leave_stage(int r, int task, int stage) {
        if (options_.trace) record_arrow(r, task, stage);
        enter_stage(r, task, stage + 1);
    }

    void leave(int r, RunningCollective& run) {
        set_communicating(r, -1);
        left_ = &run;
        finish_task(r, run.task);
        if (++run.members_done == static_cast<int>(run.operation.members.size())) end(run);
    }

    // ---- repetition

    // Nothing but this rendezvous of all ranks is under way, and no rank is ahead of it.
    bool is_still(const RunningCollective& run) const {
        if (!options_.repeat || options_.trace || options_.link_use || !run.is_rendezvous())
            return false;
        if (static_cast<int>(run.operation.members.size()) != program_.num_ranks) return false;
        if (num_running_ != 1 || !network_.idle() || !events_.empty()) return false;
        return std::ranges::all_of(ranks_, [&](const RankState& rank) {
            for (std::size_t s = 0; s < kNumStreams; ++s) {
                const auto cursor = static_cast<std::size_t>(rank.cursor[s]);
                if (cursor > 0 && streams_[s][cursor - 1] > run.task) return false;
            }
            return rank.compute.task == kNoTask;
        });
    }

    // Takes note of the section that ends here and begins the next one; passes over sections that
    // were simulated before. Returns the rendezvous at which simulation goes on, all members in it.
    RunningCollective& pass_over_repetitions(RunningCollective& run) {
        end_section(run.task);
        RunningCollective* at = &run;
        while (const Section* section = find_repeated(sections_, program_, at->task)) {
            at = &repeat(*section, *at);
        }
        section_ = {.first_task = at->task, .before = network_.totals(), .events = result_.events};
        section_begin_ = now_;
        recorder_.begin_section();
        return *at;
    }

    void end_section(int task) {
        if (section_begin_ < 0) return;
        section_.last_task = task;
        section_.duration = now_ - section_begin_;
        section_.after = network_.totals();
        section_.events = result_.events - section_.events;
        for (const RankState& rank : ranks_) {
            section_.entered.push_back(rank.started[static_cast<std::size_t>(task)] -
                                       section_begin_);
        }
        for (SpanRecord& span : recorder_.take_section()) {
            if (span.task == section_.first_task) continue;
            span.begin -= section_begin_;
            span.end -= section_begin_;
            section_.spans.push_back(span);
        }
        sections_.push_back(std::move(section_));
        ++result_.sections;
    }

    RunningCollective& repeat(const Section& section, RunningCollective& run) {
        const int shift = run.task - section.first_task, last = section.last_task + shift;
        for (int r = 0; r < program_.num_ranks; ++r) {
            record_span(r, run.task, &run);
            RankState& rank = rank_at(r);
            for (int task = run.task; task < last; ++task) {
                rank.done[static_cast<std::size_t>(task)] = 1;
                ++rank.cursor[stream_of(task)];
            }
            rank.started[static_cast<std::size_t>(last)] =
                now_ + section.entered[static_cast<std::size_t>(r)];
        }
        for (SpanRecord span : section.spans) {
            span.task += shift;
            span.begin += now_;
            span.end += now_;
            recorder_.add(span);
        }
        for (int task = section.first_task + 1; task < section.last_task; ++task) {
            error_of_task_[static_cast<std::size_t>(task + shift)] =
                error_of_task_[static_cast<std::size_t>(task)];
        }
        network_.add(section.after, section.before);
        result_.events += section.events;
        ++result_.sections;
        ++result_.repeated_sections;
        now_ += section.duration;
        if (options_.progress)
            options_.progress(static_cast<std::size_t>(last), program_.tasks.size());
        end(run);
        return collective_of(0, last);
    }

    // ---- results

    void record_arrow(int r, int task, int stage) {
        const RunningCollective& run = collective_of(r, task);
        const auto slot = static_cast<std::size_t>(stage);
        const StageState& state = run.states[slot];
        const auto member = static_cast<std::size_t>(run.member_index(r));
        const std::int32_t m = state.slowest[member];
        if (m < 0) return;
        const Message& message = run.operation.stages[slot].messages[static_cast<std::size_t>(m)];
        result_.arrows.push_back(
            {.from = run.operation.members[static_cast<std::size_t>(message.from)],
             .to = run.operation.members[static_cast<std::size_t>(message.to)],
             .task = task,
             .phase = task_at(task).phase,
             .begin = static_cast<double>(state.begin[static_cast<std::size_t>(m)]) * ps,
             .end = static_cast<double>(state.last[member]) * ps});
    }

    // Of a collective: with the bytes that the rank sent and the path of the message it ended with.
    void record_span(int r, int task) {
        const bool compute = std::holds_alternative<ComputeTask>(task_at(task).work);
        record_span(r, task, compute ? nullptr : left_);
    }

    void record_span(int r, int task, const RunningCollective* run) {
        SpanRecord span{.rank = r,
                        .task = task,
                        .begin = rank_at(r).started[static_cast<std::size_t>(task)],
                        .end = now_};
        if (run != nullptr) {
            const auto member = static_cast<std::size_t>(run->member_index(r));
            span.bytes = run->sent[member];
            for (std::size_t s = 0; s < run->operation.stages.size(); ++s) {
                const std::int32_t m = run->states[s].slowest[member];
                const std::vector<Message>& messages = run->operation.stages[s].messages;
                if (m >= 0) span.bottleneck = messages[static_cast<std::size_t>(m)].path_class;
            }
        }
        recorder_.add(span);
    }

    void check_all_done() const {
        for (int r = 0; r < program_.num_ranks; ++r) {
            const auto& done = ranks_[static_cast<std::size_t>(r)].done;
            const auto stuck = std::ranges::find(done, 0);
            if (stuck == done.end()) continue;
            throw std::logic_error("simulate: rank " + std::to_string(r) + " never ends task " +
                                   std::to_string(stuck - done.begin()));
        }
    }

    SimulationResult finish() {
        check_all_done();
        Picoseconds last = 0;
        for (const RankState& rank : ranks_) {
            result_.rank_finish.push_back(static_cast<double>(rank.finish) * ps);
            last = std::max(last, rank.finish);
        }
        result_.step = static_cast<double>(last) * ps;
        result_.timeline.spans = recorder_.spans();
        result_.phases = recorder_.phases();
        double error = 0.0;
        for (const double e : error_of_task_) error += e;
        result_.error_bound = error * second;
        result_.messages = network_.num_messages();
        result_.instants = network_.num_instants();
        std::vector<int> index(static_cast<std::size_t>(topology_.num_links()), -1);
        for (std::uint32_t l = 0; l < index.size(); ++l) {
            const double bytes = network_.bytes_by_link()[l];
            if (bytes <= 0.0) continue;
            index[l] = static_cast<int>(result_.links.size());
            result_.links.push_back({.name = topology_.link_name(l),
                                     .capacity = topology_.capacity()[l] * (byte / second),
                                     .bytes = bytes * byte,
                                     .busy = static_cast<double>(network_.busy_by_link()[l]) * ps});
        }
        for (const LinkInterval& i : network_.intervals()) {
            result_.activity.push_back({.link = index[i.link],
                                        .begin = static_cast<double>(i.begin) * ps,
                                        .end = static_cast<double>(i.end) * ps,
                                        .bytes = i.bytes * byte});
        }
        return std::move(result_);
    }

    const Program& program_;
    const Topology& topology_;
    const SimulateOptions& options_;
    PathTable paths_;
    Network network_;
    Recorder recorder_;
    Picoseconds now_ = 0;
    std::uint64_t sequence_ = 0;
    std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
    std::array<std::vector<int>, kNumStreams> streams_;  // task numbers
    std::vector<RankState> ranks_;
    std::vector<std::vector<RunningCollective*>> collectives_;  // [task][group], under way
    std::vector<std::unique_ptr<RunningCollective>> slots_;
    std::vector<std::uint32_t> free_slots_;
    int num_running_ = 0;
    const RunningCollective* left_ = nullptr;  // that a rank is leaving
    std::vector<Path> open_paths_;
    std::vector<Section> sections_;
    Section section_;
    Picoseconds section_begin_ = -1;
    std::vector<Delivery> deliveries_;
    std::vector<double> error_of_task_;  // seconds
    SimulationResult result_;
};

}  // namespace

SimulationResult simulate(const Program& program, const Topology& topology,
                          const SimulateOptions& options) {
    if (program.num_ranks != topology.num_ranks()) {
        throw std::logic_error("simulate: program and topology differ in ranks");
    }
    try {
        return Simulation(program, topology, options).run();
    } catch (const DeadPath& dead) {
        SimulationResult result;
        result.unreachable = dead.where();
        return result;
    }
}

}  // namespace headway::sim
