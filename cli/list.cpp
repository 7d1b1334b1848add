// headway list: the presets that a scenario can name, with what each says of itself.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "cli/options.hpp"
#include "cli/output.hpp"
#include "cli/scenario_options.hpp"

namespace headway::cli {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kKinds = {"models", "clusters", "profiles", "scenarios"};

// The first comment line of a file that is not for editors; by custom it says what the file is.
std::string summary_of(const fs::path& file) {
    std::ifstream stream(file);
    std::string line;
    do {
        if (!std::getline(stream, line) || !line.starts_with("#")) return "";
    } while (line.find("yaml-language-server") != std::string::npos);
    line.erase(0, line.find_first_not_of("# "));
    return line.size() <= 72 ? line : line.substr(0, 69) + "...";
}

// The scenarios are ready to run, so they are named by path; presets by their name.
std::vector<std::pair<std::string, fs::path>> shipped_scenarios(const ReadOptions& options) {
    std::vector<std::pair<std::string, fs::path>> found;
    for (const fs::path& folder : options.preset_dirs) {
        std::error_code ignored;
        for (const auto& entry : fs::directory_iterator(folder, ignored)) {
            const fs::path& path = entry.path();
            if (path.extension() != ".yaml") continue;
            const std::string near = fs::proximate(path, ignored).string();
            const std::string full = path.lexically_normal().string();
            found.emplace_back(near.size() < full.size() ? near : full, path);
        }
        if (!found.empty()) break;
    }
    std::sort(found.begin(), found.end());
    return found;
}

std::string names_only(const std::string& kind, const ReadOptions& options) {
    std::string text;
    for (const Preset& preset : list_presets(options)) {
        if (preset.kind == kind) text += preset.name + '\n';
    }
    return text;
}

std::string describe(const std::string& kind, const ReadOptions& options) {
    std::vector<std::pair<std::string, fs::path>> found;
    if (kind == "scenarios") found = shipped_scenarios(options);
    for (const Preset& preset : list_presets(options)) {
        if (preset.kind == kind) found.emplace_back(preset.name, preset.path);
    }
    std::size_t width = 0;
    for (const auto& [name, path] : found) width = std::max(width, name.size());
    std::string text = kind + "\n";
    for (const auto& [name, path] : found) {
        std::string line = fmt::format("  {:<{}}  {}", name, width, summary_of(path));
        line.erase(line.find_last_not_of(' ') + 1);
        text += line + '\n';
    }
    return found.empty() ? text + "  none\n" : text;
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
        "presets", po::value<std::string>()->value_name("DIR"), "folder of presets")(
        "names", po::bool_switch(), "names of presets only, one a line")("help,h", "this text");
    const auto values = parse_options(args, help, options);
    if (!values) return kDone;
    const auto chosen = optional_text(*values, "kind");
    if (chosen) one_of(*chosen, kKinds, "headway list");
    const ReadOptions read = read_options(*values);
    std::string text;
    for (const std::string& kind : kKinds) {
        if (chosen && *chosen != kind) continue;
        if ((*values)["names"].as<bool>()) {
            text += names_only(kind, read);
            continue;
        }
        if (!text.empty()) text += '\n';
        text += describe(kind, read);
    }
    write_stdout(text);
    return kDone;
}

}  // namespace headway::cli
