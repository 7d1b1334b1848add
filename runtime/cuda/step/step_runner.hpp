// StepRunner: steps one after the other, each enqueued by the host, or replayed: the first is
// enqueued, which sets up what must not be captured, and all of a step, its exchanges and
// reductions inside, is one CUDA graph from then on. What differs from step to step is copied
// before a replay (StepInputs).
#pragma once

#include <deque>
#include <optional>
#include <vector>

#include "runtime/cuda/step/cuda_step.hpp"
#include "runtime/cuda/stream_graph.hpp"

namespace headway::runtime {

class StepRunner {
  public:
    StepRunner(DeviceContext& context, CudaStep& step, std::vector<Block> order, bool replays);
    StepRunner(const StepRunner&) = delete;
    StepRunner& operator=(const StepRunner&) = delete;

    void run(int step);
    // The same with an event at every phase. A replay is waited for, as the next one records its
    // events anew.
    void run_timed(int step);
    // Once the stream has been waited for: the phases of the steps that were timed.
    std::vector<std::vector<StepSample>> phases() const;

  private:
    struct Timed {
        PhaseClock clock{Timing::in_flow};
        BlockMarks marks;

        std::vector<StepSample> samples() const { return marks.join(clock.read()); }
    };
    void enqueue_timed(Timed& timed);

    DeviceContext& context_;
    CudaStep& step_;
    std::vector<Block> order_;
    bool replays_;
    std::deque<Timed> timed_;  // of replays: one, whose events are in the graph
    std::vector<std::vector<StepSample>> replayed_;
    std::optional<StreamGraph> graph_, timed_graph_;
};

}  // namespace headway::runtime
