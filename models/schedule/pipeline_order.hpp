// Orders of a pipelined training step: which part of which micro-batch a pipeline rank runs next.
// An order is a list, written once, and executed (pipeline_times.hpp); makespans, bubbles and the
// micro-batches in flight follow from the list, never from a formula.
//
// p pipeline ranks, v chunks of layers (virtual stages) on each, m micro-batches of a pipeline.
// Stages are numbered along the forward pass.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "models/vocab/parallel.hpp"

namespace headway::inline schedule {

// backward: input and weight gradients in one; the zero-bubble orders run them apart.
enum class PipelinePart { forward, backward, backward_input, backward_weight };

struct PipelineItem {
    PipelinePart part = PipelinePart::forward;
    int direction = 0;  // 1: the second pipeline of DualPipe, whose stage 0 lies on the last rank
    int stage = 0;
    int micro_batch = 0;  // of its direction

    friend bool operator==(const PipelineItem&, const PipelineItem&) = default;
};

// What a rank runs as one: one item, or a forward together with a backward.
struct PipelineStep {
    PipelineItem item;
    std::optional<PipelineItem> beside;
};

struct PipelineShape {
    int ranks = 1;          // p
    int chunks = 1;         // v, of one rank
    int micro_batches = 1;  // m; DualPipe divides them over its two directions
    // Interleaved orders: micro-batches that a chunk runs before the next chunk has its turn
    // (Megatron: microbatch_group_size_per_vp_stage). 0: p.
    int group = 0;
};

struct PipelineOrder {
    int ranks = 1;
    int stages = 1;                                // of one direction
    int directions = 1;                            // 2: DualPipe
    int micro_batches = 1;                         // of one direction
    bool v_shaped = false;                         // stage s and stage 2p-1-s share a rank
    std::vector<std::vector<PipelineStep>> steps;  // [rank]

    int rank_of(int direction, int stage) const {
        const int along = v_shaped && stage >= ranks ? 2 * ranks - 1 - stage : stage % ranks;
        return direction == 0 ? along : ranks - 1 - along;
    }
};

// Why this schedule has no order of that shape, and the nearest legal value; empty: it has one.
std::string pipeline_rule_broken(PipelineSchedule schedule, const PipelineShape& shape);

// The first forward of each stage that a rank holds, in the order of its list.
struct FirstForward {
    std::size_t step = 0;
    int stage = 0;
};
std::vector<FirstForward> first_forwards(const std::vector<PipelineStep>& steps);

// Whether some steps of it are a forward beside a backward.
bool has_pairs(PipelineSchedule schedule);

// Where stages lie: an order without its steps.
PipelineOrder pipeline_places(PipelineSchedule schedule, const PipelineShape& shape);

// The order; pipeline_rule_broken(schedule, shape) must be empty.
PipelineOrder pipeline_order(PipelineSchedule schedule, const PipelineShape& shape);

// The most that a rank holds for backward at any moment: the sum of weight(direction, stage) over
// the micro-batches whose forward has begun and whose backward has not ended, and how many of each
// stage they are then. Weight gradients that run apart keep what they need until they end, when
// `until_weight`; else input gradients release all.
struct InFlight {
    struct Chunk {
        int direction = 0, stage = 0;
        int micro_batches = 0;
    };
    double weight = 0.0;
    std::vector<Chunk> chunks;
};

// Calls change(item, +1 or -1) for what a rank's list holds and releases, and done() after each
// half of a step: before it runs, when its forwards are held, and after.
template <class Change, class Done>
void walk_in_flight(const std::vector<PipelineStep>& steps, bool until_weight, const Change& change,
                    const Done& done) {
    const auto released =
        until_weight ? PipelinePart::backward_weight : PipelinePart::backward_input;
    const auto visit = [&](const PipelineItem& item, bool enters) {
        const bool releases = item.part == PipelinePart::backward || item.part == released;
        if (enters && item.part == PipelinePart::forward) change(item, 1);
        if (!enters && releases) change(item, -1);
    };
    for (const PipelineStep& step : steps) {
        for (const bool enters : {true, false}) {
            visit(step.item, enters);
            if (step.beside) visit(*step.beside, enters);
            done();
        }
    }
}

template <class Weight>
InFlight most_in_flight(const std::vector<PipelineStep>& steps, bool until_weight,
                        const Weight& weight) {
    InFlight most, now;
    const auto add = [&](const PipelineItem& item, int change) {
        now.weight += change * weight(item.direction, item.stage);
        for (InFlight::Chunk& chunk : now.chunks) {
            if (chunk.direction != item.direction || chunk.stage != item.stage) continue;
            chunk.micro_batches += change;
            return;
        }
        now.chunks.push_back({item.direction, item.stage, change});
    };
    walk_in_flight(steps, until_weight, add, [&] {
        if (now.weight > most.weight) most = now;
    });
    return most;
}

template <class Weight>
double peak_in_flight(const std::vector<PipelineStep>& steps, bool until_weight,
                      const Weight& weight) {
    double most = 0.0, now = 0.0;
    walk_in_flight(
        steps, until_weight,
        [&](const PipelineItem& item, int change) {
            now += change * weight(item.direction, item.stage);
        },
        [&] { most = std::max(most, now); });
    return most;
}

}  // namespace headway::inline schedule
