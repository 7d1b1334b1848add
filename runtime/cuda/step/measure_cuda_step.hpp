// measure_steps_on_device: whole training steps of a plan on this rank's GPU, with its peers,
// free-running: the host of every rank enqueues step after step and meets no other; EP's waits for
// its counts, as in a job. Or, as the plan's cuda_graph_scope has it, the host launches one graph a
// step. First steps that are timed as wholes, by one event between two of them, then steps with
// events at every phase.
#pragma once

#include "runtime/cuda/phase_clock.hpp"
#include "runtime/layers/measure.hpp"
#include "runtime/step/measure_step.hpp"

namespace headway::runtime {

// Collective; the same on all ranks. `scenario` as scenario_to_run gives it. `reductions`: another
// communicator of the same ranks, null for one rank.
StepMeasurement measure_steps_on_device(DeviceContext& context, DeviceCommunicator* reductions,
                                        const Scenario& scenario, const Plan& plan,
                                        const StepRun& run, const MeasureOptions& options);

// Collective: one step here and on the CPU reference in fp64. The largest distance of every tensor
// of its gradient from the reference's over the ranks and layers, in norms of the reference's;
// text with a line for each, on all ranks. Throws std::runtime_error beyond bf16's tolerance.
std::string check_step_on_device(DeviceContext& context, DeviceCommunicator* reductions,
                                 const Scenario& scenario, const Plan& plan, const StepRun& run);

}  // namespace headway::runtime
