// The JSON of `headway predict`, key by key described in docs/reference/results_format.md. Times in
// seconds, bytes in bytes, rates in TFLOP/s and tokens/s.
#pragma once

#include <string>

#include "models/vocab/prediction.hpp"

namespace headway::inline report {

std::string prediction_to_json(const Prediction& prediction);

}  // namespace headway::inline report
