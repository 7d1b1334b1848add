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
#include "models/cost/program.hpp"
#include "models/report/matrix_file.hpp"
#include "models/vocab/error.hpp"

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

// The forward exchange of this phase (absent: the first that routes tokens) and layer.
const Task& find_exchange(const Program& program, int layer, std::optional<Phase> phase,
                          const std::string& plan) {
    for (const Task& task : program.tasks) {
        const bool wanted =
            phase ? task.phase == *phase
                  : task.phase == Phase::dispatch || task.phase == Phase::head_scatter;
        if (!wanted || (layer >= 0 && task.layer != layer)) continue;
        if (std::holds_alternative<ExchangeTask>(task.work)) return task;
    }
    throw InputError(
        InputProblem{.where = "headway matrix",
                     .found = fmt::format("no such exchange in layer {} of plan {}", layer, plan),
                     .accepted = "--layer of a MoE layer; --phase dispatch or combine "
                                 "(EP), head_scatter or head_gather (HP)",
                     .hint = ""});
}

TrafficMatrix group_matrix(const ExchangeTask& exchange, const ExchangeStage& stage, int group) {
    if (!stage.matrices.empty()) {
        return *stage.matrices[stage.matrices.size() == 1 ? 0 : static_cast<std::size_t>(group)];
    }
    TrafficMatrix matrix(exchange.group_size);
    std::ranges::fill(matrix.bytes, stage.uniform_bytes);
    return matrix;
}

TrafficMatrix world_matrix(const ExchangeTask& exchange, const ExchangeStage& stage,
                           int num_ranks) {
    TrafficMatrix world(num_ranks);
    for (int g = 0; g < num_ranks / exchange.group_size; ++g) {
        const TrafficMatrix matrix = group_matrix(exchange, stage, g);
        const int first = g * exchange.group_size;
        for (int i = 0; i < exchange.group_size; ++i) {
            for (int j = 0; j < exchange.group_size; ++j) {
                world.at(first + i, first + j) = matrix.at(i, j);
            }
        }
    }
    return world;
}

std::optional<Phase> chosen_phase(const po::variables_map& values) {
    const auto word = optional_text(values, "phase");
    if (!word) return std::nullopt;
    return phase_from_name(
        one_of(*word, {"dispatch", "combine", "head_scatter", "head_gather"}, "--phase"));
}

}  // namespace

int run_matrix(Args args) {
    const auto values = parse_options(args, matrix_help(), matrix_options());
    if (!values) return kDone;
    const std::string format =
        one_of((*values)["format"].as<std::string>(), {"csv", "nccl-tests"}, "--format");
    Scenario scenario = load_scenario(*values, "matrix");
    const Plan& plan = chosen_plan(scenario, optional_text(*values, "plan"));
    const int layer = whole_number(*values, "layer", -1, scenario.model.all_layers() - 1);
    // Draws depend on the layer alone, so that later layers need not be drawn.
    const int first_moe = scenario.model.moe_layer(0);
    scenario.batch.num_micro_batches = 1;
    scenario.batch.global_batch_size.reset();
    const Program program = build_program(scenario, plan, profile_of(scenario),
                                          {.sample = whole_number(*values, "sample", 0, 1'000'000),
                                           .num_layers = (layer >= 0 ? layer : first_moe) + 1});
    const Task& task = find_exchange(program, layer, chosen_phase(*values), plan.name);
    const auto& exchange = std::get<ExchangeTask>(task.work);
    const int stage =
        whole_number(*values, "stage", 0, static_cast<int>(exchange.stages.size()) - 1);
    const int group =
        whole_number(*values, "group", -1, program.num_ranks / exchange.group_size - 1);
    const ExchangeStage& work = exchange.stages[static_cast<std::size_t>(stage)];
    TrafficMatrix matrix = group >= 0 ? group_matrix(exchange, work, group)
                                      : world_matrix(exchange, work, program.num_ranks);
    if (work.transposed) matrix = matrix.transposed();
    write_result(to_text(matrix, format == "csv" ? MatrixFormat::csv : MatrixFormat::nccl_tests),
                 optional_text(*values, "out"));
    return kDone;
}

}  // namespace headway::cli
