#include "runtime/cuda/step/step_runner.hpp"

#include <utility>

namespace headway::runtime {

StepRunner::StepRunner(DeviceContext& context, CudaStep& step, std::vector<Block> order,
                       bool replays)
    : context_(context), step_(step), order_(std::move(order)), replays_(replays) {}

void StepRunner::run(int step) {
    step_.start(step);
    if (!replays_ || step == 0) {
        step_.run(order_);
    } else {
        if (!graph_) graph_.emplace(context_.stream, [this] { step_.run(order_); });
        graph_->replay(context_.stream);
    }
    step_.finish();
}

void StepRunner::run_timed(int step) {
    step_.start(step);
    if (!replays_) {
        enqueue_timed(timed_.emplace_back());
        return step_.finish();
    }
    if (!timed_graph_) {
        Timed& timed = timed_.emplace_back();
        timed.clock.set_captured();
        timed_graph_.emplace(context_.stream, [&] { enqueue_timed(timed); });
    }
    timed_graph_->replay(context_.stream);
    step_.finish();
    context_.communicator.wait(context_.stream);
    replayed_.push_back(timed_.front().samples());
}

void StepRunner::enqueue_timed(Timed& timed) {
    context_.clock = &timed.clock;
    context_.communicator.meet(context_.stream);  // all ranks' begin times count from here
    timed.clock.start(context_.stream);
    step_.run(order_);
    timed.marks = step_.marks();
    context_.clock = nullptr;
}

std::vector<std::vector<StepSample>> StepRunner::phases() const {
    if (replays_) return replayed_;
    std::vector<std::vector<StepSample>> phases;
    for (const Timed& timed : timed_) phases.push_back(timed.samples());
    return phases;
}

}  // namespace headway::runtime
