#include "models/cost/step.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <variant>

#include "models/cost/pipeline_step.hpp"
#include "models/cost/reductions.hpp"
#include "models/cost/run_passes.hpp"
#include "models/workload/schedule.hpp"

namespace headway::inline cost {
namespace {

Price price_phase(const RankPhases& pair, const ComputeSpeeds& speeds, PriceBook& book,
                  double weight, double fraction) {
    const PhaseWork& phase = pair.busiest;
    if (std::holds_alternative<ComputeWork>(phase.work))
        return price_compute(pair, speeds, book, weight, fraction);
    if (const auto* exchange = std::get_if<ExchangeWork>(&phase.work))
        return book.exchange(*exchange, weight, fraction);
    if (const auto* counts = std::get_if<CountExchangeWork>(&phase.work))
        return book.count_exchange(*counts, weight);
    if (const auto* host = std::get_if<HostWork>(&phase.work))
        return book.host(*host, weight, fraction);
    ReduceWork part = std::get<ReduceWork>(phase.work);
    part.bytes *= fraction;
    return book.reduce(part, weight);
}

struct StepContext {
    int num_chunks = 1;
    ComputeSpeeds speeds;
};

// The phases of one pass of a layer, or of what comes before or after the layers. Every phase is
// priced once, as one of its chunks.
PassTime price_pass(std::span<const PhaseWork> phases, std::span<const PhaseWork> mean,
                    const std::vector<PhaseRange>& pipelines, const StepContext& context,
                    double weight, PriceBook& book) {
    PassTime pass;
    pass.phases.resize(phases.size());
    const std::vector<Slot> slots = pass_slots(phases, pipelines, context.num_chunks);
    pass.tasks.reserve(slots.size());
    std::vector<Seconds> chunk(phases.size());
    for (const Slot& slot : slots) {
        const auto i = static_cast<std::size_t>(slot.phase);
        if (slot.chunk == 0) {
            const double times = slot.num_chunks * slot.scale();
            const Price price = price_phase({phases[i], mean[i]}, context.speeds, book,
                                            weight * times, slot.fraction());
            chunk[i] = slot.scale() * price.time;
            pass.phases[i] = {.work = &phases[i],
                              .sigma = times * price.sigma,
                              .bottleneck = price.bottleneck,
                              .links = price.links};
        }
        const auto* compute = std::get_if<ComputeWork>(&phases[i].work);
        pass.tasks.push_back({.stream = slot.stream,
                              .time = chunk[i],
                              .after = slot.after,
                              .launch = slot.launches() * book.launch_time(phases[i]),
                              .host_waits = phases[i].host_waits,
                              .pieces = compute != nullptr ? compute->num_launches() : 1,
                              .links = pass.phases[i].links});
        pass.phase_of_task.push_back(slot.phase);
    }
    return pass;
}

Seconds moe_part(const std::vector<PhaseTime>& times) {
    Seconds total;
    for (const PhaseTime& t : times) total += is_moe_phase(t.work->phase) ? t.time : Seconds{};
    return total;
}

// Reductions run bucket by bucket beside the last micro-batch's backward, gathers beside the first
// one's forward: what they add to it is theirs, the rest of them is hidden.
void overlap_collectives(const Workload& workload, HiddenBy hidden_by, const Overlap& overlap,
                         StepTime& step) {
    std::vector<PhaseTime*> overlapped;
    std::vector<PhaseTime> alone;
    for (PhaseTime& t : step.update) {
        if (!is_hidden_by(*t.work, hidden_by)) continue;
        overlapped.push_back(&t);
        alone.push_back(t);
    }
    if (overlapped.empty()) return;
    StepPart part;
    const PipelineStage all = whole_model(static_cast<int>(workload.entry_of_layer.size()));
    if (hidden_by == HiddenBy::first_forward) {
        part.gather(all, alone, 0);
        part.first_forward(workload, step, all);
    } else {
        part.backward(workload, step, all, alone, 0);
    }
    const std::vector<Seconds> exposed = part.exposed(overlapped.size(), overlap);
    for (std::size_t i = 0; i < exposed.size(); ++i) show(*overlapped[i], exposed[i]);
}

// An offloaded optimizer's copies and its two halves run beside each other: what shows of each.
void overlap_host(const std::vector<PhaseWork>& update, std::vector<PhaseTime>& times) {
    const PhaseRange range = host_update(update);
    if (range.begin == range.end) return;
    const auto first = static_cast<std::size_t>(range.begin);
    const std::vector<Slot> slots = host_update_slots(
        std::span(update).subspan(first, static_cast<std::size_t>(range.end) - first));
    std::vector<TimedTask> tasks;
    for (const Slot& slot : slots) {
        const PhaseTime& whole = times[first + static_cast<std::size_t>(slot.phase)];
        tasks.push_back({.stream = slot.stream,
                         .time = whole.time / slot.num_chunks,
                         .after = slot.after,
                         .also_after = slot.also_after.value_or(-1)});
    }
    const StreamsRun run = run_streams(tasks, Overlap{});
    std::vector<Seconds> shown(times.size());
    for (std::size_t i = 0; i < slots.size(); ++i)
        shown[first + static_cast<std::size_t>(slots[i].phase)] += run.exposed[i];
    for (std::size_t i = first; i < static_cast<std::size_t>(range.end); ++i)
        show(times[i], shown[i]);
}

}  // namespace

void accumulate(StepTime& step, const std::vector<PhaseTime>& times, int count) {
    for (const PhaseTime& t : times) {
        PhaseTotal& total = step.phases[static_cast<std::size_t>(t.work->phase)]
                                       [static_cast<std::size_t>(t.work->pass)];
        if (!is_records(*t.work) || t.work->pass != Pass::forward) total.count += count;
        total.time += count * t.time;
        total.hidden += count * t.hidden;
        total.host += count * t.host;
        total.sigma += count * t.sigma;
        total.bytes += count * phase_bytes(*t.work);
        total.flops += count * phase_flops(*t.work);
        if (t.time + t.hidden >= total.slowest) {
            total.slowest = t.time + t.hidden;
            total.bottleneck = t.bottleneck;
        }
        step.total += count * t.time;
    }
}

std::vector<PhaseTime> price_update(const std::vector<PhaseWork>& update,
                                    const std::vector<PhaseWork>& mean, const ComputeSpeeds& speeds,
                                    PriceBook& book) {
    std::vector<PhaseTime> times;
    for (std::size_t i = 0; i < update.size(); ++i) {
        const PhaseWork& phase = update[i];
        PhaseTime& time =
            times.emplace_back(PhaseTime{.work = &phase, .launch = book.launch_time(phase)});
        const auto* reduce = std::get_if<ReduceWork>(&phase.work);
        const auto add = [&](double share) {
            const Price price = price_phase({phase, mean[i]}, speeds, book, 1.0, share);
            time.time += price.time;
            time.sigma += price.sigma;
            if (share > 0.0) {
                time.bottleneck = price.bottleneck;
                time.links = price.links;
            }
            return price.time;
        };
        if (reduce == nullptr || reduce->buckets.empty()) {
            add(1.0);
            continue;
        }
        for (const double share : reduce->buckets)
            time.buckets.push_back(share > 0.0 ? add(share) : Seconds{});
    }
    overlap_host(update, times);
    return times;
}

void extend(Span& counts, const PhaseWork& records, Seconds time, const Interval& interval) {
    counts.duration += time;
    counts.low += interval.low;
    counts.high += interval.high;
    counts.bytes += phase_bytes(records);
}

Bytes phase_bytes(const PhaseWork& phase) {
    Bytes total;
    if (const auto* compute = std::get_if<ComputeWork>(&phase.work)) {
        for (int i = 0; i < compute->num_kernels; ++i)
            total += compute->kernels[static_cast<std::size_t>(i)].bytes;
    } else if (const auto* exchange = std::get_if<ExchangeWork>(&phase.work)) {
        for (Bytes b : exchange->busiest) total += b;
        for (Bytes b : exchange->forward_busiest) total += b;
    } else if (const auto* reduce = std::get_if<ReduceWork>(&phase.work)) {
        const double n = reduce->group_size,
                     passes = reduce->collective == Collective::all_reduce ? 2.0 : 1.0;
        total = passes * (n - 1.0) / n * reduce->bytes;
    } else if (const auto* host = std::get_if<HostWork>(&phase.work)) {
        total = host->bytes;
    }
    return total;
}

Flops phase_flops(const PhaseWork& phase) {
    Flops total;
    if (const auto* compute = std::get_if<ComputeWork>(&phase.work)) {
        for (int i = 0; i < compute->num_kernels; ++i)
            total += compute->kernels[static_cast<std::size_t>(i)].flops;
    }
    return total;
}

ComputeSpeeds compute_speeds(const Cluster& cluster) {
    if (cluster.rank_overrides.empty()) return {};
    std::vector<double> speeds(static_cast<std::size_t>(cluster.num_ranks()), 1.0);
    for (const RankOverride& o : cluster.rank_overrides)
        speeds[static_cast<std::size_t>(o.rank)] = o.compute_factor;
    std::ranges::sort(speeds);
    return {.slowest = speeds.front(), .median = speeds[(speeds.size() - 1) / 2]};
}

Price price_compute(const RankPhases& phase, const ComputeSpeeds& speeds, PriceBook& book,
                    double weight, double fraction) {
    const Pass pass = phase.busiest.kernel_pass();
    Price price = book.compute(std::get<ComputeWork>(phase.busiest.work), pass, weight, fraction);
    if (!speeds.differ()) return price;
    const Seconds mean = book.compute_time(std::get<ComputeWork>(phase.mean.work), pass, fraction);
    const Seconds last = max(price.time / speeds.median, mean / speeds.slowest);
    if (price.time > Seconds{}) price.sigma *= last / price.time;
    price.time = last;
    return price;
}

GroupLoad mean_load(GroupLoad load) {
    load.rows_max = load.rows_mean;
    load.copies_received = std::min(load.copies_received, load.copies_sent);
    return load;
}

namespace {

// What of a step's update no pass hides, alone.
StepEnd end_of(const RankWork& work, PriceBook book) {
    StepEnd end;
    if (!work.busiest.runs_free) return end;
    for (const PhaseTime& t :
         price_update(work.busiest.update, work.mean.update, work.speeds, book)) {
        if (t.buckets.empty())
            end.update += t.time;
        else if (leaves_early(*t.work))
            end.bucket += t.launch;
    }
    return end;
}

}  // namespace

void price_passes(const RankWork& work, const Profile& profile, const PassWeights& weights,
                  PriceBook& book, StepTime& step) {
    const Workload &workload = work.busiest, &mean = work.mean;
    const StepContext context{workload.overlap_chunks, work.speeds};
    const auto outer = [&](const std::vector<PhaseWork>& phases,
                           const std::vector<PhaseWork>& usual, double weight) {
        const auto price = [&](Pass pass) {
            return price_pass(of_pass(phases, pass), of_pass(usual, pass), {}, context, weight,
                              book);
        };
        return LayerTime{.forward = price(Pass::forward), .backward = price(Pass::backward)};
    };
    step.before = outer(workload.before, mean.before, weights.before);
    step.after = outer(workload.after, mean.after, weights.after);
    for (std::size_t i = 0; i < workload.layers.size(); ++i) {
        const LayerWork &layer = workload.layers[i], &usual = mean.layers[i];
        const double weight = weights.layers[i];
        step.layers.push_back(
            {.forward = price_pass(layer.forward, usual.forward, layer.forward_pipelines, context,
                                   weight, book),
             .backward = price_pass(layer.backward, usual.backward, layer.backward_pipelines,
                                    context, weight, book)});
    }
    run_passes(workload, profile.overheads, weights, end_of(work, book), book, step);
    double noise_variance = 0.0;
    int moe_layers = 0;
    for (std::size_t i = 0; i < workload.layers.size(); ++i) {
        const LayerWork& layer = workload.layers[i];
        if (!layer.is_moe) continue;
        const Seconds forward_moe = moe_part(step.layers[i].forward.phases),
                      backward_moe = moe_part(step.layers[i].backward.phases);
        step.moe_forward += layer.count * forward_moe;
        step.moe_backward += layer.count * backward_moe;
        moe_layers += layer.count;
        // The busiest rank's load varies from layer to layer; independent draws add up in
        // quadrature.
        const double swing = layer.noise * (forward_moe + backward_moe).in(second);
        noise_variance += weights.layers[i] * swing * swing;
    }
    book.add_independent_sigma(std::sqrt(noise_variance));
    if (moe_layers > 0) {
        step.moe_forward = step.moe_forward / moe_layers;
        step.moe_backward = step.moe_backward / moe_layers;
    }
}

StepTime price_step(const RankWork& work, const Profile& profile, PriceBook& book) {
    const Workload& workload = work.busiest;
    if (workload.pipeline) return price_pipeline_step(work, profile, book);
    StepTime step;
    const int micro = workload.num_micro_batches;
    PassWeights weights{.before = double(micro), .after = double(micro), .layers = {}};
    for (const LayerWork& layer : workload.layers)
        weights.layers.push_back(static_cast<double>(micro) * layer.count);
    price_passes(work, profile, weights, book, step);
    for (const LayerTime* outer : {&step.before, &step.after}) {
        accumulate(step, outer->forward.phases, micro);
        accumulate(step, outer->backward.phases, micro);
    }
    for (std::size_t i = 0; i < step.layers.size(); ++i) {
        const int count = micro * workload.layers[i].count;
        accumulate(step, step.layers[i].forward.phases, count);
        accumulate(step, step.layers[i].backward.phases, count);
    }
    step.update = price_update(workload.update, work.mean.update, work.speeds, book);
    for (const HiddenBy pass : {HiddenBy::last_backward, HiddenBy::first_forward})
        overlap_collectives(workload, pass, profile.overheads.overlap(), step);
    accumulate(step, step.update, 1);
    return step;
}

}  // namespace headway::inline cost
