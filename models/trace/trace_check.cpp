#include "models/trace/trace_check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "models/trace/trace_tables.hpp"
#include "models/vocab/error.hpp"
#include "models/vocab/quantile.hpp"

namespace headway::inline trace {
namespace {

// A rank in a step.
struct Place {
    std::size_t rank = 0, step = 0;

    friend auto operator<=>(const Place&, const Place&) = default;
};

// The n-th call of a group in a phase of a step is one exchange, on whichever rank: the least time
// of its ranks is the exchange's own. Calls of a group of which one rank is given stand as they
// are.
std::map<std::pair<Place, PhaseKey>, Nanoseconds> waits_of(const std::vector<RankTrace>& ranks) {
    std::map<std::pair<Place, PhaseKey>, Nanoseconds> waits;
    for (std::size_t s = 0; s < ranks.front().steps.size(); ++s) {
        std::map<std::pair<PhaseKey, std::string>, std::map<std::size_t, std::vector<Nanoseconds>>>
            groups;
        for (std::size_t r = 0; r < ranks.size(); ++r) {
            for (const auto& [key, phase] : ranks[r].steps[s].phases) {
                for (const Call& call : phase.calls)
                    groups[{key, call.ranks}][r].push_back(call.duration);
            }
        }
        for (const auto& [group, by_rank] : groups) {
            const std::size_t number = by_rank.begin()->second.size();
            const bool alike = std::ranges::all_of(
                by_rank, [&](const auto& own) { return own.second.size() == number; });
            if (!alike) continue;  // a trace that lost some: nothing is told apart
            for (std::size_t call = 0; call < number; ++call) {
                Nanoseconds least = by_rank.begin()->second[call];
                for (const auto& [r, own] : by_rank) least = std::min(least, own[call]);
                for (const auto& [r, own] : by_rank)
                    waits[{{r, s}, group.first}] += own[call] - least;
            }
        }
    }
    return waits;
}

void refuse(const RankTrace& trace, std::string found, std::string accepted,
            std::string hint = "") {
    throw InputError({.where = trace.file,
                      .found = std::move(found),
                      .accepted = std::move(accepted),
                      .hint = std::move(hint)});
}

void check_ranks(const PlanPrediction& plan, const std::vector<RankTrace>& ranks) {
    std::set<int> seen;
    for (const RankTrace& trace : ranks) {
        if (trace.world_size > 0 && trace.world_size != plan.num_ranks)
            refuse(trace, fmt::format("a run of {} ranks", trace.world_size),
                   fmt::format("one of {}, as plan {} has", plan.num_ranks, plan.name));
        if (!seen.insert(trace.rank).second)
            refuse(trace, fmt::format("rank {} once more", trace.rank), "a trace a rank");
        const auto numbers = [](const RankTrace& t) {
            std::vector<int> result;
            for (const GpuStep& step : t.steps) result.push_back(step.number);
            return result;
        };
        if (numbers(trace) != numbers(ranks.front()))
            refuse(trace, "other steps than " + ranks.front().file + " has",
                   "traces of one run, of the same steps");
    }
}

// Phases as their kernels take them: what the device waits for launches is idle time in a trace.
PlanPrediction of_kernels(PlanPrediction plan) {
    for (PhaseCost& cost : plan.phases) {
        if (cost.launch_wait == Seconds{}) continue;
        const double share = (cost.time - cost.launch_wait) / cost.time;
        cost.time = cost.time - cost.launch_wait;
        cost.interval = {share * cost.interval.low, share * cost.interval.high};
    }
    return plan;
}

Span predicted_span(const PhaseCost& cost, Seconds begin) {
    const Seconds whole = cost.time + cost.hidden;
    // The interval is known of what is exposed; what is hidden is as uncertain.
    const double scale = cost.time > Seconds{} ? whole / cost.time : 0.0;
    return {.pass = cost.pass,
            .phase = cost.phase,
            .begin = begin,
            .duration = whole,
            .low = scale * cost.interval.low,
            .high = scale * cost.interval.high,
            .bytes = cost.bytes,
            .flops = cost.flops,
            .bottleneck = cost.bottleneck};
}

Timeline predicted_step(const PlanPrediction& plan) {
    Timeline timeline{
        .source = Source::predicted, .plan = plan.name, .layer_split = plan.layer_split};
    Seconds clock;
    for (const PhaseKey& key : step_order({plan})) {
        const PhaseCost& cost = *find_phase(plan, key);
        if (is_chunk(cost.phase) || cost.phase == Phase::pipeline_bubble) continue;
        timeline.spans.push_back(predicted_span(cost, clock));
        clock += cost.time;
    }
    return timeline;
}

// In the order in which a prediction is shown, then what it does not have.
std::vector<PhaseKey> keys_of(const PlanPrediction& plan, const RankTrace& rank) {
    std::set<PhaseKey> present;
    for (const GpuStep& step : rank.steps) {
        for (const auto& [key, phase] : step.phases) present.insert(key);
    }
    std::vector<PhaseKey> keys;
    for (const PhaseKey& key : step_order({plan})) {
        if (present.erase(key) > 0) keys.push_back(key);
    }
    keys.insert(keys.end(), present.begin(), present.end());
    return keys;
}

// The median of the steps, p10 and p90. A phase that a step does not have took no time.
Span measured_span(const RankTrace& rank, const PhaseKey& key,
                   const std::vector<Nanoseconds>& waits) {
    std::vector<double> times, begins, bytes;
    for (std::size_t s = 0; s < rank.steps.size(); ++s) {
        const auto found = rank.steps[s].phases.find(key);
        const GpuPhase phase = found == rank.steps[s].phases.end() ? GpuPhase{} : found->second;
        times.push_back(static_cast<double>(phase.total() - waits[s]));
        begins.push_back(static_cast<double>(phase.begin));
        bytes.push_back(phase.sent.in(byte));
    }
    return {.rank = rank.rank,
            .pass = key.first,
            .phase = key.second,
            .begin = quantile(begins, 0.5) * ns,
            .duration = quantile(times, 0.5) * ns,
            .low = quantile(times, 0.1) * ns,
            .high = quantile(times, 0.9) * ns,
            .bytes = quantile(bytes, 0.5) * byte,
            .samples = static_cast<int>(times.size())};
}

// Spans of a step as spans of one of the executions that a step has.
Timeline per_execution(Timeline timeline, const PlanPrediction& plan) {
    for (Span& span : timeline.spans) {
        const PhaseCost* const cost = find_phase(plan, {span.pass, span.phase});
        if (cost == nullptr) continue;
        const double n = cost->count;
        span.count = cost->count;
        span.duration = span.duration / n;
        span.low = span.low / n;
        span.high = span.high / n;
        span.bytes = span.bytes / n;
        span.flops = span.flops / n;
    }
    return timeline;
}

}  // namespace

RankTrace rank_trace(const TorchTrace& trace, std::vector<GpuStep> steps) {
    if (steps.size() > 1) steps.erase(steps.begin());
    return {.file = trace.file,
            .rank = std::max(trace.rank, 0),
            .world_size = trace.world_size,
            .device = trace.device,
            .steps = std::move(steps)};
}

TraceCheck check_trace(const PlanPrediction& prediction, const std::vector<RankTrace>& ranks) {
    const PlanPrediction plan = of_kernels(prediction);
    check_ranks(plan, ranks);
    const auto waits = waits_of(ranks);
    Timeline predicted = predicted_step(plan);
    Timeline measured{.source = Source::measured,
                      .plan = plan.name,
                      .layer_split = plan.layer_split,
                      .profile = ranks.front().device};
    for (std::size_t r = 0; r < ranks.size(); ++r) {
        for (const PhaseKey& key : keys_of(plan, ranks[r])) {
            std::vector<Nanoseconds> own;
            for (std::size_t s = 0; s < ranks[r].steps.size(); ++s) {
                const auto wait = waits.find({{r, s}, key});
                own.push_back(wait == waits.end() ? 0 : wait->second);
            }
            measured.spans.push_back(measured_span(ranks[r], key, own));
        }
    }
    TraceCheck check{
        .comparison = compare(predicted, measured), .predicted = {}, .measured = {}, .text = {}};
    std::map<PhaseKey, Seconds> waiting;
    const double num = static_cast<double>(ranks.size() * ranks.front().steps.size());
    for (const auto& [place, wait] : waits)
        waiting[place.second] += static_cast<double>(wait) / num * ns;
    check.text = trace_text({.plan = plan,
                             .ranks = ranks,
                             .comparison = check.comparison,
                             .measured = measured,
                             .waiting = waiting});
    check.predicted = per_execution(std::move(predicted), plan);
    check.measured = per_execution(std::move(measured), plan);
    return check;
}

}  // namespace headway::inline trace
