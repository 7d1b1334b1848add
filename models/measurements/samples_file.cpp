#include "models/measurements/samples_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "models/text/csv_text.hpp"
#include "models/text/input_file.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline measurements {
namespace {

constexpr std::string_view kColumns =
    "what,name,pass,path,ranks,size,width,work,seconds,streamed_bytes,launches,part_size,part_work,"
    "layer,own_tokens,tokens,hidden,experts,top_k,expert_width,rows,sent,arrived,mean_size";
constexpr std::size_t kNumColumns = 24, kNumPhaseColumns = 10;
constexpr std::string_view kTitle = "# headway calibration samples: ";

template <class Names>
int index_of(const Names& names, const CsvRow& row, std::size_t column, const char* accepted) {
    const auto it = std::find(names.begin(), names.end(), row.text(column));
    if (it == names.end()) throw row.error(column, accepted);
    return static_cast<int>(it - names.begin());
}

KernelSample kernel_of(const CsvRow& row) {
    const auto pass = pass_from_name(row.text(2));
    if (!pass) throw row.error(2, "forward or backward");
    return {.kernel = static_cast<Kernel>(index_of(kKernelNames, row, 1, "a kernel's name")),
            .pass = *pass,
            .size = row.non_negative(5),
            .width = row.non_negative(6),
            .work = row.non_negative(7),
            .seconds = row.non_negative(8),
            .streamed_bytes = row.non_negative(9),
            .launches = row.integer(10, 0),
            .part_size = row.non_negative(11),
            .part_work = row.non_negative(12)};
}

ExchangeSample exchange_of(const CsvRow& row) {
    return {.collective =
                static_cast<Collective>(index_of(kCollectiveNames, row, 1, "a collective's name")),
            .path = static_cast<PathClass>(index_of(kPathClassNames, row, 3, "a path class")),
            .num_ranks = row.integer(4, 1),
            .sample = {row.non_negative(5), row.non_negative(8), row.non_negative(23)},
            .is_bare = row.text(0) == "bare_exchange"};
}

MeasuredPhase phase_of(const CsvRow& row) {
    const auto pass = pass_from_name(row.text(2));
    const auto phase = phase_from_name(row.text(1));
    if (!pass) throw row.error(2, "forward or backward");
    if (!phase) throw row.error(1, "a phase's name");
    return {.shape = {.layer = static_cast<LayerKind>(
                          index_of(kLayerKindNames, row, 13, "hp, ep or ep_rank")),
                      .phase = *phase,
                      .own_tokens = row.non_negative(14),
                      .tokens = row.non_negative(15),
                      .hidden = row.non_negative(16),
                      .width = row.integer(6, 0),
                      .experts = row.integer(17, 1),
                      .top_k = row.integer(18, 1),
                      .expert_width = row.non_negative(19),
                      .rows = row.non_negative(20),
                      .sent = row.non_negative(21),
                      .arrived = row.non_negative(22)},
            .pass = *pass,
            .seconds = row.non_negative(8)};
}

// Adds the line to `step`; true when it ends the step.
bool add_line(const CsvRow& row, CalibrationSamples& step) {
    const std::string_view what = row.text(0);
    if (what == "done") return true;
    if (what == "kernel") {
        step.kernels.push_back(kernel_of(row));
    } else if (what == "exchange" || what == "bare_exchange") {
        step.exchanges.push_back(exchange_of(row));
    } else if (what == "phase") {
        step.phases.push_back(phase_of(row));
    } else if (what == "launch") {
        step.launch.push_back(row.non_negative(8));
    } else if (what == "count_exchange") {
        step.count_exchange.push_back(row.non_negative(8));
    } else {
        throw row.error(0,
                        "kernel, exchange, bare_exchange, phase, launch, count_exchange or done");
    }
    return false;
}

std::string lines_of(const CalibrationSamples& step) {
    const std::string no_phase(kNumPhaseColumns, ',');
    std::string text;
    for (const KernelSample& s : step.kernels) {
        text += fmt::format("kernel,{},{},,,{},{},{},{},{},{},{},{}{},\n", name(s.kernel),
                            name(s.pass), s.size, s.width, s.work, s.seconds, s.streamed_bytes,
                            s.launches, s.part_size, s.part_work, no_phase);
    }
    for (const ExchangeSample& s : step.exchanges) {
        text +=
            fmt::format("{},{},,{},{},{},,,{},,,,{},{}\n", s.is_bare ? "bare_exchange" : "exchange",
                        name(s.collective), name(s.path), s.num_ranks, s.sample.bytes,
                        s.sample.seconds, no_phase, s.sample.mean_bytes);
    }
    for (const MeasuredPhase& t : step.phases) {
        const PhaseShape& p = t.shape;
        if (!is_row_mover(p.phase)) continue;
        text +=
            fmt::format("phase,{},{},,,,{},,{},,,,,{},{},{},{},{},{},{},{},{},{},\n", name(p.phase),
                        name(t.pass), p.width, t.seconds,
                        kLayerKindNames[static_cast<std::size_t>(p.layer)], p.own_tokens, p.tokens,
                        p.hidden, p.experts, p.top_k, p.expert_width, p.rows, p.sent, p.arrived);
    }
    for (const double t : step.launch)
        text += fmt::format("launch,,,,,,,,{},,,,{},\n", t, no_phase);
    for (const double t : step.count_exchange)
        text += fmt::format("count_exchange,,,,,,,,{},,,,{},\n", t, no_phase);
    return text + "done,,,,,,,,,,,," + no_phase + ",\n";
}

}  // namespace

