#include "runtime/phase_samples.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "models/vocab/quantile.hpp"

namespace headway::runtime {
namespace {

// One span for every (layer, phase, pass) of a rank, in order of first execution.
std::vector<Span> spans_of(const std::vector<LayerSamples>& samples, int rank) {
    struct Series {
        int layer;
        CallSite site;
        std::vector<double> begins, durations;
    };
    std::vector<Series> all;
    for (const LayerSamples& execution : samples) {
        const double start = execution.phases.empty() ? 0.0 : execution.phases.front().begin;
        for (const PhaseSample& sample : execution.phases) {
            auto it = std::find_if(all.begin(), all.end(), [&](const Series& s) {
                return s.layer == execution.layer && s.site == sample.site;
            });
            if (it == all.end()) it = all.insert(all.end(), {execution.layer, sample.site, {}, {}});
            it->begins.push_back(sample.begin - start);
            it->durations.push_back(sample.duration);
        }
    }
    std::vector<Span> spans;
    for (Series& s : all)
        spans.push_back(median_span(rank, s.layer, s.site, s.begins, s.durations));
    return spans;
}

std::vector<ArrivalSkew> skews_of(const std::vector<std::vector<LayerSamples>>& by_rank) {
    std::map<std::pair<int, CallSite>, std::vector<double>> skews;
    for (std::size_t i = 0; i < by_rank.front().size(); ++i) {
        const LayerSamples& first = by_rank.front()[i];
        for (std::size_t p = 0; p < first.phases.size(); ++p) {
            if (!is_communication(first.phases[p].site.phase)) continue;
            double earliest = first.phases[p].begin, latest = earliest;
            for (const auto& samples : by_rank) {
                earliest = std::min(earliest, samples[i].phases[p].begin);
                latest = std::max(latest, samples[i].phases[p].begin);
            }
            skews[{first.layer, first.phases[p].site}].push_back(latest - earliest);
        }
    }
    std::vector<ArrivalSkew> result;
    for (auto& [key, values] : skews)
        result.push_back({key.first, key.second, quantile(values, 0.5) * second});
    return result;
}

void take_waits_out(std::vector<std::vector<LayerSamples>>& by_rank) {
    for (std::size_t i = 0; i < by_rank.front().size(); ++i) {
        for (std::size_t p = 0; p < by_rank.front()[i].phases.size(); ++p) {
            std::vector<PhaseSample*> one;
            for (auto& samples : by_rank) one.push_back(&samples[i].phases[p]);
            take_wait_out(one);
        }
    }
}

// Layers lie one after the other in the timeline, as far apart as the slowest rank needs.
void lay_out(std::vector<Span>& spans) {
    std::map<int, Seconds> length;
    for (const Span& s : spans) length[s.layer] = max(length[s.layer], s.begin + s.duration);
    Seconds start;
    std::map<int, Seconds> starts;
    for (const auto& [layer, time] : length) {
        starts[layer] = start;
        start += time;
    }
    for (Span& s : spans) s.begin += starts[s.layer];
}

}  // namespace

std::vector<std::vector<LayerSamples>> gather_samples(const GatherCounts& gather, int num_ranks,
                                                      const std::vector<LayerSamples>& own) {
    std::vector<std::int64_t> flat;
    for (const LayerSamples& execution : own) {
        for (const PhaseSample& p : execution.phases) {
            flat.push_back(std::llround(1e9 * p.begin));
            flat.push_back(std::llround(1e9 * p.duration));
        }
    }
    const std::vector<std::int64_t> all = gather(flat);
    std::vector<std::vector<LayerSamples>> by_rank(static_cast<std::size_t>(num_ranks), own);
    std::size_t at = 0;
    for (auto& executions : by_rank) {
        for (LayerSamples& execution : executions) {
            for (PhaseSample& p : execution.phases) {
                p.begin = 1e-9 * static_cast<double>(all[at++]);
                p.duration = 1e-9 * static_cast<double>(all[at++]);
            }
        }
    }
    return by_rank;
}

std::vector<TrafficLedger> gather_ledgers(const GatherCounts& gather, int num_ranks,
                                          const TrafficLedger& before, TrafficLedger after) {
    std::vector<std::int64_t> flat;
    for (const auto& [site, bytes] : after) {
        const auto old = before.find(site);
        for (std::size_t r = 0; r < bytes.size(); ++r)
            flat.push_back(bytes[r] - (old == before.end() ? 0 : old->second[r]));
    }
    const std::vector<std::int64_t> all = gather(flat);
    std::vector<TrafficLedger> ledgers(static_cast<std::size_t>(num_ranks));
    auto at = all.begin();
    for (TrafficLedger& ledger : ledgers) {
        for (const auto& [site, bytes] : after) {
            ledger[site].assign(at, at + num_ranks);
            at += num_ranks;
        }
    }
    // Sites of what ran before, which nobody sent from since.
    for (const auto& entry : after) {
        const CallSite& site = entry.first;
        const bool used = std::any_of(ledgers.begin(), ledgers.end(), [&](const auto& ledger) {
            const auto& sent = ledger.at(site);
            return std::any_of(sent.begin(), sent.end(), [](std::int64_t b) { return b != 0; });
        });
        if (used) continue;
        for (TrafficLedger& ledger : ledgers) ledger.erase(site);
    }
    return ledgers;
}

Span median_span(int rank, int layer, CallSite site, std::vector<double>& begins,
                 std::vector<double>& durations) {
    return {.rank = rank,
            .layer = layer,
            .pass = site.pass,
            .phase = site.phase,
            .begin = quantile(begins, 0.5) * second,
            .duration = quantile(durations, 0.5) * second,
            .low = quantile(durations, 0.1) * second,
            .high = quantile(durations, 0.9) * second,
            .samples = static_cast<int>(durations.size())};
}

void take_wait_out(std::span<PhaseSample* const> by_rank) {
    if (!is_communication(by_rank.front()->site.phase)) return;
    double last = 0.0;
    for (const PhaseSample* sample : by_rank) last = std::max(last, sample->begin);
    for (PhaseSample* sample : by_rank) {
        const double wait = std::min(last - sample->begin, sample->duration);
        sample->begin += wait;
        sample->duration -= wait;
    }
}

Timeline measured_timeline(const Scenario& scenario, const Plan& plan, const std::string& device,
                           std::size_t num_ranks) {
    return {.source = Source::measured,
            .scenario = scenario.name,
            .plan = plan.name,
            .layer_split = std::string(plan.layer_split()),
            .profile = device,
            .seed = scenario.routing.seed,
            .size = RunSize{.num_ranks = static_cast<int>(num_ranks),
                            .tokens_per_rank = static_cast<int>(scenario.batch.tokens_per_rank())}};
}

Measurement to_measurement(const Scenario& scenario, const Plan& plan, const std::string& device,
                           std::vector<std::vector<LayerSamples>> samples,
                           std::span<const TrafficLedger> ledgers, int num_passes, Timing timing) {
    Measurement result;
    result.skews = skews_of(samples);
    if (timing == Timing::in_flow) take_waits_out(samples);
    result.timeline = measured_timeline(scenario, plan, device, samples.size());
    result.traffic = gather_traffic(ledgers);
    for (auto& [site, matrix] : result.traffic) {
        for (std::int64_t& bytes : matrix.bytes) bytes /= num_passes;
    }
    for (int rank = 0; rank < static_cast<int>(samples.size()); ++rank) {
        for (Span span : spans_of(samples[static_cast<std::size_t>(rank)], rank)) {
            const auto traffic = result.traffic.find({span.phase, span.pass});
            if (traffic != result.traffic.end())
                span.bytes = static_cast<double>(traffic->second.sent(rank)) * byte;
            result.timeline.spans.push_back(span);
        }
    }
    lay_out(result.timeline.spans);
    return result;
}

}  // namespace headway::runtime
