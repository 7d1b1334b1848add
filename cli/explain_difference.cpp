#include "cli/explain_difference.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <variant>
#include <vector>

#include "cli/scenario_options.hpp"
#include "models/cost/predict.hpp"
#include "models/cost/program.hpp"
#include "sim/simulate.hpp"

namespace headway::cli {
namespace {

constexpr double kAgree = 0.03;     // of the step: what formulas and events may differ by
constexpr double kEpsilon = 0.001;  // of the simulations, well below what is explained

bool is_reduction(const Task& task) {
    return std::holds_alternative<ReduceTask>(task.work);
}

Program without_reductions(const Program& program) {
    Program result{.num_ranks = program.num_ranks, .overlap = program.overlap, .tasks = {}};
    std::vector<int> place(program.tasks.size(), -1);
    for (std::size_t t = 0; t < program.tasks.size(); ++t) {
        if (is_reduction(program.tasks[t])) continue;
        Task task = program.tasks[t];
        for (int& wait : task.after) wait = place[static_cast<std::size_t>(wait)];
        std::erase(task.after, -1);
        place[t] = static_cast<int>(result.tasks.size());
        result.tasks.push_back(std::move(task));
    }
    return result;
}

// Every rank takes as long as the last one of each task.
Program with_equal_ranks(Program program) {
    for (Task& task : program.tasks) {
        auto* compute = std::get_if<ComputeTask>(&task.work);
        if (compute == nullptr || compute->per_rank.size() == 1) continue;
        compute->per_rank = {*std::ranges::max_element(compute->per_rank)};
    }
    return program;
}

Seconds reductions_of(const PlanPrediction& prediction) {
    Seconds shown;
    for (const PhaseCost& p : prediction.phases)
        if (p.phase == Phase::grad_all_reduce || p.phase == Phase::expert_grad_all_reduce ||
            p.phase == Phase::param_all_gather)
            shown += p.time;
    return shown;
}

std::string signed_part(const char* cause, Seconds part, Seconds step, const char* because) {
    return fmt::format("  {:<24}{:+9.3f} ms  {:+5.1f} %  {}\n", cause, part.in(ms),
                       100.0 * (part / step), because);
}

}  // namespace

std::string explain_difference(const Scenario& scenario, const Plan& plan) {
    const Profile& profile = profile_of(scenario);
    const PlanPrediction prediction = predict_plan(scenario, plan, profile);
    const Program program = build_program(scenario, plan, profile, {.num_draws = 1});
    const sim::Topology topology(scenario.cluster, scenario.routing.seed);
    const auto step_of = [&](const Program& p) {
        return sim::simulate(p, topology, {.epsilon = kEpsilon, .timeline = false, .progress = {}});
    };
    const sim::SimulationResult whole = step_of(program);
    if (whole.unreachable)
        return fmt::format("simulated: rank {} cannot reach rank {}: link {} is dead\n",
                           whole.unreachable->source, whole.unreachable->destination,
                           whole.unreachable->link);
    const Seconds predicted = prediction.step, difference = whole.step - predicted;
    std::string text =
        fmt::format("  predicted {:.3f} ms, simulated {:.3f} ms: {:+.1f} %\n", predicted.in(ms),
                    whole.step.in(ms), 100.0 * (difference / predicted));
    const Program alone = without_reductions(program);
    const Seconds apart = step_of(alone).step, equal = step_of(with_equal_ranks(alone)).step;
    const Seconds reductions = (whole.step - apart) - reductions_of(prediction);
    const Seconds waits = apart - equal, exchanges = difference - reductions - waits;
    text += signed_part("reductions", reductions, predicted,
                        "gradients share links with the exchanges beside them, and leave when the "
                        "last rank is ready");
    text += signed_part("ranks of unequal work", waits, predicted,
                        "predict adds up the busiest rank of each phase; a rank that is late in "
                        "one may be early in the next");
    text += signed_part("exchanges", exchanges, predicted,
                        "predicted from the busiest rank's bytes on its link, simulated message "
                        "by message on shared links");
    if (std::abs(difference / predicted) <= kAgree)
        text += fmt::format("  they agree within {:.0f} %\n", 100.0 * kAgree);
    return text;
}

}  // namespace headway::cli
