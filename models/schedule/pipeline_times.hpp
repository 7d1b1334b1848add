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
    Seconds message_wait;  // idle just before `start` while its message was on its way
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

// The ranks of an order as they run. A rank runs its list until an input is missing; whoever makes
// that input wakes it, so that no step is looked at more than twice.
template <class Duration, class Hop>
class PipelineRun {
  public:
    PipelineRun(const PipelineOrder& order, const Duration& duration, const Hop& hop)
        : order_(order),
          duration_(duration),
          hop_(hop),
          ends_(static_cast<std::size_t>(3 * order.directions * order.stages * order.micro_batches),
                kNever),
          free_(order.steps.size()),
          waits_for_(order.steps.size(), kNothing) {
        for (int direction = 0; direction < order.directions; ++direction)
            for (int stage = 0; stage < order.stages; ++stage)
                rank_of_.push_back(order.rank_of(direction, stage));
        const std::size_t p = order.steps.size();
        times_.spans.resize(p);
        times_.busy.resize(p);
        times_.message_wait.resize(p);
        for (std::size_t r = p; r-- > 0;) {
            times_.spans[r].reserve(order.steps[r].size());
            ready_.push_back(static_cast<int>(r));
        }
    }

    PipelineTimes run() {
        while (!ready_.empty()) {
            const int rank = ready_.back();
            ready_.pop_back();
            run_rank(rank);
        }
        for (std::size_t r = 0; r < order_.steps.size(); ++r)
            if (times_.spans[r].size() < order_.steps[r].size())
                throw std::logic_error("a pipeline order waits for itself");
        return std::move(times_);
    }

  private:
    static constexpr Seconds kNever = -1.0 * second;
    static constexpr std::size_t kNothing = static_cast<std::size_t>(-1);

    struct Inputs {
        Seconds made, arrived;  // the last of them: when its maker ended, and with its message
        std::size_t missing = kNothing;
    };

    int rank_of(int direction, int stage) const {
        return rank_of_[static_cast<std::size_t>(direction * order_.stages + stage)];
    }
    // The index of an item, by part; a full backward counts as input gradient.
    std::size_t index(PipelinePart part, int direction, int stage, int micro_batch) const {
        const int kind = part == PipelinePart::forward           ? 0
                         : part == PipelinePart::backward_weight ? 2
                                                                 : 1;
        return static_cast<std::size_t>(
            ((kind * order_.directions + direction) * order_.stages + stage) *
                order_.micro_batches +
            micro_batch);
    }

    void need(PipelinePart part, const PipelineItem& item, int stage, int rank, Inputs& in) const {
        const std::size_t at = index(part, item.direction, stage, item.micro_batch);
        const Seconds end = ends_[at];
        if (end < Seconds{}) {
            in.missing = at;
            return;
        }
        const int other = stage == item.stage ? rank : rank_of(item.direction, stage);
        in.made = std::max(in.made, end);
        in.arrived = std::max(
            in.arrived, other == rank ? end : end + hop_(other, rank, std::min(stage, item.stage)));
    }
    void add_inputs(const PipelineItem& item, int rank, Inputs& in) const {
        switch (item.part) {
            case PipelinePart::forward:
                if (item.stage > 0) need(PipelinePart::forward, item, item.stage - 1, rank, in);
                return;
            case PipelinePart::backward:
            case PipelinePart::backward_input:
                need(PipelinePart::forward, item, item.stage, rank, in);
                if (item.stage + 1 < order_.stages)
                    need(PipelinePart::backward_input, item, item.stage + 1, rank, in);
                return;
            case PipelinePart::backward_weight:
                need(PipelinePart::backward_input, item, item.stage, rank, in);
                return;
        }
    }

    void finish(const PipelineItem& item, Seconds end) {
        const std::size_t at = index(item.part, item.direction, item.stage, item.micro_batch);
        ends_[at] = end;
        const int next = item.part == PipelinePart::forward ? item.stage + 1 : item.stage - 1;
        if (next < 0 || next >= order_.stages) return;
        const auto other = static_cast<std::size_t>(rank_of(item.direction, next));
        if (waits_for_[other] != at) return;
        waits_for_[other] = kNothing;
        ready_.push_back(static_cast<int>(other));
    }

    void run_rank(int rank) {
        const auto r = static_cast<std::size_t>(rank);
        std::vector<PipelineSpan>& spans = times_.spans[r];
        while (spans.size() < order_.steps[r].size()) {
            const PipelineStep& step = order_.steps[r][spans.size()];
            Inputs in;
            add_inputs(step.item, rank, in);
            if (step.beside) add_inputs(*step.beside, rank, in);
            if (in.missing != kNothing) {
                waits_for_[r] = in.missing;
                return;
            }
            const Seconds start = std::max(free_[r], in.arrived);
            const Seconds wait = start - std::max(free_[r], std::min(in.made, start));
            const Seconds takes = duration_(rank, step), end = start + takes;
            times_.message_wait[r] += wait;
            times_.busy[r] += takes;
            times_.makespan = std::max(times_.makespan, end);
            spans.push_back({start, end, wait});
            free_[r] = end;
            finish(step.item, end);
            if (step.beside) finish(*step.beside, end);
        }
    }

    const PipelineOrder& order_;
    const Duration& duration_;
    const Hop& hop_;
    std::vector<int> rank_of_;  // [direction, stage]
    std::vector<Seconds> ends_;
    std::vector<Seconds> free_;           // [rank] end of its last step so far
    std::vector<std::size_t> waits_for_;  // [rank] the item that it misses
    std::vector<int> ready_;
    PipelineTimes times_;
};

}  // namespace detail

// duration(rank, step): of a PipelineStep; hop(from, to, stage): of a message between two pipeline
// ranks, from this stage to the next one or back.
// Throws std::logic_error when the order cannot end.
template <class Duration, class Hop>
PipelineTimes run_pipeline(const PipelineOrder& order, const Duration& duration, const Hop& hop) {
    return detail::PipelineRun(order, duration, hop).run();
}

}  // namespace headway::inline schedule
