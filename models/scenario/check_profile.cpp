#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <optional>

#include "models/scenario/check_scenario.hpp"

namespace headway::inline scenario {
namespace {

// Index of the first entry that is not above the one before it.
std::optional<std::size_t> first_not_ascending(const std::vector<double>& values) {
    const auto found =
        std::adjacent_find(values.begin(), values.end(), std::greater_equal<double>());
    if (found == values.end()) return std::nullopt;
    return static_cast<std::size_t>(found - values.begin()) + 1;
}

void check_ascending(const std::string& where, const std::vector<double>& values,
                     std::vector<InputProblem>& problems) {
    if (const auto index = first_not_ascending(values)) {
        problems.push_back({where,
                            fmt::format("entry {} is not above entry {}", *index, *index - 1),
                            "strictly ascending values", ""});
    }
}

void check_rate_curve(const std::string& where, const RateCurve& curve,
                      std::vector<InputProblem>& problems) {
    check_ascending(where + ".size", curve.size, problems);
    check_ascending(where + ".width", curve.width, problems);
    check_ascending(where + ".inner", curve.inner, problems);
    const std::size_t num_rows = curve.width.size() * std::max<std::size_t>(1, curve.inner.size());
    const std::size_t wanted = curve.size.size() * num_rows;
    if (curve.rate.size() != wanted) {
        problems.push_back(
            {where + ".rate", fmt::format("{} rates", curve.rate.size()),
             fmt::format("{} rows ({}) of {} entries (sizes)", num_rows,
                         curve.inner.empty() ? "widths" : "inner by widths", curve.size.size()),
             ""});
    }
}

void check_time_curve(const std::string& where, const TimeCurve& curve,
                      std::vector<InputProblem>& problems) {
    check_ascending(where + ".bytes", curve.bytes, problems);
    if (curve.seconds.size() != curve.bytes.size()) {
        problems.push_back({where + ".time", fmt::format("{} times", curve.seconds.size()),
                            fmt::format("{}, one per entry of bytes", curve.bytes.size()), ""});
    }
    const auto drop =
        std::adjacent_find(curve.seconds.begin(), curve.seconds.end(), std::greater<double>());
    if (drop != curve.seconds.end()) {
        const auto index = drop - curve.seconds.begin() + 1;
        problems.push_back({where + ".time",
                            fmt::format("entry {} is below entry {}", index, index - 1),
                            "times that never fall with more bytes", ""});
    }
}

void check_phase_curve(const std::string& where, const PhaseCurve& curve,
                       std::vector<InputProblem>& problems) {
    for (const Term term : curve.terms) {
        if (static_cast<std::size_t>(term) < kTermNames.size()) continue;
        problems.push_back({where + ".terms", "a word that is no term",
                            fmt::format("{}", fmt::join(kTermNames, ", ")), ""});
    }
    if (curve.seconds.size() != curve.terms.size() || curve.terms.empty()) {
        problems.push_back({where + ".time", fmt::format("{} times", curve.seconds.size()),
                            fmt::format("{}, one per term", curve.terms.size()), ""});
    }
    if (curve.measured) {
        const ShapeRange& m = *curve.measured;
        for (const Extent& e :
             {m.own_tokens, m.hidden, m.experts, m.top_k, m.width, m.expert_width}) {
            if (e.most > 0.0 && e.least <= e.most) continue;
            problems.push_back({where + ".measured", "an extent that is not least, most",
                                "two ascending numbers for each", ""});
        }
    }
    if (curve.min_top_k > curve.max_top_k) {
        problems.push_back({where + ".max_top_k", std::to_string(curve.max_top_k),
                            fmt::format("at least min_top_k, {}", curve.min_top_k), ""});
    }
}

}  // namespace

std::vector<InputProblem> check_profile(const Profile& profile) {
    std::vector<InputProblem> problems;
    for (std::size_t i = 0; i < profile.kernels.size(); ++i) {
        const KernelCurves& curves = profile.kernels[i];
        const std::size_t type = i % kNumDtypes;
        std::string where = fmt::format("kernels.{}", kKernelNames[i / kNumDtypes]);
        if (static_cast<Dtype>(type) != Dtype::bf16) where += fmt::format(".{}", kDtypeNames[type]);
        for (const RateCurve& c : curves.forward) check_rate_curve(where + ".forward", c, problems);
        for (const RateCurve& c : curves.backward) {
            check_rate_curve(where + ".backward", c, problems);
        }
        if (curves.forward.empty() && !curves.backward.empty())
            problems.push_back({where, "a backward curve alone", "a forward curve too", ""});
    }
    for (std::size_t i = 0; i < profile.communication.size(); ++i) {
        check_time_curve(fmt::format("communication[{}]", i), profile.communication[i], problems);
    }
    for (std::size_t i = 0; i < profile.phases.size(); ++i) {
        check_phase_curve(fmt::format("phases[{}]", i), profile.phases[i], problems);
    }
    const Overheads& o = profile.overheads;
    if (o.overlap_loss > 0.0 && o.overlap_slowdown <= 1.0) {
        problems.push_back({"overheads.overlap_loss", "a loss of compute that is never slower",
                            "an overlap_slowdown above 1, or no overlap_loss", ""});
    }
    return problems;
}

}  // namespace headway::inline scenario
