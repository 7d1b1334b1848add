// Calibration of this machine's CPU: the scenario's MoE layers run on thread ranks over a grid of
// token counts and top-k, and bare exchanges and streaming for sizes that the layers do not reach.
#pragma once

#include <cstddef>
#include <functional>

#include "models/fit/fit_profile.hpp"
#include "models/measurements/samples_file.hpp"
#include "models/vocab/scenario.hpp"

namespace headway::cli {

struct CpuGrid {
    bool full = false;   // more token counts
    int num_passes = 3;  // through all points, each in another random order
    int num_ranks = 2;
    SamplesFile* file = nullptr;  // steps that it holds are not measured again; the others go there
    std::function<void(std::size_t done, std::size_t total)> progress;
};

// Every plan of the scenario around its own token count T and top-k: k at a half, one and two
// times, T at 1/4, 1/2, 1 and 2 times (full: 1/8 to 4). Points are interleaved, so that drift of
// the machine does not look like a size.
CalibrationSamples measure_cpu(const Scenario& scenario, const CpuGrid& grid);

}  // namespace headway::cli
