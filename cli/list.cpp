// headway list: the presets that a scenario can name, with what each says of itself.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "cli/installation.hpp"
#include "cli/options.hpp"
#include "cli/output.hpp"

namespace headway::cli {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kKinds = {"models", "clusters", "profiles", "scenarios"};

// The first comment line of a file, which by custom says what the file is.
std::string summary_of(const fs::path& file) {
    std::ifstream stream(file);
    std::string line;
    if (!std::getline(stream, line) || line.empty() || line[0] != '#') return "";
    return line.substr(std::min(line.size(), line.find_first_not_of("# ")));
}

std::vector<fs::path> yaml_files(const fs::path& folder) {
    std::vector<fs::path> files;
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder, ignored)) {
        if (entry.path().extension() == ".yaml") files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    return files;
}

std::string describe(const fs::path& folder, const std::string& kind) {
    const auto files = yaml_files(folder);
    std::string text = fmt::format("{} ({})\n", kind, folder.string());
    if (files.empty()) text += "  none\n";
    for (const fs::path& file : files) {
        std::string summary = summary_of(file);
        if (summary.size() > 72) summary = summary.substr(0, 69) + "...";
        text += fmt::format("  {:<24} {}\n", file.stem().string(), summary);
    }
    return text;
}

}  // namespace

int run_list(Args args) {
    const CommandHelp help{
        .usage = "list [KIND] [options]",
        .about =
            "Lists the shipped presets: models, clusters and profiles that a scenario can name,\n"
            "and the shipped scenarios. KIND limits the list to one of them.",
        .examples = "  headway list\n  headway list clusters",
        .positional = {"kind"}};
    po::options_description options("Options");
    options.add_options()("kind", po::value<std::string>()->value_name("KIND"),
                          "models, clusters, profiles or scenarios")(
        "presets", po::value<std::string>()->value_name("DIR"), "folder of presets")("help,h",
                                                                                     "this text");
    const auto values = parse_options(args, help, options);
    if (!values) return kDone;
    const auto chosen = optional_text(*values, "kind");
    if (chosen) one_of(*chosen, kKinds, "headway list");
    const fs::path presets = presets_directory(optional_text(*values, "presets"));
    std::string text;
    for (const std::string& kind : kKinds) {
        if (chosen && *chosen != kind) continue;
        text += (text.empty() ? "" : "\n");
        text += describe(kind == "scenarios" ? presets : presets / kind, kind);
    }
    write_stdout(text);
    return kDone;
}

}  // namespace headway::cli
