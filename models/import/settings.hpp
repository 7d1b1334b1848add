// What the file of a training job says, whatever its format: settings by name, each with its place.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/import/shell_script.hpp"
#include "models/scenario/yaml_tree.hpp"

namespace headway::inline importing {

// Whose names the settings have.
enum class Dialect { megatron, torchtitan };

// Line 0 stands for the command line of headway: its column counts the arguments there.
inline constexpr int kCommandLine = 0;
std::vector<Text> words_of_command_line(const std::vector<std::string>& arguments);

// A value as Megatron, YAML or TOML spell it; a flag alone has none.
struct Setting {
    std::string name;      // "num_experts", "parallelism.expert_parallel_degree"
    std::string spelling;  // as the file has it: "--num-experts"
    std::vector<std::string> values;
    Position at;

    std::string text() const;  // the values apart by blanks, gaps as "${TP}"
    // None, False, an empty list: nothing is turned on.
    bool is_off() const;
};

inline constexpr std::string_view kVerlFormat = "launch script of verl";
inline constexpr std::string_view kSwiftFormat = "launch script of ms-swift";

struct JobFile {
    std::string file;  // in messages
    std::string format;
    Dialect dialect = Dialect::megatron;
    std::vector<Setting> settings;
    std::vector<ShellNote> notes;      // of what was not followed
    std::vector<std::string> sources;  // files that it takes in, by Position::file from 1
    int sections = 0;                  // settings of sections that say nothing of a step's work
    std::optional<int> num_ranks, num_nodes, gpus_per_node;
};

// "file:7", or "argument 2 of the command line".
std::string line_of(const JobFile& job, Position at);
// The file that a position is in.
const std::string& file_at(const JobFile& job, Position at);

// "--Num-Experts" is none; "--num-experts" is "num_experts".
std::string setting_name(std::string_view spelling);

// Arguments as on a command line: --name, --name value ..., --name=value, and section.name=value.
std::vector<Setting> arguments_of(const std::vector<Text>& words);

// Adds what stands behind '--' on headway's command line, but for what a script has put in itself
// ("$@").
void add_arguments(const std::vector<std::string>& arguments, JobFile& job);

// ---- Formats. All throw InputError with the place of what they cannot read.

JobFile read_script(std::string_view text, const std::string& file,
                    const ShellSurroundings& surroundings);
// The dump at the head of a Megatron log: "num_layers ........ 32".
JobFile read_megatron_log(std::string_view text, const std::string& file);
bool is_megatron_log(std::string_view text);
// A YAML file: MODEL_ARGS and ENV_VARS, sections of Megatron-Bridge, or flat names; JSON of
// torchtitan is read as YAML too.
JobFile read_job_yaml(std::string_view text, const std::string& file,
                      const ShellSurroundings& surroundings);
// Parts of it: with the files that it takes in, and with ${...} put in.
YamlNode with_includes(const YamlNode& root, const ShellSurroundings& surroundings, JobFile& job);
std::string with_values(const std::string& text, const YamlNode& root,
                        const ShellSurroundings& surroundings, int depth = 0);
// The configuration of Megatron-Bridge inside a log.
bool is_bridge_log(std::string_view text);
JobFile read_bridge_log(std::string_view text, const std::string& file);
JobFile read_torchtitan_toml(std::string_view text, const std::string& file);

}  // namespace headway::inline importing
