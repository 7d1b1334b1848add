// What the prices so far have asked of curves beyond what was measured.
#include "models/cost/price.hpp"

#include <fmt/format.h>

#include <cmath>
#include <string>
#include <string_view>
#include <vector>

namespace headway::inline cost {
namespace {

// What the size of a kernel counts (vocab/profile.hpp).
std::string_view size_unit(Kernel kernel) {
    switch (kernel) {
        case Kernel::dense_gemm:
            return "FLOPs";
        case Kernel::grouped_gemm:
        case Kernel::grouped_gemm_gelu:
        case Kernel::grouped_gemm_swiglu:
        case Kernel::fused_expert:
        case Kernel::fused_expert_swiglu:
            return "rows an expert";
        case Kernel::attention:
            return "tokens of a sequence";
        case Kernel::router:
            return "tokens";
        default:
            return "bytes";
    }
}

// Four digits that count, "33,060" instead of 3.306e+04.
std::string plain(double value) {
    if (value < 1000.0) return fmt::format("{:.4g}", value);
    const double last = std::pow(10.0, std::floor(std::log10(value)) - 3.0);
    std::string text = fmt::format("{:.0f}", std::round(value / last) * last);
    for (auto at = static_cast<int>(text.size()) - 3; at > 0; at -= 3)
        text.insert(static_cast<std::size_t>(at), 1, ',');
    return text;
}

std::string look_ups(int count) {
    return fmt::format("{} look-up{}", count, count == 1 ? "" : "s");
}

}  // namespace

std::string PriceBook::warning_of(KernelSource source, const Account& a) const {
    const RateCurve& curve = curve_of(source.kernel, source.dtype, source.pass);
    const std::string_view type = kDtypeNames[static_cast<std::size_t>(source.dtype)];
    const std::string what =
        fmt::format("{} ({}{})", name(source.kernel),
                    source.dtype == dtype_ ? "" : fmt::format("{}, ", type), name(source.pass));
    std::string text;
    if (a.outside > 0) {
        text = fmt::format(
            "{}: {} outside the measured range: {}..{} {} asked, {}..{} measured, widths {}..{} "
            "measured; the nearest rate was used",
            what, look_ups(a.outside), plain(a.lowest), plain(a.highest), size_unit(source.kernel),
            plain(curve.size.front()), plain(curve.size.back()), plain(curve.width.front()),
            plain(curve.width.back()));
    }
    if (a.capped > 0) {
        text += fmt::format(
            "{}: {} above what {} can do, which was used instead: is the profile of "
            "another device ({})?",
            text.empty() ? what : "; and", look_ups(a.capped), cluster_.device.name,
            profile_.provenance.device);
    }
    return text;
}

std::string PriceBook::warning_of(const TimeCurve& curve, const Account& a) const {
    const std::string what = fmt::format("{} over {}", name(curve.collective), name(curve.path));
    if (a.highest <= curve.bytes.front()) {
        return fmt::format(
            "{}: {} below the smallest measured size: down to {} bytes asked, {} measured; {}",
            what, look_ups(a.outside), plain(a.lowest), plain(curve.bytes.front()),
            curve.bytes.size() == 1 ? "its bandwidth was kept, without a latency"
                                    : "the first slope was kept");
    }
    return fmt::format(
        "{}: {} beyond the largest measured size: up to {} bytes asked, {} measured; the last "
        "slope "
        "was kept",
        what, look_ups(a.outside), plain(a.highest), plain(curve.bytes.back()));
}

std::string PriceBook::warning_of(const PhaseCurve& curve, const Account& a) const {
    return fmt::format(
        "phase {} {} ({}): {} outside the measured layers: {} {}..{} asked, {}..{} "
        "measured; its terms were used beyond them",
        name(curve.phase), name(curve.pass), kLayerKindNames[static_cast<std::size_t>(curve.layer)],
        look_ups(a.outside), a.what, plain(a.lowest), plain(a.highest), plain(a.measured.least),
        plain(a.measured.most));
}

std::vector<std::string> PriceBook::warnings() const {
    std::vector<std::string> result;
    for (const TimeCurve& curve : profile_.communication) {
        if (!accounts_[index_of(&curve)].used || curve.link > Bandwidth{}) continue;
        result.push_back(
            fmt::format("{} over {} ({} ranks): the profile does not say which link it was "
                        "measured on; its times are taken as those of this cluster's",
                        name(curve.collective), name(curve.path), curve.num_ranks));
    }
    for (std::size_t i = 0; i < accounts_.size(); ++i) {
        const Account& a = accounts_[i];
        if (a.outside == 0 && a.capped == 0) continue;
        const Source source = source_at(i);
        if (const auto* kernel = std::get_if<KernelSource>(&source))
            result.push_back(warning_of(*kernel, a));
        else if (const auto* time = std::get_if<const TimeCurve*>(&source))
            result.push_back(warning_of(**time, a));
        else if (const auto* phase = std::get_if<const PhaseCurve*>(&source))
            result.push_back(warning_of(**phase, a));
    }
    return result;
}

}  // namespace headway::inline cost
