// The order of a step as it runs: that of the Workload (step_blocks), which predictions and
// simulations execute too. A `Step` has begin_block(Block), before(Pass), layer(int, Pass),
// after(), bucket(int) and update(); after() is the head and the loss, forward and backward, chunk
// by chunk.
#pragma once

#include <cstddef>
#include <vector>

#include "models/workload/schedule.hpp"
#include "runtime/rank_context.hpp"

namespace headway::runtime {

template <class Step>
void run_step(Step& step, const std::vector<Block>& order) {
    for (const Block& block : order) {
        step.begin_block(block);
        switch (block.kind) {
            case BlockKind::before:
                step.before(block.pass);
                break;
            case BlockKind::layer:
                step.layer(block.layer, block.pass);
                break;
            case BlockKind::after:
                if (block.pass == Pass::forward) step.after();
                break;
            case BlockKind::bucket:
                step.bucket(block.layer);
                break;
            case BlockKind::update:
                step.update();
                break;
        }
    }
}

// A phase of a step, and the layer and micro-batch that it is of; -1: outside the layers.
struct StepSample {
    int layer = -1, micro_batch = 0;
    PhaseSample phase;
};

// Which of the phases of a step lie in which block.
class BlockMarks {
  public:
    void clear() { marks_.clear(); }
    // From the phase with this number on.
    void begin(const Block& block, std::size_t phase) {
        marks_.push_back(
            {phase, block.kind == BlockKind::layer ? block.layer : -1, block.micro_batch});
    }
    std::vector<StepSample> join(const std::vector<PhaseSample>& phases) const {
        std::vector<StepSample> samples;
        std::size_t mark = 0;
        for (std::size_t i = 0; i < phases.size(); ++i) {
            while (mark + 1 < marks_.size() && marks_[mark + 1].phase <= i) ++mark;
            samples.push_back({marks_.at(mark).layer, marks_[mark].micro_batch, phases[i]});
        }
        return samples;
    }

  private:
    struct Mark {
        std::size_t phase;  // the first
        int layer, micro_batch;
    };
    std::vector<Mark> marks_;
};

}  // namespace headway::runtime
