// Reading and writing of scenarios, models, clusters and profiles. Every problem of the input is
// collected and thrown as one InputError: "file:line:column: found; accepted: ...; hint: ...".
// docs/reference/scenario.md lists every key; it is generated from the same declarations
// (describe.hpp).
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "models/vocab/error.hpp"
#include "models/vocab/scenario.hpp"

namespace headway::inline scenario {

// Where `preset: name` is looked up: DIR/models/name.yaml, DIR/clusters/name.yaml,
// DIR/profiles/name.yaml. The folder of the scenario and its parent are searched first.
struct ReadOptions {
    std::vector<std::filesystem::path> preset_dirs;
    std::vector<std::filesystem::path>* read = nullptr;  // gets the files that were read
};

// The scenarios/ folder beside the running program (installation.hpp).
std::vector<std::filesystem::path> builtin_preset_dirs();

Scenario read_scenario(const std::filesystem::path& path,
                       const ReadOptions& options = {builtin_preset_dirs()});
// The same file, checked the same, but with what is derived left open (resolve.hpp), so that keys
// can be changed before.
Scenario read_open_scenario(const std::filesystem::path& path,
                            const ReadOptions& options = {builtin_preset_dirs()});
// `name` stands for the file in messages; relative paths start at `base_dir`.
Scenario read_scenario_text(std::string_view text, const std::string& name,
                            const std::filesystem::path& base_dir,
                            const ReadOptions& options = {builtin_preset_dirs()});

// A model file: headway's own YAML, or a Hugging Face config.json (by its extension .json), or a
// folder with one. `notes` gets what the config says beyond headway's keys.
ModelSpec read_model(const std::filesystem::path& path,
                     const ReadOptions& options = {builtin_preset_dirs()},
                     std::vector<std::string>* notes = nullptr);
Cluster read_cluster(const std::filesystem::path& path,
                     const ReadOptions& options = {builtin_preset_dirs()});
// A file, or the name of a preset, which has neither folder nor extension.
Cluster read_cluster_or_preset(const std::string& word,
                               const ReadOptions& options = {builtin_preset_dirs()});
Profile read_profile(const std::filesystem::path& path,
                     const ReadOptions& options = {builtin_preset_dirs()});
// A file with the `routing:` of a scenario and nothing else, for a router of these experts.
Routing read_routing(const std::filesystem::path& path, const Moe& moe);

// Fully resolved text: no presets, no references, every default written out. Reading it again gives
// the same value, to the last bit of every number.
std::string to_yaml(const Scenario& scenario);
std::string to_yaml(const ModelSpec& model);
std::string to_yaml(const Cluster& cluster);
std::string to_yaml(const Profile& profile);

// Presets for `headway list`, sorted by kind and name; the first folder that has a name wins.
struct Preset {
    std::string kind;  // "models", "clusters", "profiles"
    std::string name;
    std::filesystem::path path;
};
std::vector<Preset> list_presets(const ReadOptions& options = {builtin_preset_dirs()});
// The file of a preset; InputError with the known names when there is none.
std::filesystem::path find_preset(const std::string& kind, const std::string& name,
                                  const ReadOptions& options = {builtin_preset_dirs()});

}  // namespace headway::inline scenario
