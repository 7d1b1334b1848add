// headway show: a scenario or a preset, fully resolved: every default written out.
#include <fmt/format.h>

#include <filesystem>
#include <string>
#include <system_error>

#include "cli/options.hpp"
#include "cli/output.hpp"
#include "cli/scenario_options.hpp"

namespace headway::cli {
namespace {

namespace fs = std::filesystem;

CommandHelp show_help() {
    return {.usage = "show SCENARIO.yaml|KIND/NAME [options]",
            .about =
                "Prints a scenario as headway understands it: presets and files inlined, every\n"
                "default written out, what was assumed as comments. The output is itself a\n"
                "scenario that gives the same results. KIND/NAME shows a preset of headway list.",
            .examples =
                "  headway show scenarios/paper_4gpu.yaml\n"
                "  headway show clusters/dgx_h100",
            .positional = {"scenario"}};
}

// "clusters/dgx_h100" names a preset unless such a file exists.
std::string preset_text(const std::string& kind, const std::string& preset,
                        const ReadOptions& options) {
    if (kind == "models") return to_yaml(read_model(find_preset(kind, preset, options), options));
    if (kind == "clusters") {
        return to_yaml(read_cluster(find_preset(kind, preset, options), options));
    }
    return to_yaml(read_profile(find_preset(kind, preset, options), options));
}

bool is_preset(const fs::path& word) {
    std::error_code ignored;
    const std::string kind = word.parent_path().string();
    return (kind == "models" || kind == "clusters" || kind == "profiles") &&
           !word.has_extension() && !fs::exists(word, ignored);
}

std::string scenario_text(const Scenario& scenario) {
    std::string text;
    for (const std::string& note : scenario.notes) text += fmt::format("# {}\n", note);
    return text + to_yaml(scenario);
}

}  // namespace

int run_show(Args args) {
    po::options_description options("Options");
    add_scenario_options(options);
    options.add_options()("out,o", po::value<std::string>()->value_name("FILE"),
                          "write there instead of to standard output")("help,h", "this text");
    const auto values = parse_options(args, show_help(), options);
    if (!values) return kDone;
    const fs::path word = required(*values, "scenario", "show");
    const std::string text = is_preset(word)
                                 ? preset_text(word.parent_path().string(),
                                               word.filename().string(), read_options(*values))
                                 : scenario_text(load_scenario(*values, "show"));
    write_result(text, optional_text(*values, "out"));
    return kDone;
}

}  // namespace headway::cli
