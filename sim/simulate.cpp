#include "sim/simulate.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <memory>
#include <optional>
#include <queue>
#include <stdexcept>
#include <variant>

#include "sim/network.hpp"
#include "sim/operation.hpp"

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

// A collective of one group on its way.
struct RunningOperation {
    struct StageState {
        std::vector<std::uint8_t> armed;    // [member]
        std::vector<int> pending;           // [member] messages to and from it
        std::vector<Picoseconds> last;      // [member] latest delivery
        std::vector<std::int32_t> slowest;  // [member] the message of that delivery, or -1
        std::vector<Picoseconds> begin;     // [message]; only with traces
        std::vector<std::vector<std::int32_t>> messages_of;  // [member]
        int num_armed = 0, num_pending = 0;
    };
    Operation operation;
    std::vector<StageState> stages;
    std::optional<Network::Opened> opened;  // in the network
    int members_done = 0;
    int task = 0, group = 0;
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
          network_(topology, options.epsilon, options.trace),
          ranks_(static_cast<std::size_t>(program.num_ranks)),
          operations_(program.tasks.size()),
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
        result_.timeline.spans.reserve(program.tasks.size() * ranks_.size());
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
        if (r == 0 && options_.progress) options_.progress(++tasks_done_, program_.tasks.size());
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

    RunningOperation& operation_of(int r, int task) {
        const int group = group_of_task(r, task);
        auto& by_group = operations_[static_cast<std::size_t>(task)];
        const auto slot = static_cast<std::size_t>(group);
        if (by_group.size() <= slot) by_group.resize(slot + 1);
        if (!by_group[slot]) by_group[slot] = create_operation(task, group);
        return *by_group[slot];
    }

    std::unique_ptr<RunningOperation> create_operation(int task, int group) const {
        auto run = std::make_unique<RunningOperation>();
        run->task = task;
        run->group = group;
        run->operation = std::visit(
            [&](const auto& work) -> Operation {
                if constexpr (std::is_same_v<std::decay_t<decltype(work)>, ComputeTask>) {
                    throw std::logic_error("simulate: compute is not a collective");
                } else {
                    return expand(work, group, topology_);
                }
            },
            task_at(task).work);
        const std::size_t n = run->operation.members.size();
        for (const Stage& stage : run->operation.stages) {
            RunningOperation::StageState state{.armed = std::vector<std::uint8_t>(n, 0),
                                               .pending = std::vector<int>(n, 0),
                                               .last = std::vector<Picoseconds>(n, 0),
                                               .slowest = std::vector<std::int32_t>(n, -1),
                                               .begin = {},
                                               .messages_of = {}};
            state.messages_of.resize(n);
            for (std::size_t m = 0; m < stage.messages.size(); ++m) {
                for (const int end : {stage.messages[m].from, stage.messages[m].to}) {
                    ++state.pending[static_cast<std::size_t>(end)];
                    state.messages_of[static_cast<std::size_t>(end)].push_back(
                        static_cast<std::int32_t>(m));
                }
            }
            state.num_pending = static_cast<int>(stage.messages.size());
            if (options_.trace) state.begin.assign(stage.messages.size(), 0);
            run->stages.push_back(std::move(state));
        }
        return run;
    }

    int member_index(const RunningOperation& run, int r) const {
        const auto& members = run.operation.members;
        return static_cast<int>(std::ranges::lower_bound(members, r) - members.begin());
    }

    void enter_stage(int r, int task, int stage) {
        RunningOperation& run = operation_of(r, task);
        if (stage == static_cast<int>(run.operation.stages.size())) {
            leave_operation(r, run);
            return;
        }
        const Picoseconds latency = run.operation.stages[static_cast<std::size_t>(stage)].latency;
        push(now_ + latency, EventKind::armed, r, task, stage);
    }

    void open(RunningOperation& run) {
        std::vector<Path> paths;
        for (const Stage& stage : run.operation.stages) {
            for (const Message& m : stage.messages) paths.push_back(m.path);
        }
        run.opened = network_.open(paths, now_);
    }

    void arm(int r, int task, int stage_index) {
        RunningOperation& run = operation_of(r, task);
        const auto slot = static_cast<std::size_t>(stage_index);
        RunningOperation::StageState& state = run.stages[slot];
        const Stage& stage = run.operation.stages[slot];
        const auto member = static_cast<std::size_t>(member_index(run, r));
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
        for (const std::int32_t m : state.messages_of[member]) {
            const Message& message = stage.messages[static_cast<std::size_t>(m)];
            const auto from = static_cast<std::size_t>(message.from);
            const auto to = static_cast<std::size_t>(message.to);
            if (state.armed[from] && state.armed[to]) {
                start_message(run, slot, static_cast<std::size_t>(m));
            }
        }
    }

    void start_message(RunningOperation& run, std::size_t stage, std::size_t m) {
        const Message& message = run.operation.stages[stage].messages[m];
        if (options_.trace) run.stages[stage].begin[m] = now_;
        network_.start(message.path, message.bytes, message.wire_bytes, tag_of(run, stage, m),
                       now_);
    }

    // (task, group, stage, message) through the network and back.
    std::uint64_t tag_of(RunningOperation& run, std::size_t stage, std::size_t m) {
        if (free_tags_.empty()) {
            free_tags_.push_back(static_cast<std::uint32_t>(in_flight_.size()));
            in_flight_.emplace_back();
        }
        const std::uint32_t tag = free_tags_.back();
        free_tags_.pop_back();
        in_flight_[tag] = {&run, static_cast<std::int32_t>(stage), static_cast<std::int32_t>(m)};
        return tag;
    }

