#include "models/cost/streams.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <stdexcept>

namespace headway::inline cost {
namespace {

constexpr auto kCompute = static_cast<std::size_t>(Stream::compute),
               kCommunication = static_cast<std::size_t>(Stream::communication),
               kGradient = static_cast<std::size_t>(Stream::gradient);

// When the host enqueues each task.
class Host {
  public:
    Host(std::span<const TimedTask> tasks, Seconds lead)
        : tasks_(tasks), ends_(tasks.size()), clock_(-1.0 * lead) {
        enqueue();
    }

    bool has_reached(std::size_t task) const { return task < next_; }
    std::size_t next() const { return next_; }
    Seconds begin(std::size_t task) const { return ends_[task] - tasks_[task].launch; }
    Seconds end(std::size_t task) const { return ends_[task]; }
    void ended(std::size_t task, Seconds now) {
        if (!tasks_[task].host_waits) return;
        clock_ = max(clock_, now);
        waits_ = false;
        enqueue();
    }
    Seconds clock() const { return clock_; }

  private:
    void enqueue() {
        while (!waits_ && next_ < tasks_.size()) {
            clock_ += tasks_[next_].launch;
            ends_[next_] = clock_;
            waits_ = tasks_[next_++].host_waits;
        }
    }

    std::span<const TimedTask> tasks_;
    std::vector<Seconds> ends_;  // [task] that it has reached
    Seconds clock_;
    std::size_t next_ = 0;
    bool waits_ = false;
};

class Streams {
  public:
    Streams(std::span<const TimedTask> tasks, const Overlap& overlap, Seconds lead)
        : tasks_(tasks), overlap_(overlap), done_(tasks.size(), false), host_(tasks, lead) {
        result_.exposed.resize(tasks.size());
        result_.host.resize(tasks.size());
        for (std::size_t t = 0; t < tasks.size(); ++t) {
            const auto stream = static_cast<std::size_t>(tasks[t].stream);
            queues_[stream].push_back(t);
            num_streams_ = std::max(num_streams_, stream + 1);
        }
    }

    StreamsRun run() {
        while (start_ready()) advance();
        for (const bool done : done_)
            if (!done) throw std::logic_error("a task of a step waits for ever");
        result_.lead = max(Seconds{}, now_ - host_.clock());
        result_.end = now_;
        return std::move(result_);
    }

  private:
    struct Running {
        std::size_t task;
        OverlappedCompute alone;  // its time alone, in seconds
        bool works = true;
    };

    // When the host lets the task start.
    Seconds launched(std::size_t task) const {
        return tasks_[task].stream == Stream::compute ? host_.begin(task) : host_.end(task);
    }

    // Whether anything runs, or will when the host is ready: `next_launch_`.
    bool start_ready() {
        bool any = false;
        next_launch_.reset();
        for (std::size_t s = 0; s < num_streams_; ++s) {
            if (!running_[s] && next_[s] < queues_[s].size()) start(s, queues_[s][next_[s]]);
            any = any || running_[s].has_value();
        }
        return any || next_launch_;
    }

    void start(std::size_t stream, std::size_t task) {
        const auto is_over = [&](int before) {
            return before < 0 || done_[static_cast<std::size_t>(before)];
        };
        // Copies to and from host memory are of the layer before or behind: enqueued with that.
        const bool ahead = is_of_host(static_cast<Stream>(stream));
        if (!is_over(tasks_[task].after) || !is_over(tasks_[task].also_after) ||
            (!ahead && !host_.has_reached(task)))
            return;
        if (ahead || launched(task) <= now_)
            running_[stream] = Running{task, {tasks_[task].time.in(second), tasks_[task].pieces}};
        else if (!next_launch_ || launched(task) < launched(*next_launch_))
            next_launch_ = task;
    }

    bool is_slowed(std::size_t stream) const {
        if (stream == kCompute) return running_[kCommunication] || running_[kGradient];
        if (is_of_host(static_cast<Stream>(stream))) return false;
        return running_[kCommunication] && running_[kGradient];
    }
    Overlap slowed(std::size_t stream) const {
        if (stream == kCompute || !is_slowed(stream)) return overlap_;
        const std::size_t other = stream == kGradient ? kCommunication : kGradient;
        return {slowdown_beside(tasks_[running_[stream]->task].links,
                                tasks_[running_[other]->task].links)};
    }

    // Until it ends, or until all its work is done but its last kernels are not enqueued.
    Seconds left(std::size_t stream, bool slow, const Overlap& overlap) const {
        const Running& r = *running_[stream];
        return r.works ? r.alone.until_end(slow, overlap) * second : host_.end(r.task) - now_;
    }

