#include "models/scenario/layer_rules.hpp"

#include <algorithm>

namespace headway::inline scenario {

std::optional<WindowRule> window_rule(const std::vector<bool>& windowed) {
    const int layers = static_cast<int>(windowed.size());
    const auto follows = [&](auto rule) {
        for (int i = 0; i < layers; ++i) {
            if (windowed[static_cast<std::size_t>(i)] != rule(i)) return false;
        }
        return true;
    };
    if (follows([](int) { return true; })) return WindowRule{};
    for (int n = 2; n <= layers; ++n) {
        if (follows([n](int i) { return i % n == 0; })) return WindowRule{"window_every", n};
        if (follows([n](int i) { return (i + 1) % n != 0; })) return WindowRule{"full_every", n};
    }
    return std::nullopt;
}

std::optional<std::array<int, 2>> moe_rule(const std::vector<bool>& is_moe) {
    const auto first = std::find(is_moe.begin(), is_moe.end(), true);
    const auto second = first == is_moe.end() ? first : std::find(first + 1, is_moe.end(), true);
    const int every = second == is_moe.end() ? 1 : static_cast<int>(second - first);
    const int dense = static_cast<int>(first - is_moe.begin()) - every + 1;
    if (first == is_moe.end() || dense < 0) return std::nullopt;
    for (int i = 0; i < static_cast<int>(is_moe.size()); ++i) {
        const bool moe = i >= dense && (i - dense + 1) % every == 0;
        if (moe != is_moe[static_cast<std::size_t>(i)]) return std::nullopt;
    }
    return std::array{dense, every};
}

}  // namespace headway::inline scenario
