// headway matrix: the bytes that one MoE layer of a scenario sends between ranks, as a file that
// headway alltoall, nccl-tests or any other tool can replay.
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "cli/options.hpp"
#include "cli/output.hpp"
#include "cli/scenario_options.hpp"
#include "models/report/matrix_file.hpp"
#include "models/vocab/error.hpp"
#include "models/workload/exchange_bytes.hpp"

namespace headway::cli {
namespace {

CommandHelp matrix_help() {
    return {.usage = "matrix SCENARIO.yaml --plan NAME [options]",
            .about =
                "Writes the bytes that every rank sends to every rank in one exchange of one MoE\n"
                "layer: dispatch or combine of EP, head_scatter or head_gather of HP. The matrix\n"
                "covers the whole cluster, or one group. For nccl-tests:\n"
                "  NCCL_TESTS_ALLTOALLV_MATRIX_FILE=m.txt alltoallv_perf -b SIZE -e SIZE -a 3\n"
                "with SIZE at least the most that a rank sends or receives; it rounds every value\n"
                "down to a multiple of 16.",
            .examples =
                "  headway matrix scenarios/paper_4gpu.yaml --plan ep_naive\n"
                "  headway matrix scenarios/paper_4gpu.yaml --plan ep_naive --layer 3 \\\n"
                "      --format nccl-tests --out m.txt",
            .positional = {"scenario"}};
}

po::options_description matrix_options() {
    po::options_description options("Options");
    add_scenario_options(options);
    const auto text = [](const char* name) { return po::value<std::string>()->value_name(name); };
    const auto number = [](int value) {
        return po::value<int>()->default_value(value)->value_name("N");
    };
    options.add_options()("plan", text("NAME"), "which plan; may be left out when there is one")(
        "layer", number(-1), "which layer, from 0; -1: the first MoE layer")(
        "phase", text("PHASE"), "dispatch (EP) or head_scatter (HP) unless given")(
        "stage", number(0), "of a node-dedup exchange: 0 over the NICs, 1 inside nodes")(
        "group", number(-1), "only this group, numbered from 0; -1: all ranks of the cluster")(
        "sample", number(0), "which draw of the routing")(
        "format", text("FORMAT")->default_value("csv"), "csv or nccl-tests")(
        "out,o", text("FILE"), "write there instead of to standard output")("help,h", "this text");
    return options;
}

const Plan& chosen_plan(const Scenario& scenario, const std::optional<std::string>& wanted) {
    std::vector<std::string> names;
    for (const Plan& plan : scenario.plans) names.push_back(plan.name);
    if (!wanted && names.size() == 1) return scenario.plans.front();
    const std::string name = one_of(wanted.value_or(""), names, "--plan");
    return *std::ranges::find(scenario.plans, name, &Plan::name);
}

Phase chosen_phase(const po::variables_map& values, const Plan& plan) {
    const auto word = optional_text(values, "phase");
    if (!word) return plan.is_head_parallel() ? Phase::head_scatter : Phase::dispatch;
    return *phase_from_name(
        one_of(*word, {"dispatch", "combine", "head_scatter", "head_gather"}, "--phase"));
}

ExchangeTask find_exchange(const Scenario& scenario, const Plan& plan, int layer, Phase phase,
                           int sample) {
    if (auto exchange = layer_exchange(scenario, plan, layer, phase, sample)) return *exchange;
    throw InputError(
        {.where = "headway matrix",
         .found = fmt::format("no {} in layer {} of plan {}", name(phase), layer, plan.name),
         .accepted = "--layer of a MoE layer; --phase dispatch or combine "
                     "(EP), head_scatter or head_gather (HP)"});
}

}  // namespace

int run_matrix(Args args) {
    const auto values = parse_options(args, matrix_help(), matrix_options());
    if (!values) return kDone;
    const std::string format =
        one_of((*values)["format"].as<std::string>(), {"csv", "nccl-tests"}, "--format");
    const Scenario scenario = load_scenario(*values, "matrix");
    const Plan& plan = chosen_plan(scenario, optional_text(*values, "plan"));
    const int layer = whole_number(*values, "layer", -1, scenario.model.all_layers() - 1);
    const ExchangeTask exchange =
        find_exchange(scenario, plan, layer >= 0 ? layer : scenario.model.moe_layer(0),
                      chosen_phase(*values, plan), whole_number(*values, "sample", 0, 1'000'000));
    const int num_ranks = scenario.cluster.num_ranks();
    const auto stage = static_cast<std::size_t>(
        whole_number(*values, "stage", 0, static_cast<int>(exchange.stages.size()) - 1));
    const int group = whole_number(*values, "group", -1, num_ranks / exchange.group_size - 1);
    const TrafficMatrix matrix = group >= 0 ? group_matrix(exchange, stage, group)
                                            : world_matrix(exchange, stage, num_ranks);
    write_result(to_text(matrix, format == "csv" ? MatrixFormat::csv : MatrixFormat::nccl_tests),
                 optional_text(*values, "out"));
    return kDone;
}

}  // namespace headway::cli
