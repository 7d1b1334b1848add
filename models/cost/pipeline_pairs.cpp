#include "models/cost/pipeline_pairs.hpp"

#include <algorithm>
#include <span>

#include "models/vocab/error.hpp"

namespace headway::inline cost {
namespace {

bool is_outer_exchange(Phase phase, bool heads) {
    return heads ? phase == Phase::head_scatter || phase == Phase::head_gather
                 : phase == Phase::dispatch || phase == Phase::combine;
}

// The parts of a layer's pass; empty `in` and `out`: nothing is exchanged, `before` is all of it.
struct Parts {
    std::span<const PhaseTime> before, in, between, out, after;
};

Parts parts_of(const std::vector<PhaseTime>& phases) {
    const std::span all(phases);
    const bool heads = std::any_of(all.begin(), all.end(), [](const PhaseTime& t) {
        return t.work->phase == Phase::head_scatter;
    });
    std::vector<std::size_t> outer;
    for (std::size_t i = 0; i < all.size(); ++i)
        if (is_outer_exchange(all[i].work->phase, heads)) outer.push_back(i);
    if (outer.empty()) return {.before = all, .in = {}, .between = {}, .out = {}, .after = {}};
    if (outer.size() != 2)
        throw InputError({.where = "overlap_moe_expert_parallel_comm",
                          .found = "a backward that repeats its exchanges (full recomputation)",
                          .accepted = "other recomputation"});
    return {.before = all.first(outer[0]),
            .in = all.subspan(outer[0], 1),
            .between = all.subspan(outer[0] + 1, outer[1] - outer[0] - 1),
            .out = all.subspan(outer[1], 1),
            .after = all.subspan(outer[1] + 1)};
}

// Tasks of the two streams, each with the phases that it consists of.
class PairWriter {
  public:
    enum class Part { all, input, weight };

    PairWriter(const PriceBook& book, bool delay) : book_(book), delay_(delay) {}

    bool delays() const { return delay_; }
    void collect(std::span<const PhaseTime> phases, Part part = Part::all) {
        for (const PhaseTime& t : phases) {
            const double weights = part == Part::all ? 0.0 : book_.weight_gradient_share(*t.work);
            const double share = part == Part::weight ? weights : 1.0 - weights;
            if (share > 0.0)
                pieces_.push_back({&t, share * t.time, tasks_.size(), part == Part::weight});
        }
    }
    // What was collected, as one task; its index.
    int end_task(Stream stream, int after) {
        Seconds time;
        for (; closed_ < pieces_.size(); ++closed_) time += pieces_[closed_].time;
        tasks_.push_back({stream, time, after});
        return static_cast<int>(tasks_.size()) - 1;
    }

    PairTime run(double slowdown) const {
        const StreamsRun run = run_streams(tasks_, slowdown);
        PairTime pair{.time = run.end, .phases = {}};
        for (const Piece& piece : pieces_) {
            const TimedTask& task = tasks_[piece.task];
            const double share = task.time > Seconds{} ? piece.time / task.time : 0.0;
            const Seconds exposed = share * run.exposed[piece.task];
            PhaseTime& phase =
                piece.weight ? last_of(pair.phases, piece) : pair.phases.emplace_back(*piece.of);
            if (!piece.weight) phase.time = {};
            phase.time += exposed;
            if (task.stream != Stream::compute)
                phase.hidden += max(Seconds{}, piece.time - exposed);
        }
        return pair;
    }

  private:
    struct Piece {
        const PhaseTime* of;
        Seconds time;
        std::size_t task;
        bool weight;
    };

    // Weight gradients are a piece of their own of a phase that runs once.
    static PhaseTime& last_of(std::vector<PhaseTime>& phases, const Piece& piece) {
        return *std::find_if(phases.rbegin(), phases.rend(),
                             [&](const PhaseTime& t) { return t.work == piece.of->work; });
    }

