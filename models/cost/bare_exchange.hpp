// The exchanges of an MoE layer by themselves, on idle links: what runs of their matrices are held
// against.
#pragma once

#include <vector>

#include "models/vocab/profile.hpp"
#include "models/vocab/program.hpp"
#include "models/vocab/scenario.hpp"

namespace headway::inline cost {

struct BareExchange {
    Phase phase = Phase::dispatch;
    Pass pass = Pass::forward;
    Seconds predicted;  // of the expected routing, in closed form
    ExchangeTask task;  // of the drawn routing; two stages follow one another
};

// In the order of a layer, forward and backward.
std::vector<BareExchange> bare_exchanges(const Scenario& scenario, const Plan& plan,
                                         const Profile& profile, int layer, int sample = 0);

// Curves on which every link carries what its bandwidth says, for exchanges that nothing was
// measured of.
Profile ideal_links(const Cluster& cluster);

}  // namespace headway::inline cost
