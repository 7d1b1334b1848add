// The tables of `headway validate`: every anchor with its signed error, statistics by category, and
// what cannot be expressed; as text for a terminal, as Markdown for
// docs/results/generated/validation.md, or as CSV.
#pragma once

#include <string>
#include <vector>

#include "models/vocab/anchor.hpp"

namespace headway::inline report {

struct Validation {
    std::vector<AnchorResult> results;
    std::vector<AnchorStatistics> statistics;
    std::vector<UnexpressedAnchor> not_expressible;
    std::vector<AnchorSpread> spreads;
    std::vector<AnchorGroup> groups;
    std::vector<RatioResult> ratios;
    PairStatistics pairs;
};

enum class ValidationDetail {
    brief,   // one line per table of all-to-all times: its worst held-out size
    verbose  // every size, with sources
};

std::string validation_to_table(const Validation& validation, ValidationDetail detail);
std::string validation_to_markdown(const Validation& validation);
std::string validation_to_csv(const Validation& validation);

}  // namespace headway::inline report
