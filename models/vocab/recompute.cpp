#include "models/vocab/recompute.hpp"

#include <fmt/format.h>

namespace headway {

std::string recompute_text(const Recompute& recompute) {
    for (const RecomputeLevel level : kRecomputeLevels) {
        if (recompute == Recompute(level))
            return std::string(kRecomputeNames[static_cast<std::size_t>(level)]);
    }
    if (recompute.is_full())
        return fmt::format("full, {} of {}",
                           kRecomputeMethodNames[static_cast<std::size_t>(recompute.method)],
                           recompute.num_layers);
    std::string text;
    for (std::size_t i = 0; i < kRecomputeModuleNames.size(); ++i) {
        if (!recompute.has(static_cast<RecomputeModule>(i))) continue;
        text += fmt::format("{}{}", text.empty() ? "" : "+", kRecomputeModuleNames[i]);
    }
    return text;
}

}  // namespace headway
