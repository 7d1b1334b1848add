// How much of its time a collective keeps which links busy, and what two at once have of them.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>

#include "models/vocab/cluster.hpp"

namespace headway::inline cost {

// Those that leave the island share the NICs.
enum class Links { nvlink, pcie, nic };
inline constexpr std::size_t kNumLinks = 3;

struct LinkUse {
    std::array<double, kNumLinks> share{};  // [Links] of the time alone, 0 to 1

    constexpr void add(PathClass path, double of_time) {
        const Links links = path == PathClass::nvlink ? Links::nvlink
                            : path == PathClass::pcie ? Links::pcie
                                                      : Links::nic;
        double& s = share[static_cast<std::size_t>(links)];
        if (path != PathClass::self) s = std::max(s, std::min(1.0, of_time));
    }
};

// How many times its time alone takes what uses `own` beside what uses `other`. A link is shared
// max-min fairly: who needs less than half of it has that, who needs more has the rest.
constexpr double slowdown_beside(const LinkUse& own, const LinkUse& other) {
    double slowdown = 1.0;
    for (std::size_t l = 0; l < kNumLinks; ++l) {
        const double left = std::max(0.5, 1.0 - other.share[l]);
        slowdown = std::max(slowdown, own.share[l] / left);
    }
    return slowdown;
}

}  // namespace headway::inline cost
