#include "models/scenario/scenario_axis.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "models/scenario/accepted_text.hpp"
#include "models/scenario/axis_values.hpp"
#include "models/scenario/check_scenario.hpp"
#include "models/scenario/parse_scalar.hpp"
#include "models/scenario/resolve.hpp"

namespace headway::inline scenario {
namespace {

constexpr std::size_t kMaxPoints = 1'000'000'000;

using Target = std::variant<KeyPath, DerivedAxis>;

Target find_target(const Scenario& open, const std::string& name) {
    if (const auto derived = derived_axis(name)) return *derived;
    const std::vector<std::string> names(kDerivedAxisNames.begin(), kDerivedAxisNames.end());
    const bool is_meant = name.starts_with("equal_");
    if (!is_meant) return find_key(open, name);
    const std::string near = did_you_mean(name, names);
    throw InputError({.found = fmt::format("unknown derived axis {}", in_quotes(name)),
                      .accepted = fmt::format("{}", fmt::join(names, ", ")),
                      .hint = near.empty() ? "" : "did you mean '" + near + "'?"});
}

Rule rule_of(const Target& target) {
    if (const auto* derived = std::get_if<DerivedAxis>(&target)) return rule_of(*derived);
    return std::get<KeyPath>(target).rule;
}

const ReferenceKind* reference_of(const Target& target) {
    const auto* path = std::get_if<KeyPath>(&target);
    return path && path->reference ? &*path->reference : nullptr;
}

std::vector<std::string> value_texts(const Target& target, const std::vector<std::string>& texts) {
    const Rule::Kind kind = rule_of(target).kind;
    const bool is_number =
        !reference_of(target) && (kind == Rule::Kind::integer || kind == Rule::Kind::number);
    return expand_values(texts, is_number ? Ranges::allowed : Ranges::none);
}

ScalarValue parse_value(const std::string& text, const Rule& rule) {
    YamlNode node;
    node.kind = YamlNode::Kind::scalar;
    node.scalar = text;
    ParsedScalar parsed = parse_scalar(node, rule);
    if (parsed.value) return std::move(*parsed.value);
    throw InputError({.found = std::move(parsed.found),
                      .accepted = accepted_text(rule),
                      .hint = std::move(parsed.hint)});
}

AxisValue read_part(const std::string& text, ReferenceKind kind, const ReadOptions& options) {
    std::error_code ignored;
    const std::string folder = std::string(kReferenceNames[static_cast<std::size_t>(kind)]) + 's';
    const bool is_file =
        text.find_first_of("/.") != std::string::npos && std::filesystem::exists(text, ignored);
    const std::filesystem::path path =
        is_file ? std::filesystem::path(text) : find_preset(folder, text, options);
    switch (kind) {
        case ReferenceKind::model:
            return {text, std::make_shared<const ModelSpec>(read_model(path, options))};
        case ReferenceKind::cluster:
            return {text, std::make_shared<const Cluster>(read_cluster(path, options))};
        default:
            return {text, std::make_shared<const Profile>(read_profile(path, options))};
    }
}

// Only the profile is too big to copy for every point.
bool changes_profile(const Axis& axis) {
    const auto* path = std::get_if<KeyPath>(&axis.target);
    return path && path->steps.front().name == "profile";
}

void reset(const Sweep& sweep, Scenario& scenario) {
    scenario.model = sweep.base.model;
    scenario.cluster = sweep.base.cluster;
    scenario.batch = sweep.base.batch;
    scenario.routing = sweep.base.routing;
    scenario.plans = sweep.base.plans;
    scenario.baseline = sweep.base.baseline;
    scenario.notes.clear();
    if (std::any_of(sweep.axes.begin(), sweep.axes.end(), changes_profile)) {
        scenario.profile = sweep.base.profile;
    }
}

std::optional<InputProblem> set_value(const Axis& axis, const AxisValue& value,
                                      Scenario& scenario) {
    if (const auto* model = std::get_if<std::shared_ptr<const ModelSpec>>(&value.value))
        scenario.model = **model;
    if (const auto* cluster = std::get_if<std::shared_ptr<const Cluster>>(&value.value))
        scenario.cluster = **cluster;
    if (const auto* profile = std::get_if<std::shared_ptr<const Profile>>(&value.value))
        scenario.profile = **profile;
    const auto* scalar = std::get_if<ScalarValue>(&value.value);
    if (!scalar) return std::nullopt;
    if (const auto* derived = std::get_if<DerivedAxis>(&axis.target)) {
        return apply(*derived, *scalar, scenario);
    }
    if (set_key(scenario, std::get<KeyPath>(axis.target), *scalar)) return std::nullopt;
    return InputProblem{axis.name, "the scenario has nothing that this key belongs to",
                        "a scenario that holds the map, the plan or the kind it is part of", ""};
}

// No axis gives a plan another kind of layer: what it has no place for now it never has.
void check_plan_key(const Scenario& open, const Axis& axis) {
    const auto* path = std::get_if<KeyPath>(&axis.target);
    if (path == nullptr || path->steps.front().name != "plans" || axis.values.empty()) return;
    const auto* value = std::get_if<ScalarValue>(&axis.values.front().value);
    Scenario changed = open;
    if (value == nullptr || set_key(changed, *path, *value)) return;
    throw InputError(
        InputProblem{.found = "a key that this plan has no place for",
                     .accepted = "keys of the plan's own kind, expert_parallel or head_parallel"});
}

}  // namespace

Axis make_axis(const Scenario& open, const SweepAxis& axis, const ReadOptions& options) {
    Axis result{.name = axis.key, .target = find_target(open, axis.key), .values = {}};
    const Rule rule = rule_of(result.target);
    std::set<std::string> seen;
    for (const std::string& text : value_texts(result.target, axis.values)) {
        if (!seen.insert(text).second) {
            throw InputError({.found = fmt::format("the value {} twice", in_quotes(text)),
                              .accepted = "every value once"});
        }
        const ReferenceKind* kind = reference_of(result.target);
        result.values.push_back(kind ? read_part(text, *kind, options)
                                     : AxisValue{text, parse_value(text, rule)});
    }
    check_plan_key(open, result);
    return result;
}

std::vector<InputProblem> check_sweep(const Scenario& open) {
    std::vector<InputProblem> problems;
    std::set<std::string> seen;
    for (std::size_t i = 0; i < open.sweep.size() && problems.size() < 10; ++i) {
        const SweepAxis& axis = open.sweep[i];
        std::string where = fmt::format("sweep[{}].axis", i);
        try {
            if (!seen.insert(axis.key).second) {
                throw InputError({.found = fmt::format("a second axis {}", in_quotes(axis.key)),
                                  .accepted = "every axis once"});
            }
            const Target target = find_target(open, axis.key);
            where = fmt::format("sweep[{}].values", i);
            const Rule rule = rule_of(target);
            for (const std::string& text : value_texts(target, axis.values)) {
                if (!reference_of(target)) parse_value(text, rule);
            }
        } catch (const InputError& error) {
            problems.push_back(error.problems().front());
            problems.back().where = where;
        }
    }
    return problems;
}

std::size_t num_points(const Sweep& sweep) {
    std::size_t points = 1;
    for (const Axis& axis : sweep.axes) {
        points *= axis.values.size();
        if (points <= kMaxPoints) continue;
        throw InputError({.where = "sweep",
                          .found = "too many points",
                          .accepted = fmt::format("at most {}", kMaxPoints)});
    }
    return points;
}

std::vector<std::size_t> value_indices(const Sweep& sweep, std::size_t point) {
    std::vector<std::size_t> indices(sweep.axes.size());
    for (std::size_t i = sweep.axes.size(); i-- > 0;) {
        const std::size_t size = sweep.axes[i].values.size();
        indices[i] = point % size;
        point /= size;
    }
    return indices;
}

std::vector<InputProblem> set_point(const Sweep& sweep, std::size_t point, Scenario& scenario) {
    reset(sweep, scenario);
    std::vector<InputProblem> problems;
    const std::vector<std::size_t> indices = value_indices(sweep, point);
    for (std::size_t i = 0; i < sweep.axes.size(); ++i) {
        const Axis& axis = sweep.axes[i];
        auto problem = set_value(axis, axis.values[indices[i]], scenario);
        if (problem) problems.push_back(std::move(*problem));
    }
    if (!problems.empty()) return problems;
    resolve(scenario);
    const bool has_new_profile = std::any_of(sweep.axes.begin(), sweep.axes.end(), changes_profile);
    return check_scenario(scenario, has_new_profile ? ProfileCheck::full : ProfileCheck::none);
}

}  // namespace headway::inline scenario
