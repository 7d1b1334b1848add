// check_layers: the layers on this rank's GPU and its peers' against the CPU reference in fp64, on
// the same weights, tokens and choices (rounded to bf16 first): outputs, dx, the gradient of every
// weight, and the bytes exchanged against the Workload's matrix.
#pragma once

#include <string>
#include <vector>

#include "runtime/cuda/phase_clock.hpp"

namespace headway::runtime {

struct LayerCheck {
    std::string layer;   // what was run
    std::string what;    // "y", "dx", "d project", ..., or a phase whose bytes were compared
    double error = 0.0;  // relative L2; bytes that differ
    bool passed = false;
};

inline constexpr double kLayerTolerance = 8e-3;

// Collective; every rank checks its own part.
std::vector<LayerCheck> check_layers(DeviceContext& context);

}  // namespace headway::runtime
