// headway report: a prediction as one self-contained HTML page. The page is drawn by
// analysis/report.py from the result files that predict and show would write.
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cli/installation.hpp"
#include "cli/options.hpp"
#include "cli/output.hpp"
#include "cli/python.hpp"
#include "cli/scenario_options.hpp"
#include "cli/scratch_folder.hpp"
#include "models/cost/predict.hpp"
#include "models/report/prediction_json.hpp"
#include "models/report/version.hpp"
#include "models/text/input_file.hpp"
#include "models/vocab/error.hpp"

namespace headway::cli {

int run_report(Args args) {
    const CommandHelp help{
        .usage = "report SCENARIO.yaml -o REPORT.html [options]",
        .about =
            "Predicts one training step under every plan and writes one HTML page that needs\n"
            "no other file and no server: plans, timelines, phases, memory, traffic, warnings,\n"
            "assumptions and the scenario in full. A browser with script sorts its tables and\n"
            "holds two plans against each other; without script everything is there as tables.\n"
            "Exit code 1 if a plan does not fit into memory.",
        .examples =
            "  headway report scenarios/paper_4gpu.yaml -o report.html\n"
            "  headway report mine.yaml --profile my_profile.yaml -o report.html\n"
            "  headway report mine.yaml --sweep results.csv -o report.html",
        .positional = {"scenario"}};
    po::options_description options("Options");
    add_scenario_options(options);
    options.add_options()("out,o", po::value<std::string>()->value_name("REPORT.html"),
                          "page to write (required)")(
        "sweep", po::value<std::string>()->value_name("RESULTS.csv"),
        "a sweep of this scenario (headway sweep): the page gets a slider for each axis")(
        "help,h", "this text");
    const auto values = parse_options(args, help, options);
    if (!values) return kDone;
    const std::string out = required(*values, "out", "report");
    const std::optional<std::string> sweep = optional_text(*values, "sweep");
    if (sweep) expect_regular_file(*sweep, "the CSV of headway sweep");
    const Scenario scenario = load_scenario(*values, "report");
    Prediction prediction = predict(scenario, profile_of(scenario));
    prediction.version = version();
    warn_of_unpriced(prediction);
    const std::string python = plain_python();
    const ScratchFolder scratch;
    const std::filesystem::path result = scratch.path() / "prediction.json",
                                text = scratch.path() / "scenario.yaml";
    write_result(prediction_to_json(prediction), result.string());
    write_result(to_yaml(scenario), text.string());
    std::vector<std::string> command = {
        python, report_script().string(), result.string(), "--scenario", text.string(), "-o", out};
    if (sweep) command.insert(command.end(), {"--sweep", *sweep});
    const int code = run_program(command, Chatter::shown);
    if (code != kDone) return code;
    return all_can_run(prediction) ? kDone : kNegative;
}

}  // namespace headway::cli
