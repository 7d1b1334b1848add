// Why the simulated step of a plan is not the predicted one: the same step simulated without what
// the formulas leave out, one thing after the other.
#pragma once

#include <string>

#include "models/vocab/scenario.hpp"

namespace headway::cli {

std::string explain_difference(const Scenario& scenario, const Plan& plan);

}  // namespace headway::cli
