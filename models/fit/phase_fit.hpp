// Phase curves from measured phases: for every phase of every layer the terms that its
// implementation's time grows with, and non-negative seconds a term by least squares of the
// relative error, reweighted so that outliers do not count by their size. One curve for each kernel
// that is compiled apart: by head width under HP, by the power of two that k is padded to.
#pragma once

#include <string>
#include <vector>

#include "models/vocab/profile.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline fit {

struct MeasuredPhase {
    PhaseShape shape;
    Pass pass = Pass::forward;
    double seconds = 0.0;
};

// Phases without enough samples get no curve.
std::vector<PhaseCurve> fit_phases(const std::vector<MeasuredPhase>& times, int num_multiprocessors,
                                   const std::string& source);

// Phases that copy, sort or sum up rows and compute little.
bool is_row_mover(Phase phase);

// Curves of the row movers alone, of any processor: each copies, sorts or sums in its own way, at
// its own speed. Seconds by copies, tokens and choices, one curve a kind of layer.
std::vector<PhaseCurve> fit_row_movers(const std::vector<MeasuredPhase>& times,
                                       const std::string& source);

}  // namespace headway::inline fit
