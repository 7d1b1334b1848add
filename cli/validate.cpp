// headway validate: predictions against the shipped, or the user's own, published measurements.
#include "models/validate/validate.hpp"

#include <filesystem>
#include <optional>
#include <string>
#include <system_error>

#include "cli/options.hpp"
#include "cli/output.hpp"
#include "cli/scenario_options.hpp"
#include "models/report/validation_table.hpp"
#include "models/scenario/read_anchors.hpp"
#include "models/vocab/error.hpp"

namespace headway::cli {
namespace {

namespace fs = std::filesystem;

// A file or folder of the user's, or the first preset folder that has anchors.
AnchorSet anchors_at(const std::optional<std::string>& chosen, const ReadOptions& options) {
    std::error_code ignored;
    if (chosen && fs::is_regular_file(*chosen, ignored)) return read_anchors(*chosen, options);
    if (chosen) return read_anchor_folder(*chosen, options);
    for (const fs::path& folder : options.preset_dirs) {
        if (fs::is_directory(folder / "anchors", ignored))
            return read_anchor_folder(folder / "anchors", options);
    }
    throw InputError({.where = "headway validate",
                      .found = "no shipped anchors",
                      .hint = "name a file or folder with --anchors"});
}

std::string formatted(const Validation& validation, const std::string& format, bool verbose) {
    if (format == "markdown") return validation_to_markdown(validation);
    if (format == "csv") return validation_to_csv(validation);
    return validation_to_table(validation,
                               verbose ? ValidationDetail::verbose : ValidationDetail::brief);
}

}  // namespace

int run_validate(Args args) {
    const CommandHelp help{
        .usage = "validate [options]",
        .about =
            "Compares predictions with published measurements: NCCL all-to-all times, exchanges "
            "of\n"
            "DeepEP, MoE layers of Megatron, whole training steps. Prints the signed error of "
            "each\n"
            "and statistics by category. Exit code 1: an anchor is beyond its tolerance.",
        .examples =
            "  headway validate\n  headway validate --verbose\n"
            "  headway validate --anchors my_anchors.yaml --format csv --out errors.csv"};
    po::options_description options("Options");
    options.add_options()("anchors", po::value<std::string>()->value_name("PATH"),
                          "anchor file, or folder of such; left out: the shipped ones")(
        "format", po::value<std::string>()->default_value("table")->value_name("FORMAT"),
        "table, markdown or csv")("verbose", "every size and source")(
        "presets", po::value<std::string>()->value_name("DIR"), "folder of presets")(
        "out", po::value<std::string>()->value_name("FILE"),
        "write there instead of to the terminal")("help,h", "this text");
    const auto values = parse_options(args, help, options);
    if (!values) return kDone;
    const std::string format = one_of((*values)["format"].as<std::string>(),
                                      {"table", "markdown", "csv"}, "headway validate --format");
    const ReadOptions read = read_options(*values);
    const AnchorSet anchors = anchors_at(optional_text(*values, "anchors"), read);
    const AnchorLoader load{
        .profile = [&](const std::string& name) { return load_profile(name, read); },
        .scenario = [&](const fs::path& path) { return read_scenario(path, read); }};
    Validation validation{.results = validate(anchors, load),
                          .statistics = {},
                          .not_expressible = anchors.not_expressible,
                          .spreads = {},
                          .groups = {},
                          .ratios = {},
                          .pairs = {}};
    validation.statistics = statistics(validation.results);
    validation.groups = step_groups(validation.results);
    validation.ratios = ratios(anchors.ratios, validation.results);
    validation.pairs = judge_pairs(validation.results);
    for (const AnchorCategory c :
         {AnchorCategory::exchange, AnchorCategory::layer, AnchorCategory::step}) {
        const Spread spread = software_spread(validation.results, c);
        validation.spreads.push_back({c, spread.low, spread.high});
    }
    write_result(formatted(validation, format, values->contains("verbose")),
                 optional_text(*values, "out"));
    return any_out(validation.results) ? kNegative : kDone;
}

}  // namespace headway::cli
