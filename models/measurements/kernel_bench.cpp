#include "models/measurements/kernel_bench.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <utility>

#include "models/fit/statistics.hpp"
#include "models/text/input_file.hpp"
#include "models/vocab/error.hpp"
#include "models/vocab/phase.hpp"

namespace headway::inline measurements {
namespace {

std::vector<std::string> split(const std::string& line) {
    std::vector<std::string> cells;
    std::stringstream in(line);
    for (std::string cell; std::getline(in, cell, ',');) cells.push_back(cell);
    return cells;
}

double number(const std::string& text, const std::string& column, const std::string& where) {
    double value = 0.0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) {
        throw InputError({.where = where,
                          .found = fmt::format("'{}' in column {}", text, column),
                          .accepted = "a finite number"});
    }
    return value;
}

// What an operation of the benchmark measures: kernel kind, pass, and where a shape lies on the
// kernel's axes.
struct Point {
    Kernel kernel = Kernel::streaming;
    Pass pass = Pass::forward;
    double size = 0, width = 1, work = 0;  // FLOPs or bytes as the model counts them
    double inner = 0;                      // 0: the kernel has none
};

std::optional<Point> point_of(const BenchRow& r) {
    const double rows_per_expert = r.num_tokens * r.top_k / r.num_experts,
                 rows = r.num_heads * r.num_tokens * r.top_k;
    const double router = 2.0 * r.num_heads * r.num_tokens * r.head_dim * r.num_experts;
    const double sub_tokens = r.num_heads * r.num_tokens;
    const auto experts = [&](Kernel kernel, Pass pass) {
        const double matrices = kernel == Kernel::fused_expert_swiglu ? 3.0 : 2.0,
                     products = pass == Pass::forward ? matrices : 2.0 * matrices;
        return Point{kernel,
                     pass,
                     rows_per_expert,
                     r.head_dim,
                     2.0 * products * rows * r.head_dim * r.expert_dim,
                     r.expert_dim};
    };
    if (r.op == "experts_forward") return experts(Kernel::fused_expert, Pass::forward);
    if (r.op == "experts_backward") return experts(Kernel::fused_expert, Pass::backward);
    if (r.op == "experts_forward_swiglu")
        return experts(Kernel::fused_expert_swiglu, Pass::forward);
    if (r.op == "experts_backward_swiglu")
        return experts(Kernel::fused_expert_swiglu, Pass::backward);
    if (r.op == "grouped_forward")
        return Point{Kernel::grouped_gemm, Pass::forward, rows_per_expert, r.expert_dim, r.flops};
    // Backward is a dgrad and a wgrad of the same FLOPs: their rates share a cell.
    if (r.op == "grouped_dgrad" || r.op == "grouped_wgrad_fp32") {
        return Point{Kernel::grouped_gemm, Pass::backward, rows_per_expert, r.expert_dim, r.flops};
    }
    const auto whole = [&](Kernel kernel, Pass pass) {
        return Point{kernel, pass, rows_per_expert, r.expert_dim, r.flops};
    };
    if (r.op == "ep_experts_forward") return whole(Kernel::grouped_gemm_gelu, Pass::forward);
    if (r.op == "ep_experts_backward") return whole(Kernel::grouped_gemm_gelu, Pass::backward);
    if (r.op == "ep_experts_forward_swiglu")
        return whole(Kernel::grouped_gemm_swiglu, Pass::forward);
    if (r.op == "ep_experts_backward_swiglu")
        return whole(Kernel::grouped_gemm_swiglu, Pass::backward);
    if (r.op == "router_forward")
        return Point{Kernel::router, Pass::forward, sub_tokens, r.head_dim, router};
    if (r.op == "router_backward")
        return Point{Kernel::router, Pass::backward, sub_tokens, r.head_dim, 2.0 * router};
    if (r.op == "combine_forward" || r.op == "ep_permute" || r.op == "ep_unpermute")
        return Point{Kernel::gather, Pass::forward, r.bytes, 1.0, r.bytes};
    if (r.op == "rms_norm_forward")
        return Point{Kernel::streaming, Pass::forward, r.bytes, 1.0, r.bytes};
    if (r.op == "adamw_fp32_grad")
        return Point{Kernel::optimizer, Pass::forward, r.bytes, 1.0, r.bytes};
    return std::nullopt;
}

struct Sample {
    double size, width, rate, inner;
    std::string date{};  // measured on
};
// By implementation.
using Alternatives = std::map<std::string, std::vector<Sample>>;
// By kernel and pass, then by operation: a curve holds all its operations, each as its fastest
// implementation runs it.
using Samples = std::map<std::pair<int, int>, std::map<std::string, Alternatives>>;

// Rate at `size` from one width's cells: linear in the logarithm between measured sizes, held
// beyond them.
double rate_at(const std::map<double, double>& cells, double size) {
    const auto above = cells.lower_bound(size);
    if (above == cells.end()) return cells.rbegin()->second;
    if (above->first == size || above == cells.begin()) return above->second;
    const auto below = std::prev(above);
    const double weight = std::log(size / below->first) / std::log(above->first / below->first);
    return below->second + weight * (above->second - below->second);
}

// A profile is read by people: four digits are more than a timing carries.
double four_digits(double value) {
    const double unit = std::pow(10.0, std::floor(std::log10(value)) - 3.0);
    return std::round(value / unit) * unit;
}

// Operations that share a curve hardly meet at the same byte: sizes within 5 % are one point of it,
// at their geometric mean. [size of a sample] -> size of the point
std::map<double, double> merged_sizes(const std::vector<Sample>& samples) {
    std::set<double> sizes;
    for (const Sample& s : samples) sizes.insert(s.size);
    std::map<double, double> merged;
    for (auto first = sizes.begin(); first != sizes.end();) {
        const auto end = sizes.upper_bound(1.05 * *first);
        const double last = *std::prev(end),
                     point = last > *first ? four_digits(std::sqrt(*first * last)) : last;
        for (; first != end; ++first) merged[*first] = point;
    }
    return merged;
}

constexpr double kLeastResidual = 0.03;

RateCurve fit_rates(const std::vector<Sample>& samples) {
    std::map<double, std::map<double, std::vector<double>>> cells;  // width -> size -> rates
    std::set<double> sizes;
    const std::map<double, double> merged = merged_sizes(samples);
    for (const Sample& s : samples) {
        cells[s.width][merged.at(s.size)].push_back(s.rate);
        sizes.insert(merged.at(s.size));
    }
    RateCurve curve{.size = {sizes.begin(), sizes.end()}};
    double squares = 0.0;
    int scattered = 0;
    for (const auto& [width, by_size] : cells) {
        curve.width.push_back(width);
        std::map<double, double> medians;
        for (const auto& [size, rates] : by_size) {
            medians[size] = median(rates);
            for (double r : rates) {
                if (rates.size() < 2) break;
                squares += std::pow(r / medians[size] - 1.0, 2);
                ++scattered;
            }
        }
        double fastest = HUGE_VAL;  // rate at which this size would take as long as the one below
        double below = 0.0;
        for (double size : curve.size) {
            // More work never takes less time: a larger size is not let to beat a smaller one.
            if (below > 0.0) fastest = curve.rate.back() * size / below;
            curve.rate.push_back(four_digits(std::min(rate_at(medians, size), fastest)));
            below = size;
        }
    }
    // A curve that no shape was measured twice on still interpolates: its error is not zero.
    const double scatter = scattered > 0 ? std::sqrt(squares / scattered) : 0.0;
    curve.residual = std::round(1e3 * std::clamp(scatter, kLeastResidual, kLargestResidual)) / 1e3;
    return curve;
}

// The inner width of which most sizes were measured.
double common_inner(const std::vector<Sample>& samples) {
    std::map<double, int> count;
    for (const Sample& s : samples) ++count[s.inner];
    const auto most = [](const auto& a, const auto& b) { return a.second < b.second; };
    return std::max_element(count.begin(), count.end(), most)->first;
}

// Whether some width was measured at several inner widths.
bool several_inner(const std::vector<Sample>& samples) {
    std::map<double, double> first;
    return std::any_of(samples.begin(), samples.end(), [&](const Sample& s) {
        return first.try_emplace(s.width, s.inner).first->second != s.inner;
    });
}

// How a width's time grows with the inner width: t(f) = t(f0) (1 + g (f / f0 - 1)), g by size.
struct InnerGrowth {
    double common = 0.0;  // f0
    std::map<double, double> by_size;

