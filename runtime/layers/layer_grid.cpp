#include "runtime/layers/layer_grid.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <string_view>

#include "models/text/atomic_file.hpp"
#include "models/text/csv_text.hpp"
#include "models/text/input_file.hpp"
#include "models/vocab/error.hpp"

namespace headway::runtime {
namespace {

constexpr std::string_view kPointColumns =
    "kind,tokens,hidden,heads,head_width,experts,top_k,expert_width,zipf";
constexpr std::size_t kNumPointColumns = 9;
constexpr auto& kKindNames = kLayerKindNames;
constexpr std::string_view kNodeKind = "ep_node";
constexpr int kNodes = 2;

std::string sample_columns() {
    return std::string(kPointColumns) +
           ",ranks,rank,pass,phase,median_us,p10_us,p90_us,bytes,peak_bytes,clock_mhz,throttle";
}

GridPoint point_of(const CsvRow& row) {
    GridPoint p;
    const bool on_nodes = row.text(0) == kNodeKind;
    p.nodes = on_nodes ? kNodes : 1;
    std::size_t kind = on_nodes ? static_cast<std::size_t>(LayerKind::ep_rank) : 0;
    while (!on_nodes && kind < std::size(kKindNames) && row.text(0) != kKindNames[kind]) ++kind;
    if (kind == std::size(kKindNames)) throw row.error(0, "hp, ep, ep_rank or ep_node");
    p.kind = static_cast<LayerKind>(kind);
    p.tokens = row.integer(1, 1);
    p.hidden = row.integer(2, 1);
    p.heads = row.integer(3, 1);
    p.head_width = row.integer(4, 0);
    p.experts = row.integer(5, 1);
    p.top_k = row.integer(6, 1);
    p.expert_width = row.integer(7, 1);
    p.zipf = row.non_negative(8);
    return p;
}

}  // namespace

std::string_view kind_name(const GridPoint& point) {
    return point.nodes > 1 ? kNodeKind : kKindNames[static_cast<std::size_t>(point.kind)];
}

std::vector<GridPoint> read_grid(const std::filesystem::path& file) {
    std::ifstream in = open_input_file(file, "a CSV of layers");
    LineReader lines(in, file.string());
    lines.expect(kPointColumns, "the columns of a grid");
    std::vector<GridPoint> points;
    while (lines.next()) {
        const CsvRow row(lines.line(), kPointColumns, lines.where());
        row.expect_size(kNumPointColumns);
        points.push_back(point_of(row));
    }
    if (points.empty()) throw InputError({.where = file.string(), .found = "no layer"});
    return points;
}

Scenario scenario_of(const Scenario& base, const GridPoint& point, int num_ranks) {
    Scenario s = base;
    s.name = "grid";
    s.model.hidden = point.hidden;
    s.model.moe.num_experts = point.experts;
    s.model.moe.top_k = point.top_k;
    s.model.moe.expert_width = point.expert_width;
    s.batch = {.sequence_length = point.tokens};
    s.routing.skew = point.zipf > 0.0 ? Skew::zipf : Skew::none;
    s.routing.parameter = point.zipf;
    s.cluster.num_nodes = num_ranks % point.nodes == 0 ? point.nodes : 1;
    s.cluster.gpus_per_node = num_ranks / s.cluster.num_nodes;
    s.cluster.fabric.reset();
    if (s.cluster.nvlink) s.cluster.nvlink->domain = s.cluster.gpus_per_node;
    Plan plan{.group_size = num_ranks};
    if (point.kind == LayerKind::hp) {
        plan.name = "hp";
        plan.layer = HeadParallel{.num_heads = point.heads,
                                  .head_width = point.head_width,
                                  .num_experts = point.experts,
                                  .top_k = point.top_k,
                                  .expert_width = point.expert_width};
    } else {
        plan.name = kind_name(point);
        plan.layer = ExpertParallel{.dedup = point.kind == LayerKind::ep ? Dedup::none
                                             : point.nodes > 1           ? Dedup::node
                                                                         : Dedup::rank};
    }
    s.plans = {plan};
    s.baseline = plan.name;
    return s;
}

std::string grid_samples_header() {
    return sample_columns() + "\n";
}

std::string to_csv_line(const GridSample& s) {
    const GridPoint& p = s.point;
    return fmt::format("{},{},{},{},{},{},{},{},{},{},{},{},{},{:.3f},{:.3f},{:.3f},{},{},{},{}\n",
                       kind_name(p), p.tokens, p.hidden, p.heads, p.head_width, p.experts, p.top_k,
                       p.expert_width, p.zipf, s.num_ranks, s.rank, name(s.pass), name(s.phase),
                       s.median_us, s.p10_us, s.p90_us, s.bytes, s.peak_bytes, s.clock_mhz,
                       csv_field(s.throttle));
}

std::vector<GridSample> read_grid_samples(const std::filesystem::path& file) {
    std::ifstream in = open_input_file(file, "a CSV of samples that headway-grid writes");
    LineReader lines(in, file.string());
    const std::string columns = sample_columns();
    lines.expect(columns, "the columns of grid samples");
    std::vector<GridSample> samples;
    while (lines.next()) {
        const CsvRow row(lines.line(), columns, lines.where());
        row.expect_size(kNumPointColumns + 11);
        GridSample s{.point = point_of(row)};
        s.num_ranks = row.integer(9, 1);
        s.rank = row.integer(10, 0);
        const auto pass = pass_from_name(row.text(11));
        const auto phase = phase_from_name(row.text(12));
        if (!pass) throw row.error(11, "forward or backward");
        if (!phase) throw row.error(12, "a phase's name");
        s.pass = *pass;
        s.phase = *phase;
        s.median_us = row.non_negative(13);
        s.p10_us = row.non_negative(14);
        s.p90_us = row.non_negative(15);
        s.bytes = static_cast<std::int64_t>(row.non_negative(16));
        s.peak_bytes = static_cast<std::int64_t>(row.non_negative(17));
        s.clock_mhz = row.integer(18, 0);
        s.throttle = row.text(19);
        samples.push_back(std::move(s));
    }
    return samples;
}

void drop_unfinished(const std::filesystem::path& file) {
    const std::vector<GridSample> samples = read_grid_samples(file);
    const auto executions = by_execution(samples);
    if (executions.empty()) return;
    const GridSample& last = samples.back();
    const Phase last_phase = last.point.kind == LayerKind::hp ? Phase::head_project : Phase::route;
    const bool whole =
        last.rank == last.num_ranks - 1 && last.pass == Pass::backward && last.phase == last_phase;
    std::string text = grid_samples_header();
    for (auto e = executions.begin(); e != executions.end(); ++e) {
        if (!whole && std::next(e) == executions.end()) break;
        for (const GridSample& s : *e) text += to_csv_line(s);
    }
    write_file_atomically(file, text);
}

Timeline timeline_of(const std::vector<GridSample>& samples, const Scenario& scenario) {
    Timeline t{.source = Source::measured,
               .scenario = scenario.name,
               .plan = scenario.plans.front().name,
               .layer_split = std::string(scenario.plans.front().layer_split()),
               .seed = scenario.routing.seed};
    for (const GridSample& s : samples) {
        t.spans.push_back({.rank = s.rank,
                           .layer = scenario.model.moe_layer(0),
                           .pass = s.pass,
                           .phase = s.phase,
                           .duration = s.median_us * us,
                           .low = s.p10_us * us,
                           .high = s.p90_us * us,
                           .bytes = static_cast<double>(s.bytes) * byte,
                           .samples = 1});
    }
    return t;
}

std::vector<std::vector<GridSample>> by_execution(const std::vector<GridSample>& samples) {
    std::vector<std::vector<GridSample>> result;
    const auto begins = [&](const GridSample& s) {
        if (result.empty() || !(result.back().front().point == s.point) ||
            result.back().front().num_ranks != s.num_ranks)
            return true;
        const GridSample& first = result.back().front();
        return s.rank == first.rank && s.pass == first.pass && s.phase == first.phase;
    };
    for (const GridSample& s : samples) {
        if (begins(s)) result.emplace_back();
        result.back().push_back(s);
    }
    return result;
}

std::vector<int> num_executions(const std::vector<GridPoint>& points,
                                const std::vector<GridSample>& samples) {
    std::vector<int> count(points.size(), 0);
    for (const auto& execution : by_execution(samples)) {
        const auto point = std::find(points.begin(), points.end(), execution.front().point);
        if (point != points.end()) ++count[static_cast<std::size_t>(point - points.begin())];
    }
    return count;
}

}  // namespace headway::runtime
