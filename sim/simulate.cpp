#include "sim/simulate.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>
#include <variant>

#include "sim/collectives.hpp"
#include "sim/rank_streams.hpp"
#include "sim/repetition.hpp"
#include "sim/sends.hpp"

namespace headway::sim {
namespace {

constexpr std::size_t kSpansAtOnce = 4096;  // given to a trace

class Simulation {
  public:
    Simulation(const Program& program, const Topology& topology, const SimulateOptions& options)
        : program_(program),
          topology_(topology),
          options_(options),
          paths_(topology),
          network_(topology, options.epsilon,
                   options.trace || options.link_use || options.sink != nullptr,
                   program.num_roles() > 1),
          recorder_(program, options.timeline || options.sink != nullptr, options.sink == nullptr),
          ranks_(program, topology.cluster(), check_messages(program), events_),
          sends_(program, paths_, network_, events_),
          collectives_(program, paths_, network_, events_,
                       {.epsilon = options.epsilon,
                        .trace = options.trace || options.sink != nullptr,
                        .repeat = may_repeat()}),
          repetition_(program) {}

    SimulationResult run() {
        for (int r = 0; r < program_.num_ranks; ++r) start_ready_tasks(r);
        while (true) {
            // All events of one moment first: rates are solved once for all that starts in it.
            if (events_.next_time() <= now_) {
                handle_next_event();
                continue;
            }
            if (may_be_still_ && collectives_.num_running() == 0) note_computing();
            may_be_still_ = false;
            const Picoseconds delivery = network_.next_delivery(), event = events_.next_time();
            if (delivery == kNever && event == kNever) break;
            now_ = std::max(now_, std::min(delivery, event));
            if (delivery <= event) deliver(delivery);
            if (options_.sink != nullptr && recorder_.num_spans() >= kSpansAtOnce) drain();
        }
        return finish();
    }

  private:
    const Task& task_at(int task) const { return program_.tasks[static_cast<std::size_t>(task)]; }

    void handle_next_event() {
        const Event e = events_.pop();
        if (e.kind == EventKind::compute_done && !ranks_.is_current(e)) return;
        switch (e.kind) {
            case EventKind::compute_done:
                ++num_events_;
                end_task(e.rank, e.task, nullptr);
                break;
            case EventKind::host_done:
                ++num_events_;
                end_task(e.rank, e.task, nullptr);
                break;
            case EventKind::launched:
                ++num_events_;
                start_ready_tasks(e.rank);
                break;
            case EventKind::arrives:
                arrive(e.rank, e.task);
                break;
            case EventKind::armed:
                arm(cell_of(e), e.rank, e.stage);
                break;
            case EventKind::stage_done:
                leave_stage(cell_of(e), e.rank, e.stage);
                break;
            case EventKind::departs:
                if (collectives_.departs(e, now_)) leave_cell(cell_of(e), e.rank);
                break;
            case EventKind::send:
                ++num_events_;
                for (const Route& route : sends_.routes(e.rank, e.task))
                    collectives_.disturb(route.path.span(), now_);
                sends_.start(e.rank, e.task, now_);
                break;
            case EventKind::sent:
                ++num_events_;
                end_send(e.rank, e.task, e.stage);
                break;
        }
    }

    void deliver(Picoseconds time) {
        deliveries_.clear();
        network_.deliver(time, deliveries_);
        for (const Delivery& d : deliveries_) {
            if (Sends::is_send(d.tag)) {
                sends_.deliver(d.tag, std::max(d.time, now_));
            } else {
                collectives_.deliver(d, now_);
            }
        }
    }

