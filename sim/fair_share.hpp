// Max-min fair rates of a set of flows over links, by progressive filling.
//   maximise lexicographically (sorted rates)  subject to  sum_f a(l,f) r(f) <= C(l)  for all l
// Every flow has a bottleneck: a saturated link on which no flow is faster. So: find the link with
// the least residual capacity per unfrozen flow, freeze its flows at that level, subtract them from
// the other links of their paths, repeat; the levels come out in ascending order.
// Worked system: links A (capacity C) and B (capacity 2C); flow 1 on A, flow 2 on A and B, flow 3
// on B. A has C/2 per flow, B has 2C/2: A freezes first, r1 = r2 = C/2. B has 2C - C/2 left for one
// flow: r3 = 3C/2. (Bertsekas and Gallager, Data Networks, 6.5.2.)
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace headway::sim {

// a(l,f): how many flows of this class cross one link of that class; 1 for plain flows.
struct Crossing {
    std::uint32_t link = 0;
    double multiplicity = 1.0;
};

using FlowPath = std::vector<Crossing>;

// Rates in the unit of `capacity`; a flow with an empty path gets infinity. Plain and slow: it
// solves the few classes of symmetric systems; FlowEngine is for the many flows of uneven ones.
std::vector<double> max_min_rates(std::span<const double> capacity,
                                  std::span<const FlowPath> flows);

}  // namespace headway::sim
