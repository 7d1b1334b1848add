// What one token of each member of a group is expected to send where: the common ground of expected
// loads and of draws by count. Private to models/workload.
#pragma once

#include <vector>

#include "models/vocab/scenario.hpp"
#include "models/workload/layout.hpp"

namespace headway::inline workload {

struct MemberRates {
    std::vector<double> experts;      // chance of each expert [E]; empty when all are alike
    std::vector<double> rows;         // at each part [N]
    std::vector<double> copies;       // to each part, of each of its ranks that it goes to [N]
    std::vector<double> node_copies;  // node-dedup over several islands: to each island
};

// Node-dedup in two stages: the group spans islands.
bool is_forwarded(const Cluster& cluster, const ExpertLayout& layout);

// Whether members route alike, so that those of member 0 are those of all.
bool members_alike(const Routing& routing);

// Rates of the tokens that member `member` of group `group` routes. Under HP x EP they come from
// several ranks: from every rank whose number among the sharers of a head is the member's.
MemberRates member_rates(const Scenario& scenario, const ExpertLayout& layout, int layer, int group,
                         int member);

// The routers whose tokens a member handles: one a rank that they come from.
std::vector<RouterId> routers_of(const ExpertLayout& layout, int layer, int group, int member,
                                 int sample);

}  // namespace headway::inline workload