    double at(double size) const { return by_size.empty() ? 1.0 : rate_at(by_size, size); }
    double time(double size, double inner) const {
        return 1.0 + std::clamp(at(size), 0.0, 1.0) * (inner / common - 1.0);
    }
};

// Sizes are measured at one inner width of each width; a few at others say how the time grows with
// it. The residual is of those few, each against the growth by the others.
RateCurve fit_inner_rates(const std::vector<Sample>& samples) {
    std::map<double, std::vector<Sample>> by_width;
    std::set<double> inner;
    for (const Sample& s : samples) {
        by_width[s.width].push_back(s);
        inner.insert(s.inner);
    }
    std::vector<Sample> common;
    std::map<double, InnerGrowth> growth;
    for (const auto& [width, own] : by_width) {
        growth[width].common = common_inner(own);
        for (const Sample& s : own) {
            if (s.inner == growth[width].common) common.push_back(s);
        }
    }
    const RateCurve base = fit_rates(common);
    // Time over that of the common inner width at this size: work / rate of both.
    const auto ratio = [&](const Sample& s) {
        const double rate = base.at(Kernel::fused_expert, s.size, s.width).value;
        return s.inner / growth.at(s.width).common * rate / s.rate;
    };
    const auto fill = [&](const Sample* left_out) {
        for (auto& [width, g] : growth) {
            g.by_size.clear();
            for (const Sample& s : by_width.at(width)) {
                if (s.inner != g.common && &s != left_out)
                    g.by_size[s.size] = (ratio(s) - 1.0) / (s.inner / g.common - 1.0);
            }
        }
    };
    double squares = 0.0;
    int count = 0;
    for (const auto& [width, own] : by_width) {
        for (const Sample& s : own) {
            if (s.inner == growth.at(width).common) continue;
            fill(&s);
            squares += std::pow(growth.at(width).time(s.size, s.inner) / ratio(s) - 1.0, 2);
            ++count;
        }
    }
    fill(nullptr);
    // The time is a line in the inner width: its ends are enough.
    RateCurve curve{
        .size = base.size, .width = base.width, .inner = {*inner.begin(), *inner.rbegin()}};
    for (const double f : curve.inner) {
        for (std::size_t i = 0; i < base.rate.size(); ++i) {
            const InnerGrowth& g = growth.at(base.width[i / base.size.size()]);
            const double size = base.size[i % base.size.size()];
            curve.rate.push_back(four_digits(base.rate[i] * f / g.common / g.time(size, f)));
        }
    }
    const double error = count > 0 ? std::sqrt(squares / count) : 0.0;
    curve.residual = std::round(1e3 * std::clamp(error, std::max(kLeastResidual, base.residual),
                                                 kLargestResidual)) /
                     1e3;
    return curve;
}

// Widths outside the measured ones keep the base profile's rates, at the measured sizes: EP's
// router is as wide as the model, and no grid of head widths says anything about it.
RateCurve with_widths_of(Kernel kernel, const RateCurve& base, const RateCurve& measured) {
    std::map<double, std::vector<double>> rows;
    const std::size_t n = measured.size.size();
    for (std::size_t i = 0; i < measured.width.size(); ++i) {
        const auto row = measured.rate.begin() + static_cast<std::ptrdiff_t>(i * n);
        rows[measured.width[i]].assign(row, row + static_cast<std::ptrdiff_t>(n));
    }
    for (double width : base.width) {
        if (width >= measured.width.front() && width <= measured.width.back()) continue;
        for (double size : measured.size)
            rows[width].push_back(four_digits(base.at(kernel, size, width).value));
    }
    RateCurve curve{.size = measured.size, .residual = measured.residual};
    for (const auto& [width, rates] : rows) {
        curve.width.push_back(width);
        curve.rate.insert(curve.rate.end(), rates.begin(), rates.end());
    }
    return curve;
}

double total_time(const std::vector<Sample>& samples) {
    double sum = 0.0;
    for (const Sample& s : samples) sum += 1.0 / s.rate;
    return sum / static_cast<double>(samples.size());
}

const Alternatives::value_type& fastest(const Alternatives& implementations) {
    return *std::min_element(
        implementations.begin(), implementations.end(),
        [](const auto& a, const auto& b) { return total_time(a.second) < total_time(b.second); });
}

}  // namespace