SamplesFile::SamplesFile(const std::filesystem::path& path, const std::string& configuration)
    : path_(path), lock_(path) {
    std::string text = fmt::format("{}{}\n{}\n", kTitle, configuration, kColumns);
    expect_regular_file(path, "samples of a calibration");
    if (std::filesystem::file_size(path) > 0) {
        std::ifstream in = open_input_file(path, "samples of a calibration");
        LineReader lines(in, path.string());
        lines.expect(std::string(kTitle) + configuration, "samples of this very calibration");
        lines.expect(kColumns, "the columns of calibration samples");
        CalibrationSamples step;
        while (lines.next()) {
            const CsvRow row(lines.line(), kColumns, lines.where());
            row.expect_size(kNumColumns);
            if (!add_line(row, step)) continue;
            text += lines_of(step);
            finished_.push_back(std::move(step));
            step = {};
        }
    }
    // Written anew without the lines of a step that was cut.
    out_.open(path, std::ios::trunc);
    out_ << text << std::flush;
    if (!out_) {
        throw InputError({.where = path.string(),
                          .found = "a file that cannot be written",
                          .accepted = "a writable path"});
    }
}

void SamplesFile::append(const CalibrationSamples& step) {
    out_ << lines_of(step) << std::flush;
    if (!out_) {
        throw InputError({.where = path_.string(),
                          .found = "a full or lost disk",
                          .accepted = "room for the samples"});
    }
    finished_.push_back(step);
}

void append(CalibrationSamples& to, const CalibrationSamples& from) {
    to.kernels.insert(to.kernels.end(), from.kernels.begin(), from.kernels.end());
    to.exchanges.insert(to.exchanges.end(), from.exchanges.begin(), from.exchanges.end());
    to.launch.insert(to.launch.end(), from.launch.begin(), from.launch.end());
    to.count_exchange.insert(to.count_exchange.end(), from.count_exchange.begin(),
                             from.count_exchange.end());
    to.phases.insert(to.phases.end(), from.phases.begin(), from.phases.end());
    if (from.num_multiprocessors > 0) to.num_multiprocessors = from.num_multiprocessors;
    if (from.link > Bandwidth{}) to.link = from.link;
}

}  // namespace headway::inline measurements
