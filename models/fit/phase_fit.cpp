#include "models/fit/phase_fit.hpp"

#include <fmt/format.h>

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <optional>
#include <span>
#include <utility>

#include "models/cost/phase_terms.hpp"

namespace headway {
namespace {

// Ranges of k that share a compiled kernel.
struct KRange {
    int low = 1, high = 1024;
};
constexpr KRange kAnyK[] = {{}};
// Row movers and router lists are padded to a power of two.
constexpr KRange kPadded[] = {{1, 1}, {2, 2}, {3, 4}, {5, 8}, {9, 16}, {17, 1024}};
constexpr KRange kListLengths[] = {{1, 2}, {3, 4}, {5, 8}, {9, 16}, {17, 1024}};
// HP's sum over choices: up to 4 at once, more in batches of 8.
constexpr KRange kBatches[] = {{1, 1}, {2, 2}, {3, 4}, {5, 1024}};
// HP's backward of it is compiled for 1, 2, 4 and 8, and once for every other k.
constexpr KRange kExact[] = {{1, 1}, {2, 2}, {3, 3}, {4, 4}, {5, 7}, {8, 8}, {9, 1024}};
// Ranges whose samples are fitted together, as indices into kExact.
constexpr int kGenericExact[] = {2, 4, 6};

struct Family {
    Phase phase;
    Pass pass;
    bool head_parallel, by_width;
    std::span<const KRange> ranges;
    std::vector<Term> terms;
};

std::vector<Family> families() {
    using enum Term;
    const Pass f = Pass::forward, b = Pass::backward;
    const std::vector<Term> gemm{fixed, gemm_waves, gemm_wave_depth};
    const std::vector<Term> gemm_backward{fixed,       gemm_waves,      gemm_wave_depth,
                                          wgrad_waves, wgrad_wave_rows, wgrad_sums};
    const std::vector<Term> rows{fixed, copy_width, token_width, choices};
    const std::vector<Term> regrouped{fixed, copy_width, row_width};
    return {
        {Phase::head_project, f, true, false, kAnyK, gemm},
        {Phase::head_merge, f, true, false, kAnyK, gemm},
        {Phase::head_project, b, true, false, kAnyK, gemm_backward},
        {Phase::head_merge, b, true, false, kAnyK, gemm_backward},
        {Phase::route, f, true, true, kListLengths, {fixed, logits, list_updates}},
        {Phase::permute,
         f,
         true,
         false,
         kAnyK,
         {fixed, block_waves, block_choices, block_experts, count_blocks, groups}},
        {Phase::expert,
         f,
         true,
         true,
         kAnyK,
         {fixed, tile_waves, tile_wave_hidden, group_hidden, choices}},
        {Phase::unpermute, f, true, false, kBatches, rows},
        {Phase::expert,
         b,
         true,
         true,
         kAnyK,
         {fixed, tile_waves, tile_wave_hidden, row_hidden, group_hidden, choices}},
        {Phase::permute, b, true, false, kExact, rows},
        {Phase::route, b, true, true, kAnyK, {fixed, copy_width, group_width, tiles}},
        {Phase::route,
         f,
         false,
         false,
         kAnyK,
         {fixed, token_width, logit_products, logits, selection_rounds}},
        {Phase::permute,
         f,
         false,
         false,
         kAnyK,
         {fixed, token_width, copy_width, sort_blocks, choices}},
        {Phase::expert,
         f,
         false,
         false,
         kAnyK,
         {fixed, gemm_waves, second_gemm_waves, gemm_wave_depth, group_weights}},
        {Phase::regroup, f, false, false, kAnyK, regrouped},
        {Phase::ungroup, f, false, false, kAnyK, regrouped},
        {Phase::unpermute, f, false, false, kPadded, rows},
        {Phase::unpermute, b, false, false, kPadded, rows},
        {Phase::ungroup, b, false, false, kAnyK, regrouped},
        {Phase::expert,
         b,
         false,
         false,
         kAnyK,
         {fixed, gemm_waves, second_gemm_waves, gemm_wave_depth, wgrad_waves, wgrad_wave_rows,
          group_weights}},
        {Phase::regroup, b, false, false, kAnyK, regrouped},
        {Phase::permute, b, false, false, kPadded, rows},
        {Phase::route,
         b,
         false,
         false,
         kAnyK,
         {fixed, token_width, gemm_waves, logit_products, logits, selection_rounds}},
    };
}

// min |A c - 1| over c >= 0, by coordinate descent on the normal equations.
Eigen::VectorXd non_negative_fit(const Eigen::MatrixXd& a, const Eigen::VectorXd& weight) {
    const Eigen::MatrixXd weighted = weight.asDiagonal() * a;
    const Eigen::MatrixXd q = weighted.transpose() * weighted;
    const Eigen::VectorXd p = weighted.transpose() * weight;
    Eigen::VectorXd c = Eigen::VectorXd::Zero(a.cols());
    for (int sweep = 0; sweep < 20000; ++sweep) {
        double change = 0.0;
        for (Eigen::Index i = 0; i < c.size(); ++i) {
            if (q(i, i) <= 0.0) continue;
            const double next = std::max(0.0, c[i] - (q.row(i).dot(c) - p[i]) / q(i, i));
            change = std::max(change, std::abs(next - c[i]));
            c[i] = next;
        }
        if (change < 1e-9) break;
    }
    return c;
}

double rounded_seconds(double value) {
    return std::strtod(fmt::format("{:.4g}", value).c_str(), nullptr);
}

// Reweighted fit of all rows.
Eigen::VectorXd robust_fit(const Eigen::MatrixXd& a) {
    Eigen::VectorXd weight = Eigen::VectorXd::Ones(a.rows()), c;
    for (int i = 0; i < 12; ++i) {
        c = non_negative_fit(a, weight);
        const Eigen::VectorXd errors = ((a * c).array() - 1.0).matrix().cwiseAbs();
        weight = errors.cwiseMax(0.01).cwiseSqrt().cwiseInverse();
    }
    return c;
}

// Errors of every sample against fits that did not have it: every `parts`-th row is left out in
// turn. Equal layers lie in different passes, so all rows of one layer are kept together.
std::vector<double> held_out_errors(const Eigen::MatrixXd& a, const std::vector<int>& layer) {
    constexpr int kParts = 5;
    std::vector<double> errors;
    for (int part = 0; part < kParts; ++part) {
        std::vector<Eigen::Index> in, out;
        for (Eigen::Index r = 0; r < a.rows(); ++r)
            (layer[static_cast<std::size_t>(r)] % kParts == part ? out : in).push_back(r);
        if (in.empty() || out.empty()) continue;
        const Eigen::MatrixXd rest = a(in, Eigen::all);
        const Eigen::VectorXd c = robust_fit(rest);
        for (const Eigen::Index r : out) errors.push_back(std::abs(a.row(r).dot(c) - 1.0));
    }
    return errors;
}

// What nine tenths of the held-out errors lie below, as a standard deviation.
double residual_of(std::vector<double> errors) {
    constexpr double kNinetyPercent = 1.6449, kLeast = 0.02;
    std::sort(errors.begin(), errors.end());
    const double place = 0.9 * static_cast<double>(errors.size() - 1);
    return std::max(kLeast, errors[static_cast<std::size_t>(std::ceil(place))] / kNinetyPercent);
}

std::optional<PhaseCurve> fit_one(PhaseCurve curve, const std::vector<const PhaseTime*>& times) {
    const auto rows = static_cast<Eigen::Index>(times.size());
    const auto columns = static_cast<Eigen::Index>(curve.terms.size());
    if (rows < 4) return std::nullopt;
    Eigen::MatrixXd a(rows, columns);
    std::map<std::vector<double>, int> layers;
    std::vector<int> layer;
    for (Eigen::Index r = 0; r < rows; ++r) {
        const PhaseTime& t = *times[static_cast<std::size_t>(r)];
        const PhaseShape& p = t.shape;
        const auto known = static_cast<int>(layers.size());
        layer.push_back(layers
                            .try_emplace({p.tokens, p.hidden, p.columns, double{1} * p.width,
                                          p.groups, double{1} * p.top_k, p.expert_width},
                                         known)
                            .first->second);
        for (Eigen::Index c = 0; c < columns; ++c) {
            a(r, c) = term_value(curve.terms[static_cast<std::size_t>(c)], curve.pass, t.shape,
                                 curve.num_multiprocessors) /
                      t.seconds;
        }
    }
    const Eigen::VectorXd scale = a.cwiseAbs().colwise().maxCoeff().cwiseMax(1e-300);
    const Eigen::MatrixXd scaled_a = a * scale.cwiseInverse().asDiagonal();
    const Eigen::VectorXd c = robust_fit(scaled_a);
    for (Eigen::Index i = 0; i < columns; ++i)
        curve.seconds.push_back(rounded_seconds(c[i] / scale[i]));
    curve.residual = std::round(1e3 * residual_of(held_out_errors(scaled_a, layer))) / 1e3;
    curve.source += fmt::format(": {} samples", rows);
    return curve;
}

bool generic(std::span<const KRange> ranges, std::size_t index) {
    return ranges.data() == kExact && std::find(std::begin(kGenericExact), std::end(kGenericExact),
                                                static_cast<int>(index)) != std::end(kGenericExact);
}

void fit_family(const Family& family, LayerKind layer, const std::vector<PhaseTime>& times,
                const PhaseCurve& base, std::vector<PhaseCurve>& curves) {
    std::map<int, std::map<std::size_t, std::vector<const PhaseTime*>>> groups;
    for (const PhaseTime& t : times) {
        if (t.shape.layer != layer || t.shape.phase != family.phase || t.pass != family.pass)
            continue;
        auto& of_width = groups[family.by_width ? t.shape.width : 0];
        for (std::size_t i = 0; i < family.ranges.size(); ++i) {
            const KRange& range = family.ranges[i];
            const bool own = range.low <= t.shape.top_k && t.shape.top_k <= range.high;
            if (own) {
                for (std::size_t j = 0; j < family.ranges.size(); ++j) {
                    if (j == i || (generic(family.ranges, i) && generic(family.ranges, j)))
                        of_width[j].push_back(&t);
                }
            }
        }
    }
    for (const auto& [width, by_range] : groups) {
        for (const auto& [index, members] : by_range) {
            PhaseCurve curve = base;
            curve.layer = layer;
            curve.phase = family.phase;
            curve.pass = family.pass;
            curve.width = width;
            curve.min_top_k = family.ranges[index].low;
            curve.max_top_k = family.ranges[index].high;
            curve.terms = family.terms;
            if (auto fitted = fit_one(std::move(curve), members))
                curves.push_back(std::move(*fitted));
        }
    }
}

}  // namespace

std::vector<PhaseCurve> fit_phases(const std::vector<PhaseTime>& times, int num_multiprocessors,
                                   const std::string& source) {
    const PhaseCurve base{.num_multiprocessors = num_multiprocessors, .source = source};
    std::vector<PhaseCurve> curves;
    for (const Family& family : families()) {
        if (family.head_parallel) {
            fit_family(family, LayerKind::hp, times, base, curves);
        } else {
            fit_family(family, LayerKind::ep, times, base, curves);
            fit_family(family, LayerKind::ep_rank, times, base, curves);
        }
    }
    return curves;
}

}  // namespace headway