std::vector<BenchRow> read_kernel_bench(const std::filesystem::path& file) {
    std::istringstream in(read_input_file(file, "a CSV written by headway-bench --csv"));
    std::string line;
    std::getline(in, line);
    const std::vector<std::string> header = split(line);
    std::map<std::string, std::size_t> column;
    for (std::size_t i = 0; i < header.size(); ++i) column[header[i]] = i;
    for (const char* needed : {"op", "impl", "num_heads", "head_dim", "num_experts", "expert_dim",
                               "num_tokens", "top_k", "l2", "median_us", "flops", "bytes", "check",
                               "device", "driver", "cuda", "date", "sm_mhz"}) {
        if (!column.contains(needed)) {
            throw InputError({.where = file.string() + ":1",
                              .found = fmt::format("no column '{}'", needed),
                              .accepted = "the header that headway-bench --csv writes"});
        }
    }
    std::vector<BenchRow> rows;
    for (int number_of_line = 2; std::getline(in, line); ++number_of_line) {
        if (line.empty()) continue;
        const std::string where = fmt::format("{}:{}", file.string(), number_of_line);
        const std::vector<std::string> cells = split(line);
        if (cells.size() != header.size()) {
            throw InputError({.where = where,
                              .found = fmt::format("{} cells", cells.size()),
                              .accepted = fmt::format("{} as in the header", header.size()),
                              .hint = "is the file cut off?"});
        }
        const auto text = [&](const char* name) { return cells[column[name]]; };
        const auto value = [&](const char* name) { return number(text(name), name, where); };
        if (text("check") != "ok" || text("l2") != "cold" || text("median_us").empty()) continue;
        BenchRow row{.op = text("op"),
                     .implementation = text("impl"),
                     .num_heads = value("num_heads"),
                     .head_dim = value("head_dim"),
                     .num_experts = value("num_experts"),
                     .expert_dim = value("expert_dim"),
                     .num_tokens = value("num_tokens"),
                     .top_k = value("top_k"),
                     .median_us = value("median_us"),
                     .flops = value("flops"),
                     .bytes = value("bytes"),
                     .device = text("device"),
                     .driver = text("driver"),
                     .cuda = text("cuda"),
                     .date = text("date"),
                     .clock_mhz = text("sm_mhz")};
        if (row.median_us > 0.0) rows.push_back(std::move(row));
    }
    if (rows.empty())
        throw InputError({.where = file.string(), .found = "no timed case that passed its check"});
    return rows;
}

