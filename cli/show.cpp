// headway show: a scenario or a preset, fully resolved: every default written out.
#include <fmt/format.h>

#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "cli/options.hpp"
#include "cli/output.hpp"
#include "cli/scenario_options.hpp"

namespace headway::cli {
namespace {

namespace fs = std::filesystem;

CommandHelp show_help() {
    return {.usage = "show SCENARIO.yaml|KIND/NAME|config.json [options]",
            .about =
                "Prints a scenario as headway understands it: presets and files inlined, every\n"
                "default written out, what was assumed as comments. The output is itself a\n"
                "scenario that gives the same results. KIND/NAME shows a preset of headway list;\n"
                "a Hugging Face config.json, or the folder of one, is shown as a model file.",
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

// A Hugging Face config.json, or the folder of one.
bool is_model(const fs::path& word) {
    std::error_code ignored;
    return word.extension() == ".json" || fs::exists(word / "config.json", ignored);
}

std::string model_text(const fs::path& file, const ReadOptions& options) {
    std::vector<std::string> notes;
    const ModelSpec model = read_model(file, options, &notes);
    std::string text;
    for (const std::string& note : notes) text += fmt::format("# {}\n", note);
    return text + to_yaml(model);
}

std::string text_of(const fs::path& word, const po::variables_map& values) {
    if (is_preset(word)) {
        return preset_text(word.parent_path().string(), word.filename().string(),
                           read_options(values));
    }
    if (is_model(word)) return model_text(word, read_options(values));
    return to_yaml(load_scenario(values, "show"));
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
    write_result(text_of(word, *values), optional_text(*values, "out"));
    return kDone;
}

}  // namespace headway::cli
