// Whether a comparison lies within a tolerance, in a sentence.
#pragma once

#include <string>

#include "models/report/compare.hpp"

namespace headway::cli {

struct Verdict {
    std::string text;
    bool passed = true;
};

// Passes count, and phases that took at least `min_time`; `tolerance` is a fraction.
Verdict judge(const Comparison& comparison, double tolerance, Seconds min_time);

}  // namespace headway::cli