    void handle_deliveries(Picoseconds time) {
        deliveries_.clear();
        network_.deliver(time, deliveries_);
        for (const Delivery& d : deliveries_) {
            const InFlight f = in_flight_[d.tag];
            free_tags_.push_back(static_cast<std::uint32_t>(d.tag));
            deliver(*f.run, f.stage, f.message, std::max(d.time, now_));
        }
    }

    void deliver(RunningOperation& run, int stage_index, int m, Picoseconds time) {
        const auto slot = static_cast<std::size_t>(stage_index);
        const Stage& stage = run.operation.stages[slot];
        RunningOperation::StageState& state = run.stages[slot];
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

    void release_all(RunningOperation& run, int stage, Picoseconds time) {
        for (const int member : run.operation.members) {
            push(time, EventKind::stage_done, member, run.task, stage);
        }
    }

    void leave_stage(int r, int task, int stage) {
        if (options_.trace) record_arrow(r, task, stage);
        enter_stage(r, task, stage + 1);
    }

    void leave_operation(int r, RunningOperation& run) {
        const int task = run.task;
        set_communicating(r, -1);
        last_operation_ = &run;
        finish_task(r, task);
        if (++run.members_done < static_cast<int>(run.operation.members.size())) return;
        if (run.opened) {
            double& error = error_of_task_[static_cast<std::size_t>(task)];
            error = std::max(error, network_.close(*run.opened));
        }
        operations_[static_cast<std::size_t>(task)][static_cast<std::size_t>(run.group)].reset();
    }

    // ---- results

    void record_arrow(int r, int task, int stage) {
        const RunningOperation& run = operation_of(r, task);
        const auto slot = static_cast<std::size_t>(stage);
        const RunningOperation::StageState& state = run.stages[slot];
        const auto member = static_cast<std::size_t>(member_index(run, r));
        const std::int32_t m = state.slowest[member];
        if (m < 0) return;
        const Message& message = run.operation.stages[slot].messages[static_cast<std::size_t>(m)];
        result_.arrows.push_back(
            {.from = run.operation.members[static_cast<std::size_t>(message.from)],
             .to = run.operation.members[static_cast<std::size_t>(message.to)],
             .task = task,
             .begin = static_cast<double>(state.begin[static_cast<std::size_t>(m)]) * ps,
             .end = static_cast<double>(state.last[member]) * ps});
    }

    void record_span(int r, int task) {
        const Task& t = task_at(task);
        const Picoseconds begin = rank_at(r).started[static_cast<std::size_t>(task)];
        Span span{.rank = r,
                  .layer = t.layer,
                  .micro_batch = t.micro_batch,
                  .pass = t.pass,
                  .phase = t.phase,
                  .begin = static_cast<double>(begin) * ps,
                  .duration = static_cast<double>(now_ - begin) * ps,
                  .bottleneck = ""};
        span.low = span.high = span.duration;
        if (const auto* work = std::get_if<ComputeTask>(&t.work)) {
            span.bytes = work->bytes;
            span.flops = work->flops;
        } else {
            describe_collective(r, span);
        }
        result_.timeline.spans.push_back(std::move(span));
    }

    // Bytes that the rank sent, and the path of the message it ended with.
    void describe_collective(int r, Span& span) const {
        const RunningOperation& run = *last_operation_;
        const int member = member_index(run, r);
        for (std::size_t s = 0; s < run.stages.size(); ++s) {
            const std::vector<Message>& messages = run.operation.stages[s].messages;
            const auto at = static_cast<std::size_t>(member);
            for (const std::int32_t m : run.stages[s].messages_of[at]) {
                const Message& message = messages[static_cast<std::size_t>(m)];
                if (message.from == member) span.bytes += message.bytes * byte;
            }
            const std::int32_t slowest = run.stages[s].slowest[at];
            if (slowest >= 0) {
                span.bottleneck = name(messages[static_cast<std::size_t>(slowest)].path_class);
            }
        }
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

    struct InFlight {
        RunningOperation* run = nullptr;
        std::int32_t stage = 0, message = 0;
    };

    const Program& program_;
    const Topology& topology_;
    const SimulateOptions& options_;
    Network network_;
    Picoseconds now_ = 0;
    std::uint64_t sequence_ = 0;
    std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
    std::array<std::vector<int>, kNumStreams> streams_;  // task numbers
    std::vector<RankState> ranks_;
    std::vector<std::vector<std::unique_ptr<RunningOperation>>> operations_;  // [task][group]
    const RunningOperation* last_operation_ = nullptr;  // that a rank is leaving
    std::vector<InFlight> in_flight_;
    std::vector<std::uint32_t> free_tags_;
    std::vector<Delivery> deliveries_;
    std::vector<double> error_of_task_;  // seconds
    std::size_t tasks_done_ = 0;
    SimulationResult result_;
};

}  // namespace

SimulationResult simulate(const Program& program, const Topology& topology,
                          const SimulateOptions& options) {
    if (program.num_ranks != topology.num_ranks()) {
        throw std::logic_error("simulate: program and topology differ in ranks");
    }
    return Simulation(program, topology, options).run();
}

}  // namespace headway::sim
