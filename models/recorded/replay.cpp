#include "models/recorded/replay.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>
#include <utility>

namespace headway::inline recorded {
namespace {

// Groups whose collectives are exchanges: in one order with the compute stream's work. Without any,
// those of the first collective.
std::set<int> exchange_groups(const Recording& recording) {
    std::set<int> groups;
    int first = -1;
    for (const RecordedTask& task : recording.tasks) {
        if (task.kind != RecordedKind::collective) continue;
        if (first < 0) first = task.group;
        if (task.collective == Collective::all_to_all) groups.insert(task.group);
    }
    if (groups.empty() && first >= 0) groups.insert(first);
    return groups;
}

class Writer {
  public:
    explicit Writer(const Recording& recording)
        : recording_(recording), exchanges_(exchange_groups(recording)) {}

    std::vector<ReplayTask> run() {
        for (std::size_t i = 0; i < recording_.tasks.size(); ++i) add(static_cast<int>(i));
        if (recording_.host_tail > Seconds{})
            tasks_.push_back({.recorded = -1, .launch = late_ + recording_.host_tail});
        return std::move(tasks_);
    }

  private:
    void add(int number) {
        const RecordedTask& task = recording_.tasks[static_cast<std::size_t>(number)];
        const bool collective = task.kind == RecordedKind::collective;
        const Stream stream = !collective                       ? Stream::compute
                              : exchanges_.contains(task.group) ? Stream::communication
                                                                : Stream::gradient;
        std::vector<int> after = waits_of(task, stream);
        const Seconds late = std::exchange(late_, Seconds{});
        if (!collective && task.device > Seconds{}) {
            if (late + task.lead > Seconds{} || !after.empty()) {
                tasks_.push_back({.recorded = number,
                                  .stream = stream,
                                  .after = std::exchange(after, {}),
                                  .launch = late + task.lead});
            }
            tasks_.push_back({.recorded = number,
                              .is_device = true,
                              .stream = stream,
                              .launch = task.host - task.lead,
                              .host_waits = task.host_waits});
        } else {
            tasks_.push_back({.recorded = number,
                              .is_device = collective,
                              .stream = stream,
                              .after = std::move(after),
                              .launch = late + task.host,
                              .host_waits = task.host_waits});
        }
        last_.push_back(static_cast<int>(tasks_.size()) - 1);
        last_of_stream_[task.stream] = number;
        if (task.host_waits) late_ = recording_.wait_latency;
    }

    // The latest on each other stream of what the task must wait for: its own stream's last, which
    // may be a collective, and what it names.
    std::vector<int> waits_of(const RecordedTask& task, Stream stream) const {
        std::array<int, kNumStreams> latest;
        latest.fill(-1);
        const auto wait = [&](int recorded) {
            const int t = last_[static_cast<std::size_t>(recorded)];
            int& of = latest[static_cast<std::size_t>(tasks_[static_cast<std::size_t>(t)].stream)];
            of = std::max(of, t);
        };
        for (const int before : task.after) wait(before);
        const auto own = last_of_stream_.find(task.stream);
        if (own != last_of_stream_.end()) wait(own->second);
        latest[static_cast<std::size_t>(stream)] = -1;
        std::vector<int> after;
        for (const int t : latest)
            if (t >= 0) after.push_back(t);
        return after;
    }

    const Recording& recording_;
    std::set<int> exchanges_;
    std::vector<ReplayTask> tasks_;
    std::vector<int> last_;              // [recorded] its last task here
    std::map<int, int> last_of_stream_;  // of the trace: recorded
    Seconds late_;                       // that a wait has made the host
};

std::vector<TimedTask> timed_alone(const Recording& recording) {
    std::vector<TimedTask> timed;
    for (const ReplayTask& t : replay_tasks(recording)) {
        const bool runs = t.is_device && t.recorded >= 0;
        const Seconds device =
            runs ? recording.tasks[static_cast<std::size_t>(t.recorded)].device : Seconds{};
        timed.push_back({.stream = t.stream,
                         .time = device,
                         .after = !t.after.empty() ? t.after[0] : -1,
                         .also_after = t.after.size() > 1 ? t.after[1] : -1,
                         .launch = t.launch,
                         .host_waits = t.host_waits});
    }
    return timed;
}

}  // namespace

std::vector<ReplayTask> replay_tasks(const Recording& recording) {
    return Writer(recording).run();
}

StreamsRun steady_step(const std::vector<TimedTask>& tasks, const Overlap& overlap) {
    constexpr int most = 50;
    StreamsRun run = run_streams(tasks, overlap);
    for (int i = 0; i < most; ++i) {
        const Seconds before = run.end;
        run = run_streams(tasks, overlap, run.lead);
        if (std::abs(run.end / before - 1.0) < 1e-6) break;
    }
    return run;
}

Seconds host_time_alone(const Recording& recording) {
    const StreamsRun run = run_streams(timed_alone(recording), 1.0);
    return run.end - run.lead;
}

Seconds step_alone(const Recording& recording) {
    return steady_step(timed_alone(recording), 1.0).end;
}

}  // namespace headway::inline recorded
