#include "cli/calibration/curve_note.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

namespace headway::cli {
namespace {

struct Named {
    std::string name, source;
    double residual = 0.0;
};

std::vector<Named> curves_of(const Profile& profile) {
    std::vector<Named> all;
    for (int k = 0; k < kNumKernels; ++k) {
        const Kernel kernel = static_cast<Kernel>(k);
        const auto add = [&](const std::vector<RateCurve>& curves, const std::string& pass) {
            for (const RateCurve& c : curves)
                all.push_back({fmt::format("{}{}", name(kernel), pass), c.source, c.residual});
        };
        for (int t = 0; t < kNumDtypes; ++t) {
            const auto type = static_cast<Dtype>(t);
            if (rate_type(type) != type || (is_byte_rate(kernel) && type != Dtype::bf16)) continue;
            const std::string in = type == Dtype::bf16 ? "" : fmt::format(" {}", kDtypeNames[t]);
            add(profile.kernel(kernel, type).forward, in);
            add(profile.kernel(kernel, type).backward, in + " backward");
        }
    }
    for (const TimeCurve& c : profile.communication) {
        all.push_back(
            {fmt::format("{} over {} ({} ranks)", name(c.collective), name(c.path), c.num_ranks),
             c.source, c.residual});
    }
    for (const PhaseCurve& c : profile.phases) {
        const std::string phase = fmt::format("phase {} {}", name(c.phase), name(c.pass));
        const auto same = [&](const Named& n) { return n.name == phase && n.source == c.source; };
        if (std::none_of(all.begin(), all.end(), same))
            all.push_back({phase, c.source, c.residual});
    }
    if (!profile.overheads.source.empty())
        all.push_back({"overheads", profile.overheads.source, profile.overheads.residual});
    return all;
}

}  // namespace

std::string curve_note(const Profile& base, const Profile& profile) {
    const std::vector<Named> before = curves_of(base);
    std::vector<std::string> added, kept;
    for (const Named& curve : curves_of(profile)) {
        const bool is_old = std::any_of(before.begin(), before.end(), [&](const Named& b) {
            return b.name == curve.name && b.source == curve.source && b.residual == curve.residual;
        });
        (is_old ? kept : added).push_back(curve.name);
    }
    std::string text = fmt::format("New: {}.", fmt::join(added, ", "));
    if (kept.empty()) return text + " No base: what has no curve cannot be predicted.";
    text += fmt::format(" From {} ({}, {}): {}.", base.name, base.provenance.kind,
                        base.provenance.device, fmt::join(kept, ", "));
    if (!base.provenance.note.empty()) text += " Its note: " + base.provenance.note;
    return text;
}

}  // namespace headway::cli
