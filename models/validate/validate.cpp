#include "models/validate/validate.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>
#include <string_view>
#include <utility>

#include "models/cost/predict.hpp"
#include "models/cost/price.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline validation {
namespace {

AnchorCategory category_of(AnchorQuantity quantity, const ModelSpec& model) {
    switch (quantity) {
        case AnchorQuantity::moe_forward:
        case AnchorQuantity::moe_backward:
        case AnchorQuantity::moe_layer:
            return AnchorCategory::layer;
        case AnchorQuantity::phase:
            return AnchorCategory::exchange;
        case AnchorQuantity::peak_memory:
            return AnchorCategory::memory;
        case AnchorQuantity::step:
            break;
    }
    return model.num_moe_layers() > 0 ? AnchorCategory::step : AnchorCategory::dense_step;
}

Verdict judge(double error, double tolerance, bool fitted) {
    if (fitted) return Verdict::fitted;
    if (tolerance <= 0.0) return Verdict::listed;
    return std::abs(error) <= tolerance ? Verdict::pass : Verdict::out;
}

AnchorResult result_of(AnchorCategory category, const std::string& name, double published,
                       double predicted, double tolerance, const Publication& publication,
                       bool fitted = false) {
    const double error = predicted / published - 1.0;
    return {.category = category,
            .name = name,
            .published = published,
            .predicted = predicted,
            .error = error,
            .tolerance = tolerance,
            .verdict = judge(error, tolerance, fitted),
            .publication = publication};
}

void set_interval(AnchorResult& result, const Interval& interval) {
    result.has_interval = true;
    result.low = interval.low.in(second);
    result.high = interval.high.in(second);
}

bool is_point(const TimeCurve& curve, double bytes) {
    return std::any_of(curve.bytes.begin(), curve.bytes.end(),
                       [&](double b) { return std::abs(b / bytes - 1.0) < 1e-6; });
}

// Priced by the code that prices a plan's exchanges, on a machine whose links are those measured.
std::vector<AnchorResult> validate_exchange(const ExchangeAnchor& anchor, const Profile& profile) {
    const Cluster measured{};
    const PriceBook book(profile, measured, Dtype::bf16);
    std::vector<AnchorResult> results;
    for (std::size_t i = 0; i < anchor.bytes.size(); ++i) {
        const double sent = anchor.bytes[i] * (anchor.num_ranks - 1) / anchor.num_ranks;
        PathBytes bytes{};
        bytes[static_cast<std::size_t>(anchor.path)] = sent * byte;
        const PathTime time = book.path_times(bytes, bytes, {}, anchor.num_ranks).front();
        AnchorResult result = result_of(
            anchor.repeat ? AnchorCategory::all_to_all_repeat : AnchorCategory::all_to_all,
            anchor.name, anchor.seconds[i], time.time.in(second), anchor.tolerance,
            anchor.publication, !anchor.repeat && is_point(*time.curve, sent));
        result.buffer = anchor.bytes[i] * byte;
        result.num_warnings = time.extrapolated ? 1 : 0;
        result.configuration = anchor.name;
        result.other_software = profile.provenance.kind == "public";
        set_interval(result, interval_of(time.time, time.curve->residual * time.time.in(second)));
        results.push_back(std::move(result));
    }
    return results;
}

const Plan& plan_of(const Scenario& scenario, const RunAnchor& anchor) {
    for (const Plan& plan : scenario.plans) {
        if (plan.name == anchor.plan) return plan;
    }
    std::vector<std::string> names;
    for (const Plan& plan : scenario.plans) names.push_back(plan.name);
    throw InputError({.where = anchor.scenario.string(),
                      .found = "no plan '" + anchor.plan + "' for anchor '" + anchor.name + "'",
                      .hint = did_you_mean(anchor.plan, names)});
}

const PhaseCost& cost_of_phase(const PlanPrediction& plan, const RunAnchor& anchor) {
    for (const PhaseCost& cost : plan.phases) {
        if (cost.phase == anchor.phase && cost.pass == anchor.pass && cost.count > 0) return cost;
    }
    throw InputError(
        {.where = anchor.scenario.string(),
         .found = "plan '" + anchor.plan + "' has no phase " + std::string(name(anchor.phase))});
}

// One execution of the phase.
Seconds phase_time(const PlanPrediction& plan, const RunAnchor& anchor) {
    const PhaseCost& cost = cost_of_phase(plan, anchor);
    return (cost.time + cost.hidden) / cost.count;
}

Interval phase_interval(const PlanPrediction& plan, const RunAnchor& anchor) {
    const PhaseCost& cost = cost_of_phase(plan, anchor);
    return {(cost.interval.low + cost.hidden) / cost.count,
            (cost.interval.high + cost.hidden) / cost.count};
}

double predicted_value(const PlanPrediction& plan, const RunAnchor& anchor) {
    switch (anchor.quantity) {
        case AnchorQuantity::moe_forward:
            return plan.moe_forward.in(second);
        case AnchorQuantity::moe_backward:
            return plan.moe_backward.in(second);
        case AnchorQuantity::moe_layer:
            return (plan.moe_forward + plan.moe_backward).in(second);
        case AnchorQuantity::phase:
            return phase_time(plan, anchor).in(second);
        case AnchorQuantity::peak_memory:
            return plan.memory.allocated.in(byte);
        case AnchorQuantity::step:
            break;
    }
    return plan.step.in(second);
}

// The interval of the curves alone; memory has none.
std::optional<Interval> predicted_interval(const PlanPrediction& plan, const RunAnchor& anchor) {
    switch (anchor.quantity) {
        case AnchorQuantity::moe_forward:
            return plan.moe_forward_interval;
        case AnchorQuantity::moe_backward:
            return plan.moe_backward_interval;
        case AnchorQuantity::moe_layer:
            return Interval{plan.moe_forward_interval.low + plan.moe_backward_interval.low,
                            plan.moe_forward_interval.high + plan.moe_backward_interval.high};
        case AnchorQuantity::phase:
            return phase_interval(plan, anchor);
        case AnchorQuantity::peak_memory:
            return std::nullopt;
        case AnchorQuantity::step:
            break;
    }
    return plan.step_interval;
}

std::string_view precision_group(Recipe recipe) {
    switch (recipe) {
        case Recipe::none:
            return "BF16";
        case Recipe::tensorwise:
        case Recipe::delayed:
        case Recipe::blockwise:
            return "FP8";
        case Recipe::mxfp8:
            return "MXFP8";
        case Recipe::nvfp4:
            break;
    }
    return "NVFP4";
}

constexpr std::array<std::string_view, 9> kGroups = {"BF16",
                                                     "FP8",
                                                     "MXFP8",
                                                     "NVFP4",
                                                     "no cut but experts",
                                                     "tensor parallel",
                                                     "context parallel",
                                                     "pipeline",
                                                     "sharded parameters"};

std::vector<std::string> groups_of(const Plan& plan) {
    const Parallel& p = plan.parallel;
    std::vector<std::string> groups = {std::string(precision_group(plan.precision.recipe))};
    if (p.tensor_model_parallel_size > 1) groups.emplace_back("tensor parallel");
    if (p.context_parallel_size > 1) groups.emplace_back("context parallel");
    if (p.has_pipeline()) groups.emplace_back("pipeline");
    if (p.data_parallel_sharding_strategy == DataParallelSharding::optim_grads_params)
        groups.emplace_back("sharded parameters");
    if (groups.size() == 1) groups.emplace_back("no cut but experts");
    return groups;
}

AnchorResult validate_run(const RunAnchor& anchor, const Scenario& scenario) {
    if (!scenario.profile) {
        throw InputError({.where = anchor.scenario.string(),
                          .found = "no profile",
                          .hint = "a scenario of an anchor names the profile it is judged with"});
    }
    const Plan& judged = plan_of(scenario, anchor);
    const PlanPrediction plan =
        predict_plan(scenario, judged, *scenario.profile, {.timeline = false, .software = false});
    const bool is_memory = anchor.quantity == AnchorQuantity::peak_memory;
    AnchorResult result =
        result_of(category_of(anchor.quantity, scenario.model), anchor.name,
                  is_memory ? anchor.memory.in(byte) : anchor.time.in(second),
                  predicted_value(plan, anchor), anchor.tolerance, anchor.publication);
    result.quantity = anchor.quantity == AnchorQuantity::phase ? std::string(name(anchor.phase))
                                                               : std::string(name(anchor.quantity));
    result.num_warnings = static_cast<int>(plan.warnings.size());
    result.unseen = anchor.unseen;
    if (result.category == AnchorCategory::step) {
        result.groups = groups_of(judged);
        result.plan = plan;
    }
    result.configuration = anchor.scenario.string();
    result.other_software = scenario.profile->provenance.kind == "public";
    if (const auto interval = predicted_interval(plan, anchor)) set_interval(result, *interval);
    return result;
}

// Nearest rank: the smallest error that at least this share of the errors do not exceed.
double quantile(const std::vector<double>& sorted, double share) {
    return sorted[static_cast<std::size_t>(std::ceil(share * static_cast<double>(sorted.size()))) -
                  1];
}

AnchorStatistics statistics_of(AnchorCategory category, const std::vector<AnchorResult>& results,
                               const std::string& group = "") {
    AnchorStatistics s{.category = category};
    std::vector<double> errors;
    for (const AnchorResult& r : results) {
        if (r.category != category) continue;
        if (!group.empty() && std::find(r.groups.begin(), r.groups.end(), group) == r.groups.end())
            continue;
        if (r.verdict == Verdict::fitted) {
            ++s.fitted;
            continue;
        }
        if (r.has_interval) {
            AnchorStatistics::Coverage& coverage = r.unseen ? s.unseen : s.seen;
            ++coverage.count;
            coverage.inside += r.inside ? 1 : 0;
            coverage.inside_other_software += r.inside_other_software ? 1 : 0;
        }
        s.judged += r.verdict == Verdict::listed ? 0 : 1;
        s.out += r.verdict == Verdict::out ? 1 : 0;
        s.bias += r.error;
        if (std::abs(r.error) > std::abs(s.worst)) s.worst = r.error;
        errors.push_back(std::abs(r.error));
    }
    s.count = static_cast<int>(errors.size());
    if (errors.empty()) return s;
    std::sort(errors.begin(), errors.end());
    s.bias /= s.count;
    s.mean = std::accumulate(errors.begin(), errors.end(), 0.0) / s.count;
    const std::size_t middle = errors.size() / 2;
    s.median = errors.size() % 2 == 1 ? errors[middle] : (errors[middle - 1] + errors[middle]) / 2;
    s.p90 = quantile(errors, 0.9);
    s.p95 = quantile(errors, 0.95);
    return s;
}

// What an interval of this category is widened by.
AnchorCategory spread_category(AnchorCategory category) {
    const bool is_table =
        category == AnchorCategory::all_to_all || category == AnchorCategory::all_to_all_repeat;
    if (is_table) return AnchorCategory::exchange;
    return category == AnchorCategory::dense_step ? AnchorCategory::step : category;
}

// The first word of a source is whose software ran.
std::string software_of(const AnchorResult& result) {
    const std::string& source = result.publication.source;
    return source.substr(0, source.find(' '));
}

bool is_inside(const AnchorResult& r, const Spread& spread) {
    const Interval of_curves{r.low * second, r.high * second};
    const Interval all =
        widened(of_curves, r.predicted * second, r.other_software ? spread : Spread{});
    return r.published >= all.low.in(second) && r.published <= all.high.in(second);
}

void judge_intervals(std::vector<AnchorResult>& results) {
    for (AnchorResult& r : results) {
        if (!r.has_interval) continue;
        const AnchorCategory category = spread_category(r.category);
        r.inside = is_inside(r, software_spread(results, category, [&](const AnchorResult& other) {
                                 return other.configuration == r.configuration;
                             }));
        r.inside_other_software =
            is_inside(r, software_spread(results, category, [&](const AnchorResult& other) {
                          return software_of(other) == software_of(r);
                      }));
    }
}

}  // namespace

