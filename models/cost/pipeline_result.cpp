#include "models/cost/pipeline_result.hpp"

#include <cstddef>
#include <string>

namespace headway::inline cost {
namespace {

Pass pass_of(const PipelineItem& item) {
    return item.part == PipelinePart::forward ? Pass::forward : Pass::backward;
}

Span span_of(const PipelineWork& work, int rank, const PipelineItem& item,
             const PipelineSpan& time) {
    const bool weight = item.part == PipelinePart::backward_weight;
    const Seconds duration = time.end - time.start;
    return {.rank = rank,
            .layer = work.stages[static_cast<std::size_t>(item.stage)].first_layer,
            .micro_batch = item.micro_batch,
            .pass = pass_of(item),
            .phase = weight ? Phase::pipeline_weight : Phase::pipeline_stage,
            .begin = time.start,
            .duration = duration,
            .low = duration,
            .high = duration};
}

// Idle from `begin` on: first for a step of another rank, then for its message.
void add_idle(int rank, Pass pass, Seconds begin, Seconds waits, Seconds message,
              std::vector<Span>& spans) {
    const auto add = [&](Phase phase, Seconds time) {
        if (time > Seconds{})
            spans.push_back({.rank = rank,
                             .pass = pass,
                             .phase = phase,
                             .begin = begin,
                             .duration = time,
                             .low = time,
                             .high = time});
        begin += time;
    };
    add(Phase::pipeline_bubble, waits);
    add(Phase::pipeline_p2p, message);
}

}  // namespace

PlanPipeline pipeline_of(const PipelineWork& work, const PipelineTime& time) {
    PlanPipeline result{.schedule = std::string(name(work.schedule)),
                        .chunks = work.shape.chunks,
                        .micro_batches = work.shape.micro_batches,
                        .makespan = time.times.makespan,
                        .message = work.message,
                        .shown = time.shown,
                        .ranks = std::vector<PipelineRank>(time.order.steps.size())};
    for (const Price& hop : time.hops) {
        if (hop.time < result.hop || hop.bottleneck == Bottleneck::none) continue;
        result.hop = hop.time;
        result.path = std::string(name(hop.bottleneck));
    }
    for (int direction = 0; direction < time.order.directions; ++direction) {
        for (int i = 0; i < time.order.stages; ++i) {
            const PipelineStage& stage = work.stages[static_cast<std::size_t>(i)];
            const ChunkTime& chunk = time.chunks[static_cast<std::size_t>(i)];
            PipelineRank& rank =
                result.ranks[static_cast<std::size_t>(time.order.rank_of(direction, i))];
            rank.layers += stage.num_layers;
            rank.mtp_layers += stage.mtp_layers;
            rank.embedding = rank.embedding || stage.embedding;
            rank.head_and_loss = rank.head_and_loss || stage.head_and_loss;
            rank.forward += chunk.forward;
            rank.backward += chunk.backward;
        }
    }
    for (std::size_t r = 0; r < result.ranks.size(); ++r) {
        PipelineRank& rank = result.ranks[r];
        rank.busy = time.times.busy[r];
        rank.message_wait = time.times.message_wait[r];
        rank.bubble = time.times.bubble(r);
        rank.in_flight = peak_in_flight(time.order.steps[r], true, [](int, int) { return 1.0; });
    }
    return result;
}

void add_pipeline_spans(const PipelineWork& work, const PipelineTime& time,
                        std::vector<Span>& spans) {
    for (std::size_t r = 0; r < time.order.steps.size(); ++r) {
        const int rank = static_cast<int>(r);
        Seconds free;
        for (std::size_t i = 0; i < time.order.steps[r].size(); ++i) {
            const PipelineStep& step = time.order.steps[r][i];
            const PipelineSpan& span = time.times.spans[r][i];
            add_idle(rank, pass_of(step.item), free, span.start - span.message_wait - free,
                     span.message_wait, spans);
            spans.push_back(span_of(work, rank, step.item, span));
            if (step.beside) spans.push_back(span_of(work, rank, *step.beside, span));
            free = span.end;
        }
        add_idle(rank, Pass::update, free, time.times.makespan - free, Seconds{}, spans);
    }
}

}  // namespace headway::inline cost
