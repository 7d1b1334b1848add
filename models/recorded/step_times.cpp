#include "models/recorded/step_times.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

#include "models/vocab/error.hpp"

namespace headway::inline recorded {
namespace {

double median(std::vector<double> values) {
    if (values.empty()) return 0.0;
    std::ranges::sort(values);
    const std::size_t middle = values.size() / 2;
    return values.size() % 2 == 1 ? values[middle] : 0.5 * (values[middle - 1] + values[middle]);
}

const GpuWork& gpu_of(const TorchTrace& trace, const HostEvent& event) {
    return trace.gpu[static_cast<std::size_t>(event.gpu)];
}

// The host's time is no work in a wait, nor in a launch that returns when its work is done.
bool host_blocks(const HostEvent& event) {
    return event.kind == HostEventKind::host_waits || event.blocks;
}

std::vector<EventTimes> times_of(const TorchTrace& trace, const HostStep& step, double& tail) {
    std::vector<EventTimes> times;
    Nanoseconds cursor = step.begin;
    for (const HostEvent& event : step.events) {
        EventTimes& t = times.emplace_back();
        t.gap = static_cast<double>(std::max<Nanoseconds>(0, event.at - cursor));
        if (event.gpu >= 0) t.device = static_cast<double>(gpu_of(trace, event).duration);
        cursor = std::max(cursor, host_blocks(event) ? event.end : event.at);
    }
    tail = static_cast<double>(std::max<Nanoseconds>(0, step.end - cursor));
    return times;
}

bool same_events(const TorchTrace& trace, const HostStep& a, const HostStep& b) {
    return std::ranges::equal(a.events, b.events, [&](const HostEvent& x, const HostEvent& y) {
        if (x.kind != y.kind || x.blocks != y.blocks || (x.gpu < 0) != (y.gpu < 0)) return false;
        return x.gpu < 0 || (gpu_of(trace, x).name == gpu_of(trace, y).name &&
                             gpu_of(trace, x).stream == gpu_of(trace, y).stream);
    });
}

double gpu_time(const TorchTrace& trace, const HostStep& step) {
    double sum = 0.0;
    for (const HostEvent& event : step.events)
        if (event.gpu >= 0) sum += static_cast<double>(gpu_of(trace, event).duration);
    return sum;
}

MergedStep one_step(const TorchTrace& trace, const HostStep& step, std::string chosen) {
    MergedStep merged{.step = &step, .duration = static_cast<double>(step.end - step.begin)};
    merged.times = times_of(trace, step, merged.tail);
    merged.chosen = std::move(chosen);
    return merged;
}

MergedStep median_step(const TorchTrace& trace, const std::vector<HostStep>& steps) {
    MergedStep merged =
        one_step(trace, steps.front(),
                 fmt::format("times are medians of {} steps, event by event", steps.size()));
    std::vector<std::vector<EventTimes>> all;
    std::vector<double> tails, durations;
    for (const HostStep& step : steps) {
        double tail = 0.0;
        all.push_back(times_of(trace, step, tail));
        tails.push_back(tail);
        durations.push_back(static_cast<double>(step.end - step.begin));
    }
    for (std::size_t e = 0; e < merged.times.size(); ++e) {
        std::vector<double> gaps, devices;
        for (const auto& times : all) {
            gaps.push_back(times[e].gap);
            devices.push_back(times[e].device);
        }
        merged.times[e] = {median(gaps), median(devices)};
    }
    merged.tail = median(tails);
    merged.duration = median(durations);
    return merged;
}

}  // namespace

MergedStep merged_step(const TorchTrace& trace, std::vector<HostStep>& steps,
                       std::optional<int> number, bool drop_last_wait) {
    for (HostStep& step : steps) {
        if (!drop_last_wait || step.events.empty()) continue;
        const HostEvent& last = step.events.back();
        if (last.kind != HostEventKind::host_waits) continue;
        step.end = last.at;
        step.events.pop_back();
    }
    std::erase_if(steps, [](const HostStep& step) {
        return std::ranges::none_of(step.events, [](const HostEvent& e) { return e.gpu >= 0; });
    });
    if (steps.empty())
        throw InputError({.where = trace.file,
                          .found = "steps without a launch of a kernel in them",
                          .accepted = "a trace with ProfilerActivity.CPU and CUDA"});
    if (number) {
        std::vector<int> numbers;
        for (const HostStep& step : steps) {
            if (step.number == *number)
                return one_step(trace, step, fmt::format("step {} alone", *number));
            numbers.push_back(step.number);
        }
        throw InputError({.where = "--step",
                          .found = fmt::format("{}, which {} does not have", *number, trace.file),
                          .accepted = fmt::format("{}, or median", fmt::join(numbers, ", "))});
    }
    const bool same = std::ranges::all_of(
        steps, [&](const HostStep& step) { return same_events(trace, steps.front(), step); });
    if (same) return median_step(trace, steps);
    std::vector<std::pair<double, const HostStep*>> order;
    for (const HostStep& step : steps) order.emplace_back(gpu_time(trace, step), &step);
    std::ranges::sort(order, {}, &std::pair<double, const HostStep*>::first);
    const HostStep& middle = *order[(order.size() - 1) / 2].second;
    return one_step(trace, middle,
                    fmt::format("steps launch different kernels; step {} alone, whose GPU time is "
                                "the median of {}",
                                middle.number, steps.size()));
}

TraceLatencies latencies(const TorchTrace& trace, const std::vector<HostStep>& steps) {
    std::vector<double> between, launch, wake;
    for (const HostStep& step : steps) {
        std::map<std::int32_t, Nanoseconds> busy;  // [stream] until when, by what was launched
        for (const HostEvent& event : step.events) {
            Nanoseconds done = 0;
            if (event.gpu >= 0) {
                const GpuWork& work = gpu_of(trace, event);
                const auto before = busy.find(work.stream);
                const Nanoseconds free = before == busy.end() ? step.begin : before->second;
                constexpr Nanoseconds well_ahead = 10'000;
                if (free > event.end + well_ahead && work.begin >= free)
                    between.push_back(static_cast<double>(work.begin - free));
                if (free < event.at && work.begin >= event.at)
                    launch.push_back(static_cast<double>(work.begin - event.at));
                done = busy[work.stream] = std::max(free, work.end());
            } else if (event.kind == HostEventKind::host_waits) {
                for (const auto& [stream, until] : busy) done = std::max(done, until);
            }
            if (host_blocks(event) && done > event.at && event.end >= done)
                wake.push_back(static_cast<double>(event.end - done));
        }
    }
    return {median(between), median(launch), median(wake)};
}

}  // namespace headway::inline recorded