    void advance() {
        std::optional<Seconds> until;
        const auto by = [&](Seconds time) { until = until ? min(*until, time) : time; };
        std::array<bool, kNumStreams> reached{}, slow{};
        std::array<Overlap, kNumStreams> overlap;
        std::array<Seconds, kNumStreams> ends{};
        for (std::size_t s = 0; s < num_streams_; ++s) {
            if (!running_[s]) continue;
            slow[s] = is_slowed(s);
            overlap[s] = slowed(s);
            ends[s] = left(s, slow[s], overlap[s]);
            by(ends[s]);
        }
        if (next_launch_) by(launched(*next_launch_) - now_);
        const Seconds passed = *until;
        for (std::size_t s = 0; s < num_streams_; ++s)
            reached[s] = running_[s] && ends[s] <= passed;
        Seconds computed = passed;  // of its time alone
        for (std::size_t s = 0; s < num_streams_; ++s) {
            if (!running_[s] || !running_[s]->works) continue;
            const double on = running_[s]->alone.advance(passed.in(second), slow[s], overlap[s]);
            if (s == kCompute && slow[s]) computed = on * second;
        }
        expose(passed, computed);
        // To the very moment that it waits for, so that no rest of a sum is left to wait.
        now_ = next_launch_ && launched(*next_launch_) - now_ <= passed ? launched(*next_launch_)
                                                                        : now_ + passed;
        for (std::size_t s = 0; s < num_streams_; ++s)
            if (reached[s]) reach(s);
    }

    void reach(std::size_t stream) {
        Running& r = *running_[stream];
        if (r.works && !is_of_host(static_cast<Stream>(stream)) && host_.end(r.task) > now_) {
            r.works = false;
            return;
        }
        done_[r.task] = true;
        host_.ended(r.task, now_);
        running_[stream].reset();
        ++next_[stream];
    }

    void expose(Seconds passed, Seconds computed) {
        const auto works = [&](std::size_t stream) {
            return running_[stream] && running_[stream]->works;
        };
        const auto add = [&](std::size_t stream, Seconds time) {
            result_.exposed[running_[stream]->task] += time;
        };
        if (works(kCompute)) {
            if (running_[kCommunication] || !running_[kGradient]) return add(kCompute, passed);
            add(kCompute, computed);
            return add(kGradient, passed - computed);
        }
        if (works(kCommunication)) return add(kCommunication, passed);
        if (works(kGradient)) return add(kGradient, passed);
        for (std::size_t s = num_streams_; s-- > kGradient + 1;)
            if (works(s)) return add(s, passed);
        const std::size_t task = running_[kCompute] ? running_[kCompute]->task : *next_launch_;
        result_.exposed[task] += passed;
        result_.host[task] += passed;
    }

    std::span<const TimedTask> tasks_;
    const Overlap overlap_;
    std::vector<bool> done_;
    Host host_;
    Seconds now_;
    std::array<std::vector<std::size_t>, kNumStreams> queues_;
    std::array<std::size_t, kNumStreams> next_{};
    std::array<std::optional<Running>, kNumStreams> running_{};
    std::size_t num_streams_ = 0;             // the last one that has tasks, and all before it
    std::optional<std::size_t> next_launch_;  // ready but for the host, the first
    StreamsRun result_;
};

}  // namespace

void StreamsRun::add(const StreamsRun& run, double share) {
    exposed.resize(run.exposed.size());
    host.resize(run.host.size());
    end += share * run.end;
    for (std::size_t t = 0; t < run.exposed.size(); ++t) {
        exposed[t] += share * run.exposed[t];
        host[t] += share * run.host[t];
    }
    lead = run.lead;
}

StreamsRun run_streams(std::span<const TimedTask> tasks, const Overlap& overlap, Seconds lead) {
    return Streams(tasks, overlap, lead).run();
}

bool has_launches(std::span<const TimedTask> tasks) {
    return std::ranges::any_of(tasks, [](const TimedTask& t) { return t.launch > Seconds{}; });
}

StreamsRun run_in_row(std::span<const TimedTask> tasks, const Overlap& overlap, Seconds lead,
                      int count) {
    if (!has_launches(tasks)) return run_streams(tasks, overlap, lead);
    constexpr int kMostRuns = 64;  // a lead that still grows by then is one that lasts
    StreamsRun sum{.lead = lead};
    for (int i = 0; i < count;) {
        const StreamsRun run = run_streams(tasks, overlap, sum.lead);
        Seconds waits;
        for (const Seconds wait : run.host) waits += wait;
        const Seconds change = run.lead - sum.lead;
        // Later runs are like one that leaves the lead as it was, or that never waits and adds to
        // it.
        const bool repeats = (waits == Seconds{} && change >= Seconds{}) ||
                             (change < 1e-6 * run.end && change > -1e-6 * run.end) ||
                             i + 1 == kMostRuns;
        const int runs = repeats ? count - i : 1;
        sum.add(run, static_cast<double>(runs) / count);
        i += runs;
    }
    return sum;
}

}  // namespace headway::inline cost
