#include "models/fit/phase_fit.hpp"

#include <fmt/format.h>

#include <Eigen/Dense>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <map>
#include <optional>
#include <span>
#include <utility>

#include "models/cost/phase_terms.hpp"
#include "models/fit/statistics.hpp"

namespace headway::inline fit {
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
    const std::vector<Term> rows{fixed, copy_width, token_width, choices, tokens};
    const std::vector<Term> moved{
        fixed,        copy_width,        token_width,        choices, tokens, copy_steps,
        mover_rounds, mover_round_steps, mover_round_choices};
    const std::vector<Term> sums{fixed, copy_width, token_width, choices, tokens, beyond_cache};
    const std::vector<Term> regrouped{fixed, copy_width, row_width, copy_steps};
    return {
        {Phase::head_project, f, true, false, kAnyK, gemm},
        {Phase::head_merge, f, true, false, kAnyK, gemm},
        {Phase::head_project, b, true, false, kAnyK, gemm_backward},
        {Phase::head_merge, b, true, false, kAnyK, gemm_backward},
        {Phase::route,
         f,
         true,
         false,
         kListLengths,
         {fixed, router_rounds, router_round_chunks, router_round_chunk_width, block_chunks,
          block_chunk_width, token_width, choices}},
        {Phase::permute,
         f,
         true,
         false,
         kAnyK,
         {fixed, scatter_experts, scatter_choices, choices, choices_beyond_cache, generic_choices,
          prefix_blocks, block_choices}},
        {Phase::expert,
         f,
         true,
         true,
         kAnyK,
         {fixed, tile_waves, tile_wave_hidden, group_hidden, choices}},
        {Phase::unpermute, f, true, false, kBatches, sums},
        {Phase::expert,
         b,
         true,
         true,
         kAnyK,
         {fixed, tile_waves, tile_wave_hidden, row_hidden, group_hidden, choices}},
        {Phase::permute, b, true, false, kExact, rows},
        {Phase::route,
         b,
         true,
         true,
         kAnyK,
         {fixed, copy_width, token_width, group_width, tiles, group_tiles}},
        {Phase::route,
         f,
         false,
         false,
         kAnyK,
         {fixed, token_width, logit_products, logits, choices, selection_slots}},
        {Phase::permute,
         f,
         false,
         false,
         kAnyK,
         {fixed, token_width, copy_width, sort_blocks, choices, copy_steps, mover_round_choices,
          beyond_cache}},
        {Phase::count_exchange, f, false, false, kAnyK, {fixed, choices, copy_choices}},
        {Phase::count_exchange, b, false, false, kAnyK, {fixed, choices, copy_choices}},
        {Phase::expert,
         f,
         false,
         false,
         kAnyK,
         {fixed, gemm_waves, second_gemm_waves, gemm_wave_depth, group_weights}},
        {Phase::regroup, f, false, false, kAnyK, regrouped},
        {Phase::ungroup, f, false, false, kAnyK, regrouped},
        {Phase::unpermute, f, false, false, kPadded, moved},
        {Phase::unpermute, b, false, false, kPadded, moved},
        {Phase::ungroup, b, false, false, kAnyK, regrouped},
        {Phase::expert,
         b,
         false,
         false,
         kAnyK,
         {fixed, gemm_waves, second_gemm_waves, gemm_wave_depth, wgrad_waves, wgrad_wave_rows,
          group_weights}},
        {Phase::regroup, b, false, false, kAnyK, regrouped},
        {Phase::permute, b, false, false, kPadded, moved},
        {Phase::route,
         b,
         false,
         false,
         kAnyK,
         {fixed, tokens, token_width, beyond_cache, logit_products, logits, router_weights,
          gradient_rounds, unaligned_width}},
    };
}

// Where few layers do not tell terms apart, the seconds are spread over them instead of given to
// one: beyond those layers that is the smaller error. Columns are scaled to at most 1.
constexpr double kRidge = 1e-5;

// c of the columns `free` that minimises c q c / 2 - p c; 0 elsewhere.
Eigen::VectorXd solve_free(const Eigen::MatrixXd& q, const Eigen::VectorXd& p,
                           const std::vector<Eigen::Index>& free) {
    const Eigen::MatrixXd own_q = q(free, free);
    const Eigen::VectorXd own_p = p(free), own = own_q.ldlt().solve(own_p);
    Eigen::VectorXd c = Eigen::VectorXd::Zero(p.size());
    for (std::size_t i = 0; i < free.size(); ++i) c[free[i]] = own[static_cast<Eigen::Index>(i)];
    return c;
}

