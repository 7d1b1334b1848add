#include "models/cost/pipeline_step.hpp"

#include <algorithm>
#include <map>
#include <span>
#include <utility>

#include "models/cost/pipeline_pairs.hpp"
#include "models/cost/reductions.hpp"

namespace headway::inline cost {
namespace {

using Part = PipelinePart;

std::size_t at(int i) {
    return static_cast<std::size_t>(i);
}

// The durations of an order's steps, from passes that are priced.
class Chunks {
  public:
    Chunks(const Workload& workload, const StepTime& step, const Overlap& overlap,
           const PriceBook& book)
        : workload_(workload), step_(step), overlap_(overlap), book_(book) {
        for (const LayerTime& layer : step.layers)
            layer_weights_.push_back(weight_of(layer.backward));
        for (const PipelineStage& stage : workload.pipeline->stages) {
            chunks_.push_back(chunk_time(stage));
            kinds_.push_back(kind_of(stage));
        }
    }

    const std::vector<ChunkTime>& times() const { return chunks_; }

    Seconds of(const PipelineStep& step) {
        if (step.beside) return pair(step.item.stage, step.beside->stage).time;
        const ChunkTime& chunk = chunks_[at(step.item.stage)];
        switch (step.item.part) {
            case Part::forward:
                return chunk.forward;
            case Part::backward:
                return chunk.backward;
            case Part::backward_input:
                return chunk.backward - chunk.weight;
            case Part::backward_weight:
                return chunk.weight;
        }
        return {};
    }

    const PairTime& pair(int forward, int backward) {
        const std::pair key{kinds_[at(forward)], kinds_[at(backward)]};
        const auto found = pairs_.find(key);
        if (found != pairs_.end()) return found->second;
        const auto& stages = workload_.pipeline->stages;
        return pairs_[key] = time_pair(workload_, step_, stages[at(forward)], stages[at(backward)],
                                       overlap_, book_);
    }

  private:
    ChunkTime chunk_time(const PipelineStage& stage) const {
        ChunkTime chunk;
        const auto add = [&](const LayerTime& time, Seconds weight) {
            chunk.forward += time.forward.total;
            chunk.backward += time.backward.total;
            chunk.weight += weight;
        };
        if (stage.embedding) add(step_.before, weight_of(step_.before.backward));
        for (int i = 0; i < stage.num_layers; ++i) {
            const auto entry = at(workload_.entry_of_layer[at(stage.first_layer + i)]);
            add(step_.layers[entry], layer_weights_[entry]);
        }
        if (stage.head_and_loss) add(step_.after, weight_of(step_.after.backward));
        return chunk;
    }
    Seconds weight_of(const PassTime& pass) const {
        Seconds weight;
        for (const PhaseTime& t : pass.phases)
            weight += book_.weight_gradient_share(*t.work) * t.time;
        return weight;
    }
    // Stages with the same layers are of one kind.
    int kind_of(const PipelineStage& stage) {
        std::vector<int> content{stage.embedding ? 1 : 0, stage.head_and_loss ? 1 : 0};
        for (int i = 0; i < stage.num_layers; ++i)
            content.push_back(workload_.entry_of_layer[at(stage.first_layer + i)]);
        return kind_of_content_.emplace(std::move(content), static_cast<int>(kinds_.size()))
            .first->second;
    }

