#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <optional>

#include "models/scenario/check_scenario.hpp"

namespace headway {
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
    const std::size_t wanted = curve.size.size() * curve.width.size();
    if (curve.rate.size() != wanted) {
        problems.push_back({where + ".rate", fmt::format("{} rates", curve.rate.size()),
                            fmt::format("{} rows (widths) of {} entries (sizes)",
                                        curve.width.size(), curve.size.size()),
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

}  // namespace

std::vector<InputProblem> check_profile(const Profile& profile) {
    std::vector<InputProblem> problems;
    for (int i = 0; i < kNumKernels; ++i) {
        const KernelCurves& curves = profile.kernel(static_cast<Kernel>(i));
        const std::string where = fmt::format("kernels.{}", name(static_cast<Kernel>(i)));
        for (const RateCurve& c : curves.forward) check_rate_curve(where + ".forward", c, problems);
        for (const RateCurve& c : curves.backward) {
            check_rate_curve(where + ".backward", c, problems);
        }
    }
    for (std::size_t i = 0; i < profile.communication.size(); ++i) {
        check_time_curve(fmt::format("communication[{}]", i), profile.communication[i], problems);
    }
    return problems;
}

}  // namespace headway
