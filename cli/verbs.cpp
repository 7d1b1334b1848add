#include "cli/verbs.hpp"

#include <array>

namespace headway::cli {
namespace {

// One row a verb, grouped as `headway --help` prints them.
constexpr auto kVerbs = std::to_array<Verb>({
    // Predict and simulate

    // Measure and check

    // Look and draw
    {"Look and draw", "list", "presets that can be named in a scenario", run_list},
    {"Look and draw", "plot", "figures from result files (JSON or CSV)", run_plot},
});

}  // namespace

std::span<const Verb> all_verbs() {
    return kVerbs;
}

}  // namespace headway::cli
