#include "cli/job_arguments.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <string_view>
#include <utility>

#include "models/import/settings.hpp"
#include "models/scenario/yaml_tree.hpp"
#include "models/vocab/error.hpp"

namespace headway::cli {
namespace {

using Keys = std::vector<std::pair<std::string, std::string>>;

bool holds_maps(const YamlNode& list) {
    return std::ranges::any_of(
        list.items, [](const YamlNode& item) { return item.kind == YamlNode::Kind::map; });
}

// A scalar as it is written, a list of them in brackets; nothing of maps.
std::string text_of(const YamlNode& node) {
    if (node.kind == YamlNode::Kind::scalar)
        return node.is_quoted ? '"' + node.scalar + '"' : node.scalar;
    if (node.kind != YamlNode::Kind::list || holds_maps(node)) return "";
    std::vector<std::string> items;
    for (const YamlNode& item : node.items) items.push_back(text_of(item));
    return fmt::format("[{}]", fmt::join(items, ", "));
}

void add_keys(const YamlNode& node, const std::string& path, Keys& keys) {
    for (std::size_t i = 0; i < node.items.size(); ++i) {
        const YamlNode& item = node.items[i];
        if (node.kind == YamlNode::Kind::list) {
            add_keys(item, path, keys);
            continue;
        }
        keys.emplace_back(path + node.keys[i], text_of(item));
        add_keys(item, path + node.keys[i] + '.', keys);
    }
}

// The keys of a scenario as paths: "plans.parallel.sequence_parallel".
Keys keys_of(const Scenario& scenario) {
    std::vector<InputProblem> problems;
    Keys keys;
    add_keys(parse_yaml(to_yaml(scenario), "scenario", problems), "", keys);
    return keys;
}

bool is_compared(std::string_view key) {
    constexpr std::array names = {std::string_view("model.name"), std::string_view("model.source"),
                                  std::string_view("plans.name")};
    if (std::ranges::find(names, key) != names.end()) return false;
    return key.starts_with("model.") || key.starts_with("batch.") || key.starts_with("plans.");
}

std::string both(std::string_view what, const std::string& ours, const std::string& theirs) {
    return fmt::format("{}: the scenario has {}, the job {}", what, ours, theirs);
}

void compare_keys(const Keys& ours, const Keys& theirs, std::vector<std::string>& differences) {
    const auto value_in = [](const Keys& keys, const std::string& key) {
        const auto found = std::ranges::find(keys, key, &Keys::value_type::first);
        return found == keys.end() ? std::optional<std::string>() : found->second;
    };
    for (const auto& [key, value] : ours) {
        if (!is_compared(key)) continue;
        const auto other = value_in(theirs, key);
        // A batch can be given in two ways; the sequences of a step are compared besides.
        if (other ? *other != value : !key.starts_with("batch."))
            differences.push_back(both(key, value.empty() ? "it" : value, other.value_or("none")));
    }
    for (const auto& [key, value] : theirs) {
        if (is_compared(key) && !key.starts_with("batch.") && !value_in(ours, key))
            differences.push_back(both(key, "none", value.empty() ? "it" : value));
    }
}

// A tokenizer's vocabulary is seldom among the arguments: then the scenario's stands for it.
ImportedJob import_head(const Scenario& scenario, const JobLog& log, const ReadOptions& presets) {
    ImportOptions options{.presets = presets};
    options.machine = scenario.cluster;
    try {
        return import_job_text(log.head, log.file, options);
    } catch (const InputError&) {
        options.vocab_size = scenario.model.vocab_size;
        return import_job_text(log.head, log.file, options);
    }
}

Scenario of_plan(Scenario scenario, const Plan& plan) {
    scenario.plans = {plan};
    return scenario;
}

}  // namespace

ArgumentCheck check_arguments(const Scenario& scenario, const Plan& plan, const JobLog& log,
                              const ReadOptions& presets) {
    ArgumentCheck check;
    const auto own_sequences = sequences_of(scenario, plan);
    const auto compare_sequences = [&](std::int64_t theirs) {
        if (theirs != own_sequences)
            check.contradictions.push_back(
                both("sequences of a step", fmt::to_string(own_sequences), fmt::to_string(theirs)));
    };
    if (!is_megatron_log(log.head) && !is_bridge_log(log.head)) {
        if (log.global_batch_size) compare_sequences(*log.global_batch_size);
        check.summary =
            "the log does not begin with the job's arguments: nothing but its global "
            "batch size was compared with the scenario";
        return check;
    }
    std::optional<ImportedJob> job;
    try {
        job = import_head(scenario, log, presets);
    } catch (const InputError& error) {
        check.summary = fmt::format("the job's arguments were not compared with the scenario: {}",
                                    error.problems().front().to_string());
        return check;
    }
    const int ranks = scenario.cluster.num_ranks(), theirs = job->scenario.cluster.num_ranks();
    if (ranks != theirs)
        check.contradictions.push_back(
            both("ranks", fmt::to_string(ranks), fmt::to_string(theirs)));
    compare_sequences(sequences_of(job->scenario, job->scenario.plans.front()));
    compare_keys(keys_of(of_plan(scenario, plan)), keys_of(job->scenario), check.contradictions);
    check.summary = fmt::format(
        "the scenario was compared with the {}; headway import names {} that it leaves out",
        job->format, job->leftovers.size());
    return check;
}

}  // namespace headway::cli
