#include "models/cost/streams.hpp"

#include <array>
#include <optional>
#include <stdexcept>

namespace headway::inline cost {
namespace {

constexpr auto kCompute = static_cast<std::size_t>(Stream::compute),
               kCommunication = static_cast<std::size_t>(Stream::communication),
               kGradient = static_cast<std::size_t>(Stream::gradient);

class Streams {
  public:
    Streams(std::span<const TimedTask> tasks, double slowdown)
        : tasks_(tasks), slowdown_(slowdown), done_(tasks.size(), false) {
        result_.exposed.resize(tasks.size());
        for (std::size_t t = 0; t < tasks.size(); ++t)
            queues_[static_cast<std::size_t>(tasks[t].stream)].push_back(t);
    }

    StreamsRun run() {
        while (start_ready()) advance();
        for (const bool done : done_)
            if (!done) throw std::logic_error("a task of a step waits for ever");
        return std::move(result_);
    }

  private:
    struct Running {
        std::size_t task;
        Seconds left;  // of its time alone
    };

    bool start_ready() {
        bool any = false;
        for (std::size_t s = 0; s < kNumStreams; ++s) {
            if (!running_[s] && next_[s] < queues_[s].size()) {
                const std::size_t task = queues_[s][next_[s]];
                const auto is_over = [&](int before) {
                    return before < 0 || done_[static_cast<std::size_t>(before)];
                };
                if (is_over(tasks_[task].after) && is_over(tasks_[task].also_after))
                    running_[s] = Running{task, tasks_[task].time};
            }
            any = any || running_[s].has_value();
        }
        return any;
    }

    double slowdown_of(std::size_t stream) const {
        const bool communicates = running_[kCommunication] || running_[kGradient];
        return stream == kCompute && communicates ? slowdown_ : 1.0;
    }

    void advance() {
        std::optional<Seconds> until;
        for (std::size_t s = 0; s < kNumStreams; ++s) {
            if (!running_[s]) continue;
            const Seconds left = slowdown_of(s) * running_[s]->left;
            until = until ? min(*until, left) : left;
        }
        const Seconds passed = *until;
        expose(passed);
        result_.end += passed;
        std::array<bool, kNumStreams> ends{};
        for (std::size_t s = 0; s < kNumStreams; ++s)
            ends[s] = running_[s] && slowdown_of(s) * running_[s]->left <= passed;
        for (std::size_t s = 0; s < kNumStreams; ++s)
            if (running_[s] && !ends[s]) running_[s]->left -= passed / slowdown_of(s);
        for (std::size_t s = 0; s < kNumStreams; ++s) {
            if (!ends[s]) continue;
            done_[running_[s]->task] = true;
            running_[s].reset();
            ++next_[s];
        }
    }

    void expose(Seconds passed) {
        const auto add = [&](std::size_t stream, Seconds time) {
            result_.exposed[running_[stream]->task] += time;
        };
        if (!running_[kCompute])
            return add(running_[kCommunication] ? kCommunication : kGradient, passed);
        if (running_[kCommunication] || !running_[kGradient]) return add(kCompute, passed);
        add(kCompute, passed / slowdown_);
        add(kGradient, passed - passed / slowdown_);
    }

    std::span<const TimedTask> tasks_;
    double slowdown_;
    std::vector<bool> done_;
    std::array<std::vector<std::size_t>, kNumStreams> queues_;
    std::array<std::size_t, kNumStreams> next_{};
    std::array<std::optional<Running>, kNumStreams> running_{};
    StreamsRun result_;
};

}  // namespace

StreamsRun run_streams(std::span<const TimedTask> tasks, double slowdown) {
    return Streams(tasks, slowdown).run();
}

}  // namespace headway::inline cost
