#include "models/recorded/host_events.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <string_view>
#include <unordered_map>

#include "models/trace/host_tree.hpp"
#include "models/trace/name_rules.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline recorded {
namespace {

constexpr std::string_view kComm = "headway.comm ", kWait = "headway.wait ";

std::optional<int> number_behind(std::string_view name, std::string_view prefix) {
    if (!name.starts_with(prefix)) return std::nullopt;
    name.remove_prefix(prefix.size());
    int number = -1;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
    return number;
}

bool is_host_wait(std::string_view name) {
    return name == "cudaStreamSynchronize" || name == "cudaDeviceSynchronize" ||
           name == "cudaEventSynchronize" || name == "cuStreamSynchronize" ||
           name == "cuCtxSynchronize" || name == "cuEventSynchronize";
}

class Collector {
  public:
    explicit Collector(const TorchTrace& trace) : trace_(trace), tree_(trace) {
        for (std::size_t i = 0; i < trace.gpu.size(); ++i) {
            if (trace.gpu[i].correlation >= 0)
                gpu_.try_emplace(trace.gpu[i].correlation, static_cast<std::int32_t>(i));
        }
    }

    std::vector<HostStep> steps() {
        find_steps();
        std::set<std::int32_t> threads;  // that launch: a watchdog's queries are no part of a step
        for (const Launch& launch : trace_.launches) {
            if (gpu_.contains(launch.correlation)) threads.insert(launch.thread);
        }
        for (const Launch& launch : trace_.launches) {
            if (threads.contains(launch.thread)) take(launch);
        }
        for (const HostSpan& span : trace_.host) {
            if (span.is_annotation && threads.contains(span.thread)) take(span);
        }
        for (HostStep& step : steps_) {
            std::ranges::stable_sort(
                step.events, [](const HostEvent& a, const HostEvent& b) { return a.at < b.at; });
        }
        return std::move(steps_);
    }

  private:
    [[noreturn]] void refuse(std::string found, std::string hint) const {
        throw InputError({.where = trace_.file,
                          .found = std::move(found),
                          .accepted = "a trace of whole steps of an eager PyTorch script",
                          .hint = std::move(hint)});
    }

    void find_steps() {
        for (const HostSpan& span : trace_.host) {
            const std::string& name = trace_.names[span.name];
            if (!span.is_annotation || !is_step_annotation(name)) continue;
            const auto number = number_behind(name, kStepAnnotation);
            steps_.push_back(
                {.number = number.value_or(0), .begin = span.begin, .end = span.end, .events = {}});
        }
        if (steps_.empty())
            refuse(
                "no ProfilerStep#N in it",
                "headway_recorder.py profiles steps; by hand: a schedule, and step() after each");
        std::ranges::stable_sort(steps_, {}, &HostStep::begin);
        for (std::size_t i = 1; i < steps_.size(); ++i) {
            if (steps_[i].begin < steps_[i - 1].end)
                refuse(fmt::format("steps {} and {} at the same time", steps_[i - 1].number,
                                   steps_[i].number),
                       "is it the trace of one process?");
        }
    }

    HostStep* step_at(Nanoseconds time) {
        const auto after = std::ranges::upper_bound(steps_, time, {}, &HostStep::begin);
        if (after == steps_.begin()) return nullptr;
        HostStep& step = *(after - 1);
        return time < step.end ? &step : nullptr;
    }

    void take(const Launch& launch) {
        HostStep* step = step_at(launch.begin);
        if (step == nullptr) return;
        HostEvent event{.at = launch.begin, .end = launch.end};
        const auto gpu = gpu_.find(launch.correlation);
        const std::string& name = trace_.names[launch.name];
        if (name.starts_with("hip"))
            refuse(fmt::format("'{}', a call of HIP", name),
                   "what a host waits for is read by CUDA's names");
        if (gpu != gpu_.end()) {
            const GpuWork& work = trace_.gpu[static_cast<std::size_t>(gpu->second)];
            if (work.in_graph)
                refuse(
                    fmt::format("kernels of a CUDA graph, '{}' in step {}", trace_.names[work.name],
                                step->number),
                    "a replay has no host and no collectives in the trace: record without graphs");
            event.gpu = gpu->second;
            const HostTree::Origin* origin = tree_.origin(work);
            event.span = origin == nullptr ? -1 : origin->span;
            // A copy into pageable memory, and one without Async, returns when it is done.
            event.blocks =
                work.to_host && (name == "cudaMemcpy" ||
                                 trace_.names[work.name].find("Pageable") != std::string::npos);
        } else if (is_host_wait(name)) {
            event.kind = HostEventKind::host_waits;
        } else {
            return;
        }
        step->events.push_back(event);
    }

    void take(const HostSpan& span) {
        const std::string& name = trace_.names[span.name];
        const auto call = number_behind(name, kComm), wait = number_behind(name, kWait);
        if (!call && !wait) return;
        HostStep* step = step_at(span.begin);
        if (step == nullptr) return;
        if (wait) {
            step->events.push_back({.kind = HostEventKind::call_wait,
                                    .at = span.begin,
                                    .end = span.end,
                                    .call = *wait});
            return;
        }
        step->events.push_back(
            {.kind = HostEventKind::call_begin, .at = span.begin, .end = span.end, .call = *call});
        step->events.push_back(
            {.kind = HostEventKind::call_end, .at = span.end, .end = span.end, .call = *call});
    }

    const TorchTrace& trace_;
    HostTree tree_;
    std::vector<HostStep> steps_;
    std::unordered_map<std::int64_t, std::int32_t> gpu_;  // by correlation
};

}  // namespace

std::vector<HostStep> host_steps(const TorchTrace& trace) {
    return Collector(trace).steps();
}

}  // namespace headway::inline recorded