    void start_ready_tasks(int r) {
        for (std::size_t s = 0; s < kNumStreams; ++s) {
            const int task = ranks_.ready_task(r, s, now_);
            if (task == kNoTask) continue;
            ranks_.begin(r, task, now_);
            if (std::holds_alternative<ComputeTask>(task_at(task).work)) continue;
            if (const auto* host = std::get_if<HostTask>(&task_at(task).work)) {
                const std::size_t slot = static_cast<std::size_t>(r) % host->per_rank.size();
                events_.push({.time = now_ + to_picoseconds(host->per_rank[slot]),
                              .kind = EventKind::host_done,
                              .rank = r,
                              .task = task});
                continue;
            }
            if (const auto* send = std::get_if<SendTask>(&task_at(task).work)) {
                events_.push({.time = now_ + to_picoseconds(send->latency),
                              .kind = EventKind::send,
                              .rank = r,
                              .task = task});
                continue;
            }
            ranks_.enter_collective(r, now_);
            if (!collectives_.enter(r, task, now_)) leave(collectives_.of(r, task), r);
        }
    }

    void end_task(int r, int task, const RunningCollective* run) {
        record_span(r, task, run);
        ranks_.end(r, task, now_);
        if (r == 0) show_progress(task + 1);
        start_ready_tasks(r);
    }

    void end_send(int r, int task, int number) {
        double& error = collectives_.errors()[static_cast<std::size_t>(task)];
        error = std::max(error, sends_.close(number));
        const int receiver = sends_.receiver(r, task);
        ranks_.receive(receiver, std::get<SendTask>(task_at(task).work).message);
        end_task(r, task, nullptr);
        start_ready_tasks(receiver);
    }

    RunningCell& cell_of(const Event& event) {
        return collectives_.cell(static_cast<std::uint32_t>(event.task));
    }

    // A rank of several cells waits for messages in each of them.
    void arrive(int r, int task) {
        RunningCollective& run = collectives_.of(r, task);
        const auto places = run.kind->places_of(run.member_index(r));
        if (places.empty()) return leave(run, r);
        for (const auto& [cell, member] : places)
            arm(*run.cells[static_cast<std::size_t>(cell)], member, 0);
    }

    void arm(RunningCell& cell, int member, int stage) {
        switch (collectives_.arm(cell, member, stage, now_)) {
            case Armed::waits:
                break;
            case Armed::leaves:
                leave_stage(cell, member, stage);
                break;
            case Armed::all_meet:
                if (is_still_in(cell)) {
                    const int task = cell.whole->task;
                    pass_over_repetitions({.first = task, .reach = task + 1, .rendezvous = true});
                } else {
                    collectives_.release(cell, stage, now_);
                }
                break;
        }
    }

    void leave_stage(RunningCell& cell, int member, int stage) {
        if (!collectives_.enter_next(cell, member, stage, now_)) leave_cell(cell, member);
    }

    void leave_cell(RunningCell& cell, int member) {
        RunningCollective& whole = *cell.whole;
        const int rank = cell.kind->members[static_cast<std::size_t>(member)];
        if (collectives_.leave(cell, member, now_)) leave(whole, rank);
    }

    void leave(RunningCollective& run, int r) {
        ranks_.leave_collective(r, now_);
        num_events_ += 2 * run.num_stages();  // it came to each and left it, simulated or not
        end_task(r, run.task, &run);
        collectives_.leave(run);
        if (collectives_.num_running() == 0) may_be_still_ = true;
    }

    // ---- repetition

    bool may_repeat() const {
        return options_.repeat && !options_.trace && !options_.link_use && options_.sink == nullptr;
    }
    bool sections_repeat() const {
        return may_repeat() && program_.num_roles() == 1 && !ranks_.hosts_launch() &&
               !program_.uses_host();
    }

    // Nothing but this rendezvous of all ranks is under way, and no rank is ahead of it.
    bool is_still_in(const RunningCell& run) const {
        return sections_repeat() && run.is_rendezvous() &&
               static_cast<int>(run.kind->members.size()) == program_.num_ranks &&
               collectives_.num_running() == 1 && network_.idle() &&
               ranks_.all_wait_in(run.whole->task);
    }

