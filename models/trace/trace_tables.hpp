// What a check of traces prints.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "models/report/compare.hpp"
#include "models/report/step_order.hpp"
#include "models/trace/trace_check.hpp"
#include "models/vocab/prediction.hpp"

namespace headway::inline trace {

struct TraceTables {
    const PlanPrediction& plan;
    const std::vector<RankTrace>& ranks;
    const Comparison& comparison;
    const Timeline& measured;
    const std::map<PhaseKey, Seconds>& waiting;  // for peers, of the mean rank and step
};

// Phases; exchanges, exposed and hidden; the GPU's step; what was not joined, and how the rest was.
std::string trace_text(const TraceTables& tables);

}  // namespace headway::inline trace
