#include "models/cost/predict.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "models/cost/loads.hpp"
#include "models/cost/memory.hpp"
#include "models/cost/pipeline_result.hpp"
#include "models/cost/software.hpp"
#include "models/cost/step.hpp"
#include "models/cost/unused_keys.hpp"
#include "models/vocab/error.hpp"
#include "models/vocab/jobs.hpp"
#include "models/workload/layout.hpp"
#include "models/workload/parameters.hpp"
#include "models/workload/schedule.hpp"

namespace headway::inline cost {
namespace {

PlanTraffic traffic_of(const Workload& workload, const Cluster& cluster) {
    PlanTraffic traffic;
    const LayerWork* moe = nullptr;
    for (const LayerWork& layer : workload.layers) {
        if (!layer.is_moe) continue;
        if (moe == nullptr) moe = &layer;
        traffic.imbalance = std::max(traffic.imbalance, layer.imbalance);
    }
    if (moe == nullptr) return traffic;
    for (const PhaseWork& phase : moe->forward) {
        if (!is_moe_phase(phase.phase)) continue;
        if (const auto* reduce = std::get_if<ReduceWork>(&phase.work)) {
            const PathClass path = ring_lanes(cluster, reduce->group_size, reduce->stride).farthest;
            const bool of_rows =
                phase.phase == Phase::etp_all_gather || phase.phase == Phase::etp_reduce_scatter;
            const Bytes most = phase_bytes(phase), mean = most / (of_rows ? moe->imbalance : 1.0);
            traffic.by_path[static_cast<std::size_t>(path)] += mean;
            traffic.sent_mean += mean;
            traffic.sent_max += most;
        }
        const auto* exchange = std::get_if<ExchangeWork>(&phase.work);
        if (exchange == nullptr) continue;
        for (std::size_t c = 0; c < traffic.by_path.size(); ++c) {
            traffic.by_path[c] += exchange->mean[c] + exchange->forward_mean[c];
            traffic.sent_mean += exchange->mean[c] + exchange->forward_mean[c];
            traffic.sent_max += exchange->busiest[c] + exchange->forward_busiest[c];
        }
    }
    return traffic;
}

Interval phase_interval(Phase phase, Seconds time, double sigma, const Spread& exchange) {
    const Interval of_curves = interval_of(time, sigma);
    return is_communication(phase) ? widened(of_curves, time, exchange) : of_curves;
}

// The spread of the MoE part of one layer; the curves of its phases err independently.
Interval moe_interval(const Workload& workload, const StepTime& step, Pass pass, Seconds time,
                      const Spread& spread) {
    double sum = 0.0;
    int count = 0;
    for (std::size_t i = 0; i < step.layers.size(); ++i) {
        const LayerWork& layer = workload.layers[i];
        if (!layer.is_moe) continue;
        double variance = 0.0;
        const LayerTime& times = step.layers[i];
        for (const PhaseTime& t : (pass == Pass::forward ? times.forward : times.backward).phases) {
            if (is_moe_phase(t.work->phase)) variance += t.sigma * t.sigma;
        }
        sum += layer.count * std::sqrt(variance);
        count += layer.count;
    }
    return widened(interval_of(time, count > 0 ? sum / count : 0.0), time, spread);
}

std::vector<PhaseCost> phase_costs(const StepTime& step, const Spread& exchange) {
    std::vector<PhaseCost> costs;
    for (int pass = 0; pass < 3; ++pass) {
        for (int phase = 0; phase < kNumPhases; ++phase) {
            const PhaseTotal& t =
                step.phases[static_cast<std::size_t>(phase)][static_cast<std::size_t>(pass)];
            if (t.count == 0) continue;
            const Phase p = static_cast<Phase>(phase);
            costs.push_back({.phase = p,
                             .pass = static_cast<Pass>(pass),
                             .count = t.count,
                             .time = t.time,
                             .hidden = t.hidden,
                             .launch_wait = t.host,
                             .interval = phase_interval(p, t.time, t.sigma, exchange),
                             .bytes = t.bytes,
                             .flops = t.flops,
                             .bottleneck = std::string(name(t.bottleneck))});
        }
    }
    return costs;
}

// One span per phase of each distinct layer, laid out in the order of the step.
void add_spans(const std::vector<PhaseTime>& times, int layer, int count, Pass wanted,
               const Spread& exchange, Seconds& clock, std::vector<Span>& spans) {
    for (const PhaseTime& t : times) {
        if (t.work->pass != wanted) continue;
        const Interval interval = phase_interval(t.work->phase, t.time, t.sigma, exchange);
        if (is_records(*t.work) && t.work->pass == Pass::forward) {
            extend(spans.back(), *t.work, t.time, interval);
            clock += t.time;
            continue;
        }
        spans.push_back({.layer = layer,
                         .pass = t.work->pass,
                         .phase = t.work->phase,
                         .count = count,
                         .begin = clock,
                         .duration = t.time,
                         .low = interval.low,
                         .high = interval.high,
                         .bytes = phase_bytes(*t.work),
                         .flops = phase_flops(*t.work),
                         .bottleneck = std::string(name(t.bottleneck))});
        clock += t.time;
    }
}

std::vector<Span> spans_of(const Workload& workload, const StepTime& step, const Spread& exchange) {
    std::vector<Span> spans;
    Seconds clock;
    for (const Block& block : step_blocks(static_cast<int>(step.layers.size()), 1)) {
        const auto outer = [&](const std::vector<PhaseTime>& times) {
            add_spans(times, -1, 1, block.pass, exchange, clock, spans);
        };
        const auto of_pass = [&](const LayerTime& time) {
            outer((block.pass == Pass::forward ? time.forward : time.backward).phases);
        };
        if (block.kind == BlockKind::before) of_pass(step.before);
        if (block.kind == BlockKind::after) of_pass(step.after);
        if (block.kind == BlockKind::update) outer(step.update);
        if (block.kind != BlockKind::layer) continue;
        const auto i = static_cast<std::size_t>(block.layer);
        const LayerWork& layer = workload.layers[i];
        const LayerTime& time = step.layers[i];
        const Seconds begin = clock;
        add_spans((block.pass == Pass::forward ? time.forward : time.backward).phases,
                  layer.first_layer, layer.count, block.pass, exchange, clock, spans);
        clock = begin + layer.count * (clock - begin);
    }
    if (step.pipeline) add_pipeline_spans(*workload.pipeline, *step.pipeline, spans);
    return spans;
}

// The size of the baseline's step.
StepSize step_size(const Scenario& scenario, const std::vector<Plan>& plans) {
    const auto baseline = std::ranges::find(plans, scenario.baseline, &Plan::name);
    return {
        .num_ranks = scenario.cluster.num_ranks(),
        .sequence_length = scenario.batch.sequence_length,
        .sequences = sequences_of(scenario, baseline == plans.end() ? plans.front() : *baseline)};
}

// Plans whose steps hold another number of sequences than the baseline's.
void note_sizes(const Scenario& scenario, const std::vector<Plan>& plans, Prediction& prediction) {
    for (const Plan& plan : plans) {
        const std::int64_t own = sequences_of(scenario, plan);
        if (own == prediction.size.sequences) continue;
        prediction.notes.push_back(
            fmt::format("plan {}: a step holds {} sequences, the baseline's {}: its speedup is "
                        "that of tokens a "
                        "second; batch.global_batch_size makes steps alike",
                        plan.name, own, prediction.size.sequences));
    }
}

std::string scale_text(DeviceScale scale) {
    if (scale.matmul == 1.0 && scale.memory == 1.0) return "";
    return fmt::format(
        "; matrix rates are taken times {:.3g}, byte rates times {:.3g}, the ratios of "
        "the devices' peaks",
        scale.matmul, scale.memory);
}

StepTime price_with_speeds(const Scenario& scenario, const Plan& plan, const Profile& profile,
                           const std::vector<GroupLoad>& loads, const Workload& workload,
                           PriceBook& book) {
    const ComputeSpeeds speeds = compute_speeds(scenario.cluster);
    if (!speeds.differ()) return price_step({workload, workload, speeds}, profile, book);
    std::vector<GroupLoad> mean;
    for (const GroupLoad& load : loads) mean.push_back(mean_load(load));
    return price_step({workload, build_workload(scenario, plan, mean), speeds}, profile, book);
}

void check_memory(PlanPrediction& plan) {
    const HostMemory& host = plan.memory.host;
    if (host.capacity > Bytes{} && host.node > host.capacity) {
        plan.feasible = false;
        plan.infeasible_because =
            fmt::format("needs {:.1f} GiB of the {:.1f} GiB of host memory of a node",
                        host.node.in(GiB), host.capacity.in(GiB));
    }
    if (plan.memory.peak <= plan.memory.capacity) return;
    plan.feasible = false;
    // The item that broke the limit: the largest one.
    const auto largest = std::max_element(
        plan.memory.items.begin(), plan.memory.items.end(),
        [](const MemoryItem& a, const MemoryItem& b) { return a.bytes < b.bytes; });
    const std::string stage =
        plan.memory.stages.size() > 1 ? fmt::format(" on stage {}", plan.memory.stage) : "";
    plan.infeasible_because = fmt::format(
        "needs {:.1f} GiB of {:.1f} GiB{}, {:.1f} GiB of them reserve; largest item: {} {:.1f} GiB",
        plan.memory.peak.in(GiB), plan.memory.capacity.in(GiB), stage,
        plan.memory.reserve().in(GiB), largest->name, largest->bytes.in(GiB));
}

}  // namespace

PlanPrediction predict_plan(const Scenario& scenario, const Plan& plan, const Profile& profile,
                            const PredictOptions& options) {
    return predict_plan(scenario, plan, profile, options, plan_loads(scenario, plan, options));
}

PlanPrediction predict_plan(const Scenario& scenario, const Plan& plan, const Profile& profile,
                            const PredictOptions& options, const std::vector<GroupLoad>& loads) {
    const Workload workload = build_workload(scenario, plan, loads);
    PriceBook book(profile, scenario.cluster, scenario.model.dtype);
    const StepTime step = price_with_speeds(scenario, plan, profile, loads, workload, book);

    PlanPrediction result{.name = plan.name,
                          .layer_split = std::string(plan.layer_split()),
                          .num_ranks = workload.num_ranks,
                          .parameters = count_parameters(scenario.model, plan).total(),
                          .active_parameters = active_parameters(scenario.model, plan),
                          .peak_flop_rate = scenario.cluster.device.peak(scenario.model.dtype)};
    result.step = step.total;
    const SoftwareTerm software = options.software ? software_term(profile) : SoftwareTerm{};
    result.step_interval =
        widened(interval_of(step.total, book.total_sigma()), step.total, software.step);
    result.curve_sigma = book.sigma_by_curve();
    result.routing_variance = book.independent_variance();
    const double micro = workload.num_micro_batches,
                 stages = plan.parallel.pipeline_model_parallel_size;
    result.tokens_per_second_per_gpu =
        static_cast<double>(sequences_of(scenario, plan) * scenario.batch.sequence_length) /
        workload.num_ranks / step.total.in(second);
    result.model_flop_rate_per_gpu = 3.0 * micro / stages * workload.model_flops / step.total;
    if (step.pipeline) result.pipeline = pipeline_of(*workload.pipeline, *step.pipeline);
    result.moe_forward = step.moe_forward;
    result.moe_backward = step.moe_backward;
    result.moe_forward_interval =
        moe_interval(workload, step, Pass::forward, step.moe_forward, software.layer);
    result.moe_backward_interval =
        moe_interval(workload, step, Pass::backward, step.moe_backward, software.layer);
    result.phases = phase_costs(step, software.exchange);
    for (const PhaseCost& phase : result.phases) result.launch_wait += phase.launch_wait;
    result.traffic = traffic_of(workload, scenario.cluster);
    result.memory =
        predict_memory(scenario, plan, loads, step.pipeline ? &step.pipeline->order : nullptr);
    check_memory(result);
    result.warnings = book.warnings();
    if (options.strict && !result.warnings.empty()) {
        std::vector<InputProblem> problems;
        for (const std::string& w : result.warnings) {
            problems.push_back(
                {.where = "plan " + plan.name, .found = w, .hint = "--strict makes this an error"});
        }
        throw InputError(std::move(problems));
    }
    if (options.timeline) {
        result.timeline = {.source = Source::predicted,
                           .scenario = scenario.name,
                           .plan = plan.name,
                           .layer_split = std::string(plan.layer_split()),
                           .profile = profile.name,
                           .seed = scenario.routing.seed,
                           .spans = spans_of(workload, step, software.exchange)};
    }
    return result;
}

std::vector<std::string> notes_of(const Scenario& scenario, const std::vector<Plan>& plans,
                                  const Profile& profile) {
    std::vector<std::string> all = scenario.notes, once;
    for (std::string& note : unused_keys(scenario, plans)) all.push_back(std::move(note));
    if (contradicts(profile.provenance.device, scenario.cluster.device.name)) {
        all.push_back(fmt::format(
            "profile {} was measured on {}, the cluster has {}: times are not of this machine{}",
            profile.name, profile.provenance.device, scenario.cluster.device.name,
            scale_text(device_scale(profile, scenario.cluster.device))));
    }
    for (std::string& note : all) {
        if (std::find(once.begin(), once.end(), note) == once.end())
            once.push_back(std::move(note));
    }
    return once;
}

namespace {

// Plans without a price are told apart from the others, which are compared with the baseline.
void drop_unpriced(const std::vector<std::optional<MissingCurve>>& missing, bool strict,
                   Prediction& prediction, std::vector<Plan>& plans,
                   std::vector<PlanPrediction>& predicted) {
    std::vector<Plan> priced;
    std::vector<PlanPrediction> prices;
    for (std::size_t i = 0; i < plans.size(); ++i) {
        if (missing[i]) {
            if (strict || plans[i].name == prediction.baseline) throw *missing[i];
            prediction.unpriced.push_back({plans[i].name, missing[i]->what()});
        } else {
            priced.push_back(std::move(plans[i]));
            prices.push_back(std::move(predicted[i]));
        }
    }
    plans = std::move(priced);
    predicted = std::move(prices);
}

}  // namespace

Prediction predict(const Scenario& scenario, const Profile& profile,
                   const PredictOptions& options) {
    Prediction prediction{.scenario = scenario.name,
                          .model = scenario.model.name,
                          .cluster = scenario.cluster.name,
                          .device = scenario.cluster.device.name,
                          .profile = profile.name,
                          .seed = scenario.routing.seed,
                          .baseline = scenario.baseline,
                          .size = {}};
    const auto wanted = [&](const std::string& plan) {
        const auto& only = options.only_plans;
        return only.empty() || std::find(only.begin(), only.end(), plan) != only.end();
    };
    std::vector<Plan> plans;
    for (const Plan& plan : scenario.plans) {
        if (wanted(plan.name) || plan.name == scenario.baseline) plans.push_back(plan);
    }
    if (plans.empty()) return prediction;
    prediction.size = step_size(scenario, plans);
    prediction.notes = notes_of(scenario, plans, profile);
    note_sizes(scenario, plans, prediction);
    const std::vector<std::vector<GroupLoad>> loads = loads_of_plans(scenario, plans, options);
    std::vector<PlanPrediction> predicted(plans.size());
    std::vector<std::optional<MissingCurve>> missing(plans.size());
    for_each_job(plans.size(), options.threads, [&](std::size_t i) {
        try {
            predicted[i] = predict_plan(scenario, plans[i], profile, options, loads[i]);
        } catch (const MissingCurve& error) {
            missing[i] = error;
        }
    });
    drop_unpriced(missing, options.strict, prediction, plans, predicted);
    const auto baseline =
        std::find_if(predicted.begin(), predicted.end(),
                     [&](const PlanPrediction& p) { return p.name == scenario.baseline; });
    if (baseline != predicted.end() && baseline->step > Seconds{}) {
        for (std::size_t i = 0; i < plans.size(); ++i) {
            PlanPrediction& p = predicted[i];
            const double tokens = static_cast<double>(sequences_of(scenario, plans[i])) /
                                  static_cast<double>(prediction.size.sequences);
            p.speedup = tokens * (baseline->step / p.step);
            p.undecided = p.name != baseline->name && is_undecided(p, *baseline, profile);
        }
    }
    for (PlanPrediction& p : predicted) {
        if (wanted(p.name)) prediction.plans.push_back(std::move(p));
    }
    if (prediction.plans.empty()) {
        for (const std::optional<MissingCurve>& error : missing)
            if (error) throw *error;
    }
    return prediction;
}

}  // namespace headway::inline cost
