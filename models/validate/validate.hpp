// Validation: predictions against published anchors. The signed error is predicted / published - 1.
// An all-to-all size that is a point of the profile's own curve is marked as fitted and kept out of
// the statistics; anchors without a tolerance are listed, not judged.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "models/cost/software.hpp"
#include "models/vocab/anchor.hpp"
#include "models/vocab/profile.hpp"
#include "models/vocab/scenario.hpp"

namespace headway::inline validation {

// How files become values, so that this library need not know YAML.
struct AnchorLoader {
    std::function<Profile(const std::string& preset)> profile;
    std::function<Scenario(const std::filesystem::path& path)> scenario;
};

// In the order of the set: exchanges, then runs.
std::vector<AnchorResult> validate(const AnchorSet& anchors, const AnchorLoader& load);

// How far published runs lie from their predictions: nine in ten within. `left_out` is asked of
// each result; those that it takes are passed over.
Spread software_spread(const std::vector<AnchorResult>& results, AnchorCategory category,
                       const std::function<bool(const AnchorResult&)>& left_out = {});

// Pairs of steps of one scenario under plans that differ, of a plan that was run more than once the
// first run. A scenario counts once, however many pairs it has.
DifferenceTerm difference_term(const std::vector<AnchorResult>& results);

// Each pair judged by the term of the other scenarios.
PairStatistics judge_pairs(const std::vector<AnchorResult>& results);

// One entry for each category that has results.
std::vector<AnchorStatistics> statistics(const std::vector<AnchorResult>& results);

// Groups of the steps: by precision, then by what cuts the model, in a fixed order.
std::vector<AnchorGroup> step_groups(const std::vector<AnchorResult>& results);

// Throws InputError where a ratio names no step of the results.
std::vector<RatioResult> ratios(const std::vector<RatioAnchor>& anchors,
                                const std::vector<AnchorResult>& results);

// Some anchor with a tolerance is beyond it.
bool any_out(const std::vector<AnchorResult>& results);

}  // namespace headway::inline validation