// min |W (A c - 1)|^2 + ridge over c >= 0: active sets (Lawson and Hanson, Solving Least Squares
// Problems, 1974, chapter 23) on the normal equations.
Eigen::VectorXd non_negative_fit(const Eigen::MatrixXd& a, const Eigen::VectorXd& weight) {
    constexpr double kTolerance = 1e-10;
    const Eigen::MatrixXd weighted = weight.asDiagonal() * a;
    Eigen::MatrixXd q = weighted.transpose() * weighted;
    q.diagonal().array() += kRidge * weight.squaredNorm();
    const Eigen::VectorXd p = weighted.transpose() * weight;
    Eigen::VectorXd c = Eigen::VectorXd::Zero(a.cols());
    std::vector<Eigen::Index> free;
    for (Eigen::Index round = 0; round < 3 * a.cols(); ++round) {
        const Eigen::VectorXd slope = p - q * c;
        Eigen::Index next = -1;
        for (Eigen::Index i = 0; i < c.size(); ++i) {
            const bool is_free = std::find(free.begin(), free.end(), i) != free.end();
            if (!is_free && slope[i] > kTolerance * p.cwiseAbs().maxCoeff() &&
                (next < 0 || slope[i] > slope[next]))
                next = i;
        }
        if (next < 0) break;
        free.push_back(next);
        for (;;) {
            const Eigen::VectorXd wanted = solve_free(q, p, free);
            double step = 1.0;
            for (const Eigen::Index i : free) {
                if (wanted[i] <= 0.0) step = std::min(step, c[i] / (c[i] - wanted[i]));
            }
            c += step * (wanted - c);
            if (step == 1.0) break;
            const auto blocked = std::erase_if(free, [&](Eigen::Index i) {
                const bool out = wanted[i] <= 0.0 && c[i] <= 1e-12;
                if (out) c[i] = 0.0;
                return out;
            });
            if (blocked == 0) break;
        }
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

// T, d, E, f and k of a layer.
using Values = std::array<double, 5>;

// Errors of every layer's samples against a fit of those layers alone that share none of its
// values: what a layer is to a fit that has never seen a value of it. (A value that all layers
// share does not count.)
std::vector<double> held_out_errors(const Eigen::MatrixXd& a, const std::vector<Values>& values) {
    std::array<bool, 5> varies{};
    for (std::size_t i = 0; i < varies.size(); ++i) {
        varies[i] = std::any_of(values.begin(), values.end(),
                                [&](const Values& v) { return v[i] != values.front()[i]; });
    }
    const auto disjoint = [&](const Values& x, const Values& y) {
        for (std::size_t i = 0; i < x.size(); ++i) {
            if (varies[i] && x[i] == y[i]) return false;
        }
        return x != y;
    };
    const auto least = std::max<std::size_t>(4, static_cast<std::size_t>(a.cols()));
    std::map<Values, std::optional<Eigen::VectorXd>> fits;
    std::vector<double> errors;
    for (std::size_t r = 0; r < values.size(); ++r) {
        const auto [fit, is_new] = fits.try_emplace(values[r]);
        if (is_new) {
            std::vector<Eigen::Index> rest;
            for (std::size_t i = 0; i < values.size(); ++i) {
                if (disjoint(values[i], values[r])) rest.push_back(static_cast<Eigen::Index>(i));
            }
            if (rest.size() >= least) fit->second = robust_fit(a(rest, Eigen::all));
        }
        if (fit->second)
            errors.push_back(std::abs(a.row(static_cast<Eigen::Index>(r)).dot(*fit->second) - 1.0));
    }
    return errors;
}

// Curves of too few layers are judged by what they were fitted to, with three times that.
double residual_of(const Eigen::MatrixXd& a, const Eigen::VectorXd& c, std::vector<double> errors) {
    constexpr double kLeast = 0.02, kFewLayers = 3.0;
    if (errors.size() >= 4) return std::max(kLeast, ninety_percent_sigma(std::move(errors)));
    errors.clear();
    for (Eigen::Index r = 0; r < a.rows(); ++r)
        errors.push_back(kFewLayers * std::abs(a.row(r).dot(c) - 1.0));
    return std::max(kLeast, ninety_percent_sigma(std::move(errors)));
}

ShapeRange range_of(const std::vector<const MeasuredPhase*>& times) {
    ShapeRange range;
    const auto take = [&](Extent& extent, auto value) {
        extent = {HUGE_VAL, 0.0};
        for (const MeasuredPhase* t : times) {
            extent.least = std::min(extent.least, double{1} * value(t->shape));
            extent.most = std::max(extent.most, double{1} * value(t->shape));
        }
    };
    take(range.own_tokens, [](const PhaseShape& s) { return s.own_tokens; });
    take(range.hidden, [](const PhaseShape& s) { return s.hidden; });
    take(range.experts, [](const PhaseShape& s) { return s.experts; });
    take(range.top_k, [](const PhaseShape& s) { return s.top_k; });
    take(range.width, [](const PhaseShape& s) { return s.width; });
    take(range.expert_width, [](const PhaseShape& s) { return s.expert_width; });
    return range;
}

std::optional<PhaseCurve> fit_one(PhaseCurve curve,
                                  const std::vector<const MeasuredPhase*>& times) {
    const auto rows = static_cast<Eigen::Index>(times.size());
    const auto columns = static_cast<Eigen::Index>(curve.terms.size());
    if (rows < 4) return std::nullopt;
    Eigen::MatrixXd a(rows, columns);
    std::vector<Values> values;
    for (Eigen::Index r = 0; r < rows; ++r) {
        const MeasuredPhase& t = *times[static_cast<std::size_t>(r)];
        const PhaseShape& p = t.shape;
        values.push_back(
            {p.own_tokens, p.hidden, double{1} * p.experts, p.expert_width, double{1} * p.top_k});
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
    curve.residual =
        std::round(1e3 * residual_of(scaled_a, c, held_out_errors(scaled_a, values))) / 1e3;
    curve.measured = range_of(times);
    curve.source += fmt::format(": {} samples", rows);
    return curve;
}

bool generic(std::span<const KRange> ranges, std::size_t index) {
    return ranges.data() == kExact && std::find(std::begin(kGenericExact), std::end(kGenericExact),
                                                static_cast<int>(index)) != std::end(kGenericExact);
}

void fit_family(const Family& family, LayerKind layer, const std::vector<MeasuredPhase>& times,
                const PhaseCurve& base, std::vector<PhaseCurve>& curves) {
    std::map<int, std::map<std::size_t, std::vector<const MeasuredPhase*>>> groups;
    for (const MeasuredPhase& t : times) {
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

std::vector<PhaseCurve> fit_phases(const std::vector<MeasuredPhase>& times, int num_multiprocessors,
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

bool is_row_mover(Phase phase) {
    return phase == Phase::permute || phase == Phase::regroup || phase == Phase::ungroup ||
           phase == Phase::unpermute;
}

std::vector<PhaseCurve> fit_row_movers(const std::vector<MeasuredPhase>& times,
                                       const std::string& source) {
    using enum Term;
    // Beyond the size of a cache a byte takes longer: convex in the bytes moved.
    const std::vector<Term> moved{fixed,           copy_width,      token_width,     choices,
                                  moved_beyond_1m, moved_beyond_4m, moved_beyond_16m};
    const std::vector<Term> regrouped{fixed,           copy_width,      row_width,
                                      moved_beyond_1m, moved_beyond_4m, moved_beyond_16m};
    const PhaseCurve base{.source = source};
    std::vector<PhaseCurve> curves;
    for (const Phase phase : {Phase::permute, Phase::regroup, Phase::ungroup, Phase::unpermute}) {
        const bool at_experts = phase == Phase::regroup || phase == Phase::ungroup;
        for (const Pass pass : {Pass::forward, Pass::backward}) {
            const Family family{.phase = phase,
                                .pass = pass,
                                .head_parallel = false,
                                .by_width = false,
                                .ranges = kAnyK,
                                .terms = at_experts ? regrouped : moved};
            for (const LayerKind layer : {LayerKind::hp, LayerKind::ep, LayerKind::ep_rank})
                fit_family(family, layer, times, base, curves);
        }
    }
    return curves;
}

}  // namespace headway::inline fit