    const PriceBook& book_;
    bool delay_;
    std::vector<Piece> pieces_;
    std::size_t closed_ = 0;
    std::vector<TimedTask> tasks_;
};

// The layers of one chunk as the writer passes over them.
class Chunk {
  public:
    Chunk(const Workload& workload, const StepTime& step, const PipelineStage& stage, Pass pass) {
        for (int i = 0; i < stage.num_layers; ++i) {
            const int at = pass == Pass::forward ? i : stage.num_layers - 1 - i;
            const auto entry = static_cast<std::size_t>(
                workload.entry_of_layer[static_cast<std::size_t>(stage.first_layer + at)]);
            const LayerTime& layer = step.layers[entry];
            layers_.push_back(
                parts_of(pass == Pass::forward ? layer.forward.phases : layer.backward.phases));
        }
    }
    std::size_t size() const { return layers_.size(); }
    bool has(std::size_t i) const { return i < layers_.size(); }
    const Parts& at(std::size_t i) const { return layers_[i]; }

  private:
    std::vector<Parts> layers_;
};

}  // namespace

PairTime time_pair(const Workload& workload, const StepTime& step, const PipelineStage& forward,
                   const PipelineStage& backward, double slowdown, const PriceBook& book) {
    using Part = PairWriter::Part;
    const Chunk f(workload, step, forward, Pass::forward),
        b(workload, step, backward, Pass::backward);
    PairWriter out(book, workload.pipeline->delay_wgrad);
    const Part inputs = out.delays() ? Part::input : Part::all;
    // What of the first layers comes before their exchanges, and what is around them.
    if (forward.embedding) out.collect(step.before.forward.phases);
    if (backward.head_and_loss) out.collect(step.after.backward.phases);
    if (b.has(0)) out.collect(b.at(0).before);
    int last_b = out.end_task(Stream::compute, -1), last_f = last_b;
    for (std::size_t i = 0; i < std::max(f.size(), b.size()); ++i) {
        const Parts back = b.has(i) ? b.at(i) : Parts{}, ahead = f.has(i) ? f.at(i) : Parts{};
        if (!back.in.empty()) {
            out.collect(back.in);
            last_b = out.end_task(Stream::communication, last_b);
        }
        if (f.has(i)) {
            if (i > 0) out.collect(f.at(i - 1).after);
            out.collect(ahead.before);
            last_f = out.end_task(Stream::compute, last_f);
        }
        if (!back.in.empty()) {
            out.collect(back.between, inputs);
            last_b = out.end_task(Stream::compute, last_b);
        }
        if (!ahead.in.empty()) {
            out.collect(ahead.in);
            last_f = out.end_task(Stream::communication, last_f);
        }
        if (!back.in.empty()) {
            out.collect(back.out);
            const int sent = out.end_task(Stream::communication, last_b);
            if (out.delays()) {
                out.collect(back.between, Part::weight);
                out.end_task(Stream::compute, -1);
            }
            last_b = sent;
        }
        if (!ahead.in.empty()) {
            out.collect(ahead.between);
            last_f = out.end_task(Stream::compute, last_f);
            out.collect(ahead.out);
            last_f = out.end_task(Stream::communication, last_f);
        }
        if (b.has(i)) {
            out.collect(back.after, inputs);
            if (b.has(i + 1)) out.collect(b.at(i + 1).before);
            last_b = out.end_task(Stream::compute, last_b);
            if (out.delays()) {
                out.collect(back.after, Part::weight);
                out.end_task(Stream::compute, -1);
            }
        }
    }
    if (f.size() > 0) out.collect(f.at(f.size() - 1).after);
    if (forward.head_and_loss) out.collect(step.after.forward.phases);
    out.end_task(Stream::compute, last_f);
    if (backward.embedding) out.collect(step.before.backward.phases);
    out.end_task(Stream::compute, last_b);
    return out.run(slowdown);
}

}  // namespace headway::inline cost
