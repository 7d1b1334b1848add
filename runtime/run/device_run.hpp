// A run of plans, one process per rank: on GPUs, as `headway-run --device cuda` makes it, or on
// CPUs over a network, where a launcher started several ranks. A build without CUDA and NCCL
// refuses the first, one without Gloo the second.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "runtime/layers/measure.hpp"
#include "runtime/process/launch_environment.hpp"
#include "runtime/step/measure_step.hpp"

namespace headway::runtime {

struct DeviceRun {
    std::optional<RankIdentity> identity;  // none: this process starts the ranks
    int num_ranks = 1;
    std::vector<std::string> arguments;  // of this program, given to the ranks
    Environment environment;
    Scenario scenario;
    std::vector<Plan> plans;
    MeasureOptions options;
    std::string configuration;     // what must be the same on all ranks
    std::optional<StepRun> steps;  // none: the MoE layers alone
    std::optional<Bytes> memory;   // per rank; none: its share of 85 % of the GPU
    // On rank 0: after each plan, and when all ranks have done all plans.
    std::function<void(const Measurement&)> report;
    std::function<void(const std::vector<Timeline>&)> finish;
    std::function<void(const std::vector<StepMeasurement>&)> finish_steps;
};

// Exit code. InputError for what cannot be run at all.
int run_on_devices(const DeviceRun& run);
int run_over_network(const DeviceRun& run);  // with an identity

}  // namespace headway::runtime
