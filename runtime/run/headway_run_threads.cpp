#include "runtime/run/headway_run_threads.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>

#include "models/text/human.hpp"
#include "models/vocab/error.hpp"
#include "runtime/host.hpp"

namespace headway::runtime {
namespace {

void check_size(const Scenario& scenario, const Plan& plan, const MeasureOptions& options,
                double max_time) {
    const RunEstimate estimate = estimate_run(scenario, plan, options);
    const Bytes available = 0.7 * physical_memory();
    if (estimate.memory <= available && estimate.time.in(second) <= max_time) return;
    throw InputError(
        {.where = "plan " + plan.name,
         .found = fmt::format("too large for this CPU: about {} of memory ({} may be used) and {} "
                              "on {} cores (--max-time {} s)",
                              human(estimate.memory), human(available), human(estimate.time),
                              num_cores(), max_time),
         .hint = "fewer --tokens, --layers, --repeats or --ranks, or a smaller model"});
}

// Progress on a terminal only.
std::function<void(int, int)> progress_of(const std::string& plan) {
    if (isatty(STDERR_FILENO) == 0) return {};
    return [plan](int done, int total) {
        std::fputs(
            fmt::format("\r{}: {} / {} {}", plan, done, total, done == total ? "\n" : "").c_str(),
            stderr);
    };
}

}  // namespace

void print_summary(const Measurement& m) {
    fmt::print("plan {} on {} ranks\n  {:<9} {:<16} {:>10} {:>10} {:>10} {:>12}\n", m.timeline.plan,
               m.timeline.spans.empty() ? 0 : m.timeline.spans.back().rank + 1, "pass", "phase",
               "median", "p10", "p90", "arrival skew");
    std::vector<const Span*> slowest;
    for (const Span& span : m.timeline.spans) {
        auto it = std::find_if(slowest.begin(), slowest.end(), [&](const Span* s) {
            return s->layer == span.layer && s->pass == span.pass && s->phase == span.phase;
        });
        if (it == slowest.end()) {
            slowest.push_back(&span);
        } else if ((*it)->duration < span.duration) {
            *it = &span;
        }
    }
    for (const Span* s : slowest) {
        std::string skew;
        for (const ArrivalSkew& a : m.skews) {
            if (a.layer == s->layer && a.site == CallSite{s->phase, s->pass}) skew = human(a.skew);
        }
        fmt::print("  {:<9} {:<16} {:>10} {:>10} {:>10} {:>12}\n", name(s->pass), name(s->phase),
                   human(s->duration), human(s->low), human(s->high), skew);
    }
    if (const auto& run = m.timeline.run) {
        fmt::print(
            "  memory at the peak, fullest rank: {}; SM clock {} MHz, {}{}; {}\n",
            human(run->memory_peak), run->clock_mhz,
            run->throttle.empty() ? "not throttled" : "throttled: ", run->throttle,
            run->graph ? "layers replayed from a CUDA graph" : "layers enqueued by the host");
    }
}

std::vector<Measurement> measure_on_threads(const Scenario& scenario,
                                            const std::vector<Plan>& plans, MeasureOptions options,
                                            double max_time) {
    for (const Plan& plan : plans) check_size(scenario, plan, options, max_time);
    prepare_timed_memory();
    std::vector<Measurement> measurements;
    for (const Plan& plan : plans) {
        if (plan.group_size > num_cores()) {
            fmt::print(stderr,
                       "headway-run: warning: {} ranks on {} cores take turns; times are "
                       "not those of separate devices\n",
                       plan.group_size, num_cores());
        }
        options.progress = progress_of(plan.name);
        measurements.push_back(measure_plan(scenario, plan, options));
        print_summary(measurements.back());
    }
    return measurements;
}

}  // namespace headway::runtime