    const Workload& workload_;
    const StepTime& step_;
    Overlap overlap_;
    const PriceBook& book_;
    std::vector<Seconds> layer_weights_;  // [entry of the layers]
    std::vector<ChunkTime> chunks_;
    std::vector<int> kinds_;  // [stage]
    std::map<std::vector<int>, int> kind_of_content_;
    std::map<std::pair<int, int>, PairTime> pairs_;
};

int hop_of(int from, int to, int ranks) {
    return to == (from + 1) % ranks ? from : to;
}

std::vector<Price> price_hops(const PipelineWork& work, Bytes message, PriceBook& book,
                              double weight) {
    std::vector<Price> hops;
    for (const PathClass path : work.paths) hops.push_back(book.message(path, message, weight));
    return hops;
}

template <class Duration>
PipelineTimes execute(const PipelineTime& pipeline, const Duration& of_step) {
    const int ranks = pipeline.order.ranks;
    return run_pipeline(pipeline.order, of_step, [&](int from, int to, int stage) {
        return pipeline.hop(stage)[at(hop_of(from, to, ranks))].time;
    });
}

PipelineTime run_order(const PipelineWork& work, Chunks& chunks, PriceBook& book) {
    PipelineTime result{.order = pipeline_order(work.schedule, work.shape),
                        .times = {},
                        .chunks = chunks.times(),
                        .hops = price_hops(work, work.message, book, 0.0)};
    for (int i = 0; i + 1 < result.order.stages; ++i)
        if (work.rows[at(i)] > 1)
            result.wide_hops[i] = price_hops(work, work.message_behind(i), book, 0.0);
    result.times = execute(result, [&](int, const PipelineStep& step) { return chunks.of(step); });
    const std::vector<Seconds>& busy = result.times.busy;
    result.shown =
        static_cast<std::size_t>(std::max_element(busy.begin(), busy.end()) - busy.begin());
    return result;
}

// How often the shown rank runs each entry of the layers in a step; every error in its phases is
// one in the bubble too, as all ranks run at the same prices.
PassWeights weights_of(const Workload& workload, const PipelineTime& pipeline) {
    const double micro = pipeline.order.micro_batches,
                 stretch = pipeline.times.makespan / pipeline.times.busy[pipeline.shown];
    PassWeights weights{.layers = std::vector<double>(workload.layers.size())};
    for (int direction = 0; direction < pipeline.order.directions; ++direction) {
        for (int i = 0; i < pipeline.order.stages; ++i) {
            if (at(pipeline.order.rank_of(direction, i)) != pipeline.shown) continue;
            const PipelineStage& stage = workload.pipeline->stages[at(i)];
            weights.before += stage.embedding ? micro * stretch : 0.0;
            weights.after += stage.head_and_loss ? micro * stretch : 0.0;
            for (int k = 0; k < stage.num_layers; ++k)
                weights.layers[at(workload.entry_of_layer[at(stage.first_layer + k)])] +=
                    micro * stretch;
        }
    }
    return weights;
}

// `count` passes of a stage outside of pairs.
void accumulate_stage(const Workload& workload, const PipelineStage& stage, Pass pass, int count,
                      StepTime& step) {
    if (count == 0) return;
    const auto add = [&](const LayerTime& time) {
        accumulate(step, (pass == Pass::forward ? time.forward : time.backward).phases, count);
    };
    if (stage.embedding) add(step.before);
    for (int i = 0; i < stage.num_layers; ++i)
        add(step.layers[at(workload.entry_of_layer[at(stage.first_layer + i)])]);
    if (stage.head_and_loss) add(step.after);
}

// All that the shown rank computes and exchanges. Input and weight gradients that run apart are one
// backward.
void accumulate_rank(const Workload& workload, Chunks& chunks, StepTime& step) {
    const PipelineTime& pipeline = *step.pipeline;
    const std::vector<PipelineStage>& stages = workload.pipeline->stages;
    const std::size_t n = stages.size();
    std::vector<int> forward(n), backward(n), pairs(n * n);  // [stage], [of forward, of backward]
    for (const PipelineStep& s : pipeline.order.steps[pipeline.shown]) {
        const std::size_t stage = at(s.item.stage);
        if (s.beside)
            ++pairs[stage * n + at(s.beside->stage)];
        else if (s.item.part != Part::backward_weight)
            ++(s.item.part == Part::forward ? forward : backward)[stage];
    }
    for (std::size_t i = 0; i < n; ++i) {
        accumulate_stage(workload, stages[i], Pass::forward, forward[i], step);
        accumulate_stage(workload, stages[i], Pass::backward, backward[i], step);
    }
    for (std::size_t i = 0; i < pairs.size(); ++i) {
        if (pairs[i] == 0) continue;
        const PairTime& pair = chunks.pair(static_cast<int>(i / n), static_cast<int>(i % n));
        accumulate(step, pair.phases, pairs[i]);
    }
}

void add_idle(StepTime& step, Phase phase, Pass pass, Seconds time) {
    PhaseTotal& total =
        step.phases[static_cast<std::size_t>(phase)][static_cast<std::size_t>(pass)];
    total.time += time;
    step.total += time;
}

// What the shown rank waits for, by the pass that it waits to begin; after its last step it waits
// for the others before it updates.
void accumulate_waits(const Workload& workload, StepTime& step) {
    const PipelineTime& pipeline = *step.pipeline;
    const std::vector<PipelineStep>& steps = pipeline.order.steps[pipeline.shown];
    const std::vector<PipelineSpan>& spans = pipeline.times.spans[pipeline.shown];
    const int rank = static_cast<int>(pipeline.shown), ranks = pipeline.order.ranks;
    Seconds free;
    for (std::size_t i = 0; i < steps.size(); ++i) {
        const PipelineSpan& span = spans[i];
        const Pass pass = steps[i].item.part == Part::forward ? Pass::forward : Pass::backward;
        add_idle(step, Phase::pipeline_p2p, pass, span.message_wait);
        add_idle(step, Phase::pipeline_bubble, pass, span.start - free - span.message_wait);
        free = span.end;
        const auto receive = [&](const PipelineItem& item) {
            const bool forward = item.part == Part::forward;
            const int stage = item.stage + (forward ? -1 : 1);
            if (stage < 0 || stage >= pipeline.order.stages || item.part == Part::backward_weight)
                return;
            const int from = pipeline.order.rank_of(item.direction, stage);
            if (from == rank) return;
            const int behind = std::min(stage, item.stage);
            const Price& hop = pipeline.hop(behind)[at(hop_of(from, rank, ranks))];
            PhaseTotal& total =
                step.phases[static_cast<std::size_t>(Phase::pipeline_p2p)]
                           [static_cast<std::size_t>(forward ? Pass::forward : Pass::backward)];
            ++total.count;
            total.hidden += hop.time;
            total.sigma += hop.sigma;
            total.bytes += workload.pipeline->message_behind(behind);
            total.bottleneck = hop.bottleneck;
        };
        receive(steps[i].item);
        if (steps[i].beside) receive(*steps[i].beside);
    }
    add_idle(step, Phase::pipeline_bubble, Pass::update, pipeline.times.makespan - free);
    double sigma = 0.0;
    for (const auto& phase : step.phases)
        for (const PhaseTotal& total : phase) sigma += total.sigma;
    for (const Pass pass : {Pass::forward, Pass::backward, Pass::update}) {
        PhaseTotal& bubble = step.phases[static_cast<std::size_t>(Phase::pipeline_bubble)]
                                        [static_cast<std::size_t>(pass)];
        bubble.count = ranks > 1 ? 1 : 0;
        // All ranks run at the same prices: as far off as what the rank is busy with.
        bubble.sigma = sigma * (bubble.time / pipeline.times.busy[pipeline.shown]);
        PhaseTotal& p2p = step.phases[static_cast<std::size_t>(Phase::pipeline_p2p)]
                                     [static_cast<std::size_t>(pass)];
        const double shown = p2p.hidden > Seconds{} ? std::min(1.0, p2p.time / p2p.hidden) : 0.0;
        p2p.hidden = max(Seconds{}, p2p.hidden - p2p.time);
        p2p.sigma *= shown;
    }
}

// The end of a rank's list, from the first step on that makes the gradients of a stage whole.
struct EndOfRank {
    std::size_t first = 0;
    std::vector<std::vector<int>> whole;  // [step - first] those stages
};

EndOfRank end_of_rank(const PipelineOrder& order, std::size_t rank) {
    const std::vector<PipelineStep>& steps = order.steps[rank];
    const std::size_t held = at(order.stages * order.directions / order.ranks);
    std::vector<std::pair<int, int>> seen;  // (direction, stage)
    EndOfRank end{.first = steps.size(), .whole = {}};
    while (end.first > 0 && seen.size() < held) {
        const PipelineStep& step = steps[--end.first];
        std::vector<int>& whole = end.whole.emplace_back();
        const auto look = [&](const PipelineItem& item) {
            const std::pair key{item.direction, item.stage};
            if (item.part == Part::forward ||
                std::find(seen.begin(), seen.end(), key) != seen.end())
                return;
            seen.push_back(key);
            whole.push_back(item.stage);
        };
        look(step.item);
        if (step.beside) look(*step.beside);
    }
    std::reverse(end.whole.begin(), end.whole.end());
    return end;
}

// A rank's reductions with what of them shows: how much they add to the end of its step, beside
// which all ranks wait for the last.
std::vector<PhaseTime> reductions_of_rank(const RankWork& work, const Overlap& overlap,
                                          const StepTime& step, Chunks& chunks, std::size_t rank,
                                          PriceBook& book) {
    const PipelineWork &pipeline = *work.busiest.pipeline, &mean = *work.mean.pipeline;
    const std::vector<PipelineStep>& steps = step.pipeline->order.steps[rank];
    const std::vector<PipelineSpan>& spans = step.pipeline->times.spans[rank];
    std::vector<PhaseTime> phases;
    const auto price = [&](const auto& reductions, const auto& usual) {
        const std::size_t first = phases.size();
        for (const PhaseTime& t : price_update(reductions, usual, work.speeds, book))
            phases.push_back(t);
        return first;
    };
    StepPart end;
    const EndOfRank last = end_of_rank(step.pipeline->order, rank);
    for (std::size_t i = last.first; i < steps.size(); ++i) {
        const std::vector<int>& whole = last.whole[i - last.first];
        const bool begun = i > last.first;
        if (begun) end.wait(max(Seconds{}, spans[i].start - spans[i - 1].end));
        // The backward that ends the step of the first rank hides its own buckets.
        const bool in_buckets = i + 1 == steps.size() && whole == std::vector{0} &&
                                steps[i].item.part == Part::backward && !steps[i].beside;
        if (begun && !in_buckets) end.compute(chunks.of(steps[i]));
        for (const int stage : whole) {
            const std::size_t first =
                price(pipeline.reductions[at(stage)], mean.reductions[at(stage)]);
            if (in_buckets) {
                end.backward(work.busiest, step, pipeline.stages[at(stage)],
                             std::span(phases).subspan(first), first);
                continue;
            }
            for (std::size_t k = first; k < phases.size(); ++k) end.reduce(phases[k].time, k);
        }
    }
    for (std::size_t k = price(pipeline.late_reductions[rank], mean.late_reductions[rank]);
         k < phases.size(); ++k)
        end.reduce(phases[k].time, k);
    if (phases.empty()) return phases;
    end.wait(step.pipeline->times.makespan - spans.back().end);
    const std::vector<Seconds> exposed = end.exposed(phases.size(), overlap);
    for (std::size_t k = 0; k < phases.size(); ++k) show(phases[k], exposed[k]);
    return phases;
}

// A rank's gathers of parameters with what of them shows: how much they add to its step up to its
// last first forward.
std::vector<PhaseTime> gathers_of_rank(const RankWork& work, const Overlap& overlap,
                                       const StepTime& step, Chunks& chunks, std::size_t rank,
                                       PriceBook& book) {
    const PipelineWork &pipeline = *work.busiest.pipeline, &mean = *work.mean.pipeline;
    const std::vector<PipelineStep>& steps = step.pipeline->order.steps[rank];
    const std::vector<PipelineSpan>& spans = step.pipeline->times.spans[rank];
    const std::vector<FirstForward> firsts = first_forwards(steps);
    std::vector<PhaseTime> phases;
    StepPart begin;
    for (const FirstForward& first : firsts) {
        const std::size_t stage = at(first.stage);
        const std::vector<PhaseTime> gathers =
            price_update(pipeline.gathers[stage], mean.gathers[stage], work.speeds, book);
        begin.gather(pipeline.stages[stage], gathers, phases.size());
        phases.insert(phases.end(), gathers.begin(), gathers.end());
    }
    if (phases.empty()) return phases;
    auto next = firsts.begin();
    Seconds free;
    for (std::size_t i = 0; i <= firsts.back().step; ++i) {
        begin.wait(max(Seconds{}, spans[i].start - free));
        free = spans[i].end;
        if (next->step != i) {
            begin.compute(chunks.of(steps[i]));
        } else {
            const PipelineStage& stage = pipeline.stages[at(next++->stage)];
            if (steps[i].beside)
                begin.first_forward(chunks.of(steps[i]), stage);
            else
                begin.first_forward(work.busiest, step, stage);
        }
    }
    const std::vector<Seconds> exposed = begin.exposed(phases.size(), overlap);
    for (std::size_t k = 0; k < phases.size(); ++k) show(phases[k], exposed[k]);
    return phases;
}

Seconds sum(const std::vector<PhaseTime>& phases) {
    Seconds total;
    for (const PhaseTime& t : phases) total += t.time;
    return total;
}

// Gathers of parameters ahead of the first forwards. A rank begins later by what shows of its own;
// the order, executed with that, says what of it the step shows.
void append_gathers(const RankWork& work, const Overlap& overlap, Chunks& chunks,
                    const PriceBook& scratch, PriceBook& book, StepTime& step) {
    const auto none = [](const std::vector<PhaseWork>& gathers) { return gathers.empty(); };
    if (std::ranges::all_of(work.busiest.pipeline->gathers, none)) return;
    const PipelineTime& pipeline = *step.pipeline;
    const auto of_rank = [&](std::size_t rank, PriceBook& prices) {
        return gathers_of_rank(work, overlap, step, chunks, rank, prices);
    };
    std::vector<Seconds> later;
    for (std::size_t rank = 0; rank < pipeline.order.steps.size(); ++rank) {
        PriceBook unused = scratch;
        later.push_back(sum(of_rank(rank, unused)));
    }
    const auto latest = static_cast<std::size_t>(std::ranges::max_element(later) - later.begin());
    std::vector<PhaseTime> phases = of_rank(latest, book);
    if (later[latest] > Seconds{}) {
        const PipelineTimes times = execute(pipeline, [&](int rank, const PipelineStep& s) {
            const bool first = &s == &pipeline.order.steps[at(rank)].front();
            return chunks.of(s) + (first ? later[at(rank)] : Seconds{});
        });
        const double shown = (times.makespan - pipeline.times.makespan) / later[latest];
        for (PhaseTime& t : phases) show(t, shown * t.time);
    }
    for (const PhaseTime& t : phases) step.update.push_back(t);
}

// Appends the phases of the rank on which they take longest; its errors go into the book.
template <class OfRank>
void append_longest(std::size_t ranks, const PriceBook& scratch, PriceBook& book,
                    const OfRank& of_rank, std::vector<PhaseTime>& update) {
    std::size_t longest = 0;
    Seconds most = -1.0 * second;
    for (std::size_t rank = 0; rank < ranks; ++rank) {
        PriceBook unused = scratch;
        const Seconds time = sum(of_rank(rank, unused));
        if (time > most) most = time, longest = rank;
    }
    for (const PhaseTime& t : of_rank(longest, book)) update.push_back(t);
}

}  // namespace

StepTime price_pipeline_step(const RankWork& work, const Profile& profile, PriceBook& book) {
    const Workload& workload = work.busiest;
    const PipelineWork& pipeline = *workload.pipeline;
    const Overlap overlap = profile.overheads.overlap();
    // What an error weighs follows from the times: they are found first, in a book of their own.
    PriceBook scratch = book;
    StepTime step;
    const PassWeights nothing{.layers = std::vector<double>(workload.layers.size())};
    price_passes(work, profile, nothing, scratch, step);
    Chunks chunks(workload, step, overlap, scratch);
    step.pipeline = run_order(pipeline, chunks, scratch);
    StepTime again;
    price_passes(work, profile, weights_of(workload, *step.pipeline), book, again);
    Seconds hops;
    for (const Price& hop : step.pipeline->hops) hops += hop.time;
    const Seconds waits = step.pipeline->times.message_wait[step.pipeline->shown];
    price_hops(pipeline, pipeline.message, book, hops > Seconds{} ? waits / hops : 0.0);

    accumulate_rank(workload, chunks, step);
    accumulate_waits(workload, step);
    const std::size_t ranks = pipeline.updates.size();
    append_longest(
        ranks, scratch, book,
        [&](std::size_t rank, PriceBook& prices) {
            return reductions_of_rank(work, overlap, step, chunks, rank, prices);
        },
        step.update);
    append_gathers(work, overlap, chunks, scratch, book, step);
    append_longest(
        ranks, scratch, book,
        [&](std::size_t rank, PriceBook& prices) {
            return price_update(pipeline.updates[rank], work.mean.pipeline->updates[rank],
                                work.speeds, prices);
        },
        step.update);
    accumulate(step, step.update, 1);
    return step;
}

}  // namespace headway::inline cost
