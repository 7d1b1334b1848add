#include "models/cost/moe_layer.hpp"

#include <algorithm>
#include <optional>
#include <variant>

#include "models/cost/exchange_stages.hpp"
#include "models/cost/phase_terms.hpp"
#include "models/cost/price.hpp"
#include "models/cost/step.hpp"
#include "models/vocab/phase.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline cost {
namespace {

// One after the other; all by the same curves, or taken as if.
Price in_sequence(const Price& a, const Price& b) {
    return {a.time + b.time, a.sigma + b.sigma, (a.time < b.time ? b : a).bottleneck,
            (a.time < b.time ? b : a).links};
}

// Node-dedup as a runtime without chunks runs it: the copies for other nodes beside those of the
// own node's tokens; then what came is copied for its ranks; then these copies travel. A step's
// price has the stages beside each other, as in a library that forwards chunk by chunk.
Price price_in_stages(const ExchangeWork& work, Pass pass, PriceBook& book) {
    const ExchangeStages stages = exchange_stages(work, work.own_share);
    ComputeWork between;
    between.add(work.forwarder);
    const Price sent = book.exchange(stages.over_nic, 1.0),
                copied = book.compute(between, pass, 1.0);
    return in_sequence(in_sequence(sent, copied), book.exchange(stages.inside, 1.0));
}

Price price_of(const PhaseWork& phase, const PhaseWork& mean, const ComputeSpeeds& speeds,
               PriceBook& book) {
    if (std::holds_alternative<ComputeWork>(phase.work))
        return price_compute({phase, mean}, speeds, book, 1.0, 1.0);
    if (const auto* exchange = std::get_if<ExchangeWork>(&phase.work)) {
        return exchange->forwarded ? price_in_stages(*exchange, phase.pass, book)
                                   : book.exchange(*exchange, 1.0);
    }
    if (const auto* counts = std::get_if<CountExchangeWork>(&phase.work)) {
        const Price one = book.count_exchange(*counts, 1.0);
        return counts->num_stages == 2 ? in_sequence(one, one) : one;
    }
    return book.reduce(std::get<ReduceWork>(phase.work), 1.0);
}

void add_spans(const std::vector<PhaseWork>& phases, const std::vector<PhaseWork>& mean,
               const ComputeSpeeds& speeds, int layer, PriceBook& book, Seconds& clock,
               std::vector<Span>& spans) {
    for (std::size_t i = 0; i < phases.size(); ++i) {
        const PhaseWork& phase = phases[i];
        if (!is_moe_phase(phase.phase)) continue;
        const Price price = price_of(phase, mean[i], speeds, book);
        const Interval interval = interval_of(price.time, price.sigma);
        if (is_records(phase) && phase.pass == Pass::forward) {
            extend(spans.back(), phase, price.time, interval);
            clock += price.time;
            continue;
        }
        spans.push_back({.layer = layer,
                         .pass = phase.pass,
                         .phase = phase.phase,
                         .begin = clock,
                         .duration = price.time,
                         .low = interval.low,
                         .high = interval.high,
                         .bytes = phase_bytes(phase),
                         .flops = phase_flops(phase),
                         .bottleneck = std::string(name(price.bottleneck))});
        clock += price.time;
    }
}

// Dedup's gates travel as counts do, in as many stages, and their gradients travel back: in the
// runtime a phase of its own in backward. Profiles of layers know it; a step's Workload leaves it
// out.
std::optional<Span> gate_gradients(const LayerWork& work, const Profile& profile, int layer,
                                   Seconds begin) {
    if (std::ranges::any_of(work.backward, is_records)) return std::nullopt;
    for (const PhaseWork& phase : work.forward) {
        const auto* counts = std::get_if<CountExchangeWork>(&phase.work);
        if (counts == nullptr || !counts->shape) continue;
        const PhaseShape& s = *counts->shape;
        const PhaseCurve* curve = find_curve(profile, s, Pass::backward);
        if (curve == nullptr) continue;
        const Seconds time = counts->num_stages * phase_seconds(*curve, s) * second;
        const Interval interval = interval_of(time, curve->residual * time.in(second));
        return Span{.layer = layer,
                    .pass = Pass::backward,
                    .phase = s.phase,
                    .begin = begin,
                    .duration = time,
                    .low = interval.low,
                    .high = interval.high,
                    .bottleneck = std::string(name(Bottleneck::sync))};
    }
    return std::nullopt;
}

}  // namespace

MoePrediction predict_moe_layers(const Scenario& scenario, const Plan& plan, const Profile& profile,
                                 int num_layers, LayerRouting routing) {
    PriceBook book(profile, scenario.cluster, scenario.model.dtype);
    MoePrediction result;
    result.timeline = {.source = Source::predicted,
                       .scenario = scenario.name,
                       .plan = plan.name,
                       .layer_split = std::string(plan.layer_split()),
                       .profile = profile.name,
                       .seed = scenario.routing.seed};
    const ComputeSpeeds speeds = compute_speeds(scenario.cluster);
    Seconds clock;
    for (int i = 0; i < num_layers; ++i) {
        const int layer = scenario.model.moe_layer(i);
        const GroupLoad load = routing == LayerRouting::expected
                                   ? expected_load(scenario, plan, layer)
                                   : sampled_load(scenario, plan, layer, 0);
        const LayerWork work = build_moe_layer(scenario, plan, load, layer);
        const LayerWork mean =
            speeds.differ() ? build_moe_layer(scenario, plan, mean_load(load), layer) : work;
        std::vector<Span>& spans = result.timeline.spans;
        add_spans(work.forward, mean.forward, speeds, layer, book, clock, spans);
        add_spans(work.backward, mean.backward, speeds, layer, book, clock, spans);
        if (const auto span = gate_gradients(work, profile, layer, clock)) {
            clock += span->duration;
            spans.push_back(*span);
        }
    }
    result.warnings = book.warnings();
    return result;
}

}  // namespace headway::inline cost
