#include "models/cost/pipeline_pairs.hpp"

#include <algorithm>
#include <cstddef>
#include <span>

#include "models/workload/pair_order.hpp"

namespace headway::inline cost {
namespace {

// A phase, or a part of it, in a task.
struct Piece {
    const PhaseTime* of;
    Seconds time, launch;
    std::size_t task;
    bool again;  // weight gradients of a phase whose input gradients are a piece before it
};

std::span<const PhaseTime> phases_of(const Workload& workload, const StepTime& step,
                                     const PairPiece& piece) {
    const auto of_pass = [&](const LayerTime& time) -> std::span<const PhaseTime> {
        return (piece.pass == Pass::forward ? time.forward : time.backward).phases;
    };
    if (piece.kind == BlockKind::before) return of_pass(step.before);
    if (piece.kind == BlockKind::after) return of_pass(step.after);
    const int entry = workload.entry_of_layer[static_cast<std::size_t>(piece.layer)];
    return of_pass(step.layers[static_cast<std::size_t>(entry)])
        .subspan(static_cast<std::size_t>(piece.begin),
                 static_cast<std::size_t>(piece.end - piece.begin));
}

std::vector<Piece> pieces_of(const Workload& workload, const StepTime& step,
                             const std::vector<PairTask>& tasks, const PriceBook& book) {
    std::vector<Piece> pieces;
    for (std::size_t task = 0; task < tasks.size(); ++task) {
        for (const PairPiece& piece : tasks[task].pieces) {
            const bool weight = piece.part == GradientPart::weight;
            for (const PhaseTime& t : phases_of(workload, step, piece)) {
                const double weights =
                    piece.part == GradientPart::all ? 0.0 : book.weight_gradient_share(*t.work);
                const double share = weight ? weights : 1.0 - weights;
                if (share > 0.0)
                    pieces.push_back({.of = &t,
                                      .time = share * (t.time - t.host),
                                      .launch = share * t.launch,
                                      .task = task,
                                      .again = weight});
            }
        }
    }
    return pieces;
}

}  // namespace

PairTime time_pair(const Workload& workload, const StepTime& step, const PipelineStage& forward,
                   const PipelineStage& backward, const Overlap& overlap, const PriceBook& book) {
    const std::vector<PairTask> order = pair_tasks(workload, forward, backward);
    const std::vector<Piece> pieces = pieces_of(workload, step, order, book);
    std::vector<TimedTask> tasks;
    for (const PairTask& task : order) tasks.push_back({task.stream, Seconds{}, task.after});
    for (const Piece& piece : pieces) {
        tasks[piece.task].time += piece.time;
        tasks[piece.task].launch += piece.launch;
        tasks[piece.task].host_waits |= piece.of->work->host_waits;
    }
    const StreamsRun run = run_in_row(tasks, overlap, {}, workload.num_micro_batches);
    PairTime pair{.time = run.end, .phases = {}};
    for (const Piece& piece : pieces) {
        const TimedTask& task = tasks[piece.task];
        const double share = task.time > Seconds{} ? piece.time / task.time : 0.0;
        const Seconds exposed = share * run.exposed[piece.task];
        if (!piece.again) {
            pair.phases.push_back(*piece.of);
            pair.phases.back().time = pair.phases.back().host = {};
        }
        // Weight gradients belong to the phase that ran last with these kernels.
        PhaseTime& phase =
            *std::find_if(pair.phases.rbegin(), pair.phases.rend(),
                          [&](const PhaseTime& t) { return t.work == piece.of->work; });
        phase.time += exposed;
        phase.host += share * run.host[piece.task];
        if (task.stream != Stream::compute) phase.hidden += max(Seconds{}, piece.time - exposed);
    }
    return pair;
}

}  // namespace headway::inline cost
