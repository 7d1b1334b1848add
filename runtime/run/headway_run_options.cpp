#include "runtime/run/headway_run_options.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <string_view>

#include "models/vocab/error.hpp"
#include "runtime/process/program.hpp"
#include "runtime/step/step_options.hpp"

namespace headway::runtime {

namespace po = boost::program_options;

namespace {

constexpr std::string_view kUsage = R"(headway-run SCENARIO.yaml -o measured.csv [options]

Runs the MoE layers of the scenario, forward and backward, on real ranks and writes how long each
phase took on every rank: the same CSV as a prediction, to be compared by `headway verify`. One group
of the plan is run. With --device cpu ranks are threads, or processes that exchange over the network
where torchrun, mpirun, srun or headway-lab started several of this program. With --device cuda they
are processes, started so or here (--ranks N); those that share a GPU get MPS and an equal share of
it. With --steps N whole training steps run, from the embedding to AdamW, free-running; what a plan
asks and a step does not execute is refused. Without, the MoE layers run alone: recompute, overlap
and the like are warned about, and `headway verify` predicts the layers as they were run.
Exit codes: 0 done, 2 bad input, 4 a rank failed or stalled (no file is written).

Options)";

InjectedFault parse_fault(const std::string& text, bool processes) {
    using Kind = InjectedFault::Kind;
    const std::size_t first = text.find(':'), last = text.rfind(':');
    std::map<std::string, Kind> kinds{{"throw", Kind::throws}, {"stall", Kind::stalls}};
    if (processes) kinds.insert({{"kill", Kind::is_killed}, {"stop", Kind::is_stopped}});
    const auto kind = kinds.find(text.substr(0, first));
    const auto phase = phase_from_name(std::string_view(text).substr(last + 1));
    if (first == std::string::npos || first == last || kind == kinds.end() || !phase) {
        throw InputError({.where = "--inject-fault",
                          .found = "'" + text + "'",
                          .accepted = "KIND:RANK:PHASE, e.g. throw:1:expert or stall:0:dispatch"});
    }
    return {.kind = kind->second,
            .rank = std::atoi(text.substr(first + 1, last - first - 1).c_str()),
            .phase = *phase};
}

}  // namespace

po::options_description declare_options() {
    po::options_description options = common_options(kUsage);
    auto add = options.add_options();
    add("scenario", po::value<std::string>(), "scenario file");
    add("out,o", po::value<std::string>(), "measured Timeline CSV, written whole or not at all");
    add("device", po::value<std::string>()->default_value("cpu"), "cpu or cuda");
    add("rendezvous", po::value<std::string>()->default_value(""),
        "processes: HOST:PORT of rank 0 (default: from the launcher)");
    add("device-memory", po::value<double>()->default_value(0.0),
        "cuda: GiB for each rank's layers (default: its share of 85 % of the GPU)");
    add("plan", po::value<std::vector<std::string>>(), "run this plan only; may be repeated");
    add("ranks", po::value<int>()->default_value(0),
        "ranks of the group (default: group_size, on the scenario's nodes; another number: on one "
        "node)");
    add("tokens", po::value<int>()->default_value(0),
        "tokens per rank (default: the scenario's batch)");
    add("layers", po::value<int>()->default_value(1), "MoE layers to run, from the first");
    add("warmup", po::value<int>()->default_value(2),
        "repeats before timing; at least 2 of steps that are replayed as a graph");
    add("repeats", po::value<int>()->default_value(9), "timed repeats");
    add("forward-only", "no backward pass");
    add("no-graph",
        "cuda: enqueue layers in every repeat, also where one could be replayed as a graph");
    add("timing", po::value<std::string>()->default_value(""),
        "cuda: in_flow, passes enqueued as a job enqueues them (default), or isolated, every "
        "exchange "
        "begun when all ranks have arrived, for fitting curves");
    add("exchange", po::value<std::string>()->default_value("nccl"),
        "cuda: nccl, or direct: HP's exchanges are stores into the peers' memory, over NVLink");
    add("matrices", po::value<std::string>()->default_value(""),
        "also write the bytes that every rank sent to every rank, PREFIX_PLAN_PHASE_PASS.csv, as "
        "headway matrix predicts them (the CPU exchanges fp32)");
    add("deadline", po::value<double>()->default_value(60.0),
        "seconds after which a rank without progress is declared stalled");
    add("max-time", po::value<double>()->default_value(1800.0),
        "refuse runs estimated to take longer (seconds)");
    add("inject-fault", po::value<std::string>(),
        "KIND:RANK:PHASE with KIND throw or stall, of processes also kill or stop, to see how a "
        "failing rank is reported");
    add_step_options(options);
    return options;
}

bool on_gpus(const po::variables_map& values) {
    const std::string device = values["device"].as<std::string>();
    if (device == "cpu" || device == "cuda") return device == "cuda";
    throw InputError({.where = "--device", .found = "'" + device + "'", .accepted = "cpu, cuda"});
}

std::vector<Plan> chosen_plans(const Scenario& scenario, const po::variables_map& values) {
    if (!values.count("plan")) return scenario.plans;
    std::vector<std::string> names;
    for (const Plan& plan : scenario.plans) names.push_back(plan.name);
    std::vector<Plan> plans;
    for (const std::string& wanted : values["plan"].as<std::vector<std::string>>()) {
        const auto it = std::find(names.begin(), names.end(), wanted);
        if (it == names.end()) {
            const std::string near = did_you_mean(wanted, names);
            throw InputError({.where = "--plan",
                              .found = "'" + wanted + "'",
                              .accepted = fmt::format("{}", fmt::join(names, ", ")),
                              .hint = near.empty() ? "" : "did you mean '" + near + "'?"});
        }
        plans.push_back(scenario.plans[static_cast<std::size_t>(it - names.begin())]);
    }
    return plans;
}

MeasureOptions measure_options(const po::variables_map& values, bool processes) {
    MeasureOptions options{.num_layers = at_least(values, "layers", 1),
                           .num_warmups = at_least(values, "warmup", 0),
                           .num_repeats = at_least(values, "repeats", 1),
                           .backward = values.count("forward-only") == 0,
                           .graph = values.count("no-graph") == 0};
    const double deadline = seconds_above_zero(values, "deadline");
    const std::string exchange = values["exchange"].as<std::string>();
    options.direct_exchange = exchange == "direct";
    if (exchange != "nccl" && !(options.direct_exchange && on_gpus(values))) {
        throw InputError({.where = "--exchange",
                          .found = "'" + exchange + "'",
                          .accepted = "nccl; direct, with --device cuda"});
    }
    if (const std::string timing = values["timing"].as<std::string>(); !timing.empty()) {
        const auto known = std::find(kTimingNames.begin(), kTimingNames.end(), timing);
        if (known == kTimingNames.end() || !on_gpus(values)) {
            throw InputError({.where = "--timing",
                              .found = "'" + timing + "'",
                              .accepted = "in_flow, isolated, with --device cuda"});
        }
        options.timing = static_cast<Timing>(known - kTimingNames.begin());
    }
    options.threads.deadline = std::chrono::milliseconds(static_cast<long>(deadline * 1e3) + 1);
    if (values.count("inject-fault"))
        options.fault = parse_fault(values["inject-fault"].as<std::string>(), processes);
    return options;
}

}  // namespace headway::runtime
