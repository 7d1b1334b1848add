// What differs from step to step, on the device before the first of them begins: the tokens that a
// step reads, which rows hold the same token, and the factors of its AdamW. A step reads them from
// one place, whatever its number, so that a graph of it can be replayed.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/adamw/adamw.hpp"
#include "runtime/cuda/device_arena.hpp"
#include "runtime/cuda/step/step_kernels.hpp"
#include "runtime/step/step_tokens.hpp"

namespace headway::runtime {

struct StepBatch {
    const std::int32_t *input = nullptr, *target = nullptr;  // [T]
    TokenRuns runs;
};

class StepInputs {
  public:
    // As much memory on all ranks.
    StepInputs(DeviceArena& arena, const StepSetup& setup, const TokenSource& source, int rank,
               int num_steps);

    // What is enqueued behind it reads the inputs of this step.
    void load(int step, cudaStream_t stream) const;

    const StepBatch& of(int micro_batch) const {
        return batches_[static_cast<std::size_t>(micro_batch)];
    }
    const kernels::AdamWFactors* factors() const { return factors_; }

  private:
    std::int64_t words_;              // of 4 bytes, of a step
    std::int32_t *all_, *now_;        // [steps, words], [words]
    std::vector<StepBatch> batches_;  // [micro-batch] in now_
    const kernels::AdamWFactors* factors_;
};

}  // namespace headway::runtime
