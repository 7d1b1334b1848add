// Measured Timelines of headway-run, held against the scenario that they are to be compared with.
#pragma once

#include <string>
#include <vector>

#include "models/vocab/scenario.hpp"
#include "models/vocab/timeline.hpp"

namespace headway::cli {

// Those of all files. InputError for a file without measured rows, and for rows of another
// scenario, plan, number of ranks or of tokens than `scenario` has: their times would be compared
// with what they are not of.
std::vector<Timeline> read_measured(const std::vector<std::string>& files,
                                    const Scenario& scenario);

// The plan that a timeline is of; InputError if the scenario has none.
const Plan& plan_of(const Scenario& scenario, const Timeline& timeline);

}  // namespace headway::cli
