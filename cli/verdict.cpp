#include "cli/verdict.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "models/text/human.hpp"
#include "models/vocab/quantile.hpp"

namespace headway::cli {
namespace {

double median_of(std::vector<double> values) {
    return values.empty() ? 0.0 : quantile(values, 0.5);
}

}  // namespace

Verdict judge(const Comparison& comparison, double tolerance, Seconds min_time) {
    std::vector<double> phases, passes;
    int inside = 0;
    bool passed = true;
    for (const PhaseComparison& p : comparison.phases) {
        if (p.measured < min_time) continue;
        phases.push_back(std::abs(p.error()));
        inside += p.inside();
        passed = passed && phases.back() <= tolerance;
    }
    for (const PassComparison& p : comparison.passes) {
        passes.push_back(std::abs(p.error()));
        passed = passed && passes.back() <= tolerance;
    }
    return {
        fmt::format("plan {}: {} phases of at least {}: median error {:.1f} %, worst {:.1f} %, "
                    "{} inside their interval; passes: median {:.1f} %, worst {:.1f} %: {}\n",
                    comparison.plan, phases.size(), human(min_time), 100 * median_of(phases),
                    phases.empty() ? 0.0 : 100 * *std::max_element(phases.begin(), phases.end()),
                    inside, 100 * median_of(passes),
                    passes.empty() ? 0.0 : 100 * *std::max_element(passes.begin(), passes.end()),
                    passed ? "within tolerance" : "BEYOND TOLERANCE"),
        passed};
}

}  // namespace headway::cli
