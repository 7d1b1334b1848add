#include "models/sweep/sweep_rows.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <optional>
#include <vector>

#include "models/cost/predict.hpp"
#include "models/text/csv_text.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline sweep {
namespace {

struct PlanResult {
    std::optional<PlanPrediction> prediction;  // none: no numbers
    std::string reason;
    bool cannot_run = false;  // a result; else, without numbers, the point is invalid
};

void add_reason(std::string& reason, const InputProblem& problem) {
    // Long enough for any message of ours; a path of the user's may be longer.
    constexpr std::size_t kMaxReason = 500;
    if (!reason.empty()) reason += "; ";
    reason += problem.to_string();
    if (reason.size() > kMaxReason) reason.resize(kMaxReason);
}

// Which plan a problem is of: "plans[2].group_size" -> 2; none: of all.
std::optional<std::size_t> plan_of(const InputProblem& problem) {
    constexpr std::string_view list = "plans[";
    if (!problem.where.starts_with(list)) return std::nullopt;
    std::size_t index = 0;
    for (std::size_t i = list.size(); i < problem.where.size() && problem.where[i] != ']'; ++i) {
        index = index * 10 + static_cast<std::size_t>(problem.where[i] - '0');
    }
    return index;
}

PlanResult predict_one(const Scenario& scenario, const Plan& plan, const RowOptions& options) {
    PlanResult result;
    try {
        PlanPrediction p = predict_plan(scenario, plan, *scenario.profile,
                                        {.samples = options.samples, .timeline = false});
        if (options.simulator) {
            const SimulatedStep simulated = options.simulator(scenario, plan);
            if (!simulated.cannot_run.empty())
                return {.prediction = {}, .reason = simulated.cannot_run, .cannot_run = true};
            p.tokens_per_second_per_gpu *= p.step / simulated.step;
            p.model_flop_rate_per_gpu *= p.step / simulated.step;
            p.step = simulated.step;
            p.step_interval = {max(Seconds{}, simulated.step - simulated.error_bound),
                               simulated.step + simulated.error_bound};
        }
        if (!p.step.is_finite() || !(p.step > Seconds{})) {
            result.reason = "the step time is no positive finite number";
            return result;
        }
        result.prediction = std::move(p);
    } catch (const InputError& error) {
        for (const InputProblem& problem : error.problems()) add_reason(result.reason, problem);
    }
    return result;
}

std::string longest_phase(const PlanPrediction& p) {
    const auto longest =
        std::max_element(p.phases.begin(), p.phases.end(),
                         [](const PhaseCost& a, const PhaseCost& b) { return a.time < b.time; });
    if (longest == p.phases.end()) return "";
    return fmt::format("{}/{}", name(longest->phase), name(longest->pass));
}

std::string_view largest_item(const PlanMemory& memory) {
    const auto largest = std::max_element(
        memory.items.begin(), memory.items.end(),
        [](const MemoryItem& a, const MemoryItem& b) { return a.bytes < b.bytes; });
    return largest == memory.items.end() ? std::string_view() : std::string_view(largest->name);
}

void append_numbers(const PlanPrediction& p, std::optional<double> speedup, bool is_simulated,
                    fmt::memory_buffer& out) {
    auto to = std::back_inserter(out);
    fmt::format_to(to, "{},{},{},", p.step.in(second), p.step_interval.low.in(second),
                   p.step_interval.high.in(second));
    if (speedup) fmt::format_to(to, "{}", *speedup);
    fmt::format_to(to, ",{},{},", p.tokens_per_second_per_gpu,
                   p.model_flop_rate_per_gpu.in(TFLOP / second));
    // A simulated step has no layer that stands for the others.
    if (is_simulated) {
        fmt::format_to(to, ",,");
    } else {
        fmt::format_to(to, "{},{},", p.moe_forward.in(second), p.moe_backward.in(second));
    }
    fmt::format_to(to, "{},{},", p.traffic.sent_mean.in(byte), p.traffic.sent_max.in(byte));
    for (std::size_t c = 1; c < p.traffic.by_path.size(); ++c)  // but `self`
        fmt::format_to(to, "{},", p.traffic.by_path[c].in(byte));
    fmt::format_to(to, "{},{},{},{},{},{},{},{},{},{},{},", p.traffic.imbalance,
                   p.memory.peak.in(byte), p.memory.capacity.in(byte),
                   csv_field(largest_item(p.memory)), longest_phase(p), p.warnings.size(),
                   p.tokens_per_second(), p.mfu(), p.gpu_hours_per_trillion_tokens(), p.parameters,
                   p.active_parameters);
}

}  // namespace

PointEvaluator::PointEvaluator(const Sweep& sweep, const RowOptions& options)
    : sweep_(sweep), options_(options), scenario_(sweep.base) {}

std::string PointEvaluator::rows(std::size_t point) {
    const std::vector<InputProblem> problems = set_point(sweep_, point, scenario_);
    const std::vector<Plan>& plans = sweep_.base.plans;
    std::vector<PlanResult> results(plans.size());
    for (const InputProblem& problem : problems) {
        const std::optional<std::size_t> plan = plan_of(problem);
        for (std::size_t i = 0; i < results.size(); ++i) {
            if (!plan || *plan == i) add_reason(results[i].reason, problem);
        }
    }
    std::optional<Seconds> baseline;
    for (std::size_t i = 0; i < plans.size(); ++i) {
        if (!results[i].reason.empty()) continue;
        results[i] = predict_one(scenario_, scenario_.plans[i], options_);
        if (results[i].prediction && scenario_.plans[i].name == scenario_.baseline) {
            baseline = results[i].prediction->step;
        }
    }
    const std::string prefix = row_prefix(sweep_, point);
    const bool is_simulated = static_cast<bool>(options_.simulator);
    fmt::memory_buffer out;
    for (std::size_t i = 0; i < plans.size(); ++i) {
        const auto& prediction = results[i].prediction;
        const bool infeasible = prediction ? !prediction->feasible : results[i].cannot_run;
        const std::string_view status = infeasible ? "infeasible" : (prediction ? "ok" : "invalid");
        fmt::format_to(std::back_inserter(out), "{}{},{},{},{},", prefix, csv_field(plans[i].name),
                       plans[i].layer_split(), is_simulated ? "simulated" : "predicted", status);
        if (prediction) {
            std::optional<double> speedup;
            if (baseline) speedup = *baseline / prediction->step;
            append_numbers(*prediction, speedup, is_simulated, out);
        } else {
            // Every number is absent, not zero.
            constexpr std::size_t kColumnsBefore = 4;
            const auto commas = std::count(kSweepColumns.begin(), kSweepColumns.end(), ',');
            fmt::format_to(std::back_inserter(out), "{}",
                           std::string(static_cast<std::size_t>(commas) - kColumnsBefore, ','));
        }
        fmt::format_to(std::back_inserter(out), "{}\n",
                       csv_field(prediction ? prediction->infeasible_because : results[i].reason));
    }
    return fmt::to_string(out);
}

std::string row_prefix(const Sweep& sweep, std::size_t point) {
    const std::vector<std::size_t> indices = value_indices(sweep, point);
    std::string prefix;
    for (std::size_t i = 0; i < indices.size(); ++i) {
        prefix += csv_field(sweep.axes[i].values[indices[i]].text) + ',';
    }
    return prefix;
}

std::string column_line(const Sweep& sweep) {
    std::string line;
    for (const Axis& axis : sweep.axes) line += csv_field(axis.name) + ',';
    return line.append(kSweepColumns);
}

}  // namespace headway::inline sweep
