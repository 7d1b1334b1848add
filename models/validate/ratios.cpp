#include <algorithm>

#include "models/validate/validate.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline validation {
namespace {

const AnchorResult& step_named(const std::string& name, const RatioAnchor& anchor,
                               const std::vector<AnchorResult>& results) {
    std::vector<std::string> names;
    for (const AnchorResult& r : results) {
        if (r.category != AnchorCategory::step) continue;
        if (r.name == name) return r;
        names.push_back(r.name);
    }
    throw InputError({.where = "ratio '" + anchor.name + "'",
                      .found = "no step '" + name + "'",
                      .accepted = "the name of a step of the anchors",
                      .hint = did_you_mean(name, names)});
}

}  // namespace

std::vector<RatioResult> ratios(const std::vector<RatioAnchor>& anchors,
                                const std::vector<AnchorResult>& results) {
    std::vector<RatioResult> all;
    for (const RatioAnchor& anchor : anchors) {
        const AnchorResult& run = step_named(anchor.run, anchor, results);
        const AnchorResult& over = step_named(anchor.over, anchor, results);
        all.push_back({.name = anchor.name,
                       .published = run.published / over.published,
                       .predicted = run.predicted / over.predicted});
    }
    return all;
}

}  // namespace headway::inline validation
