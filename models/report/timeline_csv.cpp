#include "models/report/timeline_csv.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "models/text/csv_text.hpp"
#include "models/text/input_file.hpp"
#include "models/vocab/error.hpp"
#include "models/vocab/plan.hpp"

namespace headway::inline report {
namespace {

constexpr std::string_view kMagic = "# headway timeline 1";
constexpr std::string_view kColumns =
    "source,plan,rank,layer,micro_batch,pass,phase,count,begin_s,duration_s,low_s,high_s,bytes,"
    "flops,samples,bottleneck";
constexpr std::size_t kNumColumns = 16;
constexpr std::string_view kLayer = "# layer: ", kLayerColumns = "plan,layer";
constexpr std::string_view kRun = "# run: ";
constexpr std::string_view kSize = "# size: ", kSizeColumns = "plan,ranks,tokens";
constexpr std::string_view kStep = "# step: ", kStepColumns = "plan,step_s,low_s,high_s,samples";
constexpr std::string_view kRunColumns = "plan,clock_mhz,throttle,memory_peak_bytes,graph,in_flow";

void append_row(fmt::memory_buffer& out, std::string_view source, const std::string& plan,
                const Span& s) {
    fmt::format_to(std::back_inserter(out), "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}\n",
                   source, plan, s.rank, s.layer, s.micro_batch, name(s.pass), name(s.phase),
                   s.count, s.begin.in(second), s.duration.in(second), s.low.in(second),
                   s.high.in(second), s.bytes.in(byte), s.flops.in(flop), s.samples,
                   csv_field(s.bottleneck));
}

void append_head(fmt::memory_buffer& out, std::span<const Timeline> timelines) {
    const Timeline none;
    const Timeline& t = timelines.empty() ? none : timelines.front();
    fmt::format_to(std::back_inserter(out),
                   "{}\n# scenario: {}\n# profile: {}\n# version: {}\n# seed: {}\n", kMagic,
                   one_line(t.scenario), one_line(t.profile), one_line(t.version), t.seed);
    std::vector<std::string_view> named;
    for (const Timeline& one : timelines) {
        if (one.layer_split.empty() || std::ranges::find(named, one.plan) != named.end()) continue;
        named.push_back(one.plan);
        fmt::format_to(std::back_inserter(out), "{}{},{}\n", kLayer, csv_field(one.plan),
                       one.layer_split);
    }
    for (const Timeline& one : timelines) {
        if (!one.size || one.source != Source::measured || one.spans.empty()) continue;
        fmt::format_to(std::back_inserter(out), "{}{},{},{}\n", kSize, csv_field(one.plan),
                       one.size->num_ranks, one.size->tokens_per_rank);
    }
    for (const Timeline& one : timelines) {
        if (!one.run || one.source != Source::measured || one.spans.empty()) continue;
        fmt::format_to(std::back_inserter(out), "{}{},{},{},{},{},{}\n", kRun, csv_field(one.plan),
                       one.run->clock_mhz, csv_field(one.run->throttle),
                       one.run->memory_peak.in(byte), one.run->graph ? 1 : 0,
                       one.run->in_flow ? 1 : 0);
    }
    for (const Timeline& one : timelines) {
        if (!one.step || one.source != Source::measured || one.spans.empty()) continue;
        fmt::format_to(std::back_inserter(out), "{}{},{},{},{},{}\n", kStep, csv_field(one.plan),
                       one.step->time.in(second), one.step->low.in(second),
                       one.step->high.in(second), one.step->samples);
    }
    fmt::format_to(std::back_inserter(out), "{}\n", kColumns);
}

bool same_head(const Timeline& a, const Timeline& b) {
    return a.scenario == b.scenario && a.profile == b.profile && a.version == b.version &&
           a.seed == b.seed;
}

Source source_from(const CsvRow& row, std::size_t column) {
    for (std::size_t i = 0; i < kSourceNames.size(); ++i) {
        if (kSourceNames[i] == row.text(column)) return static_cast<Source>(i);
    }
    throw row.error(column, "predicted, simulated, measured");
}

Span read_span(const CsvRow& row) {
    const auto pass = pass_from_name(row.text(5));
    if (!pass) throw row.error(5, "forward, backward, update");
    const auto phase = phase_from_name(row.text(6));
    if (!phase) throw row.error(6, "a phase name such as dispatch, expert, head_scatter");
    return {.rank = row.integer(2, -1),
            .layer = row.integer(3, -1),
            .micro_batch = row.integer(4, 0),
            .pass = *pass,
            .phase = *phase,
            .count = row.integer(7, 1),
            .begin = row.non_negative(8) * second,
            .duration = row.non_negative(9) * second,
            .low = row.non_negative(10) * second,
            .high = row.non_negative(11) * second,
            .bytes = row.non_negative(12) * byte,
            .flops = row.non_negative(13) * flop,
            .samples = row.integer(14, 0),
            .bottleneck = std::string(row.text(15))};
}

using RunStates = std::vector<std::pair<std::string, RunState>>;  // by plan

std::pair<std::string, RunState> read_run(const LineReader& lines) {
    const CsvRow row(std::string_view(lines.line()).substr(kRun.size()), kRunColumns,
                     lines.where());
    const bool has_timing = row.size() == 6;  // files of version 0.1 did not say
    if (!has_timing) row.expect_size(5);
    const auto flag = [&](std::size_t column) {
        const int value = row.integer(column, 0);
        if (value > 1) throw row.error(column, "0 or 1");
        return value == 1;
    };
    return {std::string(row.text(0)),
            {.clock_mhz = row.integer(1, 0),
             .throttle = std::string(row.text(2)),
             .memory_peak = row.non_negative(3) * byte,
             .graph = flag(4),
             .in_flow = has_timing && flag(5)}};
}

using RunSizes = std::vector<std::pair<std::string, RunSize>>;  // by plan

std::pair<std::string, RunSize> read_size(const LineReader& lines) {
    const CsvRow row(std::string_view(lines.line()).substr(kSize.size()), kSizeColumns,
                     lines.where());
    row.expect_size(3);
    return {std::string(row.text(0)),
            {.num_ranks = row.integer(1, 1), .tokens_per_rank = row.integer(2, 1)}};
}

using StepLines = std::vector<std::pair<std::string, StepTimes>>;  // by plan

std::pair<std::string, StepTimes> read_step(const LineReader& lines) {
    const CsvRow row(std::string_view(lines.line()).substr(kStep.size()), kStepColumns,
                     lines.where());
    row.expect_size(5);
    return {std::string(row.text(0)),
            {.time = row.non_negative(1) * second,
             .low = row.non_negative(2) * second,
             .high = row.non_negative(3) * second,
             .samples = row.integer(4, 1)}};
}

using LayerSplits = std::vector<std::pair<std::string, std::string>>;  // by plan

std::pair<std::string, std::string> read_layer(const LineReader& lines) {
    const CsvRow row(std::string_view(lines.line()).substr(kLayer.size()), kLayerColumns,
                     lines.where());
    row.expect_size(2);
    if (std::ranges::find(kLayerSplitNames, row.text(1)) == kLayerSplitNames.end())
        throw row.error(1, fmt::format("{}", fmt::join(kLayerSplitNames, ", ")));
    return {std::string(row.text(0)), std::string(row.text(1))};
}

// What the head says of plans, and of measured runs, beside their spans.
struct RunLines {
    LayerSplits layers;
    RunSizes sizes;
    RunStates states;
    StepLines steps;
};

// The five lines of comments, those of plans and runs, and the column names, in this order and no
// other.
Timeline read_head(LineReader& lines, RunLines& runs) {
    lines.expect(kMagic, "a Timeline CSV of headway");
    Timeline head;
    head.scenario = lines.value_of("# scenario: ");
    head.profile = lines.value_of("# profile: ");
    head.version = lines.value_of("# version: ");
    head.seed = lines.whole_number(lines.value_of("# seed: "));
    bool more = lines.next();
    for (; more && lines.line().starts_with(kLayer); more = lines.next())
        runs.layers.push_back(read_layer(lines));
    for (; more && lines.line().starts_with(kSize); more = lines.next())
        runs.sizes.push_back(read_size(lines));
    for (; more && lines.line().starts_with(kRun); more = lines.next())
        runs.states.push_back(read_run(lines));
    for (; more && lines.line().starts_with(kStep); more = lines.next())
        runs.steps.push_back(read_step(lines));
    lines.expect_line(kColumns, "the column names");
    return head;
}

Timeline& timeline_of(std::vector<Timeline>& timelines, const Timeline& head, Source source,
                      std::string_view plan) {
    for (auto t = timelines.rbegin(); t != timelines.rend(); ++t) {
        if (t->source == source && t->plan == plan) return *t;
    }
    timelines.push_back(head);
    timelines.back().source = source;
    timelines.back().plan = plan;
    return timelines.back();
}

// A plan's kind is the same in all its timelines; a plan without rows may be named.
void give_layers(const LayerSplits& layers, std::vector<Timeline>& timelines) {
    for (const auto& [plan, kind] : layers) {
        for (Timeline& t : timelines) {
            if (t.plan == plan) t.layer_split = kind;
        }
    }
}

// Every line of a run belongs to the measured timeline of its plan.
template <class Values, class Member>
void give(const Values& values, Member member, std::string_view label,
          std::vector<Timeline>& timelines, const std::string& file_name) {
    for (const auto& value : values) {
        const auto t = std::find_if(timelines.begin(), timelines.end(), [&](const Timeline& one) {
            return one.source == Source::measured && one.plan == value.first && !(one.*member);
        });
        if (t == timelines.end()) {
            throw InputError(
                {.where = file_name,
                 .found = fmt::format("a line '{}{}' without measured rows", label, value.first),
                 .accepted = "one for each measured plan at most"});
        }
        (*t).*member = value.second;
    }
}

}  // namespace

void write_timelines(std::ostream& stream, std::span<const Timeline> timelines) {
    constexpr std::size_t kChunk = 1 << 20;
    fmt::memory_buffer out;
    append_head(out, timelines);
    std::size_t num_rows = 0;
    for (const Timeline& t : timelines) {
        if (!same_head(t, timelines.front())) {
            throw std::logic_error(
                "timelines of one file differ in scenario, profile, version or seed");
        }
        const std::string plan = csv_field(t.plan);
        for (const Span& span : t.spans) {
            append_row(out, kSourceNames[static_cast<std::size_t>(t.source)], plan, span);
            if (out.size() < kChunk) continue;
            stream.write(out.data(), static_cast<std::streamsize>(out.size()));
            out.clear();
        }
        num_rows += t.spans.size();
    }
    fmt::format_to(std::back_inserter(out), "# end: {} rows\n", num_rows);
    stream.write(out.data(), static_cast<std::streamsize>(out.size()));
}

std::string timelines_to_csv(std::span<const Timeline> timelines) {
    std::ostringstream stream;
    write_timelines(stream, timelines);
    return stream.str();
}

std::vector<Timeline> read_timelines(std::istream& stream, const std::string& file_name) {
    LineReader lines(stream, file_name);
    RunLines runs;
    const Timeline head = read_head(lines, runs);
    std::vector<Timeline> timelines;
    std::size_t num_rows = 0;
    while (lines.next()) {
        if (lines.line().starts_with("# end: ")) {
            lines.expect_line(fmt::format("# end: {} rows", num_rows),
                              "the number of rows above; the file was cut or edited");
            lines.expect_end();
            give_layers(runs.layers, timelines);
            give(runs.sizes, &Timeline::size, kSize, timelines, file_name);
            give(runs.states, &Timeline::run, kRun, timelines, file_name);
            give(runs.steps, &Timeline::step, kStep, timelines, file_name);
            return timelines;
        }
        const CsvRow row(lines.line(), kColumns, lines.where());
        row.expect_size(kNumColumns);
        const Source source = source_from(row, 0);
        timeline_of(timelines, head, source, row.text(1)).spans.push_back(read_span(row));
        ++num_rows;
    }
    throw InputError(
        {.where = lines.where(),
         .found = fmt::format("the file ends after {} rows without its end mark", num_rows),
         .accepted = "a last line '# end: N rows'",
         .hint = "the run that wrote it was interrupted, or it was copied in part"});
}

std::vector<Timeline> read_timelines(const std::filesystem::path& file) {
    std::ifstream stream = open_input_file(file, "a Timeline CSV of headway");
    return read_timelines(stream, file.string());
}

}  // namespace headway::inline report
