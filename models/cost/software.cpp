#include "models/cost/software.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <tuple>

#include "models/cost/price.hpp"

namespace headway::inline cost {
namespace {

double seconds_of(const PlanPrediction& plan, Phase phase, Pass pass) {
    for (const PhaseCost& cost : plan.phases) {
        if (cost.phase == phase && cost.pass == pass) return cost.time.in(second);
    }
    return 0.0;
}

double variance_of_difference(const PlanPrediction& a, const PlanPrediction& b) {
    double variance = a.routing_variance + b.routing_variance;
    for (std::size_t i = 0; i < std::max(a.curve_sigma.size(), b.curve_sigma.size()); ++i) {
        const double of_a = i < a.curve_sigma.size() ? a.curve_sigma[i] : 0.0;
        const double of_b = i < b.curve_sigma.size() ? b.curve_sigma[i] : 0.0;
        variance += (of_a - of_b) * (of_a - of_b);
    }
    return variance;
}

// The plan if its step held `times` as many tokens.
PlanPrediction of_tokens(PlanPrediction plan, double times) {
    plan.step *= times;
    plan.step_interval.low *= times;
    plan.step_interval.high *= times;
    for (PhaseCost& phase : plan.phases) phase.time *= times;
    for (double& sigma : plan.curve_sigma) sigma *= times;
    plan.routing_variance *= times * times;
    return plan;
}

bool overlap(const PlanPrediction& a, const PlanPrediction& b) {
    const auto& [fast, slow] = a.step < b.step ? std::tie(a, b) : std::tie(b, a);
    return (slow.step - fast.step).in(second) <
           std::hypot((fast.step_interval.high - fast.step).in(second),
                      (slow.step - slow.step_interval.low).in(second));
}

}  // namespace

double differing_time(const PlanPrediction& a, const PlanPrediction& b) {
    double more = 0.0, less = 0.0;
    for (const PhaseCost& cost : a.phases) {
        const double gap = cost.time.in(second)-seconds_of(b, cost.phase, cost.pass);
        (gap > 0.0 ? more : less) += std::abs(gap);
    }
    for (const PhaseCost& cost : b.phases) {
        if (seconds_of(a, cost.phase, cost.pass) == 0.0) less += cost.time.in(second);
    }
    return std::max(more, less);
}

SoftwareTerm software_term(const Profile& profile) {
    return profile.provenance.kind == "public" ? kOtherSoftware : SoftwareTerm{};
}

Interval widened(const Interval& of_curves, Seconds time, const Spread& spread) {
    const auto beyond = [](Seconds curves, Seconds software) {
        return std::hypot(curves.in(second), software.in(second)) * second;
    };
    const Seconds below = std::max(0.0, 1.0 - spread.low) * time;
    const Seconds above = std::max(0.0, spread.high - 1.0) * time;
    return {max(Seconds{}, time - beyond(time - of_curves.low, below)),
            time + beyond(of_curves.high - time, above)};
}

double software_noise(double differing, double longer_step, const DifferenceTerm& term) {
    return std::min(term.of_differing * differing, term.of_step * longer_step);
}

bool is_undecided(const PlanPrediction& a, const PlanPrediction& b, const Profile& profile) {
    const Seconds gap = a.step > b.step ? a.step - b.step : b.step - a.step;
    const double software = software_noise(differing_time(a, b), max(a.step, b.step).in(second),
                                           software_term(profile).difference);
    const Interval curves = interval_of(Seconds{}, std::sqrt(variance_of_difference(a, b)));
    return gap.in(second) < std::hypot(curves.high.in(second), software);
}

Rival held_against(const Prediction& prediction, const Prediction& rival, const Profile& profile,
                   bool same_profile) {
    const auto baseline = std::ranges::find(rival.plans, rival.baseline, &PlanPrediction::name);
    Rival result{.scenario = rival.scenario,
                 .plan = rival.baseline,
                 .tokens_per_second = baseline->tokens_per_second(),
                 .feasible = baseline->feasible,
                 .answers = {}};
    for (const PlanPrediction& plan : prediction.plans) {
        const double speedup = plan.tokens_per_second() / baseline->tokens_per_second();
        const PlanPrediction other = of_tokens(*baseline, speedup * (plan.step / baseline->step));
        result.answers.push_back(
            {plan.name, speedup,
             same_profile ? is_undecided(plan, other, profile) : overlap(plan, other)});
    }
    return result;
}

}  // namespace headway::inline cost
