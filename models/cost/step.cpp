#include "models/cost/step.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <variant>

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
    ReduceWork part = std::get<ReduceWork>(phase.work);
    part.bytes *= fraction;
    return book.reduce(part, weight);
}

struct StepContext {
    int num_chunks = 1;
    double slowdown = 1.0;
    ComputeSpeeds speeds;
};

// The phases of one pass of a layer, or of what comes before or after the layers. Every phase is
// priced once, as one of its chunks; the streams tell what of it shows.
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
            const double chunks = slot.num_chunks;
            const Price price = price_phase({phases[i], mean[i]}, context.speeds, book,
                                            weight * chunks, 1.0 / chunks);
            chunk[i] = price.time;
            pass.phases[i] = {
                .work = &phases[i], .sigma = chunks * price.sigma, .bottleneck = price.bottleneck};
        }
        pass.tasks.push_back({slot.stream, chunk[i], slot.after});
    }
    const StreamsRun run = run_streams(pass.tasks, context.slowdown);
    for (std::size_t k = 0; k < slots.size(); ++k) {
        PhaseTime& phase = pass.phases[static_cast<std::size_t>(slots[k].phase)];
        phase.time += run.exposed[k];
        if (slots[k].stream != Stream::compute)
            phase.hidden += max(Seconds{}, pass.tasks[k].time - run.exposed[k]);
    }
    pass.total = run.end;
    return pass;
}

