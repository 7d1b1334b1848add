// Executes a pipeline order: every rank runs its list in order and waits for the inputs of the step
// at hand. A forward needs the forward of the stage before it; a backward the forward of its own
// stage and the backward of the stage after it; a weight gradient the input gradient of its stage.
// A message between ranks takes its hop time after the step that made it, beside compute.
#pragma once

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <vector>

#include "models/schedule/pipeline_order.hpp"
#include "models/vocab/units.hpp"

namespace headway::inline schedule {

struct PipelineSpan {
    Seconds start, end;
};

struct PipelineTimes {
    Seconds makespan;                              // from 0 to the end of the last step
    std::vector<std::vector<PipelineSpan>> spans;  // [rank][step of the order]
    std::vector<Seconds> busy;                     // [rank] sum of durations
    std::vector<Seconds> message_wait;             // [rank] idle while a message was on its way
    // What is left of the makespan: waiting for a step of another rank, before the first own step
    // and after the last one.
    Seconds bubble(std::size_t rank) const { return makespan - busy[rank] - message_wait[rank]; }
};

namespace detail {

// End times of items, by part (a full backward counts as input gradient), direction, stage and
// micro-batch.
class ItemEnds {
  public:
    explicit ItemEnds(const PipelineOrder& order)
        : order_(order),
          ends_(static_cast<std::size_t>(3 * order.directions * order.stages * order.micro_batches),
                kNever) {}

    Seconds& of(PipelinePart part, int direction, int stage, int micro_batch) {
        const int kind = part == PipelinePart::forward           ? 0
                         : part == PipelinePart::backward_weight ? 2
                                                                 : 1;
        return ends_[static_cast<std::size_t>(
            ((kind * order_.directions + direction) * order_.stages + stage) *
                order_.micro_batches +
            micro_batch)];
    }
    static bool known(Seconds end) { return end >= Seconds{}; }

  private:
    static constexpr Seconds kNever = -1.0 * second;

    const PipelineOrder& order_;
    std::vector<Seconds> ends_;
};

struct Inputs {
    bool known = true;
    Seconds made, arrived;  // the last of them: when its maker ended, and with its message

    void need(Seconds end, Seconds hop) {
        known = known && ItemEnds::known(end);
        made = max(made, end);
        arrived = std::max(arrived, end + hop);
    }
};

template <class Hop>
void add_inputs(const PipelineItem& item, int rank, const PipelineOrder& order, ItemEnds& ends,
                const Hop& hop, Inputs& inputs) {
    const auto [part, direction, stage, micro_batch] = item;
    const auto from = [&](PipelinePart made_by, int at) {
        const int other = order.rank_of(direction, at);
        inputs.need(ends.of(made_by, direction, at, micro_batch),
                    other == rank ? Seconds{} : hop(other, rank));
    };
    switch (part) {
        case PipelinePart::forward:
            if (stage > 0) from(PipelinePart::forward, stage - 1);
            return;
        case PipelinePart::backward:
        case PipelinePart::backward_input:
            from(PipelinePart::forward, stage);
            if (stage + 1 < order.stages) from(PipelinePart::backward_input, stage + 1);
            return;
        case PipelinePart::backward_weight:
            from(PipelinePart::backward_input, stage);
            return;
    }
}

}  // namespace detail

// duration(rank, step): of a PipelineStep; hop(from, to): of a message between two pipeline ranks.
// Throws std::logic_error when the order cannot end.
template <class Duration, class Hop>
PipelineTimes run_pipeline(const PipelineOrder& order, const Duration& duration, const Hop& hop) {
    const std::size_t p = order.steps.size();
    PipelineTimes times;
    times.spans.resize(p);
    times.busy.resize(p);
    times.message_wait.resize(p);
    std::size_t left = 0;
    for (std::size_t rank = 0; rank < p; ++rank) {
        times.spans[rank].reserve(order.steps[rank].size());
        left += order.steps[rank].size();
    }
    detail::ItemEnds ends(order);
    std::vector<Seconds> free(p);
    while (left > 0) {
        const std::size_t before = left;
        for (std::size_t rank = 0; rank < p; ++rank) {
            while (times.spans[rank].size() < order.steps[rank].size()) {
                const PipelineStep& step = order.steps[rank][times.spans[rank].size()];
                const int r = static_cast<int>(rank);
                detail::Inputs inputs;
                detail::add_inputs(step.item, r, order, ends, hop, inputs);
                if (step.beside) detail::add_inputs(*step.beside, r, order, ends, hop, inputs);
                if (!inputs.known) break;
                const Seconds start = std::max(free[rank], inputs.arrived);
                const Seconds takes = duration(r, step), end = start + takes;
                times.message_wait[rank] +=
                    start - std::max(free[rank], std::min(inputs.made, start));
                times.busy[rank] += takes;
                times.makespan = std::max(times.makespan, end);
                times.spans[rank].push_back({start, end});
                free[rank] = end;
                for (const PipelineItem* item : {&step.item, step.beside ? &*step.beside : nullptr})
                    if (item != nullptr)
                        ends.of(item->part, item->direction, item->stage, item->micro_batch) = end;
                --left;
            }
        }
        if (left == before) throw std::logic_error("a pipeline order waits for itself");
    }
    return times;
}

}  // namespace headway::inline schedule
