#include "cli/scenario_options.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <vector>

#include "models/cost/unused_keys.hpp"
#include "models/scenario/resolve.hpp"
#include "models/vocab/error.hpp"

namespace headway::cli {

namespace fs = std::filesystem;

namespace {

// On standard error, so that it is seen whatever format and file the result goes to.
void warn_of_other_device(const Scenario& scenario) {
    if (!scenario.profile) return;
    const std::string& measured = scenario.profile->provenance.device;
    const std::string& described = scenario.cluster.device.name;
    if (!contradicts(measured, described)) return;
    std::fputs(fmt::format("headway: warning: profile {} was measured on {}, the cluster has {}\n",
                           scenario.profile->name, measured, described)
                   .c_str(),
               stderr);
}

}  // namespace

void warn_of_unpriced(const Prediction& prediction) {
    for (const UnpricedPlan& plan : prediction.unpriced)
        warn("plan " + plan.name + " has no price: " + plan.because);
}

bool all_can_run(const Prediction& prediction) {
    return prediction.unpriced.empty() &&
           std::all_of(prediction.plans.begin(), prediction.plans.end(),
                       [](const PlanPrediction& plan) { return plan.feasible; });
}

void add_scenario_options(po::options_description& options) {
    options.add_options()("scenario", po::value<std::string>()->value_name("FILE"),
                          "scenario file (YAML)")(
        "profile", po::value<std::string>()->value_name("FILE|NAME"),
        "measured curves of a machine, in place of the scenario's own")(
        "presets", po::value<std::string>()->value_name("DIR"),
        "folder with clusters/, models/, profiles/, searched before the shipped one");
}

ReadOptions read_options(const po::variables_map& values) {
    ReadOptions options{builtin_preset_dirs()};
    const auto chosen = optional_text(values, "presets");
    if (!chosen) return options;
    std::error_code ignored;
    if (!fs::is_directory(*chosen, ignored)) {
        throw InputError({.where = "--presets",
                          .found = "no folder '" + *chosen + "'",
                          .accepted = "a folder with clusters/, models/ and profiles/ in it"});
    }
    options.preset_dirs.insert(options.preset_dirs.begin(), *chosen);
    return options;
}

Profile load_profile(const std::string& file_or_preset, const ReadOptions& options) {
    std::error_code ignored;
    const fs::path path(file_or_preset);
    const bool is_name = !path.has_parent_path() && !path.has_extension();
    if (is_name && !fs::exists(path, ignored)) {
        return read_profile(find_preset("profiles", file_or_preset, options), options);
    }
    return read_profile(path, options);
}

namespace {

template <class Read>
Scenario load(const po::variables_map& values, const fs::path& path, Read read) {
    std::vector<fs::path> files;
    ReadOptions options = read_options(values);
    options.read = &files;
    Scenario scenario = read(path, options);
    const auto profile = optional_text(values, "profile");
    if (profile) scenario.profile = load_profile(*profile, options);
    for (const fs::path& file : files) keep_file(values, file, "what the scenario is made of");
    warn_of_other_device(scenario);
    return scenario;
}

}  // namespace

Scenario load_open_scenario(const po::variables_map& values, std::string_view verb) {
    return load(values, required(values, "scenario", verb),
                [](const fs::path& path, const ReadOptions& options) {
                    return read_open_scenario(path, options);
                });
}

Scenario load_scenario(const po::variables_map& values, std::string_view verb) {
    return load_scenario_file(values, required(values, "scenario", verb));
}

Scenario load_scenario_file(const po::variables_map& values, const fs::path& file) {
    return load(values, file, [](const fs::path& path, const ReadOptions& options) {
        return read_scenario(path, options);
    });
}

void print_unused_keys(Scenario scenario) {
    resolve(scenario.cluster);
    resolve(scenario);
    for (const std::string& text : unused_keys(scenario, scenario.plans)) {
        // Presets describe a machine whole, the links that a scenario does not use included.
        const bool machine = text.starts_with("cluster.") && text.find("_overrides") == text.npos;
        if (!machine) note("note: " + text);
    }
}

const Plan& plan_named(const Scenario& scenario, const po::variables_map& values,
                       std::string_view verb) {
    if (values.count("plan") == 0 && scenario.plans.size() == 1) return scenario.plans.front();
    std::vector<std::string> names;
    for (const Plan& plan : scenario.plans) names.push_back(plan.name);
    if (values.count("plan") == 0) {
        throw InputError({.where = fmt::format("headway {}", verb),
                          .found = "no --plan given",
                          .accepted = fmt::format("{}", fmt::join(names, ", "))});
    }
    const std::string chosen = one_of(values["plan"].as<std::string>(), names, "--plan");
    return *std::find_if(scenario.plans.begin(), scenario.plans.end(),
                         [&](const Plan& plan) { return plan.name == chosen; });
}

const Profile& profile_of(const Scenario& scenario) {
    if (scenario.profile) return *scenario.profile;
    throw InputError({.where = "scenario " + scenario.name,
                      .found = "no profile: nothing says how fast this machine is",
                      .accepted = "a 'profile:' in the scenario, or --profile FILE|NAME",
                      .hint = "headway list profiles names the shipped ones; headway calibrate "
                              "measures your own"});
}

}  // namespace headway::cli