// The floor(0.05 n) runs at each end of n are passed over; the prediction itself always lies
// within.
Spread software_spread(const std::vector<AnchorResult>& results, AnchorCategory category,
                       const std::function<bool(const AnchorResult&)>& left_out) {
    std::vector<double> ratios;
    for (const AnchorResult& r : results) {
        if (r.category != category || !r.has_interval || !r.other_software) continue;
        if (!left_out || !left_out(r)) ratios.push_back(r.published / r.predicted);
    }
    if (ratios.empty()) return {};
    std::sort(ratios.begin(), ratios.end());
    const std::size_t n = ratios.size(), beyond = n / 20;
    return {std::min(1.0, ratios[beyond]), std::max(1.0, ratios[n - 1 - beyond])};
}

std::vector<AnchorResult> validate(const AnchorSet& anchors, const AnchorLoader& load) {
    std::vector<AnchorResult> results;
    std::map<std::string, Profile> profiles;
    for (const ExchangeAnchor& anchor : anchors.exchanges) {
        if (!profiles.contains(anchor.profile)) {
            profiles.emplace(anchor.profile, load.profile(anchor.profile));
        }
        for (AnchorResult& r : validate_exchange(anchor, profiles.at(anchor.profile))) {
            results.push_back(std::move(r));
        }
    }
    std::map<std::filesystem::path, Scenario> scenarios;
    for (const RunAnchor& anchor : anchors.runs) {
        if (!scenarios.contains(anchor.scenario)) {
            scenarios.emplace(anchor.scenario, load.scenario(anchor.scenario));
        }
        results.push_back(validate_run(anchor, scenarios.at(anchor.scenario)));
    }
    judge_intervals(results);
    return results;
}

std::vector<AnchorStatistics> statistics(const std::vector<AnchorResult>& results) {
    std::vector<AnchorStatistics> all;
    for (int i = 0; i < kNumAnchorCategories; ++i) {
        const AnchorStatistics s = statistics_of(static_cast<AnchorCategory>(i), results);
        if (s.count + s.fitted > 0) all.push_back(s);
    }
    return all;
}

std::vector<AnchorGroup> step_groups(const std::vector<AnchorResult>& results) {
    std::vector<AnchorGroup> all;
    for (const std::string_view group : kGroups) {
        const std::string name(group);
        const AnchorStatistics s = statistics_of(AnchorCategory::step, results, name);
        if (s.count > 0) all.push_back({name, s});
    }
    return all;
}

bool any_out(const std::vector<AnchorResult>& results) {
    return std::any_of(results.begin(), results.end(),
                       [](const AnchorResult& r) { return r.verdict == Verdict::out; });
}

}  // namespace headway::inline validation
