// The options of every verb that reads a scenario: the file itself, --profile and --presets.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "cli/options.hpp"
#include "models/scenario/read_scenario.hpp"
#include "models/vocab/prediction.hpp"
#include "models/vocab/scenario.hpp"

namespace headway::cli {

// Adds "scenario" (to be named in CommandHelp::positional), "profile" and "presets".
void add_scenario_options(po::options_description& options);

// --presets DIR is searched before the built-in folders.
ReadOptions read_options(const po::variables_map& values);

// The scenario with the profile of --profile, if given, in place of its own.
Scenario load_scenario(const po::variables_map& values, std::string_view verb);

// The same of another file than the verb's own.
Scenario load_scenario_file(const po::variables_map& values, const std::filesystem::path& file);

// The same with what is derived left open, for verbs that change keys; the profile may be absent.
Scenario load_open_scenario(const po::variables_map& values, std::string_view verb);

// One line on standard error for each key that no number depends on, for verbs whose result has no
// place for notes.
void print_unused_keys(Scenario scenario);

// One line on standard error for each plan whose curves the profile lacks.
void warn_of_unpriced(const Prediction& prediction);

// Every plan has a price and the memory it needs.
bool all_can_run(const Prediction& prediction);

// A profile file, or the name of a preset.
Profile load_profile(const std::string& file_or_preset, const ReadOptions& options);

// The plan of --plan, which may be left out where there is one.
const Plan& plan_named(const Scenario& scenario, const po::variables_map& values,
                       std::string_view verb);

// InputError if neither the scenario nor --profile gave one.
const Profile& profile_of(const Scenario& scenario);

}  // namespace headway::cli
