// headway predict: a scenario in; step time, phases, traffic and memory of every plan out.
#include "models/cost/predict.hpp"

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "cli/options.hpp"
#include "cli/output.hpp"
#include "cli/program_options.hpp"
#include "cli/scenario_options.hpp"
#include "models/cost/software.hpp"
#include "models/report/prediction_csv.hpp"
#include "models/report/prediction_json.hpp"
#include "models/report/prediction_table.hpp"
#include "models/report/version.hpp"

namespace headway::cli {
namespace {

CommandHelp predict_help() {
    return {.usage =
                "predict SCENARIO.yaml [options]\n"
                "       headway predict --program P.yaml --cluster C --profile PR [options]",
            .about =
                "Predicts one training step under every plan of the scenario: its time with an\n"
                "interval, where it goes phase by phase, traffic by link class, and memory of the\n"
                "busiest rank. Exit code 1 if a plan does not fit into memory.",
            .examples =
                "  headway predict scenarios/paper_4gpu.yaml\n"
                "  headway predict latent.yaml --against dense.yaml\n"
                "  headway predict scenarios/paper_4gpu.yaml --plan hp --verbose\n"
                "  headway predict scenarios/paper_4gpu.yaml --format csv --out predicted.csv",
            .positional = {"scenario"}};
}

po::options_description predict_options() {
    po::options_description options("Options");
    add_scenario_options(options);
    add_program_options(options);
    options.add_options()("plan", po::value<std::vector<std::string>>()->value_name("NAME"),
                          "only this plan (may be repeated)")(
        "format", po::value<std::string>()->default_value("table")->value_name("FORMAT"),
        "table, json or csv (docs/reference/results_format.md)")(
        "out,o", po::value<std::string>()->value_name("FILE"),
        "write there instead of to standard output")(
        "against", po::value<std::string>()->value_name("FILE"),
        "another scenario, whose baseline every plan is held against, token for token")(
        "samples", po::value<int>()->default_value(0)->value_name("N"),
        "count loads from N sampled routings instead of the closed form")(
        "threads", po::value<int>()->default_value(0)->value_name("N"),
        "threads for the layers' loads; 0: all cores. The result does not depend on it")(
        "strict", po::bool_switch(), "fail where a curve would be used outside its measured range")(
        "verbose,v", po::bool_switch(), "every phase, hidden time, memory items, warnings, notes")(
        "help,h", "this text");
    return options;
}

std::vector<std::string> chosen_plans(const po::variables_map& values, const Scenario& scenario) {
    if (values.count("plan") == 0) return {};
    std::vector<std::string> names;
    for (const Plan& plan : scenario.plans) names.push_back(plan.name);
    auto chosen = values["plan"].as<std::vector<std::string>>();
    for (const std::string& plan : chosen) one_of(plan, names, "--plan");
    return chosen;
}

// The baseline of --against, with the same options.
Rival rival_of(const po::variables_map& values, const std::string& file,
               const Prediction& prediction, const Scenario& scenario, PredictOptions options) {
    const Scenario other = load_scenario_file(values, file);
    options.only_plans = {other.baseline};
    options.timeline = false;
    const Prediction rival = predict(other, profile_of(other), options);
    return held_against(prediction, rival, profile_of(scenario),
                        to_yaml(profile_of(scenario)) == to_yaml(profile_of(other)));
}

std::string formatted(const Prediction& prediction, const std::string& format, bool verbose) {
    if (format == "json") return prediction_to_json(prediction);
    if (format == "csv") return prediction_to_csv(prediction);
    return prediction_to_table(prediction, verbose ? Detail::verbose : Detail::brief);
}

}  // namespace

int run_predict(Args args) {
    const auto values = parse_options(args, predict_help(), predict_options());
    if (!values) return kDone;
    if (has_program(*values, {"format"})) return predict_program_verb(*values);
    const std::string format =
        one_of((*values)["format"].as<std::string>(), {"table", "json", "csv"}, "--format");
    const Scenario scenario = load_scenario(*values, "predict");
    const int threads = whole_number(*values, "threads", 0, 1024);
    const int all_cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    const PredictOptions predict_options{.samples = whole_number(*values, "samples", 0, 1'000'000),
                                         .strict = (*values)["strict"].as<bool>(),
                                         .only_plans = chosen_plans(*values, scenario),
                                         .threads = threads == 0 ? all_cores : threads,
                                         .timeline = format == "csv"};
    Prediction prediction = predict(scenario, profile_of(scenario), predict_options);
    prediction.version = version();
    if (const auto other = optional_text(*values, "against"))
        prediction.rival = rival_of(*values, *other, prediction, scenario, predict_options);
    warn_of_unpriced(prediction);
    write_result(formatted(prediction, format, (*values)["verbose"].as<bool>()),
                 optional_text(*values, "out"));
    return all_can_run(prediction) ? kDone : kNegative;
}

}  // namespace headway::cli