void accumulate(StepTime& step, const std::vector<PhaseTime>& times, int count) {
    for (const PhaseTime& t : times) {
        PhaseTotal& total = step.phases[static_cast<std::size_t>(t.work->phase)]
                                       [static_cast<std::size_t>(t.work->pass)];
        total.count += count;
        total.time += count * t.time;
        total.hidden += count * t.hidden;
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

Seconds moe_part(const std::vector<PhaseTime>& times) {
    Seconds total;
    for (const PhaseTime& t : times) total += is_moe_part(t.work->phase) ? t.time : Seconds{};
    return total;
}

// A reduction that overlaps: one bucket a layer.
bool is_overlapped(const PhaseWork& phase) {
    const auto* reduce = std::get_if<ReduceWork>(&phase.work);
    return reduce != nullptr && reduce->overlaps_backward;
}

// The last micro-batch's backward from its first bucket on, with the reductions beside it.
// `reductions`: of one bucket, in order.
struct Backward {
    std::vector<TimedTask> tasks;
    std::vector<int> reduction;                     // [task] which of `reductions`, or -1
    std::array<int, kNumStreams> last{-1, -1, -1};  // of each stream
    int beside = -1;                                // last task that ran beside a pass

    void add(TimedTask task, int of_reduction = -1) {
        last[static_cast<std::size_t>(task.stream)] = static_cast<int>(tasks.size());
        tasks.push_back(task);
        reduction.push_back(of_reduction);
    }
    int last_of(Stream stream) const { return last[static_cast<std::size_t>(stream)]; }
    // A pass begins when what ran beside the one before it has ended.
    void add_pass(const PassTime& pass) {
        const std::array<int, kNumStreams> before = last;
        const int first = static_cast<int>(tasks.size()), beside_before = beside;
        for (TimedTask t : pass.tasks) {
            const bool begins = t.after < 0;
            t.after =
                begins ? before[static_cast<std::size_t>(stream_before(t.after))] : first + t.after;
            if (t.stream == Stream::gradient) {
                beside = static_cast<int>(tasks.size());
            } else if (begins) {
                t.also_after = beside_before;
            }
            add(t);
        }
    }
};

Backward backward_with_buckets(const Workload& workload, const StepTime& step,
                               const std::vector<Seconds>& reductions) {
    Backward backward;
    for (const Block& block : step_blocks(static_cast<int>(workload.entry_of_layer.size()), 1)) {
        if (block.pass == Pass::forward) continue;
        if (block.kind == BlockKind::layer) {
            const int entry = workload.entry_of_layer[static_cast<std::size_t>(block.layer)];
            backward.add_pass(step.layers[static_cast<std::size_t>(entry)].backward);
        } else if (block.kind == BlockKind::bucket) {
            const int ready = backward.last_of(Stream::compute);
            for (std::size_t i = 0; i < reductions.size(); ++i)
                backward.add({Stream::gradient, reductions[i], ready}, static_cast<int>(i));
        } else if (block.kind == BlockKind::before) {
            backward.add_pass(step.before.backward);
        }
    }
    return backward;
}

// Reductions run bucket by bucket beside the last micro-batch's backward: what they add to it is
// theirs, the rest of them is hidden.
void overlap_reductions(const Workload& workload, double slowdown, StepTime& step) {
    std::vector<PhaseTime*> overlapped;
    std::vector<Seconds> bucket;
    for (PhaseTime& t : step.update) {
        if (!is_overlapped(*t.work)) continue;
        overlapped.push_back(&t);
        bucket.push_back(t.time / std::get<ReduceWork>(t.work->work).num_buckets);
    }
    if (overlapped.empty()) return;
    Backward backward = backward_with_buckets(workload, step, bucket);
    const StreamsRun with = run_streams(backward.tasks, slowdown);
    std::vector<Seconds> shown(overlapped.size());
    for (std::size_t i = 0; i < backward.tasks.size(); ++i) {
        if (backward.reduction[i] < 0) continue;
        shown[static_cast<std::size_t>(backward.reduction[i])] += with.exposed[i];
        backward.tasks[i].time = {};
    }
    Seconds all;
    for (const Seconds s : shown) all += s;
    const Seconds added = max(Seconds{}, with.end - run_streams(backward.tasks, slowdown).end);
    for (std::size_t i = 0; i < shown.size(); ++i) {
        PhaseTime& t = *overlapped[i];
        const Seconds exposed = all > Seconds{} ? (shown[i] / all) * added : Seconds{};
        t.hidden = max(Seconds{}, t.time - exposed);
        t.time = exposed;
    }
}

std::vector<PhaseTime> price_update(const RankWork& work, PriceBook& book) {
    std::vector<PhaseTime> times;
    for (std::size_t i = 0; i < work.busiest.update.size(); ++i) {
        const PhaseWork& phase = work.busiest.update[i];
        const double buckets =
            is_overlapped(phase) ? std::get<ReduceWork>(phase.work).num_buckets : 1.0;
        const Price price =
            price_phase({phase, work.mean.update[i]}, work.speeds, book, buckets, 1.0 / buckets);
        times.push_back(
            {&phase, buckets * price.time, Seconds{}, buckets * price.sigma, price.bottleneck});
    }
    return times;
}

}  // namespace

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

StepTime price_step(const RankWork& work, const Profile& profile, PriceBook& book) {
    StepTime step;
    const Workload &workload = work.busiest, &mean = work.mean;
    const int micro = workload.num_micro_batches;
    const double slowdown = profile.overheads.overlap_slowdown;
    const StepContext context{workload.overlap_chunks, slowdown, work.speeds};
    const auto outer = [&](const std::vector<PhaseWork>& phases,
                           const std::vector<PhaseWork>& usual) {
        const auto price = [&](Pass pass) {
            return price_pass(of_pass(phases, pass), of_pass(usual, pass), {}, context, micro,
                              book);
        };
        LayerTime time{.forward = price(Pass::forward), .backward = price(Pass::backward)};
        accumulate(step, time.forward.phases, micro);
        accumulate(step, time.backward.phases, micro);
        return time;
    };
    step.before = outer(workload.before, mean.before);
    step.after = outer(workload.after, mean.after);
    double noise_variance = 0.0;
    int moe_layers = 0;
    for (std::size_t i = 0; i < workload.layers.size(); ++i) {
        const LayerWork &layer = workload.layers[i], &usual = mean.layers[i];
        const double weight = static_cast<double>(micro) * layer.count;
        LayerTime t{.forward = price_pass(layer.forward, usual.forward, layer.forward_pipelines,
                                          context, weight, book),
                    .backward = price_pass(layer.backward, usual.backward, layer.backward_pipelines,
                                           context, weight, book)};
        accumulate(step, t.forward.phases, micro * layer.count);
        accumulate(step, t.backward.phases, micro * layer.count);
        if (layer.is_moe) {
            const Seconds forward_moe = moe_part(t.forward.phases),
                          backward_moe = moe_part(t.backward.phases);
            step.moe_forward += layer.count * forward_moe;
            step.moe_backward += layer.count * backward_moe;
            moe_layers += layer.count;
            // The busiest rank's load varies from layer to layer; independent draws add up in
            // quadrature.
            const double swing = layer.noise * (forward_moe + backward_moe).in(second);
            noise_variance += weight * swing * swing;
        }
        step.layers.push_back(std::move(t));
    }
    book.add_independent_sigma(std::sqrt(noise_variance));
    if (moe_layers > 0) {
        step.moe_forward = step.moe_forward / moe_layers;
        step.moe_backward = step.moe_backward / moe_layers;
    }
    step.update = price_update(work, book);
    overlap_reductions(workload, slowdown, step);
    accumulate(step, step.update, 1);
    return step;
}

}  // namespace headway::inline cost
