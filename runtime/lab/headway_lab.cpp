// headway-lab: the cluster of a scenario on one machine: hosts are network namespaces, links are
// token buckets at a stated scale, and a command runs on every rank.
#include <fmt/format.h>

#include <unistd.h>
#include <algorithm>
#include <boost/program_options.hpp>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "models/report/version.hpp"
#include "models/scenario/read_scenario.hpp"
#include "models/text/atomic_file.hpp"
#include "models/vocab/error.hpp"
#include "runtime/lab/namespaces.hpp"
#include "runtime/process/program.hpp"

namespace headway::runtime {
namespace {

namespace po = boost::program_options;

constexpr std::string_view kUsage =
    R"(headway-lab CLUSTER.yaml --scale 1/40 [options] [-- COMMAND [ARGUMENT...]]

Builds the cluster on this machine and runs COMMAND once on every rank: each GPU, or each node, is a
network namespace, each leaf a bridge, and each NIC, NVLink port and trunk a token bucket at its
bandwidth times the scale. Overrides of links (slow, dead) and of ranks (slow) hold. Ranks find each
other by torchrun's variables (RANK, WORLD_SIZE, MASTER_ADDR, ...). Without a command the map from
links to interfaces is printed and nothing is made. Root is needed, or the right to make namespaces.
Nothing outside the lab is touched, and however it ends nothing of it remains.
Exit codes: 0 done, 2 bad input or no rights, else that of the first rank that failed.

Options)";

po::options_description declare_options() {
    po::options_description options = common_options(kUsage);
    auto add = options.add_options();
    add("cluster", po::value<std::string>(), "cluster file, or a preset of headway list clusters");
    add("scenario", po::value<std::string>(), "the cluster of this scenario file");
    add("scale", po::value<std::string>()->default_value("1"),
        "of every bandwidth, a fraction or a number: 1/40, 0.025");
    add("hosts", po::value<std::string>()->default_value("gpus"),
        "what a host stands for: gpus, or nodes, whose ranks share a host");
    add("nodes", po::value<int>()->default_value(0), "nodes, in place of the cluster's own number");
    add("counters", po::value<std::string>()->default_value(""),
        "write what every link has carried to this CSV");
    add("write", po::value<std::string>()->default_value(""),
        "write the cluster, or the scenario, with the lab's bandwidths to this file: what a run in "
        "the lab is predicted and simulated with");
    add("quiet", "do not print the map");
    return options;
}

HostKind parse_hosts(const std::string& text) {
    if (text == "gpus") return HostKind::gpus;
    if (text == "nodes") return HostKind::nodes;
    throw InputError({.where = "--hosts", .found = "'" + text + "'", .accepted = "gpus, nodes"});
}

// The cluster, and the text of the file that it came from with the scale applied.
struct Input {
    Cluster cluster;
    std::string scaled_text;
};

Input load(const po::variables_map& values, double scale) {
    const bool of_scenario = values.count("scenario") != 0;
    if (values.count("cluster") + values.count("scenario") != 1) {
        throw InputError({.where = "headway-lab",
                          .found = of_scenario ? "a cluster and --scenario" : "no cluster",
                          .accepted = "a cluster file or preset, or --scenario FILE"});
    }
    const int nodes = at_least(values, "nodes", 0);
    if (of_scenario) {
        Scenario scenario = read_scenario(values["scenario"].as<std::string>());
        if (nodes > 0) scenario.cluster.num_nodes = nodes;
        const Cluster cluster = scenario.cluster;
        scenario.cluster = scaled(cluster, scale);
        return {cluster, to_yaml(scenario)};
    }
    Cluster cluster = read_cluster_or_preset(values["cluster"].as<std::string>());
    if (nodes > 0) cluster.num_nodes = nodes;
    return {cluster, to_yaml(scaled(cluster, scale))};
}

int run(const po::variables_map& values, const Launch& launch,
        const std::vector<std::string>& command) {
    const double scale = parse_scale(values["scale"].as<std::string>());
    const Input input = load(values, scale);
    const LabRun lab{
        .plan = plan_lab(input.cluster,
                         {.scale = scale, .hosts = parse_hosts(values["hosts"].as<std::string>())}),
        .command = command,
        .environment = launch.environment,
        .counters = values["counters"].as<std::string>()};
    if (command.empty() && !lab.counters.empty()) {
        throw InputError({.where = "--counters",
                          .found = "no command whose bytes could be counted",
                          .accepted = "-- COMMAND at the end"});
    }
    const std::string written = values["write"].as<std::string>();
    if (!written.empty()) write_file_atomically(written, input.scaled_text);
    if (!values.count("quiet"))
        std::fputs(describe(lab.plan).c_str(), command.empty() ? stdout : stderr);
    return command.empty() ? 0 : run_lab(lab);
}

}  // namespace
}  // namespace headway::runtime

int main(int argc, char** argv) {
    using namespace headway::runtime;
    const auto options = declare_options();
    char** const end = argv + argc;
    char** const dashes =
        std::find_if(argv, end, [](const char* a) { return std::string_view(a) == "--"; });
    const std::vector<std::string> command(dashes == end ? end : dashes + 1, end);
    return run_program({.name = "headway-lab",
                        .version = headway::version(),
                        .options = options,
                        .positional = {"cluster"},
                        .run = [&](const auto& values,
                                   const Launch& launch) { return run(values, launch, command); }},
                       static_cast<int>(dashes - argv), argv, environ);
}
