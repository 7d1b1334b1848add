// Terms of phase curves: quantities that the time of a phase grows with, from its shape.
//   t = sum_i seconds_i term_i(shape)
// A wave is one round of the multiprocessors over blocks of equal work: ceil(blocks / SMs). Blocks
// of GEMMs are 128 x 256 tiles of the result; of grouped ones, rows of an expert are a Poisson
// number, so that partly filled tiles are counted. docs/reference/model.md defines every term.
#pragma once

#include <optional>
#include <string_view>

#include "models/vocab/profile.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline cost {

double term_value(Term term, Pass pass, const PhaseShape& shape, int num_multiprocessors);

// The profile's curve of a phase of this shape; null when it has none.
const PhaseCurve* find_curve(const Profile& profile, const PhaseShape& shape, Pass pass);

// Seconds of the phase by `curve`.
double phase_seconds(const PhaseCurve& curve, const PhaseShape& shape);

// The first quantity of the shape that lies outside the layers that the curve was fitted to.
struct Asked {
    std::string_view what;
    double value;
    Extent measured;
};
std::optional<Asked> outside(const PhaseCurve& curve, const PhaseShape& shape);

// `fraction` of the tokens of a phase.
PhaseShape scaled(const PhaseShape& shape, double fraction);

}  // namespace headway::inline cost
