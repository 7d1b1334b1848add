// Where HP overtakes the best EP: the step of the fastest plan of either family, searched anew at
// each value of one axis, or of a few plans where a search takes long, and bisection between values
// at which the faster family changes.
#pragma once

#include <string>
#include <vector>

#include "models/sweep/plan_search.hpp"

namespace headway::inline sweep {

enum class BreakEvenAxis { top_k, link, skew };

struct Duel {
    double value = 0.0;
    Seconds ep, hp;  // zero: no plan of this family fits or can be priced
    bool hp_wins() const { return hp > Seconds{} && (!(ep > Seconds{}) || hp < ep); }
};

struct Crossing {
    double value = 0.0;  // the first value, as precise as the bisection, at which
    bool to_hp = false;  // HP (else EP) is the faster
};

struct BreakEven {
    std::string key;          // "model.moe.top_k"
    double now = 0.0;         // the scenario's
    std::vector<Duel> duels;  // ascending
    std::vector<Crossing> crossings;
};

// `open` as read_open_scenario leaves it, so that HP twins follow k. The link is what EP's groups
// of all ranks are bound by: the NIC beyond one island, else NVLink or PCIe; values in bytes/s.
// `chosen`: where not empty, these plans alone are priced at each value, instead of a search.
BreakEven break_even(const Scenario& open, BreakEvenAxis axis, const SearchOptions& options,
                     const std::vector<Candidate>& chosen = {});

// The first `most` candidates of each family that a break-even compares.
std::vector<Candidate> duellists(const std::vector<Candidate>& candidates, std::size_t most);

}  // namespace headway::inline sweep
