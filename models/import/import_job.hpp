// From the file of a training job to a scenario: launch scripts and logs of Megatron-LM, YAML of
// the MoE ModelZoo and of Megatron-Bridge, TOML, JSON and command lines of torchtitan, Hugging Face
// configs. Nothing that the file says is dropped in silence: what headway does not model is a
// leftover with its line.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/import/shell_variables.hpp"
#include "models/scenario/read_scenario.hpp"
#include "models/vocab/scenario.hpp"

namespace headway::inline importing {

// What a file leaves open.
struct ImportOptions {
    ReadOptions presets;
    std::optional<std::string> cluster;  // preset or file
    std::optional<Cluster> machine;      // the same as a value
    std::optional<std::string> model;    // preset, file or Hugging Face config
    std::optional<int> num_ranks, vocab_size, head_parallel_twin;
    ShellSurroundings surroundings;
};

struct ImportedJob {
    Scenario scenario;  // its notes: what was assumed, and every leftover
    std::string format;
    std::vector<std::string> leftovers;  // "file:line: --argument value: why"
    int num_of_no_concern = 0;
};

// InputError with every problem of the file, and everything that it leaves open, at once.
ImportedJob import_job(const std::filesystem::path& path, const ImportOptions& options);
// `file` stands for the file in messages, and by its extension for the format.
ImportedJob import_job_text(std::string_view text, const std::string& file,
                            const ImportOptions& options);

}  // namespace headway::inline importing
