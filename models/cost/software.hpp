// What the intervals of a profile of other people's software hold beside its curves. A profile that
// was measured with headway's own kernels prices those kernels; one that is built from public
// measurements prices what its software would take if nothing but its kernels and exchanges took
// time. How far real runs lie from that is measured over the published anchors
// (docs/reference/model.md, "Interval"), not derived.
#pragma once

#include "models/vocab/prediction.hpp"
#include "models/vocab/profile.hpp"

namespace headway::inline cost {

// Time of real runs over the predicted one: nine runs in ten lie between.
struct Spread {
    double low = 1.0, high = 1.0;
};

// A difference of two steps: in nine pairs of real runs in ten, what lies between them goes against
// the sign of the predicted difference by less than both of these.
struct DifferenceTerm {
    double of_differing = 0.0;  // times the time that differs between the two
    double of_step = 0.0;       // times the longer step
};

struct SoftwareTerm {
    Spread step, layer, exchange;
    DifferenceTerm difference;
};

// As `headway validate` finds it over the shipped anchors; a test holds the two together.
inline constexpr SoftwareTerm kOtherSoftware = {.step = {0.84, 1.31},
                                                .layer = {0.96, 4.07},
                                                .exchange = {0.91, 1.39},
                                                .difference = {0.92, 0.12}};

// No spread for a profile that was measured with headway's kernels.
SoftwareTerm software_term(const Profile& profile);

// Curves and software err independently, on each side by itself.
Interval widened(const Interval& of_curves, Seconds time, const Spread& spread);

// The difference of two plans' steps is within the noise. Errors of a curve that both use cancel by
// as much as both rest on it. A common software errs on what differs between the plans alone, and
// by a share of the step at most.
bool is_undecided(const PlanPrediction& a, const PlanPrediction& b, const Profile& profile);

// The larger of what one plan does more and what it does less than the other, phase by phase.
double differing_time(const PlanPrediction& a, const PlanPrediction& b);

double software_noise(double differing, double longer_step, const DifferenceTerm& term);

// The plans of one scenario against the baseline of another, token for token. Priced by one and the
// same profile, what both rest on cancels as between plans of one scenario; by two, the intervals
// of both steps count whole. The rival must have a price.
Rival held_against(const Prediction& prediction, const Prediction& rival, const Profile& profile,
                   bool same_profile);

}  // namespace headway::inline cost
