#include "cli/lab.hpp"

#include <fmt/format.h>

#include <fstream>
#include <string_view>
#include <utility>

#include "cli/child_program.hpp"
#include "cli/measured_timelines.hpp"
#include "models/report/atomic_file.hpp"
#include "models/report/csv_text.hpp"
#include "models/report/matrix_file.hpp"
#include "models/scenario/read_scenario.hpp"
#include "models/vocab/error.hpp"

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

Lab::Lab(const Scenario& scenario) : scenario_(scenario) {
    write_file_atomically(file("scenario.yaml"), to_yaml(scenario));
}

LinkBytes Lab::run(const std::string& program, const std::vector<std::string>& options) const {
    const fs::path log = file("log.txt"), counters = file("links.csv");
    std::vector<std::string> words{program_beside("headway-lab"),
                                   "--scenario",
                                   file("scenario.yaml").string(),
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
    ExchangeRun result{.seconds = std::vector<double>(static_cast<std::size_t>(repeats), 0.0),
                       .carried = run("headway-exchange", options)};
    // One matrix after the other, each its repeats.
    const auto seconds = read_column(times, "matrix,repeat,seconds", 2);
    for (std::size_t i = 0; i < seconds.size(); ++i)
        result.seconds[i % result.seconds.size()] += seconds[i].second;
    for (auto& [link, bytes] : result.carried) bytes /= repeats + kWarmups;
    return result;
}

std::vector<Timeline> Lab::run_layers(int repeats) const {
    const std::string measured = file("measured.csv").string();
    run("headway-run", {file("scenario.yaml").string(), "-o", measured, "--warmup",
                        std::to_string(kWarmups), "--repeats", std::to_string(repeats)});
    return read_measured({measured}, scenario_);
}

}  // namespace headway::cli
