// A file of the corpus with its options: NAME.ext beside NAME.options, a line each such as
// "gpus 64", "set TP=2" or "argument --bf16".
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "models/import/import_job.hpp"

namespace headway {

inline const std::filesystem::path kImportTests =
    std::filesystem::path(HEADWAY_SOURCE_DIR) / "tests" / "import";

inline std::string file_text(const std::filesystem::path& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

inline ImportOptions options_beside(const std::filesystem::path& job) {
    ImportOptions options{.presets = {{kImportTests / "presets"}}};
    std::ifstream lines(std::filesystem::path(job).replace_extension(".options"));
    for (std::string line; std::getline(lines, line);) {
        const std::size_t blank = line.find(' ');
        const std::string key = line.substr(0, blank), value = line.substr(blank + 1);
        const auto number = [&] { return std::atoi(value.c_str()); };
        if (key == "cluster") options.cluster = value;
        if (key == "model") options.model = value;
        if (key == "gpus") options.num_ranks = number();
        if (key == "vocab-size") options.vocab_size = number();
        if (key == "head-parallel-twin") options.head_parallel_twin = number();
        if (key == "argument") options.surroundings.arguments.push_back(value);
        if (key == "set") {
            const std::size_t equals = value.find('=');
            options.surroundings.variables[value.substr(0, equals)] = value.substr(equals + 1);
        }
    }
    return options;
}

inline bool is_job(const std::filesystem::path& path) {
    const std::string extension = path.extension().string();
    return extension != ".options" && extension != ".expected" && extension != ".md";
}

// Messages name files as the user wrote them; here relative to the folder of the corpus.
inline std::string without_folder(std::string text, const std::filesystem::path& folder) {
    const std::string prefix = folder.string() + '/';
    for (std::size_t at = text.find(prefix); at != std::string::npos; at = text.find(prefix))
        text.erase(at, prefix.size());
    return text;
}

// What is written or, after "refused: ", the message.
inline std::string outcome(const std::filesystem::path& path) {
    try {
        return without_folder(to_yaml(import_job(path, options_beside(path)).scenario),
                              path.parent_path());
    } catch (const InputError& error) {
        return "refused: " + without_folder(error.what(), path.parent_path()) + '\n';
    }
}

}  // namespace headway
