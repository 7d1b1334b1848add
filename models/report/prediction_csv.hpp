// The Timeline CSV of all plans of a prediction.
#pragma once

#include <string>

#include "models/vocab/prediction.hpp"

namespace headway::inline report {

std::string prediction_to_csv(const Prediction& prediction);

}  // namespace headway::inline report
