#include "cli/verify_step.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "models/report/compare.hpp"
#include "models/text/human.hpp"
#include "models/vocab/error.hpp"
#include "models/vocab/quantile.hpp"

namespace headway::cli {

bool are_of_steps(const std::vector<Timeline>& runs) {
    const auto is_step = [](const Timeline& t) { return t.step.has_value(); };
    const bool all = std::ranges::all_of(runs, is_step);
    if (all || std::ranges::none_of(runs, is_step)) return all;
    throw InputError({.where = "the measured runs of plan " + runs.front().plan,
                      .found = "whole steps and layers alone",
                      .accepted = "runs of one kind"});
}

void check_micro_batches(const Scenario& scenario, const Plan& plan,
                         const std::vector<Timeline>& runs) {
    const int planned = num_micro_batches(scenario, plan);
    for (const Timeline& run : runs) {
        int last = 0;
        for (const Span& span : run.spans) last = std::max(last, span.micro_batch);
        if (last + 1 == planned) continue;
        throw InputError({.where = "the measured runs of plan " + plan.name,
                          .found = fmt::format("steps of {} micro-batches", last + 1),
                          .accepted = fmt::format("steps of {}, as the scenario has", planned)});
    }
}

Verdict judge_step(const PlanPrediction& prediction, const std::vector<Timeline>& runs,
                   double tolerance) {
    std::vector<double> times;
    for (const Timeline& run : runs) times.push_back(run.step->time.in(second));
    const Seconds measured = quantile(times, 0.5) * second;
    const Interval interval = prediction.step_interval;
    const double error = signed_error(prediction.step, measured);
    std::string text = fmt::format(
        "step: predicted {} ({} .. {}), measured {} (p10 {}, p90 {}), {}, {} its interval\n",
        human(prediction.step), human(interval.low), human(interval.high), human(measured),
        human(runs.front().step->low), human(runs.front().step->high), signed_percent(error),
        interval.low <= measured && measured <= interval.high ? "inside" : "outside");
    if (const auto& state = runs.front().run; state && state->memory_peak > 0.0 * byte)
        text += fmt::format("memory at the peak, fullest rank: predicted {}, measured {}, {}\n",
                            human(prediction.memory.allocated), human(state->memory_peak),
                            signed_percent(prediction.memory.allocated / state->memory_peak - 1.0));
    return {text, std::abs(error) <= tolerance};
}

}  // namespace headway::cli