    void note_computing() {
        if (sections_repeat() && network_.idle())
            pass_over_repetitions(ranks_.take_computing(now_));
    }

    // Takes note of the section that ends here and begins the next one; passes over sections that
    // were simulated before.
    void pass_over_repetitions(Still at) {
        if (repetition_.is_open()) end_section(at);
        if (at.rendezvous || !at.computing.empty()) {
            while (const Section* section = repetition_.find(at)) at = repeat(*section, at);
            repetition_.begin(at, now_, network_.totals(), num_events_);
            recorder_.begin_section();
        }
        if (at.rendezvous) {
            collectives_.release(*collectives_.of(0, at.first).cells[0], 0, now_);
        } else {
            ranks_.put_computing(at, now_);
        }
    }

    void end_section(const Still& at) {
        std::vector<Picoseconds> entered;
        for (int r = 0; r < program_.num_ranks && at.rendezvous; ++r)
            entered.push_back(ranks_.started(r, at.first));
        repetition_.end(at, now_, entered, recorder_.take_section(), network_.totals(),
                        num_events_);
        ++result_.sections;
    }

    // Does what the section did, from the same state `at` on; returns the state that it led to.
    Still repeat(const Section& section, const Still& at) {
        const int shift = at.first - section.begin.first;
        if (at.rendezvous) {
            RunningCollective& run = collectives_.of(0, at.first);
            for (int r = 0; r < program_.num_ranks; ++r) {
                record_span(r, at.first, &run);
                ranks_.finished(r, now_);
            }
            collectives_.end(run);
        }
        for (SpanRecord span : section.spans) {
            span.task += shift;
            span.begin += now_;
            span.end += now_;
            recorder_.add(span);
            ranks_.finished(span.rank, span.end);
        }
        std::vector<double>& errors = collectives_.errors();
        for (int t = section.begin.first_open(); t < section.end.reach; ++t) {
            double& error = errors[static_cast<std::size_t>(t + shift)];
            error = std::max(error, errors[static_cast<std::size_t>(t)]);
        }
        network_.add(section.carried);
        num_events_ += section.events;
        ++result_.sections;
        ++result_.repeated_sections;
        Still end = section.end;
        end.first += shift;
        end.reach += shift;
        if (end.rendezvous) {
            std::vector<Picoseconds> entered;
            for (const Picoseconds t : section.entered) entered.push_back(now_ + t);
            ranks_.put_waiting(end.first, entered);
        }
        now_ += section.duration;
        show_progress(end.first);
        return end;
    }

    // ---- results

    // Gives what has gathered for a trace away.
    void drain() {
        const TraceSink& sink = *options_.sink;
        for (Span& span : recorder_.take_spans()) {
            sink.span(span);
            if (options_.timeline) result_.timeline.spans.push_back(std::move(span));
        }
        for (const Arrow& a : std::exchange(collectives_.arrows(), {})) sink.arrow(a);
        for (const LinkInterval& i : network_.take_intervals()) {
            sink.activity(topology_.link_name(i.link), i);
            if (options_.link_use) intervals_.push_back(i);
        }
    }

    void show_progress(int done) const {
        if (options_.progress)
            options_.progress(static_cast<std::size_t>(done),
                              static_cast<std::size_t>(program_.tasks_end(0)));
    }

    // A collective has the bytes that the rank sent and the path of the message it ended with.
    void record_span(int r, int task, const RunningCollective* run) {
        SpanRecord span{.rank = r, .task = task, .begin = ranks_.started(r, task), .end = now_};
        if (const auto* send = std::get_if<SendTask>(&task_at(task).work)) {
            span.bytes = static_cast<double>(send->bytes);
            span.bottleneck = sends_.routes(r, task).front().path_class;
        } else if (run != nullptr) {
            const auto member = static_cast<std::size_t>(run->member_index(r));
            span.bytes = run->kind->outline.sent[member];
            span.bottleneck = run->bottleneck[member];
        }
        recorder_.add(span);
    }

