// explain: where the time of one phase comes from: work, problem size, curve point, link, lower
// bound, achieved fraction.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "models/vocab/phase.hpp"
#include "models/vocab/profile.hpp"
#include "models/vocab/scenario.hpp"

namespace headway::inline cost {

struct Explanation {
    std::vector<std::pair<std::string, std::string>> lines;  // label, text
};

// One execution of `phase` in `pass` in the plan's first layer that has it (or outside the layers).
// InputError when the plan has no such phase; the message lists those it has.
Explanation explain(const Scenario& scenario, const Plan& plan, const Profile& profile, Phase phase,
                    Pass pass);

}  // namespace headway::inline cost
