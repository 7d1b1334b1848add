#include "models/cost/software.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "models/cost/price.hpp"

namespace headway::inline cost {
namespace {

double seconds_of(const PlanPrediction& plan, Phase phase, Pass pass) {
    for (const PhaseCost& cost : plan.phases) {
        if (cost.phase == phase && cost.pass == pass) return cost.time.in(second);
    }
    return 0.0;
}

// The larger of what one plan does more and what it does less than the other.
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

double variance_of_difference(const PlanPrediction& a, const PlanPrediction& b) {
    double variance = a.routing_variance + b.routing_variance;
    for (std::size_t i = 0; i < std::max(a.curve_sigma.size(), b.curve_sigma.size()); ++i) {
        const double of_a = i < a.curve_sigma.size() ? a.curve_sigma[i] : 0.0;
        const double of_b = i < b.curve_sigma.size() ? b.curve_sigma[i] : 0.0;
        variance += (of_a - of_b) * (of_a - of_b);
    }
    return variance;
}

}  // namespace

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

bool is_undecided(const PlanPrediction& a, const PlanPrediction& b, const Profile& profile) {
    const Seconds gap = a.step > b.step ? a.step - b.step : b.step - a.step;
    const Spread spread = software_term(profile).step;
    const double software = 0.5 * (spread.high - spread.low) * differing_time(a, b);
    const Interval curves = interval_of(Seconds{}, std::sqrt(variance_of_difference(a, b)));
    return gap.in(second) < std::hypot(curves.high.in(second), software);
}

}  // namespace headway::inline cost
