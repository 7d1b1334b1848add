// run_grid: the layers of a grid on this rank's GPU and its peers', in interleaved passes (another
// order each), samples handed out as they come, so that a run that ends early is not lost.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "runtime/cuda/measure_device.hpp"
#include "runtime/layers/layer_grid.hpp"

namespace headway::runtime {

struct GridRunOptions {
    int num_passes = 2;
    // [point] passes that are there already, of which none is run again; empty: none
    std::vector<int> passes_done;
    DeviceMeasureOptions measure{.num_warmups = 2, .num_repeats = 7};
    double max_seconds = 1e9;  // stop between layers when this has passed
    // Called on every rank after each layer; `samples` is of all ranks.
    std::function<void(std::span<const GridSample> samples)> sink;
    std::function<void(const GridPoint& point, const std::string& why)> skipped;
    std::function<void(std::size_t done, std::size_t total)> progress;
};

// Collective. Layers that the kernels cannot run are skipped.
void run_grid(DeviceContext& context, const Scenario& base, const std::vector<GridPoint>& points,
              const GridRunOptions& options);

}  // namespace headway::runtime
