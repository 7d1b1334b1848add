// Every key of the input files, declared once (see fields.hpp).
#pragma once

#include "models/scenario/fields.hpp"
#include "models/vocab/anchor.hpp"
#include "models/vocab/scenario.hpp"

namespace headway::inline scenario {

inline constexpr Presence optional = Presence::optional;  // shorter where keys are declared

void describe(Fields& fields, ModelSpec& model);
void describe(Fields& fields, Cluster& cluster);
void describe(Fields& fields, Profile& profile);
void describe(Fields& fields, Scenario& scenario);
void describe(Fields& fields, Routing& routing);  // under its key
void describe(Fields& fields, AnchorSet& anchors);

}  // namespace headway::inline scenario
