// The tokens of all steps of a run, on the device before the first of them begins: what a step
// reads, and which rows hold the same token.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/cuda/device_arena.hpp"
#include "runtime/cuda/step/step_kernels.hpp"
#include "runtime/step/step_tokens.hpp"

namespace headway::runtime {

struct StepBatch {
    const std::int32_t *input = nullptr, *target = nullptr;  // [T]
    TokenRuns runs;
};

class StepBatches {
  public:
    // As much memory on all ranks.
    StepBatches(DeviceArena& arena, const StepSetup& setup, const TokenSource& source, int rank,
                int num_steps);

    const StepBatch& of(int step, int micro_batch) const {
        return batches_[static_cast<std::size_t>(step * micro_batches_ + micro_batch)];
    }

  private:
    int micro_batches_;
    std::vector<StepBatch> batches_;
};

}  // namespace headway::runtime