    SimulationResult finish() {
        ranks_.check_all_done();
        result_.timeline.source = Source::simulated;
        Picoseconds last = 0;
        for (int r = 0; r < program_.num_ranks; ++r) {
            result_.rank_finish.push_back(static_cast<double>(ranks_.finish(r)) * ps);
            last = std::max(last, ranks_.finish(r));
        }
        result_.step = static_cast<double>(last) * ps;
        describe_passes();
        if (options_.sink != nullptr) {
            drain();
        } else {
            result_.timeline.spans = recorder_.take_spans();
            intervals_ = network_.take_intervals();
        }
        result_.phases = recorder_.phases();
        result_.error_bound = largest_error();
        result_.events = num_events_;
        result_.repeated_collectives = collectives_.num_repeated();
        result_.arrows = std::move(collectives_.arrows());
        describe_links();
        return std::move(result_);
    }

    // What decides the step runs through one role at a time: of the role with the most.
    Seconds largest_error() {
        double largest = 0.0;
        for (int role = 0; role < program_.num_roles(); ++role) {
            double error = 0.0;
            for (int t = program_.tasks_begin(role); t < program_.tasks_end(role); ++t)
                error += collectives_.errors()[static_cast<std::size_t>(t)];
            largest = std::max(largest, error);
        }
        return largest * second;
    }

    void describe_passes() {
        if (program_.num_roles() == 1) return;
        Picoseconds end = 0;
        for (int r = 0; r < program_.num_ranks; ++r) {
            end = std::max(end, ranks_.passes_end(r));
            result_.rank_busy.push_back(static_cast<double>(ranks_.busy(r)) * ps);
        }
        result_.passes = static_cast<double>(end) * ps;
    }

    void describe_links() {
        result_.messages = network_.num_messages();
        result_.instants = network_.num_instants();
        std::vector<int> index(static_cast<std::size_t>(topology_.num_links()), -1);
        for (std::uint32_t l = 0; l < index.size(); ++l) {
            if (network_.bytes(l) <= 0.0) continue;
            index[l] = static_cast<int>(result_.links.size());
            result_.links.push_back({.name = topology_.link_name(l),
                                     .capacity = topology_.capacity()[l] * (byte / second),
                                     .bytes = network_.bytes(l) * byte,
                                     .busy = static_cast<double>(network_.busy(l)) * ps});
        }
        for (const LinkInterval& i : intervals_) {
            result_.activity.push_back({.link = index[i.link],
                                        .begin = static_cast<double>(i.begin) * ps,
                                        .end = static_cast<double>(i.end) * ps,
                                        .bytes = i.bytes * byte});
        }
    }

    const Program& program_;
    const Topology& topology_;
    const SimulateOptions& options_;
    PathTable paths_;
    Network network_;
    Recorder recorder_;
    EventQueue events_;
    RankStreams ranks_;
    Sends sends_;
    Collectives collectives_;
    std::vector<Delivery> deliveries_;
    Repetition repetition_;
    Picoseconds now_ = 0;
    bool may_be_still_ = true;  // since the events of this moment were handled
    std::int64_t num_events_ = 0;
    std::vector<LinkInterval> intervals_;  // for the result
    SimulationResult result_;
};

}  // namespace

SimulationResult simulate(const Program& program, const Topology& topology,
                          const SimulateOptions& options) {
    if (program.num_ranks != topology.num_ranks())
        throw std::logic_error("simulate: program and topology differ in ranks");
    if (program.num_ranks % program.num_roles() != 0)
        throw std::logic_error("simulate: roles must have equally many ranks");
    try {
        return Simulation(program, topology, options).run();
    } catch (const DeadPath& dead) {
        SimulationResult result;
        result.unreachable = dead.where();
        return result;
    }
}

}  // namespace headway::sim
