// headway alltoall: one uneven all-to-all, given as a matrix of bytes, on a cluster. The answer
// comes with a bound that no schedule can beat, and with what every link carried.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/options.hpp"
#include "cli/output.hpp"
#include "cli/resources.hpp"
#include "cli/scenario_options.hpp"
#include "models/report/matrix_file.hpp"
#include "models/report/version.hpp"
#include "models/text/human.hpp"
#include "models/text/text_table.hpp"
#include "models/vocab/error.hpp"
#include "sim/all_to_all.hpp"

namespace headway::cli {
namespace {

using Json = nlohmann::ordered_json;

CommandHelp alltoall_help() {
    return {
        .usage = "alltoall --matrix FILE --cluster FILE|NAME [options]",
        .about =
            "How long one all-to-all takes when all messages start at once and share links\n"
            "fairly. The matrix has a row a sender, in bytes: CSV, or the matrix file of\n"
            "nccl-tests' alltoallv_perf. Latency is not counted. Exit code 1 if a message needs a\n"
            "dead link.",
        .examples =
            "  headway matrix scenarios/deepseek_v3_256.yaml --plan ep_naive --out m.csv\n"
            "  headway alltoall --matrix m.csv --cluster dgx_h100 --nodes 8\n"
            "  headway alltoall --matrix m.csv --cluster c.yaml --epsilon 1e-3 --format json",
        .positional = {}};
}

po::options_description alltoall_options() {
    po::options_description options("Options");
    const auto text = [](const char* name) { return po::value<std::string>()->value_name(name); };
    options.add_options()("matrix", text("FILE"), "bytes from each rank (row) to each rank")(
        "cluster", text("FILE|NAME"), "a cluster file, or a preset of headway list clusters")(
        "nodes", po::value<int>()->default_value(0)->value_name("N"),
        "nodes, in place of the cluster's own number; 0: keep it")(
        "presets", text("DIR"), "folder with clusters/, searched before the shipped one")(
        "epsilon", po::value<double>()->default_value(0.0)->value_name("E"),
        "messages that end within E of the whole time count as ending together; 0: exact")(
        "ecmp-seed", po::value<int>()->default_value(0)->value_name("N"),
        "which hash puts flows on uplinks (ecmp spraying)")(
        "format", text("FORMAT")->default_value("table"), "table, json or csv (links)")(
        "out,o", text("FILE"), "write there instead of to standard output")("help,h", "this text");
    return options;
}

Cluster load_cluster(const po::variables_map& values) {
    Cluster cluster =
        read_cluster_or_preset(required(values, "cluster", "alltoall"), read_options(values));
    const int nodes = whole_number(values, "nodes", 0, 1'000'000);
    if (nodes > 0) cluster.num_nodes = nodes;
    return cluster;
}

void check_size(const TrafficMatrix& matrix, const Cluster& cluster, const std::string& file) {
    if (matrix.num_ranks == cluster.num_ranks()) return;
    throw InputError(InputProblem{
        .where = file,
        .found = fmt::format("a matrix of {} ranks", matrix.num_ranks),
        .accepted = fmt::format("{} ranks: {} nodes of {} GPUs", cluster.num_ranks(),
                                cluster.num_nodes, cluster.gpus_per_node),
        .hint = matrix.num_ranks % cluster.gpus_per_node == 0
                    ? fmt::format("--nodes {}", matrix.num_ranks / cluster.gpus_per_node)
                    : ""});
}

Json links_json(const sim::AllToAllResult& result) {
    Json links = Json::array();
    for (const sim::LinkUse& l : result.links) {
        links.push_back({{"name", l.name},
                         {"bytes_per_s", l.capacity.in(byte / second)},
                         {"bytes", l.bytes.in(byte)},
                         {"busy_s", l.busy.in(second)}});
    }
    return links;
}

std::string unreachable_text(const sim::AllToAllResult& r) {
    return sim::DeadPath(*r.unreachable).what();
}

std::string to_json(const sim::AllToAllResult& r, double cpu_s) {
    if (r.unreachable) {
        return Json{{"feasible", false},
                    {"infeasible_because", unreachable_text(r)},
                    {"unreachable",
                     {{"source", r.unreachable->source},
                      {"destination", r.unreachable->destination},
                      {"link", r.unreachable->link}}},
                    {"version", version()}}
                   .dump(2) +
               "\n";
    }
    return Json{{"feasible", true},
                {"completion_s", r.completion.in(second)},
                {"mean_flow_completion_s", r.mean_flow_completion.in(second)},
                {"flows", r.flows},
                {"instants", r.instants},
                {"lower_bound_s", r.lower_bound.in(second)},
                {"error_bound_s", r.error_bound.in(second)},
                {"cpu_s", cpu_s},
                {"peak_rss_bytes", peak_rss_bytes()},
                {"version", version()},
                {"links", links_json(r)}}
               .dump(2) +
           "\n";
}

std::string to_csv(const sim::AllToAllResult& r) {
    std::string text = "link,bytes_per_s,bytes,busy_s\n";
    for (const sim::LinkUse& l : r.links) {
        text += fmt::format("{},{},{},{}\n", l.name, l.capacity.in(byte / second), l.bytes.in(byte),
                            l.busy.in(second));
    }
    return text;
}

std::string to_table(const sim::AllToAllResult& r) {
    if (r.unreachable) return fmt::format("cannot be done: {}\n", unreachable_text(r));
    std::string text = fmt::format(
        "done after {}; a message takes {} on average; no schedule is faster than {}\n"
        "{} messages, {} instants at which rates changed",
        human(r.completion), human(r.mean_flow_completion), human(r.lower_bound),
        grouped(static_cast<double>(r.flows)), grouped(static_cast<double>(r.instants)));
    text += r.error_bound > Seconds{} ? fmt::format("; within {}\n\n", human(r.error_bound))
                                      : "; exact\n\n";
    std::vector<sim::LinkUse> links = r.links;
    std::ranges::stable_sort(links, [](const sim::LinkUse& a, const sim::LinkUse& b) {
        return a.bytes / a.capacity > b.bytes / b.capacity;
    });
    TextTable table{.head = {"busiest links", "bytes", "busy", "of its capacity"}, .rows = {}};
    for (const sim::LinkUse& l : links) {
        if (table.rows.size() == 10) break;
        table.rows.push_back(
            {l.name, human(l.bytes), human(l.busy),
             fmt::format("{:.1f} %", 100.0 * (l.bytes / l.capacity / r.completion))});
    }
    return text + table.to_string();
}

}  // namespace

int run_alltoall(Args args) {
    const auto values = parse_options(args, alltoall_help(), alltoall_options());
    if (!values) return kDone;
    const std::string format =
        one_of((*values)["format"].as<std::string>(), {"table", "json", "csv"}, "--format");
    const double epsilon = (*values)["epsilon"].as<double>();
    if (!(epsilon >= 0.0 && epsilon <= 1.0)) {
        throw InputError(InputProblem{.where = "--epsilon",
                                      .found = fmt::format("{}", epsilon),
                                      .accepted = "a number from 0 (exact) to 1",
                                      .hint = ""});
    }
    const std::string file = required(*values, "matrix", "alltoall");
    const Cluster cluster = load_cluster(*values);
    const TrafficMatrix matrix = read_matrix(file);
    check_size(matrix, cluster, file);
    const double before = cpu_seconds();
    const sim::Topology topology(
        cluster, static_cast<std::uint64_t>(whole_number(*values, "ecmp-seed", 0, 2'000'000'000)));
    const sim::AllToAllResult result = sim::all_to_all(topology, matrix, {.epsilon = epsilon});
    const double cpu_s = cpu_seconds() - before;
    const std::string text = format == "json"
                                 ? to_json(result, cpu_s)
                                 : (format == "csv" ? to_csv(result) : to_table(result));
    if (result.unreachable && format == "csv")
        fmt::print(stderr, "headway: {}\n", unreachable_text(result));
    write_result(text, optional_text(*values, "out"));
    return result.unreachable ? kNegative : kDone;
}

}  // namespace headway::cli
