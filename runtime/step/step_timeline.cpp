#include "runtime/step/step_timeline.hpp"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "models/vocab/quantile.hpp"
#include "runtime/phase_samples.hpp"

namespace headway::runtime {
namespace {

void take_step_waits_out(std::vector<StepRecord>& records) {
    for (std::size_t step = 0; step < records.front().phases.size(); ++step) {
        for (std::size_t p = 0; p < records.front().phases[step].size(); ++p) {
            std::vector<PhaseSample*> one;
            for (StepRecord& record : records) one.push_back(&record.phases[step][p].phase);
            take_wait_out(one);
        }
    }
}

struct StepSeries {
    std::vector<double> begins, durations;  // by step
};
using StepKey = std::tuple<int, int, CallSite>;  // layer, micro-batch

// In order of their first begin.
std::vector<Span> step_spans(const std::vector<std::vector<StepSample>>& steps, int rank) {
    std::map<StepKey, StepSeries> all;
    for (std::size_t step = 0; step < steps.size(); ++step) {
        for (const StepSample& sample : steps[step]) {
            StepSeries& series = all[{sample.layer, sample.micro_batch, sample.phase.site}];
            if (series.begins.size() == step) {
                series.begins.push_back(sample.phase.begin);
                series.durations.push_back(0.0);
            }
            series.durations.back() += sample.phase.duration;
        }
    }
    std::vector<Span> spans;
    for (auto& [key, series] : all) {
        const auto& [layer, micro_batch, site] = key;
        spans.push_back(median_span(rank, layer, site, series.begins, series.durations));
        spans.back().micro_batch = micro_batch;
    }
    std::ranges::stable_sort(spans, {}, [](const Span& s) { return s.begin.in(second); });
    return spans;
}

}  // namespace

StepMeasurement to_step_measurement(const Scenario& scenario, const Plan& plan,
                                    const std::string& device, std::vector<StepRecord> records,
                                    bool in_flow) {
    if (in_flow) take_step_waits_out(records);
    StepMeasurement result{.timeline = measured_timeline(scenario, plan, device, records.size()),
                           .losses = std::vector<double>(records.front().losses.size())};
    std::vector<double> times(records.front().step_times.size());
    for (std::size_t rank = 0; rank < records.size(); ++rank) {
        const StepRecord& record = records[rank];
        for (std::size_t i = 0; i < times.size(); ++i)
            times[i] = std::max(times[i], record.step_times[i]);
        for (std::size_t i = 0; i < result.losses.size(); ++i) result.losses[i] += record.losses[i];
        for (Span& span : step_spans(record.phases, static_cast<int>(rank)))
            result.timeline.spans.push_back(std::move(span));
    }
    result.timeline.step = StepTimes{.time = quantile(times, 0.5) * second,
                                     .low = quantile(times, 0.1) * second,
                                     .high = quantile(times, 0.9) * second,
                                     .samples = static_cast<int>(times.size())};
    return result;
}

}  // namespace headway::runtime
