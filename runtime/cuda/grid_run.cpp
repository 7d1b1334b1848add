#include "runtime/cuda/grid_run.hpp"

#include <algorithm>
#include <chrono>
#include <map>
#include <random>
#include <tuple>

#include "models/vocab/error.hpp"

namespace headway::runtime {
namespace {

std::vector<GridSample> samples_of(const GridPoint& point, const DeviceMeasurement& m,
                                   int num_ranks) {
    const RunState& run = m.measurement.timeline.run.value();
    std::vector<GridSample> samples;
    for (const Span& span : m.measurement.timeline.spans) {
        samples.push_back({.point = point,
                           .num_ranks = num_ranks,
                           .rank = span.rank,
                           .pass = span.pass,
                           .phase = span.phase,
                           .median_us = span.duration.in(us),
                           .p10_us = span.low.in(us),
                           .p90_us = span.high.in(us),
                           .bytes = static_cast<std::int64_t>(span.bytes.in(byte)),
                           .peak_bytes = m.peak_bytes[static_cast<std::size_t>(span.rank)],
                           .clock_mhz = run.clock_mhz,
                           .throttle = run.throttle});
    }
    return samples;
}

// HP and EP layers of the same tokens, widths, experts and k: run one after the other, so that a
// speedup is of one minute.
std::vector<std::vector<std::size_t>> side_by_side(const std::vector<GridPoint>& points) {
    const auto key = [](const GridPoint& p) {
        return std::tuple(p.tokens, p.hidden, p.experts, p.top_k, p.expert_width, p.zipf);
    };
    std::map<decltype(key(points.front())), std::vector<std::size_t>> groups;
    for (std::size_t i = 0; i < points.size(); ++i) groups[key(points[i])].push_back(i);
    std::vector<std::vector<std::size_t>> result;
    for (auto& [k, group] : groups) result.push_back(std::move(group));
    return result;
}

std::vector<std::size_t> flat(const std::vector<std::vector<std::size_t>>& groups) {
    std::vector<std::size_t> all;
    for (const auto& group : groups) all.insert(all.end(), group.begin(), group.end());
    return all;
}

}  // namespace

void run_grid(DeviceContext& context, const Scenario& base, const std::vector<GridPoint>& points,
              const GridRunOptions& options) {
    const auto start = std::chrono::steady_clock::now();
    const int num_ranks = context.communicator.size();
    std::vector<std::vector<std::size_t>> order = side_by_side(points);
    std::mt19937_64 random(1);  // the same order on all ranks
    const auto done_before = [&](std::size_t i) {
        return options.passes_done.empty() ? 0 : options.passes_done[i];
    };
    std::size_t done = 0, total = 0;
    for (std::size_t i = 0; i < points.size(); ++i)
        total += static_cast<std::size_t>(std::max(0, options.num_passes - done_before(i)));
    for (int pass = 0; pass < options.num_passes; ++pass) {
        std::shuffle(order.begin(), order.end(), random);
        for (const std::size_t i : flat(order)) {
            if (pass < done_before(i)) continue;
            // Rank 0's clock decides for all.
            const double seconds =
                std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
            const std::int64_t over = seconds > options.max_seconds;
            if (context.communicator.all_gather_counts({&over, 1}).front() != 0) return;
            const Scenario scenario = scenario_of(base, points[i], num_ranks);
            try {
                const DeviceMeasurement m =
                    measure_on_device(context, scenario, scenario.plans.front(), options.measure);
                if (options.sink) options.sink(samples_of(points[i], m, num_ranks));
            } catch (const InputError& error) {
                if (options.skipped) options.skipped(points[i], error.what());
            }
            if (options.progress) options.progress(++done, total);
        }
    }
}

}  // namespace headway::runtime