Profile with_measured_kernels(const Profile& base, const std::vector<BenchRow>& rows) {
    Samples samples;
    for (const BenchRow& row : rows) {
        if (const std::optional<Point> p = point_of(row)) {
            samples[{static_cast<int>(p->kernel), static_cast<int>(p->pass)}][row.op]
                   [row.implementation]
                       .push_back({p->size, p->width, p->work / (row.median_us * 1e-6), p->inner,
                                   row.date});
        }
    }
    Profile profile = base;
    std::string measured;
    for (const auto& [key, by_operation] : samples) {
        std::vector<Sample> pooled;
        std::string operations;
        for (const auto& [op, implementations] : by_operation) {
            const auto& [implementation, shapes] = fastest(implementations);
            pooled.insert(pooled.end(), shapes.begin(), shapes.end());
            operations += fmt::format("{} {} ({} shapes), ", op, implementation, shapes.size());
        }
        const bool has_inner = several_inner(pooled);
        RateCurve curve = has_inner ? fit_inner_rates(pooled) : fit_rates(pooled);
        const std::size_t num_widths = curve.width.size();
        const double least = curve.width.front(), most = curve.width.back();
        KernelCurves& curves = profile.kernel(static_cast<Kernel>(key.first));
        std::vector<RateCurve>& old =
            static_cast<Pass>(key.second) == Pass::forward ? curves.forward : curves.backward;
        if (!old.empty() && !has_inner && !is_byte_rate(static_cast<Kernel>(key.first)))
            curve = with_widths_of(static_cast<Kernel>(key.first), old.front(), curve);
        curve.source = fmt::format("headway-bench: {}cold L2, {}", operations, pooled.front().date);
        if (curve.width.size() > num_widths)
            curve.source +=
                fmt::format("; widths below {} and above {}: {}", least, most, base.name);
        old = {curve};
        measured += fmt::format("{}{} {}", measured.empty() ? "" : ", ",
                                kKernelNames[static_cast<std::size_t>(key.first)],
                                kPassNames[static_cast<std::size_t>(key.second)]);
    }
    const bool same = base.provenance.device == rows.front().device;
    profile.provenance = {
        .device = rows.front().device,
        .peak_matmul = same ? base.provenance.peak_matmul : FlopRate{},
        .memory_bandwidth = same ? base.provenance.memory_bandwidth : Bandwidth{},
        .kind = "measured",
        .date = rows.front().date,
        .driver = rows.front().driver,
        .cuda = rows.front().cuda,
        .nccl = base.provenance.nccl,
        .clocks = fmt::format("SM {} MHz while measuring", rows.front().clock_mhz),
        .note = fmt::format("Measured: {}. Everything else, communication above all, is {}'s.",
                            measured, base.name)};
    return profile;
}

}  // namespace headway::inline measurements
