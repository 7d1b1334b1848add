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

struct SoftwareTerm {
    Spread step, layer, exchange;
};

// As `headway validate` finds it over the shipped anchors; a test holds the two together.
inline constexpr SoftwareTerm kOtherSoftware = {
    .step = {0.79, 1.31}, .layer = {0.96, 4.07}, .exchange = {0.91, 1.39}};

// No spread for a profile that was measured with headway's kernels.
SoftwareTerm software_term(const Profile& profile);

// Curves and software err independently, on each side by itself.
Interval widened(const Interval& of_curves, Seconds time, const Spread& spread);

// The difference of two plans' steps is within the noise. Errors of a curve that both use cancel by
// as much as both rest on it; a common software errs on what differs between the plans alone.
bool is_undecided(const PlanPrediction& a, const PlanPrediction& b, const Profile& profile);

}  // namespace headway::inline cost
