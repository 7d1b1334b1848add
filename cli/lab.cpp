#include "cli/lab.hpp"

#include <fmt/format.h>

#include <fstream>
#include <string_view>
#include <utility>

#include "cli/child_program.hpp"
#include "cli/measured_timelines.hpp"
#include "cli/scenario_options.hpp"
#include "models/report/matrix_file.hpp"
#include "models/scenario/read_scenario.hpp"
#include "models/text/atomic_file.hpp"
#include "models/text/csv_text.hpp"
#include "models/vocab/error.hpp"
#include "runtime/lab/lab_plan.hpp"
#include "runtime/layers/layer_setup.hpp"

namespace headway::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kWarmups = 1;

// The numbers of a column, beside what the first column says.
std::vector<std::pair<std::string, double>> read_column(const fs::path& file,
                                                        std::string_view columns,
                                                        std::size_t column) {
    std::ifstream stream(file);
    LineReader lines(stream, file.string());
    lines.expect(columns, "the columns");
    std::vector<std::pair<std::string, double>> values;
    while (lines.next()) {
        const CsvRow row(lines.line(), columns, lines.where());
        values.emplace_back(row.text(0), row.non_negative(column));
    }
    return values;
}

}  // namespace

Scenario scenario_in_lab(const po::variables_map& values, std::string_view verb) {
    const Scenario whole = load_scenario(values, verb);
    const auto scale = optional_text(values, "scale");
    if (!scale) {
        throw InputError({.where = "--lab",
                          .found = "no --scale",
                          .accepted = "a scale of all bandwidths at which the links bind and not "
                                      "this machine's cores, e.g. --scale 1/400"});
    }
    for (const std::string& sentence : runtime::not_executed(whole)) warn(sentence);
    Scenario cut = runtime::scenario_to_run(whole, 0, whole_number(values, "tokens", 0, 1 << 30));
    cut.cluster = runtime::scaled(cut.cluster, runtime::parse_scale(*scale));
    return cut;
}

void check_layers(const Scenario& scenario, const std::string& hint) {
    const auto refuse = [&](std::string where, std::string found, std::string accepted) {
        throw InputError({.where = std::move(where),
                          .found = std::move(found),
                          .accepted = std::move(accepted),
                          .hint = hint});
    };
    if (bytes_per_element(scenario.model.dtype) < bytes_per_element(Dtype::fp32))
        refuse("model.dtype",
               std::string(kDtypeNames[static_cast<std::size_t>(scenario.model.dtype)]),
               "fp32, which ranks on a CPU exchange");
    const int ranks = scenario.cluster.num_ranks();
    for (const Plan& plan : scenario.plans) {
        if (plan.group_size == ranks) continue;
        refuse("plan " + plan.name,
               fmt::format("groups of {} ranks in a cluster of {}", plan.group_size, ranks),
               "one group: that is what headway-run runs");
    }
}

void no_exchanges(const Scenario& scenario) {
    throw InputError({.where = "scenario " + scenario.name,
                      .found = "no plan whose ranks send each other anything",
                      .accepted = "group_size above 1"});
}

Lab::Lab(const Cluster& cluster) {
    write_file_atomically(file("cluster.yaml"), to_yaml(cluster));
}

LinkBytes Lab::run(const std::string& program, const std::vector<std::string>& options) const {
    const fs::path log = file("log.txt"), counters = file("links.csv");
    std::vector<std::string> words{program_beside("headway-lab"),
                                   file("cluster.yaml").string(),
                                   "--quiet",
                                   "--counters",
                                   counters.string(),
                                   "--",
                                   program_beside(program)};
    words.insert(words.end(), options.begin(), options.end());
    const int status = run_child(words, log);
    if (status != 0) {
        throw InputError({.where = "headway-lab -- " + program,
                          .found = fmt::format("{}: {}", how_ended(status), last_line(log)),
                          .hint = could_not_start(status)
                                      ? "headway-lab and headway-exchange are built with headway, "
                                        "the latter where Gloo is (apt-get install libgloo-dev)"
                                      : ""});
    }
    const auto rows = read_column(counters, "link,bytes_per_s,bytes", 2);
    return {rows.begin(), rows.end()};
}

ExchangeRun Lab::exchange(const std::vector<TrafficMatrix>& matrices, int repeats) const {
    const fs::path times = file("times.csv");
    std::vector<std::string> options{"--warmup",  std::to_string(kWarmups),
                                     "--repeats", std::to_string(repeats),
                                     "-o",        times.string()};
    for (std::size_t m = 0; m < matrices.size(); ++m) {
        const fs::path matrix = file(fmt::format("matrix_{}.csv", m));
        write_file_atomically(matrix, to_text(matrices[m], MatrixFormat::csv));
        options.insert(options.end(), {"--matrix", matrix.string()});
    }
    ExchangeRun result{.seconds = std::vector<std::vector<double>>(matrices.size()),
                       .carried = run("headway-exchange", options)};
    // One matrix after the other, each its repeats.
    const auto seconds = read_column(times, "matrix,repeat,seconds", 2);
    for (std::size_t i = 0; i < seconds.size(); ++i)
        result.seconds.at(i / static_cast<std::size_t>(repeats)).push_back(seconds[i].second);
    for (auto& [link, bytes] : result.carried) bytes /= repeats + kWarmups;
    return result;
}

std::vector<Timeline> Lab::run_layers(const Scenario& scenario, int repeats) const {
    const std::string text = file("scenario.yaml").string();
    write_file_atomically(text, to_yaml(scenario));
    const std::string measured = file("measured.csv").string();
    run("headway-run", {text, "-o", measured, "--warmup", std::to_string(kWarmups), "--repeats",
                        std::to_string(repeats)});
    return read_measured({measured}, scenario);
}

}  // namespace headway::cli
