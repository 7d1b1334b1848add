// The tables of `headway predict` for people: plans with step time, speedup, rates and memory; then
// the phases of the step with the plans side by side; then traffic. Fits 100 columns.
#pragma once

#include <string>

#include "models/vocab/prediction.hpp"

namespace headway::inline report {

enum class Detail {
    brief,   // phases below 1 % of every plan's step are summed up
    verbose  // every phase with what is hidden, memory items, notes
};

std::string prediction_to_table(const Prediction& prediction, Detail detail);

}  // namespace headway::inline report
