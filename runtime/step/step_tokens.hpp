// The tokens of a micro-batch: for every position the token and the one that follows it. Sequences
// are numbered over all micro-batches and ranks, so that any number of either reads the same.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/step/step_setup.hpp"

namespace headway::runtime {

struct StepTokens {
    std::vector<std::int32_t> input, target;  // [T]
};

class TokenSource {
  public:
    // Bytes of the file `data`, or drawn tokens. InputError for a file that cannot be read or is
    // shorter than a sequence.
    TokenSource(const StepSetup& setup, const std::string& data);

    StepTokens of(std::int64_t step, int micro_batch, int rank) const;
    // Every micro-batch of a step.
    std::vector<StepTokens> of(std::int64_t step, int rank) const;

  private:
    int length_, sequences_, micro_batches_, ranks_, vocabulary_;
    std::string bytes_;
};

}  // namespace headway::runtime
