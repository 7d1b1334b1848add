// What a scenario leaves open is derived from the rest: HP twins of the model, NVLink domains of a
// node, the first plan as baseline. Done once when a file is read, and anew by a sweep for every
// point.
#pragma once

#include "models/vocab/scenario.hpp"

namespace headway::inline scenario {

void resolve(Cluster& cluster);
// Plans that cannot be derived are left to check_plans. Every twin adds a note.
void resolve(Scenario& scenario);

}  // namespace headway::inline scenario
